"""Choose a song, press Separate, watch, listen, save."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import traitlets

from stemlab import audio
from stemlab._assets import demo_song_dir
from stemlab._typing import StrPath
from stemlab.errors import (
    AudioError,
    OutputError,
    ParameterError,
    SeparationError,
    StemlabError,
)
from stemlab.files import ScratchFolder
from stemlab.networks.devices import available_devices
from stemlab.results import EarlierResultError
from stemlab.separation import (
    AudioStemSeparator,
    SegmentDone,
    SeparationResult,
    SeparationSettings,
    save_result,
)
from stemlab.widgets._choosers import ModelChooser, SongChooser
from stemlab.widgets._cost import CostTeller
from stemlab.widgets._served import is_served, panel_path
from stemlab.widgets._work import LABELS, WIDE, WorkPanel, indented
from stemlab.widgets.mixer import StemMixer

__all__ = ["SeparationPanel"]

# What the sliders offer; code may set all that a model takes.
_LEAST_SEGMENT_SECONDS, _MOST_TIMES_ITS_OWN = 0.25, 4
_MOST_OVERLAP, _MOST_SHIFTS = 0.9, 10
_WORDS = {
    "model": "{}",
    "segment_seconds": "segment {:g} s",
    "overlap": "overlap {:g}",
    "shifts": "shifts {}",
    "pad_to_training_segment": "padded: {}",
}


@dataclass(frozen=True)
class _Run:
    """A finished run, in a temporary folder until it is saved."""

    choices: Mapping[str, Any]
    result: SeparationResult
    folder: ScratchFolder

    @property
    def recording(self) -> str:
        return str(self.result.manifest["input"]["sha256"])


class SeparationPanel(WorkPanel):
    """Separate a song in a notebook, hear the stems, and compare with the run before.

    The last expression of a cell shows the panel. What its buttons do, `separate`, `cancel`,
    `save` and `wait` do from code. The work runs in a thread of its own, and the kernel stays free.

    Parameters
    ----------
    folder : path, default "."
        Its audio files are offered as songs; uploaded ones land here.
    song : path, optional
        The one chosen at first. Default: the demo song that comes with stemlab.
    model : str, default "stemlab-mini"
        A registered name, or the path of a folder with a model, which is then offered as well.
    out_dir : path, default "stems"
        Where `save` puts ``<song>/<source>.wav`` and ``<song>/run.json``.

    Attributes
    ----------
    song, model, out_dir : str
        What the next run, or `save`, will use; can be set.
    segment_seconds : float or None
        None for the model's own.
    overlap : float, in [0, 1)
    shifts : int, in [0, 100]
    pad_to_training_segment : bool
        See `SeparationSettings`.
    device : str
        ``auto``, or one that is here.
    cost : str
        What a run would compute and, once a slider was moved, how long it would take here.
    mixer : StemMixer or None
        Plays the last result; beside it, to be switched to, the run before if it was of the same
        song with other settings, or the true stems of the demo song.
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
    Until they are saved, stems lie in a temporary folder (of `TMPDIR`, where that is set), at most
    those of two runs. While a cell runs, a notebook does not hear buttons: interrupt the kernel to
    cancel a run that a cell waits for.

    Examples
    --------
    >>> panel = SeparationPanel()
    >>> panel
    SeparationPanel(song='mixture.flac', model='stemlab-mini', state='idle')
    """

    song = traitlets.Unicode()
    model = traitlets.Unicode()
    out_dir = traitlets.Unicode()
    segment_seconds = traitlets.Float(None, allow_none=True)
    overlap = traitlets.Float(0.25)
    shifts = traitlets.Int(0)
    pad_to_training_segment = traitlets.Bool(True)
    device = traitlets.Unicode("auto")
    cost = traitlets.Unicode()

    _thread_name = "stemlab-separation"
    _cancelled_message = "Cancelled. Nothing was written."

    def __init__(
        self,
        folder: StrPath = ".",
        *,
        song: StrPath | None = None,
        model: StrPath = "stemlab-mini",
        out_dir: StrPath = "stems",
    ) -> None:
        super().__init__()
        self._runs: list[_Run] = []
        self._teller = CostTeller(self._show_cost)
        self._lengths: dict[tuple[str, int, int], tuple[int, int]] = {}
        self._songs, self._models = SongChooser(folder, song), ModelChooser(model)
        self.out_dir = str(out_dir)
        self.message = "Choose a song and press Separate."
        self._build()

    def __repr__(self) -> str:
        return (
            f"SeparationPanel(song={Path(self.song).name!r}, model={self.model!r}, "
            f"state={self.state!r})"
        )

    def separate(self) -> None:
        """Start a run with what is chosen now, unless one is running already; does not wait."""
        # Taken before anything can change.
        song, model, device = self.song.strip(), self.model, self.device
        asked = {name: getattr(self, name) for name in _WORDS if name != "model"}
        self._start(
            lambda: self._separate(song, model, device, asked), "Reading the model and the song."
        )

    def save(self, *, force: bool = False) -> None:
        """Start to save the stems of the last run to `out_dir`; does not wait.

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
        result, out_dir = self._runs[-1].result, self.out_dir.strip() or "."
        self._start(lambda: self._save(result, panel_path(out_dir), force), "Saving the stems.")

    def wait(self, timeout: float | None = None) -> SeparationResult:
        """Wait for the run, or for `save`, to end; interrupting the wait cancels the run.

        Parameters
        ----------
        timeout : float, in seconds, optional
            Default: no limit.

        Returns
        -------
        result : SeparationResult
            Of a run, its files lie in a temporary folder until the run after the next; of `save`,
            where they were saved.

        Raises
        ------
        SeparationError
            If the run was cancelled, or there was none.
        TimeoutError
            If the run still works after `timeout`; it goes on.
        StemlabError
            What made the run fail.
        """
        result: SeparationResult = super().wait(timeout)
        return result

    def close(self) -> None:
        """Stop the run, take the panel off the page, and remove stems that were not saved."""
        super().close()
        self._teller.close()
        self._songs.close()
        while self._runs:
            self._runs.pop().folder.cleanup()

    # ------------------------------------------------------------ what may be chosen

    @traitlets.validate("device")
    def _check_device(self, proposal: traitlets.Bunch) -> str:
        AudioStemSeparator(self.model, device=str(proposal.value))
        return str(proposal.value)

    @traitlets.validate("segment_seconds", "overlap", "shifts")
    def _check_setting(self, proposal: traitlets.Bunch) -> Any:
        settings = SeparationSettings(**{proposal.trait.name: proposal.value})
        if proposal.trait.name == "segment_seconds":
            AudioStemSeparator(self.model).check(settings)
        return proposal.value

    # ------------------------------------------------------------ the run

    def _separate(
        self, song: str, model: str, device: str, asked: Mapping[str, Any]
    ) -> SeparationResult:
        if not song:
            raise ParameterError("song is empty. Choose one, or type the path of an audio file.")
        separator = AudioStemSeparator(model, device=device)
        path = panel_path(song)
        folder = ScratchFolder()
        try:
            result = separator.separate_file(path, folder.name, progress=self._on_progress, **asked)
        except BaseException:
            folder.cleanup()
            raise
        run = _Run({"model": separator.name, **asked}, result, folder)
        before = self._runs[-1] if self._runs else None
        # Whatever happens from here on, it can be saved.
        self._runs.append(run)
        advice = self._show_result(path, run, before)
        # The mixer plays these two at most.
        while len(self._runs) > 2:
            self._runs.pop(0).folder.cleanup()
        cost = result.manifest["cost"]
        self.message = f"Done in {cost['wall_seconds']:.1f} s: {len(result.stems)} stems. {advice}"
        return result

    def _save(self, result: SeparationResult, out_dir: Path, force: bool) -> SeparationResult:
        try:
            saved = save_result(result, out_dir, force=force)
        except EarlierResultError as error:
            self._replace_button.layout.display = ""
            raise OutputError(
                f"an earlier result of this song is there: {str(error.path)!r}. Press Replace to "
                "replace it, or save to another folder.",
                error.path,
            ) from error
        self.message = f"Saved: {len(saved.stems)} stems are in {saved.manifest_path.parent}."
        if force:
            self.message += " They replaced an earlier result of this song."
        return saved

    def _on_progress(self, event: SegmentDone) -> None:
        self._check_stop()
        self.progress = event.done / event.total
        self.message = (
            f"Segment {event.done} of {event.total}, about {event.remaining_seconds:.0f} s left."
            if event.done < event.total
            else "Writing the stems."
        )

    # ------------------------------------------------------------ what is shown

    def _build(self) -> None:
        self._segment = ipywidgets.FloatSlider(
            description="Segment (s)", step=0.05, readout_format=".2f", layout=WIDE, style=LABELS
        )
        self._pad = ipywidgets.Checkbox(
            description="pad shorter segments to the length of its training",
            indent=False,
            layout=ipywidgets.Layout(width="30em"),
        )
        overlap = ipywidgets.FloatSlider(
            description="Overlap", max=_MOST_OVERLAP, step=0.05, layout=WIDE, style=LABELS
        )
        shifts = ipywidgets.IntSlider(
            description="Shifts", max=_MOST_SHIFTS, layout=WIDE, style=LABELS
        )
        self._cost_text = ipywidgets.HTML()
        devices = ipywidgets.Dropdown(
            options=["auto", *available_devices()],
            description="Device",
            layout=WIDE,
            style=LABELS,
        )
        start = ipywidgets.Button(
            description="Separate", button_style="primary", tooltip="Take the song apart"
        )
        self._save_button = ipywidgets.Button(
            description="Save", tooltip="Save the stems to this folder", disabled=True
        )
        self._replace_button = ipywidgets.Button(
            description="Replace",
            button_style="warning",
            tooltip="Save the stems in place of the earlier result",
            layout=ipywidgets.Layout(display="none"),
        )
        folder = ipywidgets.Text(
            description="Save to",
            placeholder="folder",
            tooltip="Folder that gets the stems, one folder per song",
            continuous_update=False,
            layout=WIDE,
            style=LABELS,
        )

        traitlets.link((self._songs, "song"), (self, "song"))
        traitlets.link((self._models, "model"), (self, "model"))
        if not is_served():
            traitlets.link((self, "out_dir"), (folder, "value"))
        traitlets.link((self, "device"), (devices, "value"))
        traitlets.link((self, "pad_to_training_segment"), (self._pad, "value"))
        self._segment.observe(self._on_segment_moved, "value")
        # Code may set more than the sliders reach: they then stand at their end.
        _follow(self, "overlap", overlap)
        _follow(self, "shifts", shifts)
        start.on_click(lambda _: self.separate())
        self._save_button.on_click(lambda _: self.save())
        self._replace_button.on_click(lambda _: self.save(force=True))
        self.observe(self._show_model, "model")
        self.observe(self._show_segment, "segment_seconds")
        self.observe(lambda _: self._show_cost(), ["song", "model", "device"])
        self.observe(
            lambda _: self._show_cost(measure=True),
            ["segment_seconds", "overlap", "shifts", "pad_to_training_segment"],
        )
        self.observe(self._show_state, "state")
        self.observe(self._withdraw_replacing, "out_dir")
        self._show_model()
        self._show_cost()
        self._show_status()
        self.children = [
            self._songs,
            self._models,
            self._segment,
            indented(self._pad),
            overlap,
            shifts,
            indented(self._cost_text),
            devices,
            self._buttons(start, cancel_tooltip="Stop the run; nothing is written"),
            self._status,
            self._results,
            ipywidgets.HBox(
                [*([] if is_served() else [folder]), self._save_button, self._replace_button]
            ),
        ]

    def _on_segment_moved(self, _: object) -> None:
        own = self._own_segment()
        self.segment_seconds = None if self._segment.value == own else self._segment.value

    def _own_segment(self) -> float:
        return float(self._models.manifest.segment_seconds)

    def _show_model(self, _: object = None) -> None:
        spec = AudioStemSeparator(self.model).spec
        own = self._own_segment()
        longest = min(
            (float(each.max_segment_seconds or math.inf) for each in spec.members), default=math.inf
        )
        shortest = max(each.min_segment_samples for each in spec.members) / spec.sample_rate
        low = min(own, max(_LEAST_SEGMENT_SECONDS, math.ceil(20 * shortest) / 20))
        self.segment_seconds = None
        with self._segment.hold_trait_notifications():
            self._segment.max = min(longest, _MOST_TIMES_ITS_OWN * own)
            self._segment.min = low
            self._segment.value = own
        self._pad.layout.display = "" if spec.pads else "none"

    def _show_segment(self, _: object = None) -> None:
        wanted = self._own_segment() if self.segment_seconds is None else self.segment_seconds
        slider = self._segment
        with slider.hold_trait_notifications():
            slider.min, slider.max = min(slider.min, wanted), max(slider.max, wanted)
            slider.value = wanted

    def _show_cost(self, *, measure: bool = False) -> None:
        try:
            self.cost = self._teller.tell(
                AudioStemSeparator(self.model, device=self.device),
                self._song_length(),
                SeparationSettings(
                    segment_seconds=self.segment_seconds,
                    overlap=self.overlap,
                    shifts=self.shifts,
                    pad_to_training_segment=self.pad_to_training_segment,
                ),
                # Not beside a run: both would be slow.
                measure=measure and self.state != "running",
            )
        except StemlabError as error:
            # A song that cannot be opened is told by the run; while one types, it is no news.
            self.cost = "" if isinstance(error, AudioError) else str(error)
        self._cost_text.value = f'<small role="status">{escape(self.cost)}</small>'

    def _song_length(self) -> tuple[int, int]:
        """Samples and rate, as far as the file tells; decoding it tells, where it does not."""
        path = panel_path(self.song.strip() or ".")
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            raise AudioError(f"{self.song!r} cannot be opened.", path) from None
        key = (str(path), status.st_size, status.st_mtime_ns)
        if key not in self._lengths:
            self._lengths = {key: audio.read_length(path)}
        return self._lengths[key]

    def _show_state(self, _: object = None) -> None:
        self._save_button.disabled = self.state == "running" or not self._runs
        if self.state == "running":
            self._withdraw_replacing()

    def _withdraw_replacing(self, _: object = None) -> None:
        """Whoever replaces a result has just been told of that very result."""
        self._replace_button.layout.display = "none"

    def _show_result(self, song: Path, run: _Run, before: _Run | None) -> str:
        """Put the run into a mixer, beside the one before; say what can be done with it."""
        labels, other = _beside(song, run, before)
        try:
            mixer = StemMixer(run.result.stems, mixture=song, other=other, labels=labels)
        except (StemlabError, OSError) as error:
            self._show_results()
            return f"They can be saved, but there is no mixer to hear them here: {error}"
        self._show_results(mixer)
        return "Listen, and save them if they are worth it."


def _beside(
    song: Path, run: _Run, before: _Run | None
) -> tuple[tuple[str, str], Mapping[str, Path] | None]:
    """What the result can be compared with by ear, and what the two are called."""
    if before is not None and before.recording == run.recording:
        differ = [name for name in _WORDS if run.choices[name] != before.choices[name]]
        if differ:
            label, other = (
                ", ".join(_in_words(choices, name) for name in differ)
                for choices in (run.choices, before.choices)
            )
            return (label, other), before.result.stems
    truth = {name: song.with_name(f"{name}.flac") for name in run.result.stems}
    if song.parent == demo_song_dir() and all(path.is_file() for path in truth.values()):
        return ("estimated", "true"), truth
    return ("A", "B"), None


def _in_words(choices: Mapping[str, Any], name: str) -> str:
    value = choices[name]
    if value is None:
        return "its own segment"
    if isinstance(value, bool):
        value = "yes" if value else "no"
    return _WORDS[name].format(value)


def _follow(panel: SeparationPanel, name: str, slider: Any) -> None:
    """Let a slider and a trait follow each other, each within its own range."""
    slider.value = getattr(panel, name)

    def show(change: traitlets.Bunch) -> None:
        slider.max = max(slider.max, change.new)
        slider.value = change.new

    panel.observe(show, name)
    slider.observe(lambda change: setattr(panel, name, change.new), "value")
