"""What is measured on one song, in a process of its own; each returns a tree of numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from synth import SOURCES

from stemlab import AudioStemSeparator

from .baselines import BASELINES, Baseline
from .material import Track, unlike_training
from .scores import bss_eval, grade, level_db, mean_sdr, residual_db, separation

# Long enough for the median of a few frames; museval takes about 1.4 s per second and estimate.
BSS_SECONDS = 8.0
SEGMENT_SECONDS = 12.0
ABSENT_SECONDS = 8.0
MODEL = "model"
# Those that BSSEval is worth its time for.
_BSS_ESTIMATORS = (MODEL, "mixture", "oracle mask")

_separators: list[AudioStemSeparator] = []


def start(model: Path) -> None:
    """Prepare a process: one thread, the model loaded once."""
    torch.set_num_threads(1)
    _separators[:] = [AudioStemSeparator(model, device="cpu")]


def separate(mixture: np.ndarray, **settings: Any) -> np.ndarray:
    """Stems of the model, shape (sources, 2, samples)."""
    return separation(_separators[0], **settings)(mixture)


def accuracy(track: Track) -> dict[str, Any]:
    """SDR and SI-SDR of the model and the baselines, over the whole song."""
    stems, mixture = track.load()
    return {name: grade(f(mixture, stems), stems, mixture) for name, f in _estimators().items()}


def bss(track: Track) -> dict[str, Any]:
    """BSSEval of an excerpt."""
    stems, mixture = track.excerpt(BSS_SECONDS)
    estimators = _estimators()
    return {name: bss_eval(estimators[name](mixture, stems), stems) for name in _BSS_ESTIMATORS}


def absent(track: Track) -> dict[str, float]:
    """Level of each stem beside the mixture when its source does not play at all."""
    stems, mixture = track.excerpt(ABSENT_SECONDS)
    levels = {}
    for position, source in enumerate(SOURCES):
        without = mixture - stems[position]
        levels[source] = level_db(separate(without)[position], without)
    return levels


def with_settings(track: Track, settings: dict[str, Any]) -> dict[str, float]:
    """Mean SDR and residual of an excerpt, separated with other settings."""
    stems, mixture = track.excerpt(SEGMENT_SECONDS)
    figures = grade(separate(mixture, **settings), stems, mixture)
    return {"sdr": mean_sdr(figures), "residual": figures["residual"]}


def robustness(track: Track) -> dict[str, float]:
    """Residual on altered music; raises if a stem is not finite or silence is not kept."""
    _, mixture = track.excerpt(ABSENT_SECONDS)
    residuals = {}
    for name, altered in {"as it is": mixture, **unlike_training(mixture)}.items():
        stems = separate(altered)
        if not np.isfinite(stems).all():
            raise ValueError(f"the stems of {name!r} are not finite")
        residuals[name] = residual_db(altered, stems)
    if np.abs(separate(np.zeros_like(mixture))).max() > 1e-6:
        raise ValueError("silence does not stay silent")
    return residuals


def _estimators() -> dict[str, Baseline]:
    return {MODEL: lambda mixture, stems: separate(mixture), **BASELINES}
