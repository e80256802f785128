"""The figures of a sweep: what each is called, its unit, which way is better, and its format.

A setting has figures of its own, and some for each source. Tables, plots, panels and the command
line take all of this from here; so does the Pareto front.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

SETTING_COLUMNS = ("model", "segment_seconds", "overlap", "shifts", "padded")
"""Names of the columns that tell a setting from others."""


@dataclass(frozen=True)
class Figure:
    """What a figure is and how it is shown."""

    label: str
    unit: str  # "" for a plain number.
    spec: str  # Format of a number in that unit; a z drops the minus of a rounded zero.
    meaning: str
    heading: str = ""  # Of a narrow column; the label if empty.
    more_is_better: bool = False
    by_source: bool = False
    scale: float = 1.0  # What the table holds is divided by it to get the unit.

    @property
    def title(self) -> str:
        """The label with the unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def number(self, value: float) -> str:
        """Write a value without its unit."""
        return f"{value / self.scale:{self.spec}}"

    def text(self, value: float) -> str:
        """Write a value with its unit."""
        space = "" if self.unit in ("", "%") else " "
        return f"{self.number(value)}{space}{self.unit}"


def _quality(label: str, meaning: str, spec: str = "z.2f") -> Figure:
    return Figure(label, "dB", spec, meaning, more_is_better=True, by_source=True)


FIGURES: Mapping[str, Figure] = MappingProxyType(
    {
        "calls": Figure("Network calls", "", ".0f", "calls of the network", "calls"),
        "network_seconds": Figure(
            "Audio in a call", "s", ".3g", "audio that a call computes, padding included, in s"
        ),
        "wasted_share": Figure(
            "Wasted share",
            "%",
            ".0f",
            "share of what is computed that is padding, context or overlap, in [0, 1)",
            "waste",
            scale=0.01,
        ),
        "wall_seconds": Figure(
            "Processing time",
            "s",
            "z.1f",
            "processing time in s, model loaded and warm: median of the repeats; taken once more "
            "where it is three times what earlier settings suggest",
        ),
        "wall_seconds_min": Figure("Shortest processing time", "s", "z.1f", "its least"),
        "wall_seconds_max": Figure("Longest processing time", "s", "z.1f", "its most"),
        "repeats": Figure("Repeats", "", ".0f", "how often the setting was run"),
        "rtf": Figure(
            "Processing time / duration (RTF)",
            "",
            ".3g",
            "wall_seconds over the duration of the excerpt: lower is faster",
            "RTF",
        ),
        "peak_memory_bytes": Figure(
            "Peak memory",
            "MB",
            ".0f",
            "highest memory of that setting alone; empty if not asked for",
            "memory",
            scale=1e6,
        ),
        "sdr_db": _quality(
            "SDR", "SDR against the true stem, whole excerpt, in dB; empty if that is silent"
        ),
        "sdr_gain_db": _quality("SDR gain", "its gain over taking the mixture for the stem, in dB"),
        "si_sdr_db": _quality("SI-SDR", "scale-invariant SDR against the true stem, in dB"),
        "si_sdr_gain_db": _quality("SI-SDR gain", "its gain over the mixture, in dB"),
        "bss_sdr_db": _quality(
            "SDR of BSSEval", "SDR of BSSEval v4, median over frames of 1 s, in dB; if asked for"
        ),
        "bss_isr_db": _quality("ISR of BSSEval", "ISR of BSSEval v4, in dB"),
        "bss_sir_db": _quality(
            "SIR of BSSEval",
            "SIR of BSSEval v4, in dB; empty without the true stems of all sources",
        ),
        "bss_sar_db": _quality(
            "SAR of BSSEval",
            "SAR of BSSEval v4, in dB; empty without the true stems of all sources",
        ),
        "agreement_db": Figure(
            "Agreement",
            "dB",
            "z.1f",
            "SDR against a long-context run of the same model, in dB",
            "agreement",
            more_is_better=True,
            by_source=True,
        ),
        "seam_db": Figure(
            "Seams",
            "dB",
            "z.1f",
            "how far the error stands out at segment boundaries, mean, in dB: 0 is not",
            "seams",
            by_source=True,
        ),
        "seams": Figure("Segment boundaries", "", ".0f", "number of segment boundaries"),
        "worst_seam_db": Figure(
            "Worst seam", "dB", "z.1f", "the same at the worst boundary, in dB", by_source=True
        ),
        "worst_seam_seconds": Figure(
            "Place of the worst seam",
            "s",
            ".2f",
            "where that is, in s from the start of the excerpt",
            by_source=True,
        ),
        "consistency_db": Figure(
            "Mixture left over",
            "dB",
            "z.1f",
            "level of the mixture minus all stems, relative to the mixture, in dB",
        ),
    }
)
"""Figures of a setting by the name of their column, in the order of the table."""

QUALITIES = tuple(name for name, figure in FIGURES.items() if figure.more_is_better)
"""Names of the figures that grade a stem; more is better."""


def by_setting(results: pd.DataFrame) -> pd.DataFrame:
    """Return one row for each setting, with the mean of the figures of its sources."""
    means = {
        name: "mean" if name in FIGURES and FIGURES[name].by_source else "first"
        for name in results.columns
        if name not in SETTING_COLUMNS
    }
    return results.groupby([*SETTING_COLUMNS], sort=False).agg(means).reset_index()


def pareto_front(
    rtf: npt.ArrayLike, quality: npt.ArrayLike, memory: npt.ArrayLike | None = None
) -> list[int]:
    """List the settings that no other beats, the fastest first; of equal ones, the first.

    A setting beats another if it is at least as fast, as good and as small, and better in one of
    these. Memory counts if it is known of all settings.
    """
    columns = [np.asarray(rtf, np.float64), -np.asarray(quality, np.float64)]
    if memory is not None:
        columns.append(np.asarray(memory, np.float64))
        if np.isnan(columns[-1]).any():
            columns.pop()
    costs = np.column_stack(columns)
    front: list[int] = []
    # What beats or equals a setting comes before it in this order.
    for number in sorted(range(len(costs)), key=lambda number: (*costs[number], number)):
        if not any((costs[other] <= costs[number]).all() for other in front):
            front.append(number)
    return front
