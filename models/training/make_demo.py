"""Write the demo song: mixture.flac and its four stems, 16 bit.

Usage::

    python make_demo.py
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import soundfile
from places import DEMO
from songs import to_int16
from synth import SAMPLE_RATE, SOURCES, render_song, stem_levels_db

# README.md says which seeds are for what. Of five that were tried, the one that the model separates
# best: it is there to show what separation is, not how good the model is.
DEMO_SEED = 2_000_000
SECONDS = 24.0
FADE_SECONDS = 1.5


def demo_stems(seed: int) -> np.ndarray:
    """Stems of shape (sources, 2, samples) as int16, faded out at the end."""
    stems = render_song(seed, SECONDS, full=True).stems
    # Saturation leaves an offset, which a separator that normalises as Demucs does gives to every
    # stem, and a spectrogram shows.
    stems = stems - stems.mean(axis=-1, keepdims=True)
    fade = np.ones(stems.shape[-1])
    fade[-int(FADE_SECONDS * SAMPLE_RATE) :] = np.linspace(1, 0, int(FADE_SECONDS * SAMPLE_RATE))
    return to_int16(stems * fade)


def write_demo(folder: Path, seed: int) -> dict[str, float]:
    """Write the five files; returns the level of each stem in dB."""
    stems = demo_stems(seed)
    mixture = stems.sum(axis=0, dtype=np.int32)
    if np.abs(mixture).max() > 32767:
        raise ValueError(f"the demo song of seed {seed} clips; choose another seed")
    folder.mkdir(parents=True, exist_ok=True)
    tracks = {"mixture": mixture.astype(np.int16), **dict(zip(SOURCES, stems, strict=True))}
    for name, track in tracks.items():
        soundfile.write(
            folder / f"{name}.flac", track.T, SAMPLE_RATE, subtype="PCM_16", compression_level=1.0
        )
    return stem_levels_db(stems.astype(np.float32) / 32768)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=DEMO)
    parser.add_argument("--seed", type=int, default=DEMO_SEED)
    options = parser.parse_args()
    levels = write_demo(options.folder, options.seed)
    print(", ".join(f"{source} {db:.1f} dB" for source, db in levels.items()))


if __name__ == "__main__":
    main()
