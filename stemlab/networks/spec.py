"""What is known of a model before its weights are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from demucs.apply import BagOfModels
from torch import nn

from stemlab.errors import ModelRefusedError
from stemlab.networks.architectures import (
    ARCHITECTURES,
    MemberSpec,
    architecture_named,
)
from stemlab.registry.manifests import ModelManifest, check_sources


@dataclass(frozen=True)
class ModelSpec:
    """A model: its sources, its audio format and its networks."""

    name: str
    sources: tuple[str, ...]
    sample_rate: int  # In Hz.
    channels: int
    members: tuple[MemberSpec, ...]
    parameters: int  # Number of weights.

    def __post_init__(self) -> None:
        if self.channels != 2:
            raise ModelRefusedError(
                f"{self.name} takes {self.channels} channels; stemlab works with networks that "
                "take 2."
            )

    @property
    def segment_seconds(self) -> float:
        """The own segment of its networks; the longest, where they differ."""
        return max(float(member.segment_seconds) for member in self.members)

    @property
    def segments_differ(self) -> bool:
        """Whether its networks have segments of their own: they get these if none is asked for."""
        return len({float(member.segment_seconds) for member in self.members}) > 1

    @property
    def min_segment_seconds(self) -> float:
        """The shortest segment that all its networks accept."""
        return max(member.min_segment_samples for member in self.members) / self.sample_rate

    @property
    def pads(self) -> bool:
        """Whether a network pads shorter segments to its own unless told otherwise."""
        return any(member.pads for member in self.members)

    @property
    def normalises(self) -> bool:
        """Whether a recording is brought to mean 0 and deviation 1 before it is separated."""
        return any(member.architecture.normalises for member in self.members)

    @property
    def device_types(self) -> tuple[str, ...]:
        """Types of devices on which all its networks run, best first."""
        first, *others = (member.architecture.devices for member in self.members)
        return tuple(kind for kind in first if all(kind in devices for devices in others))


def spec_of_manifest(manifest: ModelManifest) -> ModelSpec:
    """Describe the model of a manifest; its weights are not touched."""
    return ModelSpec(
        name=manifest.name,
        sources=manifest.sources,
        sample_rate=manifest.sample_rate,
        channels=manifest.channels,
        members=tuple(
            architecture_named(entry.architecture, entry.files[0].name).describe(manifest, entry)
            for entry in manifest.networks
        ),
        parameters=manifest.parameters,
    )


def spec_of_network(network: Any) -> tuple[ModelSpec, list[nn.Module]]:
    """Describe a ready network, or bag of networks, of the caller's."""
    is_bag = isinstance(network, BagOfModels)
    networks = list(network.models) if is_bag else [network]
    entries = ARCHITECTURES.values()
    known = [entry for member in networks for entry in entries if entry.recognises(member)]
    if len(known) != len(networks):
        kinds = ", ".join(sorted({type(member).__name__ for member in networks}))
        accepted = ", ".join(entry.name for entry in entries if entry.takes_ready)
        raise ModelRefusedError(
            f"model is a {kinds}: expected a registered name, a folder, or a Demucs network "
            f"({accepted}, or a BagOfModels of these)."
        )
    first = networks[0]
    sources = tuple(map(str, first.sources))
    check_sources(sources)
    weights = network.weights if is_bag else [[1.0] * len(sources)]
    gains = [tuple(float(share) for share in row) for row in weights]
    for position, source in enumerate(sources):
        share = sum(row[position] for row in gains)
        if share <= 0:
            raise ModelRefusedError(
                f"no network of the bag has a share in {source!r}: its weights sum to "
                f"{share:g}, expected more than 0."
            )
    spec = ModelSpec(
        name=type(network).__name__,
        sources=sources,
        sample_rate=int(first.samplerate),
        channels=int(first.audio_channels),
        members=tuple(
            architecture.describe_network(member, row)
            for architecture, member, row in zip(known, networks, gains, strict=True)
        ),
        parameters=sum(weight.numel() for member in networks for weight in member.parameters()),
    )
    return spec, networks
