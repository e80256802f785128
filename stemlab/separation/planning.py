"""From settings and a model to chunk plans: the rules of Demucs in one place."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from stemlab.chunking import ChunkPlan, samples_in
from stemlab.errors import ParameterError
from stemlab.networks.architectures import MemberSpec
from stemlab.networks.spec import ModelSpec
from stemlab.separation.settings import SeparationSettings

_MAX_SHIFT_SECONDS = 0.5


def check_segment(spec: ModelSpec, segment_seconds: float | None) -> None:
    """Refuse a segment that a model cannot take."""
    if segment_seconds is None:
        return
    samples = samples_in(segment_seconds, spec.sample_rate)
    for member in spec.members:
        trained = float(member.segment_seconds)
        longest = member.max_segment_seconds
        if longest is not None and samples > samples_in(longest, spec.sample_rate):
            raise ParameterError(
                f"segment_seconds={segment_seconds:g} is longer than the {trained:g} s of "
                f"{spec.name}'s own segment, which is the most its transformer takes. "
                f"Pass at most {trained:g}, or leave it out."
            )
        if samples < member.min_segment_samples:
            shortest = member.min_segment_samples / spec.sample_rate
            raise ParameterError(
                f"segment_seconds={segment_seconds:g} is shorter than one step of {spec.name}'s "
                f"Fourier transform. Pass at least {shortest:.3g}, or leave it out."
            )


def make_plans(
    spec: ModelSpec, samples: int, settings: SeparationSettings, members: Sequence[int]
) -> tuple[ChunkPlan, ...]:
    """Plan some members of a model over one recording, as ``demucs.apply.apply_model`` does."""
    rate, asked = spec.sample_rate, settings.segment_seconds
    draw = random.Random(settings.seed)
    farthest = samples_in(_MAX_SHIFT_SECONDS, rate)
    # Every member draws, so that the shifts of one do not depend on which others are run.
    starts = [
        tuple(draw.randint(0, farthest) - farthest for _ in range(settings.shifts)) or (0,)
        for _ in spec.members
    ]
    plans = []
    for index in members:
        member = spec.members[index]
        trained = samples_in(member.segment_seconds, rate)
        padded = member.pads and settings.pad_to_training_segment
        input_samples = trained if padded else None
        if member.architecture.fills_segment and asked is not None:
            input_samples = samples_in(asked, rate)
        plan = ChunkPlan(
            samples=samples,
            sample_rate=rate,
            segment_seconds=member.segment_seconds if asked is None else asked,
            overlap=settings.overlap,
            input_samples=input_samples,
            network_samples=trained if padded else None,
            starts=starts[index],
            skip_covered_tail=settings.skip_covered_tail,
            name=f"{spec.name} {index + 1}/{len(spec.members)}" if len(spec.members) > 1 else "",
        )
        plans.append(replace(plan, notes=_notes(spec.name, member, plan)))
    return tuple(plans)


def _notes(model: str, member: MemberSpec, plan: ChunkPlan) -> tuple[str, ...]:
    trained, segment = float(member.segment_seconds), float(plan.segment_seconds)
    if member.pads and plan.network_samples is None:
        return (
            f"Segments are not padded to the {trained:g} s that {model} pads to by default: "
            "shorter ones save time and memory, and the output differs.",
        )
    if plan.network_samples is not None and plan.segment_samples < plan.network_samples:
        return (
            f"A segment of {segment:g} s is padded to {trained:g} s by {model}: each call "
            f"costs as much, there are {trained / segment:.1f} times as many, and no memory is "
            "saved. Leave the segment out, or see pad_to_training_segment=False (--no-pad).",
        )
    return ()
