"""``stemlab replay``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from stemlab._text import printable
from stemlab.cli._shared import passed, progress_bar, show
from stemlab.separation import ReplayReport, replay


def run(options: argparse.Namespace) -> int:
    """Repeat a run and say whether its samples are equal."""
    with progress_bar(options, Path(options.manifest_path).name) as bar:
        report = replay(**passed(replay, options), progress=bar)
    show(options, asdict(report), _lines(report))
    return 0 if report.equal else 1


def _lines(report: ReplayReport) -> Iterator[str]:
    yield "equal: every sample is the same" if report.equal else "NOT equal:"
    for stem, largest in report.largest_difference.items():
        if largest is None:
            yield f"  {printable(stem)}: its file is gone or was changed since"
        elif not report.equal:
            yield f"  {printable(stem)}: largest difference {largest:.3g} of full scale"
    if report.equal:
        return
    compared = "Compared were the samples before they were encoded, bit for bit."
    if report.circumstances:
        yield f"{compared} Not as in the recorded run:"
        yield from (f"  {line}" for line in report.circumstances)
    else:
        yield f"{compared} Device, threads, batch size and versions are those of the run."
