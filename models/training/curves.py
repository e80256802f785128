"""The curves of a training as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

_WINDOW = 100


def draw_curves(history: dict[str, Any], path: Path) -> Figure:
    """Loss of every step with its running mean, and SDR on the validation songs."""
    loss = np.array(history["loss"])
    figure = Figure(figsize=(7, 6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True)
    upper.plot(np.arange(1, len(loss) + 1), loss, ",", color="0.7", label="each step")
    if len(loss) > _WINDOW:
        mean = np.convolve(loss, np.full(_WINDOW, 1 / _WINDOW), mode="valid")
        upper.plot(np.arange(_WINDOW, len(loss) + 1), mean, label=f"mean of {_WINDOW}")
    # A few steps lie far from the others.
    low, high = np.percentile(loss, (0.5, 99.5))
    upper.set(ylabel="loss", ylim=(low - 0.1, high + 0.1))
    upper.legend()
    for source in history["validation"][0][1] if history["validation"] else ():
        points = [(step, scores.get(source, np.nan)) for step, scores in history["validation"]]
        lower.plot(*zip(*points, strict=True), marker=".", label=source)
        lower.legend()
    lower.set(xlabel="step", ylabel="SDR of held-out songs (dB)")
    figure.savefig(path, dpi=100)
    return figure
