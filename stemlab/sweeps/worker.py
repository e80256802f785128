"""The other end of an executor: carry out tasks in a process that works for a sweep elsewhere."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from stemlab._typing import AudioArray
from stemlab.sweeps.excerpt import Excerpt
from stemlab.sweeps.measure import Bench, Outcome, Stems, Task
from stemlab.sweeps.models import make_separator

__all__ = ["Inputs", "do_task"]


@dataclass(frozen=True)
class Inputs:
    """What the tasks of one model in one run share, as it travels to another process."""

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


# The bench that this process used last, with the key of its inputs: the tasks of one model follow
# each other, and only the first loads the model.
_bench: tuple[str, Bench] | None = None
_setting_up = threading.Lock()


def do_task(task: Task, key: str, path: Path, inputs: Inputs | None) -> Outcome | None:
    """Carry out a task; None if the inputs neither came along nor lie in the file."""
    bench = _find_bench(task, key, path, inputs)
    return None if bench is None else bench.do(task)


def _find_bench(task: Task, key: str, path: Path, inputs: Inputs | None) -> Bench | None:
    global _bench
    with _setting_up:
        if _bench is not None and _bench[0] == key:
            return _bench[1]
        try:
            inputs = inputs or Inputs.load(path)
        except (OSError, ValueError, KeyError):  # Another machine, where there is no such file.
            return None
        if inputs.key != key:
            return None
        _bench = None  # Frees the last model before the next one is loaded.
        separator = make_separator(task.model, task.device, task.batch_size)
        _bench = (key, Bench(separator, inputs.excerpt, inputs.long_run))
        return _bench[1]
