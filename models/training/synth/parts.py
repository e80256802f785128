"""Parts: notes given to instruments and their channel of the mixing desk."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import composition, singer
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
from .soundfont import DRUM_KITS, SOUNDFONTS, play_drums, play_notes

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


def _soundfont(rng: np.random.Generator) -> str:
    return str(rng.choice(list(SOUNDFONTS)))


def drums(score: Score, rng: np.random.Generator) -> np.ndarray:
    """Sampled kit, drum machine or both."""
    hits = composition.drum_hits(score, rng)
    source = rng.choice(["sampled", "machine", "both"], p=[0.6, 0.25, 0.15])
    audio = np.zeros((2, score.samples), np.float32)
    if source != "machine":
        kit = int(rng.choice(DRUM_KITS))
        audio += level_to(play_drums(hits, score.samples, soundfont=_soundfont(rng), kit=kit))
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


def bass(score: Score, rng: np.random.Generator) -> np.ndarray:
    """Sampled, synthesised or plucked bass, mostly in the middle."""
    notes = composition.bass_notes(score, rng)
    source = rng.choice(["sampled", "synth", "plucked"], p=[0.5, 0.35, 0.15])
    if source == "sampled":
        program = int(rng.choice(_BASS_PROGRAMS))
        audio = play_notes(notes, score.samples, soundfont=_soundfont(rng), program=program)
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


def other(score: Score, rng: np.random.Generator) -> np.ndarray:
    """Two to four accompanying roles."""
    count = int(rng.integers(2, 5))
    roles = rng.choice(list(_PROGRAMS), size=count, replace=False, p=_ROLE_WEIGHTS)
    audio = np.zeros((2, score.samples), np.float32)
    for role in roles:
        notes = composition.accompaniment_notes(score, rng, str(role))
        level_db = 3.5 * rng.normal() - 3 * (role == "pad")
        audio += level_to(_accompany(score, rng, str(role), notes)) * gain_of(level_db)
    if rng.random() < 0.4:
        audio = compress(level_to(audio), rng.uniform(-22, -14), rng.uniform(1.5, 3))
    return audio


def _accompany(
    score: Score, rng: np.random.Generator, role: str, notes: Sequence[Note]
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
        audio = play_notes(notes, score.samples, soundfont=_soundfont(rng), program=program)
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


def vocals(score: Score, rng: np.random.Generator) -> np.ndarray:
    """Lead voice, at times with doubles, a harmony, or a sampled choir behind it."""
    syllables = _syllables(rng)
    low_voice = rng.random() < 0.5
    base = 36 if low_voice else 48
    while base + score.key < (43 if low_voice else 54):
        base += 12
    tract = rng.uniform(0.88, 1.02) if low_voice else rng.uniform(1.0, 1.18)
    melody = composition.vocal_melody(score, rng, base)

    def take(notes: Sequence[Note], position: float, delivery: singer.Delivery) -> np.ndarray:
        voice = singer.sing(syllables, notes, score.samples, delivery, rng)
        return pan(level_to(pan(voice, 0)), position)

    audio = take(melody, 0.08 * rng.normal(), singer.Delivery(tract))
    if rng.random() < 0.3:
        for side in (-1, 1):
            delivery = singer.Delivery(
                tract * rng.uniform(0.97, 1.03),
                detune_cents=side * rng.uniform(5, 15),
                late_seconds=rng.uniform(0.005, 0.025),
            )
            audio += rng.uniform(0.3, 0.7) * take(melody, side * rng.uniform(0.4, 1), delivery)
    if rng.random() < 0.25:
        harmony = _harmony(melody, rng)
        delivery = singer.Delivery(tract * rng.uniform(0.95, 1.05), late_seconds=0.01)
        audio += rng.uniform(0.3, 0.6) * take(harmony, rng.uniform(-0.8, 0.8), delivery)
    if rng.random() < 0.12:
        choir = [
            Note(bar * 4 * score.beat_seconds, 3.9 * score.beat_seconds, pitch, 80)
            for bar in range(score.bars)
            for pitch in score.chord(bar, 60)
        ]
        program = int(rng.choice([52, 53]))
        backing = play_notes(choir, score.samples, soundfont=_soundfont(rng), program=program)
        audio += rng.uniform(0.2, 0.5) * level_to(backing)
    return _vocal_channel(audio, score, rng)


def _syllables(rng: np.random.Generator) -> list[singer.Syllable]:
    if rng.random() < 0.5:
        return singer.FormantVoice(rng).syllables(30)
    words = [str(word) for word in rng.choice(singer.WORDS, size=14, replace=False)]
    return singer.flite_syllables(str(rng.choice(singer.FLITE_VOICES)), words)


def _harmony(melody: Sequence[Note], rng: np.random.Generator) -> list[Note]:
    interval = int(rng.choice([3, 4, 4, 7, -5]))
    return [
        Note(note.start, note.duration, note.pitch + interval, note.velocity)
        for note in melody
        if rng.random() < 0.8
    ]


def _vocal_channel(audio: np.ndarray, score: Score, rng: np.random.Generator) -> np.ndarray:
    audio = compress(level_to(audio), rng.uniform(-24, -16), rng.uniform(2, 5))
    audio = butterworth(audio, "highpass", rng.uniform(80, 160))
    audio = equalise_at_random(audio, rng)
    audio = equalise(
        audio,
        ("peak", rng.uniform(2000, 4000), 0.7, rng.uniform(1, 9)),
        ("high", rng.uniform(1500, 5000), 0.7, rng.uniform(0, 6)),
    )
    if rng.random() < 0.15:
        audio = saturate(audio, rng.uniform(2, 6))
    if rng.random() < 0.3:
        beats = rng.choice([0.5, 0.75, 1.0])
        echo = shift(audio[::-1], int(beats * score.beat_seconds * SAMPLE_RATE))
        audio = audio + rng.uniform(0.1, 0.3) * echo
    if rng.random() < 0.85:
        audio = reverberate(
            audio,
            rng,
            seconds=rng.uniform(0.3, 2.2),
            wet=rng.uniform(0.03, 0.3),
            pre_delay_seconds=rng.uniform(0, 0.05),
        )
    return audio
