"""What the training minimises; stems and estimates have shape (batch, sources, 2, samples)."""

from __future__ import annotations

from collections.abc import Callable

import torch

# Errors further than this below the mixture (30 dB) hardly count.
_FLOOR = 1e-3
_TINY = 1e-8


def absolute(stems: torch.Tensor, estimates: torch.Tensor, consistency: float) -> torch.Tensor:
    """L1 on waveforms, of the sources and of their sum."""
    apart = (estimates - stems).abs().mean()
    left_over = (estimates.sum(dim=1) - stems.sum(dim=1)).abs().mean()
    return apart + consistency * left_over


def logarithmic(stems: torch.Tensor, estimates: torch.Tensor, consistency: float) -> torch.Tensor:
    """Logarithm of the power of the errors: an error in a quiet source counts as in a loud one.

    In nepers: 1 is 8.7 dB. The sum of the estimates is treated as one more source.
    """
    mixture = stems.sum(dim=1)
    floor = _FLOOR * mixture.square().mean(dim=(1, 2)) + _TINY
    apart = (estimates - stems).square().mean(dim=(2, 3)) + floor[:, None]
    left_over = (estimates.sum(dim=1) - mixture).square().mean(dim=(1, 2)) + floor
    return 0.5 * (apart.log().mean() + consistency * left_over.log().mean())


LOSSES: dict[str, Callable[[torch.Tensor, torch.Tensor, float], torch.Tensor]] = {
    "absolute": absolute,
    "logarithmic": logarithmic,
}
