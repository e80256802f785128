"""A whole song from a seed: four stems that add up to the mixture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import parts, vocals
from .composition import Score, compose
from .effects import (
    active_level,
    butterworth,
    clip_together,
    compress_together,
    equalise_at_random,
    gain_of,
    level_to,
    limit_together,
    set_width,
)
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


def render_song(
    seed: int, seconds: float = 32.0, *, full: bool = False, palette: Palette = TRAINING
) -> Song:
    """Compose and render a song; the same seed gives the same song.

    With `full` every part plays throughout; otherwise parts rest in some sections, and at times
    in the whole song.
    """
    streams = np.random.SeedSequence([_SEED_STREAM, seed]).spawn(len(SOURCES) + 2)
    compose_rng, desk_rng, *part_rngs = (np.random.default_rng(stream) for stream in streams)
    score = compose(compose_rng, seconds, full=full)
    tracks = [
        _PARTS[source](score, palette, rng)
        if source not in score.resting
        else np.zeros((2, score.samples), np.float32)
        for source, rng in zip(SOURCES, part_rngs, strict=True)
    ]
    return Song(seed, score, mix_down(tracks, desk_rng))


def mix_down(tracks: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Set the levels and master the song; the stems still add up to the mixture."""
    stems = []
    for source, track in zip(SOURCES, tracks, strict=True):
        level_db = _LEVELS_DB[source] + 2.3 * rng.normal()
        stems.append(level_to(track) * gain_of(level_db))
    mixed = _master(np.stack(stems), rng)
    # Neither the sum nor a stem alone may clip.
    peak = max(float(np.abs(mixed.sum(axis=0)).max()), float(np.abs(mixed).max()), 1e-9)
    return (mixed * (gain_of(rng.uniform(-6, -0.2)) / peak)).astype(np.float32)


def _master(stems: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Filters and gains that are the same for all stems, from none to a very loud master."""
    if rng.random() < 0.6:
        stems = equalise_at_random(stems, rng, 2.5)
    if rng.random() < 0.3:
        stems = set_width(stems, rng.choice([0.0, 0.5, 0.75, 1.2, 1.4]))
    if rng.random() < 0.5:
        threshold_db, ratio = rng.uniform(-24, -10), rng.uniform(1.3, 4)
        stems = compress_together(stems, threshold_db, ratio, rng.uniform(0.05, 0.3))
    if rng.random() < 0.2:
        stems = clip_together(stems, rng.uniform(0.5, 2.5))
    crest_db = _crest_db(stems.sum(axis=0))
    if rng.random() < 0.75 or crest_db > 19:
        # From 7 dB between peak and level, as in the loudest masters, to 16.
        stems = limit_together(stems, min(0.0, rng.uniform(7, 16) - crest_db))
    if rng.random() < 0.2:
        # What is left by MP3 at low bit rates.
        stems = butterworth(stems, "lowpass", rng.uniform(14500, 19000), 8)
    return stems


def _crest_db(mixture: np.ndarray) -> float:
    level = float(np.sqrt(np.mean(mixture.astype(np.float64) ** 2)))
    return float(20 * np.log10((np.abs(mixture).max() + 1e-9) / (level + 1e-9)))


def stem_levels_db(stems: np.ndarray) -> dict[str, float]:
    """Active level of each stem in dB; minus infinity for a silent one."""
    levels = (active_level(stem) for stem in stems)
    with np.errstate(divide="ignore"):
        return {s: float(20 * np.log10(x)) for s, x in zip(SOURCES, levels, strict=True)}
