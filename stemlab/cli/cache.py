"""``stemlab cache``: what sweeps and estimates of cost have stored."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from stemlab.cli._shared import show
from stemlab.cost import calibrations_bytes, clear_calibrations
from stemlab.sweeps.store import SweepStore


def run_show(options: argparse.Namespace) -> int:
    """Say what is stored, and where."""
    usage = SweepStore().usage()
    calibrations = calibrations_bytes()
    facts = {**asdict(usage), "folder": str(usage.folder), "calibration_bytes": calibrations}
    stale = f", {usage.stale} of them stale" if usage.stale else ""
    lines = [
        f"{usage.folder}",
        f"  figures  {usage.results} settings{stale}, {usage.result_bytes / 1e6:.1f} MB",
        f"  stems    {usage.kept} runs, {usage.kept_bytes / 1e6:.1f} MB of at most "
        f"{usage.kept_limit_bytes / 1e6:.0f} MB; the ones used longest ago go first",
        f"  speed    of models on this machine, {calibrations / 1e3:.1f} kB",
        "`stemlab cache clear` removes all of it; with --results, --audio, --stale or "
        "--calibrations only that.",
    ]
    if usage.stale:
        unused = "Stale figures were measured with other versions of packages, and are not used."
        lines.insert(-1, unused)
    print(json.dumps(facts, indent=2) if options.json else "\n".join(lines))
    return 0


def run_clear(options: argparse.Namespace) -> int:
    """Remove what is stored."""
    store = SweepStore()
    before = _stored_bytes(store)
    everything = not (options.results or options.audio or options.stale or options.calibrations)
    if options.stale:
        store.clear_stale()
    if everything or options.results or options.audio:
        store.clear(results=not options.audio, audio=not options.results)
    if everything or options.calibrations:
        clear_calibrations()
    freed = before - _stored_bytes(store)
    facts = {"folder": str(store.folder), "freed_bytes": freed}
    show(options, facts, [f"{store.folder}: {freed / 1e6:.1f} MB freed"])
    return 0


def _stored_bytes(store: SweepStore) -> int:
    usage = store.usage()
    return usage.result_bytes + usage.kept_bytes + calibrations_bytes()
