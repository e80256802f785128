"""Cut a signal into segments, put it together again, and see and hear the seams."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape

import ipywidgets
import numpy as np
import traitlets

from stemlab import audio
from stemlab._assets import demo_song_dir
from stemlab._typing import AudioArray
from stemlab.chunking import ChunkPlan, FloatArray, MixtureWindow, overlap_add
from stemlab.metrics import seams
from stemlab.plots.seams import plot_seam
from stemlab.separation import AudioStemSeparator, SegmentDone, SeparationSettings
from stemlab.widgets._work import LABELS, WIDE, WorkPanel, picture
from stemlab.widgets.mixer import StemMixer

__all__ = ["MATERIALS", "SeamPanel", "SeamView"]

MATERIALS = ("a sine wave", "the demo song")
"""What can be cut."""

_MOST_OVERLAP = 0.75
_RATE = 44_100
# Of whole periods, so that without overlap each cut meets the sine at its peak.
_SINE_SECONDS, _SINE_HZ, _SINE_SEGMENT = 4, 220, 0.5
# Four of these are the longest that the default model sees at once.
_SONG_START, _SONG_SEGMENT = 8, 1.95


@dataclass(frozen=True)
class SeamView:
    """What a cut signal is like."""

    material: str
    overlap: float
    plan: ChunkPlan
    click_db: float

    @property
    def work(self) -> float:
        """How many times the length of the recording its segments have together."""
        return self.plan.covered_samples / self.plan.samples


@dataclass(frozen=True)
class _Cut:
    """A signal that went through segments, and what it should be."""

    plan: ChunkPlan
    result: dict[str, AudioArray]
    uncut: dict[str, AudioArray]
    shown: str


class SeamPanel(WorkPanel):
    """Move the overlap, and see and hear the seams between segments come and go.

    A sine wave goes through a stand-in for a network: it makes every second segment louder and
    the others softer, as a network may that sees other surroundings each time. The demo song goes
    through the default model. Both are cut and put together by the arithmetic of every separation.

    Parameters
    ----------
    material : {"a sine wave", "the demo song"}, default "a sine wave"

    Attributes
    ----------
    material : str
        Can be set.
    overlap : float, in [0, 0.75]
        Can be set: everything else follows at once, a song within seconds.
    difference_db : float, in [0, 6]
        Between neighbouring segments of the sine wave; can be set.
    view : SeamView or None
        What is shown.
    mixer : StemMixer or None
        Plays what came of the segments, and by turns what it should be.
    state : {"idle", "running", "done", "cancelled", "failed"}
    message : str
        What the panel says about the state.
    error : str
        What went wrong in the last run; empty otherwise.

    Examples
    --------
    >>> panel = SeamPanel()
    >>> panel.overlap = 0.5
    >>> view = panel.wait(60)
    >>> view.overlap, view.plan.calls
    (0.5, 16)
    """

    material = traitlets.Enum(MATERIALS, MATERIALS[0])
    overlap = traitlets.Float(0.0)
    difference_db = traitlets.Float(2.0)
    view = traitlets.Instance(SeamView, allow_none=True)

    _thread_name = "stemlab-seams"

    def __init__(self, material: str = MATERIALS[0]) -> None:
        super().__init__()
        self.material = material
        self._songs: dict[float, _Cut] = {}
        self._shown: tuple[str, float, float] | None = None
        self._closed = False
        self._build()
        self._follow()

    def __repr__(self) -> str:
        return f"SeamPanel(material={self.material!r}, overlap={self.overlap:g})"

    def wait(self, timeout: float | None = None) -> SeamView:
        """Wait until what is chosen is shown.

        Parameters
        ----------
        timeout : float, in seconds, optional
            Default: no limit.

        Returns
        -------
        view : SeamView

        Raises
        ------
        SeparationError
            If it was cancelled.
        TimeoutError
            If it is not done after `timeout`; it goes on.
        """
        found: SeamView = super().wait(timeout)
        while self._shown != self._wanted:
            self._follow()
            found = super().wait(timeout)
        return found

    def close(self) -> None:
        """Stop the work and take the panel off the page."""
        self._closed = True
        super().close()

    # ------------------------------------------------------------ what may be chosen

    @traitlets.validate("overlap", "difference_db")
    def _check(self, proposal: traitlets.Bunch) -> float:
        most = _MOST_OVERLAP if proposal.trait.name == "overlap" else 6.0
        return min(max(float(proposal.value), 0.0), most)

    # ------------------------------------------------------------ the work

    @property
    def _wanted(self) -> tuple[str, float, float]:
        return self.material, self.overlap, self.difference_db

    def _follow(self, _: object = None) -> None:
        """Show what is chosen now; what is chosen while that is going on, is shown next."""
        if not self._closed and self._shown != self._wanted:
            self._start(self._catch_up, "Cutting and joining.")

    def _on_state(self, change: traitlets.Bunch) -> None:
        if change.new == "done":
            self._follow()

    def _catch_up(self) -> SeamView:
        while True:
            material, overlap, difference_db = wanted = self._wanted
            if material == MATERIALS[0]:
                cut = _cut_sine(overlap, difference_db)
            else:
                cut = self._cut_song(overlap)
            self._check_stop()
            self.view = view = self._show(material, overlap, cut)
            self._shown = wanted
            if wanted == self._wanted:
                return view

    def _cut_song(self, overlap: float) -> _Cut:
        if overlap not in self._songs:
            self.message = (
                "Separating eight seconds of the demo song, in segments and in one piece."
            )
            self._songs[overlap] = _separate(overlap, self._on_progress)
        return self._songs[overlap]

    def _on_progress(self, event: SegmentDone) -> None:
        self._check_stop()
        self.progress = event.done / event.total

    # ------------------------------------------------------------ what is shown

    def _build(self) -> None:
        material = ipywidgets.Dropdown(
            options=MATERIALS, description="Cut", layout=WIDE, style=LABELS
        )
        overlap = ipywidgets.FloatSlider(
            description="Overlap", max=_MOST_OVERLAP, step=0.05, layout=WIDE, style=LABELS
        )
        difference = ipywidgets.FloatSlider(
            description="Differ (dB)", max=6, step=0.5, layout=WIDE, style=LABELS
        )
        for name, widget in (
            ("material", material),
            ("overlap", overlap),
            ("difference_db", difference),
        ):
            traitlets.link((self, name), (widget, "value"))

        def show(_: object = None) -> None:
            difference.layout.display = "" if self.material == MATERIALS[0] else "none"

        self.observe(show, "material")
        self.observe(self._follow, ["material", "overlap", "difference_db"])
        # What was chosen just before the end was too late for that run.
        self.observe(self._on_state, "state")
        show()
        self._show_status()
        self.children = [
            *(material, overlap, difference),
            self._buttons(cancel_tooltip="Stop the separation"),
            self._status,
            self._results,
        ]

    def _show(self, material: str, overlap: float, cut: _Cut) -> SeamView:
        click_db = _step_db if material == MATERIALS[0] else _seam_db
        view = SeamView(material, overlap, cut.plan, click_db(cut))
        text = _told(view)
        axes = plot_seam(cut.plan, cut.result[cut.shown], cut.uncut[cut.shown])
        mixer = StemMixer(
            cut.result, _RATE, other=cut.uncut, labels=("in segments", "as it should be")
        )
        drawn = picture(axes[0].figure, text)
        self._show_results(drawn, ipywidgets.HTML(f"<div>{escape(text)}</div>"), mixer)
        self.message = f"Shown: overlap {overlap:g}."
        return view


def _told(view: SeamView) -> str:
    return (
        f"{view.plan.calls} segments, {view.work:.2f} times the work of the recording's length; "
        f"the seams stand out by {view.click_db:z.0f} dB."
    )


def _step_db(cut: _Cut) -> float:
    steps = [np.abs(np.diff(each[cut.shown])).max() for each in (cut.result, cut.uncut)]
    return float(20 * np.log10(steps[0] / steps[1]))


def _seam_db(cut: _Cut) -> float:
    reports = [
        seams(cut.uncut[name], signal, cut.plan.boundaries, _RATE)
        for name, signal in cut.result.items()
    ]
    return float(np.nanmean([each.mean_db for each in reports]))


def _cut_sine(overlap: float, difference_db: float) -> _Cut:
    samples = _SINE_SECONDS * _RATE
    sine = 0.3 * np.cos(2 * np.pi * _SINE_HZ * np.arange(samples) / _RATE).astype(np.float32)
    plan = ChunkPlan(samples, _RATE, _SINE_SEGMENT, overlap)
    calls = 0

    def stand_in(_: int, inputs: FloatArray) -> FloatArray:
        nonlocal calls
        calls += 1
        sign = 1 if calls % 2 else -1
        return np.float32(10 ** (sign * difference_db / 40)) * inputs[:, None]

    mixture = MixtureWindow([sine[None]], 1, samples)
    blocks = overlap_add(mixture, [plan], stand_in, gains=np.ones((1, 1), np.float32), channels=1)
    joined = np.concatenate([block for _, block in blocks], axis=-1)[0]
    return _Cut(plan, {"sine": joined}, {"sine": sine[None]}, "sine")


def _separate(overlap: float, progress: Callable[[SegmentDone], None]) -> _Cut:
    """An excerpt in segments, and the same in one piece."""
    separator = AudioStemSeparator()
    inside = slice(_SONG_START * _RATE, int((_SONG_START + 4 * _SONG_SEGMENT) * _RATE))
    mixture = audio.read_file(demo_song_dir() / "mixture.flac")[0][:, inside]
    settings = SeparationSettings(
        segment_seconds=_SONG_SEGMENT, overlap=overlap, pad_to_training_segment=False
    )
    (plan,) = separator.plan(mixture.shape[1], settings)
    stems = separator.separate_audio(mixture, _RATE, settings=settings, progress=progress)
    whole = separator.separate_audio(mixture, _RATE, overlap=0.0, progress=progress)
    return _Cut(plan, stems, whole, "bass")
