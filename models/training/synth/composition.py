"""Composition: tempo, key, chords, sections, and the notes of every part."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .effects import SAMPLE_RATE

STEPS = 16  # sixteenth notes in a bar

_SCALES = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "mixolydian": (0, 2, 4, 5, 7, 9, 10),
}
_PROGRESSIONS = (
    (0, 4, 5, 3),
    (5, 3, 0, 4),
    (0, 5, 3, 4),
    (0, 3, 4, 3),
    (0, 5, 1, 4),
    (0, 6, 3, 0),
    (0, 2, 3, 4),
    (1, 4, 0, 0),
    (3, 4, 2, 5),
    (0, 0, 3, 0),
    (5, 4, 3, 4),
)
# Kick and snare; one character for each sixteenth.
_GROOVES = (
    ("x...x...x...x...", "....x.......x..."),
    ("x.......x.x.....", "....x.......x..."),
    ("x..x..x...x.....", "....x.......x..x"),
    ("x.......x.......", "....x.......x..."),
    ("x.x.......x..x..", "....x..x.x..x..."),
    ("x.....x...x.....", "........x......."),
    ("x..x....x.x.....", "....x.......x..."),
    ("x...x...x...x...", "................"),
    ("x.x...x.x.x...x.", "....x.......x..."),
    ("x.....x.x.....x.", "....x..x....x..."),
    ("x.x.x.x.x.x.x.x.", "....x.......x..."),
    ("x..x..x.x..x..x.", "....x.......x..."),
)


@dataclass(frozen=True)
class Note:
    """A note in seconds, MIDI pitch and MIDI velocity."""

    start: float
    duration: float
    pitch: int
    velocity: float


@dataclass(frozen=True)
class Hit:
    """A stroke on one of the drums named in `instruments.GENERAL_MIDI_DRUMS`."""

    start: float
    drum: str
    velocity: float


@dataclass(frozen=True)
class Score:
    """What all parts of a song agree on."""

    seconds: float
    tempo_bpm: float
    key: int
    scale: tuple[int, ...]
    degrees: tuple[int, ...]
    kick: str
    snare: str
    swing: float
    looseness_seconds: float
    full: bool

    @property
    def bars(self) -> int:
        """Number of bars; the last may reach over the end."""
        return len(self.degrees)

    @property
    def beat_seconds(self) -> float:
        """Length of a quarter note."""
        return 60.0 / self.tempo_bpm

    @property
    def step_seconds(self) -> float:
        """Length of a sixteenth note."""
        return self.beat_seconds / 4

    @property
    def samples(self) -> int:
        """Length of the song in samples."""
        return int(self.seconds * SAMPLE_RATE)

    def time(self, bar: int, step: int, rng: np.random.Generator) -> float:
        """When a sixteenth is played: swung and a little loose."""
        late = self.swing * (step % 2)
        ideal = (bar * STEPS + step + late) * self.step_seconds
        return ideal + float(rng.normal()) * self.looseness_seconds

    def pitch(self, degree: int, base: int) -> int:
        """MIDI pitch of a scale degree above `base` (a C)."""
        octave, place = divmod(degree, 7)
        return base + self.key + self.scale[place] + 12 * octave

    def chord(self, bar: int, base: int, *, seventh: bool = False, inversion: int = 0) -> list[int]:
        """Pitches of the chord of a bar."""
        root = self.degrees[bar]
        degrees = [root, root + 2, root + 4] + ([root + 6] if seventh else [])
        pitches = [self.pitch(degree, base) for degree in degrees]
        return sorted(
            pitch + 12 if index < inversion else pitch for index, pitch in enumerate(pitches)
        )

    def playing(self, rng: np.random.Generator, always: float, section: float) -> np.ndarray:
        """Bars in which a part plays: throughout, or by sections of four bars."""
        throughout = rng.random() < always
        sections = rng.random(self.bars // 4 + 1) < section
        if self.full or throughout or not sections.any():
            return np.ones(self.bars, dtype=bool)
        return np.repeat(sections, 4)[: self.bars]


def compose(rng: np.random.Generator, seconds: float, *, full: bool = False) -> Score:
    """Draw a song; `full` keeps every part playing throughout."""
    tempo = float(rng.uniform(70, 170))
    bars = int(np.ceil(seconds * tempo / 240)) + 1
    verse, chorus = (_PROGRESSIONS[i] for i in rng.integers(len(_PROGRESSIONS), size=2))
    degrees = tuple((verse if bar // 8 % 2 == 0 else chorus)[bar % 4] for bar in range(bars))
    kick, snare = _GROOVES[rng.integers(len(_GROOVES))]
    scale = rng.choice(list(_SCALES), p=[0.4, 0.35, 0.125, 0.125])
    return Score(
        seconds=seconds,
        tempo_bpm=tempo,
        key=int(rng.integers(12)),
        scale=_SCALES[scale],
        degrees=degrees,
        kick=kick,
        snare=snare,
        swing=float(rng.uniform(0.1, 0.6)) if rng.random() < 0.25 else 0.0,
        looseness_seconds=float(rng.uniform(0, 0.008)),
        full=full,
    )


# ---- drums -----------------------------------------------------------------------------

_CYMBAL_STEPS = {
    "eighths": ("hat", tuple(range(0, STEPS, 2))),
    "sixteenths": ("hat", tuple(range(STEPS))),
    "quarters": ("hat", tuple(range(0, STEPS, 4))),
    "off-beats": ("open hat", tuple(range(2, STEPS, 4))),
    "ride": ("ride", (0, 4, 6, 8, 12, 14)),
    "none": ("hat", ()),
}


def drum_hits(score: Score, rng: np.random.Generator) -> list[Hit]:
    """Groove, cymbals, fills and hand percussion."""
    cymbal, cymbal_steps = _CYMBAL_STEPS[
        rng.choice(list(_CYMBAL_STEPS), p=[0.35, 0.2, 0.1, 0.15, 0.12, 0.08])
    ]
    backbeat = str(rng.choice(["snare", "clap", "rim"], p=[0.7, 0.2, 0.1]))
    hand = str(rng.choice(["tambourine", "shaker", "none"], p=[0.2, 0.2, 0.6]))
    hits: list[Hit] = []

    def play(bar: int, step: int, drum: str, low: float, high: float) -> None:
        hits.append(Hit(score.time(bar, step, rng), drum, float(rng.uniform(low, high))))

    for bar in np.flatnonzero(score.playing(rng, always=0.5, section=0.8)):
        fill = bar % 8 == 7 and rng.random() < 0.7
        for step in range(8 if fill else STEPS):
            if score.kick[step] == "x" and rng.random() < 0.95:
                play(bar, step, "kick", 95, 122)
            if score.snare[step] == "x":
                play(bar, step, backbeat, 90, 122)
            elif rng.random() < 0.03:
                play(bar, step, backbeat, 25, 50)
            if step in cymbal_steps:
                opened = cymbal == "hat" and rng.random() < 0.05
                accent = 25 * (step % 4 == 0)
                play(bar, step, "open hat" if opened else cymbal, 50 + accent, 80 + accent)
            if (hand == "tambourine" and step % 4 == 0) or hand == "shaker":
                play(bar, step, hand, 40, 85)
        if fill:
            for step in range(8, STEPS):
                if rng.random() < 0.7:
                    drum = rng.choice(["snare", "low tom", "mid tom", "high tom"])
                    play(bar, step, str(drum), 70, 120)
        if bar % 8 == 0 and rng.random() < 0.7:
            play(bar, 0, "crash", 80, 115)
    return hits


# ---- bass ------------------------------------------------------------------------------


def bass_notes(score: Score, rng: np.random.Generator) -> list[Note]:
    """One of seven kinds of bass line, on the roots of the chords."""
    style = str(
        rng.choice(["eighths", "sixteenths", "kick", "octaves", "walk", "long", "syncopated"])
    )
    length = rng.uniform(0.6, 1.0)
    notes = []
    for bar in np.flatnonzero(score.playing(rng, always=0.55, section=0.8)):
        for step, steps, pitch in _bass_bar(score, rng, style, int(bar)):
            duration = steps * score.step_seconds * length
            velocity = float(rng.uniform(80, 115))
            notes.append(Note(score.time(int(bar), step, rng), duration, pitch, velocity))
    return notes


def _into_bass_range(pitch: int) -> int:
    """Move by octaves to between low B (26) and A (45)."""
    while pitch < 27:
        pitch += 12
    while pitch > 45:
        pitch -= 12
    return pitch


def _bass_bar(
    score: Score, rng: np.random.Generator, style: str, bar: int
) -> list[tuple[int, int, int]]:
    """Steps, lengths in steps and pitches of one bar of bass."""
    degree = score.degrees[bar]
    root = _into_bass_range(score.pitch(degree, 24))
    fifth = root + 7 if rng.random() < 0.5 or root < 31 else root - 5
    if style == "eighths":
        return [(s, 2, root if rng.random() < 0.85 else fifth) for s in range(0, STEPS, 2)]
    if style == "sixteenths":
        return [(s, 1, root + 12 * (s % 4 == 3)) for s in range(STEPS) if rng.random() < 0.8]
    if style == "kick":
        on_kick = [(s, int(rng.integers(2, 5)), root) for s in range(STEPS) if score.kick[s] == "x"]
        return [*on_kick, (14, 2, fifth)]
    if style == "octaves":
        return [(s, 2, root + 12 * (s // 2 % 2)) for s in range(0, STEPS, 2)]
    if style == "walk":
        steps = (0, 2, 4, int(rng.integers(1, 7)))
        walk = [_into_bass_range(score.pitch(degree + move, 24)) for move in steps]
        return [(4 * beat, 4, pitch) for beat, pitch in enumerate(walk)]
    if style == "long":
        return [(0, 14, root)] if rng.random() < 0.6 else [(0, 7, root), (8, 7, fifth)]
    pattern = ((0, 3), (3, 3), (6, 2), (10, 2), (12, 4))
    choices = (root, root + 12, fifth)
    return [(s, n, int(rng.choice(choices, p=[0.7, 0.15, 0.15]))) for s, n in pattern]


# ---- accompaniment ---------------------------------------------------------------------


def accompaniment_notes(score: Score, rng: np.random.Generator, role: str) -> list[Note]:
    """Notes of one accompanying role: chords, pad, arpeggio, lead, power or stabs."""
    write = {
        "chords": _chord_bars,
        "pad": _pad_bars,
        "arpeggio": _arpeggio_bars,
        "lead": _lead_bars,
        "power": _power_bars,
        "stabs": _stab_bars,
    }[role]
    bars = np.flatnonzero(score.playing(rng, always=0.5, section=0.75))
    return write(score, rng, [int(bar) for bar in bars])


def _note(
    score: Score,
    rng: np.random.Generator,
    place: tuple[int, int],
    steps: float,
    pitch: int,
    velocity: tuple[float, float] = (60, 100),
) -> Note:
    start = score.time(*place, rng)
    return Note(start, steps * score.step_seconds, pitch, float(rng.uniform(*velocity)))


def _random_steps(rng: np.random.Generator, density: float) -> list[int]:
    chosen = rng.random(STEPS) < density
    chosen[0] = True
    return [int(step) for step in np.flatnonzero(chosen)]


def _chord_bars(score: Score, rng: np.random.Generator, bars: list[int]) -> list[Note]:
    rhythm = [
        [(s, 4) for s in (0, 4, 8, 12)],
        [(s, 2) for s in range(0, STEPS, 2)],
        [(s, 2) for s in _random_steps(rng, 0.45)],
        [(0, 8), (8, 8)],
    ][rng.integers(4)]
    voicing = {"seventh": bool(rng.random() < 0.35), "inversion": int(rng.integers(3))}
    base, strum = int(rng.choice([48, 48, 60])), float(rng.choice([0, 0.012, 0.02]))
    notes = []
    for bar in bars:
        for step, steps in rhythm:
            for index, pitch in enumerate(score.chord(bar, base, **voicing)):
                note = _note(score, rng, (bar, step), 0.95 * steps, pitch)
                notes.append(Note(note.start + index * strum, note.duration, pitch, note.velocity))
    return notes


def _pad_bars(score: Score, rng: np.random.Generator, bars: list[int]) -> list[Note]:
    base, inversion = int(rng.choice([48, 60])), int(rng.integers(3))
    seventh = bool(rng.random() < 0.35)
    return [
        _note(score, rng, (bar, 0), 15.8, pitch, (60, 90))
        for bar in bars
        for pitch in score.chord(bar, base, seventh=seventh, inversion=inversion)
    ]


def _arpeggio_bars(score: Score, rng: np.random.Generator, bars: list[int]) -> list[Note]:
    every, base = int(rng.integers(1, 3)), int(rng.choice([60, 60, 72]))
    order = rng.permutation(4)
    notes = []
    for bar in bars:
        chord = score.chord(bar, base)
        ladder = [*chord, chord[0] + 12]
        for index, step in enumerate(range(0, STEPS, every)):
            pitch = ladder[order[index % 4]]
            notes.append(_note(score, rng, (bar, step), every, pitch))
    return notes


def _lead_bars(score: Score, rng: np.random.Generator, bars: list[int]) -> list[Note]:
    repeated = rng.random() < 0.7
    base = int(rng.choice([60, 60, 72]))
    phrase: list[tuple[int, int]] = []
    notes = []
    for bar in bars:
        if not phrase or not repeated:
            phrase = [(step, int(rng.integers(10))) for step in _random_steps(rng, 0.3)]
        ends = [step for step, _ in phrase[1:]] + [STEPS]
        for (step, degree), end in zip(phrase, ends, strict=True):
            pitch = score.pitch(degree, base)
            notes.append(_note(score, rng, (bar, step), 0.95 * (end - step), pitch, (70, 110)))
    return notes


def _power_bars(score: Score, rng: np.random.Generator, bars: list[int]) -> list[Note]:
    rhythm = [
        [(0, 16)],
        [(s, 2) for s in range(0, STEPS, 2)],
        [(s, 2) for s in _random_steps(rng, 0.45)],
    ][rng.integers(3)]
    notes = []
    for bar in bars:
        root = score.pitch(score.degrees[bar], 36)
        root = root - 12 if root > 52 else root
        for step, steps in rhythm:
            for pitch in (root, root + 7, root + 12):
                notes.append(_note(score, rng, (bar, step), 0.9 * steps, pitch, (80, 110)))
    return notes


def _stab_bars(score: Score, rng: np.random.Generator, bars: list[int]) -> list[Note]:
    steps = [step for step in _random_steps(rng, 0.45) if step % 2 == 0]
    return [
        _note(score, rng, (bar, step), 1.0, pitch, (80, 115))
        for bar in bars
        for step in steps
        for pitch in score.chord(bar, 60)
    ]


# ---- voice -----------------------------------------------------------------------------


def vocal_melody(score: Score, rng: np.random.Generator, base: int) -> list[Note]:
    """Phrases of two bars, partly repeated, landing on chord tones on strong steps."""
    rest = 0.0 if score.full else rng.uniform(0.05, 0.35)
    playing = score.playing(rng, always=0.6, section=0.75)
    phrase: list[tuple[int, int]] = []
    notes, degree = [], int(rng.integers(7))
    for first_bar in range(0, score.bars, 2):
        if not phrase or rng.random() < 0.4:
            phrase = _vocal_phrase(rng)
        if not playing[first_bar] or rng.random() < rest:
            continue
        for step, steps in phrase:
            bar = first_bar + step // STEPS
            if bar >= score.bars:
                break
            degree += int(rng.choice([-3, -2, -1, -1, 0, 0, 1, 1, 2, 3]))
            if step % 8 == 0:
                degree = _nearest_chord_degree(score.degrees[bar], degree)
            degree = int(np.clip(degree, -3, 9))
            pitch = score.pitch(degree, base)
            notes.append(_note(score, rng, (bar, step % STEPS), steps, pitch))
    return notes


def _vocal_phrase(rng: np.random.Generator) -> list[tuple[int, int]]:
    """Steps and lengths of a phrase of two bars."""
    step, phrase = int(rng.choice([0, 0, 2, 4])), []
    while step < 30:
        steps = int(rng.choice([2, 2, 2, 3, 4, 4, 6, 8, 12]))
        if rng.random() > 0.12:
            phrase.append((step, min(steps, 32 - step)))
        step += steps
    return phrase


def _nearest_chord_degree(root: int, degree: int) -> int:
    tones = [root + third + octave for third in (0, 2, 4) for octave in (-7, 0, 7)]
    return min(tones, key=lambda tone: abs(tone - degree))
