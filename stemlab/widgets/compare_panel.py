"""Look at recordings beside each other, see what sets them apart, and switch between two by ear."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import numpy.typing as npt
import traitlets
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text

from stemlab import audio
from stemlab._typing import StrPath
from stemlab.errors import ParameterError, StemlabError
from stemlab.plots import draw_comparison
from stemlab.plots.spectrograms import band_name
from stemlab.spectra import FREQUENCY_SCALES, SpectralComparison, SpectralGrid, compare_spectra
from stemlab.widgets._choosers import FolderChooser
from stemlab.widgets._served import panel_path
from stemlab.widgets._work import LABELS, WIDE, WorkPanel, picture
from stemlab.widgets.mixer import MIXTURE, StemMixer

__all__ = ["ComparePanel"]

_FRAMES = (256, 512, 1024, 2048, 4096, 8192, 16384)
_LOWEST_HZ = (0, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
# Of a folder: what the lists hold, and how many others are compared unless told otherwise. A
# picture of all recordings of a large folder would show none.
_MOST_OFFERED, _MOST_COMPARED = 100, 5


class ComparePanel(WorkPanel):
    """Compare the spectrograms of recordings in a notebook, and hear two of them in turn.

    Parameters
    ----------
    signals : path, or mapping of str to path or array, each shape (channels, samples)
        A folder stands for the recordings in it; the panel then offers those below it, too, and
        any other by its path.
    sample_rate : int, in Hz, optional
        Of arrays, which need it. Files of another rate are resampled. Default: that of the
        first file.
    seams_seconds : array of float, optional
        Moments to be marked in the pictures, for instance where segments meet.

    Attributes
    ----------
    folder : str
        Whose recordings are compared; can be set. Empty where a mapping was given.
    reference : str
        The signal that the others are compared with; can be set.
    compared : tuple of str
        The others, at first no more than five of a folder; can be set. The first of them is what
        the mixer switches to.
    frequency_scale : {"log", "linear", "mel"}
    fft_samples : int
    time_range_seconds : (float, float)
    lowest_hz : int
    difference : bool
        As in `compare_spectrograms`.
    comparison : SpectralComparison or None
        The last.
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
        If a mapping holds fewer than two signals, or arrays come without a rate.
    AudioError
        If the folder or a file cannot be read.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 44_100))
    >>> panel = ComparePanel({"loud": noise, "quiet": noise / 2}, 44_100)
    >>> panel
    ComparePanel(reference='loud', compared=('quiet',), state='idle')
    """

    folder = traitlets.Unicode()
    reference = traitlets.Unicode()
    compared = traitlets.Tuple()
    frequency_scale = traitlets.Enum(list(FREQUENCY_SCALES), "log")
    fft_samples = traitlets.Enum(list(_FRAMES), 2048)
    time_range_seconds = traitlets.Tuple((0.0, 1.0))
    lowest_hz = traitlets.Enum(list(_LOWEST_HZ), 0)
    difference = traitlets.Bool(True)
    comparison = traitlets.Instance(SpectralComparison, allow_none=True)

    _thread_name = "stemlab-comparison"

    def __init__(
        self,
        signals: StrPath | Mapping[str, StrPath | npt.ArrayLike],
        sample_rate: int | None = None,
        *,
        seams_seconds: npt.ArrayLike = (),
    ) -> None:
        chooser = None
        if isinstance(signals, (str, PathLike)):
            audio.find_recordings(
                panel_path(signals)
            )  # It says so where the folder cannot be read.
            chooser = FolderChooser(signals)
        else:
            _refuse_too_few(signals)
        super().__init__()
        self._seams = np.asarray(seams_seconds, np.float64)
        self._asked_rate = sample_rate
        self._signals: dict[str, Any] = {}
        self._build([] if chooser is None else [chooser])
        if not isinstance(signals, (str, PathLike)):
            self._offer(signals)
        if chooser is not None:
            traitlets.link((chooser, "folder"), (self, "folder"))
            self.observe(self._open, "folder")
            self._open()

    def __repr__(self) -> str:
        return (
            f"ComparePanel(reference={self.reference!r}, compared={self.compared!r}, "
            f"state={self.state!r})"
        )

    def compare(self) -> None:
        """Start to compare what is chosen now, unless that is going on; does not wait.

        `wait` then returns a `SpectralComparison`.
        """
        names = [self.reference, *(each for each in self.compared if each != self.reference)]
        # Another folder may be chosen while these are compared.
        signals = {name: self._signals.get(name) for name in names}
        rate = self._sample_rate
        start, stop = self.time_range_seconds
        whole = (start, stop) == (0.0, self._seconds)
        chosen = {
            "fft_samples": self.fft_samples,
            "frequency_scale": self.frequency_scale,
            "time_range_seconds": None if whole else (start, stop),
            "frequency_range_hz": (self.lowest_hz, rate / 2),
        }
        difference = self.difference
        self._start(
            lambda: self._compare(signals, rate, chosen, difference), "Reading the recordings."
        )

    # ------------------------------------------------------------ what may be chosen

    def _open(self, _: object = None) -> None:
        """Offer the recordings of the chosen folder; what is wrong with it is told in the panel."""
        if self.state == "running":
            self.cancel()
        self._offer({})
        if not self.folder:
            self.message = (
                "There is nothing to compare here yet: separate a song and save its stems, or type "
                "the path of a folder with two recordings or more."
            )
            return
        try:
            found = audio.find_recordings(panel_path(self.folder))
            signals = _named(found[:_MOST_OFFERED])
            _refuse_too_few(signals)
            self._offer(signals, most=_MOST_COMPARED)
            if len(found) > len(signals):
                self.message += f" The first {len(signals)} of {len(found)} recordings are offered."
        except (StemlabError, OSError) as error:
            self.message, self.error = "Choose another folder.", str(error)

    def _offer(
        self, signals: Mapping[str, StrPath | npt.ArrayLike], *, most: int | None = None
    ) -> None:
        """Make these the signals that can be chosen; compare the first with `most` others."""
        rate, seconds = _rate_and_length(signals, self._asked_rate) if signals else (1, 0.0)
        self._show_results()
        self.error, self.comparison = "", None
        self._signals = dict(signals)
        self._sample_rate, self._seconds = rate, seconds
        # The mixture is what stems are compared with.
        names = sorted(self._signals, key=lambda each: each != MIXTURE)
        self.compared = ()
        self._references.options = names or [("nothing to compare", "")]
        self._others.options, self._others.rows = names, max(1, min(6, len(names)))
        self.reference, self.compared = next(iter(names), ""), tuple(names[1:][:most])
        frame = self.fft_samples  # New labels choose the first.
        self._frames.options = [
            (f"{each} samples, {1000 * each / rate:.0f} ms", each) for each in _FRAMES
        ]
        self.fft_samples = frame
        self._times.step = min(0.1, seconds / 10) or 0.1
        self._times.max = seconds
        self.time_range_seconds = (0.0, seconds)
        self.message = "Choose what to compare and press Compare."

    @traitlets.validate("reference")
    def _check_reference(self, proposal: traitlets.Bunch) -> str:
        self._refuse_unknown("reference", proposal.value)
        return str(proposal.value)

    @traitlets.validate("compared")
    def _check_compared(self, proposal: traitlets.Bunch) -> tuple[str, ...]:
        for each in proposal.value:
            self._refuse_unknown("compared", each)
        return tuple(proposal.value)

    def _refuse_unknown(self, trait: str, name: str) -> None:
        if name not in self._signals and (name or self._signals):
            raise ParameterError(
                f"{trait}={name!r} is not one of the signals. Choose one of "
                f"{', '.join(map(repr, self._signals))}."
            )

    # ------------------------------------------------------------ the work

    def _compare(
        self,
        chosen_signals: Mapping[str, Any],
        sample_rate: int,
        chosen: Mapping[str, Any],
        difference: bool,
    ) -> SpectralComparison:
        if len(chosen_signals) < 2:
            raise ParameterError(
                "nothing is chosen to be compared with the reference. Choose another signal."
            )
        grid = SpectralGrid(**chosen)
        with ExitStack() as opened:
            signals = {}
            for number, (name, signal) in enumerate(chosen_signals.items()):
                self._check_stop()
                signals[name] = _open(signal, sample_rate, name)
                opened.callback(signals[name].close)
                self.progress = (number + 1) / (2 * len(chosen_signals))
            self.message = "Comparing."
            comparison = compare_spectra(signals, sample_rate, grid=grid)
        self._check_stop()
        drawn = _picture(comparison, difference, self._seams)
        self._check_stop()
        first, second = list(chosen_signals)[:2]
        mixer = StemMixer(
            {"sound": _playable(chosen_signals[second])},
            sample_rate,
            other={"sound": _playable(chosen_signals[first])},
            labels=(second, first),
        )
        self.comparison = comparison
        self._show_results(drawn, ipywidgets.HTML(_table(comparison)), mixer)
        self.message = "Done."
        return comparison

    # ------------------------------------------------------------ what is shown

    def _build(self, first: list[ipywidgets.Widget]) -> None:
        self._references = ipywidgets.Dropdown(
            options=[""], description="Reference", layout=WIDE, style=LABELS
        )
        self._others = ipywidgets.SelectMultiple(description="Compared", layout=WIDE, style=LABELS)
        scale = ipywidgets.Dropdown(
            options=list(FREQUENCY_SCALES), description="Frequencies", layout=WIDE, style=LABELS
        )
        self._frames = ipywidgets.Dropdown(
            options=_FRAMES, description="Frame", layout=WIDE, style=LABELS
        )
        self._times = ipywidgets.FloatRangeSlider(
            description="Time (s)", min=0, max=1, value=(0, 1), layout=WIDE, style=LABELS
        )
        lowest = ipywidgets.Dropdown(
            options=[(f"{each} Hz" if each else "all", each) for each in _LOWEST_HZ],
            description="From",
            layout=WIDE,
            style=LABELS,
        )
        difference = ipywidgets.Checkbox(description="draw the differences")
        for name, widget in (
            ("reference", self._references),
            ("compared", self._others),
            ("frequency_scale", scale),
            ("fft_samples", self._frames),
            ("time_range_seconds", self._times),
            ("lowest_hz", lowest),
            ("difference", difference),
        ):
            traitlets.link((self, name), (widget, "value"))
        start = ipywidgets.Button(
            description="Compare", button_style="primary", tooltip="Compute the spectrograms"
        )
        start.on_click(lambda _: self.compare())
        self._show_status()
        self.children = [
            *first,
            *(self._references, self._others, scale, self._frames, self._times, lowest, difference),
            self._buttons(start),
            self._status,
            self._results,
        ]


def _refuse_too_few(signals: Mapping[str, Any]) -> None:
    if len(signals) < 2:
        raise ParameterError(
            f"there are {len(signals)} signals to compare. Pass two or more, or a folder that "
            "holds them."
        )


def _named(recordings: list[Path]) -> dict[str, StrPath | npt.ArrayLike]:
    """Name recordings without their suffix, unless that makes two alike."""
    count = Counter(each.stem for each in recordings)
    return {each.stem if count[each.stem] == 1 else each.name: each for each in recordings}


def _open(signal: Any, sample_rate: int, name: str) -> audio.SeekableRecording:
    if not isinstance(signal, (str, PathLike)):
        signal = audio.as_audio(signal, name=f"signals[{name!r}]")
    return audio.SeekableRecording(_playable(signal), sample_rate)


def _playable(signal: Any) -> Any:
    return panel_path(signal) if isinstance(signal, (str, PathLike)) else signal


def _rate_and_length(signals: Mapping[str, Any], sample_rate: int | None) -> tuple[int, float]:
    """The rate for all, and the length of the longest as far as headers tell."""
    seconds = []
    for signal in signals.values():
        if isinstance(signal, (str, PathLike)):
            samples, own_rate = audio.read_length(panel_path(signal))
            sample_rate = sample_rate or own_rate
            seconds.append(samples / own_rate)
    for signal in signals.values():
        if not isinstance(signal, (str, PathLike)):
            if sample_rate is None:
                raise ParameterError("sample_rate is missing. Pass the rate of the arrays in Hz.")
            seconds.append(np.shape(signal)[-1] / sample_rate)
    assert sample_rate is not None
    return sample_rate, max(seconds)


def _picture(
    comparison: SpectralComparison, difference: bool, seams_seconds: npt.NDArray[np.float64]
) -> ipywidgets.HTML:
    axes = draw_comparison(comparison, difference=difference, seams_seconds=seams_seconds)
    figure = axes.ravel()[0].figure
    for each in figure.findobj(Text):
        _replace_missing(each)
    return picture(figure, _told(comparison))


def _replace_missing(text: Text) -> None:
    """Write ? for letters that no font has; matplotlib would warn, and the notebook show it.

    The table has the name as it is. A filter of warnings would act on all threads.
    """
    content = text.get_text()
    if content.isascii():
        return
    known = set()
    for family in text.get_fontfamily():
        properties = text.get_fontproperties().copy()
        properties.set_family(family)
        known |= set(get_font(findfont(properties)).get_charmap())
    text.set_text("".join(each if ord(each) in known else "?" for each in content))


def _told(comparison: SpectralComparison) -> str:
    """The picture in words, for whoever cannot see it."""
    distances = ", ".join(
        f"{name} {each:.1f} dB" for name, each in comparison.log_spectral_distance_db.items()
    )
    return (
        f"Spectrograms of {', '.join(comparison.powers)}. Log-spectral distance from "
        f"{comparison.reference}: {distances}."
    )


def _table(comparison: SpectralComparison) -> str:
    def cells(tag: str, values: list[str]) -> str:
        return "".join(f"<{tag} style='padding: 0 6px'>{escape(each)}</{tag}>" for each in values)

    heads = ["", "distance", *(f"{band_name(each)} Hz" for each in comparison.band_hz)]
    rows = [f"<tr>{cells('th', heads)}</tr>"]
    for name, distance in comparison.log_spectral_distance_db.items():
        figures = [distance, *comparison.band_differences_db[name]]
        shown = ["–" if np.isnan(each) else f"{each:z.1f}" for each in figures]
        rows.append(f"<tr>{cells('td', [name, *shown])}</tr>")
    return (
        f"<small>In dB, compared with {escape(comparison.reference)}: log-spectral distance, and "
        f"by how much each octave band is louder.<table>{''.join(rows)}</table></small>"
    )
