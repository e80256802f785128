"""Run one network on a batch of chunks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from demucs.htdemucs import HTDemucs
from demucs.transformer import create_sin_embedding
from torch import nn
from torch.nn import functional

from stemlab.networks.fast import FastHTDemucs, UnknownLayoutError

__all__ = ["NetworkRunner"]

# Networks normalise over their innermost values and refuse a single one. Demucs fails on so short
# an input; with this much silence behind it there are enough.
_PADDED_SAMPLES = 4096


class NetworkRunner:
    """A network on its device, ready to be called with arrays, from any thread."""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        ready = not any(each.training for each in network.modules()) and all(
            each.device == device and each.dtype == torch.float32 for each in network.parameters()
        )
        if not ready:
            network = copy.deepcopy(network).eval().float().to(device)
        self._device = device
        self._training_samples = 0
        if isinstance(network, HTDemucs):
            self._training_samples = int(network.segment * network.samplerate)
        self.slow_because: str | None = None
        self._forward: Callable[[torch.Tensor], torch.Tensor]
        try:
            if device.type != "cpu":
                raise UnknownLayoutError(f"a place on {device}")
            with torch.inference_mode():
                self._forward = FastHTDemucs(network)
        except UnknownLayoutError as error:
            self.slow_because = str(error)
            self._forward = _unpadded(network)

    def __call__(
        self, inputs: npt.NDArray[np.float32], *, pad_to_training_segment: bool
    ) -> npt.NDArray[np.float32]:
        """Estimate the sources of a batch."""
        samples = inputs.shape[-1]
        length = max(samples, self._training_samples if pad_to_training_segment else 0)
        mixture = torch.from_numpy(inputs).to(self._device)
        with torch.inference_mode():
            try:
                estimates = self._forward(_extended(mixture, length))
            except ValueError:
                if length >= _PADDED_SAMPLES:
                    raise
                estimates = self._forward(_extended(mixture, _PADDED_SAMPLES))
            result: npt.NDArray[np.float32] = estimates[..., :samples].cpu().numpy()
        return result

    def release(self) -> None:
        """Give up the memory that is kept from one call to the next."""
        if isinstance(self._forward, FastHTDemucs):
            self._forward.release()


def _extended(mixture: torch.Tensor, samples: int) -> torch.Tensor:
    """Silence behind it, as Demucs pads."""
    return functional.pad(mixture, (0, samples - mixture.shape[-1]))


def _unpadded(network: nn.Module) -> Any:
    """Share a network's weights in an object that computes what it is given, and no padding."""
    if not isinstance(network, HTDemucs):
        return network
    view = _shallow(network)
    view.use_train_segment = False
    if view.crosstransformer is not None and view.crosstransformer.emb == "sin":
        transformer = _shallow(view.crosstransformer)
        transformer._get_pos_embedding = partial(_positions, transformer.max_period)
        view.crosstransformer = transformer
    return view


def _shallow(module: nn.Module) -> Any:
    twin = copy.copy(module)
    # Otherwise a module set on the twin would be set on the original as well.
    twin._modules = dict(module._modules)
    return twin


def _positions(
    max_period: float, length: int, batch: int, channels: int, device: torch.device
) -> torch.Tensor:
    """Embed positions as Demucs does, but for the shift that it draws from Python's global
    generator in each call: zero in a trained network, and still a draw from the caller's numbers.
    """
    embedding: torch.Tensor = create_sin_embedding(
        length, channels, device=str(device), max_period=max_period
    )
    return embedding
