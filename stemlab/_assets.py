"""Where the files that come with stemlab lie, in a checkout and in an installed wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
DEMO_SOURCES = ("drums", "bass", "other", "vocals")


def asset_dir(name: str) -> Path:
    """Find one of the folders that the wheel carries."""
    installed = _PACKAGE / "assets" / name
    return installed if installed.is_dir() else _PACKAGE.parent / name


def demo_song_dir() -> Path:
    """Folder of the demo song: ``mixture.flac`` and its true stems, one file per source.

    Returns
    -------
    folder : Path
    """
    return _PACKAGE / "assets" / "demo"
