"""Effects that move: chorus, flanger, phaser, wah, tremolo, rotary speaker, swept filters."""

from __future__ import annotations

import numpy as np
from scipy import signal

from .effects import SAMPLE_RATE, log_uniform

_BLOCK = 256


def modulate_at_random(
    audio: np.ndarray, rng: np.random.Generator, beat_seconds: float
) -> np.ndarray:
    """One of the effects below, as a pedal would add it."""
    kind = str(rng.choice(["chorus", "flanger", "phaser", "wah", "tremolo", "rotary"]))
    if kind == "chorus":
        return chorus(audio, rng.uniform(0.012, 0.03), rng.uniform(0.001, 0.004), rng)
    if kind == "flanger":
        return chorus(audio, rng.uniform(0.002, 0.005), rng.uniform(0.001, 0.0018), rng)
    if kind == "phaser":
        return phaser(audio, log_uniform(rng, 0.1, 2))
    if kind == "wah":
        return sweep(audio, wave(audio, rng, beat_seconds), "bandpass") + 0.3 * audio
    if kind == "tremolo":
        rate_hz = rng.choice([1, 2, 3, 4]) / beat_seconds
        return tremolo(audio, rate_hz, rng.uniform(0.3, 0.9), opposite=False)
    return tremolo(chorus(audio, 0.004, 0.0008, rng), rng.choice([0.8, 6.5]), rng.uniform(0.2, 0.5))


def _cycle(samples: int, rate_hz: float, phase: float = 0.0) -> np.ndarray:
    """A sine from -1 to 1."""
    return np.sin(2 * np.pi * (rate_hz * np.arange(samples) / SAMPLE_RATE + phase))


def chorus(
    audio: np.ndarray, delay_seconds: float, depth_seconds: float, rng: np.random.Generator
) -> np.ndarray:
    """Add a copy with a moving delay, different in the two channels."""
    samples = audio.shape[-1]
    clock = np.arange(samples, dtype=np.float64)
    rate_hz, wet = log_uniform(rng, 0.2, 3), rng.uniform(0.4, 0.9)
    result = np.empty_like(audio)
    for channel, side in enumerate(audio):
        delay = delay_seconds + depth_seconds * _cycle(samples, rate_hz, 0.25 * channel)
        place = np.maximum(clock - delay * SAMPLE_RATE, 0)
        whole = place.astype(np.int64)
        part = (place - whole).astype(np.float32)
        later = np.minimum(whole + 1, samples - 1)
        result[channel] = side + wet * (side[whole] * (1 - part) + side[later] * part)
    return result


def tremolo(
    audio: np.ndarray, rate_hz: float, depth: float, *, opposite: bool = True
) -> np.ndarray:
    """Move the level up and down, in the two channels against each other or together."""
    moving = depth * _cycle(audio.shape[-1], rate_hz)
    sign = np.array([[1.0], [-1.0 if opposite else 1.0]])
    return (audio * (1 + sign * moving) / (1 + depth)).astype(np.float32)


def wave(audio: np.ndarray, rng: np.random.Generator, beat_seconds: float) -> np.ndarray:
    """Frequencies in Hz for `sweep`, one a block: in time with the beat."""
    blocks = -(-audio.shape[-1] // _BLOCK)
    rate_hz = rng.choice([0.125, 0.25, 0.5, 1, 2, 3, 4]) / beat_seconds
    cycle = 0.5 + 0.5 * np.sin(2 * np.pi * rate_hz * np.arange(blocks) * _BLOCK / SAMPLE_RATE)
    low, octaves = log_uniform(rng, 150, 600), rng.uniform(1.5, 4)
    return low * 2 ** (octaves * cycle)


def sweep(audio: np.ndarray, frequencies_hz: np.ndarray, kind: str, q: float = 3.0) -> np.ndarray:
    """A resonant low-pass or band-pass whose frequency changes with every block."""
    result = np.empty_like(audio)
    state = np.zeros((audio.shape[0], 2))
    for index, frequency_hz in enumerate(frequencies_hz):
        omega = 2 * np.pi * min(frequency_hz, 16000.0) / SAMPLE_RATE
        alpha, cosine = np.sin(omega) / (2 * q), np.cos(omega)
        numerator = np.array([alpha, 0, -alpha])
        if kind == "lowpass":
            numerator = np.array([1, 2, 1]) * (1 - cosine) / 2
        denominator = np.array([1 + alpha, -2 * cosine, 1 - alpha])
        part = slice(index * _BLOCK, (index + 1) * _BLOCK)
        result[:, part], state = signal.lfilter(
            numerator, denominator, audio[:, part], axis=-1, zi=state
        )
    return result


def phaser(audio: np.ndarray, rate_hz: float) -> np.ndarray:
    """Four all-passes that move together, added to what goes in."""
    result = np.empty_like(audio)
    state = np.zeros((audio.shape[0], 4))
    for start in range(0, audio.shape[-1], _BLOCK):
        cycle = np.sin(2 * np.pi * rate_hz * start / SAMPLE_RATE)
        tangent = np.tan(np.pi * 300 * 2 ** (1.5 + 1.5 * cycle) / SAMPLE_RATE)
        pole = (tangent - 1) / (tangent + 1)
        denominator = np.poly([-pole] * 4)
        part = slice(start, start + _BLOCK)
        result[:, part], state = signal.lfilter(
            denominator[::-1], denominator, audio[:, part], axis=-1, zi=state
        )
    return 0.6 * (audio + result)
