"""Draw the share of each segment over time, and the signal at a seam."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from stemlab._checks import check_seconds
from stemlab.audio.arrays import as_signals
from stemlab.chunking import ChunkPlan, samples_in
from stemlab.errors import ParameterError
from stemlab.plots._panels import COLORS, Panels, panels

_COLUMNS = 1200
# To both sides of the seam.
_ZOOM_SECONDS = 0.01


def plot_seam(
    plan: ChunkPlan,
    result: npt.ArrayLike,
    uncut: npt.ArrayLike,
    *,
    at_seconds: float | None = None,
    axes: Axes | npt.ArrayLike | None = None,
) -> Panels:
    """Draw the share of each segment over time, and the signal around one seam.

    Parameters
    ----------
    plan : ChunkPlan
        The first pass is drawn.
    result, uncut : array, each shape (channels, samples) or (samples,)
        The signal put together from segments, and the reference. The first channel is drawn.
    at_seconds : float, optional
        The seam nearest to this time is enlarged. Default: the middle of the recording.
    axes : array of Axes, shape (2,), optional
        Default: axes of a new figure.

    Returns
    -------
    axes : ndarray of Axes, shape (2,)
        Shares above, the seam below. The shares add up to 1 at every time.

    Raises
    ------
    ParameterError
        If the signals do not have the length of the plan, or `axes` has another shape.
    AudioError
        If a signal is empty, not finite or has more than two channels.

    Examples
    --------
    >>> import numpy as np
    >>> sine = np.sin(np.arange(16_000) / 10)
    >>> plan = ChunkPlan(samples=16_000, sample_rate=8000, segment_seconds=1, overlap=0.5)
    >>> shares, seam = plot_seam(plan, sine, sine)
    >>> len(shares.lines) - 1 == plan.calls
    True
    """
    signals = as_signals({"in segments": result, "uncut": uncut})
    for name, signal in signals.items():
        if signal.shape[1] != plan.samples:
            raise ParameterError(
                f"{name!r} has {signal.shape[1]} samples and the plan {plan.samples}. Pass the "
                "signals that the plan is for."
            )
    if at_seconds is not None:
        advice = "Leave it out for the middle."
        at_seconds = float(check_seconds("at_seconds", at_seconds, above=False, advice=advice))
    given = panels(axes, 2, inches=(9, 4.2))[:, 0]
    above, below = given
    moments, shares = _shares(plan)
    for number, share in enumerate(shares):
        above.plot(moments, share, color=COLORS[number % len(COLORS)], linewidth=1.2)
    above.plot(moments, sum(shares), color="black", linestyle=":", label="sum")
    above.set(xlim=(0, plan.samples / plan.sample_rate), ylim=(0, 1.15))
    above.set(ylabel="Share", xlabel="Time (s)")
    above.set_title(f"share of each of {len(shares)} segments", loc="left")

    seam = _seam(plan, at_seconds)
    around = samples_in(_ZOOM_SECONDS, plan.sample_rate)
    low, high = max(seam - around, 0), min(seam + around, plan.samples)
    milliseconds = 1000 * (np.arange(low, high) - seam) / plan.sample_rate
    for (name, signal), style in zip(signals.items(), ("-", ":"), strict=True):
        below.plot(milliseconds, signal[0, low:high], style, color="C0", label=name)
    below.axvline(0, color="C3", linewidth=0.8)
    below.set(xlabel="Time from the seam (ms)", ylabel="Amplitude")
    below.set_title(f"around the seam at {seam / plan.sample_rate:.2f} s", loc="left")
    below.margins(y=0.3)
    below.legend(loc="upper right", ncols=2)
    return given


def _shares(plan: ChunkPlan) -> tuple[npt.NDArray[Any], list[npt.NDArray[Any]]]:
    """Return some moments, and there the weight of each chunk divided by the sum of all weights."""
    positions = np.linspace(0, plan.samples - 1, _COLUMNS).astype(np.int64)
    weights = []
    for chunk in plan.chunks(plan.starts[0]):
        inside = (positions >= chunk.start) & (positions < chunk.stop)
        weights.append(np.zeros(_COLUMNS))
        weights[-1][inside] = plan.window[positions[inside] - chunk.start]
    total = sum(weights)
    return positions / plan.sample_rate, [weight / total for weight in weights]


def _seam(plan: ChunkPlan, at_seconds: float | None) -> int:
    middle = plan.samples / 2 if at_seconds is None else at_seconds * plan.sample_rate
    # Where a segment begins: without overlap, another ends there.
    starts = [chunk.start for chunk in plan.chunks(plan.starts[0])][1:] or [int(middle)]
    return min(starts, key=lambda start: abs(start - middle))
