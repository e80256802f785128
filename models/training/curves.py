"""The curves of a training as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

_WINDOW = 100


def draw_curves(history: dict[str, Any], path: Path) -> None:
    """Loss of every step with its running mean, and SDR on the validation songs."""
    loss = np.array(history["loss"])
    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(7, 6), layout="constrained")
    upper.plot(np.arange(1, len(loss) + 1), loss, ",", color="0.7", label="each step")
    if len(loss) > _WINDOW:
        mean = np.convolve(loss, np.full(_WINDOW, 1 / _WINDOW), mode="valid")
        upper.plot(np.arange(_WINDOW, len(loss) + 1), mean, label=f"mean of {_WINDOW}")
    upper.set(ylabel="loss", ylim=(0, float(np.percentile(loss, 99))))
    upper.legend()
    for source in history["validation"][0][1] if history["validation"] else ():
        points = [(step, scores[source]) for step, scores in history["validation"]]
        lower.plot(*zip(*points, strict=True), marker=".", label=source)
        lower.legend()
    lower.set(xlabel="step", ylabel="SDR of held-out songs (dB)")
    figure.savefig(path, dpi=100)
    plt.close(figure)
