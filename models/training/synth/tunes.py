"""Tunes for voices: phrases of notes, from long held ones to the syllables of rap."""

from __future__ import annotations

import numpy as np

from .composition import STEPS, Note, Score

Tune = list[list[Note]]

# Lengths of notes in sixteenths.
_LENGTHS = {
    "long": (4, 6, 8, 8, 12, 16),
    "even": (2, 2, 3, 4, 4, 6, 8),
    "busy": (1, 2, 2, 2, 2, 3, 4),
    "rap": (1, 1, 1, 2, 1, 2, 2),
}
_LEAPS = (-4, -3, -2, -1, -1, 0, 0, 0, 1, 1, 2, 3, 5)


def in_chorus(score: Score, bar: int) -> bool:
    """Whether a bar belongs to a chorus, or to what takes its place in a club."""
    return score.sections[min(bar, score.bars - 1)] in ("chorus", "drop")


def sung(score: Score, rng: np.random.Generator, base: int, *, rap: bool = False) -> Tune:
    """Phrases of one to four bars, partly repeated, denser or higher in the chorus."""
    densities = ["rap", "rap"] if rap else [str(d) for d in rng.choice(list(_LENGTHS)[:3], size=2)]
    rest = 0.0 if score.full else rng.uniform(0.0, 0.3)
    lift = int(rng.choice([0, 0, 2, 4]))
    runs = 0.0 if rap else rng.choice([0.0, 0.1, 0.4])
    playing = score.playing(rng, always=0.6, section=0.75)
    rhythms: dict[bool, list[tuple[int, int]]] = {}
    tune: Tune = []
    degree, bar = int(rng.integers(7)), 0
    while bar < score.bars:
        chorus = in_chorus(score, bar)
        bars = 2 if rng.random() < 0.7 else int(rng.choice([1, 4]))
        if chorus not in rhythms or rng.random() < 0.4:
            rhythms[chorus] = _rhythm(score, rng, densities[chorus], bars * STEPS)
        if playing[bar] and rng.random() >= rest:
            phrase = []
            for step, steps in rhythms[chorus]:
                where = bar + step // STEPS
                if where >= score.bars:
                    break
                degree += int(rng.choice(_LEAPS))
                if step % 8 == 0:
                    degree = _nearest_chord_degree(score.degrees[where], degree)
                degree = int(np.clip(degree, -3 + lift * chorus, 7 + lift * chorus))
                pitch = score.pitch(degree, base)
                start = score.time(where, step % STEPS, rng)
                phrase.append(Note(start, steps * score.step_seconds, pitch, 90))
            if phrase and rng.random() < runs:
                phrase = phrase[:-1] + _run(score, rng, phrase[-1], degree, base)
            if phrase:
                tune.append(phrase)
        bar += bars
    # In a short song all phrases may have been left out.
    return tune or sung(score, rng, base, rap=rap)


def _rhythm(
    score: Score, rng: np.random.Generator, density: str, steps: int
) -> list[tuple[int, int]]:
    """Steps and lengths; nobody sings more than nine syllables a second."""
    shortest = 1 if score.step_seconds > 0.11 else 2
    step = int(rng.choice([0, 0, 2, 4, 6]))
    end = steps - int(rng.choice([0, 2, 4, 6])) - (4 if density == "rap" else 0)
    rhythm: list[tuple[int, int]] = []
    while step < end:
        length = max(int(rng.choice(_LENGTHS[density])), shortest)
        # Triplets and dots come from the swing of the score; rests make words.
        if rng.random() > 0.08:
            rhythm.append((step, min(length, end - step)))
        step += length
    if rhythm and rng.random() < 0.6 and density != "rap":
        last = rhythm[-1][0]
        rhythm[-1] = (last, min(steps - last, rhythm[-1][1] + int(rng.choice([2, 4, 8]))))
    return rhythm


def _run(score: Score, rng: np.random.Generator, note: Note, degree: int, base: int) -> list[Note]:
    """Dissolve a note into quick neighbours that end on a held one."""
    count = int(rng.integers(2, 7))
    step = max(0.09, score.step_seconds * 0.75)
    down = int(rng.choice([-1, 1]))
    notes = []
    for index in range(count):
        pitch = score.pitch(degree + down * (count - index) - (index % 3 == 2), base)
        notes.append(Note(note.start + index * step, step, pitch, note.velocity))
    rest = max(note.duration - count * step, 0.25)
    return [*notes, Note(note.start + count * step, rest, note.pitch, note.velocity)]


def blocks(score: Score, rng: np.random.Generator, base: int, *, chorus_only: bool) -> list[Tune]:
    """Chords held for a bar or half of one; a tune for each of the three or four voices."""
    bars_held = int(rng.choice([1, 1, 2]))
    fourth = bool(rng.random() < 0.4)
    offset = int(rng.choice([0, 0, 4, 8]))
    voices: list[Tune] = [[] for _ in range(3 + fourth)]
    for bar in range(0, score.bars, bars_held):
        if chorus_only and not in_chorus(score, bar):
            continue
        chord = score.chord(bar, base, seventh=fourth, inversion=int(rng.integers(3)))
        start = score.time(bar, offset, rng)
        seconds = (STEPS * bars_held - offset) * score.step_seconds * rng.uniform(0.8, 1)
        for tune, pitch in zip(voices, chord, strict=False):
            tune.append([Note(start, min(seconds, 4.0), pitch, 80)])
    return voices


def cries(score: Score, rng: np.random.Generator, base: int, chance: float) -> Tune:
    """A few notes now and then, as answers and ad-libs."""
    tune: Tune = []
    for bar in np.flatnonzero(rng.random(score.bars) < chance):
        step = int(rng.choice([6, 8, 10, 12]))
        degree = _nearest_chord_degree(score.degrees[bar], int(rng.integers(2, 9)))
        phrase = []
        for _ in range(int(rng.integers(1, 4))):
            steps = int(rng.choice([2, 2, 3, 4]))
            start = score.time(int(bar), step, rng)
            phrase.append(Note(start, steps * score.step_seconds, score.pitch(degree, base), 90))
            step, degree = step + steps, degree + int(rng.choice([-2, -1, 1]))
        tune.append(phrase)
    return tune


def harmony(score: Score, notes: tuple[Note, ...], thirds: int) -> list[Note]:
    """The notes moved by steps of two in the scale of the song."""
    tones = sorted(
        octave + score.key + place for octave in range(0, 132, 12) for place in score.scale
    )
    moved = []
    for note in notes:
        nearest = int(np.argmin([abs(tone - note.pitch) for tone in tones]))
        pitch = tones[int(np.clip(nearest + 2 * thirds, 0, len(tones) - 1))]
        moved.append(Note(note.start, note.duration, pitch, note.velocity))
    return moved


def _nearest_chord_degree(root: int, degree: int) -> int:
    tones = [root + third + octave for third in (0, 2, 4) for octave in (-7, 0, 7)]
    return min(tones, key=lambda tone: abs(tone - degree))
