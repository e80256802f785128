"""Instruments computed from scratch: subtractive synths, plucked strings, a drum machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal

from .composition import Note
from .effects import SAMPLE_RATE, butterworth, equalise, log_uniform, pan, place

GENERAL_MIDI_DRUMS = {
    "kick": 36,
    "rim": 37,
    "snare": 38,
    "clap": 39,
    "hat": 42,
    "low tom": 45,
    "open hat": 46,
    "mid tom": 47,
    "crash": 49,
    "cowbell": 56,
    "high conga": 63,
    "low conga": 64,
    "high tom": 50,
    "ride": 51,
    "tambourine": 54,
    "shaker": 70,
}


def frequency_of(pitch: float) -> float:
    """Frequency in Hz of a MIDI pitch."""
    return float(440.0 * 2 ** ((pitch - 69) / 12))


def _clock(seconds: float) -> np.ndarray:
    return np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE


def play_line(
    notes: Sequence[Note], samples: int, voice: Callable[[float, float], np.ndarray]
) -> np.ndarray:
    """Play notes with ``voice(frequency_hz, seconds)``; mono, equal notes computed once."""
    canvas = np.zeros(samples, np.float32)
    sounds: dict[tuple[int, float], np.ndarray] = {}
    for note in notes:
        key = (note.pitch, round(min(note.duration, 3.0), 2))
        if key not in sounds:
            sounds[key] = voice(frequency_of(note.pitch), max(key[1], 0.03))
        place(canvas, sounds[key] * (note.velocity / 100) ** 1.5, note.start)
    return canvas


# ---- subtractive synth -----------------------------------------------------------------

_TABLE = 2048
_LEVELS = 8


@dataclass(frozen=True)
class SynthPatch:
    """Detuned voices of a waveform through a resonant low-pass filter with an envelope."""

    waveform: str
    detune_cents: tuple[float, ...]
    cutoff_hz: float
    resonance: float
    sweep_octaves: float
    sweep_seconds: float
    attack_seconds: float
    decay_seconds: float
    sustain: float
    modulation: float = 0.0
    ratio: float = 1.0
    noise: float = 0.0
    octave_below: float = 0.0

    @classmethod
    def random(cls, rng: np.random.Generator, role: str) -> SynthPatch:
        """Draw a patch for ``bass``, ``pad``, ``pluck`` or ``lead``."""
        bass, pad, pluck = role == "bass", role == "pad", role == "pluck"
        waves = {"saw": 4, "square": 2, "pulse": 2, "triangle": 1.5, "sine": 1, "fm": 2, "ring": 1}
        if pad:
            waves |= {"sine": 0.4, "fm": 0.8, "ring": 0.3}
        chances = np.array(list(waves.values()))
        cutoff = (150, 2500) if bass else (500, 12000) if not pad else (500, 9000)
        return cls(
            waveform=str(rng.choice(list(waves), p=chances / chances.sum())),
            detune_cents=_detune(rng, (0.65, 0.25, 0.1) if bass else (0.3, 0.35, 0.35)),
            cutoff_hz=log_uniform(rng, *cutoff),
            resonance=log_uniform(rng, 0.7, 6),
            sweep_octaves=0.0 if pad else float(rng.uniform(0, 4)),
            sweep_seconds=log_uniform(rng, 0.03, 0.5),
            attack_seconds=float(rng.uniform(0.02, 0.4)) if pad else log_uniform(rng, 0.001, 0.02),
            decay_seconds=2.0 if pad else log_uniform(rng, 0.08, 1.0),
            sustain=0.8 if pad else 0.0 if pluck else float(rng.uniform(0.1, 0.95)),
            modulation=float(rng.uniform(0.5, 5.0)),
            ratio=float(rng.choice([0.5, 1, 1, 2, 3, 1.414, 3.5])),
            noise=float(rng.uniform(0, 0.3)) if rng.random() < 0.2 else 0.0,
            octave_below=float(rng.uniform(0.3, 1)) if rng.random() < 0.3 else 0.0,
        )

    def voice(self, frequency_hz: float, seconds: float) -> np.ndarray:
        """One note."""
        time = _clock(seconds + 0.08)
        sound = np.zeros(len(time), np.float32)
        tables = self._tables(frequency_hz)
        for cents in self.detune_cents:
            # Where a voice begins follows from its detuning, so that a note can be used again.
            turns = frequency_hz * 2 ** (cents / 1200) * time + 0.137 * cents
            sound += self._wave(turns, tables, time)
        if self.octave_below:
            sound += self.octave_below * np.sin(np.pi * frequency_hz * time).astype(np.float32)
        if self.noise:
            hiss = np.random.default_rng(int(frequency_hz)).standard_normal(len(time))
            sound += self.noise * np.abs(sound).max() * 0.3 * hiss.astype(np.float32)
        return (sound * self._envelope(time)).astype(np.float32)

    def _tables(self, frequency_hz: float) -> np.ndarray:
        """One cycle at each of some positions of the filter, without aliases."""
        numbers = np.arange(1, int(min(_TABLE // 2 - 1, 17000 / frequency_hz)) + 1)
        levels = _LEVELS if self.sweep_octaves else 1
        cutoffs = self.cutoff_hz * 2 ** (np.linspace(0, self.sweep_octaves, levels))
        ratio = numbers * frequency_hz / cutoffs[:, None]
        passed = 1 / np.sqrt((1 - ratio**2) ** 2 + (ratio / self.resonance) ** 2)
        spectrum = np.zeros((levels, _TABLE // 2 + 1), complex)
        spectrum[:, 1 : len(numbers) + 1] = -0.5j * passed * _harmonics(self.waveform, numbers)
        return (np.fft.irfft(spectrum, axis=-1) * _TABLE).astype(np.float32)

    def _wave(self, turns: np.ndarray, tables: np.ndarray, time: np.ndarray) -> np.ndarray:
        if self.waveform == "fm":
            index = self.modulation * np.exp(-time / self.decay_seconds)
            phase = 2 * np.pi * turns
            return np.sin(phase + index * np.sin(self.ratio * phase)).astype(np.float32)
        wave = _look_up(tables, turns, time, self.sweep_seconds)
        if self.waveform == "pulse":
            width = 0.5 + 0.35 * np.sin(2 * np.pi * 0.3 * self.modulation * time)
            wave = wave - _look_up(tables, turns + width, time, self.sweep_seconds)
        elif self.waveform == "ring":
            wave = wave * np.sin(2 * np.pi * self.ratio * turns).astype(np.float32)
        return wave

    def _envelope(self, time: np.ndarray) -> np.ndarray:
        decay = self.sustain + (1 - self.sustain) * np.exp(-time / self.decay_seconds)
        envelope = np.minimum(1.0, time / self.attack_seconds) * decay
        release = min(len(time), int(0.07 * SAMPLE_RATE))
        envelope[-release:] *= np.linspace(1, 0, release) ** 1.5
        return envelope


def _detune(rng: np.random.Generator, chances: tuple[float, float, float]) -> tuple[float, ...]:
    """One voice, two, or the many of a supersaw."""
    kind = int(rng.choice(3, p=chances))
    if kind == 0:
        return (0.0,)
    voices, spread = (2, 14) if kind == 1 else (int(rng.choice([5, 7])), 45)
    places = np.linspace(-0.5, 0.5, voices) + rng.uniform(-0.06, 0.06, voices)
    return tuple(float(cents) for cents in rng.uniform(0.4, 1) * spread * places)


def _look_up(tables: np.ndarray, turns: np.ndarray, time: np.ndarray, seconds: float) -> np.ndarray:
    """Read a cycle; the filter closes with time from the last table to the first."""
    index = (turns * _TABLE).astype(np.int64) & (_TABLE - 1)
    if len(tables) == 1:
        return tables[0][index]
    level = (len(tables) - 1.001) * np.exp(-time / seconds)
    whole = level.astype(np.int64)
    part = (level - whole).astype(np.float32)
    flat = tables.ravel()
    index += whole * _TABLE
    return flat[index] * (1 - part) + flat[index + _TABLE] * part


def _harmonics(waveform: str, numbers: np.ndarray) -> np.ndarray:
    """Amplitudes of the harmonics."""
    if waveform in ("saw", "pulse"):
        return 1.0 / numbers
    if waveform == "square":
        return (numbers % 2) / numbers
    if waveform == "triangle":
        return (numbers % 2) / numbers**2
    return np.where(numbers == 1, 1.0, np.where(numbers == 2, 0.1, 0.0))


def gliding_line(notes: Sequence[Note], samples: int, rng: np.random.Generator) -> np.ndarray:
    """A long sine that glides from note to note, struck and distorted: the bass of an 808."""
    ordered = sorted(notes, key=lambda note: note.start)
    pitch, level = np.zeros(samples), np.zeros(samples)
    decay, attack = rng.uniform(0.4, 2.5), rng.uniform(1, 30)
    for note, after in zip(ordered, [*ordered[1:], None], strict=True):
        start = max(0, int(note.start * SAMPLE_RATE))
        end = samples if after is None else min(samples, int(after.start * SAMPLE_RATE))
        if end <= start:
            continue
        time = np.arange(end - start) / SAMPLE_RATE
        pitch[start:end] = note.pitch + attack * np.exp(-time / 0.015)
        gone = np.maximum(time - note.duration, 0) / 0.03
        level[start:end] = note.velocity / 100 * np.exp(-time / decay - gone)
    if ordered:
        pitch[: max(0, int(ordered[0].start * SAMPLE_RATE))] = ordered[0].pitch
    # One pole each: pitch glides, level does not click.
    glide, smooth = (
        np.exp(-1 / (seconds * SAMPLE_RATE)) for seconds in (rng.uniform(0.004, 0.06), 0.002)
    )
    pitch = signal.lfilter([1 - glide], [1, -glide], pitch, zi=[glide * pitch[0]])[0]
    level = signal.lfilter([1 - smooth], [1, -smooth], level)
    phase = 2 * np.pi * np.cumsum(440 * 2 ** ((pitch - 69) / 12)) / SAMPLE_RATE
    drive = log_uniform(rng, 0.5, 12)
    return (np.tanh(drive * np.sin(phase) * level) / np.tanh(drive)).astype(np.float32)


# ---- strings -----------------------------------------------------------------------------


def plucked_string(
    frequency_hz: float,
    seconds: float,
    *,
    brightness: float,
    rng: np.random.Generator,
    loss: float = 1.0,
    pick: float = 0.0,
) -> np.ndarray:
    """A plucked string (Karplus and Strong).

    `loss` above 1 damps it as a palm does; `pick` is where it is plucked, as a part of its length.
    """
    length = int(seconds * SAMPLE_RATE)
    period = SAMPLE_RATE / frequency_hz - 0.5
    whole = int(period)
    fraction = period - whole
    burst = signal.lfilter([brightness], [1, brightness - 1], rng.uniform(-1, 1, whole + 2))
    burst[int(pick * whole) :] -= 0.9 * burst[: len(burst) - int(pick * whole)] * (pick > 0)
    kept = 0.5 * (0.997 if frequency_hz < 300 else 0.993) ** loss
    weights = kept * np.array([1 - fraction, 1.0, fraction])
    # Silence before the start stands for the delays of the filter; a period at once is computed.
    sound = np.zeros(length + whole + 2)
    heard = sound[whole + 2 :]
    heard[: min(length, len(burst))] = burst[:length]
    for start in range(0, length, whole):
        end = min(start + whole, length)
        past = [sound[start + 2 - k : end + 2 - k] for k in range(3)]
        heard[start:end] += weights[0] * past[0] + weights[1] * past[1] + weights[2] * past[2]
    fade = min(length, 1500)
    heard[-fade:] *= np.linspace(1, 0, fade)
    return heard.astype(np.float32)


def plucked_line(
    notes: Sequence[Note], samples: int, rng: np.random.Generator, *, muted: bool = False
) -> np.ndarray:
    """A plucked instrument without an amplifier; mono."""
    brightness, pick = float(rng.uniform(0.2, 0.95)), float(rng.uniform(0.05, 0.45))
    loss = float(rng.uniform(6, 14)) if muted else float(rng.uniform(0.5, 1.5))

    def voice(frequency_hz: float, seconds: float) -> np.ndarray:
        return plucked_string(
            frequency_hz, seconds + 0.1, brightness=brightness, rng=rng, loss=loss, pick=pick
        )

    return play_line(notes, samples, voice)


def amplify(dry: np.ndarray, rng: np.random.Generator, drive: float) -> np.ndarray:
    """A guitar amplifier and its cabinet, from clean (1) to fuzz (100)."""
    tight = butterworth(dry, "highpass", rng.uniform(60, 200), 1)
    scaled = tight / (np.abs(tight).max() + 1e-6) * drive
    bias = rng.uniform(0, 0.4)
    driven = np.tanh(scaled + bias) - np.tanh(bias)
    driven = butterworth(driven, "highpass", rng.uniform(50, 110), 1)
    cabinet = butterworth(driven, "lowpass", rng.uniform(2800, 7000), int(rng.integers(2, 5)))
    return equalise(
        cabinet,
        ("low", rng.uniform(90, 160), 0.8, rng.uniform(-3, 6)),
        ("peak", rng.uniform(300, 900), 1.0, rng.uniform(-8, 2)),
        ("peak", rng.uniform(1800, 3800), 1.2, rng.uniform(-1, 7)),
    )


# ---- drum machine ------------------------------------------------------------------------


def drum_machine(rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """A kit of synthesised drums with random settings."""
    sounds = {
        "kick": _kick(rng),
        "snare": _snare(rng),
        "clap": _clap(rng),
        "rim": _rim(rng),
        "crash": _noise(rng, 1.8, rng.uniform(0.25, 0.6), rng.uniform(2000, 5000)),
        "tambourine": _noise(rng, 0.12, 0.04, 7000),
        "shaker": _noise(rng, 0.09, 0.03, 5000),
        "low tom": _tom(rng, 90),
        "mid tom": _tom(rng, 130),
        "high tom": _tom(rng, 180),
        "low conga": _tom(rng, 220),
        "high conga": _tom(rng, 330),
        "cowbell": _cowbell(rng),
        **_cymbals(rng),
    }
    return {drum: [pan(sound, 0)] for drum, sound in sounds.items()}


def _cowbell(rng: np.random.Generator) -> np.ndarray:
    time = _clock(0.4)
    low = rng.uniform(480, 620)
    squares = sum(np.sign(np.sin(2 * np.pi * low * ratio * time)) for ratio in (1, 1.48))
    envelope = np.exp(-time / rng.uniform(0.03, 0.12))
    return 0.4 * butterworth(squares, "bandpass", (500, 4000)) * envelope


def _kick(rng: np.random.Generator) -> np.ndarray:
    time = _clock(log_uniform(rng, 0.12, 0.9))
    drop = rng.uniform(60, 250) * np.exp(-time / rng.uniform(0.008, 0.04))
    phase = 2 * np.pi * np.cumsum(rng.uniform(40, 68) + drop) / SAMPLE_RATE
    body = np.sin(phase) * np.exp(-4 * time / time[-1])
    click = rng.uniform(0, 0.5) * rng.standard_normal(len(time)) * np.exp(-time / 0.0014)
    return np.tanh((body + click) * rng.uniform(1, 3))


def _snare(rng: np.random.Generator) -> np.ndarray:
    time = _clock(0.35)
    phase = 2 * np.pi * rng.uniform(160, 240) * time + 3 * np.exp(-time / 0.01)
    tone = rng.uniform(0.2, 0.8) * np.sin(phase) * np.exp(-time / rng.uniform(0.04, 0.1))
    rattle = butterworth(rng.standard_normal(len(time)), "highpass", rng.uniform(700, 3000))
    wires = rng.uniform(0.3, 0.7) * rattle * np.exp(-time / rng.uniform(0.04, 0.12))
    return np.tanh(1.5 * (tone + wires))


def _clap(rng: np.random.Generator) -> np.ndarray:
    time = _clock(0.35)
    envelope = 0.6 * np.exp(-time / 0.07)
    for onset in (0.0, 0.011, 0.022):
        late = np.maximum(time - onset, 0)
        envelope += np.where(time >= onset, np.exp(-late / 0.012), 0)
    return butterworth(rng.standard_normal(len(time)), "bandpass", (700, 4000)) * envelope


def _rim(rng: np.random.Generator) -> np.ndarray:
    time = _clock(0.08)
    tone = np.sin(2 * np.pi * rng.uniform(1500, 2000) * time)
    tone += np.sin(2 * np.pi * rng.uniform(400, 600) * time)
    return 0.5 * tone * np.exp(-time / 0.012)


def _tom(rng: np.random.Generator, frequency_hz: float) -> np.ndarray:
    time = _clock(0.4)
    tuned = frequency_hz * rng.uniform(0.9, 1.1)
    phase = 2 * np.pi * tuned * time + 4 * np.exp(-time / 0.03)
    return np.sin(phase) * np.exp(-time / 0.12)


def _noise(
    rng: np.random.Generator, seconds: float, decay_seconds: float, above_hz: float
) -> np.ndarray:
    time = _clock(seconds)
    noise = butterworth(rng.standard_normal(len(time)), "highpass", above_hz)
    return 0.55 * noise * np.exp(-time / decay_seconds)


def _cymbals(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Hats and ride: a cluster of square waves mixed with noise."""
    partials = rng.uniform(300, 600) * np.array([1, 1.34, 1.79, 2.23, 2.71, 3.3])
    metal = rng.uniform(0, 1)

    def cymbal(decay_seconds: float) -> np.ndarray:
        time = _clock(5 * decay_seconds)
        squares = np.sign(np.sin(2 * np.pi * np.outer(partials, time))).sum(axis=0) / 3
        raw = metal * squares + (1 - metal) * rng.standard_normal(len(time))
        bright = butterworth(raw, "highpass", 6500 + 1500 * metal, 4)
        return 0.45 * bright * np.exp(-time / decay_seconds)

    return {
        "hat": cymbal(rng.uniform(0.015, 0.05)),
        "open hat": cymbal(rng.uniform(0.1, 0.25)),
        "ride": 0.6 * cymbal(rng.uniform(0.2, 0.5)),
    }
