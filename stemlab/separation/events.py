"""What a caller gets from a run: events on the way, blocks, and the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemlab._typing import AudioArray
from stemlab.results import RunManifest


@dataclass(frozen=True)
class SegmentDone:
    """A progress event: one call of the network has ended.

    Parameters
    ----------
    done, total : int
        Segments so far and in all, over every member of a bag and every shift.
    audio_seconds : float
        Audio finished so far.
    remaining_seconds : float
        Estimated time left, from the mean time of a segment so far.
    """

    done: int
    total: int
    audio_seconds: float
    remaining_seconds: float


@dataclass(frozen=True)
class StemBlock:
    """A finished stretch of all stems.

    Parameters
    ----------
    start : int
        Position of its first sample, at the recording's own rate.
    stems : mapping of str to ndarray, each shape (channels, n), float32
        In the recording's own rate and channels.
    """

    start: int
    stems: Mapping[str, AudioArray]


@dataclass(frozen=True)
class SeparationResult:
    """The files of a finished run.

    Parameters
    ----------
    stems : mapping of str to Path
    manifest_path : Path
        Its ``run.json``.
    run : RunManifest
        What that file holds, with attributes; `manifest` gives it as a dictionary.
    was_cached : bool
        Whether an earlier run had made all of it already.
    """

    stems: Mapping[str, Path]
    manifest_path: Path
    run: RunManifest
    was_cached: bool = False

    @property
    def manifest(self) -> dict[str, Any]:
        """What ``run.json`` holds, as `json.load` would give it."""
        return self.run.as_dict()
