"""Go through the settings of a sweep: one after another here, or wherever an executor runs them."""

from __future__ import annotations

import statistics
import time
import warnings
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    CancelledError,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from stemlab.errors import ParameterError, StemlabError
from stemlab.files import ScratchFolder
from stemlab.separation import AudioStemSeparator, SegmentDone, SeparationSettings
from stemlab.sweeps.measuring import (
    Material,
    Outcome,
    Stems,
    Task,
    measure,
    separate,
    separate_there,
    work,
)
from stemlab.sweeps.models import make_separator
from stemlab.sweeps.recordings import SweepAudio

__all__ = ["Done", "Job", "Stopped", "SweepProgress", "Teller", "refuse_fork", "run_here", "run_on"]

# Of tasks that carry the audio along: so much of it is held at once.
_MOST_CARRIERS = 8
# A setting that takes this many times what the earlier ones suggest is measured once more.
_DISTURBED, _FEW = 3.0, 3


@dataclass(frozen=True)
class SweepProgress:
    """A progress event of a sweep."""

    done: int
    total: int
    running: str
    share: float
    remaining_seconds: float | None


@dataclass(frozen=True)
class Job:
    """A computation of a sweep."""

    key: str
    task: Task
    weight: int
    shown: str


@dataclass(frozen=True)
class Done:
    """What became of a job."""

    job: Job
    outcome: Outcome | None
    error: str
    alone: bool


class Stopped(BaseException):
    """Carries an exception of the caller's callback past what turns exceptions into rows."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause


class Teller:
    """Tells the caller how far a sweep is."""

    def __init__(
        self,
        total: int,
        jobs: Sequence[Job],
        long_runs: Mapping[str, int],
        callback: Callable[[SweepProgress], None] | None,
    ) -> None:
        self._callback = callback
        self._total, self._done = total, total - len(jobs)
        self._long_runs = long_runs
        self._weight = sum(each.weight for each in jobs) + sum(long_runs.values())
        self._ended = 0
        self._current = ("", 0)
        self._started = time.perf_counter()

    def begin(self, shown: str, weight: int = 0) -> None:
        """Say what is under way."""
        self._current = (shown, weight)
        self._tell(0.0)

    def begin_long_run(self, name: str) -> None:
        """Say that the long-context run of a model is under way."""
        if self._long_runs[name]:
            self.begin(f"{name}: the long-context run to compare with", self._long_runs[name])

    def end_long_run(self, name: str) -> None:
        """Say that it has ended."""
        self._ended += self._long_runs[name]
        self._current = (self._current[0], 0)

    def segment(self, event: SegmentDone) -> None:
        """Say how far it is."""
        self._tell(event.done / event.total)

    def end(self, weight: int) -> None:
        """Say that a job has ended."""
        self._done += 1
        self._ended += weight
        self._current = (self._current[0], 0)
        self._tell(0.0)

    def _tell(self, part: float) -> None:
        if self._callback is None:
            return
        shown, weight = self._current
        share = (self._ended + part * weight) / self._weight if self._weight else 1.0
        elapsed = time.perf_counter() - self._started
        left = elapsed * (1 - share) / share if share else None
        try:
            self._callback(SweepProgress(self._done, self._total, shown, share, left))
        except BaseException as error:
            raise Stopped(error) from error


SeparateFunction = Callable[[SeparationSettings], Stems]
# Gives what the jobs of the named model share; the function makes stems where they are missing.
MaterialOf = Callable[[str, SeparateFunction], Material]


def run_here(
    jobs: Sequence[Job],
    audio: SweepAudio,
    separators: Mapping[str, AudioStemSeparator],
    material_of: MaterialOf,
    tell: Teller,
) -> Generator[Done]:
    """Run jobs one after another in this process."""
    material: Material | None = None
    name = ""
    rates: list[float] = []
    for job in jobs:
        separator = separators[job.task.source.name]
        if material is None or job.task.source.name != name:
            name, rates = job.task.source.name, []
            tell.begin_long_run(name)
            material = material_of(name, partial(_separate_here, separator, audio, tell))
            tell.end_long_run(name)
        tell.begin(job.shown, job.weight)
        try:
            outcome = measure(job.task, material, separator, progress=tell.segment)
            if _is_disturbed(_rate(outcome, job), rates):
                again = measure(job.task, material, separator, progress=tell.segment)
                outcome = min(outcome, again, key=lambda each: _rate(each, job))
            rates.append(_rate(outcome, job))
        except Exception as error:  # noqa: BLE001 - the others still have their turn
            yield Done(job, None, _say(error), alone=True)
        else:
            yield Done(job, outcome, "", alone=True)
        tell.end(job.weight)


def _rate(outcome: Outcome, job: Job) -> float:
    """Seconds per sample that is computed, which settings of one model have nearly in common."""
    assert outcome.figures is not None
    return float(statistics.median(outcome.figures["wall_seconds"])) / job.weight


def _is_disturbed(rate: float, earlier: Sequence[float]) -> bool:
    """Whether a time is so far beyond the others that something else must have been running."""
    return len(earlier) >= _FEW and rate > _DISTURBED * statistics.median(earlier)


def _separate_here(
    separator: AudioStemSeparator, audio: SweepAudio, tell: Teller, settings: SeparationSettings
) -> Stems:
    return separate(separator, audio, settings, tell.segment)


def run_on(
    executor: Executor,
    jobs: Sequence[Job],
    audio: SweepAudio,
    material_of: MaterialOf,
    tell: Teller,
) -> Generator[Done]:
    """Run jobs on an executor, as many at once as it does."""
    if not isinstance(executor, ThreadPoolExecutor):
        jobs = [replace(each, task=each.task.portable(_kind(executor))) for each in jobs]
    with ScratchFolder() as scratch:
        materials: dict[str, Material] = {}
        for job in jobs:
            name = job.task.source.name
            if name not in materials:
                tell.begin_long_run(name)
                run = partial(_separate_there, executor, job.task, audio)
                materials[name] = material_of(name, run)
                tell.end_long_run(name)
                materials[name].save(_place(scratch, materials[name]))
        try:
            yield from _submit_all(executor, jobs, materials, Path(scratch), tell)
        finally:
            make_separator.cache_clear()  # Threads of this process filled it.


def _submit_all(
    executor: Executor,
    jobs: Sequence[Job],
    materials: Mapping[str, Material],
    scratch: Path,
    tell: Teller,
) -> Generator[Done]:
    waiting = deque((each, False) for each in jobs)
    futures: dict[Future[Outcome], tuple[Job, bool]] = {}
    carriers = 0
    tell.begin(f"{len(jobs)} settings on {_kind(executor)}")
    try:
        while waiting or futures:
            while waiting and (not waiting[0][1] or carriers < _MOST_CARRIERS):
                job, carries = waiting.popleft()
                material = materials[job.task.source.name]
                task = replace(
                    job.task, material_key=material.key, material_path=_place(scratch, material)
                )
                futures[_submit(executor, work, task, material if carries else None)] = job, carries
                carriers += carries
            ended, _ = wait(futures, return_when=FIRST_COMPLETED)
            for future in ended:
                job, carried = futures.pop(future)
                carriers -= carried
                done = _done(job, future, alone=len(jobs) == 1)
                if done.outcome is not None and done.outcome.figures is None:
                    # A process that does not see our file: send the audio along.
                    waiting.append((job, True))
                    continue
                yield done
                tell.end(job.weight)
    finally:
        for future in futures:
            future.cancel()


def _submit(executor: Executor, function: Callable[..., Any], *arguments: Any) -> Future[Any]:
    with warnings.catch_warnings():
        # Dask advises against arguments of many MB; these are sent where nothing else helps.
        warnings.filterwarnings("ignore", message="Sending large graph")
        try:
            return executor.submit(function, *arguments)
        except Exception as error:  # noqa: BLE001 - an executor that broke
            failed: Future[Any] = Future()
            failed.set_exception(error)
            return failed


def _done(job: Job, future: Future[Outcome], *, alone: bool) -> Done:
    try:
        return Done(job, future.result(), "", alone)
    except (Exception, CancelledError) as error:  # noqa: BLE001 - the others have their turn
        return Done(job, None, _say(error), alone)


def _separate_there(
    executor: Executor, task: Task, audio: SweepAudio, settings: SeparationSettings
) -> Stems:
    task = replace(task, settings=settings)
    stems: Stems = _submit(executor, separate_there, task, audio).result()
    return stems


def _place(scratch: str | Path, material: Material) -> Path:
    return Path(scratch) / f"{material.key}.npz"


def _kind(executor: Executor) -> str:
    return type(executor).__name__


def refuse_fork(executor: Executor) -> None:
    """Refuse processes in which PyTorch may wait for ever."""
    context = getattr(executor, "_mp_context", None)
    forks = context is not None and context.get_start_method() == "fork"
    if isinstance(executor, ProcessPoolExecutor) and forks:
        raise ParameterError(
            "executor=ProcessPoolExecutor(...) forks this process, and PyTorch may wait for ever "
            "in the fork. Pass mp_context=multiprocessing.get_context('spawn')."
        )


def _say(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, StemlabError) else f"{type(error).__name__}: {text}"
