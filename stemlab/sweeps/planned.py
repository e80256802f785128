"""A sweep as an object: what it will do, what that would cost, and doing it."""

from __future__ import annotations

import logging
import os
import platform
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pandas as pd

from stemlab._typing import AudioArray, StrPath
from stemlab.audio import resampled_length
from stemlab.chunking import ChunkPlan
from stemlab.cost import CostEstimate, CostModel, calibrate, call_seconds, duration
from stemlab.errors import ParameterError
from stemlab.metrics.bsseval import museval_metrics
from stemlab.networks.identity import digest_of
from stemlab.registry import is_folder
from stemlab.separation import AudioStemSeparator, SeparationSettings
from stemlab.sweeps._records import RecordFacts, checked_record, plain_record
from stemlab.sweeps.measuring import Material, Task
from stemlab.sweeps.models import ModelSource, SweepModel, model_sources
from stemlab.sweeps.recordings import References, SweepAudio, load_audio, load_references
from stemlab.sweeps.running import (
    Done,
    Job,
    SeparateFunction,
    Stopped,
    SweepProgress,
    Teller,
    refuse_fork,
    run_here,
    run_on,
)
from stemlab.sweeps.settings import (
    Measures,
    SweepGrid,
    SweepSetting,
    computation_of,
    long_context_settings,
    settings_of,
)
from stemlab.sweeps.store import StemsFormat, SweepStore
from stemlab.sweeps.table import make_table

__all__ = ["Sweep", "SweepEstimate", "plan_sweep", "sweep"]

_log = logging.getLogger(__name__)

# A process that imports PyTorch, loads a model and warms it up, where each setting has its own.
_PROCESS_SECONDS = 6.0
# Changes with what a record holds, or how its figures are defined.
_RECORD = 2


@dataclass(frozen=True)
class SweepEstimate:
    """What is left to do of a sweep, before it is done."""

    settings: int
    computations: int
    stored: int
    seconds: float
    peak_memory_bytes: int | None

    def in_words(self, device: str) -> str:
        """Put the estimate into a sentence or two."""
        same, left = self.settings - self.computations, self.computations - self.stored
        memory = self.peak_memory_bytes
        return (
            f"{self.settings} settings on {device}"
            + (f" ({same} repeat the computation of others)" if same > 0 else "")
            + (f", {self.stored} measured before" if self.stored else "")
            + (f". About {duration(self.seconds)}" if left else "")
            + (f" and {memory / 1e6:.0f} MB" if left and memory is not None else "")
            + "."
        )


@dataclass(frozen=True)
class _Row:
    """A setting with its job, or why it has none."""

    setting: SweepSetting
    plans: tuple[ChunkPlan, ...]
    computation: str
    job: Job | None
    error: str


class Sweep:
    """A sweep that was planned and checked. Made by `plan_sweep`.

    Nothing is separated before `run`. Each result is stored as soon as it is there, so a run that
    was ended, in whatever way, goes on where it was.

    Attributes
    ----------
    device : str
        Where the settings run.
    """

    def __init__(
        self,
        audio: SweepAudio,
        sources: Sequence[ModelSource],
        grid: SweepGrid,
        measures: Measures,
        *,
        stems: Sequence[str] | None,
        device: str,
        batch_size: int,
        executor: Executor | None,
        store: SweepStore | None,
    ) -> None:
        if executor is not None:
            refuse_fork(executor)
        self._audio = audio
        self._executor = executor
        self._sources = {each.name: each for each in sources}
        for each in sources if store is not None else ():
            if each.identity is None:
                _log.warning(
                    "results of %s are not stored: its class is not one of Demucs, and its weights "
                    "do not tell what it computes. Pass network_version to vouch for its code.",
                    each.name,
                )
        self._grid = grid
        self._measures = measures
        self._batch_size = batch_size
        self._store = store
        self._separators = {
            name: _separator(each, device, batch_size) for name, each in self._sources.items()
        }
        # If nobody vouches for the code of a network, nothing may be found again.
        self._identities = {
            each.name: {
                **self._separators[each.name].identity,
                "model": each.identity or str(uuid.uuid4()),
            }
            for each in sources
        }
        self._long_settings = {
            name: long_context_settings(grid, each, stems)
            for name, each in self._separators.items()
        }
        self.device = next(iter(self._separators.values())).device
        if measures.memory and self.device == "cpu":
            for each in sources:
                each.portable("measuring memory on the CPU")
        if executor is not None and not isinstance(executor, ThreadPoolExecutor):
            for each in sources:
                each.portable(type(executor).__name__)
        self._rows = [row for each in sources for row in self._rows_of(each, stems)]
        if all(each.job is None for each in self._rows):
            raise ParameterError(f"no setting of the sweep is possible. {self._rows[0].error}")
        # Several settings may come to one computation. The cheapest first, model by model.
        jobs = {each.job.key: each.job for each in self._rows if each.job is not None}
        order = list(self._sources)
        self._jobs = sorted(
            jobs.values(), key=lambda each: (order.index(each.task.source.name), each.weight)
        )
        self._records: dict[str, dict[str, Any]] = {}
        self._errors: dict[str, str] = {}
        self._find_stored()

    def __repr__(self) -> str:
        return (
            f"Sweep({self._audio.name!r}, settings={len(self._rows)}, "
            f"computations={len(self._jobs)})"
        )

    @property
    def recording(self) -> tuple[AudioArray, int]:
        """The excerpt that every setting separates, shape (channels, samples), and its rate."""
        return self._audio.mixture, self._audio.sample_rate

    @property
    def settings(self) -> list[SweepSetting]:
        """All settings, in the order of the table."""
        return [each.setting for each in self._rows]

    def plans(self, setting: SweepSetting) -> tuple[ChunkPlan, ...]:
        """Tell what a setting computes.

        Parameters
        ----------
        setting : SweepSetting

        Returns
        -------
        plans : tuple of ChunkPlan
            One per network; empty for a setting that is not possible.

        Raises
        ------
        ParameterError
            If it is not one of `settings`.
        """
        return self._row(setting).plans

    def kept_stems(self, setting: SweepSetting) -> dict[str, Path]:
        """Find the stems of a setting that were kept for listening.

        Parameters
        ----------
        setting : SweepSetting

        Returns
        -------
        stems : dict of str to Path
            Empty where none are kept.

        Raises
        ------
        ParameterError
            If it is not one of `settings`.
        """
        job = self._row(setting).job
        if job is None or self._store is None:
            return {}
        return self._store.kept(job.key, self._format(job.task.source.name, job.task.settings))

    def estimate(self) -> SweepEstimate:
        """Estimate what is left to do; calibrates each model, which takes seconds.

        Returns
        -------
        estimate : SweepEstimate

        Raises
        ------
        ModelError, OutOfMemoryError
            If a model cannot be loaded.
        """
        jobs = self._pending()
        seconds, peaks = 0.0, []
        for name in dict.fromkeys(each.task.source.name for each in jobs):
            model = calibrate(self._separators[name])
            if self._long_weight(name):
                seconds += self._cost(model, name, self._long_settings[name]).seconds
            for job in jobs:
                if job.task.source.name == name:
                    cost = self._cost(model, name, job.task.settings)
                    seconds += self._measures.repeats * cost.seconds
                    seconds += _PROCESS_SECONDS if job.task.alone else 0.0
                    peaks.append(cost.peak_memory_bytes)
        return SweepEstimate(
            len(self._rows),
            len(self._jobs),
            len(self._jobs) - len(jobs),
            seconds,
            max((each for each in peaks if each is not None), default=None),
        )

    def run(self, *, progress: Callable[[SweepProgress], None] | None = None) -> pd.DataFrame:
        """Measure what was not measured before.

        Parameters
        ----------
        progress : callable, optional
            Called with a `SweepProgress`; raising an exception there ends the sweep, and what is
            done is kept.

        Returns
        -------
        results : DataFrame
            That of `table`.

        Raises
        ------
        OutputError
            If results cannot be stored.
        ModelError, OutOfMemoryError, SeparationError
            If a model cannot be loaded, or its long-context run fails. Where one setting fails,
            its row says why, and the others go on.
        """
        self._errors.clear()  # What failed has another try.
        jobs = self._pending()
        if jobs and self._store is not None:
            self._store.check_writable()
        names = dict.fromkeys(each.task.source.name for each in jobs)
        long_runs = {each: self._long_weight(each) for each in names}
        tell = Teller(len(self._jobs), jobs, long_runs, progress)
        ended = (
            run_here(jobs, self._audio, self._separators, self._material, tell)
            if self._executor is None
            else run_on(self._executor, jobs, self._audio, self._material, tell)
        )
        try:
            for each in ended:
                self._finish(each)
        except Stopped as stopped:
            raise stopped.cause from None
        finally:
            ended.close()
        return self.table()

    def table(self) -> pd.DataFrame:
        """Make the table of what is measured so far.

        Returns
        -------
        results : DataFrame
            One row per setting and source, with the columns of `stemlab.sweeps.COLUMNS`;
            ``attrs["manifest"]`` says how it was made, ``attrs["folders"]`` where the models lie
            that are folders. Settings that were not measured yet are left out.
        """
        rows = []
        for each in self._rows:
            key = each.job.key if each.job else ""
            record, error = self._records.get(key), each.error or self._errors.get(key, "")
            if record is not None or error:
                plan = _describe(each.plans, each.computation) if each.job else {}
                rows.append((asdict(each.setting), plan, record, error))
        results = make_table(rows, self._manifest())
        # Not part of the manifest, which names no folders.
        results.attrs["folders"] = {
            name: source.request
            for name, source in self._sources.items()
            if source.request is not None and is_folder(source.request)
        }
        return results

    # ------------------------------------------------------------ the plan

    def _rows_of(self, source: ModelSource, stems: Sequence[str] | None) -> Iterator[_Row]:
        settings = settings_of(
            self._grid,
            self._separators[source.name],
            source.name,
            stems,
            pads_by_default=source.pads_by_default,
        )
        for setting, asked in settings.items():
            try:
                plans = self._plan(source.name, asked)
            except ParameterError as error:
                yield _Row(setting, (), "", None, str(error))
                continue
            computation = computation_of(plans)
            key = digest_of(self._what_matters(source, asked, computation))
            task = Task(
                source,
                asked,
                self._separators[source.name].device,
                self._batch_size,
                self._measures,
            )
            job = Job(key, task, _weight(plans), str(setting))
            yield _Row(setting, plans, computation, job, "")

    def _row(self, setting: SweepSetting) -> _Row:
        for row in self._rows:
            if row.setting == setting:
                return row
        raise ParameterError(f"setting={setting} is not one of this sweep's {len(self._rows)}.")

    def _plan(self, name: str, settings: SeparationSettings) -> tuple[ChunkPlan, ...]:
        rate = self._separators[name].sample_rate
        samples = resampled_length(self._audio.mixture.shape[1], self._audio.sample_rate, rate)
        return self._separators[name].plan(samples, settings)

    def _cost(self, model: CostModel, name: str, settings: SeparationSettings) -> CostEstimate:
        return model.estimate(self._plan(name, settings))

    # ------------------------------------------------------------ what results depend on

    def _what_matters(
        self, source: ModelSource, settings: SeparationSettings, computation: str
    ) -> dict[str, Any]:
        """All that the figures of a computation depend on."""
        return {
            **self._identities[source.name],
            "record": _RECORD,
            "audio": self._audio.facts,
            "computation": computation,
            "sources": settings.sources,
            "long_run": self._long_key(source.name) if self._measures.agreement else None,
            # Keeping stems changes no figure.
            "measures": asdict(replace(self._measures, keep_audio=False)),
            "machine": [platform.node(), platform.machine(), os.cpu_count()],
            # Its times are those of other machines, or of a busy one.
            "executor": "" if self._executor is None else type(self._executor).__name__,
        }

    def _long_key(self, name: str) -> str:
        settings = self._long_settings[name]
        return digest_of(
            {
                **self._identities[name],
                "long_run": True,
                "computation": computation_of(self._plan(name, settings)),
                "sources": settings.sources,
                "audio": self._audio.facts,
            }
        )

    def _manifest(self) -> dict[str, Any]:
        audio = self._audio
        long_runs = self._long_settings if self._measures.agreement else {}
        identity = next(iter(self._identities.values()))
        return {
            "made_by": "stemlab sweep",
            "contains": "Settings, figures and versions, the kind of the machine, the file name of "
            "the recording, and digests of it and of the models. No audio, no folders.",
            "created": _now(),
            "song": audio.name,
            "seconds": round(audio.seconds, 6),
            "start_seconds": round(audio.start / audio.sample_rate, 6),
            "recording_seconds": round(audio.total / audio.sample_rate, 6),
            **audio.facts,
            "models": {name: each.sha256 for name, each in self._sources.items()},
            "requests": {
                name: None if each.request is None or is_folder(each.request) else each.request
                for name, each in self._sources.items()
            },
            "mixed_segments": {
                name: each.spec.segment_seconds
                for name, each in self._separators.items()
                if each.spec.segments_differ
            },
            "grid": asdict(self._grid),
            "measures": asdict(self._measures),
            "long_run": {name: asdict(each) for name, each in long_runs.items()},
            "device": self.device,
            "batch_size": self._batch_size,
            "threads": identity["threads"],
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
            "versions": identity["versions"],
        }

    # ------------------------------------------------------------ what was done, and doing it

    def _pending(self) -> list[Job]:
        done = self._records.keys() | self._errors.keys()
        return [each for each in self._jobs if each.key not in done]

    def _find_stored(self) -> None:
        for job in self._jobs if self._store is not None else ():
            assert self._store is not None
            fields = self._store.find(job.key)
            if fields is None:
                continue
            name, settings = job.task.source.name, job.task.settings
            try:
                record = checked_record(fields, self._facts(name, settings))
            except ValueError as error:
                _log.warning("%s is measured again: its record is damaged: %s", job.shown, error)
                continue
            keeps = self._measures.keep_audio
            if not keeps or self._store.kept(job.key, self._format(name, settings)):
                self._records[job.key] = record

    def _stems(self, name: str, settings: SeparationSettings) -> tuple[str, ...]:
        return settings.pick_sources(self._separators[name].sources)

    def _facts(self, name: str, settings: SeparationSettings) -> RecordFacts:
        """What a record of a setting must say."""
        return RecordFacts(
            self._stems(name, settings),
            frozenset(self._audio.references),
            self._measures,
            self._audio.seconds,
            self.device,
        )

    def _format(self, name: str, settings: SeparationSettings) -> StemsFormat:
        """What kept stems of a setting must be."""
        channels, samples = self._audio.mixture.shape
        return StemsFormat(self._stems(name, settings), self._audio.sample_rate, channels, samples)

    def _finish(self, done: Done) -> None:
        job, outcome = done.job, done.outcome
        if outcome is None or outcome.figures is None:
            self._errors[job.key] = done.error
            return
        facts = self._facts(job.task.source.name, job.task.settings)
        record = plain_record(
            {
                **outcome.figures,
                **facts.stated,
                "settings": asdict(job.task.settings),
                "timed_alone": done.alone,
                "model": job.task.source.name,
                "created": _now(),
            }
        )
        try:
            self._records[job.key] = checked_record(record, facts)
        except ValueError as error:
            self._errors[job.key] = f"the figures cannot be right: {error}"
            return
        if self._store is not None:
            if outcome.stems:
                self._store.keep(job.key, outcome.stems, self._audio.sample_rate)
            if job.task.source.identity is not None:
                self._store.add(job.key, record)

    def _material(self, name: str, run: SeparateFunction) -> Material:
        """What the settings of a model share; its long-context run is made where it is missing."""
        if not self._measures.agreement:
            return Material(digest_of(self._audio.facts), self._audio)
        key = self._long_key(name)
        stems = self._kept_long_run(name)
        if not stems:
            stems = run(self._long_settings[name])
            if self._store is not None and self._sources[name].identity is not None:
                self._store.keep(key, stems, self._audio.sample_rate)
        return Material(key, self._audio, stems)

    def _long_weight(self, name: str) -> int:
        """Weight of a model's long-context run; 0 where there is none to make."""
        if not self._measures.agreement or self._kept_long_run(name):
            return 0
        return _weight(self._plan(name, self._long_settings[name]))

    def _kept_long_run(self, name: str) -> dict[str, AudioArray]:
        if self._store is None:
            return {}
        expected = self._format(name, self._long_settings[name])
        return self._store.kept_samples(self._long_key(name), expected)


def _separator(source: ModelSource, device: str, batch_size: int) -> AudioStemSeparator:
    asked: Any = source.request if source.network is None else source.network
    separator = AudioStemSeparator(asked, device=device, batch_size=batch_size)
    separator.check(SeparationSettings())
    return separator


def _weight(plans: Sequence[ChunkPlan]) -> int:
    return sum(each.computed_samples for each in plans)


def _describe(plans: Sequence[ChunkPlan], computation: str) -> dict[str, Any]:
    """The columns that follow from the plans of a setting."""
    wasted = sum(each.wasted_share * each.computed_samples for each in plans)
    return {
        "calls": sum(each.calls for each in plans),
        "network_seconds": max(map(call_seconds, plans)),
        "wasted_share": wasted / _weight(plans),
        "computation": computation[:12],
        "note": " ".join(dict.fromkeys(note for each in plans for note in each.notes)),
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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
    references: References | None = None,
    sources: Sequence[str] | None = None,
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
    references : folder, or mapping of str to path or array, optional
        True stems, named like the sources, as long as the recording.
    sources : sequence of str, optional
        Only these stems. Default: all.
    excerpt_seconds : float, > 0, or None, default 30
        How much of the recording is used; None for all of it.
    excerpt_start_seconds : float, >= 0, optional
        Default: the excerpt lies in the middle.
    memory, repeats, agreement, bsseval, keep_audio : optional
        What is measured, see `Measures`.
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
    grid = SweepGrid(segments, overlaps, shifts, padded, seed)
    measures = Measures(memory, repeats, agreement, bsseval, keep_audio)
    if bsseval and references is None:
        raise ParameterError("bsseval=True needs true stems. Pass references as well.")
    if bsseval:
        museval_metrics()  # It says so where there is none.
    if models is not None and model != "stemlab-mini":
        raise ParameterError("model and models were both given. Pass one of them.")
    found = model_sources(model if models is None else models, network_version=network_version)
    stems = None if sources is None else SeparationSettings(sources=sources).sources
    planned = load_audio(
        audio,
        sample_rate,
        excerpt_seconds=excerpt_seconds,
        excerpt_start_seconds=excerpt_start_seconds,
    )
    if references is not None:
        offered = dict.fromkeys(name for each in found for name in each.stems)
        planned = replace(planned, references=load_references(references, planned, [*offered]))
    kept = SweepStore() if store is True else store or None
    return Sweep(
        planned,
        found,
        grid,
        measures,
        stems=stems,
        device=device,
        batch_size=batch_size,
        executor=executor,
        store=kept,
    )


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
        ``sample_rate``, ``models``, ``segments``, ``overlaps``, ``shifts``, ``padded``, ``seed``,
        ``references``, ``sources``, ``excerpt_seconds``, ``excerpt_start_seconds``, ``memory``,
        ``repeats``, ``agreement``, ``bsseval``, ``keep_audio``, ``device``, ``batch_size``,
        ``network_version``, ``executor`` and ``store``, as in `plan_sweep`.

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
