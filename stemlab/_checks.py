"""Checks of arguments that modules of several layers make."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from stemlab.errors import ParameterError

__all__ = ["MOST_SECONDS", "check_seconds", "is_number", "is_whole", "plain"]

# Four months: longer than any recording, and at any sample rate a whole number of samples.
MOST_SECONDS = 10_000_000


def is_number(value: object) -> bool:
    """Tell whether a value is a real number of any kind, NumPy's too, NaN and infinity included."""
    real = isinstance(value, (int, float, Fraction, np.integer, np.floating))
    return real and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Tell whether a value is an integer of any kind, NumPy's too."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def plain(value: Any) -> Any:
    """Return a NumPy scalar as a number of Python's: the small types overflow when compared."""
    return value.item() if isinstance(value, np.generic) else value


def check_seconds(
    name: str, value: Any, *, above: bool, advice: str, most: float = MOST_SECONDS
) -> float | Fraction:
    """Return a time as a plain number, or refuse it; with `above`, 0 is refused, too."""
    number = plain(value)
    if not is_number(number) or not 0 <= number <= most or (above and not number):
        allowed = "above 0" if above else "of at least 0"
        raise ParameterError(
            f"{name}={value!r} is not a number of seconds {allowed} and at most {most:,}. {advice}"
        )
    return number if isinstance(number, Fraction) else float(number)
