"""Clicks at the boundaries of segments, found without a reference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stemlab._checks import check_rate
from stemlab.errors import ParameterError

_Floats = npt.NDArray[np.float64]

_ORDER = 32
_TOEPLITZ = np.abs(np.subtract.outer(np.arange(_ORDER), np.arange(_ORDER)))
# On both sides of a boundary. The predictor is fitted to these samples.
_REACH = 1500
# A boundary at another rate than the model's may lie between two samples.
_SPREAD = 4
# Standard deviations; a robust one is the median of absolute values over _MEDIAN.
_DEVIATIONS, _MEDIAN = 6.0, 0.6745
# Music does not fall silent so fast.
_FALL_DB, _FALL_SECONDS = 12.0, 0.005
# 100 dB below the peak of the signal, nothing is heard.
_INAUDIBLE = 1e-5
_WORST = 5


@dataclass(frozen=True)
class Click:
    """A boundary of segments that clicks."""

    seconds: float
    excess_db: float  # How far the jump is above the least that counts as a click.


@dataclass(frozen=True)
class ClickReport:
    """What `clicks` finds."""

    boundaries: int
    count: int  # Boundaries that click.
    worst: tuple[Click, ...]  # At most five, the worst first.

    @property
    def share(self) -> float:
        """Share of the boundaries that click, in [0, 1]; nan without any boundary."""
        return self.count / self.boundaries if self.boundaries else float("nan")


def clicks(signal: npt.ArrayLike, boundaries: npt.ArrayLike, sample_rate: int) -> ClickReport:
    """Count the segment boundaries at which a signal jumps.

    Parameters
    ----------
    signal : array, shape (channels, samples) or (samples,)
        A stem, or the sum of all stems. Its level does not matter.
    boundaries : array of int, shape (boundaries,)
        Samples at which a segment begins or ends (`ChunkPlan.boundaries`); those outside the
        signal are left out.
    sample_rate : int, in Hz, in [1000, 768000]

    Returns
    -------
    report : ClickReport

    Raises
    ------
    ParameterError
        If the signal is empty, not finite or of another shape, or the sample rate is outside its
        range.

    Notes
    -----
    Music is predictable from one sample to the next, and a jump is not. A linear predictor of order
    32 is fitted to the 1500 samples on both sides of a boundary, by the autocorrelation method
    [1]_. A boundary clicks if the residual within 4 samples of it is above 6 standard deviations of
    the residual around it, and above any other residual of these samples but at boundaries: among
    the pulses of a voice or the hits of a drum, a jump of their size is not heard. The standard
    deviation is a robust one, from the median; the greater one of both sides counts. A boundary
    clicks as well if the residual falls there by 12 dB within 5 ms, as where a dropout begins. Of
    two channels, the worse one counts. What is 100 dB below the peak of the signal is inaudible and
    does not count.

    References
    ----------
    .. [1] S. J. Godsill, P. J. W. Rayner, "Digital Audio Restoration", Springer 1998, chapter 5
       (detection of clicks by the residual of an autoregressive model),
       doi:10.1007/978-1-4471-1561-8.

    Examples
    --------
    >>> import numpy as np
    >>> tone = np.sin(0.05 * np.arange(44_100)) + np.random.default_rng(0).normal(0, 0.01, 44_100)
    >>> tone[20_000:] += 0.2
    >>> report = clicks(tone, [10_000, 20_000], 44_100)
    >>> report.count, report.share, round(report.worst[0].seconds, 3)
    (1, 0.5, 0.454)
    """
    rate = check_rate("sample_rate", sample_rate)
    array = np.asarray(signal, np.float64)
    if array.ndim not in (1, 2) or not array.size or not np.isfinite(array).all():
        raise ParameterError(
            f"signal has shape {array.shape}, or samples that are not finite. Pass finite samples "
            "of shape (channels, samples) or (samples,), at least one."
        )
    channels = np.atleast_2d(array)
    samples = channels.shape[1]
    edges = np.unique(np.asarray(boundaries, np.int64))
    edges = edges[(edges > 0) & (edges < samples)]
    quietest = _INAUDIBLE * float(np.abs(channels).max())
    fall = max(int(_FALL_SECONDS * rate), _ORDER)
    elsewhere = np.ones(samples, bool)
    for offset in range(-_SPREAD, _SPREAD + 1):
        elsewhere[np.clip(edges + offset, 0, samples - 1)] = False
    excess_db = np.array(
        [
            max(_excess_db(channel, edge, elsewhere, fall, quietest) for channel in channels)
            for edge in edges
        ]
    )
    worst = [number for number in np.argsort(-excess_db, kind="stable") if excess_db[number] > 0]
    return ClickReport(
        boundaries=len(edges),
        count=len(worst),
        worst=tuple(
            Click(float(edges[number] / rate), float(excess_db[number]))
            for number in worst[:_WORST]
        ),
    )


def _excess_db(
    channel: _Floats, edge: int, elsewhere: npt.NDArray[np.bool_], fall: int, quietest: float
) -> float:
    """How far a boundary is above the least that counts as a click: by its jump, or its fall."""
    span = slice(max(edge - _REACH, 0), edge + _REACH)
    residual = _residual(channel[span])
    middle = edge - span.start
    first, stop = max(middle - _SPREAD, 0), middle + _SPREAD + 1
    sides = residual[:middle], residual[middle:]
    deviation = max(float(np.median(side)) for side in sides if side.size) / _MEDIAN
    usual = max(_DEVIATIONS * deviation, residual[elsewhere[span]].max(initial=0.0), quietest)
    excess = _level_db(residual[first:stop].max(), usual)
    # The next samples are still predicted from those before the fall.
    before, after = residual[max(first - fall, 0) : first], residual[stop + _ORDER :][:fall]
    if len(before) == len(after) == fall:
        fallen = _level_db(_rms(before), max(_rms(after), quietest))
        excess = max(excess, fallen - _FALL_DB)
    return excess


def _residual(signal: _Floats) -> _Floats:
    """What a linear predictor misses of a signal, absolute; 0 where it has too few samples."""
    signal = signal - signal.mean()
    if len(signal) <= 2 * _ORDER:
        return np.zeros(len(signal))
    energies = np.array([signal[: len(signal) - lag] @ signal[lag:] for lag in range(_ORDER + 1)])
    if not energies[0]:
        return np.zeros(len(signal))
    energies[0] *= 1 + 1e-9  # Keeps the equations solvable for a pure tone.
    weights = np.linalg.solve(energies[_TOEPLITZ], energies[1:])
    residual = np.append(0.0, np.abs(signal[1:] - np.convolve(signal, weights)[: len(signal) - 1]))
    residual[:_ORDER] = 0.0
    return residual


def _rms(values: _Floats) -> float:
    return float(np.sqrt((values**2).mean()))


def _level_db(value: float, reference: float) -> float:
    return float(20 * np.log10(value / reference)) if value and reference else -np.inf
