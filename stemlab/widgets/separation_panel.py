"""Choose a song, separate it, listen to the stems, save them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ipywidgets
import traitlets

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
from stemlab.widgets._fields import button, checkbox, dropdown, field, text_field
from stemlab.widgets._finished import FinishedRun
from stemlab.widgets._served import is_served, panel_path
from stemlab.widgets._work import WorkPanel
from stemlab.widgets.mixer import StemMixer

__all__ = ["SeparationPanel"]

# What the sliders offer. Code may set everything that the model accepts.
_LEAST_SEGMENT_SECONDS, _MOST_TIMES_ITS_OWN = 0.25, 4
_MOST_OVERLAP, _MOST_SHIFTS = 0.9, 10


class SeparationPanel(WorkPanel):
    """Separate a song in a notebook, hear the stems, and compare with the run before.

    The last expression of a cell shows the panel. What its buttons do, `separate`, `cancel`,
    `save` and `wait` do from code. The work runs in a thread of its own, and the kernel stays free.

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
    song, model, out_dir : str
        What the next run, or `save`, will use; can be set.
    segment_seconds : float or None
        None for the model's own.
    overlap : float, in [0, 1)
    shifts : int, in [0, 100]
    pad_to_training_segment : bool
        See `SeparationSettings`.
    device : str
        ``auto``, or one that this machine has.
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
        self._runs: list[FinishedRun] = []
        self._teller = CostTeller(self._show_cost)
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
        # Read now: the fields may change during the run.
        song, model, device = self.song.strip(), self.model, self.device
        settings = self._settings()
        self._start(
            lambda: self._separate(song, model, device, settings),
            "Reading the model and the song.",
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

    def _settings(self) -> SeparationSettings:
        return SeparationSettings(
            segment_seconds=self.segment_seconds,
            overlap=self.overlap,
            shifts=self.shifts,
            pad_to_training_segment=self.pad_to_training_segment,
        )

    def _separate(
        self, song: str, model: str, device: str, settings: SeparationSettings
    ) -> SeparationResult:
        if not song:
            raise ParameterError("song is empty. Choose one, or type the path of an audio file.")
        separator = AudioStemSeparator(model, device=device)
        path = panel_path(song)
        folder = ScratchFolder()
        try:
            result = separator.separate_file(
                path, folder.name, settings=settings, progress=self._on_progress
            )
        except BaseException:
            folder.cleanup()
            raise
        run = FinishedRun(separator.name, settings, result, folder)
        before = self._runs[-1] if self._runs else None
        # From here on it can be saved, whatever happens.
        self._runs.append(run)
        advice = self._show_result(path, run, before)
        # The mixer plays at most these two.
        while len(self._runs) > 2:
            self._runs.pop(0).folder.cleanup()
        seconds = result.run.cost.wall_seconds
        self.message = f"Done in {seconds:.1f} s: {len(result.stems)} stems. {advice}"
        return result

    def _save(self, result: SeparationResult, out_dir: Path, force: bool) -> SeparationResult:
        try:
            saved = save_result(result, out_dir, force=force)
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
        self._check_stop()
        self.progress = event.done / event.total
        self.message = (
            f"Segment {event.done} of {event.total}, about {event.remaining_seconds:.0f} s left."
            if event.done < event.total
            else "Writing the stems."
        )

    # ------------------------------------------------------------ what is shown

    def _build(self) -> None:
        slider = ipywidgets.FloatSlider
        self._segment = field(slider, "Segment (s)", step=0.05, readout_format=".2f")
        self._pad = checkbox("Pad short segments to the training length")
        self._save_button = button("Save", "Save the stems to this folder", self.save)
        replace = "Save the stems in place of the earlier result"
        self._replace_button = button("Replace", replace, lambda: self.save(force=True), "warning")
        folder = text_field("Save to", "folder", tooltip="Stems go to a subfolder per song")
        traitlets.link((self._songs, "path"), (self, "song"))
        traitlets.link((self._models, "model"), (self, "model"))
        self._show_model()
        saving = [self._save_button, self._replace_button]
        if not is_served():
            saving.insert(0, self._bind("out_dir", folder))
        self.children = [
            self._songs,
            self._models,
            self._bind(
                "segment_seconds",
                self._segment,
                to_field=lambda seconds: (
                    self._models.segment_seconds if seconds is None else seconds
                ),
                to_trait=lambda seconds: (
                    None if seconds == self._models.segment_seconds else seconds
                ),
            ),
            self._bind("pad_to_training_segment", self._pad),
            self._bind("overlap", field(slider, "Overlap", max=_MOST_OVERLAP, step=0.05)),
            self._bind("shifts", field(ipywidgets.IntSlider, "Shifts", max=_MOST_SHIFTS)),
            self._caption("cost"),
            self._bind("device", dropdown("Device", ["auto", *available_devices()])),
            self._controls(
                button("Separate", "Separate the song into stems", self.separate, "primary"),
                cancel_tooltip="Stop the run; nothing is written",
            ),
            self._status,
            self._results,
            ipywidgets.HBox(saving),
        ]
        self.observe(self._show_model, "model")
        self.observe(lambda _: self._show_cost(), ["song", "model", "device"])
        self.observe(
            lambda _: self._show_cost(measure=True),
            ["segment_seconds", "overlap", "shifts", "pad_to_training_segment"],
        )
        self.observe(self._show_state, "state")
        self.observe(self._withdraw_replacing, "out_dir")
        self._show_state()
        self._withdraw_replacing()
        self._show_cost()

    def _show_model(self, _: object = None) -> None:
        spec = AudioStemSeparator(self.model).spec
        own = self._models.segment_seconds
        longest = min(
            (float(member.max_segment_seconds or math.inf) for member in spec.members),
            default=math.inf,
        )
        shortest = max(member.min_segment_samples for member in spec.members) / spec.sample_rate
        low = min(own, max(_LEAST_SEGMENT_SECONDS, math.ceil(20 * shortest) / 20))
        self.segment_seconds = None
        with self._segment.hold_trait_notifications():
            self._segment.max = min(longest, _MOST_TIMES_ITS_OWN * own)
            self._segment.min = low
            self._segment.value = own
        self._pad.layout.display = "" if spec.pads else "none"

    def _show_cost(self, *, measure: bool = False) -> None:
        try:
            self.cost = self._teller.tell(
                AudioStemSeparator(self.model, device=self.device),
                self._songs.length(),
                self._settings(),
                # Not during a run: each would slow the other down.
                measure=measure and self.state != "running",
            )
        except StemlabError as error:
            # The run reports a song that cannot be opened. While a path is typed, it is no news.
            self.cost = "" if isinstance(error, AudioError) else str(error)

    def _show_state(self, _: object = None) -> None:
        self._save_button.disabled = self.state == "running" or not self._runs
        if self.state == "running":
            self._withdraw_replacing()

    def _withdraw_replacing(self, _: object = None) -> None:
        """Offer Replace only right after the result to be replaced was named."""
        self._replace_button.layout.display = "none"

    def _show_result(self, song: Path, run: FinishedRun, before: FinishedRun | None) -> str:
        """Put the run into a mixer, beside the one before; return advice on what to do next."""
        labels, other = run.counterpart(song, before)
        try:
            mixer = StemMixer(run.result.stems, mixture=song, other=other, labels=labels)
        except (StemlabError, OSError) as error:
            self._show_results()
            return f"They can be saved, but not played here: {error}"
        self._show_results(mixer)
        return "Listen to them, and press Save to keep them."
