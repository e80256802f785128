"""Ratios of wanted to unwanted energy over a whole recording, in dB."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from stemlab.errors import ParameterError


def sdr(reference: npt.ArrayLike, estimate: npt.ArrayLike) -> float:
    """Signal-to-distortion ratio over a whole recording, all channels together.

    Parameters
    ----------
    reference : array, shape (channels, samples) or (samples,)
        The true source.
    estimate : array, same shape
        The stem.

    Returns
    -------
    sdr : float, in dB
        Energy of the reference over the energy of the difference; ``inf`` for equal signals,
        ``nan`` where the reference is silent and the ratio therefore means nothing.

    Raises
    ------
    ParameterError
        If the shapes differ or there is nothing to compare.

    References
    ----------
    Y. Mitsufuji et al., "Music Demixing Challenge 2021", Frontiers in Signal Processing 1, 2022,
    doi:10.3389/frsip.2021.808395 (the "global SDR", here without its regularising constant).

    Examples
    --------
    >>> import numpy as np
    >>> reference = np.ones((2, 100))
    >>> round(sdr(reference, 0.9 * reference), 2)
    20.0
    """
    true, found = pair(reference, estimate)
    energy = _energy(true)
    return _ratio_db(energy, _energy(true - found)) if energy else float("nan")


def si_sdr(reference: npt.ArrayLike, estimate: npt.ArrayLike) -> float:
    """Scale-invariant signal-to-distortion ratio, all channels together.

    The reference is scaled to fit the estimate best, so that the level of the stem does not
    count. Neither signal has its mean removed.

    Parameters
    ----------
    reference : array, shape (channels, samples) or (samples,)
        The true source.
    estimate : array, same shape
        The stem.

    Returns
    -------
    si_sdr : float, in dB
        ``nan`` where the reference is silent, ``-inf`` where the estimate holds nothing of it,
        ``inf`` where it holds nothing else.

    Raises
    ------
    ParameterError
        If the shapes differ or there is nothing to compare.

    References
    ----------
    J. Le Roux, S. Wisdom, H. Erdogan, J. R. Hershey, "SDR: half-baked or well done?",
    ICASSP 2019, doi:10.1109/ICASSP.2019.8683855.

    Examples
    --------
    >>> import numpy as np
    >>> reference = np.array([1.0, -1.0, 1.0, -1.0])
    >>> noise = np.array([1.0, 1.0, -1.0, -1.0])
    >>> round(si_sdr(reference, 7 * (reference + 0.1 * noise)), 2)
    20.0
    """
    true, found = pair(reference, estimate)
    energy = _energy(true)
    if energy == 0:
        return float("nan")
    target = (np.vdot(true, found) / energy) * true
    return _ratio_db(_energy(target), _energy(found - target))


def consistency(mixture: npt.ArrayLike, stems: Iterable[npt.ArrayLike]) -> float:
    """Level of the difference between the mixture and the sum of its stems.

    Stems that are estimated separately need not add up to the mixture, which cannot be heard in
    any single stem.

    Parameters
    ----------
    mixture : array, shape (channels, samples) or (samples,)
    stems : iterable of array, each of the same shape
        All stems; if one is left out, the figure is the level of that stem.

    Returns
    -------
    consistency : float, in dB
        Energy of the mixture minus the stems over the energy of the mixture: lower is better,
        ``-inf`` if there is no difference, ``nan`` if the mixture is silent.

    Raises
    ------
    ParameterError
        If the shapes differ or there is nothing to compare.

    Examples
    --------
    >>> import numpy as np
    >>> mixture = np.ones((2, 100))
    >>> consistency(mixture, [0.5 * mixture, 0.4 * mixture]).__round__(2)
    -20.0
    """
    total = np.zeros(np.shape(mixture))
    for stem in stems:
        total += pair(mixture, stem)[1]
    return -sdr(mixture, total)


def pair(
    reference: npt.ArrayLike, estimate: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Convert a reference and an estimate to arrays, and check that they have the same shape."""
    true = np.asarray(reference, np.float64)
    found = np.asarray(estimate, np.float64)
    if true.shape != found.shape or true.ndim not in (1, 2) or true.size == 0:
        raise ParameterError(
            f"reference has shape {true.shape} and estimate {found.shape}: both must be "
            "(channels, samples), or (samples,), with at least one sample. Cut them to one length."
        )
    return true, found


def _energy(signal: npt.NDArray[np.float64]) -> float:
    return float(np.vdot(signal, signal))


def _ratio_db(signal: float, distortion: float) -> float:
    if signal == 0:
        return float("-inf")
    if distortion == 0:
        return float("inf")
    return float(10 * np.log10(signal / distortion))
