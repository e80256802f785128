"""What it takes to compare two songs of ten minutes: spectrograms, differences and the picture.

    python benchmarks/compare.py comparison.png

Runs in this process, which should be a fresh one: its peak memory is what is told.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

from stemlab import compare_spectrograms
from stemlab.results import peak_memory_bytes

RATE = 44_100


def song(seed: int, seconds: int) -> np.ndarray:
    """Noise that swells and fades, in stereo; made piece by piece, for a low peak of memory."""
    generator = np.random.default_rng(seed)
    audio = np.empty((2, seconds * RATE), np.float32)
    for second in range(seconds):
        piece = audio[:, second * RATE : (second + 1) * RATE]
        generator.standard_normal(dtype=np.float32, out=(noise := np.empty_like(piece)))
        piece[:] = noise * np.float32(0.1 + 0.05 * np.sin(second))
    return audio


def main() -> None:
    """Compare, save the picture, and print seconds and memory."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("picture")
    parser.add_argument("--seconds", type=int, default=600, help="length of a song (600)")
    options = parser.parse_args()
    songs = {f"song {seed}": song(seed, options.seconds) for seed in (1, 2)}
    audio = sum(each.nbytes for each in songs.values())
    started = time.perf_counter()
    axes = compare_spectrograms(songs, RATE)
    measured = time.perf_counter()
    axes[0, 0].figure.savefig(options.picture, dpi=110)
    saved = time.perf_counter()
    print(
        f"{len(songs)} stereo songs of {options.seconds} s: {saved - started:.1f} s, "
        f"{saved - measured:.1f} s of it to save the picture"
    )
    peak = peak_memory_bytes()
    if peak is not None:
        print(
            f"peak memory {peak / 1e6:.0f} MB: {(peak - audio) / 1e6:.0f} MB above the audio, "
            "Python and libraries included"
        )


if __name__ == "__main__":
    main()
