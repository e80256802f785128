"""Check that a network has the layout that the fast path knows."""

from __future__ import annotations

from torch import nn


class UnknownLayoutError(Exception):
    """A network has something that the fast path does not know; the message says what."""


def require(condition: bool, what: str) -> None:
    """Refuse a network unless a condition holds."""
    if not condition:
        raise UnknownLayoutError(what)


def require_plain(network: nn.Module) -> None:
    """Refuse a network that somebody patched or hooked, or whose classes are not known."""
    for name, module in network.named_modules():
        kind = type(module)
        where = f"in {name}" if name else "in itself"
        package = kind.__module__.partition(".")[0]
        require(package in ("torch", "demucs"), f"a layer of another package {where}")
        require(not module._forward_hooks and not module._forward_pre_hooks, f"a hook {where}")
        replaced = [
            attribute for attribute in vars(module) if callable(getattr(kind, attribute, None))
        ]
        require(not replaced, f"a replaced method {where}")
