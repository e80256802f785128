"""Seeded synthesis of multitrack songs; see README.md for where the sounds come from."""

from __future__ import annotations

from .effects import SAMPLE_RATE
from .song import SOURCES, Song, render_song, stem_levels_db

__all__ = ["SAMPLE_RATE", "SOURCES", "Song", "render_song", "stem_levels_db"]
