"""Where stemlab keeps what it can make again, and how a file is written whole or not at all."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

import platformdirs

from stemlab.errors import OutputError

__all__ = ["cache_dir", "check_writable", "nearest_existing", "write_atomically"]


def cache_dir() -> Path:
    """Folder of measurements that can be made again.

    Returns
    -------
    folder : Path
        ``$STEMLAB_CACHE``, or a folder of stemlab's own where the platform keeps such data. It
        may not exist yet.
    """
    configured = os.environ.get("STEMLAB_CACHE")
    if configured:
        return Path(os.path.abspath(os.path.expanduser(configured)))
    return platformdirs.user_cache_path("stemlab", appauthor=False)


def nearest_existing(path: Path) -> Path:
    """Find where a file or folder that may not exist yet would be made.

    Parameters
    ----------
    path : Path

    Returns
    -------
    existing : Path
        It, or the nearest of the folders around it that is there and may be looked at.
    """
    # Not Path.exists, which raises where one may not look, or a name is too long.
    return next(each for each in (path, *path.absolute().parents) if os.path.exists(each))


def check_writable(file: Path, advice: str) -> None:
    """Refuse a file that is known to be impossible, before anything is computed for it.

    Parameters
    ----------
    file : Path
        Neither it nor its folder need exist; nothing is made.
    advice : str
        What else the reader of an error can do.

    Raises
    ------
    OutputError
        If it is a folder, or its name or its folder does not let it be written.
    """
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


def write_atomically(
    path: Path,
    content: bytes,
    *,
    prefix: str = ".stemlab-",
    drafts: Path | None = None,
    advice: str = "",
    sync: bool = True,
) -> None:
    """Write a file that appears whole or not at all, replacing an earlier one.

    Parameters
    ----------
    path : Path
        Its folder is made where it is missing.
    content : bytes
    prefix : str, optional
        Of the hidden file that is written first.
    drafts : Path, optional
        Folder of that file, on the same disk. Default: that of `path`.
    advice : str, optional
        What else the reader of an error can do.
    sync : bool, optional
        Whether to wait until the disk has it, so that not even a power cut leaves an empty file.

    Raises
    ------
    OutputError
        If it cannot be written; an earlier file is then left as it was.
    """
    # Not `tempfile`, whose files nobody else may read.
    draft = (drafts or path.parent) / f"{prefix}{secrets.token_hex(8)}.partial"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        os.replace(draft, path)
    except OSError as error:
        raise OutputError(
            f"{str(path)!r} cannot be written: {error.strerror or error}. Check the permissions "
            f"and the free space of its folder{advice}.",
            path,
        ) from error
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
