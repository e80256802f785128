"""The released architectures with random weights: for what they cost, not for how they sound.

The weights themselves cannot be part of this repository. Time and memory do not depend on their
values, as long as these are no denormal numbers or infinities: the norms here are those of a
network that works.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from torch import nn

from stemlab.registry.manifests import exact_seconds

__all__ = ["hdemucs_mmi", "htdemucs", "htdemucs_6s"]

MODELS = Path(__file__).resolve().parent.parent / "models"


def htdemucs() -> nn.Module:
    """HTDemucs as released: 42 million weights, segments of 7.8 s."""
    return _random("htdemucs")


def htdemucs_6s() -> nn.Module:
    """HTDemucs of six sources as released: 27 million weights."""
    return _random("htdemucs_6s")


def hdemucs_mmi() -> nn.Module:
    """HDemucs as released: 84 million weights, segments of 44 s."""
    return _random("hdemucs_mmi")


def _random(name: str) -> nn.Module:
    manifest: dict[str, Any] = json.loads((MODELS / name / "manifest.json").read_text("utf-8"))
    (network,) = manifest["networks"]
    arguments = dict(network["arguments"])
    arguments["segment"] = exact_seconds(arguments["segment"])
    architecture = {"HTDemucs": HTDemucs, "HDemucs": HDemucs}[network["architecture"]]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        module: nn.Module = architecture(**arguments)
        for path, weights in module.named_parameters():
            # What scales the residual branches begins at next to nothing.
            if path.endswith(".scale"):
                weights.normal_(0.0, 0.2)
    return module.eval().requires_grad_(False)
