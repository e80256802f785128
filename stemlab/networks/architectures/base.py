"""What stemlab has to know of a kind of network."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stemlab.registry import ModelManifest, NetworkEntry

# From mixtures (batch, channels, samples) to estimates (batch, sources, channels, samples).
Forward = Callable[[torch.Tensor], torch.Tensor]
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


class FastForward(Protocol):
    """A forward that keeps memory from one call to the next."""

    def __call__(self, mixtures: torch.Tensor, /) -> torch.Tensor:
        """Estimate the sources of a batch."""

    def release(self) -> None:
        """Give up the memory that is kept."""


@dataclass(frozen=True)
class MemberSpec:
    """One network of a model, described without its weights."""

    architecture: Architecture
    segment_seconds: float | Fraction  # Its own, which is the default.
    min_segment_samples: int
    max_segment_seconds: float | Fraction | None  # None: without a limit.
    pads: bool  # Pads shorter segments to its own, unless told otherwise.
    gains: tuple[float, ...]  # Its share in each source.


class Architecture(ABC):
    """A kind of network: an entry of the table."""

    name: ClassVar[str]  # As manifests call it.
    class_name: ClassVar[str | None] = None  # That files of weights name; None if they name none.
    code_license: ClassVar[str]
    # The architecture in ``assets/costs.json`` whose measurements hold for it.
    cost_shape: ClassVar[str]
    devices: ClassVar[tuple[str, ...]] = ("cuda", "mps", "cpu")  # Types on which it runs.
    # Whether a recording is brought to mean 0 and deviation 1 before, and back afterwards.
    normalises: ClassVar[bool]
    # Whether a chunk that is shorter than the requested segment gets neighbouring samples.
    fills_segment: ClassVar[bool] = False
    # Whether the segments of one call are computed one after the other on a CPU.
    splits_batches: ClassVar[bool] = False
    # Whether a caller may pass a ready network, not only files.
    takes_ready: ClassVar[bool] = False
    # In these a file may differ from the manifest: they change no loaded network.
    arguments_without_effect: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        return repr(self.name)

    @abstractmethod
    def network_class(self) -> type[nn.Module]:
        """Import the class of its networks."""

    @abstractmethod
    def describe(self, manifest: ModelManifest, entry: NetworkEntry) -> MemberSpec:
        """Describe a network from its manifest; refuse one that contradicts itself."""

    @abstractmethod
    def describe_network(self, network: Any, gains: tuple[float, ...]) -> MemberSpec:
        """Describe a ready network."""

    def recognises(self, network: nn.Module) -> bool:
        """Tell whether a ready network is accepted as one of this kind.

        One of a derived class is: the plan follows from what the network is.
        """
        return self.takes_ready and isinstance(network, self.network_class())

    def parameters(self) -> Mapping[str, inspect.Parameter]:
        """List the arguments with which its networks are built."""
        return inspect.signature(self.network_class()).parameters

    def checked_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Prepare arguments for the class; raise ValueError for those that it must not get."""
        return dict(arguments)

    def check_state(self, network: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
        """Raise ValueError for weights that do not fit a network, or are not finite."""
        expected = network.state_dict()
        missing, extra = sorted(expected.keys() - state), sorted(state.keys() - expected)
        if missing or extra:
            raise ValueError(
                f"does not fit {self.name}: {len(missing)} tensors are missing {missing[:2]}, "
                f"{len(extra)} are not known {extra[:2]}"
            )
        for name, tensor in state.items():
            if tensor.shape != expected[name].shape or tensor.dtype not in _FLOATS:
                raise ValueError(
                    f"has {name} of shape {tuple(tensor.shape)} and type {tensor.dtype}; expected "
                    f"{tuple(expected[name].shape)} of 16- or 32-bit floats"
                )
            if not torch.isfinite(tensor).all():
                raise ValueError(f"has values in {name} that are not finite")

    def probe(self, member: MemberSpec) -> npt.NDArray[np.float32]:
        """Make a short mixture on which a network shows that it works."""
        noise = np.random.default_rng(0).normal(0, 0.1, (1, 2, 2 * member.min_segment_samples))
        return noise.astype(np.float32)

    def fast_forward(self, network: nn.Module, device: torch.device) -> FastForward | None:
        """Get what computes the same numbers as `plain_forward` sooner; None if nothing does.

        Raise UnknownLayoutError if something would, but this network has another layout.
        """
        return None

    def plain_forward(self, network: nn.Module) -> Forward:
        """Get what computes a batch as it is given, without padding."""
        return network
