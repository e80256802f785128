"""Carry out a computation of a sweep: in this process, in one of an executor, or in a fresh one.

A fresh process is needed to measure memory. It runs `obey` on a folder with an order and the
recording, and writes its progress and at the end a report, each a line of JSON, to standard
output, and the stems as raw float32 into the folder.
"""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
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
from stemlab.results import peak_memory_bytes
from stemlab.separation import AudioStemSeparator, SegmentDone, SeparationSettings
from stemlab.sweeps._excerpt import Excerpt
from stemlab.sweeps._models import ModelSource, make_separator
from stemlab.sweeps._records import grade
from stemlab.sweeps.plan import Computation

Stems = dict[str, AudioArray]
# Called with the share of the work that is done, from 0 to 1.
Share = Callable[[float], None]
_SegmentDone = Callable[[SegmentDone], None] | None
_Result = TypeVar("_Result")

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
            return _run_in_own_process(computation, self._excerpt, progress)
        with self._warming:
            if not self._is_warm:
                _warm_up(self._separator, computation.settings)
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
        return _timed(
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


def _timed(
    run: Callable[[_SegmentDone], _Result],
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


def _share_of(progress: Share | None, repeat: int, repeats: int) -> _SegmentDone:
    if progress is None:
        return None
    return lambda event: progress((repeat + event.done / event.total) / repeats)


def _warm_up(separator: AudioStemSeparator, settings: SeparationSettings) -> None:
    """Load and verify the weights, and run the network once: a first call takes longer."""
    second = np.zeros((2, separator.sample_rate), np.float32)
    once = replace(settings, shifts=0, overlap=0.0)
    separator.separate_audio(second, separator.sample_rate, settings=once)


# ---------------------------------------------------------------- in other processes


@dataclass(frozen=True)
class Inputs:
    """What the computations of one model in one run share, as it travels to another process."""

    key: str  # No other run, and no other model, has the same.
    excerpt: Excerpt
    long_run: Stems

    def save(self, path: Path) -> None:
        """Write it to a file, but for what only a table tells."""
        arrays = {f"true {name}": stem for name, stem in self.excerpt.references.items()}
        arrays |= {f"long {name}": stem for name, stem in self.long_run.items()}
        arrays |= {"key": np.array(self.key), "rate": np.array(self.excerpt.sample_rate)}
        np.savez(path, allow_pickle=False, mixture=self.excerpt.mixture, **arrays)

    @classmethod
    def load(cls, path: Path) -> Inputs:
        """Read it from a file."""
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file.items())
        true, long_run = (
            {name[5:]: stem for name, stem in arrays.items() if name.startswith(kind)}
            for kind in ("true ", "long ")
        )
        excerpt = Excerpt("", arrays["mixture"], int(arrays["rate"]), 0, 0, true)
        return cls(str(arrays["key"]), excerpt, long_run)


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


# ---------------------------------------------------------------- in a fresh process


def _run_in_own_process(
    computation: Computation, excerpt: Excerpt, progress: Share | None
) -> tuple[Stems, dict[str, Any]]:
    """Have a fresh process stream a file to files, as `separate_file` does."""
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
            # A factory of the caller's may lie in the current folder.
            "factory_path": [os.path.abspath(entry) for entry in sys.path],
        }
        (folder / "order.json").write_text(json.dumps(order), "utf-8")
        report = _talk(folder, progress)
        stems = {
            name: np.fromfile(folder / f"{number}.f32", "<f4")
            .reshape(samples, channels)
            .T.astype(np.float32)
            for number, name in enumerate(report.pop("stems"))
        }
    return stems, report


def _talk(folder: Path, progress: Share | None) -> dict[str, Any]:
    """Start the process, pass its progress on and wait for its report."""
    report: dict[str, Any] = {}
    code = "import sys; from stemlab.sweeps._measure import obey; obey(sys.argv[1])"
    complaints = folder / "complaints.txt"
    with (
        complaints.open("wb") as file,
        subprocess.Popen(
            **child("-c", code, str(folder), path=sys.path),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=file,
            text=True,
            encoding="utf-8",
        ) as process,
    ):
        assert process.stdout is not None
        try:
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
    if process.returncode == -9:
        raise OutOfMemoryError(
            "the process of this setting was killed, most likely because memory ran out. Choose a "
            "shorter segment that is not padded."
        )
    if process.returncode or "wall_seconds" not in report:
        said = complaints.read_text("utf-8", "replace").strip().rpartition("\n")[2]
        raise SeparationError(
            f"the process of this setting ended with code {process.returncode}: {said}."
        )
    return report


def obey(folder: str) -> None:
    """Carry out the order in a folder."""

    def tell(facts: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(facts) + "\n")
        sys.stdout.flush()

    order = json.loads((Path(folder) / "order.json").read_text("utf-8"))
    torch.set_num_threads(order["threads"])
    model, settings = ModelSource(**order["model"]), SeparationSettings(**order["settings"])
    if model.factory is not None:
        # At the end: nothing there can stand in for an installed module.
        sys.path += order["factory_path"]
    try:
        separator = make_separator(model, "cpu", order["batch_size"])
        _warm_up(separator, settings)
        stems, costs = _timed(
            lambda segment_done: _stream(separator, settings, Path(folder), segment_done),
            order["repeats"],
            peak_memory_bytes,
            lambda share: tell({"share": share}),
        )
        report = {**costs, "stems": stems}
    except StemlabError as error:
        report = {"error": type(error).__name__, "message": str(error)}
    tell(report)


def _stream(
    separator: AudioStemSeparator,
    settings: SeparationSettings,
    folder: Path,
    progress: _SegmentDone,
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
