"""Build networks from verified weights, or take a ready one.

Only names in `ARCHITECTURES` are built, only safetensors is parsed, and only after the digest of
the very same buffer was right. Nothing in a file can name a class or run code.
"""

from __future__ import annotations

import hashlib
import inspect
from typing import Any

import torch
from demucs.apply import BagOfModels
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import nn

from stemlab._models.spec import MemberSpec, ModelSpec
from stemlab.errors import ModelRefusedError
from stemlab.registry import ModelManifest, NetworkEntry, check_sources, read_verified

__all__ = ["ARCHITECTURES", "load_networks", "spec_of_network", "state_digest"]

ARCHITECTURES: dict[str, type[nn.Module]] = {"HTDemucs": HTDemucs, "HDemucs": HDemucs}
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def load_networks(manifest: ModelManifest) -> list[nn.Module]:
    """Load the networks of a model, each file read once, verified and parsed.

    Parameters
    ----------
    manifest : ModelManifest

    Returns
    -------
    networks : list of nn.Module
        In evaluation mode, on the CPU, float32.

    Raises
    ------
    ModelNotFoundError
        If a file is missing.
    ModelRefusedError
        If a file is not the recorded one, or does not fit the architecture.
    """
    return [_load(entry) for entry in manifest.networks]


def spec_of_network(network: nn.Module) -> tuple[ModelSpec, list[nn.Module]]:
    """Describe a ready Demucs network, or bag of networks, of the caller's.

    Parameters
    ----------
    network : HTDemucs, HDemucs or BagOfModels
        Trusted by the caller.

    Returns
    -------
    spec : ModelSpec
    networks : list of nn.Module
        The members, not copied.

    Raises
    ------
    ModelRefusedError
        If it is of another class, its sources cannot name files, or one has no share.
    """
    bag = network.models if isinstance(network, BagOfModels) else [network]
    members = [each for each in bag if isinstance(each, (HTDemucs, HDemucs))]
    if len(members) != len(bag):
        kinds = ", ".join(sorted({type(each).__name__ for each in bag}))
        raise ModelRefusedError(
            f"model is a {kinds}: expected a registered name, a folder, or a Demucs network "
            "(HTDemucs, HDemucs, or a BagOfModels of these)."
        )
    sources = tuple(str(each) for each in members[0].sources)
    check_sources(sources)
    weights = network.weights if isinstance(network, BagOfModels) else [[1.0] * len(sources)]
    gains = [tuple(float(each) for each in row) for row in weights]
    for position, source in enumerate(sources):
        if sum(row[position] for row in gains) <= 0:
            raise ModelRefusedError(
                f"no network of the bag has a share in {source!r}: its weights sum to "
                f"{sum(row[position] for row in gains):g}, expected more than 0."
            )
    spec = ModelSpec(
        name=type(network).__name__,
        sources=sources,
        sample_rate=int(members[0].samplerate),
        channels=int(members[0].audio_channels),
        members=tuple(_member(each, row) for each, row in zip(members, gains, strict=True)),
    )
    return spec, list(members)


def _member(network: HTDemucs | HDemucs, gains: tuple[float, ...]) -> MemberSpec:
    return MemberSpec(
        architecture=type(network).__name__,
        segment_seconds=network.segment,
        min_segment_samples=int(network.hop_length),
        pads=bool(getattr(network, "use_train_segment", False)),
        gains=gains,
    )


def state_digest(network: nn.Module) -> str:
    """SHA-256 over names, types, shapes and values of a network's state.

    Parameters
    ----------
    network : nn.Module

    Returns
    -------
    digest : str, 64 hex digits
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _load(entry: NetworkEntry) -> nn.Module:
    content = read_verified(entry)
    try:
        state = parse_safetensors(content)
    except (SafetensorError, ValueError, KeyError, RuntimeError) as error:
        raise _refusal(entry, f"is not a valid safetensors file ({error})") from error
    network = _build(entry)
    _check_state(entry, network, state)
    network.load_state_dict({name: each.float() for name, each in state.items()}, assign=True)
    return network.eval().requires_grad_(False)


def _build(entry: NetworkEntry) -> nn.Module:
    """Make an empty network; on the meta device, so that no weight is made only to be replaced."""
    if entry.architecture not in ARCHITECTURES:
        raise _refusal(
            entry,
            f"is for the architecture {entry.architecture!r}; "
            f"allowed are {', '.join(sorted(ARCHITECTURES))}",
        )
    architecture: Any = ARCHITECTURES[entry.architecture]
    unknown = set(entry.arguments) - set(inspect.signature(architecture).parameters)
    if unknown:
        raise _refusal(entry, f"comes with unknown arguments ({', '.join(sorted(unknown))})")
    try:
        with torch.device("meta"):
            network: nn.Module = architecture(**entry.arguments)
    except MemoryError:
        raise
    # Demucs checks its arguments by assert, or not at all: whatever it says means refused.
    except Exception as error:
        raise _refusal(
            entry, f"comes with arguments that {entry.architecture} does not take ({error})"
        ) from error
    return network


def _check_state(entry: NetworkEntry, network: nn.Module, state: dict[str, torch.Tensor]) -> None:
    expected = network.state_dict()
    if expected.keys() != state.keys():
        missing, extra = (
            sorted(expected.keys() - state.keys()),
            sorted(state.keys() - expected.keys()),
        )
        raise _refusal(
            entry,
            f"does not fit {entry.architecture}: {len(missing)} tensors are missing "
            f"{missing[:2]}, {len(extra)} are not known {extra[:2]}",
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape or tensor.dtype not in _FLOATS:
            raise _refusal(
                entry,
                f"has {name} of shape {tuple(tensor.shape)} and type {tensor.dtype}; expected "
                f"{tuple(expected[name].shape)} of 16- or 32-bit floats",
            )
        if not torch.isfinite(tensor).all():
            raise _refusal(entry, f"has values in {name} that are not finite")


def _refusal(entry: NetworkEntry, what: str) -> ModelRefusedError:
    return ModelRefusedError(
        f"{str(entry.file)!r} {what}. Install the model again, or correct its manifest.",
        path=entry.file,
    )
