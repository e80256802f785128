"""Seeded synthesis of multitrack songs; see README.md for where the sounds come from."""

from __future__ import annotations

from .effects import SAMPLE_RATE
from .palette import PALETTES, TRAINING, UNSEEN, Palette
from .song import SOURCES, Song, render_song, stem_levels_db

__all__ = [
    "PALETTES",
    "SAMPLE_RATE",
    "SOURCES",
    "TRAINING",
    "UNSEEN",
    "Palette",
    "Song",
    "render_song",
    "stem_levels_db",
]
