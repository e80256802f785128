"""Parts: notes given to instruments and their channel of the mixing desk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import composition
from .composition import Note, Score
from .effects import (
    SAMPLE_RATE,
    butterworth,
    compress,
    equalise,
    equalise_at_random,
    gain_of,
    level_to,
    pan,
    reverberate,
    saturate,
    shift,
    widen,
)
from .instruments import DrumMachine, SynthPatch, distorted_guitar, play_line, plucked_line
from .palette import Palette
from .soundfont import DRUM_KITS, play_drums, play_notes

# General MIDI programs (from 0) of each accompanying role.
_PROGRAMS = {
    "chords": (0, 1, 2, 4, 5, 6, 7, 11, 15, 16, 17, 18, 21, 24, 25, 26, 27, 28),
    "pad": (16, 19, 44, 48, 49, 50, 51, 61, 88, 89, 90, 91, 92, 94, 95),
    "arpeggio": (0, 4, 8, 9, 10, 11, 12, 13, 24, 25, 27, 45, 46, 80, 81, 84, 104, 107),
    "lead": (22, 26, 29, 30, 40, 41, 56, 57, 60, 64, 65, 66, 68, 71, 73, 75, 78, 80, 81, 82, 87),
    "power": (29, 30),
    "stabs": (48, 55, 61, 62, 63),
}
_ROLE_WEIGHTS = (0.3, 0.18, 0.17, 0.14, 0.14, 0.07)
_SYNTH_ROLES = ("pad", "arpeggio", "lead", "stabs")
_BASS_PROGRAMS = (32, 33, 33, 34, 34, 35, 36, 37, 38, 39)


def drums(score: Score, palette: Palette, rng: np.random.Generator) -> np.ndarray:
    """Sampled kit, drum machine or both."""
    hits = composition.drum_hits(score, rng)
    source = rng.choice(["sampled", "machine", "both"], p=[0.6, 0.25, 0.15])
    audio = np.zeros((2, score.samples), np.float32)
    if source != "machine":
        kit = int(rng.choice(DRUM_KITS))
        audio += level_to(
            play_drums(hits, score.samples, soundfont=palette.soundfont(rng), kit=kit)
        )
    if source != "sampled":
        audio += level_to(DrumMachine(rng).play(hits, score.samples), rng.uniform(0.04, 0.1))
    audio = equalise_at_random(audio, rng)
    if rng.random() < 0.6:
        audio = compress(level_to(audio), rng.uniform(-24, -14), rng.uniform(1.5, 5))
    if rng.random() < 0.3:
        audio = saturate(audio, rng.uniform(1, 4))
    if rng.random() < 0.6:
        seconds, wet = rng.uniform(0.2, 1.2), rng.uniform(0.03, 0.2)
        audio = reverberate(audio, rng, seconds=seconds, wet=wet)
    return audio


def bass(score: Score, palette: Palette, rng: np.random.Generator) -> np.ndarray:
    """Sampled, synthesised or plucked bass, mostly in the middle."""
    notes = composition.bass_notes(score, rng)
    source = rng.choice(["sampled", "synth", "plucked"], p=[0.5, 0.35, 0.15])
    if source == "sampled":
        program = int(rng.choice(_BASS_PROGRAMS))
        audio = play_notes(notes, score.samples, soundfont=palette.soundfont(rng), program=program)
        if rng.random() < 0.7:
            audio = pan(audio.mean(axis=0), 0)
    elif source == "synth":
        audio = pan(play_line(notes, score.samples, SynthPatch.random(rng, "bass").voice), 0)
    else:
        audio = pan(plucked_line(notes, score.samples, rng), 0)
    audio = equalise(
        level_to(audio),
        ("low", rng.uniform(80, 200), 0.7, 3 * rng.normal()),
        ("peak", rng.uniform(300, 1500), 1.0, 4 * rng.normal()),
        ("high", 3000, 0.7, 5 * rng.normal()),
    )
    if rng.random() < 0.5:
        audio = compress(audio, rng.uniform(-24, -16), rng.uniform(2, 6))
    if rng.random() < 0.4:
        audio = saturate(audio, rng.uniform(1, 7))
    return audio


def other(score: Score, palette: Palette, rng: np.random.Generator) -> np.ndarray:
    """Two to four accompanying roles."""
    count = int(rng.integers(2, 5))
    roles = rng.choice(list(_PROGRAMS), size=count, replace=False, p=_ROLE_WEIGHTS)
    audio = np.zeros((2, score.samples), np.float32)
    for role in roles:
        notes = composition.accompaniment_notes(score, rng, str(role))
        level_db = 3.5 * rng.normal() - 3 * (role == "pad")
        audio += level_to(_accompany(score, palette, rng, str(role), notes)) * gain_of(level_db)
    if rng.random() < 0.4:
        audio = compress(level_to(audio), rng.uniform(-22, -14), rng.uniform(1.5, 3))
    return audio


def _accompany(
    score: Score, palette: Palette, rng: np.random.Generator, role: str, notes: Sequence[Note]
) -> np.ndarray:
    """One accompanying instrument with its effects."""
    choice = rng.random()
    if role == "power" and choice < 0.6:
        audio = _spread(distorted_guitar(notes, score.samples, rng), rng)
    elif role in _SYNTH_ROLES and choice < 0.3:
        patch = SynthPatch.random(rng, "pad" if role == "pad" else "lead")
        audio = _spread(play_line(notes, score.samples, patch.voice), rng)
    elif role in ("chords", "arpeggio") and choice > 0.88:
        audio = _spread(plucked_line(notes, score.samples, rng), rng)
    else:
        program = int(rng.choice(_PROGRAMS[role]))
        audio = play_notes(notes, score.samples, soundfont=palette.soundfont(rng), program=program)
        audio = pan(audio, rng.uniform(-0.7, 0.7))
        if rng.random() < 0.12:
            audio = saturate(level_to(audio), rng.uniform(3, 15))
    if role == "lead" and rng.random() < 0.4:
        audio = audio + 0.3 * shift(audio, int(0.75 * score.beat_seconds * SAMPLE_RATE))
    audio = butterworth(audio, "highpass", rng.uniform(40, 180), 1)
    audio = equalise_at_random(audio, rng, 5)
    if rng.random() < 0.5:
        seconds, wet = rng.uniform(0.3, 2.2), rng.uniform(0.05, 0.35)
        audio = reverberate(audio, rng, seconds=seconds, wet=wet)
    return audio


def _spread(mono: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.45:
        return widen(mono, int(rng.uniform(100, 900)))
    return pan(mono, rng.uniform(-0.8, 0.8))
