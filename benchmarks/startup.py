"""How soon short commands answer, and how soon the first block of a separation is there.

    python benchmarks/startup.py

Medians of five runs each, in fresh processes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stemlab._assets import demo_song_dir

RUNS = 5
STEMLAB = [sys.executable, "-m", "stemlab"]


def seconds_of(*arguments: str) -> float:
    """A command from its start to its end."""
    started = time.perf_counter()
    subprocess.run([*STEMLAB, *arguments], check=True, capture_output=True)
    return time.perf_counter() - started


def seconds_to_first_block() -> float:
    """Separating the demo song, until the journal of the run says that a block is stored."""
    with tempfile.TemporaryDirectory(prefix="stemlab-startup-") as out:
        started = time.perf_counter()
        song = str(demo_song_dir() / "mixture.flac")
        command = [*STEMLAB, "separate", song, "--out", out]
        with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
            while not any(
                each.read_bytes().count(b"\n") > 1
                for each in Path(out).glob(".stemlab-*.partial/journal")
            ):
                if process.poll() is not None:
                    raise SystemExit("the command ended before a block was seen")
                time.sleep(0.01)
            taken = time.perf_counter() - started
            process.kill()
    return taken


def main() -> None:
    """Measure and print."""
    for what, measure in (
        ("stemlab --help", lambda: seconds_of("--help")),
        ("stemlab models list", lambda: seconds_of("models", "list")),
        ("first block of the demo song", seconds_to_first_block),
    ):
        print(f"{what}: {statistics.median(measure() for _ in range(RUNS)):.2f} s")


if __name__ == "__main__":
    main()
