"""Process a signal in segments, join them, and see and hear the seams."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import ipywidgets
import numpy as np
import traitlets

from stemlab import audio
from stemlab._typing import AudioArray
from stemlab.chunking import ChunkPlan, FloatArray, MixtureWindow, overlap_add
from stemlab.metrics import seams
from stemlab.plots.seams import plot_seam
from stemlab.separation import AudioStemSeparator, SegmentDone, SeparationSettings
from stemlab.widgets._choosers import demo_song
from stemlab.widgets._fields import dropdown, field, picture
from stemlab.widgets._work import WorkPanel
from stemlab.widgets.mixer import StemMixer

MATERIALS = ("a sine wave", "the demo song")
"""Signals that the panel offers."""

_MOST_OVERLAP = 0.75
_RATE = 44_100
# A segment holds whole periods: without overlap, each boundary meets the sine at its peak.
_SINE_SECONDS, _SINE_HZ, _SINE_SEGMENT = 4, 220, 0.5
# Four of these segments are the longest input of the default model.
_SONG_START, _SONG_SEGMENT = 8, 1.95


@dataclass(frozen=True)
class SeamView:
    """Plan and seams of a signal that was processed in segments."""

    material: str
    overlap: float
    plan: ChunkPlan
    click_db: float

    @property
    def work(self) -> float:
        """Total length of the segments, as a multiple of the length of the recording."""
        return self.plan.covered_samples / self.plan.samples


class _Joined(NamedTuple):
    """A signal that was processed in segments, and the same in one piece."""

    plan: ChunkPlan
    result: dict[str, AudioArray]
    uncut: dict[str, AudioArray]


class SeamPanel(WorkPanel[SeamView]):
    """Move the overlap, and see and hear the seams between segments come and go.

    A sine wave goes through a stand-in for a network, which makes every second segment louder and
    the others softer, as a network may that sees a different context each time. The demo song goes
    through the default model. Both are cut and joined by the same code as in every separation.

    Parameters
    ----------
    material : {"a sine wave", "the demo song"}, default "a sine wave"

    Attributes
    ----------
    material : str
        Can be set. ``wait(timeout=None)`` waits until what is chosen is shown, and returns `view`.
    overlap : float, in [0, 0.75]
        Can be set: the result follows at once, that of a song within seconds.
    difference_db : float, in [0, 6]
        Level difference between neighbouring segments of the sine wave; can be set.
    view : SeamView or None
        What is shown.
    mixer : StemMixer or None
        Plays the result of the segments and, by turns, that of one piece.
    state, message, error
        As in `SeparationPanel`.

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

    _in_repr = ("material", "overlap")

    def __init__(self, material: str = MATERIALS[0]) -> None:
        super().__init__()
        self.material = material
        self._songs: dict[float, _Joined] = {}
        self._shown: tuple[str, float, float] | None = None
        slider = ipywidgets.FloatSlider
        step = "Level difference between neighbouring segments"
        difference = field(slider, "Step (dB)", max=6, step=0.5, tooltip=step)
        self.children = [
            self._bind("material", dropdown("Signal", MATERIALS)),
            self._bind("overlap", field(slider, "Overlap", max=_MOST_OVERLAP, step=0.05)),
            self._bind("difference_db", difference),
            self._controls(cancel_tooltip="Stop the separation"),
            self._results,
        ]
        traitlets.dlink(
            (self, "material"),
            (difference.layout, "display"),
            lambda chosen: "" if chosen == MATERIALS[0] else "none",
        )
        # What was chosen during the work is shown next.
        self.observe(self._follow, ["material", "overlap", "difference_db", "state"])
        self._follow()

    @traitlets.validate("overlap", "difference_db")
    def _check(self, proposal: traitlets.Bunch) -> float:
        most = _MOST_OVERLAP if proposal.trait.name == "overlap" else 6.0
        return min(max(float(proposal.value), 0.0), most)

    def _follow(self, change: traitlets.Bunch | None = None) -> None:
        """Show what is chosen now, unless work is going on, was cancelled or failed."""
        if change is not None and change.name == "state" and change.new != "done":
            return
        if not self._closed and self._shown != _wanted(self):
            self._start(self._catch_up, "Computing.")

    def _catch_up(self, chosen: Any) -> SeamView:
        material, overlap, difference_db = wanted = _wanted(chosen)
        if material == MATERIALS[0]:
            name, joined = "sine", _join_sine(overlap, difference_db)
            click_db = _step_db(joined)
        else:
            name, joined = "bass", self._join_song(overlap)
            click_db = _seam_db(joined)
        self._check_stop()
        self.view = view = SeamView(material, overlap, joined.plan, click_db)
        text = (
            f"{view.plan.calls} segments, {view.work:.2f} times the length of the recording; "
            f"the seams stand out by {click_db:z.0f} dB."
        )
        axes = plot_seam(joined.plan, joined.result[name], joined.uncut[name])
        labels = ("in segments", "in one piece")
        mixer = StemMixer(joined.result, _RATE, other=joined.uncut, labels=labels)
        drawn = picture(axes[0].figure, text)
        self._show_results(drawn, ipywidgets.HTML(f"<div>{escape(text)}</div>"), mixer)
        self.message = f"Showing an overlap of {overlap:g}."
        self._shown = wanted
        return view

    def _join_song(self, overlap: float) -> _Joined:
        """Separate an excerpt of the demo song in segments and in one piece, once per overlap."""
        if overlap not in self._songs:
            self.message = (
                "Separating eight seconds of the demo song, in segments and in one piece."
            )

            def tell(event: SegmentDone) -> None:
                self._report(event.done / event.total)

            separator = AudioStemSeparator()
            excerpt = slice(_SONG_START * _RATE, int((_SONG_START + 4 * _SONG_SEGMENT) * _RATE))
            mixture = audio.read_file(demo_song())[0][:, excerpt]
            settings = SeparationSettings(
                segment_seconds=_SONG_SEGMENT, overlap=overlap, pad_to_training_segment=False
            )
            (plan,) = separator.plan(mixture.shape[1], settings)
            stems = separator.separate_audio(mixture, _RATE, settings=settings, progress=tell)
            # In one piece, the overlap makes no difference.
            whole = next((joined.uncut for joined in self._songs.values()), None)
            if whole is None:
                whole = separator.separate_audio(mixture, _RATE, overlap=0.0, progress=tell)
            self._songs[overlap] = _Joined(plan, stems, whole)
        return self._songs[overlap]


def _wanted(chosen: Any) -> tuple[str, float, float]:
    return chosen.material, chosen.overlap, chosen.difference_db


def _step_db(joined: _Joined) -> float:
    """How much larger the largest step of the sine wave is than in one piece."""
    cut, uncut = (
        np.abs(np.diff(signals["sine"])).max() for signals in (joined.result, joined.uncut)
    )
    return float(20 * np.log10(cut / uncut))


def _seam_db(joined: _Joined) -> float:
    reports = [
        seams(joined.uncut[name], signal, joined.plan.boundaries, _RATE)
        for name, signal in joined.result.items()
    ]
    return float(np.nanmean([report.mean_db for report in reports]))


def _join_sine(overlap: float, difference_db: float) -> _Joined:
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
    return _Joined(plan, {"sine": joined}, {"sine": sine[None]})
