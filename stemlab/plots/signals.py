"""Waveforms and spectrograms of recordings.

Signals of any length are reduced to what a screen can show before anything is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from stemlab._typing import AudioArray
from stemlab.audio import as_audio
from stemlab.audio.arrays import check_rate
from stemlab.errors import ParameterError

__all__ = ["plot_spectrograms", "plot_waveforms"]

# More columns and rows than this cannot be told apart on a screen.
_COLUMNS = 1200
_ROWS = 200
_FRAMES_AT_ONCE = 256
_FREQUENCY_SCALES = ("log", "linear")


def plot_waveforms(
    signals: Mapping[str, npt.ArrayLike],
    sample_rate: int,
    *,
    axes: Axes | npt.ArrayLike | None = None,
) -> npt.NDArray[np.object_]:
    """Draw signals below each other, on one time axis and one amplitude scale.

    Each lane shows the range from the lowest to the highest sample, over all channels, at each
    moment: peaks stay visible however long the recording is.

    Parameters
    ----------
    signals : mapping of str to array, each shape (channels, samples) or (samples,)
        One or two channels. Names become titles. Lengths may differ.
    sample_rate : int, in Hz
    axes : Axes or array of Axes, optional
        One for each signal. Default: those of a new figure.

    Returns
    -------
    axes : ndarray of Axes, shape (signals,)
        Their figure is ``axes[0].figure``.

    Raises
    ------
    ParameterError
        If there are no signals, or another number of axes than signals.
    AudioError
        If a signal is empty, not finite or has more than two channels.

    Examples
    --------
    >>> import numpy as np
    >>> axes = plot_waveforms({"bass": np.sin(np.arange(8000) / 20)}, 8000)
    >>> axes[0].get_title(loc="left"), axes[0].get_xlim()[1] == 1
    ('bass', np.True_)
    """
    recordings = _check_signals(signals)
    check_rate("sample_rate", sample_rate)
    lanes = _lanes(axes, len(recordings), height_inches=1.1)
    peak = max(float(np.abs(each).max()) for each in recordings.values()) or 1.0
    for lane, (name, recording) in zip(lanes, recordings.items(), strict=True):
        starts, low, high = _envelope(recording)
        # An outline as well: a range of one sample has no area.
        lane.fill_between(starts / sample_rate, low, high, linewidth=0.6, edgecolor="C0")
        lane.set_ylim(-1.05 * peak, 1.05 * peak)
        lane.set_ylabel("Amplitude")
        lane.set_title(name, loc="left")
    _share_time(lanes, recordings, sample_rate)
    return lanes


def plot_spectrograms(
    signals: Mapping[str, npt.ArrayLike],
    sample_rate: int,
    *,
    axes: Axes | npt.ArrayLike | None = None,
    max_db_range: float = 80.0,
    frequency_scale: str = "log",
    fft_samples: int = 2048,
) -> npt.NDArray[np.object_]:
    """Draw spectrograms below each other, on one time axis and one colour scale.

    All levels are relative to the loudest moment of the loudest signal, so that what is dark in
    one lane and bright in another can be compared.

    Parameters
    ----------
    signals : mapping of str to array, each shape (channels, samples) or (samples,)
        One or two channels. Names become titles. Lengths may differ.
    sample_rate : int, in Hz
    axes : Axes or array of Axes, optional
        One for each signal. Default: those of a new figure.
    max_db_range : float, > 0, default 80
        Levels this far below the loudest, and further, have the darkest colour.
    frequency_scale : {"log", "linear"}, default "log"
    fft_samples : int, even, in [16, 65536], default 2048
        Length of a frame (46 ms at 44.1 kHz): a longer one tells close tones apart, a shorter one
        close moments.

    Returns
    -------
    axes : ndarray of Axes, shape (signals,)
        Their figure, ``axes[0].figure``, also gets the colour bar.

    Raises
    ------
    ParameterError
        If there are no signals, another number of axes than signals, or an option is outside its
        range.
    AudioError
        If a signal is empty, not finite or has more than two channels.

    Notes
    -----
    Power of a short-time Fourier transform with a periodic Hann window, a hop of a quarter of a
    frame and zeros around the recording, averaged over the channels. Where a cell on the screen
    holds more than one value, it shows the largest.

    Examples
    --------
    >>> import numpy as np
    >>> axes = plot_spectrograms({"bass": np.sin(np.arange(8000) / 20)}, 8000)
    >>> axes[0].get_yscale(), axes[0].collections[0].get_clim()
    ('log', (-80.0, 0.0))
    """
    recordings = _check_signals(signals)
    check_rate("sample_rate", sample_rate)
    _check_spectrogram_options(max_db_range, frequency_scale, fft_samples)
    lanes = _lanes(axes, len(recordings), height_inches=1.6)
    rows = _row_starts(fft_samples // 2 + 1, frequency_scale)
    # Bin k stands for the frequencies around k * sample_rate / fft_samples.
    row_edges = np.append(rows, fft_samples // 2 + 1) - 0.5
    frequencies = np.clip(row_edges * sample_rate / fft_samples, 0, sample_rate / 2)
    powers = {name: _power(each, fft_samples, rows) for name, each in recordings.items()}
    loudest = max(float(power.max()) for _, power in powers.values()) or 1.0
    mesh: QuadMesh | None = None
    for lane, (name, (columns, power)) in zip(lanes, powers.items(), strict=True):
        seconds = recordings[name].shape[1] / sample_rate
        times = np.clip((columns - 0.5) * (fft_samples // 4) / sample_rate, 0, seconds)
        times[-1] = seconds
        floor = loudest * 10 ** (-max_db_range / 10)
        mesh = lane.pcolormesh(
            times,
            frequencies,
            10 * np.log10(np.maximum(power, floor) / loudest),
            vmin=-max_db_range,
            vmax=0,
            # Lightness alone orders the levels: it reads the same in grey.
            cmap="magma",
            rasterized=True,
        )
        lane.set_yscale(frequency_scale)
        lane.yaxis.set_major_formatter(EngFormatter(sep=""))
        lane.set_ylim(frequencies[0], frequencies[-1])
        lane.set_ylabel("Frequency (Hz)")
        lane.set_title(name, loc="left")
    _share_time(lanes, recordings, sample_rate)
    assert mesh is not None
    lanes[0].figure.colorbar(mesh, ax=list(lanes), label="Level (dB, loudest = 0)")
    return lanes


def _check_signals(signals: Mapping[str, npt.ArrayLike]) -> dict[str, AudioArray]:
    if not signals:
        raise ParameterError("signals is empty. Pass a mapping such as {'vocals': array}.")
    return {name: as_audio(each, name=f"signals[{name!r}]") for name, each in signals.items()}


def _check_spectrogram_options(max_db_range: float, frequency_scale: str, fft_samples: int) -> None:
    if not 0 < max_db_range < np.inf:
        raise ParameterError(
            f"max_db_range={max_db_range!r} is not above 0. Give a number of dB, for instance 80."
        )
    if frequency_scale not in _FREQUENCY_SCALES:
        raise ParameterError(
            f"frequency_scale={frequency_scale!r} is not known. "
            f"Choose one of {', '.join(_FREQUENCY_SCALES)}."
        )
    if type(fft_samples) is not int or not 16 <= fft_samples <= 65536 or fft_samples % 2:
        raise ParameterError(
            f"fft_samples={fft_samples!r} is not an even whole number in [16, 65536]. "
            "2048 suits music at 44.1 kHz."
        )


def _lanes(
    axes: Axes | npt.ArrayLike | None, count: int, *, height_inches: float
) -> npt.NDArray[np.object_]:
    if axes is None:
        figure = Figure(figsize=(9, 0.6 + height_inches * count), layout="constrained")
        lanes: npt.NDArray[np.object_] = figure.subplots(
            count, 1, sharex=True, sharey=True, squeeze=False
        )[:, 0]
        return lanes
    lanes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(lanes) != count or not all(isinstance(each, Axes) for each in lanes):
        raise ParameterError(
            f"axes holds {len(lanes)} objects for {count} signals. Pass one matplotlib Axes for "
            "each signal, or leave axes out."
        )
    return lanes


def _share_time(
    lanes: npt.NDArray[np.object_], recordings: Mapping[str, AudioArray], sample_rate: int
) -> None:
    seconds = max(each.shape[1] for each in recordings.values()) / sample_rate
    for lane in lanes:
        lane.set_xlim(0, seconds)
    lanes[-1].set_xlabel("Time (s)")


def _envelope(recording: AudioArray) -> tuple[npt.NDArray[Any], AudioArray, AudioArray]:
    """Lowest and highest sample of each column, and where the columns start."""
    samples = recording.shape[1]
    starts = np.linspace(0, samples, min(samples, _COLUMNS), endpoint=False).astype(np.int64)
    low = np.minimum.reduceat(recording.min(axis=0), starts)
    high = np.maximum.reduceat(recording.max(axis=0), starts)
    # The last column ends with the recording.
    return np.append(starts, samples), np.append(low, low[-1]), np.append(high, high[-1])


def _row_starts(bins: int, frequency_scale: str) -> npt.NDArray[np.int64]:
    """First frequency bin of each row on the screen; a logarithmic axis has no place for 0 Hz."""
    if frequency_scale == "log":
        edges = np.geomspace(1, bins, _ROWS, endpoint=False)
    else:
        edges = np.linspace(0, bins, min(bins, _ROWS), endpoint=False)
    return np.unique(edges.astype(np.int64))


def _power(
    recording: AudioArray, fft_samples: int, rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Edges of the columns in frames, and the largest power, shape (rows, columns)."""
    frames = 1 + recording.shape[1] // (fft_samples // 4)
    columns = np.linspace(0, frames, min(frames, _COLUMNS), endpoint=False).astype(np.int64)
    power = np.zeros((len(columns), len(rows)), np.float32)
    first = 0
    for block in _frame_powers(recording, fft_samples):
        # The column of each frame; a column may go on in the next block.
        column = np.searchsorted(columns, np.arange(first, first + len(block)), side="right") - 1
        np.maximum.at(power, column, np.maximum.reduceat(block, rows, axis=1))
        first += len(block)
    return np.append(columns, frames), power.T


def _frame_powers(recording: AudioArray, fft_samples: int) -> Iterator[npt.NDArray[np.float32]]:
    """Power of all bins, shape (frames, bins), a block of frames at a time."""
    hop = fft_samples // 4
    padded = np.pad(recording, ((0, 0), (fft_samples // 2, fft_samples // 2)))
    frames = np.lib.stride_tricks.sliding_window_view(padded, fft_samples, axis=1)[:, ::hop]
    window = np.hanning(fft_samples + 1)[:-1].astype(np.float32)
    for start in range(0, frames.shape[1], _FRAMES_AT_ONCE):
        spectrum = np.fft.rfft(frames[:, start : start + _FRAMES_AT_ONCE] * window)
        yield (np.abs(spectrum) ** 2).mean(axis=0).astype(np.float32)
