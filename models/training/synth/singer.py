"""Voices: lines, spoken or made from formants, sung to a tune by the WORLD vocoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal

from .composition import Note
from .effects import SAMPLE_RATE, butterworth, place
from .speech import FRAME_MS, FRAMES_PER_SECOND, Line, Syllable, joined

_FFT = 1024
_BINS = _FFT // 2 + 1
_BIN_HZ = np.linspace(0, SAMPLE_RATE / 2, _BINS)
_NEPERS_PER_DB = np.log(10) / 10  # of power
_SILENCE = -24.0

# ---- formant voice -------------------------------------------------------------------------

_VOWELS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
    "ae": (660, 1720, 2410),
    "er": (490, 1350, 1690),
    "uh": (640, 1190, 2390),
    "ih": (390, 1990, 2550),
}
# Centre and width of the noise in Hz, its strength, and whether it is a burst.
_CONSONANTS = {
    "s": (7500, 2800, 0.9, False),
    "sh": (3600, 2000, 0.9, False),
    "f": (8000, 6000, 0.3, False),
    "h": (1500, 2500, 0.2, False),
    "t": (5000, 3500, 0.9, True),
    "k": (2200, 1500, 0.8, True),
    "p": (900, 1000, 0.6, True),
}
_Piece = tuple[np.ndarray, np.ndarray, int, np.ndarray, bool]


class FormantVoice:
    """A random singer: vowels as chains of resonances, consonants as coloured noise."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._bandwidth = rng.uniform(0.7, 1.5)
        self._tilt = rng.uniform(2.0, 3.2)
        breath = rng.uniform(0.01, 0.15) + (_BIN_HZ / 9000) ** 1.5 * rng.uniform(0.4, 1)
        self._breath = np.clip(breath, 0.001, 0.98)

    def line(self, count: int) -> Line:
        """Draw a line of some syllables."""
        pieces: list[_Piece] = []
        syllables = []
        vowel = self._vowel()
        for _ in range(count):
            begin = sum(piece[2] for piece in pieces)
            # Only half of the vowels are new: repeated words and open vowels prevail in songs.
            following = self._vowel() if self._rng.random() < 0.6 else vowel
            pieces += self._onset(vowel, following)
            start = sum(piece[2] for piece in pieces)
            glide = self._vowel() if self._rng.random() < 0.25 else following
            pieces.append((following, following, 6, self._breath, True))
            pieces.append((following, glide, 10, self._breath, True))
            vowel = glide
            if self._rng.random() < 0.2:
                hiss = self._hiss("s", vowel)
                pieces.append((vowel, vowel - 2, 4, self._breath, True))
                pieces.append((hiss, hiss - 4, 12, np.full(_BINS, 0.999), False))
            end = sum(piece[2] for piece in pieces)
            syllables.append(Syllable(begin, start, start + 6, end))
        pieces.append((vowel, vowel - 4, 10, self._breath, True))
        return _join(pieces, syllables)

    def _onset(self, before: np.ndarray, vowel: np.ndarray) -> list[_Piece]:
        rng, noise = self._rng, np.full(_BINS, 0.999)
        kind = rng.random()
        if kind < 0.5:
            name = str(rng.choice(list(_CONSONANTS)))
            hiss = self._hiss(name, vowel)
            rise = (vowel - 2.5, vowel, 6, self._breath, True)
            if _CONSONANTS[name][3]:
                closure = np.full(_BINS, -16.0)
                burst = (hiss + 1, hiss - 3, int(rng.integers(3, 9)), noise, False)
                return [(closure, closure, int(rng.integers(6, 12)), noise, False), burst, rise]
            voiced = name != "h" and rng.random() < 0.3  # z, v
            share = np.clip((_BIN_HZ / 1500) ** 2, 0.01, 0.99) if voiced else noise
            both = np.logaddexp(hiss - 0.7, vowel - 3 - _BIN_HZ / 800) if voiced else hiss
            return [(both - 3, both, int(rng.integers(8, 22)), share, voiced), rise]
        if kind < 0.75:
            nasal = self._resonances([250, 1100, 2200], [60, 300, 300]) - 1.5
            length = int(rng.integers(6, 16))
            return [
                (before - 1, nasal, 4, self._breath, True),
                (nasal, nasal, length, self._breath, True),
                (nasal, vowel, 5, self._breath, True),
            ]
        # l, r, w, y: a glide from a dark or a bright vowel.
        glide = self._resonances([300, rng.uniform(700, 2200), 2400], [80, 150, 200]) - 1.2
        return [(before - 1, glide, 6, self._breath, True), (glide, vowel, 9, self._breath, True)]

    def _resonances(self, formants: Sequence[float], widths: Sequence[float]) -> np.ndarray:
        high = [3500, 4500, 5600, 7200, 9000, 11500, 14500]
        high_widths = [200, 260, 400, 600, 900, 1200, 1500]
        power = 1 / (1 + (_BIN_HZ / 300) ** self._tilt) * (1 + (_BIN_HZ / 3000) ** 1.2)
        for centre, width in zip([*formants, *high], [*widths, *high_widths], strict=True):
            ratio = _BIN_HZ / centre
            power = power / ((1 - ratio**2) ** 2 + (ratio * width / centre) ** 2)
        return np.log(power / power.mean() + 1e-9)

    def _vowel(self) -> np.ndarray:
        name = str(self._rng.choice(list(_VOWELS)))
        formants = np.array(_VOWELS[name]) * self._rng.uniform(0.94, 1.06, 3)
        return self._resonances(list(formants), list(self._bandwidth * np.array([60, 90, 130])))

    def _hiss(self, name: str, vowel: np.ndarray) -> np.ndarray:
        centre, width, strength, _ = _CONSONANTS[name]
        shape = np.exp(-0.5 * ((_BIN_HZ - centre) / width) ** 2)
        level = 0.1 * strength**2 * np.exp(vowel).mean() * self._rng.uniform(0.3, 2)
        return np.log(level * shape / shape.mean() + 1e-6)


def _join(pieces: Sequence[_Piece], syllables: Sequence[Syllable]) -> Line:
    envelopes, aperiodicities, pitch = [], [], []
    for first, last, frames, aperiodicity, voiced in pieces:
        blend = (0.5 - 0.5 * np.cos(np.pi * np.arange(frames) / frames))[:, None]
        envelopes.append(first * (1 - blend) + last * blend)
        aperiodicities.append(np.tile(aperiodicity, (frames, 1)))
        pitch.append(np.full(frames, 120.0 if voiced else 0.0))
    return Line(
        np.concatenate(envelopes).astype(np.float32),
        np.concatenate(aperiodicities).astype(np.float32),
        np.concatenate(pitch),
        SAMPLE_RATE / 2,
        tuple(syllables),
    )


# ---- timbre --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Timbre:
    """What makes one throat sound unlike another.

    `tract` scales the formants (above 1: shorter, like a child's); levels in dB, `tilt_db` an
    octave; `breath` is a share of noise in 0..1 and `clear` a power that takes noise away; `growl`
    is the depth of rough modulation in 0..1 and `growl_hz` its rate, or 0 for half the pitch.
    """

    tract: float = 1.0
    tilt_db: float = 0.0
    air_db: float = -12.0
    ring_db: float = 0.0
    ring_hz: float = 3000.0
    nasal_db: float = 0.0
    closed_db: float = 0.0
    breath: float = 0.0
    clear: float = 1.0
    whisper: bool = False
    growl: float = 0.0
    growl_hz: float = 0.0

    def coloured(
        self, envelope: np.ndarray, aperiodicity: np.ndarray, line: Line, voiced: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bring frames of a line to the bins of the vocoder, in this timbre."""
        bins = line.envelope.shape[1]
        within = np.minimum(_BIN_HZ / self.tract / line.band_hz * (bins - 1), bins - 1.001)
        lower = within.astype(int)
        share = (within - lower).astype(np.float32)
        envelope, aperiodicity = (
            frames.take(lower, axis=1) * (1 - share) + frames.take(lower + 1, axis=1) * share
            for frames in (envelope, aperiodicity)
        )
        limit_hz = line.band_hz * self.tract
        octaves = np.log2(np.maximum(_BIN_HZ, 150) / 700).astype(np.float32)
        if limit_hz < 0.9 * SAMPLE_RATE / 2:
            self._extend(envelope, aperiodicity, limit_hz, voiced)
        colour = self.tilt_db * octaves
        colour += self.ring_db * np.exp(-0.5 * ((_BIN_HZ - self.ring_hz) / 450) ** 2)
        colour -= self.nasal_db * np.exp(-0.5 * ((_BIN_HZ - 850) / 250) ** 2)
        colour -= self.closed_db * np.clip(octaves, 0, 2)
        envelope += voiced[:, None] * (colour * _NEPERS_PER_DB).astype(np.float32)
        hoarse = self.breath * np.clip((_BIN_HZ / 5000) ** 0.7, 0.1, 1).astype(np.float32)
        aperiodicity = np.clip(aperiodicity, 0.001, 1.0) ** np.float32(self.clear)
        return envelope, np.clip(1 - (1 - aperiodicity) * (1 - hoarse), 0.001, 0.999)

    def _extend(
        self, envelope: np.ndarray, aperiodicity: np.ndarray, limit_hz: float, voiced: np.ndarray
    ) -> None:
        """Invent what lies above the band of the speaker: bright hiss, and air on the vowels."""
        limit = int(limit_hz / SAMPLE_RATE * _FFT)
        octaves = np.log2(_BIN_HZ[limit:] / _BIN_HZ[limit]).astype(np.float32)
        top = envelope[:, limit - limit // 6 : limit].mean(axis=1, keepdims=True)
        fall = np.where(voiced, 14 - 0.5 * self.air_db, 3 - 0.2 * self.air_db)[:, None] * octaves
        fall = fall + 10 * np.maximum(octaves - 0.9, 0)
        # The resonances up there: shallow, and other ones for other throats.
        ripple = 3 * np.sin(2 * np.pi * (_BIN_HZ[limit:] / (1700 * self.tract)))
        ripple *= np.minimum(1, 4 * octaves)
        envelope[:, limit:] = top - (fall - ripple).astype(np.float32) * _NEPERS_PER_DB
        rise = np.minimum(1, 0.3 + 0.6 * octaves)
        aperiodicity[:, limit:] = np.maximum(aperiodicity[:, limit - 1 : limit], rise)


# ---- delivery ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Manner:
    """How a tune is sung: semitones, seconds and Hz; `power_db` is the spread of loudness.

    `spoken` is the share of the speaker's own intonation in the pitch, `tuned` a pitch corrector.
    """

    glide_seconds: float = 0.06
    overshoot: float = 0.6
    vibrato_hz: float = 5.5
    vibrato_depth: float = 0.3
    vibrato_delay: float = 0.25
    scoop: float = 0.3
    fall: float = 0.1
    drift: float = 0.1
    jitter: float = 0.02
    power_db: float = 4.0
    spoken: float = 0.05
    tuned: bool = False
    flat: bool = False
    breath_db: float = -99.0
    late_seconds: float = 0.0
    loose_seconds: float = 0.008


@dataclass(frozen=True)
class Phrase:
    """A line and its notes; syllable `i` starts on note `firsts[i]`, more notes are a melisma."""

    line: Line
    notes: tuple[Note, ...]
    firsts: tuple[int, ...]

    def moved(self, notes: Sequence[Note]) -> Phrase:
        """The same words on other notes."""
        return Phrase(self.line, tuple(notes), self.firsts)


def set_words(lines: Sequence[Line], notes: Sequence[Note], rng: np.random.Generator) -> Phrase:
    """Choose the line that fits the notes, and lay its syllables on them."""
    # Long lines are put together from short ones; a vowel alone is for a melisma.
    misfits = [abs(len(line.syllables) - len(notes)) + 2 * rng.random() for line in lines]
    line = lines[int(np.argmin(misfits))]
    while 1 < len(line.syllables) < 0.8 * len(notes):
        line = joined(line, lines[rng.integers(len(lines))])
    count = min(len(line.syllables), len(notes))
    more = rng.permutation(np.arange(1, len(notes)))[: count - 1]
    return Phrase(line, tuple(notes), (0, *sorted(int(index) for index in more)))


def sing(
    phrases: Sequence[Phrase],
    samples: int,
    timbre: Timbre,
    manner: Manner,
    rng: np.random.Generator,
) -> np.ndarray:
    """Sing phrases; mono, shape (samples,), silent between them."""
    canvas = np.zeros(samples, np.float32)
    for phrase in phrases:
        start, voice, loudness = _sing_phrase(phrase, timbre, manner, rng)
        place(canvas, voice, start)
        if manner.breath_db > -60 and rng.random() < 0.7:
            breath = _inhale(rng) * loudness * 10 ** (manner.breath_db / 20)
            place(canvas, breath, start - len(breath) / SAMPLE_RATE)
    return butterworth(canvas, "highpass", 60)


def _sing_phrase(
    phrase: Phrase, timbre: Timbre, manner: Manner, rng: np.random.Generator
) -> tuple[float, np.ndarray, float]:
    """Start in seconds, audio, and its level."""
    import pyworld

    line = phrase.line
    late = manner.late_seconds + manner.loose_seconds * rng.standard_normal(len(phrase.notes))
    starts = np.array([note.start for note in phrase.notes]) + late
    starts = np.maximum.accumulate(starts) * FRAMES_PER_SECOND
    target, source, rests = _align(phrase, starts)
    origin = int(target[0]) - 6
    frames = int(target[-1]) - origin + 12
    where = np.interp(np.arange(frames) + origin, target, source)
    lower = np.minimum(where.astype(int), len(line.pitch_hz) - 2)
    share = (where - lower).astype(np.float32)[:, None]
    envelope = line.envelope[lower] * (1 - share) + line.envelope[lower + 1] * share
    noise = line.aperiodicity[lower] * (1 - share) + line.aperiodicity[lower + 1] * share
    voiced = line.pitch_hz[lower] > 0
    envelope, noise = timbre.coloured(envelope, noise, line, voiced)

    power = _dynamics(phrase, starts - origin, frames, manner, rng)
    # Loud is bright; and no vowel stays the same while it is held.
    bright = 0.25 * power + 0.5 * _wander(rng, frames, 0.96)
    envelope += power[:, None] + bright[:, None] * np.log2(np.maximum(_BIN_HZ, 100) / 700)
    gate = np.zeros(frames, np.float32)
    gate[:6] = gate[-12:] = 1
    for first, last in [*(rests - origin).tolist(), (frames - 12, frames)]:
        gate[int(first) : int(last)] = 1
        # Some words are dropped gently, others cut off.
        fade = np.linspace(0, 1, min(int(rng.integers(2, 36)), int(first)))
        power[int(first) - len(fade) : int(first)] -= rng.uniform(0, 4) * fade**2
    gate = np.convolve(np.pad(gate, 4, mode="edge"), np.hanning(9) / 4, mode="valid")
    envelope += (_SILENCE * gate)[:, None]

    contour = _contour(phrase, starts - origin, frames, manner, rng)
    contour += manner.spoken * line.intonation[lower]
    frequency = np.clip(440 * 2 ** ((contour - 69) / 12), 50, 1400)
    sounding = voiced & (not timbre.whisper)
    voice = pyworld.synthesize(
        frequency * sounding,
        np.exp(np.maximum(envelope, -28.0).astype(np.float64)),
        np.full(noise.shape, 0.999) if timbre.whisper else noise.astype(np.float64),
        SAMPLE_RATE,
        FRAME_MS,
    )
    if timbre.growl > 0:
        voice = voice * _growl(timbre, frequency, len(voice), rng)
    level = float(np.sqrt(np.mean(voice**2))) + 1e-9
    return origin / FRAMES_PER_SECOND, voice.astype(np.float32), level


def _align(phrase: Phrase, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Knots from frames of the song to frames of the line, and rests as (first, last) frames.

    Vowels begin on the beat and are stretched; consonants keep their length while there is room.
    """
    syllables = phrase.line.syllables[: len(phrase.firsts)]
    onsets = starts[list(phrase.firsts)]
    target: list[float] = []
    source: list[float] = []
    rests: list[tuple[float, float]] = []
    for index, (syllable, onset) in enumerate(zip(syllables, onsets, strict=True)):
        room = onset - onsets[index - 1] if index else np.inf
        begin = onset - min(syllable.start - syllable.begin, 0.45 * room)
        final = (phrase.firsts[index + 1] if index + 1 < len(onsets) else len(phrase.notes)) - 1
        finish = starts[final] + phrase.notes[final].duration * FRAMES_PER_SECOND
        if index + 1 < len(onsets):
            following = syllables[index + 1]
            room = onsets[index + 1] - onset
            latest = onsets[index + 1] - min(following.start - following.begin, 0.45 * room)
            # Short gaps are sung over.
            finish = latest if latest - finish < 25 else finish
        finish = max(finish, onset + 6)
        coda = min(syllable.end - syllable.stop, 0.5 * (finish - onset))
        if target and begin - target[-1] > 1:
            rests.append((target[-1], begin))
        target += [begin, onset, finish - coda, finish]
        source += [syllable.begin, syllable.start, syllable.stop, syllable.end - 0.01]
    return np.maximum.accumulate(target), np.array(source), np.array(rests).reshape(-1, 2)


def _dynamics(
    phrase: Phrase, starts: np.ndarray, frames: int, manner: Manner, rng: np.random.Generator
) -> np.ndarray:
    """Log power: an arch over the phrase, accents, and swells on long notes."""
    arch = np.sin(np.pi * np.linspace(0.15, 1, frames)) * rng.uniform(0, 1)
    accents = rng.standard_normal(len(starts))
    # What is high is loud.
    pitches = np.array([note.pitch for note in phrase.notes], dtype=float)
    accents += 0.25 * (pitches - pitches.mean())
    curve = np.interp(np.arange(frames), starts + 8, accents) + arch
    return (0.5 * manner.power_db * _NEPERS_PER_DB * curve).astype(np.float32)


def _contour(
    phrase: Phrase, starts: np.ndarray, frames: int, manner: Manner, rng: np.random.Generator
) -> np.ndarray:
    """Pitch in semitones for each frame."""
    error = 0.0 if manner.tuned else manner.drift
    pitches = np.array([note.pitch for note in phrase.notes], dtype=float)
    pitches += error * rng.standard_normal(len(pitches))
    lead = 0.0 if manner.tuned else 0.4 * manner.glide_seconds * FRAMES_PER_SECOND
    index = np.searchsorted(starts - lead, np.arange(frames), side="right") - 1
    steps = pitches[np.maximum(index, 0)]
    if manner.flat:
        return steps
    wander = _wander(rng, frames, 0.97)
    if manner.tuned:
        contour = _smooth(steps, 2 * np.pi * 25, 1.0)
        manner_drift = 0.0
    else:
        speed = 2.5 / manner.glide_seconds
        # Slow and overshooting, and a little ahead: the throat prepares.
        late = _smooth(steps, speed, 1.0 - 0.6 * manner.overshoot)
        early = _smooth(steps[::-1], speed, 0.8)[::-1]
        contour = 0.8 * late + 0.2 * early
        manner_drift = manner.drift
        contour += manner.jitter * rng.standard_normal(frames)
    contour += manner_drift * wander
    rate = manner.vibrato_hz * (1 + 0.07 * wander)
    wave = np.sin(2 * np.pi * np.cumsum(rate) / FRAMES_PER_SECOND + rng.uniform(0, 6))
    time = np.arange(frames)
    for number, note in enumerate(phrase.notes):
        begin, length = starts[number], note.duration * FRAMES_PER_SECOND
        span = slice(max(int(begin), 0), max(int(begin + length), 0))
        since = (time[span] - begin) / FRAMES_PER_SECOND
        if note.duration > 0.3:
            depth = manner.vibrato_depth * rng.uniform(0.5, 1.3)
            swell = np.clip((since - manner.vibrato_delay) / 0.35, 0, 1)
            contour[span] += depth * swell * wave[span]
        if not manner.tuned and rng.random() < manner.scoop * (1.0 if number == 0 else 0.4):
            contour[span] -= rng.uniform(0.7, 3.5) * np.exp(-since / rng.uniform(0.03, 0.1))
        last = number == len(phrase.notes) - 1
        if last and not manner.tuned and rng.random() < manner.fall:
            left = np.clip(1 - (note.duration - since) / 0.22, 0, 1)
            contour[span] -= rng.uniform(1, 7) * left**2
    return contour


def _wander(rng: np.random.Generator, frames: int, memory: float) -> np.ndarray:
    """Slow noise of a deviation of 1."""
    noise = rng.standard_normal(frames + 200)
    return signal.lfilter([np.sqrt(1 - memory**2)], [1, -memory], noise)[200:]


def _smooth(steps: np.ndarray, speed: float, damping: float) -> np.ndarray:
    """Follow steps like a mass on a spring, of angular `speed`."""
    omega = speed / FRAMES_PER_SECOND
    radius, angle = np.exp(-damping * omega), omega * np.sqrt(max(1 - damping**2, 0.0))
    poles = [1, -2 * radius * np.cos(angle), radius**2]
    gain = sum(poles)
    state = signal.lfiltic([gain], poles, np.full(2, steps[0]))
    return signal.lfilter([gain], poles, steps, zi=state)[0]


def _growl(
    timbre: Timbre, frequency: np.ndarray, length: int, rng: np.random.Generator
) -> np.ndarray:
    """Rough modulation, at half the pitch (as false folds do) or at a rate of its own."""
    rate = frequency / 2 if timbre.growl_hz == 0 else np.full(len(frequency), timbre.growl_hz)
    rate = rate * (1 + 0.1 * rng.standard_normal(len(rate)))
    phase = np.cumsum(rate) / FRAMES_PER_SECOND * 2 * np.pi
    depth = timbre.growl * np.clip(0.6 + 0.5 * _wander(rng, len(rate), 0.98), 0, 1)
    at = np.arange(length) / SAMPLE_RATE * FRAMES_PER_SECOND
    frames = np.arange(len(rate))
    wave = np.sin(np.interp(at, frames, phase))
    return 1 + np.interp(at, frames, depth) * wave


def _inhale(rng: np.random.Generator) -> np.ndarray:
    """A breath taken in: noise through an open mouth, with a level of 1."""
    length = int(SAMPLE_RATE * rng.uniform(0.2, 0.5))
    noise = rng.standard_normal(length) * np.hanning(length) ** 0.8
    mouth = butterworth(noise, "bandpass", (rng.uniform(400, 900), rng.uniform(3000, 9000)), 1)
    throat = butterworth(noise, "bandpass", (rng.uniform(1200, 1700), 2300), 1)
    breath = mouth + throat
    return (breath / np.sqrt(np.mean(breath**2))).astype(np.float32)
