"""Folders that belong to one process while it lives: who has one, and how far its run has come.

Also how files leave them: all together, or not at all. What a killed process has left is found by
its lock, which the system gives back: no clock is asked, and no number of a process.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from stemlab.errors import OutputError

__all__ = [
    "Journal",
    "Mark",
    "PartialFolder",
    "ScratchFolder",
    "move_together",
    "remove_unfinished",
    "undo_unfinished",
]

_PREFIX, _SUFFIX = ".stemlab-", ".partial"
_SCRATCH_PREFIX = "stemlab-scratch-"
# What a power cut may cost; after a killed process nothing is lost.
_SYNC_SECONDS = 10.0
_LOCK_NAME = "lock"
# Who clears away may take a new folder for an abandoned one: then another is made.
_TRIES = 3
_MOVES_NAME = "moves.json"


class PartialFolder:
    """A folder that one run at a time has; the system knows when its process has ended.

    Parameters
    ----------
    parent : Path
        There already.
    owner : str or None
        Runs of the same owner get the same folder, with what an earlier one left there; while one
        of them works, and for None, it is a new folder that no other run looks at.
    inherits : bool, default True
        Whether a run wants what an earlier one left. Otherwise its folder is new, and what runs of
        this owner that were killed have left is removed.

    Raises
    ------
    OutputError
        If moves of an earlier run cannot be undone; see `undo_unfinished`.
    OSError
        If it cannot be made.
    """

    def __init__(self, parent: Path, owner: str | None, *, inherits: bool = True) -> None:
        lock = None
        if owner is not None:
            undo_unfinished(parent, owner)
            _remove_abandoned(parent, f"{_PREFIX}{owner}-*{_SUFFIX}")
            if inherits:
                self.path = parent / f"{_PREFIX}{owner}{_SUFFIX}"
                self.path.mkdir(exist_ok=True)
                lock = _lock(self.path)
        self._inheritable = lock is not None
        if lock is None:
            prefix = _PREFIX if owner is None else f"{_PREFIX}{owner}-"
            self.path, lock = _new_folder(
                lambda: tempfile.mkdtemp(prefix=prefix, suffix=_SUFFIX, dir=parent)
            )
        self._lock = lock

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
            Whether what it holds stays, for the next run of the same owner. Of two runs at once
            only the first one's does.
        """
        # Where moves could not be undone, it holds files of an earlier result.
        keep = (keep and self._inheritable) or (self.path / _MOVES_NAME).exists()
        if not keep:
            shutil.rmtree(self.path, ignore_errors=True)
        if self._lock is not None:
            self._lock.close()
        if not keep:  # Some systems do not remove a file that is open.
            shutil.rmtree(self.path, ignore_errors=True)


class ScratchFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder that goes even where its process is killed: the next one removes it.

    Raises
    ------
    OSError
        If it cannot be made.
    """

    def __init__(self) -> None:
        self.name = ""
        _remove_abandoned(Path(tempfile.gettempdir()), f"{_SCRATCH_PREFIX}*")
        _, self._lock = _new_folder(self._make)

    def _make(self) -> str:
        if self.name:
            super().cleanup()
        super().__init__(prefix=_SCRATCH_PREFIX, ignore_cleanup_errors=True)
        return self.name

    def cleanup(self) -> None:
        """Remove it."""
        if self._lock is not None:
            self._lock.close()
        super().cleanup()


def _new_folder(make: Callable[[], str]) -> tuple[Path, IO[bytes] | None]:
    """Make a folder and lock it; without a lock where the file system has none."""
    for _ in range(_TRIES):
        folder = Path(make())
        lock = _lock(folder)
        if lock is not None:
            return folder, lock
        shutil.rmtree(folder, ignore_errors=True)
    return Path(make()), None


def _lock(folder: Path) -> IO[bytes] | None:
    """Open the lock of a folder; None while another process or run has it, or has removed it."""
    try:
        file = (folder / _LOCK_NAME).open("ab")
    except FileNotFoundError:
        return None
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
            # Anybody may have put something of that name into a folder that all share.
            if hasattr(os, "getuid") and folder.lstat().st_uid != os.getuid():
                continue
            lock = _lock(folder)
            if lock is not None:
                lock.close()
                shutil.rmtree(folder, ignore_errors=True)


def move_together(
    folder: Path, moves: Sequence[tuple[Path, Path]], replaced: Collection[Path]
) -> None:
    """Move files out of a working folder, all or none, even where the process is killed.

    Parameters
    ----------
    folder : Path
    moves : sequence of (Path, Path)
        A file in the folder, and its final name.
    replaced : collection of Path
        The final names that are taken and may be; those files stay in the folder.

    Raises
    ------
    OSError
        If a file cannot be moved, or another name is taken. Nothing has changed then.
    """
    earlier = {
        final: folder / f"earlier-{number}"
        for number, (_, final) in enumerate(moves)
        if final in replaced
    }
    notes = [
        {
            "draft": draft.name,
            "final": os.path.abspath(final),
            "earlier": earlier[final].name if final in earlier else None,
        }
        for draft, final in moves
    ]
    with (folder / _MOVES_NAME).open("w", encoding="utf-8") as file:
        json.dump(notes, file)
        file.flush()
        os.fsync(file.fileno())
    try:
        for draft, final in moves:
            if final in earlier:
                os.replace(final, earlier[final])
            final.open("xb").close()  # Claims the name, unless somebody else took it.
            os.replace(draft, final)
    except BaseException:
        _undo_moves(folder)
        raise
    (folder / _MOVES_NAME).unlink()


def _undo_moves(folder: Path) -> None:
    """Bring back what was there before moves that did not all happen."""
    try:
        notes: list[dict[str, Any]] = json.loads((folder / _MOVES_NAME).read_bytes())
    except (OSError, ValueError):
        return  # None were begun.
    for note in reversed(notes):
        final = Path(note["final"])
        if note["earlier"] is not None:
            earlier = folder / note["earlier"]
            if earlier.exists():
                os.replace(earlier, final)
        # A name that somebody else took is not touched: ours is the file, or empty yet.
        elif not (folder / note["draft"]).exists() or _is_empty(final):
            final.unlink(missing_ok=True)
    (folder / _MOVES_NAME).unlink()


def _is_empty(file: Path) -> bool:
    return file.exists() and file.stat().st_size == 0


def undo_unfinished(parent: Path, owner: str) -> None:
    """Undo moves of a run that was killed while it moved its files.

    Parameters
    ----------
    parent : Path
    owner : str
        As of its `PartialFolder`; one that still works is left alone.

    Raises
    ------
    OutputError
        If they cannot be undone. Nothing is lost then: it can be tried again.
    """
    if not os.path.isdir(parent):  # Or it may not be looked at.
        return
    for folder in parent.glob(f"{_PREFIX}{owner}*{_SUFFIX}"):
        if not (folder / _MOVES_NAME).exists():
            continue
        try:
            lock = _lock(folder)
            if lock is not None:
                with lock:
                    _undo_moves(folder)
        except OSError as error:
            raise OutputError(
                f"an earlier run was cut off in {str(parent)!r} while its files got their names, "
                f"and what was there before cannot be put back: {error.strerror or error}. It is "
                f"in {str(folder)!r}. Check the permissions of both and try again.",
                folder,
            ) from error


def remove_unfinished(parent: Path, owner: str) -> None:
    """Remove what runs that were cut off have left and nobody will go on with.

    Parameters
    ----------
    parent : Path
    owner : str
        As of their `PartialFolder`; one that still works is left alone. Their moves were undone
        before.
    """
    _remove_abandoned(parent, f"{_PREFIX}{owner}*{_SUFFIX}")


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
