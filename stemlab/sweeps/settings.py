"""What a sweep goes through and what it measures, checked before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from stemlab._checks import check_count
from stemlab.chunking import ChunkPlan
from stemlab.errors import ParameterError
from stemlab.networks.identity import digest_of
from stemlab.separation import AudioStemSeparator, SeparationSettings

__all__ = [
    "Measures",
    "SweepGrid",
    "SweepSetting",
    "computation_of",
    "long_context_settings",
    "settings_of",
]

# Of the run that all others are compared with: it computes every sample four times in each pass.
_LONG_OVERLAP, _LONG_SHIFTS = 0.75, 2


@dataclass(frozen=True)
class SweepSetting:
    """One setting of a sweep, as the columns of its table name it."""

    model: str
    segment_seconds: float
    overlap: float
    shifts: int
    padded: bool

    @classmethod
    def of_row(cls, row: Mapping[Any, Any]) -> SweepSetting:
        """Take the setting of a row of the table."""
        return cls(
            str(row["model"]),
            float(row["segment_seconds"]),
            float(row["overlap"]),
            int(row["shifts"]),
            bool(row["padded"]),
        )

    def __str__(self) -> str:
        return (
            f"{self.model}, segment {self.segment_seconds:g} s, overlap {self.overlap:g}, "
            f"shifts {self.shifts}, {'padded' if self.padded else 'not padded'}"
        )


@dataclass(frozen=True)
class SweepGrid:
    """The values to go through: every combination is a setting."""

    segments: Sequence[float] | None = None
    overlaps: Sequence[float] = (0.0, 0.1, 0.25, 0.5)
    shifts: Sequence[int] = (0,)
    padded: Sequence[bool] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("segments", "overlaps", "shifts", "padded"):
            values = getattr(self, name)
            if values is None and name in ("segments", "padded"):
                continue
            object.__setattr__(self, name, _distinct(name, values))
        # The values themselves are checked by what uses them.
        for segment in self.segments or (None,):
            SeparationSettings(segment_seconds=segment, seed=self.seed)
        for overlap in self.overlaps:
            SeparationSettings(overlap=overlap)
        for shifts in self.shifts:
            SeparationSettings(shifts=shifts)
        for padded in self.padded or ():
            if not isinstance(padded, bool):
                raise ParameterError(f"padded={padded!r} is neither True nor False.")


@dataclass(frozen=True)
class Measures:
    """What is measured of each setting besides its time."""

    memory: bool = False
    repeats: int = 1
    agreement: bool = True
    bsseval: bool = False
    keep_audio: bool = False

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.name != "repeats":
                object.__setattr__(self, each.name, bool(getattr(self, each.name)))
        object.__setattr__(self, "repeats", check_count("repeats", self.repeats, 1, 100))


def settings_of(
    grid: SweepGrid,
    separator: AudioStemSeparator,
    model: str,
    sources: Sequence[str] | None,
    *,
    pads_by_default: bool,
) -> dict[SweepSetting, SeparationSettings]:
    """Combine the values of a grid for one model."""
    spec = separator.spec
    own = spec.segment_seconds
    found = {}
    for segment, overlap, shifts, padded in itertools.product(
        (own, own / 2, own / 4) if grid.segments is None else grid.segments,
        grid.overlaps,
        grid.shifts,
        (pads_by_default,) if grid.padded is None else grid.padded,
    ):
        pads = spec.pads and padded
        setting = SweepSetting(model, float(segment), float(overlap), int(shifts), pads)
        found[setting] = SeparationSettings(
            segment_seconds=None
            if spec.segments_differ and segment == own
            else setting.segment_seconds,
            overlap=setting.overlap,
            shifts=setting.shifts,
            seed=grid.seed,
            sources=sources,
            pad_to_training_segment=padded,
        )
    return found


def long_context_settings(
    grid: SweepGrid, separator: AudioStemSeparator, sources: Sequence[str] | None
) -> SeparationSettings:
    """Choose the settings of the run that the others are compared with."""
    longest: float | None = None
    if all(each.max_segment_seconds is None for each in separator.spec.members):
        own = separator.spec.segment_seconds
        longest = max([own, *(grid.segments or ())])
        longest = None if longest == own else longest
    return SeparationSettings(
        segment_seconds=longest,
        overlap=_LONG_OVERLAP,
        shifts=_LONG_SHIFTS,
        seed=grid.seed + 1,
        sources=sources,
    )


def computation_of(plans: Sequence[ChunkPlan]) -> str:
    """Digest of what plans compute: equal for settings that come to the same."""
    return digest_of([_computation(each) for each in plans])


def _computation(plan: ChunkPlan) -> dict[str, Any]:
    computed = plan.network_samples or plan.input_samples
    facts: dict[str, Any] = {"network": plan.name, "starts": plan.starts, "samples": plan.samples}
    if plan.calls == len(plan.starts):
        # One chunk holds the whole recording: its weights divide out, and nothing overlaps.
        chunks = [next(plan.chunks(start)) for start in plan.starts]
        inputs = [(each.input_start, each.input_stop) for each in chunks]
        lengths = [max(stop - start, plan.network_samples or 0) for start, stop in inputs]
        return {**facts, "inputs": inputs, "computed": lengths}
    return {
        **facts,
        "segment": plan.segment_samples,
        "hop": plan.hop_samples,
        "input": plan.input_samples,
        # Zeros are only added to what is shorter.
        "computed": computed,
    }


def _distinct(name: str, values: object) -> tuple[Any, ...]:
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise ParameterError(f"{name}={values!r} is not a list. Pass for instance [{values!r}].")
    found = tuple(values)
    if not found:
        raise ParameterError(f"{name} is empty. Pass at least one value, or leave it out.")
    try:
        repeated = len(set(found)) < len(found)
    except TypeError:
        repeated = False
    if repeated:
        raise ParameterError(f"{name}={list(found)!r} names a value twice. Pass each once.")
    return found
