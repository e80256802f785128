"""What separation needs to know of a model before its weights are loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from stemlab.errors import ModelRefusedError
from stemlab.registry import ModelManifest, NetworkEntry, exact_seconds, printable

__all__ = ["MemberSpec", "ModelSpec", "check_channels", "spec_of_manifest"]

_DEFAULT_STFT_SAMPLES = 4096
_MOST_STFT_SAMPLES = 1 << 20
# torchaudio's network is told neither.
_STATE_RATE_AND_SEGMENT = ("HTDemucs", "HDemucs")


@dataclass(frozen=True)
class MemberSpec:
    """One network of a model."""

    architecture: str
    segment_seconds: float | Fraction
    min_segment_samples: int
    pads: bool
    gains: tuple[float, ...]

    @property
    def max_segment_seconds(self) -> float | Fraction | None:
        """The longest segment that is accepted: a transformer's own; None without a limit."""
        return self.segment_seconds if self.architecture == "HTDemucs" else None


@dataclass(frozen=True)
class ModelSpec:
    """A model: its sources, its audio format and its networks."""

    name: str
    sources: tuple[str, ...]
    sample_rate: int
    channels: int
    members: tuple[MemberSpec, ...]
    parameters: int

    @property
    def segment_seconds(self) -> float:
        """The own segment of its networks; the longest, where they differ."""
        return max(float(each.segment_seconds) for each in self.members)

    @property
    def segments_differ(self) -> bool:
        """Whether its networks have segments of their own: they get these if none is asked for."""
        return len({float(each.segment_seconds) for each in self.members}) > 1

    @property
    def min_segment_seconds(self) -> float:
        """The shortest segment that all its networks accept."""
        return max(each.min_segment_samples for each in self.members) / self.sample_rate

    @property
    def pads(self) -> bool:
        """Whether a network pads shorter segments to its own unless told otherwise."""
        return any(each.pads for each in self.members)


def spec_of_manifest(manifest: ModelManifest) -> ModelSpec:
    """Describe the model of a manifest; its weights are not touched."""
    return ModelSpec(
        name=manifest.name,
        sources=manifest.sources,
        sample_rate=manifest.sample_rate,
        channels=manifest.channels,
        members=tuple(_member(manifest, entry) for entry in manifest.networks),
        parameters=manifest.parameters,
    )


def check_channels(spec: ModelSpec) -> None:
    """Refuse a model for anything but stereo."""
    if spec.channels != 2:
        raise ModelRefusedError(
            f"{spec.name} takes {spec.channels} channels; stemlab works with networks that take 2."
        )


def _member(manifest: ModelManifest, entry: NetworkEntry) -> MemberSpec:
    arguments: Mapping[str, Any] = entry.arguments
    sources = arguments.get("sources", ())
    stated = {
        "sources": tuple(sources) if isinstance(sources, list) else sources,
        "audio_channels": arguments.get("audio_channels", 2),
    }
    expected = {"sources": manifest.sources, "audio_channels": manifest.channels}
    if entry.architecture in _STATE_RATE_AND_SEGMENT:
        stated |= {
            "samplerate": arguments.get("samplerate", 44_100),
            "segment": arguments.get("segment"),
        }
        expected |= {"samplerate": manifest.sample_rate, "segment": manifest.segment_seconds}
    if stated != expected:
        raise ModelRefusedError(
            f"the manifest of {manifest.name!r} contradicts itself: its network has "
            f"{printable(repr(stated))}, the model {expected}. Correct the manifest.",
            path=manifest.folder,
            expected=expected,
            actual=stated,
        )
    stft = arguments.get("nfft", _DEFAULT_STFT_SAMPLES)
    if type(stft) is not int or not 4 <= stft <= _MOST_STFT_SAMPLES:
        raise ModelRefusedError(
            f"the manifest of {manifest.name!r} has nfft={printable(repr(stft))} for its network: "
            f"expected a whole number in [4, {_MOST_STFT_SAMPLES}]. Correct the manifest.",
            path=manifest.folder,
        )
    segment = exact_seconds(manifest.segment_seconds)
    if segment * manifest.sample_rate < stft // 4:
        raise ModelRefusedError(
            f"the manifest of {manifest.name!r} has a segment of {manifest.segment_seconds:g} s, "
            f"which is less than one hop of its network ({stft // 4} samples). Correct the "
            "manifest.",
            path=manifest.folder,
        )
    return MemberSpec(
        architecture=entry.architecture,
        segment_seconds=segment,
        min_segment_samples=stft // 4,
        pads=entry.architecture == "HTDemucs" and bool(arguments.get("use_train_segment", True)),
        gains=entry.gains or (1.0,) * len(manifest.sources),
    )
