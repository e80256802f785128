"""A sweep as an object: its plan, and what is measured of it so far."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemlab._typing import AudioArray
from stemlab.chunking import ChunkPlan
from stemlab.cost import calibrate, duration
from stemlab.errors import OutputError, ParameterError, StemlabError
from stemlab.sweeps._measure import Outcome
from stemlab.sweeps._records import checked_record, plain_record
from stemlab.sweeps.grid import SweepSetting
from stemlab.sweeps.plan import Computation, SweepPlan, now
from stemlab.sweeps.run import InPlace, SweepProgress, run_all
from stemlab.sweeps.store import MOST_HEADER_BYTES, SweepStore
from stemlab.sweeps.table import make_table

if TYPE_CHECKING:
    import pandas as pd

_log = logging.getLogger(__name__)

# A process that imports PyTorch, loads a model and warms it up, where each setting has its own.
_PROCESS_SECONDS = 6.0


@dataclass(frozen=True)
class SweepEstimate:
    """What is left to do of a sweep."""

    settings: int
    computations: int
    stored: int  # Computations that were measured before.
    seconds: float
    peak_memory_bytes: int | None  # None if it is not known, or nothing is left to do.
    impossible: int = 0  # Settings that a model does not take.

    def in_words(self, device: str) -> str:
        """Put the estimate into a sentence or two."""
        repeated = self.settings - self.impossible - self.computations
        remarks = [f"{repeated} repeat the computation of others"] * (repeated > 0)
        remarks += [f"{self.impossible} are not possible"] * (self.impossible > 0)
        memory = self.peak_memory_bytes
        return (
            f"{self.settings} settings on {device}"
            + (f" ({', '.join(remarks)})" if remarks else "")
            + (f", {self.stored} measured before" if self.stored else "")
            + (f". About {duration(self.seconds)}" if self.seconds else "")
            + (f" and {memory / 1e6:.0f} MB" if memory is not None else "")
            + "."
        )


class Sweep:
    """A sweep that was planned and checked. Made by `plan_sweep`.

    Nothing is separated before `run`. Each result is stored as soon as it is there, so a run that
    was ended, in whatever way, goes on where it was.

    Attributes
    ----------
    device : str
        Where the settings run.
    """

    def __init__(self, plan: SweepPlan, executor: Executor, store: SweepStore | None) -> None:
        self.device = plan.device
        self._plan = plan
        self._executor = executor
        self._store = store
        self._records: dict[str, dict[str, Any]] = {}
        self._errors: dict[str, str] = {}
        self._find_stored()

    def __repr__(self) -> str:
        return (
            f"Sweep({self._plan.excerpt.name!r}, settings={len(self._plan.settings)}, "
            f"computations={len(self._plan.computations)})"
        )

    @property
    def recording(self) -> tuple[AudioArray, int]:
        """The excerpt that every setting separates, shape (channels, samples), and its rate."""
        return self._plan.excerpt.mixture, self._plan.excerpt.sample_rate

    @property
    def settings(self) -> list[SweepSetting]:
        """All settings, in the order of the table."""
        return list(self._plan.settings)

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
        computation = self._plan.computation(setting)
        return () if isinstance(computation, str) else computation.plans

    def kept_stems(self, setting: SweepSetting) -> dict[str, Path]:
        """Find the stems of a setting that were kept for listening.

        Parameters
        ----------
        setting : SweepSetting

        Returns
        -------
        stems : dict of str to Path
            Empty where none are kept: the store drops the stems used longest ago where room is
            short. `make_stems` makes them again.

        Raises
        ------
        ParameterError
            If it is not one of `settings`.
        """
        computation = self._plan.computation(setting)
        return {} if isinstance(computation, str) else self._kept(computation)

    def make_stems(
        self, setting: SweepSetting, *, progress: Callable[[SweepProgress], None] | None = None
    ) -> dict[str, Path]:
        """Find the stems of a setting, or separate again to make them; nothing is measured.

        Parameters
        ----------
        setting : SweepSetting
        progress : callable, optional
            As for `run`.

        Returns
        -------
        stems : dict of str to Path

        Raises
        ------
        ParameterError
            If it is not one of `settings`, or not possible.
        OutputError
            If the stems cannot be kept, or the sweep has no store.
        ModelError, OutOfMemoryError, SeparationError
            If the separation fails.
        """
        computation = self._plan.computation(setting)
        if isinstance(computation, str):
            raise ParameterError(f"setting={setting} is not possible. {computation}")
        if not self._kept(computation):
            self._run([replace(computation, measures=None)], progress)
        stems = self._kept(computation)
        if not stems:
            raise OutputError(
                f"the stems of {setting} cannot be kept. Plan the sweep with a store that has room "
                "for them, or with a shorter excerpt."
            )
        return stems

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
        work = self._work()
        seconds, peaks = 0.0, []
        for name in dict.fromkeys(computation.model.name for computation in work):
            cost_model = calibrate(self._plan.separators[name])
            its = [computation for computation in work if computation.model.name == name]
            is_compared = any(computation.is_compared for computation in its)
            if is_compared and not self._kept(self._plan.long_runs[name]):
                seconds += cost_model.estimate(self._plan.long_runs[name].plans).seconds
            for computation in its:
                cost, measures = cost_model.estimate(computation.plans), computation.measures
                seconds += cost.seconds * (1 if measures is None else measures.repeats)
                seconds += _PROCESS_SECONDS if computation.needs_own_process else 0.0
                if cost.peak_memory_bytes is not None:
                    peaks.append(cost.peak_memory_bytes)
        unmeasured = sum(computation.measures is not None for computation in work)
        return SweepEstimate(
            settings=len(self._plan.settings),
            computations=len(self._plan.computations),
            stored=len(self._plan.computations) - unmeasured,
            seconds=seconds,
            peak_memory_bytes=max(peaks, default=None),
            impossible=sum(isinstance(found, str) for found in self._plan.settings.values()),
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
        self._run(self._work(), progress)
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
        results = make_table(self._plan, self._records, self._errors)
        # Not part of the manifest, which names no folders.
        results.attrs["folders"] = dict(self._plan.folders)
        return results

    # ------------------------------------------------------------ what is left to do

    def _find_stored(self) -> None:
        if self._store is None:
            return
        for computation in self._plan.computations:
            fields = self._store.find(computation.key)
            if fields is None:
                continue
            try:
                self._records[computation.key] = checked_record(
                    fields, computation.stems, self._plan
                )
            except ValueError as error:
                _log.warning(
                    "%s is measured again: its record is damaged: %s", computation.name, error
                )

    def _work(self) -> list[Computation]:
        """List what to run: what is not measured, and what is measured and lacks wanted stems."""
        done = self._records.keys() | self._errors.keys()
        remake = self._stems_to_make()
        return [
            replace(computation, measures=None) if computation.key in remake else computation
            for computation in self._plan.computations
            if computation.key not in done or computation.key in remake
        ]

    def _stems_to_make(self) -> set[str]:
        """Keys of measured computations whose stems are missing, as far as the store has room.

        Beyond that, each would take the place of another of this sweep, without end.
        """
        if not self._plan.measures.keep_audio or self._store is None:
            return set()
        computations = self._plan.computations
        missing = [
            computation.key
            for computation in computations
            if computation.key in self._records and not self._kept(computation)
        ]
        most_stems = max(len(computation.stems) for computation in computations)
        size = most_stems * (self._plan.excerpt.mixture.nbytes + MOST_HEADER_BYTES)
        taken = len(computations) - len(missing)
        return set(missing[: max(self._store.audio_limit_bytes // size - taken, 0)])

    def _kept(self, computation: Computation) -> dict[str, Path]:
        if self._store is None:
            return {}
        return self._store.kept(computation.key, computation.stems, self._plan.excerpt)

    def _kept_long_run(self, name: str) -> dict[str, AudioArray]:
        if self._store is None:
            return {}
        long_run = self._plan.long_runs[name]
        return self._store.kept_samples(long_run.key, long_run.stems, self._plan.excerpt)

    # ------------------------------------------------------------ doing it

    def _run(
        self, work: Sequence[Computation], progress: Callable[[SweepProgress], None] | None
    ) -> None:
        if self._store is not None and work:
            self._store.check_writable()
        elif self._store is not None:
            self._store.remove_drafts()
        compared = [computation for computation in work if computation.is_compared]
        names = dict.fromkeys(computation.model.name for computation in compared)
        long_runs = {name: stems for name in names if (stems := self._kept_long_run(name))}
        is_alone = isinstance(self._executor, InPlace) or len(work) == 1
        ended = run_all(self._plan, work, long_runs, self._executor, progress)
        try:
            for computation, outcome in ended:
                self._finish(computation, outcome, is_alone=is_alone)
        finally:
            ended.close()

    def _finish(
        self, computation: Computation, outcome: Outcome | Exception, *, is_alone: bool
    ) -> None:
        """Take what became of a computation, and store it."""
        if isinstance(outcome, Exception):
            if computation.measures is None:  # Only the stems were wanted.
                raise outcome
            text = " ".join(str(outcome).split())
            is_ours = isinstance(outcome, StemlabError)
            self._errors[computation.key] = text if is_ours else f"{type(outcome).__name__}: {text}"
            return
        if computation.measures is not None:
            record = plain_record(
                {
                    **outcome.figures,
                    **self._plan.stated,
                    "settings": asdict(computation.settings),
                    "timed_alone": is_alone,
                    "model": computation.model.name,
                    "created": now(),
                }
            )
            try:
                checked = checked_record(record, computation.stems, self._plan)
            except ValueError as error:
                self._errors[computation.key] = f"the figures cannot be right: {error}"
                return
            self._records[computation.key] = checked
            if self._store is not None and computation.model.identity is not None:
                self._store.add(computation.key, record)
        if self._store is not None and outcome.stems:
            self._store.keep(computation.key, outcome.stems, self._plan.excerpt.sample_rate)
