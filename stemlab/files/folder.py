"""Folders that are opened once, so that nothing can be put in their place while they are used."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal

import filelock

from stemlab.files.whole import (
    NO_LINK,
    READ_FLAGS,
    check_regular,
    draft_name,
    read_at_most,
    refuse_link,
    write_all,
)

# Systems without folder handles look up the path at each operation.
_HANDLES = os.open in os.supports_dir_fd and hasattr(os, "O_NOFOLLOW")
_NEW_FLAGS = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


class Folder:
    """An open folder: operations stay in it, even if its name leads elsewhere by now.

    Names are single parts of a path. Links are neither followed nor read. Raises OSError.
    """

    def __init__(self, path: Path, *, inside: Folder | None = None) -> None:
        self.path = path
        self._handle: int | None = None
        if _HANDLES:
            flags = os.O_RDONLY | os.O_DIRECTORY | (0 if inside is None else NO_LINK)
            if inside is None:
                self._handle = os.open(path, flags)
            else:
                self._handle = os.open(path.name, flags, dir_fd=inside._handle)
        elif inside is not None:
            refuse_link(path)

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
        """Open a folder in this one and refuse a link; with `make`, create a missing one."""
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

    @contextmanager
    def reach(self, path: str, *, make: bool = False) -> Iterator[tuple[Folder, str]]:
        """Open the folder that holds a path with '/' between its parts; follow no links.

        Yields that folder and the last part of the path.
        """
        *parents, last = path.split("/")
        with ExitStack() as stack:
            folder = self
            for parent in parents:
                folder = stack.enter_context(folder.subfolder(parent, make=make))
            yield folder, last

    def reaches(self, path: str) -> bool:
        """Tell whether there is something at a path with '/' between its parts."""
        try:
            with self.reach(path) as (folder, last):
                return folder.stat(last) is not None
        except FileNotFoundError:
            return False

    def names(self) -> list[str]:
        """List what is in the folder, sorted."""
        return sorted(os.listdir(self.path if self._handle is None else self._handle))

    def stat(self, name: str) -> os.stat_result | None:
        """Return the status of a name without following a link; None if it does not exist."""
        try:
            return os.stat(self._at(name), dir_fd=self._handle, follow_symlinks=False)
        except FileNotFoundError:
            return None

    def is_own(self) -> bool:
        """Tell whether the folder belongs to this user."""
        return belongs_to_user(os.stat(self.path if self._handle is None else self._handle))

    def owns(self, name: str) -> bool:
        """Tell whether a name is a regular file that belongs to this user."""
        facts = self.stat(name)
        return facts is not None and stat.S_ISREG(facts.st_mode) and belongs_to_user(facts)

    def open(
        self, name: str, mode: Literal["rb", "x+b"] = "rb", *, buffering: int = -1
    ) -> BinaryIO:
        """Open a regular file for reading, or make a new one for reading and writing."""
        flags = (READ_FLAGS if mode == "rb" else _NEW_FLAGS) | NO_LINK
        if mode == "rb" and self._handle is None:
            refuse_link(self.path / name)

        def opener(path: str, _: int) -> int:
            descriptor = os.open(self._at(name), flags, 0o666, dir_fd=self._handle)
            try:
                check_regular(descriptor, path)
            except BaseException:
                os.close(descriptor)
                raise
            return descriptor

        opened: BinaryIO = open(self.path / name, mode, buffering, opener=opener)  # noqa: SIM115
        return opened

    def open_own(self, name: str, *, make: bool = False) -> BinaryIO:
        """Open a regular file of this user that has no second name, for reading and writing."""
        if self._handle is None and self.stat(name) is not None:
            refuse_link(self.path / name)
        flags = os.O_RDWR | (READ_FLAGS & ~os.O_RDONLY) | NO_LINK | (os.O_CREAT if make else 0)
        descriptor = os.open(self._at(name), flags, 0o666, dir_fd=self._handle)
        try:
            facts = check_regular(descriptor, self.path / name)
            if facts.st_nlink > 1 or not belongs_to_user(facts):
                reason = "it belongs to another user, or has another name as well"
                raise OSError(errno.EPERM, reason, str(self.path / name))
            return os.fdopen(descriptor, "r+b")
        except BaseException:
            os.close(descriptor)
            raise

    def read(self, name: str, at_most: int) -> bytes:
        """Read a regular file of at most so many bytes."""
        with self.open(name) as file:
            return read_at_most(file, at_most, self.path / name)

    def write(self, name: str, content: bytes) -> None:
        """Write a new file and wait until the disk has it."""
        with self.open(name, "x+b") as file:
            write_all(file, content, sync=True)

    def put(self, name: str, content: bytes) -> None:
        """Write a whole file and replace an earlier one, which the caller knows to be stemlab's."""
        draft = draft_name()
        try:
            self.write(draft, content)
            self.replace(draft, self, name)
        except BaseException:
            with suppress(OSError):
                self.remove(draft)
            raise

    def digest(self, name: str) -> str:
        """Return the SHA-256 of a regular file."""
        with self.open(name) as file:
            # BinaryIO has readinto only in practice.
            return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]

    def move(self, name: str, target: Folder, target_name: str) -> None:
        """Move a file into a folder of the same disk, under a name that must be free."""
        source, final = self._at(name), target._at(target_name)
        handles = {"src_dir_fd": self._handle, "dst_dir_fd": target._handle}
        if sys.platform != "win32":  # On Windows, renaming refuses an existing name.
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
        """Hold a lock on the folder where the system has one; go on without it after a while."""
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


def belongs_to_user(facts: os.stat_result) -> bool:
    """Tell whether a file or folder belongs to this user."""
    return not hasattr(os, "geteuid") or facts.st_uid == os.geteuid()
