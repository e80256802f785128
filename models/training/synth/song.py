"""A whole song from a seed: four stems that add up to the mixture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import parts, vocals
from .composition import Score, compose
from .effects import active_level, gain_of, level_to, limit_together
from .palette import TRAINING, Palette

_PARTS = {
    "drums": parts.drums,
    "bass": parts.bass,
    "other": parts.other,
    "vocals": vocals.vocals,
}
SOURCES = tuple(_PARTS)

_LEVELS_DB = {"drums": 0.0, "bass": -2.0, "other": -1.0, "vocals": 1.0}
_SEED_STREAM = 0x57E31AB


@dataclass(frozen=True)
class Song:
    """Stems of shape (sources, channels, samples) in the order of `SOURCES`."""

    seed: int
    score: Score
    stems: np.ndarray

    @property
    def mixture(self) -> np.ndarray:
        """The sum of the stems, shape (channels, samples)."""
        return self.stems.sum(axis=0)


def render_song(
    seed: int, seconds: float = 32.0, *, full: bool = False, palette: Palette = TRAINING
) -> Song:
    """Compose and render a song; the same seed gives the same song.

    With `full` every part plays throughout; otherwise parts rest in some sections.
    """
    streams = np.random.SeedSequence([_SEED_STREAM, seed]).spawn(len(SOURCES) + 2)
    compose_rng, desk_rng, *part_rngs = (np.random.default_rng(stream) for stream in streams)
    score = compose(compose_rng, seconds, full=full)
    tracks = [
        play(score, palette, rng) for play, rng in zip(_PARTS.values(), part_rngs, strict=True)
    ]
    return Song(seed, score, mix_down(tracks, desk_rng))


def mix_down(tracks: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Set the levels, limit some songs, and leave 0.5 to 6 dB of headroom."""
    stems = []
    for source, track in zip(SOURCES, tracks, strict=True):
        level_db = _LEVELS_DB[source] + 2.0 * rng.normal()
        stems.append(level_to(track) * gain_of(level_db))
    mixed = np.stack(stems)
    if rng.random() < 0.5:
        mixed = limit_together(mixed, rng.uniform(-9, -2))
    # Neither the sum nor a stem alone may clip.
    peak = max(float(np.abs(mixed.sum(axis=0)).max()), float(np.abs(mixed).max()), 1e-9)
    return (mixed * (gain_of(rng.uniform(-6, -0.5)) / peak)).astype(np.float32)


def stem_levels_db(stems: np.ndarray) -> dict[str, float]:
    """Active level of each stem in dB; minus infinity for a silent one."""
    levels = (active_level(stem) for stem in stems)
    with np.errstate(divide="ignore"):
        return {s: float(20 * np.log10(x)) for s, x in zip(SOURCES, levels, strict=True)}
