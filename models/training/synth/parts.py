"""Parts: notes given to instruments and their channel of the mixing desk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import composition
from .composition import Hit, Note, Score
from .effects import (
    SAMPLE_RATE,
    butterworth,
    compress,
    compress_beside,
    crush,
    duck,
    echo,
    equalise,
    equalise_at_random,
    gain_of,
    level_to,
    log_uniform,
    pan,
    reverberate,
    reverberate_gated,
    saturate,
    shape_transients,
    widen,
)
from .instruments import SynthPatch, amplify, gliding_line, play_line, plucked_line
from .kits import ELECTRONIC_KITS, play_kit
from .modulation import modulate_at_random, sweep, wave
from .palette import Palette
from .samples import SONIC_PI_BASSES, SONIC_PI_TONES, play_one_shots, play_textures, sonic_pi
from .soundfont import play_notes, play_transposed

# General MIDI programs (from 0) of each accompanying role.
_PROGRAMS = {
    "chords": (0, 0, 1, 2, 3, 4, 4, 5, 5, 6, 7, 11, 15, 16, 17, 18, 18, 21, 24, 25, 26, 27, 28),
    "strum": (24, 24, 25, 25, 25, 26, 27, 27, 28, 15, 105),
    "pad": (16, 19, 20, 44, 48, 48, 49, 50, 51, 60, 61, 88, 89, 90, 91, 92, 93, 94, 95, 97, 99),
    "arpeggio": (0, 4, 8, 9, 10, 11, 12, 13, 24, 25, 27, 45, 46, 80, 81, 84, 98, 104, 107, 108),
    "lead": (
        *(0, 4, 11, 16, 18, 21, 22, 26, 27, 29, 30, 40, 40, 41, 42, 56, 57, 59, 60, 64, 65, 66, 67),
        *(68, 69, 70, 71, 73, 74, 75, 78, 79, 80, 81, 82, 84, 87, 105, 110, 114),
    ),
    "power": (29, 30, 30),
    "riff": (0, 1, 3, 4, 5, 7, 16, 18, 25, 26, 27, 27, 28, 29, 30, 30, 42, 57, 61, 66, 67, 70, 81),
    "stabs": (7, 16, 18, 48, 55, 61, 61, 62, 63, 56, 0, 5, 27, 28, 90),
    "texture": (88, 91, 93, 94, 95, 96, 97, 98, 99, 100, 101, 102, 103),
}
_SYNTH_ROLES = {"pad": "pad", "arpeggio": "pluck", "lead": "lead", "stabs": "pluck", "riff": "lead"}
_GUITAR_PROGRAMS = range(24, 31)
_BASS_PROGRAMS = (32, 33, 33, 33, 34, 34, 34, 35, 36, 37, 38, 39, 87)
_CYMBALS = ("hat", "open hat", "ride", "crash", "tambourine", "shaker")
# Levels of the groups of drums where they come from several kits.
_GROUP_LEVELS = {"kick": 0.1, "drums": 0.085, "cymbals": 0.02}


def drums(score: Score, palette: Palette, rng: np.random.Generator) -> np.ndarray:
    """One kit, or the kick, the drums and the cymbals of different kits."""
    hits = composition.drum_hits(score)
    if rng.random() < 0.55:
        audio = level_to(play_kit(_kit(score, palette, rng), hits, score.samples, rng))
    else:
        audio = np.zeros((2, score.samples), np.float32)
        for group, level in _GROUP_LEVELS.items():
            own = [hit for hit in hits if _group(hit) == group]
            played = play_kit(_kit(score, palette, rng), own, score.samples, rng)
            audio += level_to(played, level * gain_of(2 * rng.normal()))
    audio = equalise_at_random(audio, rng)
    if rng.random() < 0.25:
        audio = shape_transients(audio, rng.uniform(-0.5, 0.8))
    if rng.random() < 0.55:
        audio = compress(level_to(audio), rng.uniform(-24, -14), rng.uniform(1.5, 5))
    if rng.random() < 0.2:
        audio = compress_beside(audio, rng)
    if rng.random() < 0.25:
        audio = saturate(audio, rng.uniform(1, 5))
    if rng.random() < 0.05 + 0.1 * score.style.electronic:
        audio = crush(audio, rng.uniform(6, 12), int(rng.integers(1, 4)))
    if rng.random() < 0.08:
        audio = reverberate_gated(audio, rng, wet=rng.uniform(0.1, 0.4))
    elif rng.random() < 0.6:
        # From the microphones of a small room to a hall.
        seconds, wet = log_uniform(rng, 0.15, 1.8), log_uniform(rng, 0.03, 0.3)
        audio = reverberate(audio, rng, seconds=seconds, wet=wet)
    return audio


def _group(hit: Hit) -> str:
    return "kick" if hit.drum == "kick" else "cymbals" if hit.drum in _CYMBALS else "drums"


def _kit(score: Score, palette: Palette, rng: np.random.Generator) -> str:
    """Draw a kit that fits the style, most of the time."""
    electronic = rng.random() < 0.1 + 0.75 * score.style.electronic
    kits = [kit for kit in palette.drum_kits if (kit in ELECTRONIC_KITS) == electronic]
    return str(rng.choice(kits))


def bass(score: Score, palette: Palette, rng: np.random.Generator) -> np.ndarray:
    """Sampled, synthesised or plucked bass, mostly in the middle."""
    notes, electronic = composition.bass_notes(score), score.style.electronic
    source = "sampled"
    if palette.computed and rng.random() < 0.3 + 0.55 * electronic:
        weights = np.array([0.1 + electronic, 1 - electronic, 0.5 * electronic, 0.3 * electronic])
        sources = ["synth", "plucked", "glide", "one-shot"]
        source = str(rng.choice(sources, p=weights / weights.sum()))
    if source == "sampled":
        audio = _sampled(notes, score, palette, rng, int(rng.choice(_BASS_PROGRAMS)))
        if rng.random() < 0.8:
            audio = pan(audio.mean(axis=0), 0)
    elif source == "synth":
        audio = pan(play_line(notes, score.samples, SynthPatch.random(rng, "bass").voice), 0)
        if rng.random() < 0.2:
            # The wobble of dubstep.
            audio = sweep(audio, wave(audio, rng, score.beat_seconds), "lowpass", rng.uniform(1, 6))
    elif source == "glide":
        audio = pan(gliding_line(notes, score.samples, rng), 0)
    elif source == "one-shot":
        name = str(rng.choice(list(SONIC_PI_BASSES)))
        audio = play_one_shots(notes, score.samples, sonic_pi(name), SONIC_PI_BASSES[name])
    else:
        line = plucked_line(notes, score.samples, rng, muted=rng.random() < 0.25)
        # The string alone is as bright as that of a guitar.
        audio = pan(butterworth(line, "lowpass", log_uniform(rng, 150, 1500), 1), 0)
    if source in ("sampled", "plucked") and rng.random() < 0.3:
        # An amplifier beside the direct signal: bright, gritty basses of rock.
        amplifier = pan(amplify(audio.mean(axis=0), rng, log_uniform(rng, 1, 30)), 0)
        audio = level_to(audio) + rng.uniform(0.2, 1.2) * level_to(amplifier)
    audio = equalise(
        level_to(audio),
        ("low", rng.uniform(80, 200), 0.7, 3 * rng.normal()),
        ("peak", rng.uniform(300, 1500), 1.0, 4 * rng.normal()),
        ("high", rng.uniform(1500, 4000), 0.7, 5 * rng.normal()),
    )
    if rng.random() < 0.1:
        audio = modulate_at_random(audio, rng, score.beat_seconds)
    if rng.random() < 0.55:
        audio = compress(audio, rng.uniform(-26, -16), rng.uniform(2, 8))
    if rng.random() < 0.35:
        audio = saturate(audio, rng.uniform(1, 7))
    return _ducked(audio, score, rng, 0.5)


def other(score: Score, palette: Palette, rng: np.random.Generator) -> np.ndarray:
    """One to four accompanying roles, at times risers and a double of the bass."""
    weights = score.style.roles
    chances = np.array(list(weights.values()), dtype=float)
    count = min(int(rng.choice([1, 2, 3, 4], p=[0.12, 0.3, 0.36, 0.22])), len(weights))
    roles = rng.choice(list(weights), size=count, replace=False, p=chances / chances.sum())
    audio = np.zeros((2, score.samples), np.float32)
    for role in map(str, roles):
        notes = composition.accompaniment_notes(score, rng, role)
        level_db = 3.5 * rng.normal() - 4 * (role in ("pad", "texture"))
        audio += level_to(_accompany(score, palette, rng, role, notes)) * gain_of(level_db)
    if rng.random() < 0.1:
        # A guitar or piano plays the bass line, an octave higher or at the same pitch.
        up = int(rng.choice([0, 12, 12]))
        line = [Note(n.start, n.duration, n.pitch + up, n.velocity) for n in _bass_line(score)]
        audio += level_to(_accompany(score, palette, rng, "riff", line), 0.06)
    if palette.computed and rng.random() < 0.5 * score.style.electronic:
        audio += _risers(score, rng)
    if rng.random() < 0.4:
        audio = compress(level_to(audio), rng.uniform(-22, -14), rng.uniform(1.5, 3))
    return audio


def _bass_line(score: Score) -> list[Note]:
    """The bass line, but for its ghost notes."""
    return [note for note in composition.bass_notes(score) if note.velocity > 60]


def _accompany(
    score: Score, palette: Palette, rng: np.random.Generator, role: str, notes: Sequence[Note]
) -> np.ndarray:
    """One accompanying instrument with its effects."""
    style, samples = score.style, score.samples
    guitar = role in ("power", "strum")
    computed = palette.computed and rng.random() < (
        0.6 if role == "power" else 0.15 + 0.5 * style.electronic
    )
    if role == "texture" and palette.samples and rng.random() < 0.7:
        audio = play_textures(sorted({note.start for note in notes}), samples, rng)
    elif computed and role in ("stabs", "arpeggio", "lead") and rng.random() < 0.1:
        name = str(rng.choice(list(SONIC_PI_TONES)))
        audio = play_one_shots(notes, samples, sonic_pi(name), SONIC_PI_TONES[name])
    elif computed and role in _SYNTH_ROLES and rng.random() < 0.2 + 0.8 * style.electronic:
        patch = SynthPatch.random(rng, _SYNTH_ROLES[role])
        audio = _spread(play_line(notes, samples, patch.voice), rng)
        if rng.random() < 0.25:
            kind = str(rng.choice(["lowpass", "bandpass"], p=[0.8, 0.2]))
            audio = sweep(audio, wave(audio, rng, score.beat_seconds), kind, rng.uniform(0.7, 4))
    elif computed and (guitar or role in ("arpeggio", "riff", "chords")):
        audio, guitar = _strings(score, rng, role, notes), False
    else:
        program = int(rng.choice(_PROGRAMS[role]))
        guitar = program in _GUITAR_PROGRAMS
        audio = _sampled(notes, score, palette, rng, program)
        if rng.random() < 0.15:
            second = int(rng.choice(_PROGRAMS[role]))
            layer = level_to(_sampled(notes, score, palette, rng, second), 0.06)
            audio = level_to(audio) + layer
        audio = pan(audio, rng.uniform(-0.7, 0.7))
        if rng.random() < 0.08:
            audio = saturate(level_to(audio), rng.uniform(3, 15))
    if guitar and rng.random() < 0.35:
        audio = _spread(amplify(audio.mean(axis=0), rng, log_uniform(rng, 1, 40)), rng)
    if rng.random() < 0.22:
        audio = modulate_at_random(audio, rng, score.beat_seconds)
    if role in ("lead", "arpeggio", "stabs", "strum") and rng.random() < 0.3:
        beats = rng.choice([0.5, 0.75, 1.0, 1.5])
        audio = echo(audio, int(beats * score.beat_seconds * SAMPLE_RATE), rng.uniform(0.2, 0.55))
    lowest = (25, 90) if role == "riff" else (40, 180)
    audio = butterworth(audio, "highpass", rng.uniform(*lowest), 1)
    audio = equalise_at_random(audio, rng, 5)
    if rng.random() < 0.5:
        seconds, wet = rng.uniform(0.3, 2.4), log_uniform(rng, 0.05, 0.5)
        audio = reverberate(audio, rng, seconds=seconds, wet=wet)
    return _ducked(audio, score, rng, 0.6)


def _strings(
    score: Score, rng: np.random.Generator, role: str, notes: Sequence[Note]
) -> np.ndarray:
    """A computed guitar: clean or distorted, muted by the palm, often played twice."""
    heavy = role == "power" or (role == "riff" and rng.random() < 0.6)
    drive = log_uniform(rng, 4, 80) if heavy else log_uniform(rng, 0.5, 5)
    muted = rng.random() < (0.35 if heavy else 0.1)
    amplified = heavy or rng.random() < 0.5

    def take() -> np.ndarray:
        dry = plucked_line(notes, score.samples, rng, muted=muted)
        return amplify(dry, rng, drive) if amplified else dry

    if heavy and rng.random() < 0.6:
        # Two takes, left and right, as rock records have them.
        width = rng.uniform(0.5, 1)
        return level_to(pan(take(), -width)) + level_to(pan(take(), width))
    return _spread(take(), rng)


def _sampled(
    notes: Sequence[Note], score: Score, palette: Palette, rng: np.random.Generator, program: int
) -> np.ndarray:
    """A program of a soundfont, at times with its timbre moved or played softer or harder."""
    harder, soundfont = rng.uniform(-25, 12), palette.soundfont(rng)
    played = [Note(n.start, n.duration, n.pitch, n.velocity + harder) for n in notes]
    if rng.random() < 0.25:
        semitones = float(rng.choice([-5, -4, -3, -2, 2, 3, 4, 5]))
        return play_transposed(
            played, score.samples, soundfont=soundfont, program=program, semitones=semitones
        )
    return play_notes(played, score.samples, soundfont=soundfont, program=program)


def _ducked(audio: np.ndarray, score: Score, rng: np.random.Generator, chance: float) -> np.ndarray:
    """Electronic music makes room for the kick."""
    if "drums" in score.resting or rng.random() > chance * score.style.electronic**2:
        return audio
    kicks = [hit.start for hit in composition.drum_hits(score) if hit.drum == "kick"]
    seconds = rng.uniform(0.4, 1.0) * score.beat_seconds
    return duck(audio, kicks, rng.uniform(0.3, 0.95), seconds)


def _risers(score: Score, rng: np.random.Generator) -> np.ndarray:
    """Noise that rises into new sections, or falls from them."""
    canvas = np.zeros((2, score.samples), np.float32)
    length = int(rng.choice([1, 2]) * score.bar_seconds * SAMPLE_RATE)
    rise = np.linspace(0, 1, length)
    noise = (0.02 * rng.standard_normal((2, length)) * rise**2).astype(np.float32)
    blocks = np.linspace(0, 1, -(-length // 256))
    noise = sweep(noise, 300 * 2 ** (5.5 * blocks), "bandpass", rng.uniform(0.8, 3))
    falling = rng.random() < 0.3
    for bar in range(1, score.bars):
        if score.sections[bar] != score.sections[bar - 1]:
            change = int(bar * score.bar_seconds * SAMPLE_RATE)
            start = change if falling else change - length
            sound = noise[:, ::-1] if falling else noise
            if start < 0:
                sound, start = sound[:, -start:], 0
            part = canvas[:, start : start + sound.shape[1]]
            part += sound[:, : part.shape[1]]
    return canvas


def _spread(mono: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    if rng.random() < 0.45:
        return widen(mono, int(rng.uniform(100, 900)))
    return pan(mono, rng.uniform(-0.8, 0.8))
