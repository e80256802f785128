"""Time a separation and measure its memory: in this process, or in a fresh one.

The fresh process runs this module. It reads an order from standard input. It writes its progress
and at the end a report, each a line of JSON, to standard output, and the stems as raw float32
into the folder of the order.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from stemlab import audio as audio_io
from stemlab import errors
from stemlab._isolation import child
from stemlab._typing import AudioArray
from stemlab.errors import OutOfMemoryError, SeparationError, StemlabError
from stemlab.files import ScratchFolder
from stemlab.results import peak_memory_bytes
from stemlab.separation import AudioStemSeparator, SegmentDone, SeparationSettings
from stemlab.sweeps._models import ModelSource, make_separator

if TYPE_CHECKING:
    from stemlab.sweeps._excerpt import Excerpt
    from stemlab.sweeps.plan import Computation

Stems = dict[str, AudioArray]
# Called with the share of the work that is done, from 0 to 1.
Share = Callable[[float], None]
_Result = TypeVar("_Result")


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
    progress: Share | None, repeat: int, repeats: int
) -> Callable[[SegmentDone], None] | None:
    if progress is None:
        return None
    return lambda event: progress((repeat + event.done / event.total) / repeats)


def warm_up(separator: AudioStemSeparator, settings: SeparationSettings) -> None:
    """Load and verify the weights, and run the network once: a first call takes longer."""
    second = np.zeros((2, separator.sample_rate), np.float32)
    once = replace(settings, shifts=0, overlap=0.0)
    separator.separate_audio(second, separator.sample_rate, settings=once)


def run_in_own_process(
    computation: Computation, excerpt: Excerpt, progress: Share | None
) -> tuple[Stems, dict[str, Any]]:
    """Run in a fresh process, which streams a file to files as `separate_file` does."""
    assert computation.measures is not None
    with ScratchFolder() as scratch:
        folder = Path(scratch)
        channels, samples = excerpt.mixture.shape
        audio_io.write_file(
            folder / "mixture.wav", [excerpt.mixture], excerpt.sample_rate, channels
        )
        order = {
            "model": asdict(computation.model.portable("measuring memory")),
            "settings": asdict(computation.settings),
            "batch_size": computation.batch_size,
            "repeats": computation.measures.repeats,
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
            **child("-m", "stemlab.sweeps._timing", path=sys.path),
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


# ---------------------------------------------------------------- in the fresh process


def _obey(order: dict[str, Any]) -> dict[str, Any]:
    torch.set_num_threads(order["threads"])
    model, settings = ModelSource(**order["model"]), SeparationSettings(**order["settings"])
    if model.factory is not None:
        # At the end: nothing there can stand in for an installed module.
        sys.path += order["factory_path"]
    separator = make_separator(model, "cpu", order["batch_size"])
    warm_up(separator, settings)
    stems, costs = timed(
        lambda segment_done: _stream(separator, settings, Path(order["folder"]), segment_done),
        order["repeats"],
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


if __name__ == "__main__":
    try:
        report = _obey(json.load(sys.stdin))
    except StemlabError as error:
        report = {"error": type(error).__name__, "message": str(error)}
    _write(report)
