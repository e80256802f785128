"""A process that measures one setting and ends: ``python -m stemlab.sweeps.alone``.

It reads an order from standard input, writes events and at the end a report, each a line of JSON,
to standard output, and the stems as raw float32 into the folder of the order.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stemlab.errors import StemlabError
from stemlab.results import peak_memory_bytes
from stemlab.separation import AudioStemSeparator, SegmentDone, SeparationSettings
from stemlab.sweeps.measuring import warm_up
from stemlab.sweeps.models import ModelSource, make_separator

__all__: list[str] = []


def _obey(order: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(order["threads"])
    settings = SeparationSettings(**order["settings"])
    source = ModelSource(**order["source"])
    if source.factory is not None:
        # At the end: nothing there can stand in for an installed module.
        sys.path += order["factory_path"]
    separator = make_separator(source, "cpu", order["batch_size"])
    folder = Path(order["folder"])
    warm_up(separator, settings)
    walls: list[float] = []
    peak: int | None = None
    stems: tuple[str, ...] = ()
    for repeat in range(order["repeats"]):
        started = time.perf_counter()
        stems = _stream(separator, settings, folder)
        walls.append(time.perf_counter() - started)
        # Of one run: what a second one would add is no part of the setting.
        peak = peak_memory_bytes() if repeat == 0 else peak
    return {"wall_seconds": walls, "peak_memory_bytes": peak, "stems": stems}


def _stream(
    separator: AudioStemSeparator, settings: SeparationSettings, folder: Path
) -> tuple[str, ...]:
    names = settings.pick_sources(separator.sources)
    with ExitStack() as stack:
        files = {
            name: stack.enter_context((folder / f"{number}.f32").open("wb"))
            for number, name in enumerate(names)
        }
        for block in separator.stream_file(
            folder / "mixture.wav", settings=settings, progress=_report
        ):
            for name, samples in block.stems.items():
                files[name].write(np.ascontiguousarray(samples.T, "<f4").tobytes())
    return names


def _report(event: SegmentDone) -> None:
    _write(asdict(event))


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
