"""Measure computations of a sweep, in this process or in one that works for a sweep elsewhere."""

from __future__ import annotations

import ctypes
import json
import statistics
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stemlab._typing import AudioArray
from stemlab.networks.devices import peak_device_bytes, reset_peak
from stemlab.separation import AudioStemSeparator
from stemlab.sweeps._excerpt import Excerpt
from stemlab.sweeps._models import make_separator
from stemlab.sweeps._records import grade
from stemlab.sweeps._timing import Share, Stems, run_in_own_process, timed, warm_up
from stemlab.sweeps.plan import Computation

# A computation that takes this many times what the earlier ones suggest is measured once more.
_DISTURBED, _FEW = 3.0, 3


@dataclass(frozen=True)
class Outcome:
    """What a computation came to."""

    figures: dict[str, Any] = field(default_factory=dict)  # Empty if only stems were wanted.
    stems: Stems = field(default_factory=dict)  # Empty unless they were wanted.


class Bench:
    """A model that is ready to be measured, and what all its computations share.

    A bench belongs to one run of a sweep in one process, which may use it from several threads.
    """

    def __init__(self, separator: AudioStemSeparator, excerpt: Excerpt, long_run: Stems) -> None:
        self.long_run = long_run
        self._separator = separator
        self._excerpt = excerpt
        self._is_warm = False
        self._warming = threading.Lock()
        self._rates: list[float] = []  # Seconds for each computed sample.

    def do(self, computation: Computation, progress: Share | None = None) -> Outcome:
        """Separate the excerpt, and measure what is wanted."""
        measures = computation.measures
        if measures is None:
            return Outcome(stems=self._run(computation, 1, progress)[0])

        def rate(costs: dict[str, Any]) -> float:
            return float(statistics.median(costs["wall_seconds"])) / computation.weight

        stems, costs = self._measure(computation, progress)
        # Settings of one model have nearly the same rate; far beyond it, something else ran beside.
        if len(self._rates) >= _FEW and rate(costs) > _DISTURBED * statistics.median(self._rates):
            stems, again = self._measure(computation, progress)
            costs = min(costs, again, key=rate)
        self._rates.append(rate(costs))
        figures = grade(
            self._excerpt,
            stems,
            computation.plans,
            long_run=self.long_run,
            offered=self._separator.sources,
            bsseval=measures.bsseval,
        )
        return Outcome({**figures, **costs}, stems if measures.keep_audio else {})

    def _measure(
        self, computation: Computation, progress: Share | None
    ) -> tuple[Stems, dict[str, Any]]:
        """Return the stems, and the figures that say what they cost."""
        assert computation.measures is not None
        if computation.needs_own_process:
            return run_in_own_process(computation, self._excerpt, progress)
        with self._warming:
            if not self._is_warm:
                warm_up(self._separator, computation.settings)
                self._is_warm = True
        stems, costs = self._run(computation, computation.measures.repeats, progress)
        _return_freed_memory()
        return stems, costs

    def _run(
        self, computation: Computation, repeats: int, progress: Share | None
    ) -> tuple[Stems, dict[str, Any]]:
        measures = computation.measures
        device = torch.device(self._separator.device)
        reset_peak(device)
        return timed(
            lambda segment_done: self._separator.separate_audio(
                self._excerpt.mixture,
                self._excerpt.sample_rate,
                settings=computation.settings,
                progress=segment_done,
            ),
            repeats,
            lambda: peak_device_bytes(device) if measures and measures.memory else None,
            progress,
        )


def _return_freed_memory() -> None:
    """Return free memory to the system.

    glibc keeps it in pieces that do not fit the next setting, so a sweep of a thousand settings
    grows to its end (``benchmarks/load.py``).
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # Other C libraries have no such function.
            ctypes.CDLL(None).malloc_trim(0)


# ---------------------------------------------------------------- in other processes


@dataclass(frozen=True)
class Inputs:
    """What the computations of one model in one run share, as it travels to another process."""

    key: str  # No other run, and no other model, has the same.
    excerpt: Excerpt
    long_run: Stems

    def save(self, path: Path) -> None:
        """Write it to a file."""
        excerpt = self.excerpt
        facts = [self.key, excerpt.name, excerpt.sample_rate, excerpt.start, excerpt.total]
        arrays = {
            "mixture": excerpt.mixture,
            **{f"true {name}": stem for name, stem in excerpt.references.items()},
            **{f"long {name}": stem for name, stem in self.long_run.items()},
        }
        np.savez(path, allow_pickle=False, facts=json.dumps(facts), **arrays)

    @classmethod
    def load(cls, path: Path) -> Inputs:
        """Read it from a file."""
        with np.load(path, allow_pickle=False) as file:
            key, name, rate, start, total = json.loads(str(file["facts"]))
            arrays: dict[str, AudioArray] = {
                array: file[array] for array in file.files if array != "facts"
            }
        true, long_run = (
            {array[5:]: stem for array, stem in arrays.items() if array.startswith(kind)}
            for kind in ("true ", "long ")
        )
        return cls(key, Excerpt(name, arrays["mixture"], rate, start, total, true), long_run)


# The bench that this process used last, with the key of its inputs: the computations of one model
# follow each other, and only the first loads the model.
_bench: tuple[str, Bench] | None = None
_setting_up = threading.Lock()


def do_elsewhere(
    computation: Computation, key: str, path: Path, inputs: Inputs | None
) -> Outcome | None:
    """Carry it out in this process, for a sweep in another one.

    Returns None if the inputs neither came along nor lie in the file.
    """
    global _bench
    with _setting_up:
        if _bench is None or _bench[0] != key:
            try:
                inputs = inputs or Inputs.load(path)
            except (OSError, ValueError, KeyError):  # Another machine, where there is no such file.
                return None
            if inputs.key != key:
                return None
            _bench = None  # Frees the last model before the next one is loaded.
            separator = make_separator(
                computation.model, computation.device, computation.batch_size
            )
            _bench = (key, Bench(separator, inputs.excerpt, inputs.long_run))
        bench = _bench[1]
    return bench.do(computation)
