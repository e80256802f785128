"""Try settings on a song, see what each costs and buys, and hear one beside the recommended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any, TypeVar

import ipywidgets
import matplotlib
import numpy as np
import pandas as pd
import traitlets

from stemlab._assets import demo_song_dir
from stemlab._typing import StrPath
from stemlab.cost import duration
from stemlab.errors import OutputError, ParameterError, SeparationError
from stemlab.metrics import FIGURES
from stemlab.sweeps import (
    Recommendation,
    Sweep,
    SweepProgress,
    SweepSetting,
    plan_sweep,
    recommend,
)
from stemlab.sweeps.recommendation import check_limits
from stemlab.sweeps.table import by_setting
from stemlab.widgets._choosers import ModelChooser, SongChooser, demo_song
from stemlab.widgets._served import is_served, panel_path
from stemlab.widgets._work import LABELS, WIDE, WorkPanel, indented
from stemlab.widgets.mixer import StemMixer

__all__ = ["SweepPanel"]

_PADDED = {
    "as the model was made": None,
    "yes": (True,),
    "no": (False,),
    "both": (True, False),
}
_OWN_VALUES = "own values"
# Shown for their path, which is long, and another one on each machine.
_DEMO_STEMS = "those of the demo song"
# The segments are the model's own, a half and a quarter of it.
_GRIDS: dict[str, dict[str, Any]] = {
    "small": {"overlaps": "0, 0.25, 0.5", "shifts": "0", "excerpt_seconds": 10.0},
    "medium": {"overlaps": "0, 0.1, 0.25, 0.5, 0.75", "shifts": "0", "excerpt_seconds": 30.0},
    "large": {"overlaps": "0, 0.1, 0.25, 0.5, 0.75", "shifts": "0, 1, 2", "excerpt_seconds": 60.0},
}
for _grid in _GRIDS.values():
    _grid["segments"] = ""
# The figures that a cell can show.
_SHOWN = (
    *("sdr_db", "agreement_db", "seam_db", "rtf"),
    *("calls", "wasted_share", "peak_memory_bytes"),
)


_Number = TypeVar("_Number", int, float)


class SweepPanel(WorkPanel):
    """Sweep over segments, overlaps and shifts in a notebook, and listen to any of them.

    Each setting becomes a cell of a table. Pressing a cell loads its stems into the mixer, beside
    those of the recommended setting. What is measured is kept: a sweep that was cancelled, or
    whose kernel died, goes on where it was.

    Parameters
    ----------
    folder : path, default "."
        Its audio files are offered as songs; uploaded ones land here.
    song : path, optional
        The one chosen at first. Default: the demo song that comes with stemlab.
    model : str, default "stemlab-mini"
        A registered name, or the path of a folder with a model, which is then offered as well.
    references : path, optional
        Folder of the true stems, named like the sources. Default: those of the demo song, while
        that is the song.

    Attributes
    ----------
    song, model, references : str
        What the next run will use; can be set. No references: "".
    grid : {"small", "medium", "large", "own values"}
        Sets the values below; changing one of them makes it "own values".
    segments, overlaps, shifts : str
        Numbers separated by commas; no segments stand for the model's own, a half and a quarter.
    padded : {"as the model was made", "yes", "no", "both"}
    excerpt_seconds : float
        Of the song, in its middle.
    memory : bool
        Whether to measure peak memory, each setting in a fresh process.
    memory_limit : str
        Such as "2 GB": only settings below are recommended. Needs `memory`.
    sweep : Sweep or None
        The last that was planned.
    recommendation : Recommendation or None
    selected : SweepSetting or None
        The one whose stems the mixer plays; can be set.
    figure : str
        The column of the results that the cells show; can be set.
    mixer : StemMixer or None
    state : {"idle", "running", "done", "cancelled", "failed"}
    progress : float, in [0, 1]
    message : str
        What the panel says about the state.
    error : str
        What went wrong in the last run; empty otherwise.

    Raises
    ------
    ParameterError
        If `folder` is not a folder.
    ModelNotFoundError, ModelRefusedError
        If there is no such model, or a manifest failed a check.

    Notes
    -----
    Stems are kept in the cache of sweeps as long as it has room; ``stemlab cache`` tells about it.
    Pressing a cell whose stems are gone makes them again.

    Examples
    --------
    >>> panel = SweepPanel()
    >>> panel.segments = "2, 4"
    >>> panel
    SweepPanel(song='mixture.flac', model='stemlab-mini', state='idle')
    """

    song = traitlets.Unicode()
    model = traitlets.Unicode()
    references = traitlets.Unicode()
    segments = traitlets.Unicode()
    overlaps = traitlets.Unicode()
    shifts = traitlets.Unicode()
    padded = traitlets.Enum(list(_PADDED), "as the model was made")
    excerpt_seconds = traitlets.Float()
    grid = traitlets.Enum([*_GRIDS, _OWN_VALUES], "small")
    memory = traitlets.Bool(False)
    memory_limit = traitlets.Unicode()
    sweep = traitlets.Instance(Sweep, allow_none=True)
    recommendation = traitlets.Instance(Recommendation, allow_none=True)
    selected = traitlets.Instance(SweepSetting, allow_none=True)
    figure = traitlets.Enum(list(_SHOWN), "agreement_db")

    _thread_name = "stemlab-sweep"
    _cancelled_message = "Cancelled. What was measured is kept: press Resume to go on."

    def __init__(
        self,
        folder: StrPath = ".",
        *,
        song: StrPath | None = None,
        model: StrPath = "stemlab-mini",
        references: StrPath | None = None,
    ) -> None:
        super().__init__()
        self._songs, self._models = SongChooser(folder, song), ModelChooser(model)
        self.references = str(references or "")
        self._figure_chosen = False
        self._set_grid()
        self._measured: pd.DataFrame | None = None
        self._cells: dict[SweepSetting, ipywidgets.Button] = {}
        self.message = "Choose values and press Estimate or Run."
        self._build()

    def __repr__(self) -> str:
        return (
            f"SweepPanel(song={Path(self.song).name!r}, model={self.model!r}, state={self.state!r})"
        )

    @property
    def results(self) -> pd.DataFrame:
        """Table of what is measured so far, as `Sweep.table` makes it.

        Raises
        ------
        SeparationError
            If nothing was run yet.
        """
        if self._measured is None:
            raise SeparationError("nothing was measured yet. Call run() first.")
        return self._measured

    def estimate(self) -> None:
        """Start to estimate what is left to do, which calibrates the model; does not wait.

        `wait` then returns a `SweepEstimate`.
        """
        plan = self._planned()
        self._start(lambda: self._estimate(plan), "Estimating.")

    def run(self) -> None:
        """Start to measure what was not measured before, unless that is going on; does not wait.

        `wait` then returns the table of results.
        """
        plan, limit = self._planned(), self.memory_limit.strip() or None
        self._start(lambda: self._measure(plan, limit), "Planning the sweep.")

    def close(self) -> None:
        """Stop the sweep and take the panel off the page."""
        super().close()
        self._songs.close()

    # ------------------------------------------------------------ the work

    def _planned(self) -> Callable[[], Sweep]:
        """Take what is chosen now; what is wrong with it is told in the panel."""
        chosen = {name: getattr(self, name) for name in ("segments", "overlaps", "shifts")}
        song, model = self.song.strip(), self.model
        references, padded = self.references.strip(), _PADDED[self.padded]
        excerpt, memory = self.excerpt_seconds, self.memory

        def plan() -> Sweep:
            segments = _numbers("segments", chosen["segments"], float)
            return plan_sweep(
                panel_path(song),
                model,
                segments=segments or None,
                overlaps=_numbers("overlaps", chosen["overlaps"], float),
                shifts=_numbers("shifts", chosen["shifts"], int),
                padded=padded,
                references=panel_path(references) if references else None,
                excerpt_seconds=excerpt,
                memory=memory,
                keep_audio=True,
            )

        return plan

    def _estimate(self, plan: Callable[[], Sweep]) -> Any:
        self.sweep = sweep = plan()
        estimate = sweep.estimate()
        self.message = estimate.in_words(sweep.device)
        self._show_table(sweep)
        return estimate

    def _measure(self, plan: Callable[[], Sweep], memory_limit: str | None) -> pd.DataFrame:
        check_limits(memory_limit=memory_limit)
        if memory_limit and not self.memory:
            raise ParameterError(
                f"memory_limit={memory_limit!r} needs measured memory. Tick 'measure peak memory', "
                "or leave the limit empty."
            )
        self.sweep = sweep = plan()
        self.recommendation = None
        self._show_table(sweep)
        shown = -1

        def tell(event: SweepProgress) -> None:
            nonlocal shown
            self._check_stop()
            self.progress = event.share
            left = event.remaining_seconds
            self.message = (
                f"{event.done} of {event.total} computations are measured; now {event.running}"
                + ("" if left is None else f"; about {duration(left)} left")
                + "."
            )
            if event.done != shown:
                shown = event.done
                self._show_table(sweep)

        try:
            results = sweep.run(progress=tell)
        finally:
            self._show_table(sweep)
        try:
            self.recommendation = found = recommend(results, memory_limit=memory_limit)
            command = f" Its command: {found.command}" if found.command else ""
            self.message = f"Recommended: {found.setting}. {found.reason}{command}"
        except ParameterError as error:
            self.message = f"Measured, but nothing can be recommended: {error}"
        self._colour()
        if self.recommendation is not None:
            with suppress(OutputError):  # Pressing its cell says what is wrong.
                sweep.make_stems(self.recommendation.setting, progress=tell)
            self.selected = None
            self.selected = self.recommendation.setting
        return results

    # ------------------------------------------------------------ what is shown

    def _build(self) -> None:
        def text(description: str, placeholder: str = "") -> ipywidgets.Text:
            return ipywidgets.Text(
                description=description,
                placeholder=placeholder,
                continuous_update=False,
                layout=WIDE,
                style=LABELS,
            )

        references = text("True stems", "folder with drums.wav and so on, if you have it")
        fields = {
            "segments": text("Segments", "its own, half and quarter; or seconds: 2, 4, 7.8"),
            "overlaps": text("Overlaps", "for instance 0, 0.25, 0.5"),
            "shifts": text("Shifts", "for instance 0, 1"),
            "padded": ipywidgets.Dropdown(
                options=list(_PADDED), description="Pad", layout=WIDE, style=LABELS
            ),
            "excerpt_seconds": ipywidgets.BoundedFloatText(
                description="Excerpt (s)", min=1, max=3600, step=1, layout=WIDE, style=LABELS
            ),
            "memory": ipywidgets.Checkbox(
                description="measure peak memory, in fresh processes: takes longer",
                indent=False,
                layout=ipywidgets.Layout(width="36em"),
            ),
            "memory_limit": text("At most", "memory that a run may take, for instance 2 GB"),
        }
        grids = ipywidgets.ToggleButtons(
            # A description would stand above them.
            options=[(f"{each} grid", each) for each in _GRIDS] + [(_OWN_VALUES, _OWN_VALUES)],
            tooltips=[*(_told(each) for each in _GRIDS.values()), "What the fields below say"],
            layout=ipywidgets.Layout(width="48em", max_width="100%"),
            style={"button_width": "8em"},
        )
        for name, field in {"grid": grids, **fields}.items():
            traitlets.link((self, name), (field, "value"))
        demo = str(demo_song_dir())
        traitlets.link(
            (self, "references"),
            (references, "value"),
            transform=(
                lambda path: _DEMO_STEMS if path == demo else path,
                lambda typed: demo if typed == _DEMO_STEMS else typed,
            ),
        )
        indented(grids)
        indented(fields["memory"])
        self.observe(self._set_grid, "grid")
        self.observe(self._name_grid, [*_GRIDS["small"]])
        self.observe(self._on_song, "song")
        traitlets.link((self._songs, "song"), (self, "song"))
        traitlets.link((self._models, "model"), (self, "model"))
        estimate = ipywidgets.Button(
            description="Estimate", tooltip="Say how long the sweep takes, without it"
        )
        self._run_button = ipywidgets.Button(
            description="Run", button_style="primary", tooltip="Measure each setting"
        )
        estimate.on_click(lambda _: self.estimate())
        self._run_button.on_click(lambda _: self.run())
        figures = ipywidgets.Dropdown(
            options=[(FIGURES[name].title, name) for name in _SHOWN],
            description="Cells show",
            layout=WIDE,
            style=LABELS,
        )
        traitlets.link((self, "figure"), (figures, "value"))
        self._tables = ipywidgets.VBox()
        self.observe(self._on_figure, "figure")
        self.observe(self._load, "selected")
        self.observe(self._show_state, "state")
        self._show_status()
        self.children = [
            self._songs,
            self._models,
            grids,
            *([] if is_served() else [references]),
            *fields.values(),
            self._buttons(estimate, self._run_button, cancel_tooltip="Stop; what is done is kept"),
            self._status,
            figures,
            self._tables,
            self._results,
        ]

    def _on_song(self, change: traitlets.Bunch) -> None:
        """The true stems belong to the song: those of the demo song come and go with it."""
        demo = str(demo_song_dir())
        if change.new == demo_song() and not self.references:
            self.references = demo
        elif change.new != demo_song() and self.references == demo:
            self.references = ""

    def _set_grid(self, _: object = None) -> None:
        values = _GRIDS.get(self.grid, {})
        # All at once: in between, they would be nobody's grid.
        with self.hold_trait_notifications():
            for name, value in values.items():
                setattr(self, name, value)

    def _name_grid(self, _: object) -> None:
        values = {name: getattr(self, name) for name in _GRIDS["small"]}
        named = (name for name, each in _GRIDS.items() if each == values)
        self.grid = next(named, _OWN_VALUES)

    def _show_state(self, _: object = None) -> None:
        self._run_button.description = "Resume" if self.state == "cancelled" else "Run"

    def _show_table(self, sweep: Sweep) -> None:
        self._measured = results = sweep.table()
        if set(sweep.settings) != set(self._cells):
            self._lay_out(sweep.settings)
        if not self._figure_chosen:
            self.figure = "sdr_db" if results["sdr_db"].notna().any() else "agreement_db"
            self._figure_chosen = False
        self._colour()

    def _on_figure(self, _: object) -> None:
        self._figure_chosen = True
        self._colour()

    def _lay_out(self, settings: list[SweepSetting]) -> None:
        """One grid for each number of shifts and padding: segments down, overlaps across."""
        old = list(self._cells.values())
        self._cells = {each: _cell(each, self._select) for each in settings}
        groups: dict[tuple[int, bool], list[SweepSetting]] = {}
        for each in settings:
            groups.setdefault((each.shifts, each.padded), []).append(each)
        tables = []
        for (shifts, padded), group in groups.items():
            segments = sorted({each.segment_seconds for each in group})
            overlaps = sorted({each.overlap for each in group})
            title = f"Shifts {shifts}, {'padded' if padded else 'not padded'}"
            children: list[Any] = [
                ipywidgets.Label("segment, overlap"),
                *(ipywidgets.Label(f"{each:g}") for each in overlaps),
            ]
            by_place = {(each.segment_seconds, each.overlap): each for each in group}
            for segment in segments:
                children.append(ipywidgets.Label(f"{segment:.4g} s"))
                for overlap in overlaps:
                    found = by_place.get((segment, overlap))
                    children.append(self._cells[found] if found else ipywidgets.Label("–"))
            grid = ipywidgets.GridBox(
                children,
                layout=ipywidgets.Layout(
                    grid_template_columns=f"9em repeat({len(overlaps)}, 8em)", grid_gap="2px"
                ),
            )
            tables.append(ipywidgets.VBox([ipywidgets.HTML(f"<b>{escape(title)}</b>"), grid]))
        self._tables.children = tables
        for button in old:
            button.close()

    def _colour(self) -> None:
        """Write the chosen figure into the cells; the better, the darker."""
        if self._measured is None:
            return
        figure = FIGURES[self.figure]
        rows = {
            SweepSetting.of_row(row): row
            for row in by_setting(self._measured).to_dict(orient="records")
        }
        values = {setting: float(row[self.figure]) for setting, row in rows.items()}
        finite = [value for value in values.values() if np.isfinite(value)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
        best = None if self.recommendation is None else self.recommendation.setting
        for setting, button in self._cells.items():
            value = values.get(setting, np.nan)
            known = bool(np.isfinite(value))
            error = rows[setting]["error"] if setting in rows else ""
            mark = "★ " if setting == best else ""
            button.description = mark + (figure.number(value) if known else "…")
            button.tooltip = f"{setting}: {figure.title} " + (
                figure.number(value) if known else "–"
            )
            if error:
                button.description, button.tooltip = "failed", str(error)
            button.disabled = setting not in rows or bool(error)
            share = 0.5 if high == low else (value - low) / (high - low)
            goodness = share if figure.more_is_better else 1 - share
            _paint(button, goodness if known else None)

    def _select(self, setting: SweepSetting) -> None:
        # Pressing it again loads it again.
        if self.selected == setting:
            self._load()
        self.selected = setting

    def _load(self, _: object = None) -> None:
        """Put the stems of the selected setting into the mixer, beside the recommended ones."""
        setting, sweep = self.selected, self.sweep
        if setting is None or sweep is None:
            return
        stems = self._kept(sweep, setting)
        if not stems:
            gone = f"the stems of {setting} are not kept any more"
            if not self._start(lambda: self._make_stems(sweep, setting), f"Making again: {gone}."):
                self.error = f"{gone}. Press the cell again when the work has ended."
            return
        best = None if self.recommendation is None else self.recommendation.setting
        other = self._kept(sweep, best) if best is not None and best != setting else {}
        mixture, rate = sweep.recording
        labels = (_short(setting), "recommended: " + _short(best) if best else "B")
        mixer = StemMixer(stems, rate, mixture=mixture, other=other or None, labels=labels)
        self.error = ""
        self._show_results(ipywidgets.HTML(f"Heard: <b>{escape(str(setting))}</b>"), mixer)

    def _make_stems(self, sweep: Sweep, setting: SweepSetting) -> None:
        def tell(event: SweepProgress) -> None:
            self._check_stop()
            self.progress = event.share

        sweep.make_stems(setting, progress=tell)
        self._load()
        self.message = f"The stems of {setting} were made again."

    def _kept(self, sweep: Sweep, setting: SweepSetting) -> dict[str, Path]:
        found = sweep.kept_stems(setting)
        # In the order of the model, as the table has them.
        order = [] if self._measured is None else list(dict.fromkeys(self._measured["source"]))
        return {name: found[name] for name in sorted(found, key=[*order, *found].index)}


def _told(grid: Mapping[str, Any]) -> str:
    return (
        f"Three segments, overlaps {grid['overlaps']}, shifts {grid['shifts']}, "
        f"{grid['excerpt_seconds']:g} s of the song"
    )


def _numbers(name: str, text: str, kind: type[_Number]) -> list[_Number]:
    try:
        return [kind(each) for each in text.split(",")] if text.strip() else []
    except ValueError:
        what = {"int": "whole numbers"}.get(kind.__name__, "numbers")
        raise ParameterError(
            f"{name}={text!r} is not a list of {what} separated by commas. Write for instance "
            "0, 1, 2."
        ) from None


def _cell(setting: SweepSetting, select: Callable[[SweepSetting], None]) -> ipywidgets.Button:
    button = ipywidgets.Button(
        description="…", disabled=True, layout=ipywidgets.Layout(width="100%", margin="0")
    )
    button.add_class("stemlab-loads-mixer")
    button.on_click(lambda _: select(setting))
    return button


def _paint(button: ipywidgets.Button, goodness: float | None) -> None:
    if goodness is None:
        button.style.button_color = button.style.text_color = None
        return
    red, green, blue = (round(255 * each) for each in matplotlib.colormaps["Blues"](goodness)[:3])
    button.style.button_color = f"#{red:02x}{green:02x}{blue:02x}"
    button.style.text_color = "#ffffff" if goodness > 0.55 else "#000000"


def _short(setting: SweepSetting) -> str:
    shifts = f", shifts {setting.shifts}" if setting.shifts else ""
    padded = ", padded" if setting.padded else ""
    return f"{setting.segment_seconds:.4g} s, overlap {setting.overlap:g}{shifts}{padded}"
