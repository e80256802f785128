"""The rows of a sweep that its pictures show, checked."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from stemlab.errors import ParameterError
from stemlab.metrics.figures import SETTING_COLUMNS


def known(name: str, value: str, allowed: Collection[str]) -> str:
    """Return the name of a figure, or refuse it."""
    if value not in allowed:
        raise ParameterError(f"{name}={value!r} is not known. Choose one of {', '.join(allowed)}.")
    return value


def check_table(results: pd.DataFrame, columns: Sequence[str]) -> None:
    """Refuse what is not the table of a sweep, or lacks a column."""
    if not isinstance(results, pd.DataFrame):
        raise ParameterError(
            f"results is of type {type(results).__name__}. Pass the DataFrame that a sweep returns."
        )
    for name in (*SETTING_COLUMNS, "source", "error", "rtf", *columns):
        if name not in results.columns:
            raise ParameterError(
                f"results has no column {name!r}; it has {', '.join(map(str, results.columns))}. "
                "Pass the DataFrame that a sweep returns."
            )
    if results.empty:
        raise ParameterError("results has no rows. Sweep at least one setting.")


def failed(rows: pd.DataFrame) -> pd.Series[bool]:
    """Tell which rows are of settings that failed."""
    # Read back by pandas alone, an empty text is NaN.
    return rows["error"].notna() & (rows["error"] != "")


def done(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the settings that did not fail."""
    found = rows[~failed(rows)]
    if found.empty:
        raise ParameterError(
            f"results has only settings that failed, the first with "
            f"{rows['error'].iloc[0]!r}. Choose or sweep others."
        )
    return found


def no_values(column: str) -> ParameterError:
    """Make the error for a figure that was not measured."""
    return ParameterError(
        f"results has no value of {column!r} for these settings. Measure it in the sweep, or show "
        "another."
    )


def default_quality(rows: pd.DataFrame) -> str:
    """Choose SDR where there is any, else agreement."""
    has_sdr = "sdr_db" in rows.columns and rows["sdr_db"].notna().any()
    return "sdr_db" if has_sdr else "agreement_db"
