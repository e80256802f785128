"""``run.json``: what is written about a run, and how it is read back.

No other module knows its keys.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any, Self, TypeVar

import soundfile
import soxr

from stemlab._checks import RATE_RANGE_HZ
from stemlab._typing import StrPath
from stemlab._version import __version__
from stemlab.chunking import ChunkPlan
from stemlab.errors import ParameterError
from stemlab.files import parse_json, read_bounded

# Schema 1 was written by version 0.1: its plans are shorter, and nothing says the threads.
_SCHEMA = 2
MAX_BYTES = 16_000_000
_MOST_STEMS = 1000
# 600 hours in segments of 2 s; a plan of more would only keep its reader busy.
_MOST_SEGMENTS = 1_000_000
_VERSIONS_OF = ("torch", "torchaudio", "demucs", "numpy", "soundfile", "soxr", "safetensors", "av")
_NOT_WRITTEN = "Pass the run.json that `stemlab separate` wrote beside the stems."
_CONTAINS = (
    "What was asked for, what was done, with which versions, how long it took; digests of the "
    "recording, the model and the stems. No audio. The recording is named by its path from here, "
    "the model as it was typed."
)


@dataclass(frozen=True)
class InputRecord:
    """The recording."""

    path: str  # From the folder of the manifest, so that both can move together.
    sha256: str
    bytes: int
    sample_rate: int
    channels: int
    samples: int
    seconds: float


@dataclass(frozen=True)
class ModelRecord:
    """The model."""

    name: str
    request: str | None  # As it was typed; None for a ready network.
    kind: str
    sha256: str
    weights_sha256: list[str]
    forward: str
    sample_rate: int
    sources: list[str]


@dataclass(frozen=True)
class DeviceRecord:
    """Where the model ran."""

    name: str
    reason: str
    arithmetic: Any


@dataclass(frozen=True)
class StemRecord:
    """One stem."""

    file: str  # From the folder of the manifest.
    bytes: int | None  # Version 0.1 did not record it.
    sha256: str
    samples_sha256: str  # Of the samples before they were encoded.
    peak: float


@dataclass(frozen=True)
class RunCost:
    """What the run took."""

    wall_seconds: float
    rtf: float | None  # None if an earlier run had separated everything.
    peak_memory_bytes: int | None
    peak_memory_of: str
    peak_device_bytes: int | None


_Record = TypeVar("_Record", InputRecord, ModelRecord, DeviceRecord, StemRecord, RunCost)


@dataclass(frozen=True, kw_only=True)
class RunManifest:
    """What a ``run.json`` holds. In one that was read, only what a program relies on is checked."""

    schema: int = _SCHEMA
    contains: str = _CONTAINS
    fingerprint: str  # Runs with equal ones write the same files.
    created: str
    input: InputRecord
    model: ModelRecord
    parameters: Mapping[str, Any]
    device: DeviceRecord
    threads: int
    plan: list[dict[str, Any]]  # Each from `describe_plan`; see `plans`.
    changes: list[str]
    stems: Mapping[str, StemRecord]
    cost: RunCost
    versions: Mapping[str, str]

    @classmethod
    def read(cls, path: StrPath) -> Self:
        """Read a ``run.json``, or the one in a folder.

        Raises ParameterError if there is none, or if it is not one that this version understands.
        """
        file = Path(path) / "run.json" if os.path.isdir(path) else Path(path)
        try:
            return cls.from_json(read_bounded(file, MAX_BYTES))
        except OSError as error:
            raise ParameterError(
                f"{str(file)!r} cannot be read: {error.strerror}. {_NOT_WRITTEN}"
            ) from error
        except ValueError as error:
            raise ParameterError(
                f"{str(file)!r} is not a run manifest of schema 1 or {_SCHEMA}: {error}. "
                f"{_NOT_WRITTEN}"
            ) from error

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """Read the content of a ``run.json``; ValueError says what is wrong with it."""
        fields = parse_json(content)
        if fields.get("schema") not in (1, _SCHEMA) or isinstance(fields["schema"], bool):
            raise ValueError(f"its schema is {fields.get('schema')!r:.80}")
        if not isinstance(fields.get("plan"), list) or len(fields["plan"]) > _MOST_STEMS:
            raise ValueError("'plan' is not a list of plans")
        unchecked: dict[str, Any] = {
            name: fields.get(name) for name in ("fingerprint", "created", "threads")
        }
        return cls(
            schema=fields["schema"],
            input=_input(_table(fields, "input")),
            model=_model(_table(fields, "model")),
            parameters=_table(fields, "parameters"),
            device=_device(_table(fields, "device")),
            plan=fields["plan"],
            changes=fields["changes"] if isinstance(fields.get("changes"), list) else [],
            stems=_stems(_table(fields, "stems")),
            cost=_record(RunCost, fields.get("cost")),
            versions=fields["versions"] if isinstance(fields.get("versions"), dict) else {},
            **unchecked,
        )

    def to_json(self) -> str:
        """Write the content of a ``run.json``."""
        return json.dumps(asdict(self), indent=2) + "\n"

    def as_dict(self) -> dict[str, Any]:
        """Give what ``run.json`` holds, as `json.load` would."""
        fields: dict[str, Any] = json.loads(self.to_json())
        return fields

    def moved(self, input_path: str, files: Mapping[str, str]) -> Self:
        """Describe the same run from another folder."""
        stems = {stem: replace(self.stems[stem], file=file) for stem, file in files.items()}
        return replace(self, input=replace(self.input, path=input_path), stems=stems)

    @property
    def plans(self) -> tuple[ChunkPlan, ...]:
        """The plans of the run; ValueError says what is wrong with one of them.

        Those of schema 1 lack what does not move a boundary.
        """
        try:
            plans = tuple(self._read_plan(plan) for plan in self.plan)
            if sum(plan.calls for plan in plans) > _MOST_SEGMENTS:
                raise ValueError(f"its plans have more than {_MOST_SEGMENTS} segments")
            return plans
        except (KeyError, TypeError, ArithmeticError, AssertionError, AttributeError) as error:
            raise ValueError("a plan is incomplete") from error

    def _read_plan(self, plan: Mapping[str, Any]) -> ChunkPlan:
        rate = self.model.sample_rate
        samples, segment, hop = plan["samples"], plan["segment_samples"], plan["hop_samples"]
        if not all(_is_count(count, 1, 2**53) for count in (samples, segment, hop)):
            raise ValueError("a plan has a length that is not a positive whole number of samples")
        starts = plan["starts"]
        if not 1 <= len(starts) <= _MOST_STEMS or not all(
            _is_count(start, -(2**31), 0) for start in starts
        ):
            raise ValueError("a plan starts somewhere else than at, or before, the first sample")
        if len(starts) * (samples - min(starts)) > _MOST_SEGMENTS * hop:
            raise ValueError(f"a plan has more than {_MOST_SEGMENTS} segments")
        stored = {name: plan[name] for name in ("input_samples", "network_samples") if name in plan}
        skips = plan.get("skip_covered_tail", self.parameters.get("skip_covered_tail", False))
        overlap = plan.get("overlap", self.parameters.get("overlap"))
        if type(skips) is not bool or not isinstance(overlap, int | float):
            raise ValueError("a plan lacks its overlap, or whether it skips a covered tail")
        if self.schema == 1 or not all(
            _is_count(count, 1, 2**53) or count is None for count in stored.values()
        ):
            stored = {}
        made = ChunkPlan(
            samples=samples,
            sample_rate=rate,
            segment_seconds=Fraction(segment, rate),
            overlap=overlap,
            starts=tuple(starts),
            skip_covered_tail=skips,
            name=str(plan.get("name", "")),
            **stored,
        )
        if made.hop_samples != hop:
            raise ValueError("the hop of a plan is not that of its segment and overlap")
        return made

    def circumstances(self) -> dict[str, Any]:
        """What decides how numbers are rounded, as far as it was recorded."""
        found = {
            "device": self.device.name,
            "arithmetic": self.device.arithmetic,
            "threads": self.threads,
            "weights": self.model.weights_sha256,
            "forward": self.model.forward,
            **self.versions,
        }
        return {name: value for name, value in found.items() if value is not None}


def describe_plan(plan: ChunkPlan) -> dict[str, Any]:
    """Describe a plan so that `RunManifest.plans` can build it again, and what follows from it."""
    fields = asdict(plan)
    del fields["segment_seconds"]  # Recorded in samples.
    return {
        **fields,
        "starts": list(plan.starts),
        "notes": list(plan.notes),
        "segment_samples": plan.segment_samples,
        "hop_samples": plan.hop_samples,
        "calls": plan.calls,
        "overlap_share": round(plan.overlap_share, 4),
        "padding_share": round(plan.padding_share, 4),
    }


def is_digest(value: object) -> bool:
    """Tell whether a value is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def _input(table: dict[str, Any]) -> InputRecord:
    if not (isinstance(table.get("path"), str) and is_digest(table.get("sha256"))):
        raise ValueError("'input' lacks the path or the SHA-256 of the recording")
    return _record(InputRecord, table)


def _model(table: dict[str, Any]) -> ModelRecord:
    if not isinstance(table.get("name"), str) or not isinstance(table.get("request"), str | None):
        raise ValueError("'model' lacks a name, or what was asked for is not a text")
    if not is_digest(table.get("sha256")) or not _is_count(
        table.get("sample_rate"), *RATE_RANGE_HZ
    ):
        raise ValueError("'model' lacks its SHA-256 or its sample rate")
    return _record(ModelRecord, table)


def _device(table: dict[str, Any]) -> DeviceRecord:
    if not isinstance(table.get("name"), str):
        raise ValueError("'device' lacks a name")
    return _record(DeviceRecord, table)


def _stems(table: dict[str, Any]) -> dict[str, StemRecord]:
    if not 1 <= len(table) <= _MOST_STEMS:
        raise ValueError(f"it names {len(table)} stems")
    stems = {name: _record(StemRecord, entry) for name, entry in table.items()}
    for name, stem in stems.items():
        has_digests = is_digest(stem.sha256) and is_digest(stem.samples_sha256)
        has_length = stem.bytes is None or _is_count(stem.bytes, 1, 2**53)
        if not (_is_text(stem.file) and has_digests and has_length):
            raise ValueError(f"stem {name!r:.80} lacks its file or a SHA-256, or has an odd length")
    return stems


def _record(kind: type[_Record], table: object) -> _Record:
    """Make a record of what a table holds; None stands for what it lacks."""
    known: dict[str, Any] = table if isinstance(table, dict) else {}
    values: dict[str, Any] = {name: known.get(name) for name in kind.__dataclass_fields__}
    return kind(**values)


def _table(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = fields.get(name)
    if not isinstance(table, dict):
        raise ValueError(f"{name!r} is missing, or not a JSON object")
    return table


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_count(value: object, low: float, high: float) -> bool:
    return type(value) is int and low <= value <= high


def package_versions() -> dict[str, str]:
    """Collect the versions of what the samples of a run depend on, libraries of decoders too."""
    versions = {
        "stemlab": __version__,
        "python": platform.python_version(),
        "libsndfile": soundfile.__libsndfile_version__,
        "libsoxr": soxr.__libsoxr_version__,
    }
    for name in _VERSIONS_OF:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def peak_memory_bytes() -> int | None:
    """Return the highest resident memory of this process so far; None on Windows."""
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":
        # Its getrusage starts a new program with the peak of the one that started it.
        with suppress(OSError, ValueError, StopIteration):
            with open("/proc/self/status", encoding="ascii", errors="replace") as status:
                line = next(line for line in status if line.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
