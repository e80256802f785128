"""Plan a sweep from what a caller asks for, or plan and run it at once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from stemlab._typing import StrPath
from stemlab.errors import ParameterError
from stemlab.metrics.bsseval import museval_metrics
from stemlab.separation import SeparationSettings
from stemlab.sweeps._excerpt import References, load_audio, load_references
from stemlab.sweeps._models import SweepModel, model_sources
from stemlab.sweeps.grid import Measures, SweepGrid
from stemlab.sweeps.plan import SweepPlan
from stemlab.sweeps.run import InPlace, SweepProgress, check_executor, works_here
from stemlab.sweeps.session import Sweep
from stemlab.sweeps.store import SweepStore

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)


def plan_sweep(
    audio: StrPath | npt.ArrayLike,
    model: SweepModel = "stemlab-mini",
    *,
    sample_rate: int | None = None,
    models: Iterable[SweepModel] | Mapping[str, SweepModel] | None = None,
    segments: Sequence[float] | None = None,
    overlaps: Sequence[float] = (0.0, 0.1, 0.25, 0.5),
    shifts: Sequence[int] = (0,),
    padded: Sequence[bool] | None = None,
    seed: int = 0,
    sources: Sequence[str] | None = None,
    settings: SeparationSettings | None = None,
    references: References | None = None,
    excerpt_seconds: float | None = 30.0,
    excerpt_start_seconds: float | None = None,
    memory: bool = False,
    repeats: int = 1,
    agreement: bool = True,
    bsseval: bool = False,
    keep_audio: bool = False,
    device: str = "auto",
    batch_size: int = 1,
    network_version: str | None = None,
    executor: Executor | None = None,
    store: SweepStore | bool = True,
) -> Sweep:
    """Plan a sweep over settings of the separation; nothing is separated yet.

    Parameters
    ----------
    audio : path or array, shape (channels, samples) or (samples,)
        The recording.
    model : str, path, Demucs network or function that makes one, default "stemlab-mini"
        A function without arguments, from a module that can be imported, reaches other processes;
        a network in memory does not.
    sample_rate : int, in Hz, optional
        Needed for an array.
    models : several of these, optional
        In place of `model`; a mapping names them.
    segments : sequence of float, > 0, optional
        In seconds. Default: each model's own, a half and a quarter of it.
    overlaps : sequence of float, in [0, 1), default (0, 0.1, 0.25, 0.5)
    shifts : sequence of int, in [0, 100], default (0,)
    padded : sequence of bool, optional
        Whether an HTDemucs pads short segments to its training length. Default: False for a model
        that was trained for shorter ones, True for the others.
    seed : int, >= 0, default 0
        Decides the shifts.
    sources : sequence of str, optional
        Only these stems. Default: all.
    settings : SeparationSettings, optional
        In place of `seed` and `sources`: what all settings of the sweep have in common, with
        `skip_covered_tail`. What the grid varies is not taken from it.
    references : folder, or mapping of str to path or array, optional
        True stems, named like the sources, as long as the recording.
    excerpt_seconds : float, > 0, or None, default 30
        How much of the recording is used; None for all of it.
    excerpt_start_seconds : float, >= 0, optional
        Default: the excerpt lies in the middle.
    memory : bool, default False
        Whether to measure peak memory.
    repeats : int, in [1, 100], default 1
        How often each setting runs; its time is the median.
    agreement, bsseval : bool
        Whether to compare with a long-context run (default), and to compute BSSEval v4.
    keep_audio : bool, default False
        Whether to keep the stems in the store, for listening.
    device : str, default "auto"
    batch_size : int, in [1, 64], default 1
        As for `AudioStemSeparator`.
    network_version : str, optional
        Vouches for the code of a network of your own class: with it, results of that network are
        stored and found again until it, or the weights, change. Results of Demucs' own classes
        always are.
    executor : concurrent.futures.Executor, optional
        Runs the settings in threads, in processes or on other machines, for instance
        ``dask.distributed.Client(...).get_executor()``. Default: one after another, here.
    store : SweepStore or bool, default True
        Where results are kept, and those of earlier sweeps found; False for nowhere.

    Returns
    -------
    sweep : Sweep

    Raises
    ------
    ParameterError
        If a value is outside its range, no setting is possible for any model, or a model does not
        reach the processes of the executor.
    AudioError
        If the recording or a true stem cannot be used.
    ModelNotFoundError, ModelRefusedError
        If a model is not there, or failed a check.
    MissingDependencyError
        If `bsseval` is asked for and museval is not installed.
    """
    if settings is not None and (seed or sources is not None):
        raise ParameterError("settings was passed with seed or sources. Put these into settings.")
    common = settings or SeparationSettings(seed=seed, sources=sources)
    grid = SweepGrid(segments, overlaps, shifts, padded, common.seed)
    measures = Measures(memory, repeats, agreement, bsseval, keep_audio)
    if bsseval and references is None:
        raise ParameterError("bsseval=True needs true stems. Pass references as well.")
    if bsseval:
        museval_metrics()  # Raises if museval is missing.
    if models is not None and model != "stemlab-mini":
        raise ParameterError("model and models were both given. Pass one of them.")
    found = model_sources(model if models is None else models, network_version=network_version)
    excerpt = load_audio(
        audio,
        sample_rate,
        excerpt_seconds=excerpt_seconds,
        excerpt_start_seconds=excerpt_start_seconds,
    )
    if references is not None:
        offered = dict.fromkeys(name for source in found for name in source.stems)
        stems = load_references(references, excerpt, list(offered))
        excerpt = replace(excerpt, references=stems)
    kept = SweepStore() if store is True else store or None
    for source in found if kept is not None else ():
        if source.identity is None:
            _log.warning(
                "results of %s are not stored: its class is not one of Demucs, and its weights do "
                "not tell what it computes. Pass network_version to vouch for its code.",
                source.name,
            )
    if executor is not None:
        check_executor(executor)
    plan = SweepPlan(
        excerpt,
        found,
        grid,
        measures,
        common,
        device=device,
        batch_size=batch_size,
        executor="" if executor is None else type(executor).__name__,
    )
    for source in found:
        if measures.memory and plan.device == "cpu":
            source.portable("measuring memory on the CPU")
        if executor is not None and not works_here(executor):
            source.portable(type(executor).__name__)
    return Sweep(plan, executor or InPlace(), kept)


def sweep(
    audio: StrPath | npt.ArrayLike,
    model: SweepModel = "stemlab-mini",
    *,
    progress: Callable[[SweepProgress], None] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """Measure what each setting of the separation costs and what it buys.

    Every combination of the values is a setting. What was measured before is not measured again;
    settings that come to the same computation are run once; one that fails becomes a row with
    its error.

    Parameters
    ----------
    audio : path or array, shape (channels, samples) or (samples,)
        The recording; of a long one, the 30 s in its middle unless `excerpt_seconds` says
        otherwise.
    model : str, path, Demucs network or function that makes one, default "stemlab-mini"
    progress : callable, optional
        Called with a `SweepProgress`; raising an exception there ends the sweep, and what is done
        is kept.
    **options : optional
        All other parameters of `plan_sweep`, such as ``segments``.

    Returns
    -------
    results : DataFrame
        One row per setting and source; `stemlab.sweeps.COLUMNS` says what each column means.

    Raises
    ------
    ParameterError, AudioError, ModelError, MissingDependencyError
        If what is asked for does not work for any setting, see `plan_sweep`.
    OutOfMemoryError, SeparationError
        If the long-context run fails.
    OutputError
        If results cannot be stored.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 44_100))
    >>> results = sweep(noise, sample_rate=44_100, segments=[0.5], overlaps=[0, 0.5], store=False)
    >>> results.groupby("overlap")["calls"].first().to_dict()
    {0.0: 2.0, 0.5: 4.0}
    """
    return plan_sweep(audio, model, **options).run(progress=progress)
