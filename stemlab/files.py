"""How stemlab reads and writes files: whole or not at all, and never through somebody's link.

A folder that the user names may be a link and belong to anybody. Below it, links are not followed,
and only what this user owns is replaced or removed. `Folder` keeps a folder open, so that nothing
can be put in its place while it is used. A `WorkFolder` belongs to one process while it lives: the
system releases its lock when the process ends, however it ends.
"""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO, Literal

import filelock
import platformdirs

from stemlab.errors import OutputError

__all__ = [
    "Folder",
    "ScratchFolder",
    "WorkFolder",
    "abandoned_folders",
    "atomic_file",
    "cache_dir",
    "check_writable",
    "lock_file",
    "nearest_existing",
    "parse_json",
    "read_bounded",
    "strict_json",
    "write_atomically",
]

_PREFIX, _SUFFIX = ".stemlab-", ".partial"
_SCRATCH_PREFIX = "stemlab-scratch-"
_LOCK_NAME = "lock"
# Names of files in working folders. A folder that holds anything else is left alone, as
# is one whose record of moves says that a run was killed while it replaced a result.
_WORK_NAMES = re.compile(
    r"(?!moves)(lock|journal|earlier-\d+|[^/\\]+\.(f32|wav|flac|mp3|ogg|json|safetensors|upload))"
)
_TRIES = 3
_BLOCK_BYTES = 1 << 20
# Some systems have no handles of folders; there, names are looked up anew each time.
_HANDLES = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def cache_dir() -> Path:
    """Return ``$STEMLAB_CACHE``, or the platform's folder for data that can be made again."""
    configured = os.environ.get("STEMLAB_CACHE")
    if configured:
        return Path(os.path.abspath(os.path.expanduser(configured)))
    return platformdirs.user_cache_path("stemlab", appauthor=False)


def nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest folder around it that exists and may be looked at."""
    # Not Path.exists, which raises where one may not look, or a name is too long.
    return next(place for place in (path, *path.absolute().parents) if os.path.exists(place))


def check_writable(file: Path, advice: str) -> None:
    """Refuse a file that cannot be written there, before anything is computed for it."""
    try:
        os.stat(file)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise OutputError(
            f"{str(file)!r} cannot be written: {error.strerror}. {advice}", file
        ) from error
    if os.path.isdir(file):
        raise OutputError(f"{str(file)!r} is a folder. {advice}", file)
    existing = nearest_existing(file.parent)
    if not os.path.isdir(existing):
        raise OutputError(f"{str(existing)!r} is not a folder. {advice}", existing)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise OutputError(
            f"{str(existing)!r} cannot be written to. Check its permissions. {advice}", existing
        )


# ---------------------------------------------------------------- reading


def read_bounded(path: Path, at_most: int, *, follow_links: bool = True) -> bytes:
    """Read a regular file of at most so many bytes; OSError says what is wrong with another one.

    Links are followed where a person named the file, not where a folder from elsewhere did.
    """
    if not follow_links:
        _refuse_link(path)
    with os.fdopen(os.open(path, _READ | (0 if follow_links else _NO_LINK)), "rb") as file:
        return _read_at_most(file, at_most, path)


def _read_at_most(file: BinaryIO, at_most: int, path: Path) -> bytes:
    size = _check_regular(file.fileno(), path).st_size
    # As much is set aside as is asked for. One byte more, in case the file grows while it is read.
    content = b"" if size > at_most else file.read(size + 1)
    if max(size, len(content)) > at_most:
        raise OSError(errno.EFBIG, f"it is longer than {at_most} bytes", str(path))
    return content


def parse_json(content: str | bytes) -> dict[str, Any]:
    """Parse a JSON object; ValueError says what is wrong with anything else."""
    fields = strict_json(content)
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")
    return fields


def strict_json(content: str | bytes) -> Any:
    """Parse JSON as its standard has it: without NaN and infinity, and not endlessly deep."""
    try:
        return json.loads(content, parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text:.40} is beyond every number")
    return value


def _check_regular(descriptor: int, path: object) -> os.stat_result:
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return facts


def _refuse_link(path: Path) -> None:
    """Refuse a link where the system has no flag for it; elsewhere give a better message."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link", str(path))


# ---------------------------------------------------------------- writing


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears under its name when it is whole, and then replaces an earlier one.

    Its folder exists. Raises OSError; the earlier file is then as it was.
    """
    draft = path.parent / f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
    # Not `tempfile`, whose files nobody else may read.
    file = open(draft, "x+b", buffering=0)  # noqa: SIM115 - closed before the move
    try:
        with file:
            yield file
        os.replace(draft, path)
    except BaseException:
        with suppress(OSError):
            draft.unlink()
        raise


def write_atomically(path: Path, content: bytes, *, advice: str = "", sync: bool = True) -> None:
    """Write a whole file, replacing an earlier one; its folder is made where it is missing.

    `advice` ends the sentence of an error. With `sync`, not even a power cut leaves half a file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as file:
            _write_all(file, content, sync)
    except OSError as error:
        raise OutputError(
            f"{str(path)!r} cannot be written: {error.strerror or error}. Check the permissions "
            f"and the free space of its folder{advice}.",
            path,
        ) from error


def _write_all(file: IO[bytes], content: bytes, sync: bool) -> None:
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    file.flush()
    if sync:
        os.fsync(file.fileno())


# ---------------------------------------------------------------- folders


class Folder:
    """An open folder: what happens in it happens there, even if its name leads elsewhere by now.

    Names are single parts of a path. Links are neither followed nor read. Raises OSError.
    """

    def __init__(self, path: Path, *, inside: Folder | None = None) -> None:
        self.path = path
        self._handle: int | None = None
        if _HANDLES:
            flags = os.O_RDONLY | os.O_DIRECTORY | (0 if inside is None else _NO_LINK)
            if inside is None:
                self._handle = os.open(path, flags)
            else:
                self._handle = os.open(path.name, flags, dir_fd=inside._handle)
        elif inside is not None:
            _refuse_link(path)

    def __enter__(self) -> Folder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the handle."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def subfolder(self, name: str, *, make: bool = False) -> Folder:
        """Open a folder in this one, which is no link; make it where it is missing."""
        if make:
            with suppress(FileExistsError):
                os.mkdir(self._at(name), dir_fd=self._handle)
        self._at(name)
        try:
            return Folder(self.path / name, inside=self)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.ENOTDIR):
                reason = "it is a link, or not a folder"
                raise OSError(error.errno, reason, str(self.path / name)) from error
            raise

    def names(self) -> list[str]:
        """List what is in the folder, sorted."""
        return sorted(os.listdir(self.path if self._handle is None else self._handle))

    def stat(self, name: str) -> os.stat_result | None:
        """Look at a name without following a link; None where there is nothing."""
        try:
            return os.stat(self._at(name), dir_fd=self._handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_own(self) -> bool:
        """Tell whether the folder belongs to this user."""
        return _is_own(os.stat(self.path if self._handle is None else self._handle))

    def owns(self, name: str) -> bool:
        """Tell whether a name is a regular file of this user's."""
        facts = self.stat(name)
        return facts is not None and stat.S_ISREG(facts.st_mode) and _is_own(facts)

    def open(
        self, name: str, mode: Literal["rb", "x+b"] = "rb", *, buffering: int = -1
    ) -> BinaryIO:
        """Open a regular file for reading, or make a new one for reading and writing."""
        flags = (_READ if mode == "rb" else _NEW) | _NO_LINK
        if mode == "rb" and self._handle is None:
            _refuse_link(self.path / name)

        def opener(path: str, _: int) -> int:
            descriptor = os.open(self._at(name), flags, 0o666, dir_fd=self._handle)
            try:
                _check_regular(descriptor, path)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

        opened: BinaryIO = open(self.path / name, mode, buffering, opener=opener)  # noqa: SIM115
        return opened

    def open_own(self, name: str, *, make: bool = False) -> BinaryIO:
        """Open a regular file of this user's that has no other name, for reading and writing."""
        if self._handle is None and self.stat(name) is not None:
            _refuse_link(self.path / name)
        flags = os.O_RDWR | (_READ & ~os.O_RDONLY) | _NO_LINK | (os.O_CREAT if make else 0)
        descriptor = os.open(self._at(name), flags, 0o666, dir_fd=self._handle)
        try:
            facts = _check_regular(descriptor, self.path / name)
            if facts.st_nlink > 1 or not _is_own(facts):
                reason = "it belongs to another user, or has another name as well"
                raise OSError(errno.EPERM, reason, str(self.path / name))
            return os.fdopen(descriptor, "r+b")
        except BaseException:
            os.close(descriptor)
            raise

    def read(self, name: str, at_most: int) -> bytes:
        """Read a regular file of at most so many bytes."""
        with self.open(name) as file:
            return _read_at_most(file, at_most, self.path / name)

    def write(self, name: str, content: bytes) -> None:
        """Write a new file and wait until the disk has it."""
        with self.open(name, "x+b") as file:
            _write_all(file, content, sync=True)

    def put(self, name: str, content: bytes) -> None:
        """Write a whole file under a name, in place of one that the caller has proved stemlab's."""
        draft = f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"
        try:
            self.write(draft, content)
            self.replace(draft, self, name)
        except BaseException:
            with suppress(OSError):
                self.remove(draft)
            raise

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a regular file."""
        digest = hashlib.sha256()
        with self.open(name) as file:
            while block := file.read(_BLOCK_BYTES):
                digest.update(block)
        return digest.hexdigest()

    def move(self, name: str, target: Folder, target_name: str) -> None:
        """Move a file into a folder of the same disk, under a name that must be free."""
        source, final = self._at(name), target._at(target_name)
        handles = {"src_dir_fd": self._handle, "dst_dir_fd": target._handle}
        if sys.platform != "win32":  # There, renaming itself refuses a name that is taken.
            try:
                os.link(source, final, follow_symlinks=False, **handles)
            except FileExistsError:
                raise
            except OSError:  # A file system without hard links.
                if target.stat(target_name) is not None:
                    taken = str(target.path / target_name)
                    raise FileExistsError(errno.EEXIST, "the name is taken", taken) from None
            else:
                self.remove(name)
                return
        os.rename(source, final, **handles)

    def replace(self, name: str, target: Folder, target_name: str) -> None:
        """Move a file or folder into a folder of the same disk, replacing what may be there."""
        os.replace(
            self._at(name),
            target._at(target_name),
            src_dir_fd=self._handle,
            dst_dir_fd=target._handle,
        )

    def remove(self, name: str) -> None:
        """Remove a file or a link, not what it leads to."""
        os.unlink(self._at(name), dir_fd=self._handle)

    def remove_folder(self, name: str) -> None:
        """Remove an empty folder."""
        os.rmdir(self._at(name), dir_fd=self._handle)

    @contextmanager
    def locked(self, at_most_seconds: float) -> Iterator[None]:
        """Hold the folder's own lock, where the system has one; do without it after some time."""
        lock = None
        if self._handle is not None:
            lock = os.open(".", os.O_RDONLY | os.O_DIRECTORY, dir_fd=self._handle)
        try:
            deadline = time.monotonic() + at_most_seconds
            with suppress(OSError):
                while lock is not None and not filelock.lock_descriptor(lock, blocking=False):
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.05)
            yield
        finally:
            if lock is not None:
                os.close(lock)

    def _at(self, name: str) -> str | Path:
        if name in ("", ".", "..") or re.search(r"[/\\\0]", name) or Path(name).name != name:
            raise OSError(errno.EINVAL, "it is not the name of a file", name)
        return self.path / name if self._handle is None else name


def _is_own(facts: os.stat_result) -> bool:
    return not hasattr(os, "geteuid") or facts.st_uid == os.geteuid()


def _is_private(facts: os.stat_result) -> bool:
    """Tell whether a folder is this user's and not everybody can change what it holds."""
    return _is_own(facts) and not (os.name == "posix" and facts.st_mode & stat.S_IWOTH)


# ---------------------------------------------------------------- locks, folders of a process


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
            name = f"{_PREFIX}{owner}-{secrets.token_hex(4)}{_SUFFIX}"
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
    for name in names:
        if name.startswith((f"{_PREFIX}{owner}-", f"{_PREFIX}{owner}.")) and name.endswith(_SUFFIX):
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
            if not (stat.S_ISDIR(facts.st_mode) and _is_own(facts)):
                continue
            with Folder(path) as folder:
                lock = lock_file(folder)
            if lock is not None:
                lock.close()
                shutil.rmtree(path, ignore_errors=True)
