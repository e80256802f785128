"""Measure settings on a song, compare cost and quality, and listen to any of them."""

from __future__ import annotations

from contextlib import suppress
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
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
    SweepEstimate,
    SweepProgress,
    SweepSetting,
    plan_sweep,
    recommend,
)
from stemlab.sweeps.recommendation import check_limits
from stemlab.widgets._choosers import ModelChooser, SongChooser, demo_song
from stemlab.widgets._fields import button, checkbox, dropdown, field, text_field
from stemlab.widgets._page import is_served, panel_path
from stemlab.widgets._sweep_grid import (
    GRIDS,
    OWN_VALUES,
    SHOWN,
    SettingTable,
    grid_buttons,
    numbers,
)
from stemlab.widgets._work import WorkPanel
from stemlab.widgets.mixer import StemMixer

_AS_MADE = "as the model was made"
_PADDED = {_AS_MADE: None, "yes": (True,), "no": (False,), "both": (True, False)}
# Shown in place of their path, which is long and differs between machines.
_DEMO_STEMS = "those of the demo song"


class SweepPanel(WorkPanel[Any]):
    """Sweep over segments, overlaps and shifts in a notebook, and listen to the results.

    Each setting is a cell of a table. Pressing a cell loads its stems into the mixer, beside those
    of the recommended setting; stems that are no longer in the cache are made again. Measurements
    are kept: a sweep that was cancelled, or whose kernel died, resumes where it stopped.

    Parameters
    ----------
    folder, song, model : optional
        As in `SeparationPanel`.
    references : path, optional
        Folder of the true stems, named like the sources. Default: those of the demo song, while
        that is the song.

    Attributes
    ----------
    song, model, references : str
        What the next run will use; can be set. Without references: "".
    grid : {"small", "medium", "large", "own values"}
        Sets the values below; changing one of them makes it "own values".
    segments, overlaps, shifts : str
        Numbers separated by commas. No segments: the model's default, a half and a quarter of it.
    padded : {"as the model was made", "yes", "no", "both"}
    excerpt_seconds : float
        Length of the excerpt, taken from the middle of the song.
    memory : bool
        Whether to measure peak memory, each setting in a fresh process.
    memory_limit : str
        Such as "2 GB": only settings that need less are recommended. Requires `memory`.
    sweep : Sweep or None
        The last planned sweep.
    recommendation : Recommendation or None
    selected : SweepSetting or None
        The setting whose stems the mixer plays; can be set.
    figure : str
        Column of the results that the cells show; can be set.
    mixer : StemMixer or None
    state, progress, message, error
        As in `SeparationPanel`.

    Raises
    ------
    ParameterError
        If `folder` is not a folder.
    ModelNotFoundError, ModelRefusedError
        If there is no such model, or a manifest failed a check.

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
    padded = traitlets.Enum(list(_PADDED), _AS_MADE)
    excerpt_seconds = traitlets.Float()
    grid = traitlets.Enum([*GRIDS, OWN_VALUES], "small")
    memory = traitlets.Bool(False)
    memory_limit = traitlets.Unicode()
    sweep = traitlets.Instance(Sweep, allow_none=True)
    recommendation = traitlets.Instance(Recommendation, allow_none=True)
    selected = traitlets.Instance(SweepSetting, allow_none=True)
    figure = traitlets.Enum(SHOWN, "agreement_db")

    _cancelled_message = "Cancelled. Measurements so far are kept; press Resume to continue."
    _in_repr = ("song", "model", "state")

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
        self.message = "Choose values and press Estimate or Run."
        traitlets.link((self._songs, "path"), (self, "song"))
        traitlets.link((self._models, "model"), (self, "model"))
        self._on_song()
        true_stems = self._bind(
            "references",
            text_field("True stems", "folder with drums.wav and so on, if you have it"),
            to_field=lambda path: _DEMO_STEMS if path == str(demo_song_dir()) else path,
            to_trait=lambda typed: str(demo_song_dir()) if typed == _DEMO_STEMS else typed,
        )
        segments = text_field("Segments (s)", "empty: default, a half and a quarter of it")
        padded = [("model default" if value == _AS_MADE else value, value) for value in _PADDED]
        excerpt = field(ipywidgets.BoundedFloatText, "Excerpt (s)", min=1, max=3600, step=1)
        memory = checkbox("Measure peak memory (slower: one process per setting)")
        figures = [(FIGURES[name].title, name) for name in SHOWN]
        run = button("Run", "Measure each setting", self.run, "primary")
        traitlets.dlink(
            (self, "state"),
            (run, "description"),
            lambda state: "Resume" if state == "cancelled" else "Run",
        )
        self._table = SettingTable(self._select)
        self.children = [
            self._songs,
            self._models,
            self._bind("grid", grid_buttons()),
            *([] if is_served() else [true_stems]),
            self._bind("segments", segments),
            self._bind("overlaps", text_field("Overlaps", "for instance 0, 0.25, 0.5")),
            self._bind("shifts", text_field("Shifts", "for instance 0, 1")),
            self._bind("padded", dropdown("Pad", padded)),
            self._bind("excerpt_seconds", excerpt),
            self._bind("memory", memory),
            self._bind("memory_limit", text_field("Memory limit", "for instance 2 GB")),
            self._controls(
                button("Estimate", "Predict how long the sweep takes", self.estimate),
                run,
                cancel_tooltip="Stop; finished measurements are kept",
            ),
            self._bind("figure", dropdown("Cells show", figures)),
            self._table,
            self._results,
        ]
        self.observe(self._set_grid, "grid")
        self.observe(self._name_grid, [*GRIDS["small"]])
        self.observe(self._on_song, "song")
        self.observe(self._on_figure, "figure")
        self.observe(self._load, "selected")

    @property
    def results(self) -> pd.DataFrame:
        """Table of the measurements so far, in the form of `Sweep.table`.

        Raises
        ------
        SeparationError
            If nothing was run yet.
        """
        if self._measured is None:
            raise SeparationError("nothing was measured yet. Call run() first.")
        return self._measured

    def estimate(self) -> None:
        """Start to estimate the remaining work, which calibrates the model; does not wait.

        `wait` then returns a `SweepEstimate`.
        """
        self._start(self._estimate, "Estimating.")

    def run(self) -> None:
        """Start to measure what is not in the cache, unless work is going on; does not wait.

        `wait` then returns the table of results.
        """
        self._start(self._measure, "Planning the sweep.")

    def _plan(self, chosen: Any) -> Sweep:
        references = chosen.references.strip()
        self.sweep = sweep = plan_sweep(
            panel_path(chosen.song.strip()),
            chosen.model,
            segments=numbers("segments", chosen.segments, float) or None,
            overlaps=numbers("overlaps", chosen.overlaps, float),
            shifts=numbers("shifts", chosen.shifts, int),
            padded=_PADDED[chosen.padded],
            references=panel_path(references) if references else None,
            excerpt_seconds=chosen.excerpt_seconds,
            memory=chosen.memory,
            keep_audio=True,
        )
        return sweep

    def _estimate(self, chosen: Any) -> SweepEstimate:
        sweep = self._plan(chosen)
        estimate = sweep.estimate()
        self.message = estimate.in_words(sweep.device)
        self._show_table(sweep)
        return estimate

    def _measure(self, chosen: Any) -> pd.DataFrame:
        memory_limit = chosen.memory_limit.strip() or None
        check_limits(memory_limit=memory_limit)
        if memory_limit and not chosen.memory:
            raise ParameterError(
                f"memory_limit={memory_limit!r} needs measured memory. Tick 'Measure peak memory', "
                "or leave the limit empty."
            )
        sweep = self._plan(chosen)
        self.recommendation = None
        self._show_table(sweep)
        shown = -1

        def tell(event: SweepProgress) -> None:
            nonlocal shown
            self._report(event.share)
            left = event.remaining_seconds
            self.message = f"{event.done} of {event.total} measured; running {event.running}" + (
                "." if left is None else f"; about {duration(left)} left."
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
            command = f" Command: {found.command}" if found.command else ""
            self.message = f"Recommended: {found.setting}. {found.reason}{command}"
        except ParameterError as error:
            self.message = f"Measured, but nothing can be recommended: {error}"
        self._show_figure()
        if self.recommendation is not None:
            with suppress(OutputError):  # Pressing its cell reports what is wrong.
                sweep.make_stems(self.recommendation.setting, progress=tell)
            self.selected = None
            self.selected = self.recommendation.setting
        return results

    def _on_song(self, _: object = None) -> None:
        """The true stems belong to the song: those of the demo song come and go with it."""
        demo = str(demo_song_dir())
        if self.song == demo_song() and not self.references:
            self.references = demo
        elif self.song != demo_song() and self.references == demo:
            self.references = ""

    def _set_grid(self, _: object = None) -> None:
        # All at once: halfway, the values would belong to no named grid.
        with self.hold_trait_notifications():
            for name, value in GRIDS.get(self.grid, {}).items():
                setattr(self, name, value)

    def _name_grid(self, _: object) -> None:
        values = {name: getattr(self, name) for name in GRIDS["small"]}
        names = (name for name, grid in GRIDS.items() if grid == values)
        self.grid = next(names, OWN_VALUES)

    def _show_table(self, sweep: Sweep) -> None:
        self._measured = results = sweep.table()
        if not self._figure_chosen:
            self.figure = "sdr_db" if results["sdr_db"].notna().any() else "agreement_db"
            self._figure_chosen = False
        self._show_figure()

    def _on_figure(self, _: object) -> None:
        self._figure_chosen = True
        self._show_figure()

    def _show_figure(self) -> None:
        if self.sweep is not None and self._measured is not None:
            best = None if self.recommendation is None else self.recommendation.setting
            self._table.show(self.sweep.settings, self._measured, self.figure, best)

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
        stems = self._kept(setting)
        if not stems:
            gone = f"the stems of {setting} are no longer in the cache"
            if not self._start(lambda _: self._make_stems(sweep, setting), f"Restoring: {gone}."):
                self.error = f"{gone}. Press the cell again when the work has ended."
            return
        best = None if self.recommendation is None else self.recommendation.setting
        other = self._kept(best) if best is not None and best != setting else {}
        mixture, rate = sweep.recording
        labels = (_short(setting), "recommended: " + _short(best) if best else "B")
        mixer = StemMixer(stems, rate, mixture=mixture, other=other or None, labels=labels)
        self.error = ""
        self._show_results(ipywidgets.HTML(f"Playing: <b>{escape(str(setting))}</b>"), mixer)

    def _make_stems(self, sweep: Sweep, setting: SweepSetting) -> None:
        sweep.make_stems(setting, progress=lambda event: self._report(event.share))
        self._load()
        self.message = f"The stems of {setting} were made again."

    def _kept(self, setting: SweepSetting) -> dict[str, Path]:
        """The stems of a setting that are in the cache, in the order of the model."""
        found = {} if self.sweep is None else self.sweep.kept_stems(setting)
        return {name: found[name] for name in self.results["source"].unique() if name in found}


def _short(setting: SweepSetting) -> str:
    shifts = f", shifts {setting.shifts}" if setting.shifts else ""
    padded = ", padded" if setting.padded else ""
    return f"{setting.segment_seconds:.4g} s, overlap {setting.overlap:g}{shifts}{padded}"
