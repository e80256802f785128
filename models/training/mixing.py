"""Training examples: crops of songs, remixed across songs and varied on the fly.

Everything random about the examples of a step comes from the seed and the number of that step: a
training goes on, or is repeated, from any step and with any number of workers.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import soxr
import torch
from configuration import Configuration, Mixing
from network import normalise
from scipy import signal
from songs import load_song, render_into, song_folder, song_path, song_samples
from synth import SAMPLE_RATE, SOURCES, TRAINING
from synth.effects import (
    SILENCE,
    butterworth,
    equalise_at_random,
    gain_of,
    limit_together,
    log_uniform,
)
from torch.utils.data import Dataset

_LEVEL = 0.05
# Below this power a crop counts as silent, and another one is tried.
_QUIET_POWER = 1e-5
_TRIES = 4
# Silent examples are rare; so many in a row mean silent songs.
_DRAWS = 100


class Examples(Dataset[torch.Tensor]):
    """The batches of a training by step, each (batch, sources, 2, samples), at the network's level.

    A song that is not in the folder yet is synthesised when a step asks for it.
    """

    def __init__(self, configuration: Configuration, folder: Path) -> None:
        self._configuration = configuration
        self._folder = song_folder(folder, TRAINING)

    def __len__(self) -> int:
        return self._configuration.training.steps

    def __getitem__(self, step: int) -> torch.Tensor:
        settings = self._configuration.training
        rng = np.random.default_rng([settings.seed, step])
        songs = self._configuration.songs.known_at(step)
        mixer = Mixer(self.song, songs, self._configuration.mixing, rng)
        seconds = rng.choice(settings.crop_seconds, p=settings.crop_weights)
        samples = int(seconds * SAMPLE_RATE)
        return torch.stack([_audible(mixer, samples) for _ in range(settings.batch_size)])

    def song(self, index: int) -> Path:
        """File of a song, synthesised if it is missing."""
        songs = self._configuration.songs
        seed = songs.first_seed + index
        path = song_path(self._folder, seed)
        if not path.exists():
            render_into(self._folder, seed, songs.seconds, TRAINING)
        return path


def _audible(mixer: Mixer, samples: int) -> torch.Tensor:
    """Stems of an example that is not silent, scaled as the network's input is."""
    for _ in range(_DRAWS):
        stems = torch.from_numpy(mixer.draw(samples))
        _, mean, deviation = normalise(stems.sum(dim=0))
        if deviation > 1e-3:
            # The mean of the mixture is shared out, so that the stems still add up.
            return (stems - mean / len(SOURCES)) / deviation
    raise ValueError(f"{_DRAWS} examples in a row were silent: the songs hold next to nothing.")


class Mixer:
    """Draws examples from `songs` songs, whose files `song` names; all randomness is of `rng`."""

    def __init__(
        self,
        song: Callable[[int], Path],
        songs: int,
        settings: Mixing,
        rng: np.random.Generator,
    ) -> None:
        self._song = song
        self._songs = songs
        self._settings = settings
        self._rng = rng

    def draw(self, samples: int) -> np.ndarray:
        """One example: stems of shape (sources, 2, samples), adding up to their mixture."""
        remixed = self._chance(self._settings.remix)
        stems = self._remixed(samples) if remixed else self._together(samples)
        return self._master(np.stack([self._vary(stem) for stem in stems]))

    def _chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    def _crop(self, samples: int) -> np.ndarray:
        """All stems of a random place in a random song."""
        path = self._song(int(self._rng.integers(self._songs)))
        start = int(self._rng.integers(song_samples(path) - samples))
        return load_song(path, start, samples)

    def _together(self, samples: int) -> np.ndarray:
        levels = [gain_of(self._settings.level_db * self._rng.normal()) for _ in SOURCES]
        return self._crop(samples) * np.array(levels, np.float32)[:, None, None]

    def _remixed(self, samples: int) -> list[np.ndarray]:
        """Each stem from a song of its own, at about the same level; some are doubled."""
        stems = []
        for source in range(len(SOURCES)):
            stem = self._levelled(self._active_crop(source, samples))
            if self._chance(self._settings.double):
                second = self._levelled(self._active_crop(source, samples))
                stem = stem + second * gain_of(self._rng.uniform(-12, 0))
            stems.append(stem)
        return stems

    def _levelled(self, stem: np.ndarray) -> np.ndarray:
        level = float(np.sqrt(np.mean(stem**2)))
        if level <= 10 * SILENCE:
            return stem
        change_db = np.clip(self._settings.remix_level_db * self._rng.normal(), -9, 6)
        return stem * (gain_of(change_db) * _LEVEL / level)

    def _active_crop(self, source: int, samples: int) -> np.ndarray:
        """A crop of a stem, drawn anew a few times while it is nearly silent."""
        ratio = 1.0
        if self._chance(self._settings.speed):
            ratio = self._rng.uniform(*self._settings.speed_range)
        needed = int(np.ceil(samples * ratio)) + 1
        for _ in range(_TRIES):
            crop = self._crop(needed)[source]
            if np.mean(crop**2) > _QUIET_POWER:
                break
        if ratio == 1.0:
            return crop[:, :samples]
        # Played faster or slower: pitch, tempo and formants move along.
        played = soxr.resample(crop.T, SAMPLE_RATE * ratio, SAMPLE_RATE, quality="MQ").T
        return np.pad(played, ((0, 0), (0, 2)))[:, :samples]

    def _vary(self, stem: np.ndarray) -> np.ndarray:
        if self._chance(self._settings.silence):
            return np.zeros_like(stem)
        if self._chance(self._settings.equaliser):
            stem = equalise_at_random(stem, self._rng)
        if self._chance(self._settings.width):
            middle = stem.mean(axis=0, keepdims=True)
            stem = middle + (stem - middle) * np.float32(self._rng.uniform(0, 1.6))
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
