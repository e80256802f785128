"""A look at what the model does: true stems of the demo song and estimates, as spectrograms."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from synth import SAMPLE_RATE, SOURCES

from stemlab.plots import compare_spectrograms


def draw_stems(stems: np.ndarray, estimates: np.ndarray, path: Path) -> None:
    """True stems on the left, estimates on the right; both of shape (sources, 2, samples)."""
    figure = Figure(figsize=(11, 10), layout="constrained")
    axes = figure.subplots(len(SOURCES), 2)
    signals = {}
    for source, true, estimate in zip(SOURCES, stems, estimates, strict=True):
        signals |= {f"{source}, true": true, f"{source}, separated": estimate}
    compare_spectrograms(signals, SAMPLE_RATE, difference=False, axes=axes.ravel())
    figure.savefig(path, dpi=80)
