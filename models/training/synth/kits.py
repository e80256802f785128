"""Drum kits: hits given to the sounds of one source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .composition import Hit
from .effects import gain_of, pan, place, resample
from .instruments import drum_machine
from .samples import hydrogen_kit, sonic_pi_kit
from .soundfont import DRUM_KITS, play_drums

ELECTRONIC_KITS = (
    "computed",
    "recordings sonic-pi",
    "hydrogen ElectricEmpireKit",
    "hydrogen HardElectro1",
    "hydrogen VariBreaks",
)
_CENTRED = ("kick", "snare", "clap")
# What plays instead of a drum that a kit lacks.
_INSTEAD = {
    "crash": ("ride", "open hat"),
    "ride": ("crash", "hat"),
    "open hat": ("hat",),
    "hat": ("shaker", "open hat"),
    "clap": ("snare",),
    "rim": ("snare",),
    "low tom": ("mid tom", "kick"),
    "mid tom": ("low tom", "high tom", "snare"),
    "high tom": ("mid tom", "snare"),
}


def play_kit(name: str, hits: Sequence[Hit], samples: int, rng: np.random.Generator) -> np.ndarray:
    """Play on a kit of the palette, such as ``soundfont fluid``; shape (2, samples)."""
    kind, _, which = name.partition(" ")
    if kind == "soundfont":
        kit = int(rng.choice(DRUM_KITS[which]))
        return play_drums(hits, samples, soundfont=which, kit=kit)
    sounds = {
        "computed": drum_machine,
        "recordings": sonic_pi_kit,
        "hydrogen": lambda rng: hydrogen_kit(which, rng),
    }[kind](rng)
    return _play(sounds, hits, samples, rng)


def _play(
    sounds: Mapping[str, Sequence[np.ndarray]],
    hits: Sequence[Hit],
    samples: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Choose the layer by velocity; no two strokes are quite the same."""
    canvas = np.zeros((2, samples), np.float32)
    drums = sorted(sounds)
    positions = {drum: 0.0 if drum in _CENTRED else rng.uniform(-0.6, 0.6) for drum in drums}
    gains = {drum: gain_of(2 * rng.normal()) for drum in drums}
    steepness, jitter = rng.uniform(1, 2.5), rng.uniform(0, 1.5)
    strokes: dict[tuple[str, int, int], np.ndarray] = {}
    for hit in hits:
        drum = next((d for d in (hit.drum, *_INSTEAD.get(hit.drum, ())) if d in sounds), None)
        if drum is None:
            continue
        layers = sounds[drum]
        layer = int(np.clip(hit.velocity / 127 * len(layers) + 0.3 * rng.normal(), 0, None))
        key = (drum, min(layer, len(layers) - 1), int(rng.integers(3)))
        if key not in strokes:
            tuned = resample(layers[key[1]], 2 ** (0.12 * (key[2] - 1) / 12))
            strokes[key] = pan(tuned * gains[drum], positions[drum])
        level = (hit.velocity / 110) ** (steepness if len(layers) < 3 else 1) * gain_of(
            jitter * rng.normal()
        )
        place(canvas, strokes[key] * np.float32(level), hit.start)
    return canvas
