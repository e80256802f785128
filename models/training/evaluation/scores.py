"""Figures of estimates, in dB: SDR, SI-SDR, BSSEval, and what the stems leave over."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from synth import SAMPLE_RATE, SOURCES

from stemlab import AudioStemSeparator, sdr, si_sdr
from stemlab.metrics.bsseval import museval_metrics

Separate = Callable[[np.ndarray], np.ndarray]
# A source further than this below the mixture is not scored: it all but does not play.
AUDIBLE_DB = -30.0
BSS_EVAL = ("SDR", "ISR", "SIR", "SAR")
_DITHER_DB = -60.0
_SILENT_FRAME_DB = -40.0


def separation(separator: AudioStemSeparator, **settings: Any) -> Separate:
    """A function from a mixture (2, samples) to its stems (sources, 2, samples)."""

    def separate(mixture: np.ndarray) -> np.ndarray:
        stems = separator.separate_audio(mixture, SAMPLE_RATE, **settings)
        return np.stack([stems[source] for source in SOURCES])

    return separate


def level_db(audio: np.ndarray, beside: np.ndarray) -> float:
    """Level of a signal relative to another."""
    power, other = (float(np.mean(np.square(a, dtype=np.float64))) for a in (audio, beside))
    return 10 * float(np.log10((power + 1e-20) / (other + 1e-20)))


def residual_db(mixture: np.ndarray, stems: np.ndarray) -> float:
    """Level of what the stems leave over of the mixture, relative to the mixture."""
    return level_db(mixture.astype(np.float64) - stems.sum(axis=0), mixture)


def grade(estimates: np.ndarray, stems: np.ndarray, mixture: np.ndarray) -> dict[str, Any]:
    """Figures of one song by source, without the inaudible ones, and its `residual`."""
    figures: dict[str, Any] = {"residual": residual_db(mixture, estimates)}
    for source, reference, estimate in zip(SOURCES, stems, estimates, strict=True):
        if level_db(reference, mixture) > AUDIBLE_DB:
            found = si_sdr(reference, estimate)
            figures[source] = {
                "sdr": sdr(reference, estimate),
                "si_sdr": found,
                "si_sdr_gain": found - si_sdr(reference, mixture),
            }
    return figures


def score(separate: Separate, stems: np.ndarray) -> dict[str, Any]:
    """Figures of one song, of which the mixture is the sum of the stems."""
    mixture = stems.sum(axis=0)
    return grade(separate(mixture), stems, mixture)


def average(songs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Mean figures over songs."""
    return _over_songs(list(songs), lambda values: float(np.mean(values)))


def quartiles(songs: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Lower quartile, median and upper quartile over songs, of every figure."""
    return _over_songs(list(songs), lambda values: np.quantile(values, (0.25, 0.5, 0.75)).tolist())


def mean_sdr(figures: dict[str, Any]) -> float:
    """Mean SDR over the sources."""
    return float(np.mean([figures[s]["sdr"] for s in SOURCES if s in figures]))


def bss_eval(estimates: np.ndarray, stems: np.ndarray) -> dict[str, dict[str, float]]:
    """BSSEval v4 of museval by source: the median over frames of one second.

    museval fits filters from the true stems to the estimates over the whole recording, and applies
    them frame by frame. Music from a lossy codec has nothing above some frequency: the filters are
    arbitrarily strong there, the edges of the frames let that through, and SIR and SAR come out
    near 0 dB even for a true stem plus white noise at -20 dB. Noise at -60 dB on the true stems
    keeps the filters weak; it bounds the SDR at 60 dB. Inaudible sources are left out, and so are
    frames in which a source rests.
    """
    mixture = stems.sum(axis=0)
    heard = [n for n, stem in enumerate(stems) if level_db(stem, mixture) > AUDIBLE_DB]
    noise = np.random.default_rng(0).standard_normal(stems.shape)
    levels = np.sqrt(np.square(stems).mean(axis=(1, 2), keepdims=True))
    dithered = stems + 10 ** (_DITHER_DB / 20) * levels * noise
    *frames, _ = museval_metrics().bss_eval(
        dithered[heard].transpose(0, 2, 1),
        estimates[heard].transpose(0, 2, 1),
        window=SAMPLE_RATE,
        hop=SAMPLE_RATE,
    )
    figures = {}
    for position, source in enumerate(heard):
        plays = _plays(stems[source], frames[0].shape[1])
        figures[SOURCES[source]] = {
            name: float(np.median(values[position][plays]))
            for name, values in zip(BSS_EVAL, frames, strict=True)
        }
    return figures


def _plays(stem: np.ndarray, frames: int) -> np.ndarray:
    """In which of the frames of one second a stem is heard."""
    parts = [stem[:, n * SAMPLE_RATE : (n + 1) * SAMPLE_RATE] for n in range(frames)]
    return np.array([level_db(part, stem) > _SILENT_FRAME_DB for part in parts])


def _over_songs(songs: Sequence[dict[str, Any]], middle: Callable[[list[float]], Any]) -> Any:
    """The same tree as each song's, with `middle` of the songs' numbers at its ends."""
    names = dict.fromkeys(name for song in songs for name in song)
    result = {}
    for name in names:
        values = [song[name] for song in songs if name in song]
        deeper = isinstance(values[0], dict)
        result[name] = _over_songs(values, middle) if deeper else middle(values)
    return result
