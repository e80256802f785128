"""Run one setting and measure it: in this process, or alone in a fresh one."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from weakref import WeakSet

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
from stemlab.sweeps.grading import grade
from stemlab.sweeps.models import ModelSource, make_separator
from stemlab.sweeps.recordings import SweepAudio
from stemlab.sweeps.settings import Measures

__all__ = [
    "Material",
    "Outcome",
    "Task",
    "measure",
    "separate",
    "separate_there",
    "warm_up",
    "work",
]

Progress = Callable[[SegmentDone], None]
Stems = dict[str, AudioArray]


@dataclass(frozen=True)
class Task:
    """One setting to measure. Small: what all settings need is in `Material`."""

    source: ModelSource
    settings: SeparationSettings
    device: str
    batch_size: int
    measures: Measures
    material_key: str = ""
    material_path: Path | None = None

    def portable(self, why: str) -> Task:
        """Give what another process can do; see `ModelSource.portable`."""
        return replace(self, source=self.source.portable(why))

    @property
    def alone(self) -> bool:
        """Whether a fresh process is needed: the CPU's memory is that of the whole process."""
        return self.measures.memory and self.device == "cpu"


@dataclass(frozen=True)
class Material:
    """What the settings of one model share."""

    key: str
    audio: SweepAudio
    long_run: Mapping[str, AudioArray] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it to a file."""
        audio = self.audio
        facts = [self.key, audio.name, audio.sample_rate, audio.start, audio.total]
        arrays = {
            "mixture": audio.mixture,
            **{f"true {name}": each for name, each in audio.references.items()},
            **{f"long {name}": each for name, each in self.long_run.items()},
        }
        np.savez(path, allow_pickle=False, facts=json.dumps(facts), **arrays)

    @classmethod
    def load(cls, path: Path) -> Material:
        """Read it from a file."""
        with np.load(path, allow_pickle=False) as file:
            key, name, rate, start, total = json.loads(str(file["facts"]))
            arrays = {each: file[each] for each in file.files if each != "facts"}
        true, long = (
            {each[5:]: array for each, array in arrays.items() if each.startswith(kind)}
            for kind in ("true ", "long ")
        )
        return cls(key, SweepAudio(name, arrays["mixture"], rate, start, total, true), long)


@dataclass(frozen=True)
class Outcome:
    """What became of a task."""

    figures: dict[str, Any] | None
    stems: Stems = field(default_factory=dict)


@dataclass(frozen=True)
class _Run:
    """Stems, and what they cost."""

    stems: Stems
    wall_seconds: list[float]
    peak_bytes: int | None


# Of the last sweeps that this process worked for.
_MATERIALS: OrderedDict[str, Material] = OrderedDict()
_KEPT_MATERIALS = 2
_WARM: WeakSet[AudioStemSeparator] = WeakSet()


def work(task: Task, material: Material | None) -> Outcome:
    """Do a task in a process that may not have its material yet."""
    found = material or _find_material(task)
    if found is None:
        return Outcome(None)
    _MATERIALS[found.key] = found
    while len(_MATERIALS) > _KEPT_MATERIALS:
        _MATERIALS.popitem(last=False)
    separator = make_separator(task.source, task.device, task.batch_size)
    return measure(task, found, separator)


def _find_material(task: Task) -> Material | None:
    known = _MATERIALS.get(task.material_key)
    if known is not None or task.material_path is None:
        return known
    try:
        found = Material.load(task.material_path)
    except (OSError, ValueError, KeyError):  # Another machine, where there is no such file.
        return None
    return found if found.key == task.material_key else None


def measure(
    task: Task,
    material: Material,
    separator: AudioStemSeparator,
    *,
    progress: Progress | None = None,
) -> Outcome:
    """Run one setting and measure it."""
    audio, settings = material.audio, task.settings
    run = (
        _run_alone(task, audio, progress)
        if task.alone
        else _run_here(task, audio, separator, progress)
    )
    samples = audio_io.resampled_length(
        audio.mixture.shape[1], audio.sample_rate, separator.sample_rate
    )
    figures = grade(
        audio,
        run.stems,
        separator.plan(samples, settings),
        long_run=material.long_run,
        offered=separator.sources,
        bsseval=task.measures.bsseval,
    )
    figures["wall_seconds"] = run.wall_seconds
    figures["peak_memory_bytes"] = run.peak_bytes
    return Outcome(figures, run.stems if task.measures.keep_audio else {})


def separate_there(task: Task, audio: SweepAudio) -> Stems:
    """Separate the excerpt in a process that has no separator yet."""
    return separate(make_separator(task.source, task.device, task.batch_size), audio, task.settings)


def separate(
    separator: AudioStemSeparator,
    audio: SweepAudio,
    settings: SeparationSettings,
    progress: Progress | None = None,
) -> Stems:
    """Separate the excerpt in this process."""
    return separator.separate_audio(
        audio.mixture, audio.sample_rate, progress=progress, **asdict(settings)
    )


def _run_here(
    task: Task, audio: SweepAudio, separator: AudioStemSeparator, progress: Progress | None
) -> _Run:
    device = torch.device(separator.device)
    warm_up(separator, task.settings)
    walls: list[float] = []
    stems: Stems = {}
    reset_peak(device)
    for _ in range(task.measures.repeats):
        started = time.perf_counter()
        stems = separate(separator, audio, task.settings, progress)
        walls.append(time.perf_counter() - started)
    _return_freed_memory()
    return _Run(stems, walls, peak_device_bytes(device) if task.measures.memory else None)


def _return_freed_memory() -> None:
    """Hand what is free to the system: glibc keeps it, in pieces that do not fit the next setting.

    Without this a sweep of a thousand settings grows to its end (``benchmarks/load.py``).
    """
    if sys.platform == "linux":
        with suppress(AttributeError):  # Other C libraries have no such function.
            ctypes.CDLL(None).malloc_trim(0)


def warm_up(separator: AudioStemSeparator, settings: SeparationSettings) -> None:
    """Load and verify the weights, and run the network once: a first call takes longer."""
    if separator not in _WARM:
        second = np.zeros((2, separator.sample_rate), np.float32)
        once = replace(settings, shifts=0, overlap=0.0)
        separator.separate_audio(second, separator.sample_rate, **asdict(once))
        _WARM.add(separator)


def _run_alone(task: Task, audio: SweepAudio, progress: Progress | None) -> _Run:
    """Run a setting in a fresh process, which streams a file to files as `separate_file` does."""
    source = task.source.portable("measuring memory")
    with ScratchFolder() as scratch:
        folder = Path(scratch)
        audio_io.write_file(
            folder / "mixture.wav", [audio.mixture], audio.sample_rate, audio.mixture.shape[0]
        )
        order = {
            "source": {**asdict(source), "network": None},
            "settings": asdict(task.settings),
            "batch_size": task.batch_size,
            "repeats": task.measures.repeats,
            "threads": torch.get_num_threads(),
            "folder": str(folder),
            # A factory of the caller's may lie in the current folder.
            "factory_path": [os.path.abspath(entry) for entry in sys.path],
        }
        report = _talk(order, progress)
        shape = (audio.mixture.shape[1], audio.mixture.shape[0])
        stems = {
            name: np.fromfile(folder / f"{number}.f32", "<f4").reshape(shape).T.astype(np.float32)
            for number, name in enumerate(report["stems"])
        }
    return _Run(stems, report["wall_seconds"], report["peak_memory_bytes"])


def _talk(order: dict[str, Any], progress: Progress | None) -> dict[str, Any]:
    """Start the process, pass its events on and wait for its report."""
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
                if "done" in report and progress is not None:
                    progress(SegmentDone(**report))
            process.wait()
        except BaseException:
            process.kill()
            raise
        if "error" in report:
            kind = getattr(errors, report["error"], SeparationError)
            raise (kind if issubclass(kind, StemlabError) else SeparationError)(report["message"])
        if process.returncode or "wall_seconds" not in report:
            complaints.seek(0)
            said = complaints.read().strip().rpartition("\n")[2]
            if process.returncode == -9:
                raise OutOfMemoryError(
                    "the process of this setting was killed, most likely because memory ran out. "
                    "Choose a shorter segment that is not padded."
                )
            raise SeparationError(
                f"the process of this setting ended with code {process.returncode}: {said}."
            )
    return report
