"""Songs on disk: one 16-bit WAV of eight channels, a stereo pair for each source.

Uncompressed, so that the training reads crops without decoding or holding songs in memory.
"""

from __future__ import annotations

import hashlib
import os
import re
from functools import cache
from pathlib import Path

import numpy as np
import soundfile
from synth import SAMPLE_RATE, SOURCES, Palette, Song, render_song

_NAME = re.compile(r"song-(\d{7})\.wav")


@cache
def fingerprint() -> str:
    """Digest of the synthesiser: songs of another version are not used again."""
    digest = hashlib.sha256()
    for path in sorted((Path(__file__).parent / "synth").glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]


def song_folder(folder: Path, palette: Palette) -> Path:
    """Where, in a folder, the songs of a palette and of this version of the synthesiser lie."""
    return folder / f"{palette.name}-{fingerprint()}"


def song_path(folder: Path, seed: int) -> Path:
    """Where the song of a seed lies."""
    return folder / f"song-{seed:07d}.wav"


def song_paths(folder: Path) -> list[Path]:
    """All finished songs in a folder, by seed."""
    return sorted(path for path in folder.glob("song-*.wav") if _NAME.fullmatch(path.name))


def to_int16(audio: np.ndarray) -> np.ndarray:
    """Round to 16 bits."""
    return np.clip(np.round(audio * 32768), -32768, 32767).astype(np.int16)


def save_song(song: Song, folder: Path) -> Path:
    """Write a song; it takes its name only when it is complete."""
    path = song_path(folder, song.seed)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    channels = to_int16(song.stems).reshape(2 * len(SOURCES), -1).T
    try:
        soundfile.write(unfinished, channels, SAMPLE_RATE, format="WAV", subtype="PCM_16")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def song_samples(path: Path) -> int:
    """Length of a song."""
    return soundfile.info(path).frames


def load_song(path: Path, start: int = 0, samples: int | None = None) -> np.ndarray:
    """Stems as float32 in [-1, 1) of shape (sources, 2, samples), whole or a crop."""
    stop = None if samples is None else start + samples
    channels, rate = soundfile.read(path, start=start, stop=stop, dtype="float32", always_2d=True)
    if rate != SAMPLE_RATE or channels.shape[1] != 2 * len(SOURCES):
        raise ValueError(f"{path}: {rate} Hz, {channels.shape[1]} channels; not a song of ours")
    return np.ascontiguousarray(channels.T).reshape(len(SOURCES), 2, -1)


def render_into(folder: Path, seed: int, seconds: float, palette: Palette) -> Song:
    """Synthesise the song of a seed and write it."""
    song = render_song(seed, seconds, palette=palette)
    if not np.isfinite(song.stems).all():
        raise ValueError(f"song {seed} is not finite")
    folder.mkdir(parents=True, exist_ok=True)
    save_song(song, folder)
    return song
