"""Instruments computed from scratch: subtractive synths, plucked strings, a drum machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import signal

from .composition import Hit, Note
from .effects import SAMPLE_RATE, butterworth, equalise, gain_of, log_uniform, pan, place

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


@dataclass(frozen=True)
class SynthPatch:
    """A waveform through a low-pass filter with an envelope, one or more detuned voices."""

    waveform: str
    detune_cents: tuple[float, ...]
    cutoff_hz: float
    sweep: float
    sweep_seconds: float
    attack_seconds: float
    decay_seconds: float
    sustain: float
    modulation: float = 0.0

    @classmethod
    def random(cls, rng: np.random.Generator, role: str) -> SynthPatch:
        """Draw a patch for ``bass``, ``pad`` or ``lead``."""
        if role == "pad":
            return cls(
                waveform=str(rng.choice(["saw", "square"])),
                detune_cents=(-9.0, 8.0),
                cutoff_hz=log_uniform(rng, 700, 7000),
                sweep=0.0,
                sweep_seconds=1.0,
                attack_seconds=float(rng.uniform(0.02, 0.3)),
                decay_seconds=2.0,
                sustain=0.8,
            )
        bass = role == "bass"
        waves = ["saw", "square", "triangle", "sine", "fm"]
        return cls(
            waveform=str(rng.choice(waves, p=[0.3, 0.2, 0.15, 0.2, 0.15])),
            detune_cents=(0.0,) if rng.random() < (0.7 if bass else 0.5) else (-6.0, 7.0),
            cutoff_hz=log_uniform(rng, 200, 2500) if bass else log_uniform(rng, 900, 10000),
            sweep=float(rng.uniform(0, 4)),
            sweep_seconds=float(rng.uniform(0.05, 0.4)),
            attack_seconds=0.005,
            decay_seconds=float(rng.uniform(0.1, 1.0)),
            sustain=float(rng.uniform(0.15, 0.9)),
            modulation=float(rng.uniform(0.5, 4.0)),
        )

    def voice(self, frequency_hz: float, seconds: float) -> np.ndarray:
        """One note."""
        time = _clock(seconds + 0.08)
        cutoff = self.cutoff_hz * (1 + self.sweep * np.exp(-time / self.sweep_seconds))
        sound = np.zeros(len(time))
        for cents in self.detune_cents:
            phase = 2 * np.pi * frequency_hz * 2 ** (cents / 1200) * time + cents
            sound += self._wave(phase, frequency_hz, cutoff, time)
        return (sound * self._envelope(time)).astype(np.float32)

    def _wave(
        self, phase: np.ndarray, frequency_hz: float, cutoff: np.ndarray, time: np.ndarray
    ) -> np.ndarray:
        if self.waveform == "fm":
            index = self.modulation * np.exp(-time / self.decay_seconds)
            return np.sin(phase + index * np.sin(phase))
        # Each power of the rotating phasor is one harmonic; the filter is a weight on it.
        rotation = np.exp(1j * phase)
        harmonic = rotation.copy()
        wave = np.zeros(len(phase))
        for number in range(1, int(min(30, 16000 / frequency_hz)) + 1):
            weight = _harmonic_weight(self.waveform, number)
            if weight:
                wave += weight * harmonic.imag / np.sqrt(1 + (number * frequency_hz / cutoff) ** 4)
            harmonic *= rotation
        return wave

    def _envelope(self, time: np.ndarray) -> np.ndarray:
        decay = self.sustain + (1 - self.sustain) * np.exp(-time / self.decay_seconds)
        envelope = np.minimum(1.0, time / self.attack_seconds) * decay
        release = min(len(time), int(0.07 * SAMPLE_RATE))
        envelope[-release:] *= np.linspace(1, 0, release) ** 1.5
        return envelope


def _harmonic_weight(waveform: str, number: int) -> float:
    if waveform == "saw":
        return 1.0 / number
    if waveform == "square":
        return (number % 2) / number
    if waveform == "triangle":
        return (number % 2) / number**2
    return {1: 1.0, 2: 0.1}.get(number, 0.0)


# ---- plucked string and distorted guitar ---------------------------------------------------


def plucked_string(
    frequency_hz: float, seconds: float, *, brightness: float, rng: np.random.Generator
) -> np.ndarray:
    """A plucked string (Karplus and Strong), as one recursive filter."""
    length = int(seconds * SAMPLE_RATE)
    period = SAMPLE_RATE / frequency_hz - 0.5
    whole = int(period)
    fraction = period - whole
    burst = signal.lfilter([brightness], [1, brightness - 1], rng.uniform(-1, 1, whole + 2))
    excitation = np.zeros(length)
    excitation[: len(burst)] = burst[:length]
    loss = 0.5 * (0.997 if frequency_hz < 300 else 0.993)
    feedback = np.zeros(whole + 3)
    feedback[0] = 1.0
    feedback[whole : whole + 3] = -loss * np.array([1 - fraction, 1.0, fraction])
    sound = signal.lfilter([1.0], feedback, excitation)
    fade = min(length, 1500)
    sound[-fade:] *= np.linspace(1, 0, fade)
    return sound.astype(np.float32)


def plucked_line(notes: Sequence[Note], samples: int, rng: np.random.Generator) -> np.ndarray:
    """A clean plucked instrument; mono."""
    brightness = float(rng.uniform(0.2, 0.95))

    def voice(frequency_hz: float, seconds: float) -> np.ndarray:
        return plucked_string(frequency_hz, seconds + 0.1, brightness=brightness, rng=rng)

    return play_line(notes, samples, voice)


def distorted_guitar(notes: Sequence[Note], samples: int, rng: np.random.Generator) -> np.ndarray:
    """Plucked strings through an overdriven amplifier and its cabinet; mono."""
    dry = butterworth(plucked_line(notes, samples, rng), "highpass", 90)
    driven = np.tanh(dry / (np.abs(dry).max() + 1e-6) * log_uniform(rng, 3, 40))
    cabinet = butterworth(driven, "lowpass", rng.uniform(3000, 6500), 3)
    return equalise(
        cabinet,
        ("peak", rng.uniform(300, 900), 1.0, -4.0),
        ("peak", rng.uniform(2000, 3500), 1.0, 4.0),
    )


# ---- drum machine ------------------------------------------------------------------------


class DrumMachine:
    """A kit of synthesised drums with random settings."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._sounds = {
            "kick": self._kick(rng),
            "snare": self._snare(rng),
            "clap": self._clap(rng),
            "rim": self._rim(rng),
            "crash": self._noise(rng, 1.8, 0.5, 3000),
            "tambourine": self._noise(rng, 0.12, 0.04, 7000),
            "shaker": self._noise(rng, 0.09, 0.03, 5000),
            "low tom": self._tom(rng, 90),
            "mid tom": self._tom(rng, 130),
            "high tom": self._tom(rng, 180),
            **self._cymbals(rng),
        }
        centred = ("kick", "snare", "clap")
        self._positions = {
            drum: 0.0 if drum in centred else float(rng.uniform(-0.5, 0.5)) for drum in self._sounds
        }
        self._gains = {drum: gain_of(3 * rng.normal()) for drum in self._sounds}

    def play(self, hits: Sequence[Hit], samples: int) -> np.ndarray:
        """Render hits; shape (2, samples)."""
        canvas = np.zeros((2, samples), np.float32)
        for hit in hits:
            gain = self._gains[hit.drum] * (hit.velocity / 110) ** 2
            sound = pan(self._sounds[hit.drum] * gain, self._positions[hit.drum])
            place(canvas, sound, hit.start)
        return canvas

    @staticmethod
    def _kick(rng: np.random.Generator) -> np.ndarray:
        time = _clock(rng.uniform(0.15, 0.5))
        drop = rng.uniform(60, 250) * np.exp(-time / rng.uniform(0.008, 0.04))
        phase = 2 * np.pi * np.cumsum(rng.uniform(42, 60) + drop) / SAMPLE_RATE
        body = np.sin(phase) * np.exp(-4 * time / time[-1])
        click = rng.uniform(0, 0.5) * rng.standard_normal(len(time)) * np.exp(-time / 0.0014)
        return np.tanh((body + click) * rng.uniform(1, 3))

    @staticmethod
    def _snare(rng: np.random.Generator) -> np.ndarray:
        time = _clock(0.35)
        phase = 2 * np.pi * rng.uniform(160, 240) * time + 3 * np.exp(-time / 0.01)
        tone = rng.uniform(0.2, 0.8) * np.sin(phase) * np.exp(-time / rng.uniform(0.04, 0.1))
        rattle = butterworth(rng.standard_normal(len(time)), "highpass", rng.uniform(700, 3000))
        wires = rng.uniform(0.3, 0.7) * rattle * np.exp(-time / rng.uniform(0.04, 0.12))
        return np.tanh(1.5 * (tone + wires))

    @staticmethod
    def _clap(rng: np.random.Generator) -> np.ndarray:
        time = _clock(0.35)
        envelope = 0.6 * np.exp(-time / 0.07)
        for onset in (0.0, 0.011, 0.022):
            late = np.maximum(time - onset, 0)
            envelope += np.where(time >= onset, np.exp(-late / 0.012), 0)
        return butterworth(rng.standard_normal(len(time)), "bandpass", (700, 4000)) * envelope

    @staticmethod
    def _rim(rng: np.random.Generator) -> np.ndarray:
        time = _clock(0.08)
        tone = np.sin(2 * np.pi * rng.uniform(1500, 2000) * time)
        tone += np.sin(2 * np.pi * rng.uniform(400, 600) * time)
        return 0.5 * tone * np.exp(-time / 0.012)

    @staticmethod
    def _tom(rng: np.random.Generator, frequency_hz: float) -> np.ndarray:
        time = _clock(0.4)
        tuned = frequency_hz * rng.uniform(0.9, 1.1)
        phase = 2 * np.pi * tuned * time + 4 * np.exp(-time / 0.03)
        return np.sin(phase) * np.exp(-time / 0.12)

    @staticmethod
    def _noise(
        rng: np.random.Generator, seconds: float, decay_seconds: float, above_hz: float
    ) -> np.ndarray:
        time = _clock(seconds)
        noise = butterworth(rng.standard_normal(len(time)), "highpass", above_hz)
        return 0.55 * noise * np.exp(-time / decay_seconds)

    @staticmethod
    def _cymbals(rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Hats and ride: a cluster of square waves mixed with noise."""
        partials = rng.uniform(300, 600) * np.array([1, 1.34, 1.79, 2.23, 2.71, 3.3])
        metal = rng.uniform(0, 1)

        def cymbal(decay_seconds: float) -> np.ndarray:
            time = _clock(5 * decay_seconds)
            squares = np.sign(np.sin(2 * np.pi * np.outer(partials, time))).sum(axis=0) / 3
            raw = metal * squares + (1 - metal) * rng.standard_normal(len(time))
            bright = butterworth(raw, "highpass", 6500 + 1500 * metal, 4)
            return 0.6 * bright * np.exp(-time / decay_seconds)

        return {
            "hat": cymbal(rng.uniform(0.015, 0.05)),
            "open hat": cymbal(rng.uniform(0.1, 0.25)),
            "ride": 0.6 * cymbal(0.3),
        }
