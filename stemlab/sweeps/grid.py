"""The grid of a sweep: which settings it tries, and what it measures of each."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stemlab._checks import check_count
from stemlab.chunking import check_segment_seconds
from stemlab.errors import ParameterError
from stemlab.networks.spec import ModelSpec
from stemlab.separation import SeparationSettings

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


def _flag(value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise ParameterError(f"padded={value!r} is neither True nor False.")
    return bool(value)


# Check a value of each list, and make it a plain one, which JSON can hold.
_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "segments": lambda seconds: float(check_segment_seconds(seconds)),
    "overlaps": lambda overlap: SeparationSettings(overlap=overlap).overlap,
    "shifts": lambda shifts: SeparationSettings(shifts=shifts).shifts,
    "padded": _flag,
}


@dataclass(frozen=True)
class SweepGrid:
    """Values to try: every combination is a setting."""

    segments: Sequence[float] | None = None  # In seconds. None: the model's own, 1/2 and 1/4 of it.
    overlaps: Sequence[float] = (0.0, 0.1, 0.25, 0.5)
    shifts: Sequence[int] = (0,)
    padded: Sequence[bool] | None = None  # None: as the model was trained.
    seed: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", SeparationSettings(seed=self.seed).seed)
        for name, check in _CHECKS.items():
            values = getattr(self, name)
            if values is not None or name in ("overlaps", "shifts"):
                checked = tuple(map(check, _distinct(name, values)))
                object.__setattr__(self, name, checked)


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
    longest = None
    if all(member.max_segment_seconds is None for member in spec.members):
        longer = [asked for asked in grid.segments or () if asked > spec.segment_seconds]
        longest = max(longer, default=None)
    return replace(
        common,
        segment_seconds=longest,
        overlap=_LONG_OVERLAP,
        shifts=_LONG_SHIFTS,
        seed=grid.seed + 1,
        pad_to_training_segment=True,
    )


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
