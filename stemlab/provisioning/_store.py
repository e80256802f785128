"""One process at a time works in the models folder."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from stemlab.errors import ModelError, OutputError
from stemlab.registry import DRAFT_PREFIX, builtin_names, models_dir, own_names

__all__ = ["DOWNLOADS", "locked_store", "remove_tree", "staging_folder"]

DOWNLOADS = ".downloads"
_log = logging.getLogger(__name__)


@contextmanager
def locked_store() -> Iterator[Path]:
    """Hold the models folder, and clear away what a killed process left there.

    Yields
    ------
    folder : Path
        It exists now.

    Raises
    ------
    OutputError
        If it cannot be made or written to.
    """
    folder = models_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / ".lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _log.warning("waiting for another stemlab that is adding or removing a model")
            lock.acquire()
    # The latter where the file system has no locks.
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(
            f"cannot write to the models folder {str(folder)!r}: {reason}. "
            "Check its permissions, or set STEMLAB_MODELS to another folder.",
            folder,
        ) from error
    try:
        for place in (folder, *_model_folders(folder)):
            for stale in place.glob(f"{DRAFT_PREFIX}*"):
                remove_tree(stale)
        yield folder
    finally:
        lock.release()


def _model_folders(store: Path) -> list[Path]:
    names = builtin_names()
    with suppress(ModelError):  # A damaged registry is told by whoever needs it.
        names += own_names()
    return [store / name for name in names if not (store / name).is_symlink()]


@contextmanager
def staging_folder(store: Path) -> Iterator[Path]:
    """Make a folder that `locked_store` clears away if the process is killed.

    Parameters
    ----------
    store : Path
        The models folder, held.

    Yields
    ------
    folder : Path
        Removed at the end, unless it was moved.

    Raises
    ------
    OutputError
        If it cannot be made.
    """
    try:
        folder = Path(tempfile.mkdtemp(prefix=DRAFT_PREFIX, dir=store))
    except OSError as error:
        raise OutputError(
            f"cannot write to {str(store)!r}: {error.strerror or error}. Check its permissions.",
            store,
        ) from error
    try:
        yield folder
    finally:
        remove_tree(folder)


def remove_tree(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there.

    Parameters
    ----------
    path : Path

    Raises
    ------
    OutputError
        If something of it cannot be removed.
    """
    try:
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif os.path.lexists(path):
            shutil.rmtree(path)
    except OSError as error:
        raise OutputError(
            f"{str(path)!r} cannot be removed: {error.strerror or error}. Check its permissions.",
            path,
        ) from error
