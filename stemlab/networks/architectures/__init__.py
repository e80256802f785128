"""The table of architectures: everything in which one kind of network differs from another.

`base.Architecture` lists what an entry has to say; `demucs` holds the entries of Demucs' networks.
Callers ask the entry and never compare its name. A new architecture is a module and an entry below.
"""

from __future__ import annotations

from stemlab._text import brief
from stemlab.errors import ModelRefusedError
from stemlab.networks.architectures.base import Architecture, MemberSpec
from stemlab.networks.architectures.demucs import HDemucs, HTDemucs, TorchaudioHDemucs

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "MemberSpec",
    "architecture_named",
]

ARCHITECTURES: dict[str, Architecture] = {
    entry.name: entry for entry in (HTDemucs(), HDemucs(), TorchaudioHDemucs())
}
"""Entries by the name that manifests give. Nothing else is ever built."""


def architecture_named(name: str, label: str) -> Architecture:
    """Find the entry that a manifest names; the label says whose manifest it is."""
    if name not in ARCHITECTURES:
        raise ModelRefusedError(
            f"{label!r} is for the architecture {brief(repr(name))}; allowed are "
            f"{', '.join(sorted(ARCHITECTURES))}. Install the model again, or correct its "
            "manifest.",
            path=label,
        )
    return ARCHITECTURES[name]
