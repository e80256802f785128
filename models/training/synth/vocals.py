"""Vocals: who sings what, and the channel of the voices at the mixing desk."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from . import lyrics, tunes
from .composition import STEPS, Note, Score
from .effects import (
    SAMPLE_RATE,
    butterworth,
    compress,
    equalise,
    equalise_at_random,
    level_to,
    log_uniform,
    pan,
    place,
    reverberate,
    saturate,
    shift,
)
from .palette import Palette
from .singer import FormantVoice, Manner, Phrase, Timbre, set_words, sing
from .soundfont import play_notes
from .speech import Line, speak
from .tunes import Tune

_HIGH_SPEAKERS = 1.14  # tract of women, relative to men


@dataclass(frozen=True)
class _Singer:
    """A speaker, what comes out of the throat, and the octave that fits (MIDI pitch of a C)."""

    speaker: str
    formants: FormantVoice | None
    base: int
    timbre: Timbre
    manner: Manner

    def lines(self, rng: np.random.Generator, kind: str, count: int) -> list[Line]:
        """Draw lines of a kind: words, vocalise or cries."""
        if self.formants is not None:
            longest = {"words": 14, "vocalise": 6, "cries": 3}[kind]
            lengths = rng.integers(1 if kind == "cries" else 2, longest + 1, size=count)
            return [self.formants.line(int(length)) for length in lengths]
        spoken = [speak(self.speaker, text) for text in lyrics.draw(rng, kind, count)]
        found = [line for line in spoken if line is not None]
        return found or [line for line in [speak(self.speaker, "oh yeah")] if line is not None]

    def varied(self, rng: np.random.Generator, **manner: float) -> _Singer:
        """The same singer a little different, as in another take, or another of a choir."""
        tract = self.timbre.tract * rng.uniform(0.96, 1.04)
        return replace(
            self,
            timbre=replace(self.timbre, tract=tract, growl=0.0),
            manner=replace(self.manner, breath_db=-99.0, **manner),
        )


def _draw_singer(score: Score, palette: Palette, rng: np.random.Generator) -> _Singer:
    speaker = str(rng.choice(palette.speakers))
    # From a bass to a soprano: the middle of the tune lies a fifth above the key.
    middle = rng.triangular(44, 58, 74)
    base = 12 * round((middle - 4 - score.key) / 12)
    middle = base + score.key + 4
    falsetto = middle > 60 and rng.random() < 0.3
    tract = 1 + 0.09 * (middle - 57) / 12 - 0.1 * falsetto + 0.05 * rng.normal()
    high_speaker = speaker == "flite slt" or "+f" in speaker
    belting = rng.normal()
    timbre = Timbre(
        tract=float(np.clip(tract, 0.84, 1.24)) / (_HIGH_SPEAKERS if high_speaker else 1.0),
        tilt_db=1.5 + 2 * belting - 3 * falsetto,
        air_db=float(rng.uniform(-16, 6)),
        ring_db=float(rng.choice([0, 0, 4, 8])) * rng.uniform(0.6, 1.2),
        ring_hz=float(rng.uniform(2500, 3500)),
        nasal_db=float(rng.choice([0, 0, 6])),
        breath=float(np.clip(0.1 - 0.1 * belting + 0.3 * falsetto + 0.25 * rng.normal(), 0, 0.9)),
        clear=log_uniform(rng, 1, 8),
        growl=float(rng.uniform(0.2, 0.8)) if belting > 0.5 and rng.random() < 0.4 else 0.0,
        growl_hz=float(rng.choice([0.0, rng.uniform(25, 80)])),
    )
    manner = Manner(
        glide_seconds=log_uniform(rng, 0.03, 0.14),
        overshoot=float(rng.uniform(0.1, 1)),
        vibrato_hz=float(rng.uniform(4.5, 7)),
        vibrato_depth=float(rng.choice([0.05, 0.25, 0.5, 0.9])) * rng.uniform(0.7, 1.3),
        vibrato_delay=float(rng.uniform(0, 0.6)),
        scoop=float(rng.uniform(0, 0.7)),
        fall=float(rng.uniform(0, 0.5)),
        drift=float(rng.uniform(0.02, 0.25)),
        jitter=log_uniform(rng, 0.01, 0.1),
        power_db=float(rng.uniform(2, 8)),
        tuned=bool(rng.random() < 0.2),
        breath_db=float(rng.uniform(-42, -20)) if rng.random() < 0.7 else -99.0,
    )
    formants = FormantVoice(rng) if speaker == "formants" else None
    return _Singer(speaker, formants, base, timbre, manner)


# ---- who sings what ------------------------------------------------------------------------


def vocals(score: Score, palette: Palette, rng: np.random.Generator) -> np.ndarray:
    """A lead voice of some style, at times with doubles, harmonies, answers, or a choir."""
    lead = _draw_singer(score, palette, rng)
    perform = _LEADS[rng.choice(len(_LEADS), p=_LEAD_SHARES)]
    dry = perform(score, lead, rng)
    if not dry.any():
        dry = _sung(score, lead, rng)
    audio = _channel(level_to(dry), score, rng)
    for _ in range(int(rng.choice(3, p=[0.55, 0.35, 0.1]))):
        if rng.random() < 0.1:
            backing = _sampled_choir(score, palette, rng)
        else:
            support = _BACKINGS[rng.choice(len(_BACKINGS), p=_BACKING_SHARES)]
            backing = support(score, _draw_singer(score, palette, rng), rng)
        backing = _channel(level_to(backing), score, rng, wetter=True)
        audio = audio + rng.uniform(0.2, 0.6) * backing
    return audio


def _take(
    phrases: Sequence[Phrase], score: Score, voice: _Singer, rng: np.random.Generator
) -> np.ndarray:
    mono = sing(phrases, score.samples, voice.timbre, voice.manner, rng)
    return level_to(np.stack([mono, mono]))


def _phrases(
    tune: Tune, lines: Sequence[Line], score: Score, rng: np.random.Generator
) -> list[Phrase]:
    """Set words to a tune; a chorus has the same words each time."""
    chorus = lines[: max(2, len(lines) // 3)]
    return [
        set_words(chorus if tunes.in_chorus(score, _bar(score, notes[0])) else lines, notes, rng)
        for notes in tune
    ]


def _bar(score: Score, note: Note) -> int:
    return int(max(note.start, 0) / (4 * score.beat_seconds))


def _sung(score: Score, voice: _Singer, rng: np.random.Generator) -> np.ndarray:
    lines = voice.lines(rng, "words", 6)
    if rng.random() < 0.3:
        lines += voice.lines(rng, "vocalise", 2)
    phrases = _phrases(tunes.sung(score, rng, voice.base), lines, score, rng)
    audio = pan(_take(phrases, score, voice, rng), 0.06 * rng.normal())
    return audio + _stack(phrases, score, voice, rng)


def _stack(
    phrases: Sequence[Phrase], score: Score, voice: _Singer, rng: np.random.Generator
) -> np.ndarray:
    """Doubles and harmonies, mostly in the chorus; the stack may be empty."""
    audio = np.zeros((2, score.samples), np.float32)
    chosen = [p for p in phrases if tunes.in_chorus(score, _bar(score, p.notes[0]))]
    if rng.random() < 0.3:
        chosen = [phrase for phrase in phrases if rng.random() < 0.5]
    if not chosen:
        return audio
    if rng.random() < 0.4:
        for side in (-1, 1):
            other = voice.varied(rng, late_seconds=rng.uniform(0, 0.03), loose_seconds=0.015)
            gain, width = rng.uniform(0.25, 0.7), rng.uniform(0.3, 1)
            audio += gain * pan(_take(chosen, score, other, rng), side * width)
    if rng.random() < 0.35:
        intervals = [[1], [-1], [1, 2], [1, -2]][rng.integers(4)]
        for thirds in intervals:
            other = voice.varied(rng, late_seconds=0.01, loose_seconds=0.012)
            moved = [p.moved(tunes.harmony(score, p.notes, thirds)) for p in chosen]
            sung = _take(moved, score, other, rng)
            audio += rng.uniform(0.25, 0.6) * pan(sung, rng.uniform(-0.9, 0.9))
    return audio


def _rap(score: Score, voice: _Singer, rng: np.random.Generator) -> np.ndarray:
    """Syllables on the grid, with the intonation of speech."""
    manner = replace(
        voice.manner,
        spoken=float(rng.uniform(0.7, 2.0)),
        vibrato_depth=0.0,
        scoop=0.1,
        fall=0.4,
        tuned=voice.manner.tuned and rng.random() < 0.5,
        loose_seconds=float(rng.uniform(0.004, 0.02)),
    )
    voice = replace(voice, manner=manner)
    register = float(voice.base + score.key - rng.integers(0, 8))
    register = max(register, 41.0)
    # What is left of the tune: a few semitones up and down.
    share = rng.uniform(0, 0.3)
    tune = [
        [replace(note, pitch=register + share * (note.pitch - voice.base)) for note in notes]
        for notes in tunes.sung(score, rng, voice.base, rap=True)
    ]
    phrases = _phrases(tune, voice.lines(rng, "words", 8), score, rng)
    audio = _take(phrases, score, voice, rng)
    doubled = [phrase for phrase in phrases if rng.random() < 0.3]
    if doubled and rng.random() < 0.5:
        for side in (-1, 1):
            take = _take(doubled, score, voice.varied(rng, loose_seconds=0.015), rng)
            audio += rng.uniform(0.3, 0.6) * pan(take, side * rng.uniform(0.3, 1))
    return audio


def _whisper(score: Score, voice: _Singer, rng: np.random.Generator) -> np.ndarray:
    timbre = replace(voice.timbre, whisper=True, growl=0.0)
    return _rap(score, replace(voice, timbre=timbre), rng)


def _shout(score: Score, voice: _Singer, rng: np.random.Generator) -> np.ndarray:
    timbre = replace(
        voice.timbre,
        tilt_db=float(rng.uniform(3, 7)),
        growl=float(rng.uniform(0.2, 1.0)),
        ring_db=float(rng.uniform(3, 9)),
    )
    manner = replace(voice.manner, spoken=0.8, scoop=0.8, fall=0.8, vibrato_depth=0.1, tuned=False)
    voice = replace(voice, timbre=timbre, manner=manner, base=min(voice.base, 48) + 7)
    audio = _sung(score, voice, rng)
    return saturate(audio, rng.uniform(1.5, 6))


def _vocalise(score: Score, voice: _Singer, rng: np.random.Generator) -> np.ndarray:
    """Vowels and "na na", at times hummed with the lips closed."""
    if rng.random() < 0.3:
        timbre = replace(voice.timbre, closed_db=float(rng.uniform(10, 22)), nasal_db=8.0)
        voice = replace(voice, timbre=timbre)
    lines = voice.lines(rng, "vocalise", 5)
    phrases = _phrases(tunes.sung(score, rng, voice.base), lines, score, rng)
    return _take(phrases, score, voice, rng) + _stack(phrases, score, voice, rng)


def _robot(score: Score, voice: _Singer, rng: np.random.Generator) -> np.ndarray:
    """A talk box or a vocoder: words on flat pitches, at times in chords."""
    voice = replace(
        voice,
        manner=replace(voice.manner, flat=True, spoken=0.0, breath_db=-99.0),
        timbre=replace(voice.timbre, breath=0.0, growl=0.0, tilt_db=float(rng.uniform(0, 6))),
    )
    phrases = _phrases(tunes.sung(score, rng, voice.base), voice.lines(rng, "words", 6), score, rng)
    audio = _take(phrases, score, voice, rng)
    for thirds in (1, 2)[: rng.integers(3)]:
        moved = [p.moved(tunes.harmony(score, p.notes, thirds)) for p in phrases]
        audio += rng.uniform(0.4, 0.9) * _take(moved, score, voice, rng)
    return audio


def _chops(score: Score, voice: _Singer, rng: np.random.Generator) -> np.ndarray:
    """A sung word cut up, its pieces played like a sampler."""
    kind = str(rng.choice(["vocalise", "cries", "words"]))
    line = voice.lines(rng, kind, 1)[0]
    root = voice.base + score.key
    notes = [Note(0.3 + 0.35 * i, 0.35, root + 12, 90) for i in range(min(len(line.syllables), 5))]
    phrase = Phrase(line, tuple(notes), tuple(range(len(notes))))
    source = sing([phrase], int(2.6 * SAMPLE_RATE), voice.timbre, voice.manner, rng)
    source = source[int(0.2 * SAMPLE_RATE) :]
    pattern = np.flatnonzero(rng.random(2 * STEPS) < rng.uniform(0.2, 0.5))
    semitones = [score.pitch(int(d), 0) - score.key for d in rng.choice([-3, 0, 2, 4, 7], size=8)]
    cuts = 0.35 * rng.integers(len(notes), size=8) + rng.uniform(0, 0.1)
    audio = np.zeros((2, score.samples), np.float32)
    spread, playing = rng.uniform(0, 0.9), score.playing(rng, always=0.6, section=0.7)
    for bar in np.flatnonzero(playing):
        for step in pattern[pattern // STEPS == bar % 2]:
            which = int(step * 5 % 8)
            seconds = float(rng.choice([0.5, 1, 1, 2])) * score.step_seconds
            speed = 2 ** (semitones[which] / 12)
            length = int(min(seconds, 0.6) * SAMPLE_RATE)
            at = cuts[which] * SAMPLE_RATE + speed * np.arange(length)
            piece = np.interp(at, np.arange(len(source)), source)
            fade = np.minimum(1, np.minimum(np.arange(length), length - np.arange(length)) / 200)
            stereo = pan(piece * fade, spread * np.sin(which))
            place(audio, stereo, (bar * STEPS + step % STEPS) * score.step_seconds)
    return audio


# ---- behind the lead -----------------------------------------------------------------------


def _choir(score: Score, voice: _Singer, rng: np.random.Generator) -> np.ndarray:
    """Block chords by three or four voices, each copied into a small group."""
    voice = replace(voice, manner=replace(voice.manner, vibrato_depth=0.25, tuned=False))
    base = 48 if rng.random() < 0.5 else 60
    lines = voice.lines(rng, "vocalise", 2)
    chorus_only = rng.random() < 0.7 and score.bars > 10
    copies = int(rng.integers(1, 4))
    audio = np.zeros((2, score.samples), np.float32)
    for tune in tunes.blocks(score, rng, base, chorus_only=chorus_only):
        phrases = [set_words(lines, notes, rng) for notes in tune]
        other = voice.varied(rng, loose_seconds=0.02)
        mono = sing(phrases, score.samples, other.timbre, other.manner, rng)
        for _ in range(copies):
            audio += pan(_wandering(mono, rng), rng.uniform(-1, 1))
    return audio


def _wandering(mono: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Another of the group: the same voice later and a little out of tune, now up, now down."""
    knots = np.linspace(0, len(mono), max(4, len(mono) // SAMPLE_RATE))
    delays = SAMPLE_RATE * (rng.uniform(0.005, 0.04) + 0.004 * rng.standard_normal(len(knots)))
    samples = np.arange(len(mono))
    moved = np.interp(samples - np.interp(samples, knots, delays), samples, mono)
    return equalise_at_random(moved.astype(np.float32), rng, 3.0)


def _ad_libs(score: Score, voice: _Singer, rng: np.random.Generator) -> np.ndarray:
    manner = replace(voice.manner, spoken=float(rng.uniform(0, 1)), scoop=0.8, fall=0.8)
    lines = voice.lines(rng, "cries", 4)
    tune = tunes.cries(score, rng, voice.base, rng.uniform(0.15, 0.6))
    phrases = [set_words(lines, notes, rng) for notes in tune]
    mono = sing(phrases, score.samples, voice.timbre, manner, rng)
    return pan(mono, rng.uniform(-0.8, 0.8))


def _answers(score: Score, voice: _Singer, rng: np.random.Generator) -> np.ndarray:
    """A few people who answer together, wide."""
    lines = voice.lines(rng, str(rng.choice(["cries", "vocalise"])), 2)
    tune = tunes.cries(score, rng, voice.base, rng.uniform(0.15, 0.4))
    phrases = [set_words(lines, notes, rng) for notes in tune]
    audio = np.zeros((2, score.samples), np.float32)
    for index, thirds in enumerate((0, 1, 2)[: rng.integers(1, 4)]):
        moved = [p.moved(tunes.harmony(score, p.notes, thirds)) for p in phrases]
        other = voice.varied(rng, loose_seconds=0.02)
        mono = sing(moved, score.samples, other.timbre, other.manner, rng)
        side = 1 - 2 * (index % 2)
        audio += pan(mono, 0.7 * side) + pan(_wandering(mono, rng), -0.7 * side)
    return audio


def _sampled_choir(score: Score, palette: Palette, rng: np.random.Generator) -> np.ndarray:
    notes = [
        note
        for tune in tunes.blocks(score, rng, 60, chorus_only=False)
        for phrase in tune
        for note in phrase
    ]
    program = int(rng.choice([52, 53]))
    return play_notes(notes, score.samples, soundfont=palette.soundfont(rng), program=program)


# Of leads with their shares, and of what sings behind them.
_LEADS = (_sung, _rap, _vocalise, _shout, _whisper, _robot, _chops, _choir)
_LEAD_SHARES = (0.6, 0.15, 0.08, 0.05, 0.03, 0.03, 0.03, 0.03)
_BACKINGS = (_choir, _ad_libs, _answers, _chops)
_BACKING_SHARES = (0.3, 0.3, 0.3, 0.1)


# ---- channel -------------------------------------------------------------------------------


def _channel(
    audio: np.ndarray, score: Score, rng: np.random.Generator, *, wetter: bool = False
) -> np.ndarray:
    """Dynamics, tone and space; close and dry in many songs, farther away for what is behind."""
    audio = compress(audio, rng.uniform(-32, -14), rng.uniform(1.5, 8), rng.uniform(0.03, 0.2))
    audio = level_to(audio)
    audio = butterworth(audio, "highpass", log_uniform(rng, 50, 200))
    audio = equalise_at_random(audio, rng)
    audio = equalise(
        audio,
        ("peak", rng.uniform(2000, 5000), 0.7, rng.uniform(-3, 5)),
        ("high", rng.uniform(5000, 11000), 0.7, rng.uniform(-2, 6)),
    )
    if rng.random() < 0.25:
        audio = saturate(audio, log_uniform(rng, 1.5, 8))
    if rng.random() < 0.12:
        audio = _telephone(audio, score, rng)
    if rng.random() < 0.2:
        audio = audio + rng.uniform(0.2, 0.6) * np.stack([_wandering(c, rng) for c in audio])
    spaced = audio
    if rng.random() < 0.4:
        spaced = spaced + _echoes(audio, score, rng)
    if rng.random() < 0.85:
        dry = not wetter and rng.random() < 0.5
        spaced = reverberate(
            spaced,
            rng,
            seconds=log_uniform(rng, 0.2, 2.5),
            wet=rng.uniform(0.02, 0.12) if dry else rng.uniform(0.1, 0.5),
            pre_delay_seconds=rng.uniform(0, 0.08),
        )
    return spaced


def _telephone(audio: np.ndarray, score: Score, rng: np.random.Generator) -> np.ndarray:
    """A narrow band in some of the sections."""
    narrow = butterworth(audio, "bandpass", (rng.uniform(250, 600), rng.uniform(2200, 5000)))
    narrow = saturate(narrow, rng.uniform(1.5, 8))
    chosen = np.repeat(rng.random(score.bars // 4 + 1) < 0.4, 4)
    edges = np.arange(len(chosen)) * 4 * score.beat_seconds * SAMPLE_RATE
    share = np.interp(np.arange(audio.shape[-1]), edges, chosen.astype(float))
    share = (share > 0.5).astype(np.float32)
    return audio * (1 - share) + narrow * share


def _echoes(audio: np.ndarray, score: Score, rng: np.random.Generator) -> np.ndarray:
    """A slap, or repeats in tempo that may jump from side to side, all along or thrown."""
    send = audio
    if rng.random() < 0.3:
        seconds = rng.uniform(0.06, 0.16)
        repeats = 1
    else:
        seconds = float(rng.choice([0.5, 0.75, 1.0, 2.0])) * score.beat_seconds
        repeats = int(rng.integers(1, 6))
        if rng.random() < 0.4:
            halves = int(audio.shape[-1] / SAMPLE_RATE / (2 * score.beat_seconds)) + 1
            thrown = np.repeat(rng.random(halves) < 0.2, int(2 * score.beat_seconds * SAMPLE_RATE))
            thrown = np.pad(thrown, (0, max(0, audio.shape[-1] - len(thrown))))
            send = audio * thrown[: audio.shape[-1]]
    send = butterworth(send, "bandpass", (rng.uniform(100, 500), rng.uniform(2500, 9000)), 1)
    gain, feedback = rng.uniform(0.1, 0.5), rng.uniform(0.3, 0.7)
    crossing = rng.random() < 0.5
    echoes = np.zeros_like(audio)
    for repeat in range(1, repeats + 1):
        late = shift(send, int(repeat * seconds * SAMPLE_RATE))
        if crossing:
            late = pan(late.mean(axis=0), 0.8 * (-1) ** repeat)
        echoes += gain * feedback ** (repeat - 1) * late
    return echoes
