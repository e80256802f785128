"""Run one network on a batch of chunks."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from demucs.htdemucs import HTDemucs
from demucs.transformer import create_sin_embedding
from torch import nn
from torch.nn import functional

__all__ = ["NetworkRunner"]

# Networks normalise over their innermost values and refuse a single one. Demucs fails on so short
# an input; with this much silence behind it there are enough.
_PADDED_SAMPLES = 4096


class NetworkRunner:
    """A network on its device, ready to be called with arrays, from any thread.

    Parameters
    ----------
    network : nn.Module
        An HTDemucs or HDemucs. Never changed: where it is in training mode, on another device or
        in another precision it is copied, otherwise only its weights are shared.
    device : torch.device
    """

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        ready = not any(each.training for each in network.modules()) and all(
            each.device == device and each.dtype == torch.float32 for each in network.parameters()
        )
        if not ready:
            network = copy.deepcopy(network).eval().float().to(device)
        self._device = device
        # Two views of the same weights rather than one that is switched to and fro.
        self._padded = _view(network, pad_to_training_segment=True)
        self._unpadded = _view(network, pad_to_training_segment=False)

    def __call__(
        self, inputs: npt.NDArray[np.float32], *, pad_to_training_segment: bool
    ) -> npt.NDArray[np.float32]:
        """Estimate the sources of a batch.

        Parameters
        ----------
        inputs : ndarray, shape (batch, channels, samples), float32
            Normalised mixture.
        pad_to_training_segment : bool
            Whether an HTDemucs pads to its training segment (Demucs' ``use_train_segment``).

        Returns
        -------
        estimates : ndarray, shape (batch, sources, channels, samples), float32
        """
        network = self._padded if pad_to_training_segment else self._unpadded
        samples = inputs.shape[-1]
        mixture = torch.from_numpy(inputs).to(self._device)
        with torch.inference_mode():
            try:
                estimates = network(mixture)
            except ValueError:
                if samples >= _PADDED_SAMPLES:
                    raise
                padded = functional.pad(mixture, (0, _PADDED_SAMPLES - samples))
                estimates = network(padded)[..., :samples]
            result: npt.NDArray[np.float32] = estimates.cpu().numpy()
        return result


def _view(network: nn.Module, *, pad_to_training_segment: bool) -> Any:
    """Share a network's weights in an object whose settings can be changed apart."""
    if not isinstance(network, HTDemucs):
        return network
    view = _shallow(network)
    view.use_train_segment = pad_to_training_segment
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
