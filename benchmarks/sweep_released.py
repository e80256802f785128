"""What settings cost on the released architectures: time and memory, with random weights.

    python benchmarks/sweep_released.py htdemucs benchmarks/sweeps/htdemucs.csv

The stems are noise, so nothing is said of their quality. For real weights, add the model and type
``stemlab sweep SONG --model htdemucs --memory``.
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import released

from stemlab import plan_sweep, write_sweep
from stemlab.sweeps import SweepProgress

RATE = 44_100
GRIDS = {
    "htdemucs": {
        "model": released.htdemucs,
        "seconds": 15.6,
        "segments": [1.95, 3.9, 7.8],
        "overlaps": [0.0, 0.25, 0.5],
        "padded": [True, False],
    },
    "hdemucs_mmi": {
        "model": released.hdemucs_mmi,
        "seconds": 44.0,
        "segments": [5.5, 11.0, 22.0, 44.0],
        "overlaps": [0.0, 0.25],
        "padded": [False],
    },
}


def tell(event: SweepProgress) -> None:
    """Keep one line up to date."""
    print(f"\r{event.done}/{event.total} {event.running}\033[K", end="", file=sys.stderr)


def main() -> None:
    """Sweep one architecture and write its table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("architecture", choices=GRIDS)
    parser.add_argument("file")
    options = parser.parse_args()
    grid = dict(GRIDS[options.architecture])
    samples = int(grid.pop("seconds") * RATE)
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, samples)).astype(np.float32)
    sweep = plan_sweep(
        noise,
        models={f"{options.architecture} (random weights)": grid.pop("model")},
        sample_rate=RATE,
        excerpt_seconds=None,
        memory=True,
        agreement=False,
        **grid,
    )
    results = sweep.run(progress=tell)
    # Cost alone: what random weights make is no music.
    quality = [name for name in results.columns if name.endswith("_db")]
    results = results.drop_duplicates([*results.columns[:5]]).assign(
        **dict.fromkeys(quality, np.nan), source="all", worst_seam_seconds=np.nan
    )
    write_sweep(results, options.file)
    columns = ["segment_seconds", "overlap", "padded", "calls", "network_seconds", "rtf"]
    print(results[[*columns, "peak_memory_bytes", "error"]].to_string(index=False))


if __name__ == "__main__":
    main()
