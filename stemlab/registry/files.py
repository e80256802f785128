"""Read files of models, each once and never more than it may hold; write them whole or not."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from stemlab import _disk
from stemlab.errors import ModelNotFoundError, ModelRefusedError

__all__ = [
    "DRAFT_PREFIX",
    "parse_json",
    "read_bounded",
    "read_verified",
    "refuse_digest",
    "strict_json",
    "write_atomically",
]


# Of all that is written beside its place and moved there when it is whole. What a killed process
# left of it is cleared away, so no other part of stemlab may use it.
DRAFT_PREFIX = ".stemlab-model-"
_AGAIN = "Install the model again; do not use this file."


def read_bounded(path: Path, at_most: int, *, follow_links: bool = False) -> bytes:
    """Read a plain file, if it holds no more than it may.

    Parameters
    ----------
    path : Path
    at_most : int, in bytes
    follow_links : bool, optional
        Whether the file may be a link: yes where a person named it, no inside a model's folder,
        which a link would leave.

    Returns
    -------
    content : bytes

    Raises
    ------
    ModelNotFoundError
        If it is missing.
    ModelRefusedError
        If it is a link, no plain file, longer than `at_most`, or cannot be read.
    """
    try:
        with os.fdopen(_open(path, follow_links), "rb") as file:
            facts = os.fstat(file.fileno())
            if not stat.S_ISREG(facts.st_mode):
                raise ModelRefusedError(f"{str(path)!r} is no plain file. Name a file.", path=path)
            # One byte more, in case the file grows while it is read.
            content = b"" if facts.st_size > at_most else file.read(facts.st_size + 1)
    except FileNotFoundError as error:
        raise ModelNotFoundError(
            f"{str(path)!r} is missing. `stemlab models list` shows what there is."
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise ModelRefusedError(
                f"{str(path)!r} is a link, which leaves the model's folder. Put the file itself "
                "there.",
                path=path,
            ) from error
        raise ModelRefusedError(
            f"{str(path)!r} cannot be read: {error.strerror}. Check its permissions.", path=path
        ) from error
    if max(facts.st_size, len(content)) > at_most:
        raise ModelRefusedError(
            f"{str(path)!r} is longer than recorded: expected at most {at_most} bytes, got "
            f"{max(facts.st_size, len(content))}. Install the model again.",
            path=path,
            expected=at_most,
            actual=max(facts.st_size, len(content)),
        )
    return content


def _open(path: Path, follow_links: bool) -> int:
    """Open without waiting for the other end of a pipe."""
    flags = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0)
    if not follow_links:
        flags |= getattr(os, "O_NOFOLLOW", 0)
        if path.is_symlink():  # Where the system has no such flag.
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
    return os.open(path, flags)


def read_verified(path: Path, *, size: int, sha256: str, follow_links: bool = False) -> bytes:
    """Read a file once and hand it out only if size and digest are right.

    The caller parses this buffer and never opens the file again, so nothing can change between
    the check and the use.

    Parameters
    ----------
    path : Path
    size : int, in bytes
    sha256 : str, 64 hex digits
    follow_links : bool, optional
        See `read_bounded`.

    Returns
    -------
    content : bytes

    Raises
    ------
    ModelNotFoundError
        If the file is missing.
    ModelRefusedError
        If its size or its SHA-256 is not the recorded one, or it cannot be read.
    """
    content = read_bounded(path, size, follow_links=follow_links)
    if len(content) != size:
        raise ModelRefusedError(
            f"{str(path)!r} is shorter than recorded: expected {size} bytes, got "
            f"{len(content)}. Install the model again.",
            path=path,
            expected=size,
            actual=len(content),
        )
    refuse_digest(path, content, sha256)
    return content


def refuse_digest(path: Path, content: bytes, expected: str, *, advice: str = _AGAIN) -> None:
    """Refuse content whose SHA-256 is not the expected one.

    Parameters
    ----------
    path : Path
        Where it was read.
    content : bytes
    expected : str, 64 hex digits
    advice : str, optional
        The next step.

    Raises
    ------
    ModelRefusedError
        If the digests differ.
    """
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise ModelRefusedError(
            f"{str(path)!r} is not the recorded file, or was damaged: expected SHA-256 "
            f"{expected}, got {actual}. {advice}",
            path=path,
            expected=expected,
            actual=actual,
        )


def parse_json(content: bytes) -> dict[str, Any]:
    """Parse a table.

    Parameters
    ----------
    content : bytes

    Returns
    -------
    fields : dict

    Raises
    ------
    ValueError
        If it is no JSON, or no table.
    """
    fields = strict_json(content)
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON table")
    return fields


def strict_json(text: str | bytes) -> Any:
    """Parse JSON as its standard has it: without NaN and infinity, and not endlessly deep.

    Parameters
    ----------
    text : str or bytes

    Returns
    -------
    value : object

    Raises
    ------
    ValueError
        If it is no JSON.
    """
    try:
        return json.loads(text, parse_constant=_no_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"it is not JSON ({error})") from error


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number")


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all, replacing an earlier one.

    Parameters
    ----------
    path : Path
        Its folder is made where it is missing.
    content : bytes

    Raises
    ------
    OutputError
        If it cannot be written; an earlier file is then left as it was.
    """
    _disk.write_atomically(
        path, content, prefix=DRAFT_PREFIX, advice=", or set STEMLAB_MODELS to another one"
    )
