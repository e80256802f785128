"""The hidden folder of a run that has not finished: who has it, and how far the run has come."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

__all__ = ["Journal", "Mark", "PartialFolder"]

_PREFIX, _SUFFIX = ".stemlab-", ".partial"
# What a power cut may cost; after a killed process nothing is lost.
_SYNC_SECONDS = 10.0
_LOCK_NAME = "lock"


class PartialFolder:
    """A folder that one run at a time has; the system knows when its process has ended.

    Parameters
    ----------
    parent : Path
        There already.
    owner : str or None
        Runs of the same owner get the same folder, with what an earlier one left there; while one
        of them works, and for None, it is a new folder that no other run looks at.

    Raises
    ------
    OSError
        If it cannot be made.
    """

    def __init__(self, parent: Path, owner: str | None) -> None:
        self._lock: IO[bytes] | None = None
        if owner is not None:
            _remove_abandoned(parent, f"{_PREFIX}{owner}-*{_SUFFIX}")
            self.path = parent / f"{_PREFIX}{owner}{_SUFFIX}"
            self.path.mkdir(exist_ok=True)
            self._lock = _lock(self.path)
        if self._lock is None:
            prefix = _PREFIX if owner is None else f"{_PREFIX}{owner}-"
            self.path = Path(tempfile.mkdtemp(prefix=prefix, suffix=_SUFFIX, dir=parent))
            self._lock = _lock(self.path)

    def clear(self, *, keep: Collection[Path] = ()) -> None:
        """Remove what an earlier run left.

        Parameters
        ----------
        keep : collection of Path, optional
            What stays.
        """
        for each in self.path.iterdir():
            if each.name != _LOCK_NAME and each not in keep:
                shutil.rmtree(each) if each.is_dir() else each.unlink()

    def close(self, *, keep: bool) -> None:
        """End the use of the folder.

        Parameters
        ----------
        keep : bool
            Whether what it holds stays, for the next run of the same owner.
        """
        if not keep:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
        if not keep:  # Some systems do not remove a file that is open.
            shutil.rmtree(self.path, ignore_errors=True)


def _lock(folder: Path) -> IO[bytes] | None:
    """Open the lock of a folder, or None while another process or run has it."""
    file = (folder / _LOCK_NAME).open("ab")
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Who had it may just have removed it.
        if os.path.samestat(os.fstat(file.fileno()), os.stat(folder / _LOCK_NAME)):
            return file
    except OSError:
        pass
    file.close()
    return None


def _remove_abandoned(parent: Path, pattern: str) -> None:
    for folder in parent.glob(pattern):
        with suppress(OSError):
            lock = _lock(folder)
            if lock is not None:
                lock.close()
                shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class Mark:
    """Up to where some files are whole.

    Parameters
    ----------
    samples : int
    sha256 : mapping of str to str
        Of the content of each file up to there.
    """

    samples: int
    sha256: Mapping[str, str]


class Journal:
    """How far a run has come: a line for each stretch that is finished, under the run's key.

    Parameters
    ----------
    path : Path
    key : str
        Of the run; what another run wrote is not taken over.
    """

    def __init__(self, path: Path, key: str) -> None:
        self._path = path
        self._key = key
        self._synced = time.monotonic()
        self._file: IO[str] | None = None

    def read(self) -> list[Mark]:
        """Read the marks of an earlier run with this key, in order; none if there is none."""
        try:
            first, *lines = self._path.read_text("utf-8").splitlines()
            if json.loads(first) != {"key": self._key}:
                return []
        except (OSError, ValueError):
            return []
        marks = []
        for line in lines:
            try:
                fields: dict[str, Any] = json.loads(line)
                marks.append(Mark(int(fields["samples"]), dict(fields["sha256"])))
            except (ValueError, KeyError, TypeError):
                break  # The process ended while it wrote this.
        return marks

    def begin(self, marks: list[Mark]) -> None:
        """Write the journal anew, with the marks that hold.

        Parameters
        ----------
        marks : list of Mark
        """
        self._file = self._path.open("w", encoding="utf-8")
        self._file.write(json.dumps({"key": self._key}) + "\n")
        for each in marks:
            self._write(each)
        self._file.flush()

    def add(self, mark: Mark, files: list[IO[bytes]]) -> None:
        """Note that files are whole up to a mark.

        Parameters
        ----------
        mark : Mark
        files : list of file
            Their content is handed to the system before the mark is.
        """
        assert self._file is not None
        sync = time.monotonic() - self._synced > _SYNC_SECONDS
        for each in files:
            each.flush()
            if sync:
                os.fsync(each.fileno())
        self._write(mark)
        self._file.flush()
        if sync:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _write(self, mark: Mark) -> None:
        assert self._file is not None
        line = {"samples": mark.samples, "sha256": dict(mark.sha256)}
        self._file.write(json.dumps(line) + "\n")
