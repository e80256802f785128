"""Checks of arguments, used by modules of several layers."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from stemlab.errors import ParameterError

# Four months: longer than any recording, and at any sample rate a whole number of samples.
MOST_SECONDS = 10_000_000
RATE_RANGE_HZ = (1_000, 768_000)


def is_number(value: object) -> bool:
    """Tell whether a value is a real number of any kind, NumPy's too, NaN and infinity included."""
    real = isinstance(value, (int, float, Fraction, np.integer, np.floating))
    return real and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """Return a NumPy scalar as a Python number: the small NumPy types overflow when compared."""
    return value.item() if isinstance(value, np.generic) else value


def check_count(name: str, value: Any, low: int, high: int, advice: str = "") -> int:
    """Return a whole number as an int, or refuse it."""
    if not _is_whole(value) or not low <= int(value) <= high:
        message = f"{name}={value!r} is not a whole number in [{low}, {high}]. {advice}"
        raise ParameterError(message.rstrip())
    return int(value)


def check_rate(name: str, rate: Any) -> int:
    """Return a sample rate as an int, or refuse it."""
    low, high = RATE_RANGE_HZ
    if not _is_whole(rate) or not low <= rate <= high:
        raise ParameterError(
            f"{name}={rate!r} is not a sample rate. Pass a whole number of Hz in [{low}, {high}]."
        )
    return int(rate)


def check_seconds(
    name: str, value: Any, *, above: bool, advice: str, most: float = MOST_SECONDS
) -> float | Fraction:
    """Return a time as a plain number, or refuse it; with `above`, 0 is refused too."""
    number = plain(value)
    if not is_number(number) or not 0 <= number <= most or (above and not number):
        allowed = "above 0" if above else "of at least 0"
        raise ParameterError(
            f"{name}={value!r} is not a number of seconds {allowed} and at most {most:,}. {advice}"
        )
    return number if isinstance(number, Fraction) else float(number)
