"""Widgets that check what a page sends: a program that reaches the page can send anything."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Any

import anywidget

from stemlab.errors import StemlabError

__all__ = ["STATIC", "KeyKeeper", "Message", "PageWidget", "in_words", "telling_failures"]

STATIC = Path(__file__).resolve().parent / "static"
_MOST_CHARACTERS = 10_000

Message = tuple[dict[str, Any], list[bytes]]
"""Content and buffers."""


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
