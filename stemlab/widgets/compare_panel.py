"""Compare the spectrograms of recordings, and switch between two of them by ear."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from os import PathLike
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import numpy.typing as npt
import traitlets
from matplotlib.figure import Figure
from matplotlib.font_manager import findfont, get_font
from matplotlib.text import Text

from stemlab import audio
from stemlab._typing import StrPath
from stemlab.errors import ParameterError, StemlabError
from stemlab.plots import draw_comparison
from stemlab.plots._panels import band_name
from stemlab.spectra import FREQUENCY_SCALES, SpectralComparison, SpectralGrid, compare_spectra
from stemlab.widgets._choosers import FolderChooser
from stemlab.widgets._fields import button, checkbox, dropdown, field, picture, table
from stemlab.widgets._page import panel_path
from stemlab.widgets._work import WorkPanel
from stemlab.widgets.mixer import MIXTURE, StemMixer

_FRAMES = (256, 512, 1024, 2048, 4096, 8192, 16384)
_LOWEST_HZ = (0, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
# How many recordings of a folder are offered, and how many others are selected at first: a picture
# of all would be too small to read.
_MOST_OFFERED, _MOST_COMPARED = 100, 5


class ComparePanel(WorkPanel[SpectralComparison]):
    """Compare the spectrograms of recordings in a notebook, and hear two of them by turns.

    Parameters
    ----------
    signals : path, or mapping of str to path or array, each shape (channels, samples)
        A folder stands for the recordings in it; the panel then also offers the folders below it,
        and any other by its path.
    sample_rate : int, in Hz, optional
        Of arrays, which need it. Files of another rate are resampled. Default: that of the
        first file.
    seams_seconds : array of float, optional
        Times to mark in the pictures, for instance where segments meet.

    Attributes
    ----------
    folder : str
        Folder of the recordings; can be set. Empty if a mapping was given.
    reference : str
        The signal that the others are compared with; can be set.
    compared : tuple of str
        The others, at first at most five of a folder; can be set. The mixer plays the first of
        them and the reference.
    frequency_scale : {"log", "linear", "mel"}
    fft_samples : int
    time_range_seconds : (float, float)
    lowest_hz : int
    difference : bool
        As in `compare_spectrograms`.
    comparison : SpectralComparison or None
        The last.
    mixer : StemMixer or None
    state, progress, message, error
        As in `SeparationPanel`.

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
    frequency_scale = traitlets.Enum(FREQUENCY_SCALES, "log")
    fft_samples = traitlets.Enum(_FRAMES, 2048)
    time_range_seconds = traitlets.Tuple((0.0, 1.0))
    lowest_hz = traitlets.Enum(_LOWEST_HZ, 0)
    difference = traitlets.Bool(True)
    comparison = traitlets.Instance(SpectralComparison, allow_none=True)

    _in_repr = ("reference", "compared", "state")

    def __init__(
        self,
        signals: StrPath | Mapping[str, StrPath | npt.ArrayLike],
        sample_rate: int | None = None,
        *,
        seams_seconds: npt.ArrayLike = (),
    ) -> None:
        choosers = []
        if isinstance(signals, Mapping):
            _refuse_too_few(signals)
        else:
            audio.find_recordings(panel_path(signals))  # Raises if the folder cannot be read.
            choosers = [FolderChooser(signals)]
        super().__init__()
        self._seams = np.asarray(seams_seconds, np.float64)
        self._asked_rate = sample_rate
        self._signals: dict[str, Any] = {}
        # Held while the signals change, and while their comparison is shown.
        self._offering = threading.RLock()
        self._references = dropdown("Reference", [""])
        self._others = field(ipywidgets.SelectMultiple, "Compared")
        self._frames = dropdown("Frame", _FRAMES)
        self._times = field(ipywidgets.FloatRangeSlider, "Time (s)", min=0, max=1, value=(0, 1))
        lowest = [(f"{hz} Hz" if hz else "0 Hz (everything)", hz) for hz in _LOWEST_HZ]
        compare = "Compute and compare the spectrograms"
        self.children = [
            *choosers,
            self._bind("reference", self._references),
            self._bind("compared", self._others),
            self._bind("frequency_scale", dropdown("Freq. scale", FREQUENCY_SCALES)),
            self._bind("fft_samples", self._frames),
            self._bind("time_range_seconds", self._times),
            self._bind("lowest_hz", dropdown("Show above", lowest)),
            self._bind("difference", checkbox("Show differences")),
            self._controls(button("Compare", compare, self.compare, "primary")),
            self._results,
        ]
        if isinstance(signals, Mapping):
            self._offer(signals)
        else:
            traitlets.link((choosers[0], "path"), (self, "folder"))
            self.observe(self._open, "folder")
            self._open()

    def compare(self) -> None:
        """Start to compare what is chosen now, unless that is going on; does not wait.

        `wait` then returns a `SpectralComparison`.
        """
        names = [self.reference, *(name for name in self.compared if name != self.reference)]
        # Read now: another folder may be chosen while these are compared.
        signals = {name: self._signals.get(name) for name in names}
        rate, whole = self._sample_rate, self.time_range_seconds == (0.0, self._seconds)
        self._start(
            lambda chosen: self._compare(signals, rate, chosen, whole), "Reading the recordings."
        )

    def _open(self, _: object = None) -> None:
        """Offer the recordings of the chosen folder, or show what is wrong with it."""
        with self._offering:
            self.cancel()
            self._offer({})
        if not self.folder:
            self.message = (
                "There is nothing to compare here yet. Separate a song and save its stems, or "
                "enter the path of a folder with at least two recordings."
            )
            return
        try:
            found = audio.find_recordings(panel_path(self.folder))
            offered = found[:_MOST_OFFERED]
            # Without their suffix, unless that makes two alike.
            count = Counter(path.stem for path in offered)
            signals = {path.stem if count[path.stem] == 1 else path.name: path for path in offered}
            _refuse_too_few(signals)
            self._offer(signals, most=_MOST_COMPARED)
            if len(found) > len(signals):
                self.message += f" The first {len(signals)} of {len(found)} recordings are offered."
        except (StemlabError, OSError) as error:
            self.message, self.error = "Choose another folder.", str(error)

    def _offer(self, signals: Mapping[str, Any], *, most: int | None = None) -> None:
        """Offer these signals, and select the first and at most `most` others."""
        rate, seconds = _rate_and_length(signals, self._asked_rate) if signals else (1, 0.0)
        self._show_results()
        self.error, self.comparison = "", None
        self._signals = dict(signals)
        self._sample_rate, self._seconds = rate, seconds
        # The mixture is what stems are compared with.
        names = sorted(signals, key=lambda name: name != MIXTURE)
        self.compared = ()
        self._references.options = names or [("nothing to compare", "")]
        self._others.options, self._others.rows = names, max(1, min(6, len(names)))
        self.reference, self.compared = names[0] if names else "", tuple(names[1:][:most])
        frame = self.fft_samples  # New labels choose the first.
        self._frames.options = [
            (f"{samples} samples, {1000 * samples / rate:.0f} ms", samples) for samples in _FRAMES
        ]
        self.fft_samples = frame
        self._times.step = min(0.1, seconds / 10) or 0.1
        self._times.max = seconds
        self.time_range_seconds = (0.0, seconds)
        self.message = "Choose what to compare and press Compare."

    @traitlets.validate("reference", "compared")
    def _check_names(self, proposal: traitlets.Bunch) -> Any:
        trait, value = proposal.trait.name, proposal.value
        for name in value if trait == "compared" else [value]:
            if name not in self._signals and (name or self._signals):
                raise ParameterError(
                    f"{trait}={name!r} is not one of the signals. Choose one of "
                    f"{', '.join(map(repr, self._signals))}."
                )
        return value

    def _compare(
        self, signals: Mapping[str, Any], sample_rate: int, chosen: Any, whole: bool
    ) -> SpectralComparison:
        if len(signals) < 2:
            raise ParameterError(
                "no signal is selected for comparison. Select one besides the reference."
            )
        grid = SpectralGrid(
            fft_samples=chosen.fft_samples,
            frequency_scale=chosen.frequency_scale,
            time_range_seconds=None if whole else chosen.time_range_seconds,
            frequency_range_hz=(chosen.lowest_hz, sample_rate / 2),
        )
        with ExitStack() as opened:
            recordings: dict[str, audio.SeekableRecording] = {}
            for name, signal in signals.items():
                self._report(len(recordings) / (2 * len(signals)))
                signal = _checked(signal)
                if not isinstance(signal, Path):
                    signal = audio.as_audio(signal, name=f"signals[{name!r}]")
                recordings[name] = audio.SeekableRecording(signal, sample_rate)
                opened.callback(recordings[name].close)
            self.progress, self.message = 0.5, "Comparing."
            comparison = compare_spectra(recordings, sample_rate, grid=grid)
        axes = draw_comparison(comparison, difference=chosen.difference, seams_seconds=self._seams)
        drawn = _picture(axes.ravel()[0].figure, comparison)
        self._check_stop()
        first, second = list(signals)[:2]
        stems, other = ({"sound": _checked(signals[name])} for name in (second, first))
        mixer = StemMixer(stems, sample_rate, other=other, labels=(second, first))
        with ExitStack() as unless_shown, self._offering:
            unless_shown.callback(mixer.close)
            self._check_stop()
            self.comparison = comparison
            self._show_results(drawn, _differences(comparison), mixer)
            unless_shown.pop_all()
        self.message = "Done."
        return comparison


def _refuse_too_few(signals: Mapping[str, Any]) -> None:
    if len(signals) < 2:
        raise ParameterError(
            f"a comparison needs at least 2 signals, not {len(signals)}. Pass more of them, or a "
            "folder that holds them."
        )


def _checked(signal: Any) -> Any:
    return panel_path(signal) if isinstance(signal, (str, PathLike)) else signal


def _rate_and_length(signals: Mapping[str, Any], sample_rate: int | None) -> tuple[int, float]:
    """The common sample rate, and the length of the longest in seconds."""
    lengths = [
        audio.read_length(signal) if isinstance(signal, Path) else (np.shape(signal)[-1], None)
        for signal in map(_checked, signals.values())
    ]
    sample_rate = sample_rate or next((rate for _, rate in lengths if rate), None)
    if sample_rate is None:
        raise ParameterError("sample_rate is missing. Pass the rate of the arrays in Hz.")
    return sample_rate, max(samples / (rate or sample_rate) for samples, rate in lengths)


def _picture(figure: Figure, comparison: SpectralComparison) -> ipywidgets.HTML:
    """Show the figure; its description is for those who cannot see it."""
    for text in figure.findobj(Text):
        _replace_missing(text)
    distances = ", ".join(
        f"{name} {distance_db:.1f} dB"
        for name, distance_db in comparison.log_spectral_distance_db.items()
    )
    return picture(
        figure,
        f"Spectrograms of {', '.join(comparison.powers)}. Log-spectral distance from "
        f"{comparison.reference}: {distances}.",
    )


def _replace_missing(text: Text) -> None:
    """Replace letters that no font has by ?, of which matplotlib would warn in the notebook.

    The table keeps the name as it is. A filter of warnings would act on all threads.
    """
    content = text.get_text()
    if content.isascii():
        return
    known = set()
    for family in text.get_fontfamily():
        properties = text.get_fontproperties().copy()
        properties.set_family(family)
        known |= set(get_font(findfont(properties)).get_charmap())
    text.set_text("".join(letter if ord(letter) in known else "?" for letter in content))


def _differences(comparison: SpectralComparison) -> ipywidgets.HTML:
    rows = []
    for name, distance_db in comparison.log_spectral_distance_db.items():
        figures_db = [distance_db, *comparison.band_differences_db[name]]
        rows.append([name, *("–" if np.isnan(db) else f"{db:z.1f}" for db in figures_db)])
    return table(
        f"Compared with {comparison.reference}, in dB: log-spectral distance, and level difference "
        "in each octave band.",
        ["", "distance", *(f"{band_name(hz)} Hz" for hz in comparison.band_hz)],
        rows,
    )
