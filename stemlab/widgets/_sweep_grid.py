"""The grid of a sweep: its named sizes, and the table with a button for each setting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import ipywidgets
import matplotlib
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex

from stemlab.errors import ParameterError
from stemlab.metrics import FIGURES
from stemlab.metrics.figures import by_setting
from stemlab.sweeps import SweepSetting
from stemlab.widgets._fields import close_tree, indented

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
# The figures that a cell can show.
SHOWN = (
    *("sdr_db", "agreement_db", "seam_db", "rtf"),
    *("calls", "wasted_share", "peak_memory_bytes"),
)

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
        raise ParameterError(
            f"{name}={text!r} is not a list of {'whole ' * (kind is int)}numbers separated by "
            "commas. Write for instance 0, 1, 2."
        ) from None


class SettingTable(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """One grid per number of shifts and padding: segments down, overlaps across."""

    def __init__(self, select: Callable[[SweepSetting], None]) -> None:
        super().__init__()
        self._select = select
        self._cells: dict[SweepSetting, ipywidgets.Button] = {}
        self._parts: list[Any] = []

    def show(
        self,
        settings: list[SweepSetting],
        results: pd.DataFrame,
        figure: str,
        recommended: SweepSetting | None,
    ) -> None:
        """Write a figure of the results into the cells: the better, the darker."""
        if set(settings) != set(self._cells):
            self._lay_out(settings)
        shown = FIGURES[figure]
        rows = {
            SweepSetting.of_row(row): row for row in by_setting(results).to_dict(orient="records")
        }
        values = {setting: float(row[figure]) for setting, row in rows.items()}
        finite = [value for value in values.values() if np.isfinite(value)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
        for setting, button in self._cells.items():
            value = values.get(setting, np.nan)
            error = rows[setting]["error"] if setting in rows else ""
            is_known = bool(np.isfinite(value))
            text = shown.number(value) if is_known else "–"
            button.description = text if is_known else "…"
            if setting == recommended:
                button.description = f"★ {button.description}"
            button.tooltip = f"{setting}: {shown.title} {text}"
            if error:
                button.description, button.tooltip = "failed", str(error)
            button.disabled = setting not in rows or bool(error)
            share = 0.5 if high == low else (value - low) / (high - low)
            goodness = share if shown.more_is_better else 1 - share
            on_colour = "#ffffff" if goodness > 0.55 else "#000000"
            shade = to_hex(matplotlib.colormaps["Blues"](goodness))
            button.style.text_color = on_colour if is_known else None
            button.style.button_color = shade if is_known else None

    def _lay_out(self, settings: list[SweepSetting]) -> None:
        self._cells = {setting: self._cell(setting) for setting in settings}
        earlier, self._parts = self._parts, []
        groups = dict.fromkeys((setting.shifts, setting.padded) for setting in settings)
        for shifts, padded in groups:
            title = f"<b>Shifts {shifts}, {'padded' if padded else 'not padded'}</b>"
            self._parts += [ipywidgets.HTML(title), self._grid(shifts, padded)]
        self.children = self._parts
        for part in earlier:
            close_tree(part)

    def _cell(self, setting: SweepSetting) -> ipywidgets.Button:
        button = ipywidgets.Button(
            description="…", disabled=True, layout=ipywidgets.Layout(width="100%", margin="0")
        )
        button.add_class("stemlab-loads-mixer")
        button.on_click(lambda _: self._select(setting))
        return button

    def _grid(self, shifts: int, padded: bool) -> ipywidgets.GridBox:
        cells = {
            (setting.segment_seconds, setting.overlap): button
            for setting, button in self._cells.items()
            if (setting.shifts, setting.padded) == (shifts, padded)
        }
        segments, overlaps = (sorted(set(values)) for values in zip(*cells, strict=True))
        children = [ipywidgets.Label("segment \\ overlap")]
        children += [ipywidgets.Label(f"{overlap:g}") for overlap in overlaps]
        for segment in segments:
            children.append(ipywidgets.Label(f"{segment:.4g} s"))
            for overlap in overlaps:
                children.append(cells.get((segment, overlap)) or ipywidgets.Label("–"))
        columns = f"10em repeat({len(overlaps)}, 8em)"
        layout = ipywidgets.Layout(grid_template_columns=columns, grid_gap="2px")
        return ipywidgets.GridBox(children, layout=layout)
