"""BSSEval v4, as museval computes it."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType

import numpy as np
import numpy.typing as npt

from stemlab.errors import MissingDependencyError, ParameterError


@dataclass(frozen=True)
class BssEval:
    """BSSEval v4 of one source, each the median over frames of one second."""

    # All are nan where the source is silent throughout.
    sdr_db: float  # Everything that is wrong, and its parts:
    isr_db: float  # the position between the loudspeakers,
    sir_db: float  # other sources; nan where not all true sources are known,
    sar_db: float  # artefacts; nan as `sir_db`.


def bss_eval(
    references: Mapping[str, npt.ArrayLike],
    estimates: Mapping[str, npt.ArrayLike],
    sample_rate: int,
    *,
    others: Mapping[str, npt.ArrayLike] | None = MappingProxyType({}),
) -> dict[str, BssEval]:
    """Compare stems with the true sources by BSSEval v4. Takes seconds per second of audio.

    Parameters
    ----------
    references : mapping of str to array, each shape (channels, samples) or (samples,)
        The true sources. Silent ones are left out of the analysis and get ``nan``: museval would
        give ``nan`` to all.
    estimates : mapping of str to array, each of the same shape
        The stems, of the same sources at least.
    sample_rate : int, > 0, in Hz
        Frames are one second long and do not overlap.
    others : mapping of str to array, or None, optional
        The other true sources of the mixture, whose stems are not judged; None if one of them is
        not known. Without all true sources, interference cannot be told from artefacts: `sir_db`
        and `sar_db` are then ``nan``, as they are if `estimates` has a source that `references`
        lacks.

    Returns
    -------
    figures : dict of str to BssEval

    Raises
    ------
    MissingDependencyError
        If museval is not installed.
    ParameterError
        If a source has no stem, or the shapes differ.

    Notes
    -----
    The figures are those of ``museval.evaluate(..., mode="v4")``, with its usual median over
    frames; frames in which a source or a stem is silent do not count. museval fits filters from
    the true sources to the stems. Where these have nothing above some frequency, as after a lossy
    codec, the filters are arbitrary there and SIR and SAR mean little.

    References
    ----------
    F.-R. Stöter, A. Liutkus, N. Ito, "The 2018 Signal Separation Evaluation Campaign",
    LVA/ICA 2018, doi:10.1007/978-3-319-93764-9_28.
    """
    metrics = museval_metrics()
    missing = [source for source in references if source not in estimates]
    if missing:
        raise ParameterError(f"estimates has no {missing[0]!r}. Pass a stem for each reference.")
    all_known = others is not None and {*estimates} <= {*references, *others}
    true = {**references, **(others or {})}
    heard = {name: _samples_first(signal) for name, signal in true.items() if np.any(signal)}
    # Any signal can stand for a stem that is not judged, as long as it is not silent.
    found = {
        name: _samples_first(estimates[name]) if name in references else signal
        for name, signal in heard.items()
    }
    shapes = {signal.shape for signal in (*heard.values(), *found.values())}
    if len(shapes) > 1:
        raise ParameterError(
            f"references and estimates have the shapes {sorted(shapes)}: pass one."
        )
    figures = {name: BssEval(*4 * [float("nan")]) for name in references}
    if any(name in heard for name in references):
        with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
            # NumPy and museval warn of frames without sound.
            warnings.simplefilter("ignore")
            *frames, _ = metrics.bss_eval(
                np.stack([*heard.values()]),
                np.stack([*found.values()]),
                window=sample_rate,
                hop=sample_rate,
                compute_permutation=False,
            )
            medians = np.nanmedian(frames, axis=2)
        if not all_known:
            medians[2:] = np.nan
        for position, name in enumerate(heard):
            if name in references:
                figures[name] = BssEval(*map(float, medians[:, position]))
    return figures


def _samples_first(signal: npt.ArrayLike) -> npt.NDArray[np.float64]:
    return np.atleast_2d(np.asarray(signal, np.float64)).T


@cache
def museval_metrics() -> ModuleType:
    """Load only the metrics of museval: the package as a whole needs ffmpeg, to read data sets."""
    package = importlib.util.find_spec("museval")
    if package is None or package.origin is None:
        raise MissingDependencyError(
            "BSSEval needs museval, which is not installed. `pip install 'stemlab[bsseval]'`, or "
            "leave it out: SDR and SI-SDR need nothing."
        )
    place = Path(package.origin).with_name("metrics.py")
    spec = importlib.util.spec_from_file_location("stemlab._museval_metrics", place)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module
