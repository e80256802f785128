"""Sung voices: syllables as spectral envelopes, sung to a melody by the WORLD vocoder.

Syllables come from a formant model of our own or from words spoken by Flite, whose
voices are under a permissive licence.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
from scipy import signal

from .composition import Note
from .effects import SAMPLE_RATE, butterworth

FRAME_MS = 5.0
_FFT = 2048
_BINS = _FFT // 2 + 1
_BIN_HZ = np.linspace(0, SAMPLE_RATE / 2, _BINS) + 1e-3
_FRAMES_PER_SECOND = 1000.0 / FRAME_MS

FLITE_VOICES = ("slt", "rms", "awb", "kal16")
WORDS = (
    "love night away heart time never fire moon rain again dreaming over shadow river golden "
    "light forever tonight baby you me home lonely summer feeling only stay yeah hey falling "
    "down know way around sky higher alive burning ocean silver echo morning hold my hand and "
    "we will run slowly into the blue open your eyes nothing else can shine like diamonds"
).split()

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
# Centre and width of the noise in Hz, and its strength.
_CONSONANTS = {
    "s": (6500, 3000, 0.9),
    "sh": (3200, 2000, 0.9),
    "f": (7000, 6000, 0.3),
    "h": (1500, 2500, 0.25),
    "t": (4500, 3500, 0.8),
    "k": (2200, 1500, 0.7),
    "p": (900, 1000, 0.5),
}


@dataclass(frozen=True)
class Syllable:
    """Frames of log power envelope and aperiodicity, shape (frames, bins), and voicing."""

    envelope: np.ndarray
    aperiodicity: np.ndarray
    voiced: np.ndarray

    def __len__(self) -> int:
        return len(self.voiced)

    def stretched(self, frames: int) -> np.ndarray:
        """Indices that stretch the loudest voiced part and keep what surrounds it."""
        if frames <= len(self):
            return np.linspace(0, len(self) - 1, frames).round().astype(int)
        loudness = self.envelope[:, 10:150].mean(axis=1, dtype=np.float32)
        centre = int(np.argmax(np.where(self.voiced, loudness, -np.inf)))
        first, last = max(centre - 8, 0), min(centre + 8, len(self) - 1)
        before, after = np.arange(first), np.arange(last + 1, len(self))
        held = np.linspace(first, last, frames - len(before) - len(after))
        return np.concatenate([before, held, after]).round().astype(int)


# ---- formant singer ------------------------------------------------------------------------


class FormantVoice:
    """A random singer: vowels as chains of resonances, consonants as coloured noise."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._tract = rng.uniform(0.95, 1.22)
        self._bandwidth = rng.uniform(0.7, 1.5)
        self._tilt = rng.uniform(2.0, 3.4)
        breath = rng.uniform(0.02, 0.25) + (_BIN_HZ / 9000) ** 1.5 * rng.uniform(0.5, 1)
        self._breath = np.clip(breath, 0.001, 0.98)

    def syllables(self, count: int) -> list[Syllable]:
        """Draw syllables."""
        return [self._syllable() for _ in range(count)]

    def _resonances(self, formants: Sequence[float], widths: Sequence[float]) -> np.ndarray:
        high = [3500 * self._tract, 4500 * self._tract, 5600, 7200, 9000, 11500, 14500]
        high_widths = [200, 260, 400, 600, 900, 1200, 1500]
        power = 1e-2 / (1 + (_BIN_HZ / 300) ** self._tilt) * (1 + (_BIN_HZ / 3000) ** 1.2)
        for centre, width in zip([*formants, *high], [*widths, *high_widths], strict=True):
            ratio = _BIN_HZ / centre
            power = power / ((1 - ratio**2) ** 2 + (ratio * width / centre) ** 2)
        return np.log(power + 1e-12)

    def _vowel(self) -> np.ndarray:
        name = str(self._rng.choice(list(_VOWELS)))
        formants = np.array(_VOWELS[name]) * self._tract * self._rng.uniform(0.94, 1.06, 3)
        return self._resonances(list(formants), list(self._bandwidth * np.array([60, 90, 130])))

    def _hiss(self, name: str, loudness: float) -> np.ndarray:
        centre, width, strength = _CONSONANTS[name]
        shape = strength * np.exp(-0.5 * ((_BIN_HZ - centre) / width) ** 2)
        return np.log(3e-3 * shape + 1e-9) + loudness

    def _syllable(self) -> Syllable:
        rng = self._rng
        vowel = self._vowel()
        end = self._vowel() if rng.random() < 0.35 else vowel
        loudness = 0.7 * np.log(np.exp(vowel).mean() / 1e-3 + 1e-9)
        noise = np.full(_BINS, 0.999)
        # (from, to, frames, aperiodicity, voiced)
        pieces = [(vowel, end, int(rng.integers(15, 40)), self._breath, True)]
        pieces.append((end, end - 3.5, int(rng.integers(5, 12)), self._breath, True))
        kind = rng.random()
        if kind < 0.45:
            hiss = self._hiss(str(rng.choice(list(_CONSONANTS))), loudness)
            pieces.insert(0, (vowel - 2.5, vowel, 6, self._breath, True))
            pieces.insert(0, (hiss - 3, hiss, int(rng.integers(6, 24)), noise, False))
        elif kind < 0.7:
            nasal = self._resonances([250, 1100 * self._tract, 2200], [60, 300, 300]) - 1.0
            pieces.insert(0, (nasal, vowel, 7, self._breath, True))
            pieces.insert(0, (nasal, nasal, int(rng.integers(8, 16)), self._breath, True))
        else:
            pieces.insert(0, (vowel - 5, vowel, 8, self._breath, True))
        if rng.random() < 0.2:
            hiss = self._hiss("s", loudness)
            pieces.append((hiss, hiss - 4, 12, noise, False))
        return _join(pieces)


def _join(pieces: Sequence[tuple[np.ndarray, np.ndarray, int, np.ndarray, bool]]) -> Syllable:
    envelopes, aperiodicities, voiced = [], [], []
    for first, last, frames, aperiodicity, is_voiced in pieces:
        blend = (0.5 - 0.5 * np.cos(np.pi * np.arange(frames) / frames))[:, None]
        envelopes.append(first * (1 - blend) + last * blend)
        aperiodicities.append(np.tile(aperiodicity, (frames, 1)))
        voiced.append(np.full(frames, is_voiced))
    return Syllable(
        np.concatenate(envelopes).astype(np.float32),
        np.concatenate(aperiodicities).astype(np.float32),
        np.concatenate(voiced),
    )


# ---- spoken words ----------------------------------------------------------------------------


def flite_syllables(voice: str, words: Sequence[str]) -> list[Syllable]:
    """Analyse words spoken by a Flite voice; words without a voiced part are left out."""
    syllables = (_flite_syllable(voice, word) for word in words)
    return [syllable for syllable in syllables if syllable is not None]


@lru_cache(maxsize=400)
def _flite_syllable(voice: str, word: str) -> Syllable | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "word.wav"
        command = ["flite", "-voice", voice, "-t", word, "-o", str(path)]
        subprocess.run([*command, "--setf", "duration_stretch=1.3"], check=True)
        speech, rate = soundfile.read(path)
    speech = signal.resample_poly(speech, SAMPLE_RATE // 100, rate // 100)
    loud = np.flatnonzero(np.abs(speech) > 0.01)
    if len(loud) < 4000:
        return None
    return _analyse(speech[max(0, loud[0] - 300) : loud[-1] + 800], band_limit_hz=0.46 * rate)


def _analyse(speech: np.ndarray, *, band_limit_hz: float) -> Syllable | None:
    import pyworld

    pitch, times = pyworld.dio(speech, SAMPLE_RATE, f0_floor=65, f0_ceil=500, frame_period=FRAME_MS)
    pitch = pyworld.stonemask(speech, pitch, times, SAMPLE_RATE)
    if np.mean(pitch > 0) < 0.25:
        return None
    envelope = pyworld.cheaptrick(speech, pitch, times, SAMPLE_RATE, fft_size=_FFT)
    aperiodicity = pyworld.d4c(speech, pitch, times, SAMPLE_RATE, fft_size=_FFT)
    envelope = np.log(envelope + 1e-12)
    # Above the band of the speech: its upper half to and fro, falling by 12 dB an octave.
    limit = int(band_limit_hz / SAMPLE_RATE * _FFT)
    above = np.arange(limit, _BINS)
    half = limit // 2
    mirrored = limit - 1 - np.abs((above - limit + half) % (2 * half) - half)
    fall = np.log2(above / limit) * 1.2 * np.log(10)
    envelope[:, above] = envelope[:, mirrored] - fall
    aperiodicity[:, above] = np.maximum(aperiodicity[:, mirrored], 0.6)
    return Syllable(envelope.astype(np.float32), aperiodicity.astype(np.float32), pitch > 0)


# ---- singing ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Delivery:
    """How a melody is sung; a second take of the same song differs a little."""

    tract_scale: float
    detune_cents: float = 0.0
    late_seconds: float = 0.0


def sing(
    syllables: Sequence[Syllable],
    melody: Sequence[Note],
    samples: int,
    delivery: Delivery,
    rng: np.random.Generator,
) -> np.ndarray:
    """Sing a melody, one syllable a note; mono, shape (samples,)."""
    import pyworld

    frames = int(samples / SAMPLE_RATE * _FRAMES_PER_SECOND) + 1
    envelope = np.full((frames, _BINS), -24.0, np.float32)
    aperiodicity = np.full((frames, _BINS), 0.999, np.float32)
    pitch = np.zeros(frames)
    voiced = np.zeros(frames, dtype=bool)
    vibrato_hz, vibrato_depth = rng.uniform(4.8, 6.3), rng.uniform(0.0, 0.6)
    dynamics = rng.uniform(0, 1.2)
    order = rng.permutation(len(syllables))
    for index, note in enumerate(melody):
        start = note.start + delivery.late_seconds + 0.008 * rng.normal()
        first = int(start * _FRAMES_PER_SECOND)
        count = int(note.duration * _FRAMES_PER_SECOND * rng.uniform(0.9, 1.0))
        count = min(count, frames - first)
        if first < 0 or count < 8:
            continue
        syllable = syllables[order[index % len(order)]]
        chosen = syllable.stretched(count)
        span = slice(first, first + count)
        envelope[span] = _scale_tract(syllable.envelope[chosen], delivery.tract_scale)
        envelope[span] += dynamics * rng.normal()
        envelope[first + count - min(count, 6) : first + count] -= np.linspace(0, 4, min(count, 6))[
            :, None
        ]
        aperiodicity[span] = np.clip(syllable.aperiodicity[chosen], 0.001, 0.999)
        voiced[span] = syllable.voiced[chosen]
        time = np.arange(count) / _FRAMES_PER_SECOND
        onset = np.clip((time - 0.25) / 0.3, 0, 1)
        wave = np.sin(2 * np.pi * vibrato_hz * time + rng.uniform(0, 6))
        pitch[span] = note.pitch + vibrato_depth * onset * wave
    if not voiced.any():
        return np.zeros(samples, np.float32)
    contour = _glide(pitch, rng) + delivery.detune_cents / 100
    frequency = 440 * 2 ** ((contour - 69) / 12) * voiced
    voice = pyworld.synthesize(
        frequency,
        np.exp(envelope.astype(np.float64)),
        aperiodicity.astype(np.float64),
        SAMPLE_RATE,
        FRAME_MS,
    )
    voice = np.pad(voice, (0, max(0, samples - len(voice))))[:samples]
    return butterworth(voice, "highpass", 80)


def _scale_tract(envelope: np.ndarray, scale: float) -> np.ndarray:
    """Stretch the frequency axis: above 1 sounds like a shorter vocal tract."""
    source = np.clip(np.arange(_BINS) / scale, 0, _BINS - 1.001)
    lower = source.astype(int)
    fraction = (source - lower).astype(np.float32)
    return envelope[:, lower] * (1 - fraction) + envelope[:, lower + 1] * fraction


def _glide(pitch: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Hold the pitch over rests, glide between notes and waver a little."""
    sounding = pitch > 0
    latest = np.maximum.accumulate(np.where(sounding, np.arange(len(pitch)), 0))
    latest[: np.argmax(sounding)] = np.argmax(sounding)
    width = int(rng.uniform(6, 18))
    kernel = np.hanning(2 * width + 1)
    held = np.pad(pitch[latest], width, mode="edge")
    smooth = np.convolve(held, kernel / kernel.sum(), mode="valid")
    return smooth + 0.12 * signal.lfilter([0.1], [1, -0.9], rng.standard_normal(len(pitch)))
