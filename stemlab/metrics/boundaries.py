"""How far the error of a stem stands out at the boundaries of its segments."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stemlab.metrics.ratios import pair

_Floats = npt.NDArray[np.float64]

# Half of the zone around a boundary. A click is shorter; errors from missing context at the edge
# of a segment last longer.
_HALF_ZONE_SECONDS = 0.005
# At most a quarter of the recording lies in zones, however close the boundaries are.
_SPACING_PER_HALF_ZONE = 8
# The level of the reference is measured over a longer time than the zone: an onset at a boundary
# would hide the error there.
_SURROUNDINGS_SECONDS = 0.1
# An error 60 dB below the music around it is inaudible; silence counts as music 60 dB below the
# mean.
_INAUDIBLE, _SILENT = 1e-6, 1e-6
_WORST = 5


@dataclass(frozen=True)
class Seam:
    """A boundary of segments where the error stands out."""

    seconds: float
    excess_db: float  # How far the error here is above the error elsewhere.


@dataclass(frozen=True)
class SeamReport:
    """What `seams` finds."""

    mean_db: float  # 0 where boundaries do not matter; nan without any, or a silent reference.
    count: int
    worst: tuple[Seam, ...]  # At most five, the worst first.


def seams(
    reference: npt.ArrayLike,
    estimate: npt.ArrayLike,
    boundaries: npt.ArrayLike,
    sample_rate: int,
) -> SeamReport:
    """Measure how much worse a stem is around segment boundaries than elsewhere.

    Parameters
    ----------
    reference : array, shape (channels, samples) or (samples,)
        The true source or, to measure only the effect of segments, a stem of the same model with
        long context and much overlap.
    estimate : array, same shape
        The stem.
    boundaries : array of int, shape (boundaries,)
        Samples at which a segment begins or ends (`ChunkPlan.boundaries`); those outside the
        recording are left out.
    sample_rate : int, > 0, in Hz

    Returns
    -------
    report : SeamReport

    Raises
    ------
    ParameterError
        If the shapes differ or there is nothing to compare.

    Notes
    -----
    Both signals are differentiated (each sample minus the one before), so that a jump counts as a
    click and not by its offset. The error of a short piece is the power of the differentiated
    difference over the power of the differentiated reference in the 0.1 s on both sides, in dB.
    Errors 60 dB below the reference or lower are inaudible and count as -60 dB. A zone is 5 ms on
    both sides of a boundary, or less where boundaries are close (an eighth of their mean
    distance). It is compared with pieces of its length between the zones: the excess of a
    boundary is the error of its zone minus the mean error of those pieces. It is 0 on average
    where boundaries do not matter, whatever the level of the music and of the error.

    This measure is stemlab's own.

    Examples
    --------
    >>> import numpy as np
    >>> reference = np.sin(np.arange(8000.0))
    >>> stem = reference.copy()
    >>> stem[4000] += 0.1
    >>> report = seams(reference, stem, [2000, 4000], 8000)
    >>> report.count, round(report.worst[0].seconds, 3), round(report.worst[0].excess_db)
    (2, 0.5, 27)
    """
    true, found = pair(reference, estimate)
    samples = true.shape[-1]
    error, signal = _slope_power(found - true), _slope_power(true)
    mean_signal = float(signal.mean())
    edges = _apart(boundaries, samples, int(_HALF_ZONE_SECONDS * sample_rate) // 2)
    if not edges.size or not mean_signal:
        return SeamReport(float("nan"), len(edges), ())
    spacing = samples // (len(edges) + 1)
    half = max(min(int(_HALF_ZONE_SECONDS * sample_rate), spacing // _SPACING_PER_HALF_ZONE), 1)
    around = _surroundings(signal, 2 * half, int(_SURROUNDINGS_SECONDS * sample_rate))
    level = np.maximum(around, _SILENT * mean_signal)

    tiles = _tiles(error, 2 * half)
    # A tile is touched by a zone if one of the ends of the zone lies in it.
    touched = np.unique(np.concatenate([edges - half, edges + half - 1]).clip(0) // (2 * half))
    elsewhere = np.setdiff1d(np.arange(len(tiles)), touched)
    if not elsewhere.size:
        return SeamReport(float("nan"), len(edges), ())
    usual_db = float(_level_db(tiles[elsewhere] / level[elsewhere]).mean())
    zones = np.array([error[max(edge - half, 0) : edge + half].mean() for edge in edges])
    excess_db = _level_db(zones / level[(edges // (2 * half)).clip(max=len(level) - 1)]) - usual_db
    worst = np.argsort(-excess_db, kind="stable")[:_WORST]
    return SeamReport(
        float(excess_db.mean()),
        len(edges),
        tuple(Seam(float(edges[n] / sample_rate), float(excess_db[n])) for n in worst),
    )


def _apart(boundaries: npt.ArrayLike, samples: int, distance: int) -> npt.NDArray[np.int64]:
    """Return the boundaries inside the recording; of several within a distance, only the first."""
    inside = np.unique(np.asarray(boundaries, np.int64).ravel())
    inside = inside[(inside > 0) & (inside < samples)]
    kept: list[int] = []
    for edge in inside.tolist():
        if not kept or edge - kept[-1] > distance:
            kept.append(edge)
    return np.array(kept, np.int64)


def _slope_power(signal: _Floats) -> _Floats:
    """Return the mean over channels of the squared differences of neighbours, shape (samples,)."""
    slope = np.diff(np.atleast_2d(signal), axis=-1, prepend=0.0)
    slope[:, 0] = 0.0
    power: _Floats = np.einsum("cs,cs->s", slope, slope) / len(slope)
    return power


def _tiles(power: _Floats, length: int) -> _Floats:
    """Return the mean power of adjacent pieces; a rest at the end is left out."""
    count = max(len(power) // length, 1)
    means: _Floats = power[: count * length].reshape(count, -1).mean(axis=1)
    return means


def _surroundings(power: _Floats, length: int, reach: int) -> _Floats:
    """Return the mean power around each tile."""
    tiles = _tiles(power, length)
    width = min(2 * (reach // length) + 1, len(tiles))
    ones = np.ones(width)
    total: _Floats = np.convolve(tiles, ones, "same")
    return total / np.convolve(np.ones(len(tiles)), ones, "same")


def _level_db(ratio: _Floats) -> _Floats:
    level: _Floats = 10 * np.log10(ratio + _INAUDIBLE)
    return level
