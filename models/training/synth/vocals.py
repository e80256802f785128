"""Vocals: who sings what, and the channel of the voices at the mixing desk."""

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
    level_to,
    pan,
    reverberate,
    saturate,
    shift,
)
from .palette import Palette
from .soundfont import play_notes


def vocals(score: Score, palette: Palette, rng: np.random.Generator) -> np.ndarray:
    """Lead voice, at times with doubles, a harmony, or a sampled choir behind it."""
    syllables = _syllables(palette, rng)
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
        backing = play_notes(
            choir, score.samples, soundfont=palette.soundfont(rng), program=program
        )
        audio += rng.uniform(0.2, 0.5) * level_to(backing)
    return _vocal_channel(audio, score, rng)


def _syllables(palette: Palette, rng: np.random.Generator) -> list[singer.Syllable]:
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
