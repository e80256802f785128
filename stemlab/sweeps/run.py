"""The run of a sweep: one loop over its computations, on whatever executor carries them out.

An executor of threads, of processes or of a Dask cluster works on several computations at once;
`InPlace` carries out one after another in this thread.
"""

from __future__ import annotations

import time
import uuid
import warnings
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
    wait,
)
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeVar

from stemlab.errors import ParameterError
from stemlab.files import ScratchFolder
from stemlab.sweeps._measure import Bench, Inputs, Outcome, Share, Stems, do_elsewhere
from stemlab.sweeps.plan import Computation, SweepPlan

_Result = TypeVar("_Result")
_Call = Callable[[], Outcome | None]
# How many tasks that carry the audio along are under way at once, as each holds a copy of it.
_MOST_CARRIERS = 8


@dataclass(frozen=True)
class SweepProgress:
    """A progress event of a sweep."""

    done: int  # Computations that are measured, of `total`.
    total: int
    running: str
    share: float  # Of the work of this run, from 0 to 1.
    remaining_seconds: float | None


class _Stopped(BaseException):
    """Carries an exception of the caller's callback past what turns exceptions into rows."""

    def __init__(self, cause: BaseException) -> None:
        super().__init__(cause)
        self.cause = cause


class InPlace(Executor):
    """Carries out each call at once, in the thread that submits it."""

    def submit(
        self, function: Callable[..., _Result], /, *arguments: Any, **options: Any
    ) -> Future[_Result]:
        """Call the function and return a future that has ended."""
        future: Future[_Result] = Future()
        try:
            future.set_result(function(*arguments, **options))
        except Exception as error:  # noqa: BLE001 - as every executor does
            future.set_exception(error)
        return future


def works_here(executor: Executor) -> bool:
    """Tell whether an executor works in this process, where it finds networks and arrays."""
    return isinstance(executor, (InPlace, ThreadPoolExecutor))


def check_executor(executor: Executor) -> None:
    """Refuse processes in which PyTorch may wait for ever."""
    context = getattr(executor, "_mp_context", None)
    forks = context is not None and context.get_start_method() == "fork"
    if isinstance(executor, ProcessPoolExecutor) and forks:
        raise ParameterError(
            "executor=ProcessPoolExecutor(...) forks this process, and PyTorch may wait for ever "
            "in the fork. Pass mp_context=multiprocessing.get_context('spawn')."
        )


class _Reporter:
    """Tells the caller how far a run is."""

    def __init__(
        self, callback: Callable[[SweepProgress], None] | None, done: int, total: int, weight: int
    ) -> None:
        self._callback = callback
        self._done, self._total = done, total
        self._weight, self._ended = weight, 0
        self._running, self._running_weight = "", 0
        self._share = 0.0
        self._started = time.perf_counter()

    def begin(self, name: str, weight: int = 0) -> None:
        self._running, self._running_weight = name, weight
        self.part(0.0)

    def part(self, share: float) -> None:
        """Say how much is done of what is under way."""
        if self._callback is None:
            return
        done = self._ended + share * self._running_weight
        # It never falls, also where something is measured once more.
        self._share = max(self._share, done / self._weight if self._weight else 1.0)
        elapsed = time.perf_counter() - self._started
        left = elapsed * (1 - self._share) / self._share if self._share else None
        event = SweepProgress(self._done, self._total, self._running, self._share, left)
        try:
            self._callback(event)
        except BaseException as error:
            raise _Stopped(error) from error

    def end(self, computation: Computation) -> None:
        self._done += computation.measures is not None
        self._ended += computation.weight
        self._running_weight = 0
        self.part(0.0)


class _Place:
    """Where computations are carried out: on benches of this process, or in other ones.

    Those find the audio in a file of the scratch folder if they see this disk.
    """

    def __init__(
        self, plan: SweepPlan, executor: Executor, scratch: str | None, report: Share | None
    ) -> None:
        self._plan, self._scratch, self._report = plan, scratch, report
        self._why = type(executor).__name__
        self._ready: dict[str, Bench | tuple[Inputs, Path]] = {}

    def set_long_run(self, model: str, stems: Stems) -> None:
        if self._scratch is None:
            self._ready[model] = Bench(self._plan.separators[model], self._plan.excerpt, stems)
            return
        inputs = Inputs(uuid.uuid4().hex, self._plan.excerpt, stems)
        path = Path(self._scratch, f"{inputs.key}.npz")
        inputs.save(path)
        self._ready[model] = inputs, path

    def call(self, computation: Computation, *, carries: bool) -> _Call:
        model = computation.model
        if model.name not in self._ready:
            self.set_long_run(model.name, {})
        ready = self._ready[model.name]
        if isinstance(ready, Bench):
            return partial(ready.do, computation, self._report)
        inputs, path = ready
        portable = replace(computation, model=model.portable(self._why))
        return partial(do_elsewhere, portable, inputs.key, path, inputs if carries else None)


def run_all(
    plan: SweepPlan,
    computations: Sequence[Computation],
    long_runs: Mapping[str, Stems],
    executor: Executor,
    progress: Callable[[SweepProgress], None] | None,
) -> Generator[tuple[Computation, Outcome | Exception]]:
    """Carry out computations, and before those of a model the long-context run that they need.

    `long_runs` holds the stems of those that were made before, by model. What fails is yielded as
    its exception; a long-context run that fails raises it, and so does `progress`.
    """
    first, followers = _by_long_run(plan, computations, long_runs)
    waiting = deque((computation, False) for computation in first)  # And whether it carries audio.
    running: dict[Future[Outcome | None], tuple[Computation, bool]] = {}
    in_place = isinstance(executor, InPlace)
    measured = sum(computation.measures is not None for computation in computations)
    total = len(plan.computations)
    weight = sum(computation.weight for computation in chain(first, *followers.values()))
    report = _Reporter(progress, total - measured, total, weight)

    def has_room() -> bool:
        if in_place:
            return not running
        carriers = sum(carries for _, carries in running.values())
        return not waiting[0][1] or carriers < _MOST_CARRIERS

    with ExitStack() as stack:
        scratch = None if works_here(executor) else stack.enter_context(ScratchFolder())
        place = _Place(plan, executor, scratch, report.part if in_place else None)
        for model, stems in long_runs.items():
            place.set_long_run(model, stems)
        try:
            while waiting or running:
                while waiting and has_room():
                    computation, carries = waiting.popleft()
                    if in_place or computation.key in followers:
                        report.begin(computation.name, computation.weight)
                    else:
                        report.begin(f"{measured} settings on {type(executor).__name__}")
                    call = place.call(computation, carries=carries)
                    running[_submit(executor, call)] = computation, carries
                ended, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in ended:
                    computation, _ = running.pop(future)
                    outcome = _outcome_of(future)
                    if outcome is None:  # A process that does not see our file.
                        waiting.append((computation, True))
                        continue
                    if computation.key in followers:
                        if isinstance(outcome, Exception):
                            raise outcome
                        place.set_long_run(computation.model.name, outcome.stems)
                        group = followers.pop(computation.key)
                        waiting.extendleft((follower, False) for follower in reversed(group))
                    yield computation, outcome
                    report.end(computation)
        except _Stopped as stopped:
            raise stopped.cause from None
        finally:
            for future in running:
                future.cancel()


def _by_long_run(
    plan: SweepPlan, computations: Sequence[Computation], long_runs: Mapping[str, Stems]
) -> tuple[list[Computation], dict[str, list[Computation]]]:
    """Return what can begin at once, and what follows each long-context run, by its key."""
    first: list[Computation] = []
    followers = {}
    for model, its in groupby(computations, key=lambda computation: computation.model.name):
        group = list(its)
        if model not in long_runs and any(computation.is_compared for computation in group):
            long_run = plan.long_runs[model]
            followers[long_run.key] = group
            group = [long_run]
        first += group
    return first, followers


def _submit(executor: Executor, call: _Call) -> Future[Outcome | None]:
    with warnings.catch_warnings():
        # Dask advises against arguments of many MB; these are sent where nothing else helps.
        warnings.filterwarnings("ignore", message="Sending large graph")
        try:
            return executor.submit(call)
        except Exception as error:  # noqa: BLE001 - an executor that broke
            failed: Future[Outcome | None] = Future()
            failed.set_exception(error)
            return failed


def _outcome_of(future: Future[Outcome | None]) -> Outcome | Exception | None:
    try:
        return future.result()
    except Exception as error:  # noqa: BLE001 - the others have their turn
        return error
