"""Read files up to a stated size, and write them whole or not at all."""

from __future__ import annotations

import errno
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, BinaryIO

import platformdirs

from stemlab.errors import OutputError

# Names of hidden files and folders that hold unfinished work.
HIDDEN_PREFIX, HIDDEN_SUFFIX = ".stemlab-", ".partial"
READ_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
NO_LINK = getattr(os, "O_NOFOLLOW", 0)


def cache_dir() -> Path:
    """Return ``$STEMLAB_CACHE``, or the platform's folder for data that can be made again."""
    configured = os.environ.get("STEMLAB_CACHE")
    if configured:
        return Path(os.path.abspath(os.path.expanduser(configured)))
    return platformdirs.user_cache_path("stemlab", appauthor=False)


def nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest folder around it that exists and may be looked at."""
    # Path.exists would raise if a folder may not be read or a name is too long.
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


def read_bounded(path: Path, at_most: int, *, follow_links: bool = True) -> bytes:
    """Read a regular file of at most so many bytes; OSError says what is wrong with another one.

    Links are followed where a person named the file, not where a folder from elsewhere did.
    """
    if not follow_links:
        refuse_link(path)
    with os.fdopen(os.open(path, READ_FLAGS | (0 if follow_links else NO_LINK)), "rb") as file:
        return read_at_most(file, at_most, path)


def read_at_most(file: BinaryIO, at_most: int, path: Path) -> bytes:
    """Read an open regular file of at most so many bytes; `path` names it in errors."""
    size = check_regular(file.fileno(), path).st_size
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


def check_regular(descriptor: int, path: object) -> os.stat_result:
    """Return the status of an open file, or refuse it if it is not a regular one."""
    facts = os.fstat(descriptor)
    if not stat.S_ISREG(facts.st_mode):
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return facts


def refuse_link(path: Path) -> None:
    """Refuse a link where the system has no flag for it; elsewhere give a better message."""
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link", str(path))


def draft_name() -> str:
    """Make a hidden name for a file that is not whole yet."""
    return f"{HIDDEN_PREFIX}{secrets.token_hex(8)}{HIDDEN_SUFFIX}"


@contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """Write a file that appears under its name when it is whole, and then replaces an earlier one.

    Its folder exists. Raises OSError; the earlier file is then as it was.
    """
    draft = path.parent / draft_name()
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
            write_all(file, content, sync)
    except OSError as error:
        raise OutputError(
            f"{str(path)!r} cannot be written: {error.strerror or error}. Check the permissions "
            f"and the free space of its folder{advice}.",
            path,
        ) from error


def write_all(file: IO[bytes], content: bytes, sync: bool) -> None:
    """Write everything, also to an unbuffered file; with `sync`, wait until the disk has it."""
    left = memoryview(content)
    while left:
        left = left[file.write(left) :]
    file.flush()
    if sync:
        os.fsync(file.fileno())
