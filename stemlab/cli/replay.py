"""``stemlab replay``."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from stemlab._text import printable
from stemlab.cli.separate import progress_bar
from stemlab.separation import ReplayReport, replay

__all__ = ["run"]


def run(options: argparse.Namespace) -> int:
    """Repeat a run and say whether its samples are equal."""
    title = Path(options.manifest).name
    with progress_bar(title, hidden=options.quiet or options.json) as bar:
        report = replay(
            options.manifest, input_path=options.input, device=options.device, progress=bar
        )
    if options.json:
        print(json.dumps(asdict(report), indent=2))
    elif not options.quiet:
        print("equal: every sample is the same" if report.equal else "NOT equal:")
        for stem, largest in report.largest_difference.items():
            if largest is None:
                print(f"  {printable(stem)}: its file is gone or was changed since")
            elif not report.equal:
                print(f"  {printable(stem)}: largest difference {largest:.3g} of full scale")
        if not report.equal:
            print("\n".join(_why(report)))
    return 0 if report.equal else 1


def _why(report: ReplayReport) -> list[str]:
    """Say what was compared, and what may have changed it."""
    compared = "Compared were the samples before they were encoded, bit for bit."
    if not report.circumstances:
        return [f"{compared} Device, threads, batch size and versions are those of the run."]
    return [
        f"{compared} Not as in the recorded run:",
        *(f"  {line}" for line in report.circumstances),
    ]
