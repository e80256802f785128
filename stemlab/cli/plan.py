"""``stemlab plan``: what a separation would compute and cost."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from stemlab._text import printable
from stemlab.audio import read_length, resampled_length
from stemlab.cli.separate import checked_separator
from stemlab.cost import calibrate, call_seconds, duration


def run(options: argparse.Namespace) -> int:
    """Say what a separation would compute and cost."""
    separator, settings = checked_separator(options)
    samples, sample_rate = read_length(options.song)
    plans = separator.plan(resampled_length(samples, sample_rate, separator.sample_rate), settings)
    model = calibrate(separator)
    facts = {
        "song": options.song,
        "seconds": samples / sample_rate,
        "model": separator.name,
        "device": separator.device,
        "settings": asdict(settings),
        "networks": [
            {
                "name": plan.name,
                "calls": plan.calls,
                "segment_seconds": plan.segment_samples / plan.sample_rate,
                "network_seconds": call_seconds(plan),
                "computed_seconds": plan.computed_samples / plan.sample_rate,
                "overlap_share": plan.overlap_share,
                "padding_share": plan.padding_share,
            }
            for plan in plans
        ],
        "notes": list(dict.fromkeys(note for plan in plans for note in plan.notes)),
        "estimate": asdict(model.estimate(plans)),
        "time_error": model.time_error,
        "memory_error": model.memory_error,
    }
    print(json.dumps(facts, indent=2) if options.json else "\n".join(_lines(facts)))
    return 0


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    settings, cost = facts["settings"], facts["estimate"]
    song = printable(facts["song"])
    yield f"{song}: {facts['seconds']:.1f} s with {facts['model']} on {facts['device']}"
    for network in facts["networks"]:
        title = f" of {network['name']}" if network["name"] else ""
        yield (
            f"  calls{title:7} {network['calls']}, each computes {network['network_seconds']:.2f} "
            f"s, segment {network['segment_seconds']:.2f} s, overlap {settings['overlap']:g}, "
            f"shifts {settings['shifts']}"
        )
        yield (
            f"  computed     {network['computed_seconds'] / facts['seconds']:.2f} times the song: "
            f"{network['overlap_share']:.0%} of it overlap, {network['padding_share']:.0%} padding "
            "and context"
        )
    memory = cost["peak_memory_bytes"]
    yield f"  time         about {duration(cost['seconds'])} (RTF {cost['rtf']:.2g})"
    yield f"  memory       {'not known here' if memory is None else f'about {memory / 1e6:.0f} MB'}"
    yield from (f"  note         {note}" for note in facts["notes"])
