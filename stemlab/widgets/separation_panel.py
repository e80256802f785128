"""Choose a song, separate it, listen to the stems, save them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ipywidgets
import traitlets

from stemlab._assets import demo_song_dir
from stemlab._typing import StrPath
from stemlab.errors import OutputError, ParameterError, SeparationError, StemlabError
from stemlab.files import ScratchFolder
from stemlab.results import EarlierResultError
from stemlab.separation import (
    AudioStemSeparator,
    SegmentDone,
    SeparationResult,
    SeparationSettings,
    save_result,
)
from stemlab.widgets._choosers import SongChooser
from stemlab.widgets._cost import CostedPanel
from stemlab.widgets._fields import button, field, text_field
from stemlab.widgets._page import is_served, panel_path
from stemlab.widgets.mixer import StemMixer

# What the sliders offer. Code may set everything that the model accepts.
_LEAST_SEGMENT_SECONDS, _MOST_TIMES_ITS_OWN = 0.25, 4
_MOST_OVERLAP, _MOST_SHIFTS = 0.9, 10


class _Run(NamedTuple):
    """A finished run, in a temporary folder until it is saved."""

    result: SeparationResult
    folder: ScratchFolder
    choices: list[str]  # Model and settings, in words.


class SeparationPanel(CostedPanel[SeparationResult]):
    """Separate a song in a notebook, hear the stems, and compare with the run before.

    The last expression of a cell shows the panel. What its buttons do, `separate`, `cancel` and
    `save` do from code; ``wait(timeout=None)`` waits for the end, and returns the result or raises
    what made the run fail. The work runs in a thread of its own, and the kernel stays free.

    Parameters
    ----------
    folder : path, default "."
        Its audio files are offered as songs; uploads go here.
    song : path, optional
        Initial choice. Default: the demo song that comes with stemlab.
    model : str, default "stemlab-mini"
        A registered name, or the path of a folder with a model, which is offered as well.
    out_dir : path, default "stems"
        Where `save` puts ``<song>/<source>.wav`` and ``<song>/run.json``.

    Attributes
    ----------
    song, model, device, out_dir : str
        What the next run, or `save`, will use; can be set, like the settings below.
    segment_seconds, overlap, shifts, pad_to_training_segment
        As in `SeparationSettings`.
    cost : str
        What a run computes and, once a slider was moved, how long it takes on this machine.
    mixer : StemMixer or None
        Plays the last result, and by turns the run before, if it was of the same song with other
        settings, or the true stems of the demo song.
    state : {"idle", "running", "done", "cancelled", "failed"}
    progress : float, in [0, 1]
    message : str
        Status in words.
    error : str
        Error message of the last run; empty if there was none.

    Raises
    ------
    ParameterError
        If `folder` is not a folder.
    ModelNotFoundError, ModelRefusedError
        If there is no such model, or a manifest failed a check.

    Notes
    -----
    Unsaved stems of the last two runs are kept in a temporary folder (in `TMPDIR`, if that is set).
    While a cell runs, buttons have no effect: interrupt the kernel to cancel a run that a cell
    waits for.

    Examples
    --------
    >>> panel = SeparationPanel()
    >>> panel
    SeparationPanel(song='mixture.flac', model='stemlab-mini', state='idle')
    """

    song = traitlets.Unicode()
    out_dir = traitlets.Unicode()
    segment_seconds = traitlets.Float(None, allow_none=True)
    overlap = traitlets.Float(0.25)
    shifts = traitlets.Int(0)

    _cancelled_message = "Cancelled. Nothing was written."
    _in_repr = ("song", "model", "state")

    def __init__(
        self,
        folder: StrPath = ".",
        *,
        song: StrPath | None = None,
        model: StrPath = "stemlab-mini",
        out_dir: StrPath = "stems",
    ) -> None:
        super().__init__(model)
        self._runs: list[_Run] = []
        self._songs = SongChooser(folder, song)
        traitlets.link((self._songs, "path"), (self, "song"))
        self.out_dir = str(out_dir)
        self.message = "Choose a song and press Separate."
        slider = ipywidgets.FloatSlider
        self._segment = field(slider, "Segment (s)", step=0.05, readout_format=".2f")
        self._save_button = button("Save", "Save the stems to this folder", self.save)
        replace = "Save the stems in place of the earlier result"
        self._replace_button = button("Replace", replace, lambda: self.save(force=True), "warning")
        saving = [self._save_button, self._replace_button]
        if not is_served():
            tooltip = "Stems go to a subfolder per song"
            saving.insert(
                0, self._bind("out_dir", text_field("Save to", "folder", tooltip=tooltip))
            )
        self._show_model()
        self.children = [
            self._songs,
            self._models,
            self._bind(
                "segment_seconds",
                self._segment,
                to_field=lambda seconds: seconds or self._models.segment_seconds,
                to_trait=lambda seconds: (
                    None if seconds == self._models.segment_seconds else seconds
                ),
            ),
            self._padding,
            self._bind("overlap", field(slider, "Overlap", max=_MOST_OVERLAP, step=0.05)),
            self._bind("shifts", field(ipywidgets.IntSlider, "Shifts", max=_MOST_SHIFTS)),
            self._costs,
            self._devices,
            self._controls(
                button("Separate", "Separate the song into stems", self.separate, "primary"),
                cancel_tooltip="Stop the run; nothing is written",
            ),
            self._results,
            ipywidgets.HBox(saving),
        ]
        self.observe(self._show_model, "model")
        self.observe(lambda _: self._tell_cost(), ["song", "model", "device"])
        self.observe(
            lambda _: self._tell_cost(measure=True),
            ["segment_seconds", "overlap", "shifts", "pad_to_training_segment"],
        )
        self.observe(self._show_buttons, ["state", "out_dir"])
        self._show_buttons()
        self._tell_cost()

    def separate(self) -> None:
        """Start a run with what is chosen now, unless one is running already; does not wait.

        `wait` then returns a `SeparationResult`, whose files lie in a temporary folder until the
        run after the next.
        """
        self._start(self._separate, "Reading the model and the song.")

    def save(self, *, force: bool = False) -> None:
        """Start to save the stems of the last run to `out_dir`; does not wait.

        `wait` then returns a `SeparationResult`, whose files lie where they were saved.

        Parameters
        ----------
        force : bool, default False
            Replace an earlier result of the same song, as `save_result` does. The panel offers
            this by a button, once it has found one.

        Raises
        ------
        SeparationError
            If nothing was separated yet.
        """
        if not self._runs:
            raise SeparationError("there are no stems to save yet. Call separate() first.")
        result = self._runs[-1].result
        self._start(lambda chosen: self._save(result, chosen.out_dir, force), "Saving the stems.")

    def close(self) -> None:
        """Stop the run, take the panel off the page, and remove stems that were not saved."""
        super().close()
        while self._runs:
            self._runs.pop().folder.cleanup()

    @traitlets.validate("segment_seconds", "overlap", "shifts")
    def _check_setting(self, proposal: traitlets.Bunch) -> Any:
        settings = SeparationSettings(**{proposal.trait.name: proposal.value})
        if proposal.trait.name == "segment_seconds":
            AudioStemSeparator(self.model).check(settings)
        return proposal.value

    def _chosen(self) -> tuple[tuple[int, int], SeparationSettings]:
        return self._songs.length(), _settings_of(self)

    def _separate(self, chosen: Any) -> SeparationResult:
        if not chosen.song.strip():
            raise ParameterError("song is empty. Choose one, or type the path of an audio file.")
        separator = AudioStemSeparator(chosen.model, device=chosen.device)
        settings, path = _settings_of(chosen), panel_path(chosen.song.strip())
        folder = ScratchFolder()
        try:
            result = separator.separate_file(
                path, folder.name, settings=settings, progress=self._on_progress
            )
        except BaseException:
            folder.cleanup()
            raise
        # From here on it can be saved, whatever happens.
        self._runs.append(_Run(result, folder, [separator.name, *_in_words(settings)]))
        labels, other = _counterpart(path, *reversed(self._runs[-2:]))
        try:
            self._show_results(StemMixer(result.stems, mixture=path, other=other, labels=labels))
            advice = "Listen to them, and press Save to keep them."
        except (StemlabError, OSError) as error:
            self._show_results()
            advice = f"They can be saved, but not played here: {error}"
        # The mixer plays at most these two.
        while len(self._runs) > 2:
            self._runs.pop(0).folder.cleanup()
        seconds = result.run.cost.wall_seconds
        self.message = f"Done in {seconds:.1f} s: {len(result.stems)} stems. {advice}"
        return result

    def _save(self, result: SeparationResult, out_dir: str, force: bool) -> SeparationResult:
        try:
            saved = save_result(result, panel_path(out_dir.strip() or "."), force=force)
        except EarlierResultError as error:
            self._replace_button.layout.display = ""
            raise OutputError(
                f"{str(error.path)!r} already holds a result of this song. Press Replace to "
                "replace it, or save to another folder.",
                error.path,
            ) from error
        self.message = f"Saved {len(saved.stems)} stems to {saved.manifest_path.parent}."
        if force:
            self.message += " The earlier result was replaced."
        return saved

    def _on_progress(self, event: SegmentDone) -> None:
        self._report(event.done / event.total)
        self.message = (
            f"Segment {event.done} of {event.total}, about {event.remaining_seconds:.0f} s left."
            if event.done < event.total
            else "Writing the stems."
        )

    def _show_model(self, _: object = None) -> None:
        spec = AudioStemSeparator(self.model).spec
        own = self._models.segment_seconds
        longest = min(float(member.max_segment_seconds or math.inf) for member in spec.members)
        shortest = max(member.min_segment_samples for member in spec.members) / spec.sample_rate
        low = min(own, max(_LEAST_SEGMENT_SECONDS, math.ceil(20 * shortest) / 20))
        self.segment_seconds = None
        with self._segment.hold_trait_notifications():
            self._segment.max = min(longest, _MOST_TIMES_ITS_OWN * own)
            self._segment.min = low
            self._segment.value = own
        self._padding.layout.display = "" if spec.pads else "none"

    def _show_buttons(self, change: traitlets.Bunch | None = None) -> None:
        self._save_button.disabled = self.state == "running" or not self._runs
        # Replace is offered only right after the result to be replaced was named.
        if change is None or change.name == "out_dir" or self.state == "running":
            self._replace_button.layout.display = "none"


def _settings_of(chosen: Any) -> SeparationSettings:
    return SeparationSettings(
        segment_seconds=chosen.segment_seconds,
        overlap=chosen.overlap,
        shifts=chosen.shifts,
        pad_to_training_segment=chosen.pad_to_training_segment,
    )


def _in_words(settings: SeparationSettings) -> list[str]:
    seconds = settings.segment_seconds
    return [
        "default segment" if seconds is None else f"segment {seconds:g} s",
        f"overlap {settings.overlap:g}",
        f"shifts {settings.shifts}",
        "padded" if settings.pad_to_training_segment else "not padded",
    ]


def _counterpart(
    song: Path, run: _Run, before: _Run | None = None
) -> tuple[tuple[str, str], Mapping[str, Path] | None]:
    """Labels of a run and of what it is compared with by ear, and the stems of that, if any.

    That is the run before, if it was of the same recording with other settings, or the true stems
    of the demo song.
    """
    if before is not None and before.result.run.input.sha256 == run.result.run.input.sha256:
        pairs = zip(run.choices, before.choices, strict=True)
        differ = [(mine, theirs) for mine, theirs in pairs if mine != theirs]
        if differ:
            label, other = (", ".join(words) for words in zip(*differ, strict=True))
            return (label, other), before.result.stems
    truth = {name: song.with_name(f"{name}.flac") for name in run.result.stems}
    if song.parent == demo_song_dir() and all(path.is_file() for path in truth.values()):
        return ("estimated", "true"), truth
    return ("A", "B"), None
