"""Measure one computation of a sweep: run it, time it and grade its stems."""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from stemlab import audio as audio_io
from stemlab import errors
from stemlab._isolation import child
from stemlab._typing import AudioArray
from stemlab.errors import OutOfMemoryError, SeparationError, StemlabError
from stemlab.files import ScratchFolder
from stemlab.networks.devices import peak_device_bytes, reset_peak
from stemlab.separation import AudioStemSeparator, SegmentDone, SeparationSettings
from stemlab.sweeps.excerpt import Excerpt
from stemlab.sweeps.grading import grade
from stemlab.sweeps.grid import Measures
from stemlab.sweeps.models import ModelSource

__all__ = ["Bench", "Outcome", "Share", "Stems", "Task", "timed", "warm_up"]

Stems = dict[str, AudioArray]
# Called with the share of a task that is done, from 0 to 1.
Share = Callable[[float], None]
_Result = TypeVar("_Result")

# A computation that takes this many times what the earlier ones suggest is measured once more.
_DISTURBED, _FEW = 3.0, 3


@dataclass(frozen=True)
class Task:
    """One computation, as data that any process can carry out."""

    model: ModelSource
    settings: SeparationSettings
    device: str
    batch_size: int
    measures: Measures | None  # None: only the stems are wanted.

    def portable(self, why: str) -> Task:
        """Return the task without the network in memory; see `ModelSource.portable`."""
        return replace(self, model=self.model.portable(why))

    @property
    def needs_own_process(self) -> bool:
        """Whether peak memory is measured on the CPU, where it is that of the whole process."""
        return self.measures is not None and self.measures.memory and self.device == "cpu"

    def plain(self) -> dict[str, Any]:
        """Return the task as JSON can hold it; it must be portable."""
        return asdict(self)

    @classmethod
    def of_plain(cls, fields: Mapping[str, Any]) -> Task:
        """Make a task of what `plain` returned."""
        measures = fields["measures"]
        return cls(
            ModelSource(**fields["model"]),
            SeparationSettings(**fields["settings"]),
            fields["device"],
            fields["batch_size"],
            None if measures is None else Measures(**measures),
        )


@dataclass(frozen=True)
class Outcome:
    """What a task came to."""

    figures: dict[str, Any] = field(default_factory=dict)  # Empty if only stems were wanted.
    stems: Stems = field(default_factory=dict)  # Empty unless they were wanted.


class Bench:
    """A model that is ready to be measured, and what all its computations share.

    A bench belongs to one run of a sweep in one process; its tasks may run in several threads.
    """

    def __init__(
        self, separator: AudioStemSeparator, excerpt: Excerpt, long_run: Mapping[str, AudioArray]
    ) -> None:
        self.long_run = long_run
        self._separator = separator
        self._excerpt = excerpt
        self._is_warm = False
        self._warming = threading.Lock()
        self._rates: list[float] = []  # Seconds for each computed sample.

    def do(self, task: Task, progress: Share | None = None) -> Outcome:
        """Carry out a task."""
        if task.measures is None:
            return Outcome(stems=self._separate(task.settings, _share_of(progress)))
        plans = self._separator.plan(self._model_samples(), task.settings)
        computed = sum(plan.computed_samples for plan in plans)

        def rate(figures: Mapping[str, Any]) -> float:
            return float(statistics.median(figures["wall_seconds"])) / computed

        stems, costs = self._run(task, task.measures, progress)
        # Settings of one model have nearly the same rate; far beyond it, something else ran beside.
        if len(self._rates) >= _FEW and rate(costs) > _DISTURBED * statistics.median(self._rates):
            stems, again = self._run(task, task.measures, progress)
            costs = min(costs, again, key=rate)
        self._rates.append(rate(costs))
        figures = grade(
            self._excerpt,
            stems,
            plans,
            long_run=self.long_run,
            offered=self._separator.sources,
            bsseval=task.measures.bsseval,
        )
        return Outcome({**figures, **costs}, stems if task.measures.keep_audio else {})

    def _model_samples(self) -> int:
        excerpt = self._excerpt
        return audio_io.resampled_length(
            excerpt.mixture.shape[1], excerpt.sample_rate, self._separator.sample_rate
        )

    def _separate(
        self, settings: SeparationSettings, progress: Callable[[SegmentDone], None] | None
    ) -> Stems:
        return self._separator.separate_audio(
            self._excerpt.mixture,
            self._excerpt.sample_rate,
            settings=settings,
            progress=progress,
        )

    def _run(
        self, task: Task, measures: Measures, progress: Share | None
    ) -> tuple[Stems, dict[str, Any]]:
        """Return the stems, and the figures that say what they cost."""
        if task.needs_own_process:
            return _run_in_own_process(task, self._excerpt, measures, progress)
        with self._warming:
            if not self._is_warm:
                warm_up(self._separator, task.settings)
                self._is_warm = True
        device = torch.device(self._separator.device)
        reset_peak(device)
        stems, costs = timed(
            lambda segment_done: self._separate(task.settings, segment_done),
            measures.repeats,
            lambda: peak_device_bytes(device) if measures.memory else None,
            progress,
        )
        _return_freed_memory()
        return stems, costs


def timed(
    run: Callable[[Callable[[SegmentDone], None] | None], _Result],
    repeats: int,
    peak: Callable[[], int | None],
    progress: Share | None,
) -> tuple[_Result, dict[str, Any]]:
    """Run something several times; return its last result and the figures of its cost."""
    walls: list[float] = []
    peak_bytes: int | None = None
    result: _Result
    for repeat in range(repeats):
        started = time.perf_counter()
        result = run(_share_of(progress, repeat, repeats))
        walls.append(time.perf_counter() - started)
        if repeat == 0:  # What a second run adds is not part of the setting.
            peak_bytes = peak()
    return result, {"wall_seconds": walls, "peak_memory_bytes": peak_bytes}


def _share_of(
    progress: Share | None, repeat: int = 0, repeats: int = 1
) -> Callable[[SegmentDone], None] | None:
    if progress is None:
        return None
    return lambda event: progress((repeat + event.done / event.total) / repeats)


def warm_up(separator: AudioStemSeparator, settings: SeparationSettings) -> None:
    """Load and verify the weights, and run the network once: a first call takes longer."""
    second = np.zeros((2, separator.sample_rate), np.float32)
    once = replace(settings, shifts=0, overlap=0.0)
    separator.separate_audio(second, separator.sample_rate, settings=once)


def _return_freed_memory() -> None:
    """Return free memory to the system.

    glibc keeps it in pieces that do not fit the next setting, so a sweep of a thousand settings
    grows to its end (``benchmarks/load.py``).
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # Other C libraries have no such function.
            ctypes.CDLL(None).malloc_trim(0)


# ---------------------------------------------------------------- a process of its own


def _run_in_own_process(
    task: Task, excerpt: Excerpt, measures: Measures, progress: Share | None
) -> tuple[Stems, dict[str, Any]]:
    """Run in a fresh process, which streams a file to files as `separate_file` does."""
    with ScratchFolder() as scratch:
        folder = Path(scratch)
        channels, samples = excerpt.mixture.shape
        audio_io.write_file(
            folder / "mixture.wav", [excerpt.mixture], excerpt.sample_rate, channels
        )
        order = {
            "task": task.portable("measuring memory").plain(),
            "threads": torch.get_num_threads(),
            "folder": str(folder),
            # A factory of the caller's may lie in the current folder.
            "factory_path": [os.path.abspath(entry) for entry in sys.path],
        }
        report = _talk(order, progress)
        stems = {
            name: np.fromfile(folder / f"{number}.f32", "<f4")
            .reshape(samples, channels)
            .T.astype(np.float32)
            for number, name in enumerate(report.pop("stems"))
        }
    return stems, report


def _talk(order: dict[str, Any], progress: Share | None) -> dict[str, Any]:
    """Start the process, pass its progress on and wait for its report."""
    report: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints,
        subprocess.Popen(
            **child("-m", "stemlab.sweeps.alone", path=sys.path),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            encoding="utf-8",
        ) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        try:
            with suppress(BrokenPipeError):  # Why it ended so early is said below.
                process.stdin.write(json.dumps(order))
                process.stdin.close()
            for line in process.stdout:
                report = json.loads(line)
                if "share" in report and progress is not None:
                    progress(report["share"])
            process.wait()
        except BaseException:
            process.kill()
            raise
        if "error" in report:
            kind = getattr(errors, report["error"], SeparationError)
            raise (kind if issubclass(kind, StemlabError) else SeparationError)(report["message"])
        if process.returncode or "wall_seconds" not in report:
            complaints.seek(0)
            last_line = complaints.read().strip().rpartition("\n")[2]
            if process.returncode == -9:
                raise OutOfMemoryError(
                    "the process of this setting was killed, most likely because memory ran out. "
                    "Choose a shorter segment that is not padded."
                )
            raise SeparationError(
                f"the process of this setting ended with code {process.returncode}: {last_line}."
            )
    return report
