"""The configuration file of a training, read into frozen dataclasses."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Model:
    """Name and architecture; `arguments` go to the class of the network."""

    name: str
    title: str
    architecture: str
    segment_policy: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Songs:
    """The synthesised songs, of consecutive seeds.

    The first steps draw from `at_start` songs, and the pool grows evenly to `count` at the step
    `complete_at`: synthesis and training run side by side, and what a step sees does not depend on
    which of them is faster.
    """

    first_seed: int
    count: int
    seconds: float
    at_start: int
    complete_at: int

    def known_at(self, step: int) -> int:
        """Size of the pool at a step."""
        return self.at_start + (self.count - self.at_start) * min(step, self.complete_at) // (
            self.complete_at
        )


@dataclass(frozen=True)
class Training:
    """Schedule, optimiser and loss."""

    seed: int
    steps: int
    batch_size: int
    crop_seconds: tuple[float, ...]
    crop_weights: tuple[float, ...]
    learning_rate: float
    final_share: float
    warm_up_steps: int
    decay_from: float
    betas: tuple[float, float]
    clip_norm: float
    ema_decay: float
    loss: str
    consistency: float
    checkpoint_steps: int
    validation_steps: int
    validation_seconds: float

    def rate(self, step: int) -> float:
        """Learning rate: linear warm-up, constant, then linear decay."""
        share = min(1.0, (step + 1) / self.warm_up_steps)
        late = (step / self.steps - self.decay_from) / (1 - self.decay_from)
        fall = 1.0 - (1.0 - self.final_share) * min(max(late, 0.0), 1.0)
        return self.learning_rate * share * fall


@dataclass(frozen=True)
class Mixing:
    """How crops are mixed; plain numbers are probabilities, `*_db` are standard deviations."""

    remix: float
    remix_level_db: float
    level_db: float
    speed: float
    speed_range: tuple[float, float]
    double: float
    width: float
    equaliser: float
    swap: float
    flip: float
    silence: float
    solo: float
    noise: float
    mono: float
    limiter: float
    low_pass: float


@dataclass(frozen=True)
class Configuration:
    """The four tables of a configuration file."""

    model: Model
    songs: Songs
    training: Training
    mixing: Mixing


def read_configuration(path: Path) -> Configuration:
    """Read a TOML file; an unknown or missing name is an error."""
    tables = tomllib.loads(path.read_text(encoding="utf-8"))
    read = Configuration(
        **{name: _read(kind, tables.pop(name, {}), path) for name, kind in _TABLES.items()}
    )
    if tables:
        raise ValueError(f"{path} has unknown tables: {', '.join(tables)}. Remove them.")
    longest = max(read.training.crop_seconds) * max(read.mixing.speed_range)
    if longest >= read.songs.seconds:
        raise ValueError(
            f"{path}: songs.seconds={read.songs.seconds:g} must be more than the longest crop at "
            f"the highest speed, {longest:g} s. Make songs longer or crops shorter."
        )
    return read


_TABLES = {"model": Model, "songs": Songs, "training": Training, "mixing": Mixing}


def _read(kind: Any, table: dict[str, Any], path: Path) -> Any:
    known = {field.name for field in fields(kind)}
    if table.keys() != known:
        wrong = ", ".join(sorted(table.keys() ^ known))
        raise ValueError(f"{path}: unknown or missing in [{kind.__name__.lower()}]: {wrong}.")
    # Lists of arguments stay lists, as JSON has them.
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in table.items()})
