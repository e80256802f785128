"""The machine that a training or a measurement runs on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch


def processor() -> str:
    """What the processor calls itself."""
    described = Path("/proc/cpuinfo")
    if described.exists():
        for line in described.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def prepare(threads: int) -> None:
    """Settings of torch for a training."""
    torch.set_num_threads(threads)
    # Decaying gradients and tails of reverberation end in denormal numbers, which are slow.
    torch.set_flush_denormal(True)
