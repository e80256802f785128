"""Draw waveforms, reduced to the resolution of a screen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from stemlab._checks import check_rate
from stemlab._typing import AudioArray
from stemlab.audio.arrays import as_signals
from stemlab.plots._panels import Panels, panels, share_time, show_plainly

# More columns than this cannot be told apart on a screen.
_COLUMNS = 1200


def plot_waveforms(
    signals: Mapping[str, npt.ArrayLike],
    sample_rate: int,
    *,
    axes: Axes | npt.ArrayLike | None = None,
) -> Panels:
    """Draw waveforms one below the other, with the same time axis and amplitude scale.

    Each column of a lane spans the lowest to the highest sample of all channels, so that peaks stay
    visible however long the recording is.

    Parameters
    ----------
    signals : mapping of str to array, each shape (channels, samples) or (samples,)
        One or two channels. Names become titles. Lengths may differ.
    sample_rate : int, in Hz
    axes : Axes or array of Axes, optional
        One for each signal. Default: axes of a new figure.

    Returns
    -------
    axes : ndarray of Axes, shape (signals,)
        The figure is ``axes[0].figure``.

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
    recordings = as_signals(signals)
    check_rate("sample_rate", sample_rate)
    inches = (9, 0.6 + 1.1 * len(recordings))
    lanes = panels(axes, len(recordings), inches=inches, sharex=True, sharey=True)[:, 0]
    peak = max(float(np.abs(recording).max()) for recording in recordings.values()) or 1.0
    for lane, (name, recording) in zip(lanes, recordings.items(), strict=True):
        starts, low, high = _envelope(recording)
        # An outline as well: a range of one sample has no area.
        lane.fill_between(starts / sample_rate, low, high, linewidth=0.6, edgecolor="C0")
        lane.set_ylim(-1.05 * peak, 1.05 * peak)
        lane.set_ylabel("Amplitude")
        show_plainly(lane.set_title(name, loc="left"))
    share_time(lanes, 0, max(recording.shape[1] for recording in recordings.values()) / sample_rate)
    return lanes


def _envelope(recording: AudioArray) -> tuple[npt.NDArray[Any], AudioArray, AudioArray]:
    """Lowest and highest sample of each column, and where the columns start."""
    samples = recording.shape[1]
    starts = np.linspace(0, samples, min(samples, _COLUMNS), endpoint=False).astype(np.int64)
    low = np.minimum.reduceat(recording.min(axis=0), starts)
    high = np.maximum.reduceat(recording.max(axis=0), starts)
    # The last column ends with the recording.
    return np.append(starts, samples), np.append(low, low[-1]), np.append(high, high[-1])
