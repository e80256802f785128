"""The network, built from a configuration, and the level that it works at."""

from __future__ import annotations

import copy

import torch
from configuration import Model
from demucs.htdemucs import HTDemucs

_ARCHITECTURES = {"HTDemucs": HTDemucs}


def build(model: Model) -> HTDemucs:
    """A new network with random weights."""
    return _ARCHITECTURES[model.architecture](**copy.deepcopy(model.arguments))


def normalise(mixture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Subtract the mean and divide by the deviation of the mono mixture; shape (..., 2, n)."""
    mono = mixture.mean(dim=-2, keepdim=True)
    mean = mono.mean(dim=-1, keepdim=True)
    deviation = mono.std(dim=-1, keepdim=True) + 1e-8
    return (mixture - mean) / deviation, mean, deviation
