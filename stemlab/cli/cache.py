"""``stemlab cache``: what sweeps have stored."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from stemlab.sweeps.store import SweepStore

__all__ = ["run_clear", "run_show"]


def run_show(options: argparse.Namespace) -> int:
    """Say what is stored, and where."""
    usage = SweepStore().usage()
    if options.json:
        print(json.dumps({**asdict(usage), "folder": str(usage.folder)}, indent=2))
        return 0
    print(f"{usage.folder}")
    print(f"  figures  {usage.results} settings, {usage.result_bytes / 1e6:.1f} MB")
    print(
        f"  stems    {usage.kept} runs, {usage.kept_bytes / 1e6:.1f} MB of at most "
        f"{usage.kept_limit_bytes / 1e6:.0f} MB; the ones used longest ago go first"
    )
    print("`stemlab cache clear` removes both, with --audio or --results only one of them.")
    return 0


def run_clear(options: argparse.Namespace) -> int:
    """Remove what is stored."""
    store = SweepStore()
    before = store.usage()
    store.clear(results=not options.audio, audio=not options.results)
    after = store.usage()
    freed = before.result_bytes + before.kept_bytes - after.result_bytes - after.kept_bytes
    if options.json:
        print(json.dumps({"folder": str(store.folder), "freed_bytes": freed}))
    elif not options.quiet:
        print(f"{store.folder}: {freed / 1e6:.1f} MB freed")
    return 0
