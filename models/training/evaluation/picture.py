"""A look at what the model does: true stems of the demo song and estimates, as spectrograms."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np
from synth import SAMPLE_RATE, SOURCES

from stemlab.plots import plot_spectrograms

matplotlib.use("Agg")
from matplotlib import pyplot as plt


def draw_stems(stems: np.ndarray, estimates: np.ndarray, path: Path) -> None:
    """True stems on the left, estimates on the right; both of shape (sources, 2, samples)."""
    figure, axes = plt.subplots(len(SOURCES), 2, figsize=(11, 10), layout="constrained")
    signals = {}
    for source, true, estimate in zip(SOURCES, stems, estimates, strict=True):
        signals |= {f"{source}, true": true, f"{source}, separated": estimate}
    plot_spectrograms(signals, SAMPLE_RATE, axes=axes.ravel())
    figure.savefig(path, dpi=80)
    plt.close(figure)
