"""The table of a sweep: one button per setting, coloured by a figure."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets
import matplotlib
import numpy as np
import pandas as pd

from stemlab.metrics import FIGURES
from stemlab.sweeps import SweepSetting
from stemlab.sweeps.table import by_setting

__all__ = ["SHOWN", "SettingTable"]

# The figures that a cell can show.
SHOWN = (
    *("sdr_db", "agreement_db", "seam_db", "rtf"),
    *("calls", "wasted_share", "peak_memory_bytes"),
)


class SettingTable(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """One grid per number of shifts and padding: segments down, overlaps across."""

    def __init__(self, select: Callable[[SweepSetting], None]) -> None:
        super().__init__()
        self._select = select
        self._cells: dict[SweepSetting, ipywidgets.Button] = {}

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
            _paint(button, goodness if is_known else None)

    def _lay_out(self, settings: list[SweepSetting]) -> None:
        earlier = list(self._cells.values())
        self._cells = {setting: self._cell(setting) for setting in settings}
        groups: dict[tuple[int, bool], list[SweepSetting]] = {}
        for setting in settings:
            groups.setdefault((setting.shifts, setting.padded), []).append(setting)
        self.children = [
            ipywidgets.VBox([_title(shifts, padded), self._grid(group)])
            for (shifts, padded), group in groups.items()
        ]
        for button in earlier:
            button.close()

    def _cell(self, setting: SweepSetting) -> ipywidgets.Button:
        button = ipywidgets.Button(
            description="…", disabled=True, layout=ipywidgets.Layout(width="100%", margin="0")
        )
        button.add_class("stemlab-loads-mixer")
        button.on_click(lambda _: self._select(setting))
        return button

    def _grid(self, group: list[SweepSetting]) -> ipywidgets.GridBox:
        overlaps = sorted({setting.overlap for setting in group})
        cells = {
            (setting.segment_seconds, setting.overlap): self._cells[setting] for setting in group
        }
        children = [ipywidgets.Label("segment \\ overlap")]
        children += [ipywidgets.Label(f"{overlap:g}") for overlap in overlaps]
        for segment in sorted({setting.segment_seconds for setting in group}):
            children.append(ipywidgets.Label(f"{segment:.4g} s"))
            for overlap in overlaps:
                children.append(cells.get((segment, overlap)) or ipywidgets.Label("–"))
        columns = f"9em repeat({len(overlaps)}, 8em)"
        return ipywidgets.GridBox(
            children,
            layout=ipywidgets.Layout(grid_template_columns=columns, grid_gap="2px"),
        )


def _title(shifts: int, padded: bool) -> ipywidgets.HTML:
    text = f"Shifts {shifts}, {'padded' if padded else 'not padded'}"
    return ipywidgets.HTML(f"<b>{escape(text)}</b>")


def _paint(button: ipywidgets.Button, goodness: float | None) -> None:
    if goodness is None:
        button.style.button_color = button.style.text_color = None
        return
    red, green, blue = (round(255 * part) for part in matplotlib.colormaps["Blues"](goodness)[:3])
    button.style.button_color = f"#{red:02x}{green:02x}{blue:02x}"
    button.style.text_color = "#ffffff" if goodness > 0.55 else "#000000"
