"""Training examples: crops of songs, remixed across songs and varied on the fly."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soxr
from configuration import Mixing
from scipy import signal
from songs import as_float, load_song, song_paths
from synth import SAMPLE_RATE, SOURCES
from synth.effects import (
    SILENCE,
    butterworth,
    equalise_at_random,
    gain_of,
    limit_together,
    log_uniform,
)

_LEVEL = 0.05


class SongPool:
    """Songs of a folder in memory as 16-bit integers; `refresh` picks up new ones."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: set[Path] = set()
        self.songs: list[np.ndarray] = []
        self.refresh()

    def refresh(self) -> int:
        """Load the songs that appeared since; returns how many there are now."""
        for path in song_paths(self._folder):
            if path not in self._known:
                self._known.add(path)
                self.songs.append(load_song(path))
        if not self.songs:
            raise FileNotFoundError(f"{self._folder} holds no songs; run synthesise.py first")
        return len(self.songs)


class Mixer:
    """Draws examples from a pool; all randomness comes from `rng`."""

    def __init__(self, pool: SongPool, settings: Mixing, rng: np.random.Generator) -> None:
        self._pool = pool
        self._settings = settings
        self._rng = rng

    def draw(self, samples: int) -> np.ndarray:
        """One example: stems of shape (sources, 2, samples), adding up to their mixture."""
        remixed = self._chance(self._settings.remix)
        stems = self._remixed(samples) if remixed else self._together(samples)
        return self._master(np.stack([self._vary(stem) for stem in stems]))

    def _chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def _song(self) -> np.ndarray:
        return self._pool.songs[self._rng.integers(len(self._pool.songs))]

    def _together(self, samples: int) -> np.ndarray:
        song = self._song()
        start = int(self._rng.integers(song.shape[-1] - samples))
        stems = as_float(song[:, :, start : start + samples])
        levels = [gain_of(self._settings.level_db * self._rng.normal()) for _ in SOURCES]
        return stems * np.array(levels, np.float32)[:, None, None]

    def _remixed(self, samples: int) -> list[np.ndarray]:
        """Each stem from a song of its own, at about the same level."""
        stems = []
        for source in range(len(SOURCES)):
            stem = self._active_crop(source, samples)
            level = float(np.sqrt(np.mean(stem**2)))
            if level > 10 * SILENCE:
                change_db = np.clip(self._settings.remix_level_db * self._rng.normal(), -9, 6)
                stem = stem * (gain_of(change_db) * _LEVEL / level)
            stems.append(stem)
        return stems

    def _active_crop(self, source: int, samples: int) -> np.ndarray:
        """A crop of a stem, drawn anew a few times while it is nearly silent."""
        ratio = 1.0
        if self._chance(self._settings.speed):
            ratio = self._rng.uniform(*self._settings.speed_range)
        needed = int(np.ceil(samples * ratio)) + 1
        for _ in range(4):
            song = self._song()
            start = int(self._rng.integers(song.shape[-1] - needed))
            crop = as_float(song[source, :, start : start + needed])
            if np.mean(crop**2) > 1e-5:
                break
        if ratio == 1.0:
            return crop[:, :samples]
        # Played faster or slower: pitch and formants move along.
        played = soxr.resample(crop.T, SAMPLE_RATE * ratio, SAMPLE_RATE, quality="MQ").T
        return np.pad(played, ((0, 0), (0, 2)))[:, :samples]

    def _vary(self, stem: np.ndarray) -> np.ndarray:
        if self._chance(self._settings.silence):
            return np.zeros_like(stem)
        if self._chance(self._settings.equaliser):
            stem = equalise_at_random(stem, self._rng)
        if self._chance(self._settings.swap):
            stem = stem[::-1]
        return -stem if self._chance(self._settings.flip) else stem

    def _noise(self, mixture: np.ndarray) -> np.ndarray:
        """White to brown noise, from far below the mixture to above it."""
        noise = self._rng.standard_normal(mixture.shape)
        noise = signal.lfilter([1.0], [1.0, -self._rng.uniform(0, 0.99)], noise, axis=-1)
        level = np.sqrt(np.mean(mixture**2)) * gain_of(self._rng.uniform(-40, 6))
        return (noise * (level / np.sqrt(np.mean(noise**2)))).astype(np.float32)

    def _master(self, stems: np.ndarray) -> np.ndarray:
        """What happens to the whole mixture, applied to all stems so that they still add up."""
        settings, rng = self._settings, self._rng
        if self._chance(settings.solo):
            kept = int(rng.integers(len(SOURCES)))
            stems = stems * (np.arange(len(SOURCES)) == kept)[:, None, None]
        if self._chance(settings.noise):
            stems = stems.copy()
            stems[SOURCES.index("other")] += self._noise(stems.sum(axis=0))
        if self._chance(settings.mono):
            stems = np.repeat(stems.mean(axis=1, keepdims=True), 2, axis=1)
        if self._chance(settings.low_pass):
            stems = butterworth(stems, "lowpass", log_uniform(rng, 4000, 16000), 4)
        if self._chance(settings.limiter):
            stems = limit_together(stems, rng.uniform(-14, -3))
        return np.ascontiguousarray(stems, np.float32)
