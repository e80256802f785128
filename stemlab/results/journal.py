"""How far a run has come, written down so that the next run can go on from there."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import BinaryIO

from stemlab.files import WorkFolder
from stemlab.results.manifest import MAX_BYTES, is_digest

_NAME = "journal"
# A power cut may cost as much; after a killed process nothing is lost.
_SYNC_SECONDS = 10.0


@dataclass(frozen=True)
class Mark:
    """Up to where the files of all stems are whole, and their digests up to there."""

    samples: int
    sha256: Mapping[str, str]


class Journal:
    """A line for each stretch that is finished, below the key of the run."""

    def __init__(self, folder: WorkFolder, key: str, marks: Sequence[Mark]) -> None:
        self._synced = time.monotonic()
        self._file = folder.open(_NAME, "x+b")
        self._write({"key": key})
        for mark in marks:
            self._write(asdict(mark))
        self._file.flush()

    def add(self, mark: Mark, files: Sequence[BinaryIO]) -> None:
        """Note that files are whole up to a mark; the system gets their content before it."""
        sync = time.monotonic() - self._synced > _SYNC_SECONDS
        for file in files:
            file.flush()
            if sync:
                os.fsync(file.fileno())
        self._write(asdict(mark))
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def _write(self, line: Mapping[str, object]) -> None:
        self._file.write(json.dumps(line).encode() + b"\n")

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # A full disk was reported already.
            self._file.close()


def read_marks(folder: WorkFolder, key: str, most_samples: int) -> list[Mark]:
    """Read the journal of an earlier run with this key, up to the first line that is not whole."""
    try:
        first, *lines = folder.read(_NAME, MAX_BYTES).decode().splitlines()
        if json.loads(first) != {"key": key}:
            return []
    except (OSError, ValueError, RecursionError):
        return []
    marks: list[Mark] = []
    for line in lines:
        with suppress(ValueError, RecursionError, TypeError, KeyError):
            fields = json.loads(line)
            samples, digests = fields["samples"], dict(fields["sha256"])
            last = marks[-1].samples if marks else 0
            # Anything else is a line that the process was killed at, or that somebody changed.
            if (
                type(samples) is int
                and last < samples <= most_samples
                and all(map(is_digest, digests.values()))
            ):
                marks.append(Mark(samples, digests))
                continue
        break
    return marks
