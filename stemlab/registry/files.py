"""Read files of models once, and never more than their recorded size."""

from __future__ import annotations

import errno
import hashlib
from pathlib import Path

from stemlab import files
from stemlab.errors import ModelNotFoundError, ModelRefusedError

_AGAIN = "Install the model again; do not use this file."


def read_bounded(path: Path, at_most: int, *, follow_links: bool = False) -> bytes:
    """Read a regular file, if it holds no more than it may."""
    try:
        return files.read_bounded(path, at_most, follow_links=follow_links)
    except FileNotFoundError as error:
        raise ModelNotFoundError(
            f"{str(path)!r} is missing. `stemlab models list` shows what there is."
        ) from error
    except OSError as error:
        if error.errno == errno.ELOOP:
            reason = "is a link, which leaves the model's folder. Put the file itself there"
        elif error.errno == errno.EFBIG:
            reason = (
                f"is longer than recorded: expected at most {at_most} bytes. Add the model again"
            )
        else:
            reason = f"cannot be read: {error.strerror}. Check what it is, and its permissions"
        raise ModelRefusedError(f"{str(path)!r} {reason}.", path=path) from error


def read_verified(path: Path, *, size: int, sha256: str, follow_links: bool = False) -> bytes:
    """Read a file once and hand it out only if size and digest are right.

    The caller parses this buffer and never opens the file again, so nothing can change between
    the check and the use.
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
    """Refuse content whose SHA-256 is not the expected one."""
    actual = hashlib.sha256(content).hexdigest()
    if actual != expected:
        raise ModelRefusedError(
            f"{str(path)!r} is not the recorded file, or was damaged: expected SHA-256 "
            f"{expected}, got {actual}. {advice}",
            path=path,
            expected=expected,
            actual=actual,
        )
