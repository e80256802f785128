"""A process that runs one task and ends: ``python -m stemlab.sweeps.alone``.

It reads an order from standard input. It writes its progress and at the end a report, each a line
of JSON, to standard output, and the stems as raw float32 into the folder of the order.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stemlab.errors import StemlabError
from stemlab.results import peak_memory_bytes
from stemlab.separation import AudioStemSeparator, SegmentDone, SeparationSettings
from stemlab.sweeps.measure import Task, timed, warm_up
from stemlab.sweeps.models import make_separator

__all__: list[str] = []


def _obey(order: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(order["threads"])
    task = Task.of_plain(order["task"])
    assert task.measures is not None
    if task.model.factory is not None:
        # At the end: nothing there can stand in for an installed module.
        sys.path += order["factory_path"]
    separator = make_separator(task.model, "cpu", task.batch_size)
    warm_up(separator, task.settings)
    stems, costs = timed(
        lambda segment_done: _stream(separator, task.settings, Path(order["folder"]), segment_done),
        task.measures.repeats,
        peak_memory_bytes,
        lambda share: _write({"share": share}),
    )
    return {**costs, "stems": stems}


def _stream(
    separator: AudioStemSeparator,
    settings: SeparationSettings,
    folder: Path,
    progress: Callable[[SegmentDone], None] | None,
) -> tuple[str, ...]:
    """Separate the file in the folder; return the names of the stems, in the order of the files."""
    names = settings.pick_sources(separator.sources)
    with ExitStack() as stack:
        files = {
            name: stack.enter_context((folder / f"{number}.f32").open("wb"))
            for number, name in enumerate(names)
        }
        for block in separator.stream_file(
            folder / "mixture.wav", settings=settings, progress=progress
        ):
            for name, samples in block.stems.items():
                files[name].write(np.ascontiguousarray(samples.T, "<f4").tobytes())
    return names


def _write(facts: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(facts) + "\n")
    sys.stdout.flush()


def _main() -> None:
    try:
        report = _obey(json.load(sys.stdin))
    except StemlabError as error:
        report = {"error": type(error).__name__, "message": str(error)}
    _write(report)


if __name__ == "__main__":
    _main()
