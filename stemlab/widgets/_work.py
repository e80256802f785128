"""The base of all panels: fields bound to traits, work in a thread, progress and errors."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from html import escape
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Generic, TypeVar

import ipywidgets
import traitlets

from stemlab.errors import SeparationError, StemlabError
from stemlab.widgets._fields import button, close_tree
from stemlab.widgets._page import KeyKeeper, in_words, wait_for
from stemlab.widgets.mixer import StemMixer

# How long closing a panel, or shutting down the kernel, waits for the work to clear up.
_SHUTDOWN_SECONDS = 30

Result = TypeVar("Result")


class _Cancelled(Exception):
    """Raised within the work to end it."""


class WorkPanel(ipywidgets.VBox, Generic[Result]):  # type: ignore[misc]  # ipywidgets has no types
    """A panel that does one piece of work at a time, in a thread of its own.

    Fields stay enabled during the work: what is chosen meanwhile is for the next run.
    """

    state = traitlets.Enum(["idle", "running", "done", "cancelled", "failed"], "idle")
    progress = traitlets.Float(0.0)
    message = traitlets.Unicode()
    error = traitlets.Unicode()
    mixer = traitlets.Instance(StemMixer, allow_none=True)

    _cancelled_message = "Cancelled."
    # Traits in the repr, which is the same on every machine: notebooks are compared with it.
    _in_repr: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.add_class("stemlab-panel")
        self._closed = False
        self._busy = threading.Lock()
        self._stop = threading.Event()
        self._future: Future[Result] | None = None
        self._status, self._results = ipywidgets.HTML(), ipywidgets.VBox()
        self.observe(self._show_status, ["message", "error"])
        self._show_status()

    def __del__(self) -> None:
        # ipywidgets would close the widget here, which fails if its constructor did.
        pass

    def __repr__(self) -> str:
        values = {name: getattr(self, name) for name in self._in_repr}
        if "song" in values:
            values["song"] = Path(values["song"]).name
        shown = (
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value!r}"
            for name, value in values.items()
        )
        return f"{type(self).__name__}({', '.join(shown)})"

    def cancel(self) -> None:
        """Ask the work to stop as soon as it can; nothing half-done is left."""
        if self._busy.locked():
            self._stop.set()
            self.message = "Stopping."

    def wait(self, timeout: float | None = None) -> Result:
        """Wait for the work to end, and return its result; interrupting the wait cancels it.

        Raises TimeoutError if the work goes on for longer than `timeout` (in seconds; None for no
        limit), SeparationError if it was cancelled or there was none, and what made it fail.
        """
        if self._future is None:
            raise SeparationError(
                "nothing was started yet. Press a button of the panel, or call its method."
            )
        future = None
        while future is not self._future:  # The end of the work may start more.
            future = self._future
            result = wait_for(self, "the work", future, timeout)
        return result

    def close(self) -> None:
        """Stop the work and take the panel off the page."""
        self._closed = True
        self._shut_down()
        self._show_results()
        super().close()
        for part in self.children:
            close_tree(part)

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
            value = to_field(getattr(self, name))
            try:
                with field.hold_trait_notifications():
                    if isinstance(value, (int, float)) and field.has_trait("max"):
                        field.min, field.max = min(field.min, value), max(field.max, value)
                    field.value = value
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

    def _start(self, work: Callable[[Any], Result], message: str) -> bool:
        """Run `work` in a thread; return False if other work is going on, and do nothing then.

        It is called with the traits as they are now: the fields may change while it goes on.
        """
        chosen = SimpleNamespace(**self.trait_values())
        if not self._busy.acquire(blocking=False):
            return False
        self._stop.clear()
        self._future = future = Future[Result]()
        self.error, self.progress, self.message = "", 0.0, message
        self.state = "running"
        atexit.register(self._shut_down)
        threading.Thread(
            target=self._run,
            args=(work, chosen, future),
            name=f"stemlab-{type(self).__name__}",
            # Python waits for other threads before it asks anything to stop.
            daemon=True,
        ).start()
        return True

    def _report(self, progress: float) -> None:
        """Show the progress, and end the work here if the user has cancelled it."""
        self._check_stop()
        self.progress = progress

    def _check_stop(self) -> None:
        """End the work if the user has cancelled it. Call this from within the work."""
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
    ) -> ipywidgets.VBox:
        """Lay out the buttons, which are disabled during the work, Cancel, progress and status."""
        stop = button("Cancel", cancel_tooltip, self.cancel)
        bar = ipywidgets.FloatProgress(
            max=1.0, tooltip="Progress", layout=ipywidgets.Layout(width="14em")
        )
        traitlets.dlink((self, "progress"), (bar, "value"))
        traitlets.dlink((self, "state"), (stop, "disabled"), lambda state: state != "running")
        for starter in buttons:
            traitlets.dlink(
                (self, "state"), (starter, "disabled"), lambda state: state == "running"
            )
        row = ipywidgets.HBox([*buttons, stop, bar, KeyKeeper()])
        return ipywidgets.VBox([row, self._status])

    def _run(self, work: Callable[[Any], Result], chosen: Any, future: Future[Result]) -> None:
        """Work in the thread. Nothing may escape: an exception in a thread reaches nobody."""
        result: Any = None
        failure: Exception | None = None
        state = "failed"
        try:
            result = work(chosen)
        except _Cancelled:
            state, self.message = "cancelled", self._cancelled_message
            failure = SeparationError("the run was cancelled. Start it again.")
        except Exception as error:  # noqa: BLE001
            failure = error
            self.message, self.error = "Failed.", in_words(error)
        else:
            state, self.progress = "done", 1.0
        atexit.unregister(self._shut_down)
        self._busy.release()
        try:
            self.state = state
        finally:
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)

    def _shut_down(self) -> None:
        self._stop.set()
        if self._future is not None:
            wait([self._future], _SHUTDOWN_SECONDS)

    def _show_status(self, _: object = None) -> None:
        # With these roles, a screen reader speaks what changes.
        status = f'<div role="status" style="line-height: 1.4">{escape(self.message)}</div>'
        if self.error:
            status += (
                '<div role="alert" style="color: var(--jp-error-color1, #b00020)">'
                f"<b>Error:</b> {escape(self.error)}</div>"
            )
        self._status.value = status
