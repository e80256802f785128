"""Measure the spectra of several signals block by block, and compare them with one of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stemlab._checks import check_rate
from stemlab.audio import SeekableRecording
from stemlab.audio.arrays import as_audio
from stemlab.errors import ParameterError
from stemlab.spectra.grid import SpectralGrid

_Floats = npt.NDArray[np.float64]
_Powers = npt.NDArray[np.float32]

# More columns than this cannot be told apart on a screen.
_COLUMNS = 1200
_FRAMES_AT_ONCE = 256
# Power in one frequency bin below which nothing can be heard.
_FLOOR = 1e-10
# Octave bands around 31.5 Hz to 16 kHz; the names are the usual rounded ones.
_CENTRES_HZ = tuple(1000 * 2.0**octave for octave in range(-5, 5))


@dataclass(frozen=True)
class SpectralComparison:
    """Spectrograms of several signals on one grid, and their differences.

    Parameters
    ----------
    reference : str
        The signal that the others are compared with.
    seconds : ndarray, shape (columns + 1,)
        Edges of the columns.
    hz : ndarray, shape (rows + 1,)
        Edges of the rows.
    powers : dict of str to ndarray, each shape (rows, columns), float32
        Mean power of the cell, of one frequency bin; the reference is among them.
    band_hz : tuple of float
        Centres of the octave bands.
    band_levels_db : dict of str to ndarray, each shape (bands,)
        Level in each band over the time range.
    band_differences_db : dict of str to ndarray, each shape (bands,)
        Of all signals but the reference: level minus that of the reference, over the time that
        both have.
    log_spectral_distance_db : dict of str to float
        Of all signals but the reference.
    grid : SpectralGrid
    """

    reference: str
    seconds: _Floats
    hz: _Floats
    powers: Mapping[str, _Powers]
    band_hz: tuple[float, ...]
    band_levels_db: Mapping[str, _Floats]
    band_differences_db: Mapping[str, _Floats]
    log_spectral_distance_db: Mapping[str, float]
    grid: SpectralGrid


def compare_spectra(
    signals: Mapping[str, npt.ArrayLike | SeekableRecording],
    sample_rate: int,
    *,
    reference: str | None = None,
    grid: SpectralGrid | None = None,
) -> SpectralComparison:
    """Compare the spectra of signals with the spectrum of one of them.

    Parameters
    ----------
    signals : mapping of str to array, each shape (channels, samples) or (samples,)
        One or two channels. Lengths may differ; signals are compared over the time that both
        have. An `audio.SeekableRecording` can replace an array: only the time range is read.
    sample_rate : int, in Hz
        Of all signals.
    reference : str, optional
        Default: the first.
    grid : SpectralGrid, optional

    Returns
    -------
    comparison : SpectralComparison

    Raises
    ------
    ParameterError
        If there are no signals, `reference` is not one of them, or a range of the grid lies
        outside them.
    AudioError
        If a signal is empty, not finite or has more than two channels.

    Notes
    -----
    Power of a short-time Fourier transform with a periodic Hann window, a hop of a quarter of a
    frame and zeros around the recording, averaged over the channels. It is computed in blocks:
    memory does not grow with the length of the signals.

    The log-spectral distance [1]_ is the root mean square, over the frequencies of a frame, of the
    difference of levels in dB, averaged over the frames. Power below -100 dB in a frequency bin
    counts as that: silence equals silence, and is not infinitely far from music.

    Octave bands are those of IEC 61260-1 around 31.5 Hz to 16 kHz, as far as the sample rate
    and the length of a frame reach, each the sum of its frequency bins.

    References
    ----------
    .. [1] A. Gray, J. Markel, "Distance measures for speech processing", IEEE Trans. ASSP 24(5),
       1976, doi:10.1109/TASSP.1976.1162849.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).uniform(-0.1, 0.1, 44_100)
    >>> found = compare_spectra({"loud": noise, "quiet": noise / 2}, 44_100)
    >>> round(found.log_spectral_distance_db["quiet"], 2), found.band_differences_db["quiet"][5]
    (6.02, np.float64(-6.02...))
    """
    check_rate("sample_rate", sample_rate)
    recordings = _open_signals(signals, sample_rate)
    grid = grid or SpectralGrid()
    against = next(iter(recordings)) if reference is None else reference
    if against not in recordings:
        raise ParameterError(
            f"reference={reference!r} is not one of the signals. "
            f"Choose one of {', '.join(recordings)}."
        )
    longest = max(recording.samples for recording in recordings.values())
    frames = grid.frames(longest, sample_rate)
    edges_hz, weights = grid.rows(sample_rate)
    columns = _column_starts(len(frames))
    bands, edges = _bands(sample_rate, grid.fft_samples)
    reduced = {name: _Reduced(columns, weights, edges) for name in recordings}
    distances = {name: _Distance(edges) for name in recordings if name != against}
    for blocks in _together(recordings, grid.fft_samples, frames):
        for name, block in blocks.items():
            reduced[name].add(block)
            if name != against and against in blocks:
                both = min(len(block), len(blocks[against]))
                distances[name].add(blocks[against][:both], block[:both])
    seconds = (np.append(columns, len(frames)) + frames.start - 0.5) * grid.hop_samples
    start, stop = frames.start * grid.hop_samples, min(longest, frames.stop * grid.hop_samples)
    seconds = np.clip(seconds, start, stop) / sample_rate
    # The last column ends with the recording.
    seconds[-1] = stop / sample_rate
    return SpectralComparison(
        reference=against,
        seconds=seconds,
        hz=edges_hz,
        powers={name: found.powers() for name, found in reduced.items()},
        band_hz=bands,
        band_levels_db={name: _db(found.bands()) for name, found in reduced.items()},
        band_differences_db={name: found.band_differences() for name, found in distances.items()},
        log_spectral_distance_db={name: found.mean() for name, found in distances.items()},
        grid=grid,
    )


def _open_signals(
    signals: Mapping[str, npt.ArrayLike | SeekableRecording], sample_rate: int
) -> dict[str, SeekableRecording]:
    if not signals:
        raise ParameterError("signals is empty. Pass a mapping such as {'vocals': array}.")
    recordings = {}
    for name, signal in signals.items():
        if not isinstance(signal, SeekableRecording):
            array = as_audio(signal, name=f"signals[{name!r}]")
            signal = SeekableRecording(array, sample_rate)
        elif signal.sample_rate != sample_rate:
            raise ParameterError(
                f"signals[{name!r}] has {signal.sample_rate} Hz, and sample_rate={sample_rate}. "
                "Open it at that rate."
            )
        recordings[name] = signal
    return recordings


class _Reduced:
    """Running sums of the powers of a signal: by cell and by octave band."""

    def __init__(
        self, columns: npt.NDArray[np.int64], weights: _Powers, edges: npt.NDArray[np.int64]
    ) -> None:
        self._columns, self._weights, self._edges = columns, weights, edges
        self._cells = np.zeros((len(columns), weights.shape[1]))
        self._frames = np.zeros(len(columns))
        self._bands = np.zeros(len(edges) - 1)
        self._done = 0

    def add(self, block: _Powers) -> None:
        # The column of each frame; a column may go on in the next block.
        numbers = np.arange(self._done, self._done + len(block))
        column = np.searchsorted(self._columns, numbers, side="right") - 1
        first, starts = np.unique(column, return_index=True)
        self._cells[first] += np.add.reduceat(block @ self._weights, starts, axis=0)
        self._frames += np.bincount(column, minlength=len(self._columns))
        self._bands += _band_sums(block, self._edges)
        self._done += len(block)

    def powers(self) -> _Powers:
        # Where the signal has ended, there is silence.
        means = self._cells / np.maximum(self._frames, 1)[:, np.newaxis]
        return means.T.astype(np.float32)

    def bands(self) -> _Floats:
        return self._bands / max(self._done, 1)


class _Distance:
    """Running sums for the distance of a signal from the reference."""

    def __init__(self, edges: npt.NDArray[np.int64]) -> None:
        self._edges = edges
        self._reference = np.zeros(len(edges) - 1)
        self._other = np.zeros(len(edges) - 1)
        self._sum, self._frames = 0.0, 0

    def add(self, reference: _Powers, other: _Powers) -> None:
        difference = np.log10(np.maximum(other, _FLOOR) / np.maximum(reference, _FLOOR))
        self._sum += float(np.sqrt((difference**2).mean(axis=1)).sum())
        self._frames += len(reference)
        self._reference += _band_sums(reference, self._edges)
        self._other += _band_sums(other, self._edges)

    def mean(self) -> float:
        return 10 * self._sum / self._frames if self._frames else float("nan")

    def band_differences(self) -> _Floats:
        if not self._frames:
            return np.full(len(self._reference), np.nan)
        return _db(self._other / self._frames) - _db(self._reference / self._frames)


def _column_starts(frames: int) -> npt.NDArray[np.int64]:
    return np.linspace(0, frames, min(frames, _COLUMNS), endpoint=False).astype(np.int64)


def _bands(sample_rate: int, fft_samples: int) -> tuple[tuple[float, ...], npt.NDArray[np.int64]]:
    """Centres of the octave bands, and the first frequency bin of each and of the one after."""
    centres = [centre for centre in _CENTRES_HZ if centre / 2**0.5 < sample_rate / 2]
    edges = np.array([centres[0] / 2**0.5, *(centre * 2**0.5 for centre in centres)])
    bins = np.ceil(edges * fft_samples / sample_rate).astype(np.int64)
    # The lowest bands of short frames lie between two bins.
    empty = int((np.diff(bins) == 0).sum())
    return tuple(centres[empty:]), bins[empty:]


def _band_sums(block: _Powers, edges: npt.NDArray[np.int64]) -> _Floats:
    totals = np.concatenate([[0.0], np.cumsum(block.sum(axis=0, dtype=np.float64))])
    sums: _Floats = np.diff(totals[np.minimum(edges, len(totals) - 1)])
    return sums


def _db(powers: _Floats) -> _Floats:
    levels: _Floats = 10 * np.log10(np.maximum(powers, _FLOOR))
    return levels


def _together(
    recordings: Mapping[str, SeekableRecording], fft_samples: int, frames: range
) -> Iterator[dict[str, _Powers]]:
    """Yield the powers of all signals in blocks of frames; a signal that has ended is left out."""
    for start in range(frames.start, frames.stop, _FRAMES_AT_ONCE):
        wanted = range(start, min(start + _FRAMES_AT_ONCE, frames.stop))
        blocks = {}
        for name, recording in recordings.items():
            block = _frame_powers(recording, fft_samples, wanted)
            if len(block):
                blocks[name] = block
        yield blocks


def _frame_powers(recording: SeekableRecording, fft_samples: int, frames: range) -> _Powers:
    """Return the powers of the frames that lie in the recording, shape (frames, bins)."""
    hop, half = fft_samples // 4, fft_samples // 2
    last = min(frames.stop, 1 + recording.samples // hop)
    if last <= frames.start:
        return np.zeros((0, half + 1), np.float32)
    first, stop = frames.start * hop - half, (last - 1) * hop + half
    samples = recording.read(max(first, 0), stop)  # Silence follows the end.
    padded = np.pad(samples, ((0, 0), (max(-first, 0), 0)))
    pieces = np.lib.stride_tricks.sliding_window_view(padded, fft_samples, axis=1)[:, ::hop]
    window = np.hanning(fft_samples + 1)[:-1].astype(np.float32)
    spectrum = np.fft.rfft(pieces * window)
    power = (spectrum.real**2 + spectrum.imag**2).mean(axis=0)
    # Twice for the negative frequencies, and twice because the mean square of a sine is a half.
    power *= np.float32(4 / fft_samples / float((window.astype(np.float64) ** 2).sum()))
    power[:, [0, -1]] /= 2
    powers: _Powers = power.astype(np.float32, copy=False)
    return powers
