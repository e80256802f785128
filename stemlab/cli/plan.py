"""``stemlab plan``: what a separation would compute and cost."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from stemlab._text import printable
from stemlab.audio import read_length, resampled_length
from stemlab.chunking import ChunkPlan
from stemlab.cli.separate import settings_of
from stemlab.cost import calibrate, call_seconds, duration
from stemlab.separation import AudioStemSeparator

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Say what a separation would compute and cost."""
    settings = settings_of(options)
    separator = AudioStemSeparator(
        options.model, device=options.device, batch_size=options.batch_size
    )
    separator.check(settings)
    samples, sample_rate = read_length(options.song)
    plans = separator.plan(resampled_length(samples, sample_rate, separator.sample_rate), settings)
    model = calibrate(separator)
    cost = model.estimate(plans)
    facts = {
        "song": options.song,
        "seconds": samples / sample_rate,
        "model": separator.name,
        "device": separator.device,
        "settings": asdict(settings),
        "networks": [_describe(each) for each in plans],
        "notes": list(dict.fromkeys(note for each in plans for note in each.notes)),
        "estimate": asdict(cost),
        "time_error": model.time_error,
        "memory_error": model.memory_error,
    }
    print(json.dumps(facts, indent=2) if options.json else "\n".join(_lines(facts)))
    return 0


def _describe(plan: ChunkPlan) -> dict[str, Any]:
    return {
        "name": plan.name,
        "calls": plan.calls,
        "segment_seconds": plan.segment_samples / plan.sample_rate,
        "network_seconds": call_seconds(plan),
        "computed_seconds": plan.computed_samples / plan.sample_rate,
        "overlap_share": plan.overlap_share,
        "padding_share": plan.padding_share,
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    settings, cost = facts["settings"], facts["estimate"]
    song = printable(facts["song"])
    lines = [f"{song}: {facts['seconds']:.1f} s with {facts['model']} on {facts['device']}"]
    for each in facts["networks"]:
        title = f" of {each['name']}" if each["name"] else ""
        lines += [
            f"  calls{title:7} {each['calls']}, each computes {each['network_seconds']:.2f} s, "
            f"segment {each['segment_seconds']:.2f} s, overlap {settings['overlap']:g}, "
            f"shifts {settings['shifts']}",
            f"  computed     {each['computed_seconds'] / facts['seconds']:.2f} times the song: "
            f"{each['overlap_share']:.0%} of it overlap, {each['padding_share']:.0%} padding and "
            "context",
        ]
    memory = cost["peak_memory_bytes"]
    lines += [
        f"  time         about {duration(cost['seconds'])} (RTF {cost['rtf']:.2g})",
        f"  memory       {'not known here' if memory is None else f'about {memory / 1e6:.0f} MB'}",
    ]
    return lines + [f"  note         {each}" for each in facts["notes"]]
