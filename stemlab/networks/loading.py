"""Build networks from verified weights, or take a ready one.

Only names in `ARCHITECTURES` are built, only safetensors is parsed, and only after the digest of
the very same buffer was right. Nothing in a file can name a class or run code.
"""

from __future__ import annotations

import inspect
import os
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from demucs.apply import BagOfModels
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import nn

from stemlab.errors import MissingDependencyError, ModelRefusedError
from stemlab.files import ScratchFolder
from stemlab.networks.devices import is_out_of_memory
from stemlab.networks.spec import MemberSpec, ModelSpec
from stemlab.registry import (
    InstalledFile,
    ModelManifest,
    NetworkEntry,
    check_sources,
    exact_seconds,
    installed_file,
    printable,
    read_verified,
)

__all__ = [
    "ARCHITECTURES",
    "build_network",
    "load_network",
    "parse_network",
    "spec_of_network",
]

# Names the cache of PyTorch's compiler, which stemlab does not use.
_COMPILER_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_FLOATS = (torch.float16, torch.bfloat16, torch.float32)
# Building a network takes time by these, even where no weight is made; the last two, running it.
_MOST = {"depth": 12, "t_layers": 64, "dconv_depth": 16, "sources": 64, "multi_freqs": 16}
_MOST |= {"wiener_iters": 16, "end_iters": 16}


def _torchaudio_hdemucs() -> type[nn.Module]:
    # Its wheels link one build of PyTorch, and fail to load beside another.
    try:
        from torchaudio.models import HDemucs as TorchaudioHDemucs
    except (ImportError, OSError) as error:
        raise MissingDependencyError(
            f"this model needs torchaudio, which cannot be imported ({error}). Install the build "
            f"that belongs to your PyTorch {torch.__version__}: for one without CUDA, "
            "`pip install --force-reinstall --no-deps torchaudio --index-url "
            "https://download.pytorch.org/whl/cpu`."
        ) from error
    architecture: type[nn.Module] = TorchaudioHDemucs
    return architecture


ARCHITECTURES: dict[str, Callable[[], type[nn.Module]]] = {
    "HTDemucs": lambda: HTDemucs,
    "HDemucs": lambda: HDemucs,
    "torchaudio.HDemucs": _torchaudio_hdemucs,
}


def load_network(manifest: ModelManifest, network: NetworkEntry) -> tuple[nn.Module, InstalledFile]:
    """Load one network of a model: its file is read once, verified and parsed."""
    file = installed_file(manifest, network)
    content = read_verified(file.path, size=file.size, sha256=file.sha256)
    return parse_network(network, content, str(file.path)), file


def spec_of_network(network: nn.Module) -> tuple[ModelSpec, list[nn.Module]]:
    """Describe a ready Demucs network, or bag of networks, of the caller's."""
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
        parameters=sum(weight.numel() for each in members for weight in each.parameters()),
    )
    return spec, list(members)


def _member(network: HTDemucs | HDemucs, gains: tuple[float, ...]) -> MemberSpec:
    return MemberSpec(
        # Of a class derived from it as well: the plan follows from what the network is.
        architecture="HTDemucs" if isinstance(network, HTDemucs) else "HDemucs",
        segment_seconds=network.segment,
        min_segment_samples=int(network.hop_length),
        pads=bool(getattr(network, "use_train_segment", False)),
        gains=gains,
    )


def parse_network(network: NetworkEntry, content: bytes, label: str) -> nn.Module:
    """Make a network of the bytes of a safetensors file, if they are what it takes."""
    try:
        state = parse_safetensors(content)
    except (
        KeyError,
        OverflowError,
        RuntimeError,
        SafetensorError,
        TypeError,  # A shape beyond 64 bits, where another length of it is 0.
        ValueError,
    ) as error:
        raise _refusal(label, f"is not a valid safetensors file ({error})") from error
    module = build_network(network, label)
    _check_state(network, module, state, label)
    module.load_state_dict({name: each.float() for name, each in state.items()}, assign=True)
    return module.eval().requires_grad_(False)


def build_network(network: NetworkEntry, label: str) -> nn.Module:
    """Build a network without weights, so that none is made only to be replaced."""
    if network.architecture not in ARCHITECTURES:
        raise _refusal(
            label,
            f"is for the architecture {network.architecture!r}; "
            f"allowed are {', '.join(sorted(ARCHITECTURES))}",
        )
    architecture: Any = ARCHITECTURES[network.architecture]()
    _load_compiler()
    arguments = dict(network.arguments)
    unknown = set(arguments) - set(inspect.signature(architecture).parameters)
    if unknown:
        raise _refusal(label, f"comes with unknown arguments ({', '.join(sorted(unknown))})")
    try:
        for name, most in _MOST.items():
            size = arguments.get(name) or 0
            if (len(size) if isinstance(size, (list, tuple)) else abs(size)) > most:
                raise ValueError(f"{name} is larger than {most}")
        if "segment" in arguments:
            # Read as a number, a text like "1e999999999" takes hours.
            if not isinstance(arguments["segment"], (int, float)):
                raise ValueError("segment is no number")
            arguments["segment"] = exact_seconds(arguments["segment"])
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            module: nn.Module = architecture(**arguments)
    except (ImportError, OSError, SystemError):
        raise
    # Demucs checks its arguments by assert, or not at all: whatever it says means refused.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        said = str(error).partition("\n")[0] or type(error).__name__
        raise _refusal(
            label, f"comes with arguments that {network.architecture} does not take ({said})"
        ) from error
    return module


def _load_compiler() -> None:
    """Import the compiler of PyTorch, which the meta device needs, with a private cache folder.

    It makes that folder at once. In the temporary folder, its name is known beforehand, so that a
    file of that name, of anybody's, would stop every separation.
    """
    if "torch._dynamo" in sys.modules or _COMPILER_VARIABLE in os.environ:
        return
    with ScratchFolder() as folder:
        os.environ[_COMPILER_VARIABLE] = folder
        try:
            import_module("torch._dynamo")
        finally:
            del os.environ[_COMPILER_VARIABLE]


def _check_state(
    network: NetworkEntry, module: nn.Module, state: dict[str, torch.Tensor], label: str
) -> None:
    expected = module.state_dict()
    if expected.keys() != state.keys():
        missing, extra = (
            sorted(expected.keys() - state.keys()),
            sorted(state.keys() - expected.keys()),
        )
        raise _refusal(
            label,
            f"does not fit {network.architecture}: {len(missing)} tensors are missing "
            f"{missing[:2]}, {len(extra)} are not known {extra[:2]}",
        )
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape or tensor.dtype not in _FLOATS:
            raise _refusal(
                label,
                f"has {name} of shape {tuple(tensor.shape)} and type {tensor.dtype}; expected "
                f"{tuple(expected[name].shape)} of 16- or 32-bit floats",
            )
        if not torch.isfinite(tensor).all():
            raise _refusal(label, f"has values in {name} that are not finite")


def _refusal(label: str, what: str) -> ModelRefusedError:
    # It may hold names from the file.
    return ModelRefusedError(
        f"{label!r} {printable(what)}. Install the model again, or correct its manifest.",
        path=label,
    )
