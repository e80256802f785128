"""Analyse a recording: loudness, levels, tempo, spectral balance, and activity of stems.

Levels follow AES17: 0 dBFS is the RMS level, and the peak, of a full-scale sine. Power is averaged
over channels. Silence has no level: it is None, never minus infinity.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stemlab._checks import check_rate
from stemlab._typing import AudioArray
from stemlab.audio import as_audio, resample
from stemlab.errors import ParameterError
from stemlab.spectra import SpectralComparison, compare_spectra

if TYPE_CHECKING:
    from stemlab.separation import AudioStemSeparator, SegmentDone, SeparationSettings

_MIXTURE = "mixture"

STEP_SECONDS = 0.5
# A stem plays where it is at most this far below the loudest moment of the mixture. Soft notes of
# the demo song's true stems lie up to 17 dB below, pauses 29 and more; stemlab-mini leaks from
# 23 to 14 dB below into them: some of its pauses count as playing.
ACTIVE_RANGE_DB = 20.0

# Levels below these count as silence: the range of 20 bits, and the floor of `compare_spectra`.
_SILENCE_DBFS, _BAND_FLOOR_DB = -120.0, -100.0
_SINE_POWER = 0.5

# The gating block of BS.1770; below that rate its filter, a shelf around 1.7 kHz, does not fit.
_LOUDNESS_SECONDS, _LOUDNESS_RATE_HZ = 0.4, 8000

# What librosa estimates tempo with by default.
_TEMPO_SECONDS, _TEMPO_RATE_HZ, _TEMPO_HOP = 8.0, 22_050, 512
_SLOWEST_BPM, _FASTEST_BPM = 30, 300
# Onsets of noise correlate by less than 0.1 at every distance, those of the demo song by 0.5.
_STEADY = 0.15
# The mean level of all bands rises by more at an onset; that of a steady tone wavers by 0.001 dB.
_ONSET_DB = 0.1


@dataclass(frozen=True)
class SignalLevels:
    """How loud a recording or a stem is."""

    # None stands for silence, which has no level.
    loudness_lufs: float | None  # Integrated. A note of the report says why there is none.
    peak_dbfs: float | None  # Of the largest sample; the true peak may lie between two.
    rms_dbfs: float | None
    over_time_dbfs: tuple[float | None, ...]  # RMS of each half second; the last may be shorter.
    band_levels_db: tuple[float | None, ...]  # In the octave bands of `SongReport.band_hz`.


@dataclass(frozen=True)
class StemReport:
    """The analysis of a stem."""

    levels: SignalLevels
    # Of the energy of all stems that were made, which is not the mixture's: stems overlap.
    energy_share: float | None  # None where all stems are silent.
    active_share: float  # Of the half seconds that are above `SongReport.active_above_dbfs`.


@dataclass(frozen=True)
class SongReport:
    """The analysis of a recording.

    Parameters
    ----------
    duration_seconds : float
    sample_rate : int, in Hz
    channels : int
    levels : SignalLevels
    tempo_bpm : float or None
        Beats per minute. None where there is no steady pulse; a note says so.
    step_seconds : float
        Length of a step of `SignalLevels.over_time_dbfs`.
    active_above_dbfs : float or None
        20 dB below the loudest half second of the recording: a stem plays where it is louder.
        The leakage of a weak model can be louder too.
    band_hz : tuple of float
        Centres of the octave bands.
    stems : mapping of str to StemReport
        Empty where the recording was not separated.
    separation : mapping or None
        Model, its digest, device and settings.
    notes : tuple of str
        Reasons for missing values.
    spectra : SpectralComparison
        Spectrograms of the mixture and the stems, for plots.
    """

    duration_seconds: float
    sample_rate: int
    channels: int
    levels: SignalLevels
    tempo_bpm: float | None
    step_seconds: float
    active_above_dbfs: float | None
    band_hz: tuple[float, ...]
    stems: Mapping[str, StemReport]
    separation: Mapping[str, Any] | None
    notes: tuple[str, ...]
    spectra: SpectralComparison = field(repr=False, compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return everything but the spectrograms as plain values.

        Returns
        -------
        facts : dict
            For JSON: lists, finite numbers, None.
        """
        facts = {
            name: value
            for name, value in vars(self).items()
            if name not in ("levels", "stems", "spectra")
        }
        facts["levels"] = asdict(self.levels)
        facts["stems"] = {name: asdict(stem) for name, stem in self.stems.items()}
        plain: dict[str, Any] = json.loads(json.dumps(facts, allow_nan=False))
        return plain


def analyze(
    audio: npt.ArrayLike,
    sample_rate: int,
    *,
    separator: AudioStemSeparator | None = None,
    settings: SeparationSettings | None = None,
    progress: Callable[[SegmentDone], None] | None = None,
) -> SongReport:
    """Analyse a recording and, with a separator, each of its stems.

    Parameters
    ----------
    audio : array, shape (channels, samples) or (samples,)
        Nominal range [-1, 1], one or two channels. Not modified.
    sample_rate : int, in Hz, in [1000, 768000]
    separator : AudioStemSeparator, optional
        Separates the recording. Default: only the recording itself is analysed.
    settings : SeparationSettings, optional
        How to separate.
    progress : callable, optional
        Called with a `SegmentDone` after each segment; raising an exception there cancels.

    Returns
    -------
    report : SongReport

    Raises
    ------
    ParameterError
        If a value is outside its range, or there are settings and no separator.
    AudioError
        If the recording is empty, not finite or has more than two channels.
    ModelError, OutOfMemoryError, SeparationError
        If the recording cannot be separated.

    Notes
    -----
    Integrated loudness follows ITU-R BS.1770 [1]_, with its filters adapted to the sample rate. It
    needs 0.4 s above -70 LUFS. Levels follow AES17 [2]_.

    The tempo is librosa's estimate [3]_: the lag at which the onset strength correlates best with
    itself, with a preference for about 120 beats per minute. It is often half or double the tempo
    that a listener taps. If the correlation is below 0.15 for all lags of 30 to 300 beats per
    minute, the tempo is None.

    Memory grows with the length of the recording and the number of stems.

    References
    ----------
    .. [1] ITU-R, "Algorithms to measure audio programme loudness and true-peak audio level",
       Recommendation BS.1770-5, 2023. https://www.itu.int/rec/R-REC-BS.1770
    .. [2] AES, "AES standard method for digital audio engineering: Measurement of digital audio
       equipment", AES17-2020.
    .. [3] B. McFee et al., "librosa: Audio and music signal analysis in Python", Proc. SciPy 2015,
       doi:10.25080/Majora-7b98e3ed-003.

    Examples
    --------
    >>> import numpy as np
    >>> tone = 0.1 * np.sin(2 * np.pi * 997 * np.arange(48_000) / 48_000)
    >>> report = analyze(tone, 48_000)
    >>> round(report.levels.loudness_lufs, 2), round(report.levels.rms_dbfs, 2), report.tempo_bpm
    (-23.01, -20.0, None)
    """
    if separator is not None:
        from stemlab.separation import SeparationSettings  # PyTorch comes with it.

        settings = settings or SeparationSettings()
        # Checked first: settings that cannot work should not cost time.
        separator.check(settings)
    elif settings is not None:
        raise ParameterError("settings=... needs a separator. Pass one, or leave settings out.")
    check_rate("sample_rate", sample_rate)
    mixture = as_audio(audio)
    signals, separation = {_MIXTURE: mixture}, None
    if separator is not None and settings is not None:
        stems = separator.separate_audio(mixture, sample_rate, settings=settings, progress=progress)
        # A model may have a source that is called "mixture".
        signals |= {f"stem {name}" if name in signals else name: x for name, x in stems.items()}
        separation = {
            "model": separator.name,
            "model_sha256": separator.model_sha256,
            "device": separator.device,
            "settings": asdict(settings),
        }
    spectra = compare_spectra(signals, sample_rate)
    notes: list[str] = []
    measured = {
        name: _measure(name, signal, sample_rate, spectra, notes)
        for name, signal in signals.items()
    }
    tempo = _tempo(mixture, sample_rate)
    if tempo is None:
        is_short = mixture.shape[1] < _TEMPO_SECONDS * sample_rate
        why = f"needs {_TEMPO_SECONDS:g} s of audio" if is_short else "no steady pulse was found"
        notes.append(f"tempo: {why}")
    energies = {name: energy for name, (_, energy) in measured.items() if name != _MIXTURE}
    total = sum(energies.values())
    over_time = measured[_MIXTURE][0].over_time_dbfs
    loudest = max((level for level in over_time if level is not None), default=None)
    threshold = None if loudest is None else loudest - ACTIVE_RANGE_DB
    return SongReport(
        duration_seconds=mixture.shape[1] / sample_rate,
        sample_rate=int(sample_rate),
        channels=mixture.shape[0],
        levels=measured[_MIXTURE][0],
        tempo_bpm=tempo,
        step_seconds=STEP_SECONDS,
        active_above_dbfs=threshold,
        band_hz=spectra.band_hz,
        stems={
            name: StemReport(
                levels=measured[name][0],
                energy_share=energy / total if total else None,
                active_share=_active_share(measured[name][0], threshold),
            )
            for name, energy in energies.items()
        },
        separation=separation,
        notes=tuple(notes),
        spectra=spectra,
    )


def _measure(
    name: str, audio: AudioArray, sample_rate: int, spectra: SpectralComparison, notes: list[str]
) -> tuple[SignalLevels, float]:
    """Return the levels of a signal and its energy, the sum of squares."""
    loudness, why = _loudness(audio, sample_rate)
    if why is not None:
        notes.append(f"loudness of {name}: {why}")
    energies, powers = _steps(audio, sample_rate)
    energy = float(energies.sum())
    levels = SignalLevels(
        loudness_lufs=loudness,
        peak_dbfs=_dbfs(max(float(audio.max()), -float(audio.min())) ** 2),
        rms_dbfs=_dbfs(energy / audio.size / _SINE_POWER),
        over_time_dbfs=tuple(_dbfs(float(power) / _SINE_POWER) for power in powers),
        band_levels_db=tuple(
            float(level) if level > _BAND_FLOOR_DB else None
            for level in spectra.band_levels_db[name]
        ),
    )
    return levels, energy


def _steps(
    audio: AudioArray, sample_rate: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the sum and the mean of the squares of each half second."""
    samples = audio.shape[1]
    count = -(-samples // (STEP_SECONDS * sample_rate))
    edges = np.minimum(np.arange(count + 1) * STEP_SECONDS * sample_rate, samples).astype(np.int64)
    energies = np.array(
        [np.square(audio[:, begin:end], dtype=np.float64).sum() for begin, end in pairwise(edges)]
    )
    return energies, energies / np.diff(edges) / audio.shape[0]


def _dbfs(power: float) -> float | None:
    level = 10 * float(np.log10(power)) if power > 0 else -np.inf
    return level if level > _SILENCE_DBFS else None


def _active_share(levels: SignalLevels, threshold: float | None) -> float:
    if threshold is None:
        return 0.0
    active = [level is not None and level > threshold for level in levels.over_time_dbfs]
    return sum(active) / len(active)


def _loudness(audio: AudioArray, sample_rate: int) -> tuple[float | None, str | None]:
    """Return the integrated loudness in LUFS, or the reason why there is none."""
    if audio.shape[1] < _LOUDNESS_SECONDS * sample_rate:
        return None, f"needs {_LOUDNESS_SECONDS:g} s of audio"
    if sample_rate < _LOUDNESS_RATE_HZ:
        return None, f"needs a sample rate of {_LOUDNESS_RATE_HZ} Hz or more"
    import pyloudnorm  # Takes a while to load.

    # The default filters differ by 0.04 dB from the coefficients of the Recommendation.
    meter = pyloudnorm.Meter(sample_rate, filter_class="DeMan")
    found = float(meter.integrated_loudness(audio.T))
    return (found, None) if np.isfinite(found) else (None, "nothing is louder than -70 LUFS")


def _tempo(mixture: AudioArray, sample_rate: int) -> float | None:
    if mixture.shape[1] < _TEMPO_SECONDS * sample_rate:
        return None
    import librosa  # Takes a while to load.

    mono = resample(mixture.mean(axis=0, keepdims=True), sample_rate, _TEMPO_RATE_HZ)[0]
    onsets = librosa.onset.onset_strength(y=mono, sr=_TEMPO_RATE_HZ, hop_length=_TEMPO_HOP)
    if onsets.max() < _ONSET_DB:
        return None
    (found,) = librosa.feature.tempo(
        onset_envelope=onsets, sr=_TEMPO_RATE_HZ, hop_length=_TEMPO_HOP
    )
    per_minute = 60 * _TEMPO_RATE_HZ / _TEMPO_HOP
    similarity = librosa.autocorrelate(onsets - onsets.mean())
    # Divide by the number of pairs: long distances have fewer, whatever the pulse.
    pairs = np.arange(len(onsets), len(onsets) - len(similarity), -1)
    similarity = similarity / similarity[0] * len(onsets) / pairs
    beats = slice(*(round(per_minute / bpm) for bpm in (_FASTEST_BPM, _SLOWEST_BPM)))
    if similarity[beats].max() < _STEADY:
        return None
    # The answer is a whole number of frames; the top of the parabola through the neighbours lies
    # between them.
    lag = min(round(per_minute / float(found)), len(similarity) - 2)
    before, here, after = map(float, similarity[lag - 1 : lag + 2])
    bend = before - 2 * here + after
    shift = 0.5 * (before - after) / bend if here > max(before, after) else 0.0
    return per_minute / (lag + shift)
