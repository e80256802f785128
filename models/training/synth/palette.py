"""Palettes: the sources of sound that a song may use.

`TRAINING` holds what the model is trained on, `UNSEEN` what only the evaluation uses: no sound
source is in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Palette:
    """Names of soundfonts and speakers; `computed` allows the instruments of this project."""

    name: str
    soundfonts: tuple[str, ...]
    speakers: tuple[str, ...]
    computed: bool

    def soundfont(self, rng: np.random.Generator) -> str:
        """Draw a soundfont."""
        return str(rng.choice(self.soundfonts))


TRAINING = Palette(
    name="training",
    soundfonts=("fluid", "musescore"),
    speakers=("formants", "flite slt", "flite rms", "flite awb", "flite kal16"),
    computed=True,
)
UNSEEN = Palette(
    name="unseen",
    soundfonts=("timgm6mb", "csound"),
    speakers=("espeak en-us", "espeak en-gb"),
    computed=False,
)
PALETTES = {palette.name: palette for palette in (TRAINING, UNSEEN)}
