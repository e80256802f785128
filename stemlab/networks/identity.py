"""A digest of what a ready network computes, and the digest function of all keys."""

from __future__ import annotations

import hashlib
import json
import sys
from fractions import Fraction
from typing import Any

import torch
from torch import nn

_PLAIN = (bool, int, float, str, bytes, Fraction, type(None))
_KNOWN_PACKAGES = ("torch", "demucs")
# PyTorch's own bookkeeping: weights are hashed as tensors, and modules one by one.
_BOOKKEEPING = {*vars(nn.Module()), "_flat_weights", "_flat_weight_refs"}
_FORWARD_HOOKS = ("_forward_hooks", "_forward_pre_hooks")


def digest_of(facts: Any) -> str:
    """Compute the SHA-256 of plain facts; the order of names does not matter."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def network_digest(network: nn.Module) -> str:
    """Compute the SHA-256 of a network's weights, buffers, classes and settings."""
    digest = hashlib.sha256()
    for name, module in network.named_modules(remove_duplicate=False):
        tensors = {**module._parameters, **module._buffers}
        settings = {}
        for key, value in _attributes(module).items():
            if isinstance(value, torch.Tensor):
                tensors[key] = value
            else:
                settings[key] = repr(value) if _is_plain(value) else _place_of(value)
        line = [name, _place_of(type(module)), sorted(settings.items())]
        digest.update(f"{json.dumps(line)}\n".encode())
        for key, tensor in sorted(tensors.items()):
            _add_tensor(digest, key, tensor)
    return digest.hexdigest()


def code_is_known(network: nn.Module) -> bool:
    """Tell whether `network_digest` covers everything that decides what a network computes.

    It does not if a class or function is not from PyTorch or Demucs, or if a module was patched.
    """
    return all(map(_is_known_module, network.modules()))


def _is_known_module(module: nn.Module) -> bool:
    kind = type(module)
    patched = any(callable(getattr(kind, name, None)) for name in vars(module))
    hooked = any(getattr(module, name) for name in _FORWARD_HOOKS)
    return not (patched or hooked) and all(
        isinstance(value, torch.Tensor) or _is_plain(value) or _is_known_code(value)
        for value in (kind, *_attributes(module).values())
    )


def _attributes(module: nn.Module) -> dict[str, Any]:
    return {name: value for name, value in vars(module).items() if name not in _BOOKKEEPING}


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(map(_is_plain, (*value, *value.values())))
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return isinstance(value, _PLAIN)


def _place_of(value: object) -> str:
    """Module and name of a class or function; of anything else, those of its class."""
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{getattr(named, '__module__', '')}.{getattr(named, '__qualname__', '')}"


def _is_known_code(value: object) -> bool:
    module = getattr(value, "__module__", None) or ""
    if module.partition(".")[0] not in _KNOWN_PACKAGES:
        return False
    found: Any = sys.modules.get(module)
    for part in getattr(value, "__qualname__", "").split("."):
        found = getattr(found, part, None)
    return found is value


def _add_tensor(digest: Any, name: str, tensor: torch.Tensor | None) -> None:
    if tensor is None:
        return
    values = tensor.detach().cpu().contiguous()
    digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
    digest.update(values.view(-1).view(torch.uint8).numpy())
