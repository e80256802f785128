"""Run one network on a batch of chunks."""

from __future__ import annotations

import copy

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from stemlab.errors import ModelRefusedError, OutOfMemoryError, is_out_of_memory
from stemlab.networks.architectures import Architecture, MemberSpec
from stemlab.networks.architectures.base import FastForward, Forward
from stemlab.networks.devices import is_same_device
from stemlab.networks.fast import UnknownLayoutError

# Networks normalise over their innermost values, and a single value cannot be normalised. Demucs
# fails on such a short input; padded with silence to this length, it has enough values.
_PADDED_SAMPLES = 4096


class NetworkRunner:
    """A network on its device, ready to be called with arrays, from any thread."""

    def __init__(
        self, network: nn.Module, architecture: Architecture, device: torch.device
    ) -> None:
        if not _is_ready(network, device):
            network = copy.deepcopy(network).eval().float().to(device)
        self._device = device
        self._fast: FastForward | None = None
        self.slow_because: str | None = None  # As in "the network has ..."
        try:
            with torch.inference_mode():
                self._fast = architecture.fast_forward(network, device)
        except UnknownLayoutError as error:
            self.slow_because = str(error)
        self._forward: Forward = self._fast or architecture.plain_forward(network)

    @property
    def is_fast(self) -> bool:
        """Whether it runs a fast path instead of the network's own forward."""
        return self._fast is not None

    def __call__(
        self, inputs: npt.NDArray[np.float32], *, padded_samples: int = 0
    ) -> npt.NDArray[np.float32]:
        """Estimate the sources of a batch; shorter inputs are padded with silence."""
        samples = inputs.shape[-1]
        length = max(samples, padded_samples)
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
        if self._fast is not None:
            self._fast.release()


def check_works(network: nn.Module, member: MemberSpec, label: str) -> None:
    """Refuse a network that makes something else of a short mixture than one stem per source."""
    mixture = member.architecture.probe(member)
    runner = NetworkRunner(network, member.architecture, torch.device("cpu"))
    try:
        estimates = runner(mixture)
    # Demucs uses assert for its checks, or checks nothing.
    except Exception as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"{label!r} does not fit into memory. Close what else uses it."
            ) from error
        raise ModelRefusedError(
            f"{label!r} does not run: {error}. Correct its manifest.", path=label
        ) from error
    expected = (1, len(member.gains), *mixture.shape[1:])
    if estimates.shape != expected or not np.isfinite(estimates).all():
        raise ModelRefusedError(
            f"{label!r} does not work: expected finite values of shape {expected}, got shape "
            f"{estimates.shape}. Correct its manifest, or get the file again.",
            path=label,
            expected=expected,
            actual=estimates.shape,
        )


def _is_ready(network: nn.Module, device: torch.device) -> bool:
    """Whether a network can be used as it is, without a copy."""
    return not any(module.training for module in network.modules()) and all(
        is_same_device(weight.device, device) and weight.dtype == torch.float32
        for weight in network.parameters()
    )


def _extended(mixture: torch.Tensor, samples: int) -> torch.Tensor:
    return functional.pad(mixture, (0, samples - mixture.shape[-1]))
