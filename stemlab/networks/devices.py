"""Choose the device that a network runs on, and describe it."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from stemlab.errors import ParameterError


@dataclass(frozen=True)
class Device:
    """Where a network runs, and why there."""

    torch_device: torch.device
    reason: str

    def __str__(self) -> str:
        return str(self.torch_device)


def available_devices() -> list[str]:
    """List the devices of this machine, best first."""
    names = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    return [*names, "cpu"]


def resolve_device(request: str, types: Sequence[str] = ("cuda", "mps", "cpu")) -> Device:
    """Turn a request into a device that exists, of one of these types."""
    names = [name for name in available_devices() if name.partition(":")[0] in types]
    if request == "auto":
        reason = f"auto: the best of {', '.join(names)}"
        return Device(torch.device(names[0]), reason)
    wanted = "cuda:0" if request == "cuda" else request
    if wanted not in names:
        raise ParameterError(
            f"device={request!r} is not available here. Choose one of auto, {', '.join(names)}."
        )
    return Device(torch.device(wanted), "asked for")


def is_same_device(one: torch.device, other: torch.device) -> bool:
    """Compare devices; "mps" and "mps:0", which PyTorch calls different, are the same."""
    return (one.type, one.index or 0) == (other.type, other.index or 0)


def arithmetic_of(device: torch.device) -> dict[str, Any]:
    """List what decides how a device rounds, besides PyTorch's version and the threads."""
    backends: Any = torch.backends
    facts = {"deterministic": torch.are_deterministic_algorithms_enabled()}
    if device.type == "cuda":
        return {
            **facts,
            "hardware": torch.cuda.get_device_name(device),
            "precision": [backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision],
            "cudnn": [backends.cudnn.enabled, backends.cudnn.benchmark, torch.version.cuda],
        }
    # What an Apple GPU does not support, the processor may compute.
    names = [backends.mps.get_name()] if device.type == "mps" else []
    return {
        **facts,
        "hardware": " ".join([platform.machine(), backends.cpu.get_cpu_capability(), *names]),
        "precision": [backends.mkldnn.matmul.fp32_precision, backends.mkldnn.conv.fp32_precision],
        "mkldnn": backends.mkldnn.enabled,
    }


def free_cache(device: torch.device) -> None:
    """Release the memory that the device's allocator keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def reset_peak(device: torch.device) -> None:
    """Reset the peak of a device's memory."""
    free_cache(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_device_bytes(device: torch.device) -> int | None:
    """Highest memory that tensors took on a device since the process started, or `reset_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return torch.mps.driver_allocated_memory() if device.type == "mps" else None
