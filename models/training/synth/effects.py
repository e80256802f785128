"""Effects on audio of shape (channels, samples): levels, filters, dynamics, space."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from scipy import signal

SAMPLE_RATE = 44100
SILENCE = 1e-4


def gain_of(level_db: float) -> float:
    """Linear gain of a level in dB."""
    return float(10.0 ** (level_db / 20.0))


def active_level(audio: np.ndarray) -> float:
    """RMS over the tenths of a second within 30 dB of the loudest; 0 for silence."""
    power = np.mean(audio.astype(np.float64) ** 2, axis=0)
    width = SAMPLE_RATE // 10
    blocks = power[: len(power) // width * width].reshape(-1, width).mean(axis=1)
    if blocks.size == 0 or blocks.max() < SILENCE**2:
        return 0.0
    return float(np.sqrt(blocks[blocks > blocks.max() * 1e-3].mean()))


def level_to(audio: np.ndarray, level: float = 0.1) -> np.ndarray:
    """Scale to an active level; what is silent becomes exactly zero."""
    current = active_level(audio)
    if current == 0.0:
        return np.zeros_like(audio, dtype=np.float32)
    return (audio * (level / current)).astype(np.float32)


# ---- filters ---------------------------------------------------------------------------


def _biquad(kind: str, frequency_hz: float, q: float, boost_db: float) -> np.ndarray:
    """One second-order section of the Audio EQ Cookbook: peak, low or high shelf."""
    omega = 2 * np.pi * min(frequency_hz, 0.45 * SAMPLE_RATE) / SAMPLE_RATE
    amplitude = 10 ** (boost_db / 40)
    cosine, alpha = np.cos(omega), np.sin(omega) / (2 * q)
    if kind == "peak":
        numerator = [1 + alpha * amplitude, -2 * cosine, 1 - alpha * amplitude]
        denominator = [1 + alpha / amplitude, -2 * cosine, 1 - alpha / amplitude]
    else:
        # The high shelf is the low shelf with the sign of the cosine turned round.
        sign = 1.0 if kind == "low" else -1.0
        root = 2 * np.sqrt(amplitude) * alpha
        up, down = amplitude + 1, amplitude - 1
        turned = sign * cosine
        numerator = [
            amplitude * (up - down * turned + root),
            sign * 2 * amplitude * (down - up * turned),
            amplitude * (up - down * turned - root),
        ]
        denominator = [
            up + down * turned + root,
            -sign * 2 * (down + up * turned),
            up + down * turned - root,
        ]
    return np.array(numerator + denominator) / denominator[0]


def equalise(audio: np.ndarray, *bands: tuple[str, float, float, float]) -> np.ndarray:
    """Apply bands, each (peak | low | high, frequency in Hz, Q, boost in dB)."""
    sections = np.stack([_biquad(*band) for band in bands])
    return signal.sosfilt(sections, audio, axis=-1).astype(np.float32)


def equalise_at_random(
    audio: np.ndarray, rng: np.random.Generator, spread_db: float = 4.0
) -> np.ndarray:
    """Two shelves and a peak, each of random place and boost."""
    return equalise(
        audio,
        ("low", rng.uniform(80, 300), 0.7, 0.6 * spread_db * rng.normal()),
        ("peak", log_uniform(rng, 250, 5000), rng.uniform(0.5, 2), 0.7 * spread_db * rng.normal()),
        ("high", rng.uniform(3000, 9000), 0.7, 0.8 * spread_db * rng.normal()),
    )


def butterworth(
    audio: np.ndarray, kind: str, frequency_hz: float | tuple[float, float], order: int = 2
) -> np.ndarray:
    """Low, high or band pass."""
    sections = signal.butter(order, frequency_hz, kind, fs=SAMPLE_RATE, output="sos")
    return signal.sosfilt(sections, audio, axis=-1).astype(np.float32)


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Draw from `low` to `high`, evenly in octaves."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


# ---- dynamics --------------------------------------------------------------------------


def _compression(
    audio: np.ndarray, threshold_db: float, ratio: float, release_seconds: float
) -> np.ndarray:
    """Gain of a compressor that follows the smoothed level of the louder channel."""
    decay = np.exp(-1 / (release_seconds * SAMPLE_RATE))
    power = signal.lfilter([1 - decay], [1, -decay], np.abs(audio).max(axis=0) ** 2)
    level = np.sqrt(2 * power) + 1e-6
    return np.minimum(1.0, (level / gain_of(threshold_db)) ** (1 / ratio - 1))


def compress(
    audio: np.ndarray, threshold_db: float, ratio: float, release_seconds: float = 0.08
) -> np.ndarray:
    """Compress by the smoothed level of the louder channel."""
    gain = _compression(audio, threshold_db, ratio, release_seconds)
    return (audio * gain).astype(np.float32)


def compress_together(
    stems: np.ndarray, threshold_db: float, ratio: float, release_seconds: float
) -> np.ndarray:
    """Compress the sum of the stems with one gain for all; the threshold is under its peak."""
    mixture = stems.sum(axis=0)
    peak = float(np.abs(mixture).max()) + 1e-9
    gain = _compression(mixture / peak, threshold_db, ratio, release_seconds)
    return (stems * gain).astype(np.float32)


def saturate(audio: np.ndarray, drive: float) -> np.ndarray:
    """Soft clipping that keeps the peak."""
    peak = float(np.abs(audio).max()) + 1e-9
    return (np.tanh(audio / peak * drive) / np.tanh(drive) * peak).astype(np.float32)


def limit_together(stems: np.ndarray, threshold_db: float) -> np.ndarray:
    """Limit the sum of the stems with one gain for all of them, so that they still add up.

    `stems` has shape (sources, channels, samples); the threshold is relative to the peak
    of the sum.
    """
    width = 64
    mixture = np.abs(stems.sum(axis=0)).max(axis=0)
    peak = float(mixture.max())
    if peak < SILENCE:
        return stems
    blocks = np.pad(mixture, (0, -len(mixture) % width)).reshape(-1, width).max(axis=1)
    decay = np.exp(-width / (0.05 * SAMPLE_RATE))
    held = np.maximum(blocks, signal.lfilter([1 - decay], [1, -decay], blocks))
    gain = np.minimum(1.0, peak * gain_of(threshold_db) / (held + 1e-9))
    gain = np.minimum(gain, np.minimum(np.append(gain[1:], 1.0), np.append(1.0, gain[:-1])))
    centres = (np.arange(len(gain)) + 0.5) * width
    curve = np.interp(np.arange(stems.shape[-1]), centres, gain)
    return (stems * curve).astype(np.float32)


def clip_together(stems: np.ndarray, drive: float) -> np.ndarray:
    """Soft-clip the sum of the stems, as one gain that changes at every sample."""
    mixture = stems.sum(axis=0)
    peak = float(np.abs(mixture).max())
    if peak < SILENCE:
        return stems
    scaled = mixture / peak * drive
    # tanh(x) / x tends to 1 for small x.
    gain = np.where(np.abs(scaled) < 1e-3, 1.0, np.tanh(scaled) / np.where(scaled == 0, 1, scaled))
    return (stems * gain).astype(np.float32)


def compress_beside(audio: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a heavily compressed copy (parallel compression)."""
    squashed = compress(level_to(audio), rng.uniform(-34, -26), rng.uniform(6, 12), 0.05)
    return audio + rng.uniform(0.3, 0.9) * level_to(squashed, active_level(audio))


def shape_transients(audio: np.ndarray, amount: float) -> np.ndarray:
    """Sharpen (amount above 0) or soften attacks by a fast against a slow envelope."""
    power = np.abs(audio).max(axis=0)
    fast, slow = (
        signal.lfilter([1 - decay], [1, -decay], power)
        for decay in np.exp(-1 / (np.array([0.001, 0.02]) * SAMPLE_RATE))
    )
    gain = np.clip((fast + 1e-4) / (slow + 1e-4), 0.25, 4.0) ** amount
    return (audio * gain).astype(np.float32)


def crush(audio: np.ndarray, bits: float, hold: int) -> np.ndarray:
    """Coarse steps in level and in time, as of an old sampler."""
    peak = float(np.abs(audio).max()) + 1e-9
    steps = 2.0 ** (bits - 1) / peak
    held = np.repeat(audio[:, ::hold], hold, axis=-1)[:, : audio.shape[-1]]
    return (np.round(held * steps) / steps).astype(np.float32)


def duck(audio: np.ndarray, times_seconds: list[float], depth: float, seconds: float) -> np.ndarray:
    """Turn down at each time and let come back, as a compressor fed by the kick does."""
    dips = np.zeros(audio.shape[-1], np.float32)
    length = int(seconds * SAMPLE_RATE)
    dip = (np.cos(np.linspace(0, np.pi, length)) + 1) / 2
    dip[: min(200, length)] *= np.linspace(0, 1, 200)[:length]
    for time in times_seconds:
        start = int(time * SAMPLE_RATE)
        if 0 <= start < len(dips):
            part = dips[start : start + length]
            np.maximum(part, dip[: len(part)], out=part)
    return (audio * (1 - depth * dips)).astype(np.float32)


# ---- space -----------------------------------------------------------------------------


def pan(audio: np.ndarray, position: float) -> np.ndarray:
    """Place mono or stereo audio from -1 (left) to 1 (right) at constant power."""
    stereo = np.stack([audio, audio]) if audio.ndim == 1 else audio
    angle = (np.clip(position, -1, 1) + 1) * np.pi / 4
    gains = np.sqrt(2) * np.array([[np.cos(angle)], [np.sin(angle)]])
    return (stereo * gains).astype(np.float32)


def widen(mono: np.ndarray, delay: int) -> np.ndarray:
    """Mono to stereo by delaying the right channel by some samples."""
    return np.stack([mono, shift(mono, delay)]).astype(np.float32)


def shift(audio: np.ndarray, samples: int) -> np.ndarray:
    """Delay by whole samples, same length."""
    delayed = np.zeros_like(audio)
    if samples < audio.shape[-1]:
        delayed[..., samples:] = audio[..., : audio.shape[-1] - samples]
    return delayed


def reverberate(
    audio: np.ndarray,
    rng: np.random.Generator,
    *,
    seconds: float,
    wet: float,
    pre_delay_seconds: float = 0.01,
) -> np.ndarray:
    """Add a room: decaying filtered noise, different in the two channels."""
    length = int(SAMPLE_RATE * min(seconds, 2.5))
    decay = 10 ** (-3 * np.arange(length) / SAMPLE_RATE / seconds)
    room = rng.standard_normal((2, length)) * decay
    room = butterworth(room, "lowpass", rng.uniform(2500, 10000), 1)
    room = butterworth(room, "highpass", rng.uniform(100, 400), 1)
    room /= np.sqrt(np.sum(room**2, axis=-1, keepdims=True))
    tail = signal.oaconvolve(audio, room, axes=-1)[:, : audio.shape[-1]]
    return audio + wet * shift(tail.astype(np.float32), int(pre_delay_seconds * SAMPLE_RATE))


def reverberate_gated(audio: np.ndarray, rng: np.random.Generator, *, wet: float) -> np.ndarray:
    """Add a room that is cut off, as on drums of the eighties."""
    length = int(SAMPLE_RATE * rng.uniform(0.12, 0.35))
    room = butterworth(rng.standard_normal((2, length)), "lowpass", rng.uniform(4000, 9000), 1)
    room /= np.sqrt(np.sum(room**2, axis=-1, keepdims=True))
    return audio + wet * signal.oaconvolve(audio, room, axes=-1)[:, : audio.shape[-1]].astype(
        np.float32
    )


def set_width(audio: np.ndarray, width: float) -> np.ndarray:
    """Scale the difference of the channels: 0 is mono, 1 leaves it."""
    middle = audio.mean(axis=-2, keepdims=True)
    return (middle + width * (audio - middle)).astype(np.float32)


def echo(audio: np.ndarray, delay: int, feedback: float, *, repeats: int = 4) -> np.ndarray:
    """Add repeats, each softer and on the other side."""
    result = audio.copy()
    for number in range(1, repeats + 1):
        side = audio[::-1] if number % 2 else audio
        result += feedback**number * shift(side, number * delay)
    return result


def resample(audio: np.ndarray, speed: float) -> np.ndarray:
    """Play at another speed, which moves the pitch too."""
    ratio = Fraction(1 / speed).limit_denominator(60)
    if ratio == 1:
        return audio
    resampled = signal.resample_poly(audio, ratio.numerator, ratio.denominator, axis=-1)
    return resampled.astype(np.float32)


def place(canvas: np.ndarray, sound: np.ndarray, start_seconds: float) -> None:
    """Add a sound to a canvas at a time; what lies outside is cut off."""
    start = int(start_seconds * SAMPLE_RATE)
    if start < 0:
        sound, start = sound[..., -start:], 0
    length = min(sound.shape[-1], canvas.shape[-1] - start)
    if length > 0:
        canvas[..., start : start + length] += sound[..., :length]
