"""Synthesise songs into a folder; those already there are kept.

Usage::

    python synthesise.py FOLDER --count 169 --first-seed 1
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

import numpy as np
from songs import save_song, song_path
from synth import PALETTES, Palette, render_song, stem_levels_db

_log = logging.getLogger("synthesise")


def synthesise(folder: Path, seeds: list[int], seconds: float, palette: Palette) -> None:
    """Render the songs of the seeds that are not there yet."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        if song_path(folder, seed).exists():
            continue
        started = time.perf_counter()
        song = render_song(seed, seconds, palette=palette)
        if not np.isfinite(song.stems).all():
            raise ValueError(f"song {seed} is not finite")
        save_song(song, folder)
        levels = " ".join(f"{s} {db:.0f}" for s, db in stem_levels_db(song.stems).items())
        _log.info(
            "song %d, %.0f bpm, %s dB, %.1f s",
            seed,
            song.score.tempo_bpm,
            levels,
            time.perf_counter() - started,
        )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=169)
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--step", type=int, default=1, help="for several processes side by side")
    parser.add_argument("--seconds", type=float, default=32.0)
    parser.add_argument("--palette", choices=PALETTES, default="training")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    last = options.first_seed + options.count
    seeds = list(range(options.first_seed, last, options.step))
    synthesise(options.folder, seeds, options.seconds, PALETTES[options.palette])


if __name__ == "__main__":
    main()
