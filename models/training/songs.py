"""Songs on disk: one 16-bit FLAC of eight channels, a stereo pair for each source."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import soundfile
from synth import SAMPLE_RATE, SOURCES, Song

_NAME = re.compile(r"song-(\d{7})\.flac")


def song_path(folder: Path, seed: int) -> Path:
    """Where the song of a seed lies."""
    return folder / f"song-{seed:07d}.flac"


def song_paths(folder: Path) -> list[Path]:
    """All finished songs in a folder, by seed."""
    return sorted(path for path in folder.glob("song-*.flac") if _NAME.fullmatch(path.name))


def to_int16(audio: np.ndarray) -> np.ndarray:
    """Round to 16 bits."""
    return np.clip(np.round(audio * 32768), -32768, 32767).astype(np.int16)


def save_song(song: Song, folder: Path) -> Path:
    """Write a song; it takes its name only when it is complete."""
    path = song_path(folder, song.seed)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    channels = to_int16(song.stems).reshape(2 * len(SOURCES), -1).T
    soundfile.write(
        unfinished, channels, SAMPLE_RATE, format="FLAC", subtype="PCM_16", compression_level=0.0
    )
    unfinished.replace(path)
    return path


def load_song(path: Path) -> np.ndarray:
    """Stems as int16 of shape (sources, 2, samples)."""
    channels, rate = soundfile.read(path, dtype="int16", always_2d=True)
    if rate != SAMPLE_RATE or channels.shape[1] != 2 * len(SOURCES):
        raise ValueError(f"{path}: {rate} Hz, {channels.shape[1]} channels; not a song of ours")
    return np.ascontiguousarray(channels.T).reshape(len(SOURCES), 2, -1)


def as_float(stems: np.ndarray) -> np.ndarray:
    """int16 to float32 in [-1, 1)."""
    return stems.astype(np.float32) / 32768
