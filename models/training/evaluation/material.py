"""What a model is evaluated on: held-out songs, the demo song, and stempeg's example song.

stempeg's song (CC BY-NC-SA) is used only here: it is neither trained on nor shipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from places import DEMO
from songs import load_song, song_folder, song_path
from synth import PALETTES, SAMPLE_RATE, SOURCES
from synthesise import synthesise

# Of the songs that are synthesised for the evaluation.
SONG_SECONDS = 24.0


@dataclass(frozen=True)
class Track:
    """A song to measure on; `path` only where it was synthesised for the evaluation."""

    material: str
    path: Path | None = None

    def __str__(self) -> str:
        return self.material if self.path is None else f"{self.material} {self.path.stem}"

    def load(self) -> tuple[np.ndarray, np.ndarray]:
        """Stems (sources, 2, samples) and mixture (2, samples)."""
        if self.material == "real, released":
            return real_song()
        if self.path is not None:
            stems = load_song(self.path)
        else:
            stems = demo_song() if self.material == "demo" else real_song()[0]
        return stems, stems.sum(axis=0)

    def excerpt(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """The part in which the source that is quietest there is loudest."""
        stems, mixture = self.load()
        samples = int(seconds * SAMPLE_RATE)
        starts = range(0, max(mixture.shape[1] - samples, 0) + 1, SAMPLE_RATE)
        start = max(starts, key=lambda s: np.square(stems[:, :, s : s + samples]).sum((1, 2)).min())
        return stems[:, :, start : start + samples], mixture[:, start : start + samples]


def synthesised(folder: Path, material: str, palette: str, seed: int) -> Track:
    """The song of a seed, made unless it is there."""
    synthesise(folder, [seed], SONG_SECONDS, PALETTES[palette])
    return Track(material, song_path(song_folder(folder, PALETTES[palette]), seed))


def demo_song() -> np.ndarray:
    """Stems of the demo song."""
    stems = [soundfile.read(DEMO / f"{s}.flac", dtype="float32")[0].T for s in SOURCES]
    return np.stack(stems)


def real_song() -> tuple[np.ndarray, np.ndarray]:
    """stempeg's example as stems and released mixture."""
    import stempeg

    tracks, rate = stempeg.read_stems(stempeg.example_stem_path())
    if rate != SAMPLE_RATE:
        raise ValueError(f"stempeg's example is at {rate} Hz, expected {SAMPLE_RATE}")
    tracks = tracks.transpose(0, 2, 1).astype(np.float32)
    return tracks[1:], tracks[0]


def unlike_training(mixture: np.ndarray) -> dict[str, np.ndarray]:
    """The same music made unlike the training songs, to see whether the stems still add up."""
    loud = mixture / (np.abs(mixture).max() + 1e-9)
    noise = np.random.default_rng(0).standard_normal(mixture.shape)
    altered = {
        "mono": np.repeat(mixture.mean(axis=0, keepdims=True), 2, axis=0),
        "limited": np.tanh(8 * loud),
        "clipped": np.clip(4 * loud, -1, 1),
        "left only": mixture * np.array([[1.0], [0.0]]),
        "right flipped": mixture * np.array([[1.0], [-0.9]]),
        "-50 dB": loud * 10**-2.5,
        "+40 dB": loud * 100,
        "noise": 0.1 * noise,
    }
    return {name: audio.astype(np.float32) for name, audio in altered.items()}
