"""The named grids of the sweep panel, and the numbers that its fields hold."""

from __future__ import annotations

from typing import Any, TypeVar

import ipywidgets

from stemlab.errors import ParameterError
from stemlab.widgets._fields import indented

__all__ = ["GRIDS", "OWN_VALUES", "grid_buttons", "numbers"]

_MANY_OVERLAPS = "0, 0.1, 0.25, 0.5, 0.75"
# No segments stand for the default one, a half and a quarter of it.
GRIDS: dict[str, dict[str, Any]] = {
    name: {"segments": "", "overlaps": overlaps, "shifts": shifts, "excerpt_seconds": seconds}
    for name, overlaps, shifts, seconds in (
        ("small", "0, 0.25, 0.5", "0", 10.0),
        ("medium", _MANY_OVERLAPS, "0", 30.0),
        ("large", _MANY_OVERLAPS, "0, 1, 2", 60.0),
    )
}
OWN_VALUES = "own values"

_Number = TypeVar("_Number", int, float)


def grid_buttons() -> Any:
    """Make a row of buttons, one per grid."""
    tooltips = [
        f"Three segments, overlaps {grid['overlaps']}, shifts {grid['shifts']}, "
        f"{grid['excerpt_seconds']:g} s of the song"
        for grid in GRIDS.values()
    ]
    # Without a description, which would stand above them.
    return indented(
        ipywidgets.ToggleButtons(
            options=[*((f"{name} grid", name) for name in GRIDS), ("custom grid", OWN_VALUES)],
            tooltips=[*tooltips, "The values in the fields below"],
            layout=ipywidgets.Layout(width="48em", max_width="100%"),
            style={"button_width": "8em"},
        )
    )


def numbers(name: str, text: str, kind: type[_Number]) -> list[_Number]:
    """Read numbers that are separated by commas."""
    try:
        return [kind(number) for number in text.split(",")] if text.strip() else []
    except ValueError:
        what = {"int": "whole numbers"}.get(kind.__name__, "numbers")
        raise ParameterError(
            f"{name}={text!r} is not a list of {what} separated by commas. Write for instance "
            "0, 1, 2."
        ) from None
