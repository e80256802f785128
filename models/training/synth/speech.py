"""Spoken lines, analysed by WORLD into what the singer needs: envelopes, noise, pitch, syllables.

Flite speaks in training, its voices are under a permissive licence; eSpeak NG in the evaluation.
"""

from __future__ import annotations

import subprocess
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import soundfile
from scipy import signal

FRAME_MS = 5.0
FRAMES_PER_SECOND = 1000.0 / FRAME_MS
_FFT = 1024  # at the 16 or 22 kHz of the speakers


@dataclass(frozen=True)
class Syllable:
    """Frames of a line: consonants to `start`, a vowel that may be held, consonants to `end`."""

    begin: int
    start: int
    stop: int
    end: int


@dataclass(frozen=True)
class Line:
    """What was said, a row for each frame of 5 ms.

    `envelope` is log power and `aperiodicity` a share of it, both of shape (frames, bins) from
    0 to `band_hz`; `pitch_hz` is 0 where there is no voice.
    """

    envelope: np.ndarray
    aperiodicity: np.ndarray
    pitch_hz: np.ndarray
    band_hz: float
    syllables: tuple[Syllable, ...]

    @property
    def intonation(self) -> np.ndarray:
        """Semitones above the median pitch, also across what is voiceless."""
        voiced = np.flatnonzero(self.pitch_hz)
        notes = 12 * np.log2(self.pitch_hz[voiced])
        # The clip is for frames of which the pitch was mistaken for another octave.
        notes = np.clip(notes - np.median(notes), -7, 7)
        return np.interp(np.arange(len(self.pitch_hz)), voiced, notes)


def joined(first: Line, second: Line) -> Line:
    """One line after another of the same speaker."""
    moved = len(first.pitch_hz)
    return Line(
        np.concatenate([first.envelope, second.envelope]),
        np.concatenate([first.aperiodicity, second.aperiodicity]),
        np.concatenate([first.pitch_hz, second.pitch_hz]),
        first.band_hz,
        first.syllables
        + tuple(
            Syllable(s.begin + moved, s.start + moved, s.stop + moved, s.end + moved)
            for s in second.syllables
        ),
    )


# About 1 MB for each line.
@lru_cache(maxsize=256)
def speak(speaker: str, text: str) -> Line | None:
    """Let a speaker ("flite slt", "espeak it+f3") say a line; None if it has no vowel."""
    program, voice = speaker.split(" ", 1)
    speech, rate = _spoken(program, voice, text)
    loud = np.flatnonzero(np.abs(speech) > 0.01)
    if len(loud) < 0.05 * rate:
        return None
    margin = rate // 100
    return _analyse(speech[max(0, loud[0] - margin) : loud[-1] + 3 * margin], rate)


def _spoken(program: str, voice: str, text: str) -> tuple[np.ndarray, int]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "line.wav"
        if program == "flite":
            command = ["flite", "-voice", voice, "-t", text, "-o", str(path)]
            command += ["--setf", "duration_stretch=1.15"]
        else:
            command = ["espeak-ng", "-v", voice, "-s", "150", "-w", str(path), text]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except FileNotFoundError as error:
            message = f"{command[0]} is missing; install the Debian package {command[0]}"
            raise FileNotFoundError(message) from error
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"{' '.join(command)} failed: {error.stderr!r}") from error
        return soundfile.read(path)


def _analyse(speech: np.ndarray, rate: int) -> Line | None:
    import pyworld

    pitch, times = pyworld.dio(speech, rate, f0_floor=65, f0_ceil=500, frame_period=FRAME_MS)
    pitch = pyworld.stonemask(speech, pitch, times, rate)
    power = pyworld.cheaptrick(speech, pitch, times, rate, fft_size=_FFT)
    aperiodicity = pyworld.d4c(speech, pitch, times, rate, fft_size=_FFT)
    envelope = np.log(power + 1e-14)
    envelope -= np.log(np.percentile(power.mean(axis=1), 90))
    syllables = _syllables(envelope, pitch > 0, rate)
    if not syllables:
        return None
    # The speakers' own filters end a little below half the sampling rate.
    bins = int(0.46 * _FFT) + 1
    return Line(
        envelope[:, :bins].astype(np.float16),
        aperiodicity[:, :bins].astype(np.float16),
        pitch,
        (bins - 1) / _FFT * rate,
        syllables,
    )


def _syllables(envelope: np.ndarray, voiced: np.ndarray, rate: int) -> tuple[Syllable, ...]:
    """Cut where the voice is weakest between two vowels."""
    low, high = (int(frequency / rate * _FFT) for frequency in (250, 2800))
    loudness = np.log(np.exp(envelope[:, low:high]).mean(axis=1) + 1e-5)
    sonority = np.where(voiced, loudness, np.log(1e-5))
    sonority = np.convolve(np.pad(sonority, 5, mode="edge"), np.hanning(11) / 5, mode="valid")
    vowels, _ = signal.find_peaks(sonority, prominence=0.5, distance=16)
    vowels = [int(vowel) for vowel in vowels if voiced[vowel]]
    cuts = [0]
    for vowel, following in pairwise(vowels):
        cuts.append(vowel + int(np.argmin(sonority[vowel:following])))
    cuts.append(len(voiced))
    syllables = []
    for vowel, (begin, end) in zip(vowels, pairwise(cuts), strict=False):
        held = np.arange(vowel, min(vowel + 20, end))
        # Diphthongs glide while they are held.
        weaker = np.flatnonzero(sonority[held] < sonority[vowel] - 0.7)
        stop = int(held[weaker[0]]) if len(weaker) else min(vowel + 20, end)
        syllables.append(Syllable(begin, max(vowel - 5, begin), max(stop, vowel + 1), end))
    return tuple(syllables)
