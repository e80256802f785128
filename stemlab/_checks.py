"""Checks of arguments that modules of several layers make."""

from __future__ import annotations

from fractions import Fraction
from typing import TypeGuard

import numpy as np

from stemlab.errors import ParameterError

__all__ = ["MOST_SECONDS", "check_seconds", "is_number"]

# Four months: longer than any recording, and at any sample rate a whole number of samples.
MOST_SECONDS = 10_000_000


def is_number(value: object) -> TypeGuard[int | float | Fraction]:
    """Tell whether a value is a real number of any kind, NumPy's too, NaN and infinity included."""
    real = isinstance(value, (int, float, Fraction, np.integer, np.floating))
    return real and not isinstance(value, bool)


def check_seconds(
    name: str, value: object, *, above: bool, advice: str, most: float = MOST_SECONDS
) -> float | Fraction:
    """Return a time as a plain number, or refuse it; 0 is allowed unless it has to be `above` it.

    Plain, because NumPy's small types overflow when they are multiplied by a sample rate.
    """
    if not is_number(value) or not 0 <= value <= most or (above and not value):
        allowed = "above 0" if above else "of at least 0"
        raise ParameterError(
            f"{name}={value!r} is not a number of seconds {allowed} and at most {most:,}. {advice}"
        )
    return value if isinstance(value, Fraction) else float(value)
