"""Composition: tempo, key, chords, sections, and the notes of every part."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .effects import SAMPLE_RATE
from .styles import FORMS, GROOVES_IN_THREE, PRESENCE, STYLES, Style

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
    style: Style
    tempo_bpm: float
    steps: int
    sections: tuple[str, ...]
    resting: tuple[str, ...]
    key: int
    scale: tuple[int, ...]
    degrees: tuple[int, ...]
    kick: str
    snare: str
    swing: float
    looseness_seconds: float
    full: bool
    drum_seed: int
    bass_seed: int

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
    def bar_seconds(self) -> float:
        """Length of a bar."""
        return 4 * self.beat_seconds

    @property
    def grid_seconds(self) -> float:
        """Length of a step of the groove: a sixteenth, or a twelfth of a bar in three."""
        return self.bar_seconds / self.steps

    @property
    def samples(self) -> int:
        """Length of the song in samples."""
        return int(self.seconds * SAMPLE_RATE)

    def time(self, bar: int, step: float, rng: np.random.Generator) -> float:
        """When a sixteenth is played: swung and a little loose."""
        late = self.swing * (step % 2 == 1)
        ideal = (bar * STEPS + step + late) * self.step_seconds
        return ideal + float(rng.normal()) * self.looseness_seconds

    def grid_time(self, bar: int, step: float, rng: np.random.Generator) -> float:
        """When a step of the groove is played."""
        return self.time(bar, step * STEPS / self.steps, rng)

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
        """Bars in which a part plays: throughout, or in some kinds of section."""
        throughout = rng.random() < always
        chosen = {name: rng.random() < section * chance for name, chance in PRESENCE.items()}
        bars = np.array([chosen[name] for name in self.sections])
        # A part of a few bars only is not worth a song.
        if self.full or throughout or bars.mean() < 0.4:
            return np.ones(self.bars, dtype=bool)
        return bars


def compose(rng: np.random.Generator, seconds: float, *, full: bool = False) -> Score:
    """Draw a song; `full` keeps every part playing throughout."""
    style = STYLES[_draw(rng, {name: style.weight for name, style in STYLES.items()})]
    tempo = float(rng.uniform(*style.tempo_bpm))
    steps = 12 if rng.random() < style.three else 16
    bars = int(np.ceil(seconds * tempo / 240)) + 1
    progressions = {
        name: _PROGRESSIONS[rng.integers(len(_PROGRESSIONS))] for name in sorted(PRESENCE)
    }
    sections = _excerpt(rng, FORMS[style.form], bars)
    degrees = tuple(progressions[name][bar % 4] for bar, name in enumerate(sections))
    grooves = style.grooves if steps == 16 else GROOVES_IN_THREE
    kick, snare = grooves[rng.integers(len(grooves))]
    scale = rng.choice(list(_SCALES), p=[0.4, 0.35, 0.125, 0.125])
    chances = {"drums": style.no_drums, "bass": style.no_bass, "other": 0.01, "vocals": 0.04}
    absent = tuple(part for part, chance in chances.items() if rng.random() < chance)
    return Score(
        seconds=seconds,
        style=style,
        tempo_bpm=tempo,
        steps=steps,
        sections=sections,
        # A song of fewer than two parts teaches little.
        resting=() if full or len(absent) > 2 else absent,
        key=int(rng.integers(12)),
        scale=_SCALES[scale],
        degrees=degrees,
        kick=kick,
        snare=snare,
        swing=float(rng.uniform(0.1, 0.6)) if rng.random() < style.swing else 0.0,
        looseness_seconds=float(rng.uniform(0, 0.008)) * (1 - 0.8 * style.electronic),
        full=full,
        drum_seed=int(rng.integers(2**31)),
        bass_seed=int(rng.integers(2**31)),
    )


def _draw(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """Draw a name by weight."""
    chances = np.array(list(weights.values()), dtype=float)
    return str(rng.choice(list(weights), p=chances / chances.sum()))


def _excerpt(rng: np.random.Generator, form: tuple[str, ...], bars: int) -> tuple[str, ...]:
    """Sections bar by bar, from somewhere in a form."""
    length = int(rng.choice([4, 4, 8]))
    offset = int(rng.integers(len(form))) * length
    return tuple(form[(offset + bar) // length % len(form)] for bar in range(bars))


# ---- drums -----------------------------------------------------------------------------

# Drum, steps of a bar on which it is struck.
_CYMBALS = {
    "eighths": ("hat", range(0, 16, 2)),
    "sixteenths": ("hat", range(16)),
    "quarters": ("hat", range(0, 16, 4)),
    "off-beats": ("open hat", range(2, 16, 4)),
    "open": ("open hat", range(0, 16, 4)),
    "crash": ("crash", range(0, 16, 4)),
    "ride": ("ride", range(0, 16, 2)),
    "swing": ("ride", (0, 4, 6.67, 8, 12, 14.67)),
    "none": ("hat", ()),
}
_HANDS = {"none": 6, "tambourine": 2, "shaker": 2, "congas": 1, "cowbell": 0.5}


def drum_hits(score: Score) -> list[Hit]:
    """Groove, cymbals, ghost notes, rolls, fills and hand percussion; the same at every call."""
    rng, style = np.random.default_rng(score.drum_seed), score.style
    cymbals = {name: _CYMBALS[_draw(rng, style.cymbals)] for name in ("verse", "chorus")}
    backbeat = _draw(rng, {"snare": 7, "clap": 0.3 + 4 * style.electronic, "rim": 1})
    hand, ghosts = _draw(rng, _HANDS), style.ghosts * rng.uniform(0, 2)
    congas = [str(drum) for drum in rng.choice(["low conga", "high conga", "none"], score.steps)]
    hits: list[Hit] = []

    def play(bar: int, step: float, drum: str, low: float, high: float) -> None:
        hits.append(Hit(score.grid_time(bar, step, rng), drum, float(rng.uniform(low, high))))

    for bar in np.flatnonzero(score.playing(rng, always=0.5, section=0.85)):
        section = score.sections[bar]
        if section == "build" and not score.full:
            _build_up(score, bar, backbeat, play)
            continue
        loud = section in ("chorus", "drop")
        cymbal, cymbal_steps = cymbals["chorus" if loud else "verse"]
        fill = bar % 8 == 7 and rng.random() < 0.7
        end = score.steps // 2 if fill else score.steps
        for step in range(end):
            if score.kick[step] == "x" and rng.random() < 0.95:
                play(bar, step, "kick", 95, 122)
            if score.snare[step] == "x":
                play(bar, step, backbeat, 90, 122)
            elif rng.random() < ghosts:
                play(bar, step, "snare", 20, 50)
            if hand == "congas" and congas[step] != "none":
                play(bar, step, congas[step], 45, 100)
            if (hand in ("tambourine", "cowbell") and step % 4 == 0) or hand == "shaker":
                play(bar, step, hand, 40, 85)
        for step in cymbal_steps:
            if step < end:
                opened = cymbal == "hat" and rng.random() < 0.05
                accent = 25 * (step % 4 == 0)
                play(bar, step, "open hat" if opened else cymbal, 50 + accent, 80 + accent)
        if cymbal == "hat" and rng.random() < style.rolls:
            strokes, beat = int(rng.choice([6, 8, 12])), 4 * int(rng.integers(end // 4))
            for stroke in range(strokes):
                play(bar, beat + 4 * stroke / strokes, "hat", 40, 90)
        for step in range(end, score.steps):
            if rng.random() < 0.7:
                drum = rng.choice(["snare", "low tom", "mid tom", "high tom"])
                play(bar, step, str(drum), 70, 120)
        if (bar % 8 == 0 or (bar and section != score.sections[bar - 1])) and rng.random() < 0.7:
            play(bar, 0, "crash", 80, 115)
    return hits


def _build_up(
    score: Score, bar: int, drum: str, play: Callable[[int, float, str, float, float], None]
) -> None:
    """A roll that gets faster and louder, over a kick on each beat."""
    every = (4, 2, 1, 1)[bar % 4]
    for step in range(0, score.steps, every):
        loud = 50 + 15 * (bar % 4) + 20 * step / score.steps
        play(bar, step, drum, loud, loud + 8)
        if step % 4 == 0 and bar % 4 < 3:
            play(bar, step, "kick", 100, 115)


# ---- bass ------------------------------------------------------------------------------


def bass_notes(score: Score) -> list[Note]:
    """A bass line of a kind of the style, with slides and ghosts; the same at every call."""
    rng = np.random.default_rng(score.bass_seed)
    kind = _draw(rng, score.style.basses)
    length, low = rng.uniform(0.6, 1.0), int(rng.choice([26, 28, 28, 31]))
    slides, ghosts = (rng.uniform(0.02, 0.15) if rng.random() < 0.35 else 0.0 for _ in range(2))
    riff = _riff(score, rng)
    notes = []
    for bar in np.flatnonzero(score.playing(rng, always=0.55, section=0.85)):
        for step, steps, pitch in _bass_bar(score, rng, kind, int(bar), riff, low):
            start = score.grid_time(int(bar), step, rng)
            duration = steps * score.grid_seconds * length
            velocity = float(rng.uniform(80, 115))
            notes.append(Note(start, duration, pitch, velocity))
            if rng.random() < slides:
                early = [Note(start - 0.05 * k, 0.05, pitch - k, 0.7 * velocity) for k in (2, 1)]
                notes += [note for note in early if note.start > 0]
            if rng.random() < ghosts:
                place = start + 0.5 * duration
                notes.append(Note(place, 0.04, pitch, 0.4 * velocity))
    return notes


def _riff(score: Score, rng: np.random.Generator) -> list[tuple[int, int, int]]:
    """Steps, lengths and scale degrees of a bar that is repeated."""
    steps = [*_random_steps(score, rng, rng.uniform(0.25, 0.7)), score.steps]
    moves = rng.choice([0, 0, 0, 2, 3, 4, 6, 7, -1], size=len(steps))
    return [
        (step, end - step, int(move))
        for step, end, move in zip(steps[:-1], steps[1:], moves[:-1], strict=True)
    ]


def _into_range(pitch: int, low: int) -> int:
    """Move by octaves to the 19 semitones from `low`."""
    while pitch < low:
        pitch += 12
    while pitch > low + 19:
        pitch -= 12
    return pitch


def _bass_bar(
    score: Score,
    rng: np.random.Generator,
    kind: str,
    bar: int,
    riff: list[tuple[int, int, int]],
    low: int,
) -> list[tuple[int, int, int]]:
    """Steps, lengths in steps and pitches of one bar of bass."""
    degree, all_steps = score.degrees[bar], score.steps
    root = _into_range(score.pitch(0 if kind == "pedal" else degree, 24), low)
    fifth = root + 7 if rng.random() < 0.5 or root < low + 5 else root - 5
    if kind == "eighths":
        return [(s, 2, root if rng.random() < 0.85 else fifth) for s in range(0, all_steps, 2)]
    if kind == "sixteenths":
        steps = [s for s in range(all_steps) if rng.random() < 0.8]
        return [(s, 1, root + 12 * (s % 4 == 3)) for s in steps]
    if kind in ("kick", "glide"):
        kicks = [s for s in range(all_steps) if score.kick[s] == "x"] or [0]
        ends = [*kicks[1:], all_steps]
        most = 16 if kind == "glide" else int(rng.integers(2, 5))
        line = [(s, min(e - s, most), root) for s, e in zip(kicks, ends, strict=True)]
        return [*line, (all_steps - 2, 2, root + 12 if kind == "glide" else fifth)]
    if kind == "octaves":
        return [(s, 2, root + 12 * (s // 2 % 2)) for s in range(0, all_steps, 2)]
    if kind in ("rolling", "pedal"):
        return [(s, 1, root) for s in range(all_steps) if s % 4]
    if kind == "walk":
        steps = (0, 2, 4, int(rng.integers(1, 7)))
        walk = [_into_range(score.pitch(degree + move, 24), low) for move in steps]
        return [(4 * beat, 4, pitch) for beat, pitch in enumerate(walk[: all_steps // 4])]
    if kind == "alternate":
        return [(s, 6, fifth if s % 16 == 8 else root) for s in range(0, all_steps, 8)]
    if kind == "long":
        half = all_steps // 2
        halves = [(0, half - 1, root), (half, half - 1, fifth)]
        return [(0, all_steps - 2, root)] if rng.random() < 0.6 else halves
    if kind == "riff":
        return [(s, n, _into_range(score.pitch(degree + move, 24), low)) for s, n, move in riff]
    pattern = ((0, 3), (3, 3), (6, 2), (10, 2), (12, 4))
    choices = (root, root + 12, fifth)
    return [
        (s, n, int(rng.choice(choices, p=[0.7, 0.15, 0.15]))) for s, n in pattern if s < all_steps
    ]


# ---- accompaniment ---------------------------------------------------------------------


def accompaniment_notes(score: Score, rng: np.random.Generator, role: str) -> list[Note]:
    """Notes of one of the accompanying roles of the styles."""
    write = {
        "chords": _chord_bars,
        "strum": _strum_bars,
        "riff": _riff_bars,
        "texture": _pad_bars,
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
    start = score.grid_time(*place, rng)
    return Note(start, steps * score.grid_seconds, pitch, float(rng.uniform(*velocity)))


def _random_steps(score: Score, rng: np.random.Generator, density: float) -> list[int]:
    chosen = rng.random(score.steps) < density
    chosen[0] = True
    return [int(step) for step in np.flatnonzero(chosen)]


def _chord_bars(score: Score, rng: np.random.Generator, bars: list[int]) -> list[Note]:
    rhythm = [
        [(s, 4) for s in range(0, score.steps, 4)],
        [(s, 2) for s in range(0, score.steps, 2)],
        [(s, 2) for s in _random_steps(score, rng, 0.45)],
        [(0, score.steps // 2), (score.steps // 2, score.steps // 2)],
        [(s, 2) for s in range(2, score.steps, 4)],
    ][rng.integers(5)]
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
        _note(score, rng, (bar, 0), score.steps - 0.2, pitch, (60, 90))
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
        for index, step in enumerate(range(0, score.steps, every)):
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
            phrase = [(step, int(rng.integers(10))) for step in _random_steps(score, rng, 0.3)]
        ends = [step for step, _ in phrase[1:]] + [score.steps]
        for (step, degree), end in zip(phrase, ends, strict=True):
            pitch = score.pitch(degree, base)
            notes.append(_note(score, rng, (bar, step), 0.95 * (end - step), pitch, (70, 110)))
    return notes


def _strum_bars(score: Score, rng: np.random.Generator, bars: list[int]) -> list[Note]:
    """Chords on the six strings of a guitar, stroked down and up."""
    steps = _random_steps(score, rng, rng.uniform(0.2, 0.7))
    strum, muted = rng.uniform(0.004, 0.018), rng.random() < 0.3
    notes = []
    for bar in bars:
        chord = score.chord(bar, 36)
        root = _into_range(chord[0], 40)
        fifth, third = root + 7, root + (chord[1] - chord[0])
        strings = [root, fifth, root + 12, third + 12, fifth + 12, root + 24]
        for step, end in zip(steps, [*steps[1:], score.steps], strict=True):
            up = step % 4 == 2
            stroked = strings[: int(rng.integers(2, 5)) : -1] if up else strings
            choked = muted and rng.random() < 0.3
            for index, pitch in enumerate(stroked or strings):
                note = _note(score, rng, (bar, step), 0.3 if choked else end - step, pitch)
                notes.append(Note(note.start + index * strum, note.duration, pitch, note.velocity))
    return notes


def _riff_bars(score: Score, rng: np.random.Generator, bars: list[int]) -> list[Note]:
    """A low riff, in part of the range of the bass, at times in octaves or following the bass."""
    riff, low = _riff(score, rng), int(rng.choice([28, 33, 40, 40, 45, 52]))
    octaves, still = rng.random() < 0.25, rng.random() < 0.5
    notes = []
    for bar in bars:
        degree = 0 if still else score.degrees[bar]
        for step, steps, move in riff:
            pitch = _into_range(score.pitch(degree + move, 24), low)
            for each in (pitch, pitch + 12)[: 1 + octaves]:
                notes.append(_note(score, rng, (bar, step), 0.9 * steps, each, (75, 112)))
    return notes


def _power_bars(score: Score, rng: np.random.Generator, bars: list[int]) -> list[Note]:
    rhythm = [
        [(0, score.steps)],
        [(s, 2) for s in range(0, score.steps, 2)],
        [(s, 2) for s in _random_steps(score, rng, 0.45)],
        [(s, 1) for s in range(score.steps) if s % 4 != 1],
    ][rng.integers(4)]
    notes = []
    for bar in bars:
        root = score.pitch(score.degrees[bar], 36)
        root = root - 12 if root > 52 else root
        for step, steps in rhythm:
            for pitch in (root, root + 7, root + 12):
                notes.append(_note(score, rng, (bar, step), 0.9 * steps, pitch, (80, 110)))
    return notes


def _stab_bars(score: Score, rng: np.random.Generator, bars: list[int]) -> list[Note]:
    steps = [step for step in _random_steps(score, rng, 0.45) if step % 2 == 0]
    return [
        _note(score, rng, (bar, step), 1.0, pitch, (80, 115))
        for bar in bars
        for step in steps
        for pitch in score.chord(bar, 60)
    ]
