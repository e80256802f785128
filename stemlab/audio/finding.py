"""Find recordings in a folder."""

from __future__ import annotations

import os
from pathlib import Path

from stemlab._typing import StrPath
from stemlab.errors import AudioError

RECORDING_SUFFIXES = frozenset(
    ".wav .wave .flac .mp3 .ogg .oga .opus .aif .aiff .aifc .caf .rf64 .w64 .au "
    ".m4a .aac .mp4 .m4v .mov .mkv .webm .wma".split()
)
"""Suffixes that a folder is searched for; a file given by name is tried whatever its suffix."""


def find_recordings(folder: StrPath) -> list[Path]:
    """List the files of a folder whose suffix is that of a recording, without subfolders."""
    try:
        entries = list(Path(folder).iterdir())
    except OSError as error:
        raise AudioError(
            f"the folder {str(folder)!r} cannot be listed: {error.strerror}. Check its "
            "permissions, or name another.",
            Path(folder),
        ) from error
    named = [
        path
        for path in entries
        if path.suffix.lower() in RECORDING_SUFFIXES and not path.name.startswith(".")
    ]
    return sorted(path for path in named if os.path.isfile(path))
