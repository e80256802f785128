"""Estimates to compare a model with: what costs nothing, what needs no training, what knows all.

Each is a function of the mixture (2, samples) and the true stems (sources, 2, samples), which only
the oracle looks at, and returns estimates (sources, 2, samples). All but the mixture itself add up
to the mixture.
"""

from __future__ import annotations

from collections.abc import Callable

import librosa
import numpy as np
from synth import SAMPLE_RATE, SOURCES

Baseline = Callable[[np.ndarray, np.ndarray], np.ndarray]

_N_FFT, _HOP = 4096, 1024
_BASS_HZ = 200.0
_VOICE_HZ = (150.0, 8000.0)


def mixture_itself(mixture: np.ndarray, stems: np.ndarray) -> np.ndarray:
    """The mixture as every stem."""
    return np.repeat(mixture[None], len(stems), axis=0)


def equal_parts(mixture: np.ndarray, stems: np.ndarray) -> np.ndarray:
    """A quarter of the mixture as every stem (of four): the best without knowing anything."""
    return mixture_itself(mixture, stems) / len(stems)


def classical(mixture: np.ndarray, stems: np.ndarray) -> np.ndarray:
    """Signal processing of the textbooks, nothing learned.

    Drums: the percussive part of median filtering (HPSS). Of the harmonic part, bass: below
    200 Hz (Butterworth, fourth order, both ways). Vocals: what both channels share between
    150 Hz and 8 kHz. Other: the rest.
    """
    harmonic, percussive = librosa.decompose.hpss(_stft(mixture))
    frequencies = librosa.fft_frequencies(sr=SAMPLE_RATE, n_fft=_N_FFT)[:, None]
    bass = harmonic / (1 + (frequencies / _BASS_HZ) ** 8)
    left, right = above = harmonic - bass
    shared = 2 * (left * right.conj()).real / (np.square(np.abs(above)).sum(axis=0) + 1e-12)
    sung = (frequencies > _VOICE_HZ[0]) & (frequencies < _VOICE_HZ[1])
    vocals = above * np.clip(shared, 0, 1) * sung
    found = {"drums": percussive, "bass": bass, "vocals": vocals, "other": above - vocals}
    return _istft(np.stack([found[source] for source in SOURCES]), mixture.shape[1])


def oracle_mask(mixture: np.ndarray, stems: np.ndarray) -> np.ndarray:
    """The ideal ratio mask: true magnitudes over their sum, with the phase of the mixture.

    About what a method can reach that multiplies the spectrogram of the mixture by numbers
    between 0 and 1.
    """
    magnitudes = np.abs(_stft(stems))
    masks = (magnitudes + 1e-9) / (magnitudes + 1e-9).sum(axis=0)
    return _istft(masks * _stft(mixture), mixture.shape[1])


BASELINES: dict[str, Baseline] = {
    "mixture": mixture_itself,
    "quarter of the mixture": equal_parts,
    "classical": classical,
    "oracle mask": oracle_mask,
}


def _stft(audio: np.ndarray) -> np.ndarray:
    return librosa.stft(audio, n_fft=_N_FFT, hop_length=_HOP)


def _istft(spectrum: np.ndarray, samples: int) -> np.ndarray:
    return librosa.istft(spectrum, n_fft=_N_FFT, hop_length=_HOP, length=samples)
