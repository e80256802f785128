"""The time and frequency grid of a spectrogram."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stemlab._checks import MOST_SECONDS, check_count
from stemlab.errors import ParameterError

FREQUENCY_SCALES = ("log", "linear", "mel")

_Floats = npt.NDArray[np.float64]

# More rows than this cannot be told apart on a screen.
_ROWS, _MEL_ROWS = 200, 128


@dataclass(frozen=True)
class SpectralGrid:
    """The time and frequency grid of a spectrogram.

    Parameters
    ----------
    fft_samples : int, even, in [16, 65536], default 2048
        Length of a frame (46 ms at 44.1 kHz). Longer frames resolve frequencies better, shorter
        ones resolve time better.
    frequency_scale : {"log", "linear", "mel"}, default "log"
    time_range_seconds : (float, float), optional
        Default: all of the longest signal.
    frequency_range_hz : (float, float), optional
        Default: all frequencies; a logarithmic scale leaves out 0 Hz.

    Raises
    ------
    ParameterError
        If a value is outside its range.
    """

    fft_samples: int = 2048
    frequency_scale: str = "log"
    time_range_seconds: tuple[float, float] | None = None
    frequency_range_hz: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        advice = "2048 suits music at 44.1 kHz."
        size = check_count("fft_samples", self.fft_samples, 16, 65536, advice)
        if size % 2:
            raise ParameterError(f"fft_samples={size!r} is not even. {advice}")
        object.__setattr__(self, "fft_samples", size)
        if self.frequency_scale not in FREQUENCY_SCALES:
            raise ParameterError(
                f"frequency_scale={self.frequency_scale!r} is not known. "
                f"Choose one of {', '.join(FREQUENCY_SCALES)}."
            )
        for name, most in (("time_range_seconds", MOST_SECONDS), ("frequency_range_hz", np.inf)):
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _check_range(name, value, most))

    @property
    def hop_samples(self) -> int:
        """Samples between the starts of two frames: a quarter of a frame."""
        return self.fft_samples // 4

    def frames(self, samples: int, sample_rate: int) -> range:
        """Return the numbers of the frames that lie in the time range.

        Parameters
        ----------
        samples : int
        sample_rate : int, in Hz

        Returns
        -------
        frames : range
            Frame k is centred on sample ``k * hop_samples``.

        Raises
        ------
        ParameterError
            If the time range begins after the recording.
        """
        count = 1 + samples // self.hop_samples
        if self.time_range_seconds is None:
            return range(count)
        seconds = samples / sample_rate
        start, stop = self.time_range_seconds
        if start >= seconds:
            raise ParameterError(
                f"time_range_seconds={self.time_range_seconds!r} begins after the recording, "
                f"which has {seconds:.3f} s. Choose a range inside it."
            )
        per_second = sample_rate / self.hop_samples
        first = int(start * per_second)
        return range(first, max(first + 1, min(count, int(np.ceil(stop * per_second)))))

    def rows(self, sample_rate: int) -> tuple[_Floats, npt.NDArray[np.float32]]:
        """Return the frequency rows of the spectrogram.

        Parameters
        ----------
        sample_rate : int, in Hz

        Returns
        -------
        edges_hz : ndarray, shape (rows + 1,), rising
        weights : ndarray, shape (bins, rows), float32
            Each column adds up to 1: a row is a mean over frequency bins.

        Raises
        ------
        ParameterError
            If the frequency range holds no frequency of a recording of that rate.
        """
        nyquist = sample_rate / 2
        low, high = self.frequency_range_hz or (0.0, nyquist)
        high = min(high, nyquist)
        width = sample_rate / self.fft_samples
        if self.frequency_scale == "log":
            low = max(low, width / 2)
        if high - low < width:
            raise ParameterError(
                f"frequency_range_hz={self.frequency_range_hz!r} holds less than one step of "
                f"{width:.3g} Hz below {nyquist:g} Hz. Choose a wider range, or more fft_samples."
            )
        if self.frequency_scale == "mel":
            return _mel_rows(self.fft_samples, sample_rate, low, high)
        # Bin k stands for the frequencies around k * width.
        first, stop = round(low / width), min(self.fft_samples // 2, round(high / width)) + 1
        bins = stop - first
        if self.frequency_scale == "log":
            first = max(first, 1)
            edges = np.geomspace(first, stop, _ROWS, endpoint=False)
        else:
            edges = np.linspace(first, stop, min(bins, _ROWS), endpoint=False)
        starts = np.unique(edges.astype(np.int64))
        bounds = np.append(starts, stop)
        weights = np.zeros((self.fft_samples // 2 + 1, len(starts)), np.float32)
        for row, (begin, end) in enumerate(itertools.pairwise(bounds)):
            weights[begin:end, row] = 1 / (end - begin)
        return np.clip((bounds - 0.5) * width, 0, nyquist), weights


def _check_range(name: str, value: object, most: float) -> tuple[float, float]:
    try:
        low, high = map(float, value)  # type: ignore[call-overload]
    except (TypeError, ValueError, OverflowError):
        low = high = float("nan")
    if not 0 <= low < high <= most or high == np.inf:
        limit = "" if most == np.inf else f" and at most {most:,}"
        raise ParameterError(
            f"{name}={value!r} is not a range. Pass two numbers of at least 0{limit}, the smaller "
            "first."
        )
    return low, high


def _mel_rows(
    fft_samples: int, sample_rate: int, low: float, high: float
) -> tuple[_Floats, npt.NDArray[np.float32]]:
    import librosa  # Takes a while to load.

    rows = _MEL_ROWS
    while True:
        # Use fewer rows if the frequency bins are too coarse to fill all of them.
        with np.errstate(invalid="ignore", divide="ignore"):
            edges = librosa.mel_frequencies(rows + 1, fmin=low, fmax=high)
            centres = (np.arange(fft_samples // 2 + 1) * sample_rate / fft_samples)[:, np.newaxis]
            inside = (centres >= edges[:-1]) & (centres < edges[1:])
        if rows == 1 or inside.any(axis=0).all():
            break
        rows -= 1
    weights = inside / np.maximum(inside.sum(axis=0), 1)
    return edges, weights.astype(np.float32)
