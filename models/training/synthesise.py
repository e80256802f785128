"""Synthesise songs into a folder; those already there are kept.

Usage::

    python synthesise.py FOLDER [--count N --first-seed N --palette unseen]
"""

from __future__ import annotations

import argparse
import logging
import time
from pathlib import Path

from configuration import read_configuration
from places import CONFIGURATION
from songs import render_into, song_folder, song_path
from synth import PALETTES, Palette, stem_levels_db

_log = logging.getLogger("synthesise")


def synthesise(folder: Path, seeds: list[int], seconds: float, palette: Palette) -> None:
    """Render the songs of the seeds that are not there yet."""
    folder = song_folder(folder, palette)
    for seed in seeds:
        if song_path(folder, seed).exists():
            continue
        started = time.perf_counter()
        song = render_into(folder, seed, seconds, palette)
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
    songs = read_configuration(CONFIGURATION).songs
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=songs.count)
    parser.add_argument("--first-seed", type=int, default=songs.first_seed)
    parser.add_argument("--step", type=int, default=1, help="for several processes side by side")
    parser.add_argument("--seconds", type=float, default=songs.seconds)
    parser.add_argument("--palette", choices=PALETTES, default="training")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    last = options.first_seed + options.count
    seeds = list(range(options.first_seed, last, options.step))
    synthesise(options.folder, seeds, options.seconds, PALETTES[options.palette])


if __name__ == "__main__":
    main()
