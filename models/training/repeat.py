"""Train the first steps again and compare their losses with the recorded ones.

Usage::

    python repeat.py --songs SONGS_FOLDER

Missing songs are synthesised. Exits with 1 where a loss differs by more than the tolerance.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from configuration import read_configuration
from machine import prepare
from places import CONFIGURATION, MODELS
from train import Trainer, batches

# Of one loss; from step to step they vary by 0.2. Another CPU or another number of threads rounds
# differently, and training amplifies it.
TOLERANCE = 0.05


def worst_difference(losses: list[float], recorded: list[float]) -> tuple[int, float]:
    """The step, from 1, whose loss differs most from the recorded one, and by how much."""
    differences = [abs(now - then) for now, then in zip(losses, recorded, strict=True)]
    worst = max(range(len(differences)), key=differences.__getitem__)
    return worst + 1, differences[worst]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=Path, required=True)
    parser.add_argument("--configuration", type=Path, default=CONFIGURATION)
    parser.add_argument("--recorded", type=Path, help="default: training.json of the model")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    prepare(options.threads)
    configuration = read_configuration(options.configuration)
    path = options.recorded or MODELS / configuration.model.name / "training.json"
    recorded = json.loads(path.read_text(encoding="utf-8"))["first_losses"][: options.steps]
    trainer = Trainer(configuration, options.device)
    stems = batches(configuration, options.songs, range(len(recorded)))
    losses = [trainer.train_step(batch) for batch in stems]
    step, difference = worst_difference(losses, recorded)
    print(f"{len(losses)} losses; the largest difference is {difference:.2e}, at step {step}")
    return int(difference > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
