"""The base of all panels: fields bound to traits, work in a thread, progress and errors."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets
import traitlets

from stemlab.errors import SeparationError, StemlabError
from stemlab.widgets._fields import button, indented
from stemlab.widgets._page import KeyKeeper, in_words
from stemlab.widgets.mixer import StemMixer

__all__ = ["WorkPanel"]

# How long closing a panel, or shutting down the kernel, waits for the work to clear up.
_SHUTDOWN_SECONDS = 30


class _Cancelled(Exception):
    """Raised within the work to end it."""


class WorkPanel(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A panel that does one piece of work at a time, in a thread of its own.

    Fields stay enabled during the work: what is chosen meanwhile is for the next run.
    """

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
        self._show_status()

    def __del__(self) -> None:
        # ipywidgets would close the widget here, which fails if its constructor did.
        pass

    def cancel(self) -> None:
        """Ask the work to stop as soon as it can; nothing half-done is left."""
        if self._busy:
            self._stop.set()
            self.message = "Stopping."

    def wait(self, timeout: float | None = None) -> Any:
        """Wait for the work to end; interrupting the wait cancels it."""
        if self._ended is None:
            raise SeparationError(
                "nothing was started yet. Press a button of the panel, or call its method."
            )
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

    def _bind(
        self,
        name: str,
        field: Any,
        *,
        to_field: Callable[[Any], Any] = lambda value: value,
        to_trait: Callable[[Any], Any] = lambda value: value,
    ) -> Any:
        """Keep a trait and a field equal, and return the field.

        The trait wins: the field starts with its value, stretches its range to values set from
        code, and goes back when the trait refuses what the user entered.
        """
        showing = False

        def show(_: object = None) -> None:
            nonlocal showing
            showing = True
            try:
                _show_value(field, to_field(getattr(self, name)))
            finally:
                showing = False

        def take(change: traitlets.Bunch) -> None:
            if showing:
                return
            try:
                setattr(self, name, to_trait(change.new))
            except StemlabError as error:
                self.error = in_words(error)
            show()

        show()
        self.observe(show, name)
        field.observe(take, "value")
        return field

    def _caption(self, name: str) -> Any:
        """Show a trait of text in small print."""
        caption = indented(ipywidgets.HTML())
        traitlets.dlink(
            (self, name),
            (caption, "value"),
            lambda text: f'<small role="status">{escape(text)}</small>',
        )
        return caption

    def _start(self, work: Callable[[], Any], message: str) -> bool:
        """Run `work` in a thread; return False if other work is going on, and do nothing then."""
        with self._starting:
            if self._busy:
                return False
            self._stop.clear()
            self._busy = True
        # One per run: Thread.join, when interrupted, would report the thread as ended.
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
        """End the work if that was asked for. Call this from within the work."""
        if self._stop.is_set():
            raise _Cancelled

    def _show_results(self, *widgets: ipywidgets.Widget) -> None:
        """Show these in place of the earlier results, which are closed."""
        earlier = self._results.children
        self.mixer = next((widget for widget in widgets if isinstance(widget, StemMixer)), None)
        self._results.children = widgets
        for widget in earlier:
            widget.close()

    def _controls(
        self, *buttons: ipywidgets.Button, cancel_tooltip: str = "Stop the work"
    ) -> ipywidgets.HBox:
        """Lay out the buttons, which are disabled during the work, Cancel and the progress bar."""
        stop = button("Cancel", cancel_tooltip, self.cancel)
        stop.disabled = True
        bar = ipywidgets.FloatProgress(
            max=1.0, tooltip="Progress", layout=ipywidgets.Layout(width="14em")
        )
        traitlets.dlink((self, "progress"), (bar, "value"))

        def show(_: object) -> None:
            running = self.state == "running"
            stop.disabled = not running
            for starter in buttons:
                starter.disabled = running

        self.observe(show, "state")
        return ipywidgets.HBox([*buttons, stop, bar, KeyKeeper()])

    def _run(self, work: Callable[[], Any], ended: threading.Event) -> None:
        """Work in the thread. Nothing may escape: an exception in a thread reaches nobody."""
        state = "failed"
        try:
            self._result = work()
        except _Cancelled:
            state, self.message = "cancelled", self._cancelled_message
            self._failure = SeparationError("the run was cancelled. Start it again.")
        except Exception as error:  # noqa: BLE001
            self._failure = error
            self.message, self.error = "Failed.", in_words(error)
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
        # With these roles, a screen reader speaks what changes.
        status = f'<div role="status" style="line-height: 1.4">{escape(self.message)}</div>'
        if self.error:
            status += (
                '<div role="alert" style="color: var(--jp-error-color1, #b00020)">'
                f"<b>Error:</b> {escape(self.error)}</div>"
            )
        self._status.value = status


def _show_value(field: Any, value: Any) -> None:
    with field.hold_trait_notifications():
        if isinstance(value, (int, float)) and field.has_trait("max"):
            field.min, field.max = min(field.min, value), max(field.max, value)
        field.value = value
