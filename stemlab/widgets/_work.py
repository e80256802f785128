"""What all panels share: work off the main thread, its progress, its end, and errors in words."""

from __future__ import annotations

import atexit
import threading
from base64 import b64encode
from collections.abc import Callable
from html import escape
from io import BytesIO
from typing import Any

import ipywidgets
import traitlets
from matplotlib.figure import Figure

from stemlab.errors import SeparationError
from stemlab.widgets._page import KeyKeeper, in_words
from stemlab.widgets.mixer import StemMixer

__all__ = ["LABELS", "WIDE", "WorkPanel", "indented", "picture"]

# How long a kernel that is shut down, or a panel that is closed, waits for the work to clear up.
_SHUTDOWN_SECONDS = 30
WIDE = {"width": "36em", "max_width": "100%"}
LABELS = {"description_width": "6.5em"}


def indented(widget: Any) -> Any:
    """Move a widget that has no label to where the fields of the others begin."""
    widget.layout.margin = "2px 2px 2px calc(6.5em + 8px)"
    return widget


def picture(figure: Figure, told: str) -> ipywidgets.HTML:
    """Make a figure into a widget, which threads can show as well."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=90)
    return ipywidgets.HTML(
        f'<img alt="{escape(told)}" style="max-width: 100%" '
        f'src="data:image/png;base64,{b64encode(content.getvalue()).decode()}">'
    )


class _Cancelled(Exception):
    """Raised in the work, where the library lets a caller stop it."""


class WorkPanel(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A panel that does one piece of work at a time, in a thread of its own."""

    state = traitlets.Enum(["idle", "running", "done", "cancelled", "failed"], "idle")
    progress = traitlets.Float(0.0)
    message = traitlets.Unicode()
    error = traitlets.Unicode()
    mixer = traitlets.Instance(StemMixer, allow_none=True)

    _thread_name = "stemlab-work"
    _cancelled_message = "Cancelled."

    def __init__(self) -> None:
        super().__init__()
        self.add_class("stemlab-panel")
        self._busy = False
        self._starting = threading.Lock()
        self._stop = threading.Event()
        self._ended: threading.Event | None = None
        self._result: Any = None
        self._failure: BaseException | None = None
        self._status, self._results = ipywidgets.HTML(), ipywidgets.VBox()
        self.observe(self._show_status, ["message", "error"])

    def __del__(self) -> None:
        # ipywidgets keeps every widget until it is closed: this one could not even be made.
        pass

    def cancel(self) -> None:
        """Ask the work to stop, which it does as soon as it can; nothing half-done is left."""
        if self._busy:
            self._stop.set()
            self.message = "Stopping."

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for the work to end; interrupting the wait cancels it."""
        if self._ended is None:
            raise SeparationError("nothing was started yet. Press the button, or call its method.")
        try:
            ended = self._ended.wait(timeout)
        except KeyboardInterrupt:
            self.cancel()
            raise
        if not ended:
            raise TimeoutError(
                f"the work is not done after timeout={timeout} s ({self.progress:.0%}). "
                "Wait again, or call cancel()."
            )
        if self._failure is not None:
            raise self._failure
        return self._result

    def close(self) -> None:
        """Stop the work and take the panel off the page."""
        self._shut_down()
        self._show_results()
        super().close()

    # ------------------------------------------------------------ for the panels

    def _start(self, work: Callable[[], Any], message: str) -> bool:
        """Run `work` in a thread, unless one is at work already: then nothing happens."""
        with self._starting:
            if self._busy:
                return False
            self._busy = True
        self._stop.clear()
        # One of this run: an interrupted Thread.join would take the thread for ended.
        self._ended = threading.Event()
        self._result = self._failure = None
        self.error, self.progress, self.message = "", 0.0, message
        self.state = "running"
        atexit.register(self._shut_down)
        threading.Thread(
            target=self._run,
            args=(work, self._ended),
            name=self._thread_name,
            # Python waits for other threads before it asks anything to stop.
            daemon=True,
        ).start()
        return True

    def _check_stop(self) -> None:
        """End the work here if that was asked for; called from within it."""
        if self._stop.is_set():
            raise _Cancelled

    def _show_results(self, *widgets: ipywidgets.Widget) -> None:
        """Show these in place of what was shown before, which goes from kernel and page."""
        before = self._results.children
        self.mixer = next((each for each in widgets if isinstance(each, StemMixer)), None)
        self._results.children = widgets
        for each in before:
            each.close()

    def _buttons(
        self, *buttons: ipywidgets.Button, cancel_tooltip: str = "Stop the work"
    ) -> ipywidgets.HBox:
        """Lay out what starts the work, what stops it, and how far it is."""
        stop = ipywidgets.Button(description="Cancel", tooltip=cancel_tooltip, disabled=True)
        stop.on_click(lambda _: self.cancel())
        bar = ipywidgets.FloatProgress(
            max=1.0, tooltip="Share that is done", layout=ipywidgets.Layout(width="14em")
        )
        traitlets.dlink((self, "progress"), (bar, "value"))

        def show(_: object) -> None:
            running = self.state == "running"
            stop.disabled = not running
            for each in buttons:
                each.disabled = running

        self.observe(show, "state")
        return ipywidgets.HBox([*buttons, stop, bar, KeyKeeper()])

    def _run(self, work: Callable[[], Any], ended: threading.Event) -> None:
        """Work in the thread. Nothing may escape: an exception of a thread reaches nobody."""
        state = "failed"
        try:
            self._result = work()
        except _Cancelled:
            state, self.message = "cancelled", self._cancelled_message
            self._failure = SeparationError("the run was cancelled. Start it anew.")
        except Exception as error:  # noqa: BLE001
            self._failure = error
            self.message, self.error = "This did not work.", in_words(error)
        else:
            state, self.progress = "done", 1.0
        atexit.unregister(self._shut_down)
        self._busy = False
        try:
            self.state = state
        finally:
            ended.set()

    def _shut_down(self) -> None:
        self._stop.set()
        if self._ended is not None:
            self._ended.wait(_SHUTDOWN_SECONDS)

    def _show_status(self, _: object = None) -> None:
        # Roles, so that a screen reader speaks what changes.
        self._status.value = (
            f'<div role="status" style="line-height: 1.4">{escape(self.message)}</div>'
            + (
                '<div role="alert" style="color: var(--jp-error-color1, #b00020)">'
                f"<b>Error:</b> {escape(self.error)}</div>"
                if self.error
                else ""
            )
        )
