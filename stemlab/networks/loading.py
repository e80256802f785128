"""Build networks from verified weights.

Only architectures of the table are built, only safetensors is parsed, and only after the digest of
the very same buffer was right. Nothing in a file can name a class or run code.
"""

from __future__ import annotations

import os
import sys
import warnings
from importlib import import_module

import torch
from safetensors import SafetensorError
from safetensors.torch import load as parse_safetensors
from torch import nn

from stemlab._text import brief
from stemlab.errors import ModelRefusedError, is_out_of_memory
from stemlab.files import ScratchFolder
from stemlab.networks.architectures import architecture_named
from stemlab.registry.files import read_verified
from stemlab.registry.manifests import ModelManifest, NetworkEntry
from stemlab.registry.store import InstalledFile, installed_file

# Names the cache of PyTorch's compiler, which stemlab does not use.
_COMPILER_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def load_network(manifest: ModelManifest, network: NetworkEntry) -> tuple[nn.Module, InstalledFile]:
    """Load one network of a model: its file is read once, verified and parsed."""
    file = installed_file(manifest, network)
    content = read_verified(file.path, size=file.size, sha256=file.sha256)
    return parse_network(network, content, str(file.path)), file


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
    try:
        architecture_named(network.architecture, label).check_state(module, state)
    except ValueError as error:
        raise _refusal(label, str(error)) from error
    module.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    return module.eval().requires_grad_(False)


def build_network(network: NetworkEntry, label: str) -> nn.Module:
    """Build a network without weights, so that none is made only to be replaced."""
    architecture = architecture_named(network.architecture, label)
    network_class = architecture.network_class()
    _load_compiler()
    unknown = network.arguments.keys() - architecture.parameters().keys()
    if unknown:
        raise _refusal(label, f"comes with unknown arguments ({', '.join(sorted(unknown))})")
    try:
        arguments = architecture.checked_arguments(network.arguments)
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            module: nn.Module = network_class(**arguments)
    except (ImportError, OSError, SystemError):
        raise
    # Demucs uses assert for its checks, or checks nothing: any exception is a refusal.
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

    PyTorch creates that folder at once. In the temporary folder its name is predictable: a file of
    that name, created by any user, would stop every separation.
    """
    if "torch._dynamo" in sys.modules or _COMPILER_VARIABLE in os.environ:
        return
    with ScratchFolder() as folder:
        os.environ[_COMPILER_VARIABLE] = folder
        try:
            import_module("torch._dynamo")
        finally:
            del os.environ[_COMPILER_VARIABLE]


def _refusal(label: str, what: str) -> ModelRefusedError:
    # The text may contain names from the file.
    return ModelRefusedError(
        f"{label!r} {brief(what)}. Install the model again, or correct its manifest.",
        path=label,
    )
