"""How PyTorch's threads wait for each other."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_WHAT_RUNS = Path("/proc/loadavg")
_LOOKS = 3
_BETWEEN_SECONDS = 0.004
# Long enough for most waits, and over before another program could have used the core.
_SHORT_SPIN = "1000"


def share_cores() -> None:
    """Let waiting threads sleep soon if other programs want the same cores.

    By default, threads spin while they wait for each other, some thousand times a second. That is
    quickest alone, but a spinning thread keeps the other program from its work, and both become
    many times slower (``benchmarks/load.py`` measures it). OpenMP reads the setting from the
    environment once, while PyTorch is loaded; hence the commands that separate, and the kernels of
    ``stemlab lab``, call this first. A program that has already loaded PyTorch is left alone, and
    so is a setting of the user's.

    Linux only: elsewhere, PyTorch brings other libraries.
    """
    if "GOMP_SPINCOUNT" in os.environ or "OMP_WAIT_POLICY" in os.environ:
        return
    if sys.platform == "linux" and "torch" not in sys.modules and _others_run():
        os.environ["GOMP_SPINCOUNT"] = _SHORT_SPIN


def _others_run() -> bool:
    """Whether other programs keep the cores busy that this process would use."""
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
