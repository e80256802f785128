"""The grid of a sweep: which settings it tries, and what it measures of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stemlab._checks import check_count
from stemlab.chunking import ChunkPlan
from stemlab.errors import ParameterError
from stemlab.networks.identity import digest_of
from stemlab.networks.spec import ModelSpec
from stemlab.separation import SeparationSettings

__all__ = [
    "Measures",
    "SweepGrid",
    "SweepSetting",
    "computation_of",
    "long_context_settings",
    "settings_of",
]

# Of the long-context run. It computes every sample four times in each pass.
_LONG_OVERLAP, _LONG_SHIFTS = 0.75, 2


@dataclass(frozen=True)
class SweepSetting:
    """One setting of a sweep, named as in the columns of its table."""

    model: str
    segment_seconds: float
    overlap: float
    shifts: int
    padded: bool

    @classmethod
    def of_row(cls, row: Mapping[Any, Any]) -> SweepSetting:
        """Read the setting from a row of the table."""
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
    """Values to try: every combination is a setting."""

    segments: Sequence[float] | None = None  # In seconds. None: the model's own, 1/2 and 1/4 of it.
    overlaps: Sequence[float] = (0.0, 0.1, 0.25, 0.5)
    shifts: Sequence[int] = (0,)
    padded: Sequence[bool] | None = None  # None: as the model was trained.
    seed: int = 0

    def __post_init__(self) -> None:
        # `SeparationSettings` checks the values and makes them plain numbers, which JSON can hold.
        self._set("seed", SeparationSettings(seed=self.seed).seed)
        if self.segments is not None:
            segments = _distinct("segments", self.segments)
            self._set(
                "segments",
                [SeparationSettings(segment_seconds=value).segment_seconds for value in segments],
            )
        overlaps, shifts = _distinct("overlaps", self.overlaps), _distinct("shifts", self.shifts)
        self._set("overlaps", [SeparationSettings(overlap=value).overlap for value in overlaps])
        self._set("shifts", [SeparationSettings(shifts=value).shifts for value in shifts])
        if self.padded is not None:
            padded = _distinct("padded", self.padded)
            for value in padded:
                if not isinstance(value, (bool, np.bool_)):
                    raise ParameterError(f"padded={value!r} is neither True nor False.")
            self._set("padded", [bool(value) for value in padded])

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)


@dataclass(frozen=True)
class Measures:
    """What is measured of each setting besides its time."""

    memory: bool = False
    repeats: int = 1
    agreement: bool = True
    bsseval: bool = False
    keep_audio: bool = False

    def __post_init__(self) -> None:
        for name in ("memory", "agreement", "bsseval", "keep_audio"):
            object.__setattr__(self, name, bool(getattr(self, name)))
        object.__setattr__(self, "repeats", check_count("repeats", self.repeats, 1, 100))


def settings_of(
    grid: SweepGrid, model: str, spec: ModelSpec, common: SeparationSettings, *, pads: bool
) -> dict[SweepSetting, SeparationSettings]:
    """Combine the values of a grid for one model; `common` holds what all settings share."""
    own = spec.segment_seconds
    settings = {}
    for segment, overlap, shifts, padded in itertools.product(
        (own, own / 2, own / 4) if grid.segments is None else grid.segments,
        grid.overlaps,
        grid.shifts,
        (pads,) if grid.padded is None else grid.padded,
    ):
        setting = SweepSetting(model, float(segment), overlap, shifts, spec.pads and padded)
        # Networks of different segments run with their own where the mean of them is asked for.
        has_own_segments = spec.segments_differ and segment == own
        settings[setting] = replace(
            common,
            segment_seconds=None if has_own_segments else setting.segment_seconds,
            overlap=overlap,
            shifts=shifts,
            seed=grid.seed,
            pad_to_training_segment=padded,
        )
    return settings


def long_context_settings(
    grid: SweepGrid, spec: ModelSpec, common: SeparationSettings
) -> SeparationSettings:
    """Choose the settings of the run that all others are compared with."""
    longest: float | None = None
    if all(member.max_segment_seconds is None for member in spec.members):
        own = spec.segment_seconds
        longest = max([own, *(grid.segments or ())])
        longest = None if longest == own else longest
    return replace(
        common,
        segment_seconds=longest,
        overlap=_LONG_OVERLAP,
        shifts=_LONG_SHIFTS,
        seed=grid.seed + 1,
        pad_to_training_segment=True,
    )


def computation_of(plans: Sequence[ChunkPlan]) -> str:
    """Return a digest of what plans compute; settings with the same digest give the same stems."""
    return digest_of([_facts(plan) for plan in plans])


def _facts(plan: ChunkPlan) -> dict[str, Any]:
    computed = plan.network_samples or plan.input_samples
    facts: dict[str, Any] = {"network": plan.name, "starts": plan.starts, "samples": plan.samples}
    if plan.skip_covered_tail:
        facts["skip_covered_tail"] = True
    if plan.calls == len(plan.starts):
        # One chunk holds the whole recording: its weights divide out, and nothing overlaps.
        chunks = [next(plan.chunks(start)) for start in plan.starts]
        inputs = [(chunk.input_start, chunk.input_stop) for chunk in chunks]
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
