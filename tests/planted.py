"""Networks whose result is known beforehand, made by functions that other processes can import.

They stand in for trained ones where the truth must be exact; they are HTDemucs by class, so that
plans, padding and context are those of a real one.
"""

from __future__ import annotations

import time
from typing import Any

import torch
from demucs.htdemucs import HTDemucs

SOURCES = ["drums", "bass", "other", "vocals"]
SHARES = (0.1, 0.2, 0.3, 0.4)


class Planted(HTDemucs):
    """Gives each source a share of what it is handed."""

    def __init__(self, shares: tuple[float, ...] = SHARES, segment: float = 1.0) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            super().__init__(SOURCES, channels=8, t_layers=0, bottom_channels=0, segment=segment)
        self.shares = shares
        self.eval()

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        return torch.stack([share * mix for share in self.shares], dim=1)


class Clicking(Planted):
    """Clicks where its input begins and ends."""

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        stems = super().forward(mix)
        stems[..., :2] += 3.0
        stems[..., -2:] += 3.0
        return stems


class Pointwise(Planted):
    """Bends each sample by itself: what lies around it does not matter."""

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        return torch.tanh(super().forward(mix))


class Failing(Planted):
    """Breaks on short inputs."""

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        if mix.shape[-1] < 20_000:
            raise ValueError("planted failure")
        return super().forward(mix)


class Dozing(Planted):
    """Takes two seconds too long, once, when it is given inputs of 0.8 s."""

    def __init__(self) -> None:
        super().__init__()
        self.dozed: list[int] = []  # The views that run share it.

    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        if mix.shape[-1] == 35_280 and not self.dozed:
            self.dozed.append(1)
            time.sleep(2)
        return super().forward(mix)


def shares() -> Any:
    return Planted()


def clicking() -> Any:
    return Clicking()


def unseeded() -> Any:
    network = HTDemucs(SOURCES, channels=8, t_layers=0, bottom_channels=0, segment=1.0)
    return network.eval()


def tiny() -> Any:
    """A real HTDemucs of random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return HTDemucs(SOURCES, channels=8, t_layers=1, t_heads=2, segment=1.0).eval()
