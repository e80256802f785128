"""Pages that others may visit (``stemlab lab --voila``): their panels stay in one folder."""

from __future__ import annotations

import os
from pathlib import Path

from stemlab._assets import demo_song_dir
from stemlab._isolation import SERVED_FOLDER
from stemlab._typing import StrPath
from stemlab.errors import ParameterError

__all__ = ["is_served", "panel_path"]


def is_served() -> bool:
    """Whether others than the owner of the server may use the panels."""
    return bool(os.environ.get(SERVED_FOLDER))


def panel_path(text: StrPath) -> Path:
    """Check a path that a panel got; for visitors, it must be in the served folder."""
    path = Path(os.path.expanduser(text))
    try:
        real = Path(os.path.realpath(path))
    except ValueError as error:  # For instance a null character.
        raise ParameterError(f"{str(text)!r} is not a path. Choose a file or folder.") from error
    if is_served():
        folders = (os.environ[SERVED_FOLDER], demo_song_dir())
        if not any(real.is_relative_to(os.path.realpath(folder)) for folder in folders):
            # The same text whether it exists or not, which a visitor must not find out.
            raise ParameterError(
                f"{str(text)!r} is outside the folder that is served here. Choose one inside it."
            )
    return path
