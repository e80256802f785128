"""Find widgets in a panel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ipywidgets


def parts(widget: Any) -> Iterator[Any]:
    """A widget and all widgets in it."""
    yield widget
    for each in getattr(widget, "children", ()):
        yield from parts(each)


def find(panel: Any, kind: type[Any], description: str) -> Any:
    (found,) = (
        each for each in parts(panel) if isinstance(each, kind) and each.description == description
    )
    return found


def shown(panel: Any) -> str:
    return "\n".join(each.value for each in parts(panel) if isinstance(each, ipywidgets.HTML))
