"""Folders of one process: locked while it lives, found by the next one when it was killed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import filelock

from stemlab.files.folder import Folder, belongs_to_user
from stemlab.files.whole import HIDDEN_PREFIX, HIDDEN_SUFFIX

_SCRATCH_PREFIX = "stemlab-scratch-"
_LOCK_NAME = "lock"
# Names of files in working folders. A folder that holds anything else is left alone, as
# is one whose record of moves says that a run was killed while it replaced a result.
_WORK_NAMES = re.compile(
    r"(?!moves)(lock|journal|earlier-\d+|[^/\\]+\.(f32|wav|flac|mp3|ogg|json|safetensors|upload))"
)
_TRIES = 3


def _is_private(facts: os.stat_result) -> bool:
    """Tell whether a folder is this user's and not everybody can change what it holds."""
    return belongs_to_user(facts) and not (os.name == "posix" and facts.st_mode & stat.S_IWOTH)


def lock_file(folder: Folder, name: str = _LOCK_NAME, *, make: bool = False) -> BinaryIO | None:
    """Open and lock a regular file of this user's without waiting; None while another has it.

    Closing it releases the lock. Raises OSError, also where the file system has no locks.
    """
    file = folder.open_own(name, make=make)
    try:
        if filelock.lock_descriptor(file.fileno(), blocking=False):
            return file
    except BaseException:
        file.close()
        raise
    file.close()
    return None


class WorkFolder(Folder):
    """A new hidden folder for one process; once that has ended, `abandoned_folders` finds it.

    `owner` says what the work is of and is part of the name. Nobody else may look into it.
    """

    def __init__(self, parent: Path, owner: str) -> None:
        self._parent = Folder(parent)
        self._handle, self._lock = None, None

        def make() -> None:
            Folder.close(self)
            name = f"{HIDDEN_PREFIX}{owner}-{secrets.token_hex(4)}{HIDDEN_SUFFIX}"
            os.mkdir(self._parent._at(name), 0o700, dir_fd=self._parent._handle)
            Folder.__init__(self, parent / name, inside=self._parent)
            self._lock = _claim(self)

        try:
            _try_again(make)
        except BaseException:
            self._leave()
            raise

    @classmethod
    def _found(cls, parent: Path, name: str) -> WorkFolder | None:
        """Take over a folder whose process has ended; None if it is not ours or still in use."""
        folder = cls.__new__(cls)
        folder._parent = Folder(parent)
        folder._handle, folder._lock = None, None
        try:
            facts = folder._parent.stat(name)
            if facts and stat.S_ISDIR(facts.st_mode) and _is_private(facts):
                Folder.__init__(folder, parent / name, inside=folder._parent)
                folder._lock = lock_file(folder)
        except FileNotFoundError:  # Killed before it was locked.
            with suppress(OSError):
                folder._parent.remove_folder(name)
        except OSError:
            pass
        if folder._lock is None:
            folder._leave()
            return None
        return folder

    def close(self, *, keep: bool = False) -> None:
        """End the use of the folder, and remove it if it holds nothing but files of stemlab's."""
        removable = not keep and all(
            _WORK_NAMES.fullmatch(name) and self.owns(name) for name in self.names()
        )
        if removable:
            # The lock goes last: while it is there, nobody else takes the folder over.
            for name in sorted(self.names(), key=_LOCK_NAME.__eq__):
                if sys.platform == "win32" and name == _LOCK_NAME and self._lock is not None:
                    self._lock.close()
                with suppress(OSError):
                    self.remove(name)
            with suppress(OSError):
                self._parent.remove_folder(self.path.name)
        self._leave()

    def _leave(self) -> None:
        if self._lock is not None:
            self._lock.close()
        Folder.close(self)
        self._parent.close()


def abandoned_folders(parent: Path, owner: str) -> Iterator[WorkFolder]:
    """Take over the working folders of an owner whose processes have ended, one after the other.

    The caller closes each. Folders of other users, links and folders in use are passed over.
    """
    try:
        with Folder(parent) as folder:
            names = folder.names()
    except OSError:
        return
    starts = (f"{HIDDEN_PREFIX}{owner}-", f"{HIDDEN_PREFIX}{owner}.")
    for name in names:
        if name.startswith(starts) and name.endswith(HIDDEN_SUFFIX):
            found = WorkFolder._found(parent, name)
            if found is not None:
                yield found


class ScratchFolder(tempfile.TemporaryDirectory[str]):
    """A temporary folder that goes even where its process is killed: the next one removes it."""

    def __init__(self) -> None:
        _remove_abandoned_scratch()
        self._lock: BinaryIO | None = None

        def make() -> None:
            super(ScratchFolder, self).__init__(prefix=_SCRATCH_PREFIX, ignore_cleanup_errors=True)
            with Folder(Path(self.name)) as folder:
                self._lock = _claim(folder)

        _try_again(make)

    def cleanup(self) -> None:
        """Remove it."""
        if self._lock is not None:
            self._lock.close()
        super().cleanup()


def _try_again(make: Callable[[], None]) -> None:
    """Make a folder and lock it; a concurrent cleanup may delete it in between."""
    for _ in range(_TRIES - 1):
        with suppress(FileNotFoundError):
            return make()
    return make()


def _claim(folder: Folder) -> BinaryIO | None:
    """Lock a new folder; None where the file system has no locks."""
    try:
        lock = lock_file(folder, make=True)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    if lock is None or folder.stat(_LOCK_NAME) is None:
        if lock is not None:
            lock.close()
        raise FileNotFoundError(errno.ENOENT, "it was taken for abandoned", str(folder.path))
    return lock


def _remove_abandoned_scratch() -> None:
    parent = Path(tempfile.gettempdir())
    for path in parent.glob(f"{_SCRATCH_PREFIX}*"):
        with suppress(OSError):
            facts = path.lstat()
            # Anybody may have put something of that name into a folder that all share.
            if not (stat.S_ISDIR(facts.st_mode) and belongs_to_user(facts)):
                continue
            with Folder(path) as folder:
                lock = lock_file(folder)
            if lock is not None:
                lock.close()
                shutil.rmtree(path, ignore_errors=True)
