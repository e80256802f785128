"""Palettes: the sources of sound that a song may use.

`TRAINING` holds what the model is trained on, `UNSEEN` what only the evaluation uses: no sound
source is in both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Palette:
    """Names of sources of sound.

    `soundfonts` play bass and accompaniment, `drum_kits` are those of `kits.play_kit`, `samples`
    are packages of one-shot recordings, `computed` allows the instruments of this project.
    """

    name: str
    soundfonts: tuple[str, ...]
    drum_kits: tuple[str, ...]
    samples: tuple[str, ...]
    speakers: tuple[str, ...]
    computed: bool

    def soundfont(self, rng: np.random.Generator) -> str:
        """Draw a soundfont."""
        return str(rng.choice(self.soundfonts))


TRAINING = Palette(
    name="training",
    soundfonts=("fluid", "musescore"),
    drum_kits=("soundfont fluid", "soundfont musescore", "recordings sonic-pi", "computed"),
    samples=("sonic-pi",),
    speakers=("formants", "flite slt", "flite rms", "flite awb", "flite kal16"),
    computed=True,
)
UNSEEN = Palette(
    name="unseen",
    soundfonts=("timgm6mb", "csound"),
    drum_kits=(
        "soundfont timgm6mb",
        "soundfont csound",
        "soundfont black pearl",
        "soundfont red zeppelin",
        "hydrogen BJA_Pacific",
        "hydrogen ColomboAcousticDrumkit",
        "hydrogen ElectricEmpireKit",
        "hydrogen ForzeeStereo",
        "hydrogen Gimme A Hand 1.0",
        "hydrogen HardElectro1",
        "hydrogen Millo-Drums_v.1",
        "hydrogen Millo_MultiLayered2",
        "hydrogen Millo_MultiLayered3",
        "hydrogen The Black Pearl 1.0",
        "hydrogen VariBreaks",
    ),
    samples=(),
    speakers=(
        "espeak en-us",
        "espeak en-us+f3",
        "espeak en-gb+m3",
        "espeak en-gb+f2",
        "espeak it+f5",
        "espeak it+m7",
        "espeak es+m1",
        "espeak de+f4",
    ),
    computed=False,
)
PALETTES = {palette.name: palette for palette in (TRAINING, UNSEEN)}
