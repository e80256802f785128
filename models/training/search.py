"""Compare settings by short trainings of equal processor time, before the long one.

Usage::

    python search.py OUT.json --songs SONGS_FOLDER --validation HELDOUT_FOLDER [--seconds 400]

Every variant of `search.toml` is trained from the same seed on the same examples and scored on the
held-out songs. Finished variants stand in OUT.json and are not run again.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from configuration import Configuration, read_configuration
from machine import prepare
from places import CONFIGURATION, TRAINING
from songs import song_folder
from synth import SOURCES
from synth import TRAINING as PALETTE
from train import Trainer, batches, scores_of

_TIMED_STEPS = 8


def variant(configuration: Configuration, changes: dict[str, dict[str, Any]]) -> Configuration:
    """The configuration with some settings of its tables changed."""
    model = configuration.model
    arguments = {**model.arguments, **changes.get("model", {})}
    training = replace(configuration.training, **changes.get("training", {}))
    return replace(configuration, model=replace(model, arguments=arguments), training=training)


def steps_within(configuration: Configuration, songs: Path, seconds: float) -> int:
    """How many steps this processor makes in so many seconds of its time."""
    trainer = Trainer(configuration)
    seconds_each = []
    # Not the mixing: songs that are missing are synthesised on the way.
    for stems in batches(configuration, songs, range(1 + _TIMED_STEPS)):
        started = time.process_time()
        trainer.train_step(stems)
        seconds_each.append(time.process_time() - started)
    return int(seconds / statistics.median(seconds_each))


def measure(
    configuration: Configuration, songs: Path, validation: Path, seconds: float
) -> dict[str, Any]:
    """Train within the time and score."""
    steps = steps_within(configuration, songs, seconds)
    training = replace(configuration.training, steps=steps)
    configuration = replace(configuration, training=training)
    trainer = Trainer(configuration)
    for stems in batches(configuration, songs, range(steps)):
        trainer.train_step(stems)
    scores = scores_of(trainer, song_folder(validation, PALETTE))

    def mean_of(figure: str) -> float:
        return round(sum(scores[source][figure] for source in SOURCES) / len(SOURCES), 2)

    parameters = sum(weight.numel() for weight in trainer.network.parameters())
    return {
        "steps": steps,
        "parameters": parameters,
        "sdr_db": mean_of("sdr"),
        "si_sdr_gain_db": mean_of("si_sdr_gain"),
        "residual_db": round(scores["residual"], 2),
    }


def finished(out: Path) -> dict[str, Any]:
    """Results so far; read anew each time, since several searches may share the file."""
    return json.loads(out.read_text("utf-8")) if out.exists() else {}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--songs", type=Path, required=True)
    parser.add_argument("--validation", type=Path, required=True)
    parser.add_argument("--seconds", type=float, default=400.0, help="of one core, per variant")
    parser.add_argument("--only", nargs="*", help="names of variants")
    options = parser.parse_args()
    prepare(threads=1)
    base = read_configuration(CONFIGURATION)
    variants = tomllib.loads((TRAINING / "search.toml").read_text(encoding="utf-8"))
    for name, changes in variants.items():
        if name in finished(options.out) or (options.only and name not in options.only):
            continue
        result = measure(variant(base, changes), options.songs, options.validation, options.seconds)
        results = {**finished(options.out), name: result}
        options.out.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        print(name, result)


if __name__ == "__main__":
    main()
