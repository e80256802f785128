"""What reaches a kernel from a page: widgets that check it, and paths that a visitor may name."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import anywidget

from stemlab._assets import demo_song_dir
from stemlab._isolation import SERVED_FOLDER
from stemlab._typing import StrPath
from stemlab.errors import ParameterError, StemlabError

STATIC = Path(__file__).resolve().parent / "static"
_MOST_CHARACTERS = 10_000

_Result = TypeVar("_Result")
Message = tuple[dict[str, Any], list[bytes]]
"""Content and buffers."""


def is_served() -> bool:
    """Whether others than the owner of the server may use the panels (``stemlab lab --voila``)."""
    return bool(os.environ.get(SERVED_FOLDER))


def panel_path(text: StrPath) -> Path:
    """Check a path that a panel got; for visitors, it must be in the served folder."""
    path = Path(os.path.expanduser(text))
    try:
        real = Path(os.path.realpath(path))
    except ValueError as error:  # For instance a null character.
        raise ParameterError(f"{str(text)!r} is not a path. Choose a file or folder.") from error
    if is_served():
        folders = (os.environ[SERVED_FOLDER], demo_song_dir())
        if not any(real.is_relative_to(os.path.realpath(folder)) for folder in folders):
            # The same text whether it exists or not, which a visitor must not find out.
            raise ParameterError(
                f"{str(text)!r} is outside the folder that is served here. Choose one inside it."
            )
    return path


def in_words(error: Exception) -> str:
    """Describe an error as panels show it."""
    if isinstance(error, StemlabError):
        return str(error)
    return f"This is a bug of stemlab, please report it. {type(error).__name__}: {error}"


@contextmanager
def telling_failures(send: Callable[..., None]) -> Iterator[None]:
    """Tell the page why it gets no answer; otherwise it would ask again."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        send({"kind": "failed", "message": in_words(error)})


def wait_for(widget: Any, what: str, future: Future[_Result], timeout: float | None) -> _Result:
    """Wait for a result of a widget's work; interrupting the wait cancels the work."""
    try:
        return future.result(timeout)
    except KeyboardInterrupt:
        widget.cancel()
        raise
    except TimeoutError:
        if future.done():  # At this moment, or with such an error.
            return future.result()
        raise TimeoutError(
            f"{what} is not done after timeout={timeout} s ({widget.progress:.0%}). Wait again, "
            "or call cancel()."
        ) from None


class PageWidget(anywidget.AnyWidget):
    """A widget whose page can set only traits tagged ``page=True``, and only to valid values.

    Anything else that a page sends is ignored, with a line in the log.
    """

    # What a page is setting, for observers of the traits.
    _from_page: Mapping[str, Any] = MappingProxyType({})

    def set_state(self, sync_data: Mapping[str, Any]) -> None:
        """Take from a page what it may set, and send it the true values of the rest."""
        taken = {name: value for name, value in sync_data.items() if self._takes(name, value)}
        refused = [name for name in sync_data if name not in taken and name in self.keys]
        if len(taken) < len(sync_data):
            self.log.warning("%s: a page tried to set what it may not", type(self).__name__)
        self._from_page = taken
        try:
            super().set_state(taken)
        finally:
            self._from_page = {}
        if refused:
            self.send_state(refused)

    def _takes(self, name: str, value: object) -> bool:
        if name not in self.trait_names(page=True):
            return False
        if isinstance(value, str) and len(value) > _MOST_CHARACTERS:
            return False
        try:
            self.traits()[name]._validate(self, value)
        except Exception:  # noqa: BLE001  # Validators of traits raise errors of many kinds.
            return False
        return True

    def _handle_msg(self, msg: Mapping[str, Any]) -> None:
        match msg:
            case {"content": {"data": {"method": "update", "state": dict(state)}}}:
                # Without buffers: no trait that a page sets holds bytes.
                data: dict[str, Any] = {"method": "update", "state": state}
            case {"content": {"data": {"method": "request_state"}}}:
                data = {"method": "request_state"}
            case {"content": {"data": {"method": "custom", "content": dict(content)}}}:
                data = {"method": "custom", "content": content}
            case _:
                self.log.warning("%s: unknown message", type(self).__name__)
                return
        super()._handle_msg({"content": {"data": data}, "buffers": msg.get("buffers") or []})


class KeyKeeper(PageWidget):
    """Keeps keys that are pressed in panels away from the notebook; shows nothing."""

    _esm = STATIC / "keys.js"
