"""``run.json``: what is written about a run, and how it is read back."""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import soundfile
import soxr

from stemlab._checks import RATE_RANGE_HZ
from stemlab._typing import StrPath
from stemlab._version import __version__
from stemlab.chunking import ChunkPlan
from stemlab.errors import ParameterError
from stemlab.files import parse_json, read_bounded

__all__ = [
    "MAX_BYTES",
    "SCHEMA",
    "StemRecord",
    "describe_plan",
    "is_digest",
    "package_versions",
    "parse_run",
    "peak_memory_bytes",
    "read_run",
    "run_plans",
    "stem_records",
]

SCHEMA = 2
"""Schema 1 was written by version 0.1: its plans are shorter, and nothing says the threads."""
MAX_BYTES = 16_000_000
_MOST_STEMS = 1000
# 600 hours in segments of 2 s; a plan of more would only keep its reader busy.
_MOST_SEGMENTS = 1_000_000
_VERSIONS_OF = ("torch", "torchaudio", "demucs", "numpy", "soundfile", "soxr", "safetensors", "av")
_NOT_WRITTEN = "Pass the run.json that `stemlab separate` wrote beside the stems."


@dataclass(frozen=True)
class StemRecord:
    """What a manifest says of a stem: its file, as seen from the manifest, two digests, its length.

    Version 0.1 recorded no length.
    """

    file: str
    sha256: str
    samples_sha256: str
    bytes: int | None


def is_digest(value: object) -> bool:
    """Tell whether a value is a SHA-256 in hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def read_run(path: StrPath) -> dict[str, Any]:
    """Read a ``run.json``, or the one in a folder, and check what others rely on.

    Raises ParameterError if there is none, or if it is not one that this version understands.
    """
    file = Path(path) / "run.json" if os.path.isdir(path) else Path(path)
    try:
        return parse_run(read_bounded(file, MAX_BYTES))
    except OSError as error:
        raise ParameterError(
            f"{str(file)!r} cannot be read: {error.strerror}. {_NOT_WRITTEN}"
        ) from error
    except ValueError as error:
        raise ParameterError(
            f"{str(file)!r} is not a run manifest of schema 1 or {SCHEMA}: {error}. {_NOT_WRITTEN}"
        ) from error


def parse_run(content: bytes) -> dict[str, Any]:
    """Parse a manifest; ValueError says what is wrong with it."""
    fields = parse_json(content)
    if fields.get("schema") not in (1, SCHEMA) or isinstance(fields["schema"], bool):
        raise ValueError(f"its schema is {fields.get('schema')!r:.80}")
    song, model = _table(fields, "input"), _table(fields, "model")
    if not (isinstance(song.get("path"), str) and is_digest(song.get("sha256"))):
        raise ValueError("'input' lacks the path or the SHA-256 of the recording")
    if not isinstance(model.get("name"), str) or not isinstance(model.get("request"), str | None):
        raise ValueError("'model' lacks a name, or what was asked for is not a text")
    if not is_digest(model.get("sha256")) or not _is_count(
        model.get("sample_rate"), *RATE_RANGE_HZ
    ):
        raise ValueError("'model' lacks its SHA-256 or its sample rate")
    if not isinstance(_table(fields, "device").get("name"), str):
        raise ValueError("'device' lacks a name")
    _table(fields, "parameters")
    if not isinstance(fields.get("plan"), list) or len(fields["plan"]) > _MOST_STEMS:
        raise ValueError("'plan' is not a list of plans")
    if not stem_records(fields):
        raise ValueError("it names no stems")
    return fields


def stem_records(fields: Mapping[str, Any]) -> dict[str, StemRecord]:
    """Read the stems of a manifest; ValueError says what is wrong with them."""
    stems = _table(fields, "stems")
    if len(stems) > _MOST_STEMS:
        raise ValueError(f"it names {len(stems)} stems")
    records = {}
    for name, facts in stems.items():
        values = [facts.get(key) if isinstance(facts, dict) else None for key in _STEM_FIELDS]
        file, *digests, size = values
        known = size is None or _is_count(size, 1, 2**53)
        if not (isinstance(file, str) and all(map(is_digest, digests)) and known):
            raise ValueError(f"stem {name!r:.80} lacks its file or a SHA-256, or has an odd length")
        records[name] = StemRecord(file, str(digests[0]), str(digests[1]), size)
    return records


# The length of a segment is recorded in samples.
_PLAN_FIELDS = set(ChunkPlan.__dataclass_fields__) - {"segment_seconds"}
_STEM_FIELDS = tuple(StemRecord.__dataclass_fields__)


def run_plans(fields: Mapping[str, Any]) -> tuple[ChunkPlan, ...]:
    """Build the plans of a manifest; ValueError says what is wrong with one of them.

    Those of schema 1 lack what does not move a boundary, and a covered tail is guessed from the
    number of calls.
    """
    try:
        plans = tuple(_plan(fields, plan) for plan in fields["plan"])
        if sum(plan.calls for plan in plans) > _MOST_SEGMENTS:
            raise ValueError(f"its plans have more than {_MOST_SEGMENTS} segments")
        return plans
    except (KeyError, TypeError, ArithmeticError, AssertionError, AttributeError) as error:
        raise ValueError("a plan is incomplete") from error


def _plan(fields: Mapping[str, Any], plan: Mapping[str, Any]) -> ChunkPlan:
    rate = fields["model"]["sample_rate"]
    counts = [plan["samples"], plan["segment_samples"], plan["hop_samples"]]
    if not all(_is_count(count, 1, 2**53) for count in counts):
        raise ValueError("a plan has a length that is not a positive whole number of samples")
    starts = plan["starts"]
    if not 1 <= len(starts) <= _MOST_STEMS or not all(
        _is_count(start, -(2**31), 0) for start in starts
    ):
        raise ValueError("a plan starts somewhere else than at, or before, the first sample")
    if len(starts) * (counts[0] - min(starts)) > _MOST_SEGMENTS * counts[2]:
        raise ValueError(f"a plan has more than {_MOST_SEGMENTS} segments")
    stored = {name: plan[name] for name in ("input_samples", "network_samples") if name in plan}
    skips = plan.get("skip_covered_tail", fields["parameters"].get("skip_covered_tail", False))
    overlap = plan.get("overlap", fields["parameters"].get("overlap"))
    if type(skips) is not bool or not isinstance(overlap, int | float):
        raise ValueError("a plan lacks its overlap, or says neither yes nor no to a covered tail")
    if fields["schema"] == 1 or not all(
        _is_count(count, 1, 2**53) or count is None for count in stored.values()
    ):
        stored = {}
    made = ChunkPlan(
        samples=counts[0],
        sample_rate=rate,
        segment_seconds=Fraction(counts[1], rate),
        overlap=overlap,
        starts=tuple(starts),
        skip_covered_tail=skips,
        name=str(plan.get("name", "")),
        **stored,
    )
    if made.hop_samples != counts[2]:
        raise ValueError("the hop of a plan is not that of its segment and overlap")
    return made


def describe_plan(plan: ChunkPlan) -> dict[str, Any]:
    """Describe a plan so that `run_plans` can build it again, and what follows from it."""
    return {
        **{name: _listed(value) for name, value in asdict(plan).items() if name in _PLAN_FIELDS},
        "segment_samples": plan.segment_samples,
        "hop_samples": plan.hop_samples,
        "calls": plan.calls,
        "overlap_share": round(plan.overlap_share, 4),
        "padding_share": round(plan.padding_share, 4),
    }


def _listed(value: Any) -> Any:
    """Give a value the type that it has once JSON was read."""
    return list(value) if isinstance(value, tuple) else value


def _table(fields: Mapping[str, Any], name: str) -> dict[str, Any]:
    table = fields.get(name)
    if not isinstance(table, dict):
        raise ValueError(f"{name!r} is missing, or not a JSON object")
    return table


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
