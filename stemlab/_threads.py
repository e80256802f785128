"""How the threads of PyTorch wait for each other."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

__all__ = ["share_cores"]

_WHAT_RUNS = Path("/proc/loadavg")
_LOOKS = 3
_BETWEEN_SECONDS = 0.004
# Long enough for most waits, and over before another program could have used the core.
_SHORT_SPIN = "1000"


def share_cores() -> None:
    """Let threads that wait go to sleep soon, where other programs want the same cores.

    By default they spin, which is quickest alone: a network of many layers has some thousand such
    waits a second. But what spins keeps the other program from the work that is waited for, and
    each is slowed down many times (``benchmarks/load.py`` measures both). The library of
    PyTorch's threads is told once, through the environment, before PyTorch is loaded; what the
    user set stays.

    Notes
    -----
    Linux only: elsewhere PyTorch comes with other libraries.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        return
    if sys.platform == "linux" and "torch" not in sys.modules and _others_run():
        os.environ["GOMP_SPINCOUNT"] = _SHORT_SPIN


def _others_run() -> bool:
    """Whether others have kept running cores that this process would use."""
    spare = (os.cpu_count() or 1) - len(os.sched_getaffinity(0))
    for look in range(_LOOKS):
        time.sleep(_BETWEEN_SECONDS if look else 0)
        try:
            running, _, _ = _WHAT_RUNS.read_text("ascii").split()[3].partition("/")
            if int(running) - 1 <= spare:
                return False
        except (OSError, ValueError, IndexError):
            return False
    return True
