"""From settings and a model to chunk plans: the rules of Demucs in one place."""

from __future__ import annotations

import random

from stemlab.chunking import ChunkPlan
from stemlab.errors import ParameterError
from stemlab.networks.spec import MemberSpec, ModelSpec
from stemlab.separation.settings import SeparationSettings

__all__ = ["check_segment", "make_plans"]

_MAX_SHIFT_SECONDS = 0.5


def check_segment(spec: ModelSpec, settings: SeparationSettings) -> None:
    """Refuse a segment that a model cannot take."""
    seconds = settings.segment_seconds
    if seconds is None:
        return
    samples = int(spec.sample_rate * seconds)
    for member in spec.members:
        trained = float(member.segment_seconds)
        longest = member.max_segment_seconds
        if longest is not None and samples > int(spec.sample_rate * longest):
            raise ParameterError(
                f"segment_seconds={seconds:g} is longer than the {trained:g} s of {spec.name}'s "
                "own segment, which is the most its transformer takes. "
                f"Pass at most {trained:g}, or leave it out."
            )
        if samples < member.min_segment_samples:
            shortest = member.min_segment_samples / spec.sample_rate
            raise ParameterError(
                f"segment_seconds={seconds:g} is shorter than one step of {spec.name}'s Fourier "
                f"transform. Pass at least {shortest:.3g}, or leave it out."
            )


def make_plans(
    spec: ModelSpec, samples: int, settings: SeparationSettings
) -> tuple[ChunkPlan, ...]:
    """Plan every member of a model over one recording."""
    check_segment(spec, settings)
    draw = random.Random(settings.seed)
    farthest = int(_MAX_SHIFT_SECONDS * spec.sample_rate)
    plans = []
    for number, member in enumerate(spec.members):
        starts = tuple(draw.randint(0, farthest) - farthest for _ in range(settings.shifts))
        name = f"{spec.name} {number + 1}/{len(spec.members)}" if len(spec.members) > 1 else ""
        plans.append(_plan(spec, member, samples, settings, starts or (0,), name))
    return tuple(plans)


def _plan(
    spec: ModelSpec,
    member: MemberSpec,
    samples: int,
    settings: SeparationSettings,
    starts: tuple[int, ...],
    name: str,
) -> ChunkPlan:
    """Apply what ``demucs.apply.apply_model`` does with the segment of one network."""
    asked = settings.segment_seconds
    segment = member.segment_seconds if asked is None else asked
    padded = _is_padded(member, settings)
    trained = _trained_samples(spec, member)
    input_samples = network_samples = None
    if member.architecture == "HTDemucs" and asked is not None:
        input_samples = int(spec.sample_rate * asked)
    elif padded:
        input_samples = trained
    if padded:
        network_samples = trained
    return ChunkPlan(
        samples=samples,
        sample_rate=spec.sample_rate,
        segment_seconds=segment,
        overlap=settings.overlap,
        input_samples=input_samples,
        network_samples=network_samples,
        starts=starts,
        skip_covered_tail=settings.skip_covered_tail,
        name=name,
        notes=_notes(spec, member, settings),
    )


def _notes(spec: ModelSpec, member: MemberSpec, settings: SeparationSettings) -> tuple[str, ...]:
    trained = float(member.segment_seconds)
    segment = trained if settings.segment_seconds is None else settings.segment_seconds
    if member.pads and not settings.pad_to_training_segment:
        return (
            f"Segments are not padded to the {trained:g} s that {spec.name} pads to by default: "
            "shorter ones save time and memory, and the output differs.",
        )
    if member.pads and int(spec.sample_rate * segment) < _trained_samples(spec, member):
        return (
            f"A segment of {segment:g} s is padded to {trained:g} s by {spec.name}: each call "
            f"costs as much, there are {trained / segment:.1f} times as many, and no memory is "
            "saved. Leave the segment out, or see pad_to_training_segment=False (--no-pad).",
        )
    return ()


def _is_padded(member: MemberSpec, settings: SeparationSettings) -> bool:
    return member.pads and settings.pad_to_training_segment


def _trained_samples(spec: ModelSpec, member: MemberSpec) -> int:
    return int(spec.sample_rate * member.segment_seconds)
