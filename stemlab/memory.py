"""Limits of memory: read one that was typed, and keep a separation within it."""

from __future__ import annotations

import re
from dataclasses import replace

from stemlab.cost import peak_bytes
from stemlab.errors import ParameterError
from stemlab.separation import AudioStemSeparator, SeparationSettings

_UNITS = {
    **{"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9},
    **{"kib": 2**10, "mib": 2**20, "gib": 2**30},
}
_MEMORY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


def parse_memory(limit: float | str) -> float:
    """Take an amount of memory.

    Examples
    --------
    >>> parse_memory("1.5 GB")
    1500000000.0
    """
    found = _MEMORY.fullmatch(str(limit))
    unit = found.group(2).lower() if found else "?"
    if isinstance(limit, bool) or found is None or unit not in _UNITS or not float(found.group(1)):
        raise ParameterError(
            f"memory_limit={limit!r} is no amount of memory. Pass for instance '2GB' or '900MB'."
        )
    return float(found.group(1)) * _UNITS[unit]


def fit_memory(
    separator: AudioStemSeparator, settings: SeparationSettings, limit_bytes: int
) -> int:
    """Find how many segments in one call fit into some memory; the output does not depend on it.

    Notes
    -----
    An estimate, from what was measured on the CPU: `CostModel.memory_error` tells how good it is.
    """
    if separator.device != "cpu":
        raise ParameterError(
            f"a memory limit is known to be kept on the CPU only, not on {separator.device}. "
            "Leave it out: where memory runs out, fewer segments are taken in one call."
        )

    for batch_size in range(separator.batch_size, 0, -1):
        if peak_bytes(separator, settings, batch_size) <= limit_bytes:
            return batch_size
    least = peak_bytes(separator, settings, 1)
    raise ParameterError(
        f"{separator.name} takes about {_gigabytes(least)} with these settings, more than the "
        f"limit of {_gigabytes(limit_bytes)}. {_advice(separator, settings, limit_bytes)}"
    )


def _advice(separator: AudioStemSeparator, settings: SeparationSettings, limit_bytes: int) -> str:
    """Name options that fit: the longest segment, and fewer shifts only if nothing else helps."""
    spec = separator.spec
    longest = settings.segment_seconds or spec.segment_seconds
    segments = [longest / 2**power for power in range(6)]
    choices = [
        replace(settings, segment_seconds=segment, pad_to_training_segment=False, shifts=shifts)
        for shifts in dict.fromkeys((settings.shifts, 0))
        for segment in segments
        if segment >= spec.min_segment_seconds
    ]
    peaks = [peak_bytes(separator, choice, 1) for choice in choices]
    for choice, peak in zip(choices, peaks, strict=True):
        if peak <= limit_bytes:
            options = f"--segment {choice.segment_seconds:.3g}" + " --no-pad" * spec.pads
            options += " --shifts 0" * (choice.shifts != settings.shifts)
            return f"{options} takes about {_gigabytes(peak)} and gives another output."
    return f"No setting fits; the least is about {_gigabytes(min(peaks))}."


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB"
