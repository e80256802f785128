"""Pictures of a sweep: the quality of the settings against their processing time.

They read without colour: lines and points differ in shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullFormatter

from stemlab.errors import ParameterError
from stemlab.metrics import FIGURES, QUALITIES, pareto_front
from stemlab.metrics.figures import SETTING_COLUMNS, by_setting
from stemlab.plots._panels import COLORS, panels, show_plainly
from stemlab.plots._sweep_rows import check_table, default_quality, done, known, no_values

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES: tuple[Any, ...] = (
    *("-", "--", "-.", ":"),
    *((0, (7, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 3))),
)
# Infinite levels are drawn this far outside the finite ones.
_BEYOND_DB = 3.0
# Between the slanted names of two points, across and up together, in points.
_NAMES_APART = 16.0


def plot_sweep_pareto(
    results: pd.DataFrame,
    *,
    quality: str | None = None,
    axes: Axes | None = None,
    highlight: Mapping[str, Any] | None = None,
) -> Axes:
    """Draw every setting by its speed and quality, and join those that none beats.

    A setting is on the Pareto front if no other beats or equals it in time, quality and, if it was
    measured, memory; of equal ones, the first is. Those are named by segment and overlap, and where
    the settings differ in it by shifts and missing padding. The line joins those that none beats in
    time and quality alone.

    Parameters
    ----------
    results : DataFrame
        As a sweep returns it: one row per setting and source. Not modified. Settings that failed
        are not drawn.
    quality : str, optional
        One of `stemlab.metrics.QUALITIES`, such as "si_sdr_db"; the mean over the sources that have
        a value. Default: SDR where there is any, else agreement.
    axes : Axes, optional
        Default: those of a new figure.
    highlight : mapping, optional
        Of a setting to be marked as recommended: "model", "segment_seconds", "overlap", "shifts"
        and "padded", or as many of these as tell it from the others.

    Returns
    -------
    axes : Axes
        The better settings are above and to the left.

    Raises
    ------
    ParameterError
        If `results` is no such table, all settings failed or have no value, `quality` is another,
        or `highlight` is of no setting that is drawn.

    Notes
    -----
    Infinite quality is drawn 3 dB above the best finite one, on a dotted line named "inf".

    Examples
    --------
    >>> table = pd.DataFrame({
    ...     "model": "m", "segment_seconds": 4.0, "overlap": [0.0, 0.25, 0.5], "shifts": 0,
    ...     "padded": True, "source": "bass", "rtf": [0.1, 0.2, 0.3], "sdr_db": [4.0, 6.0, 5.0],
    ...     "error": ""})
    >>> [text.get_text() for text in plot_sweep_pareto(table).texts]
    ['4 s / 0', '4 s / 0.25']
    """
    rows, quality = _graded(results, quality)
    settings = by_setting(rows)
    seconds, levels = settings["rtf"].to_numpy(), settings[quality].to_numpy()
    marked = _matching(settings, highlight)
    names = _setting_names(settings)
    axes = _quality_axes(axes, f"{FIGURES[quality].title}, mean of the sources")
    heights = _finite_heights(axes, levels)
    for model, color, marker in zip(
        settings["model"].unique(), cycle(COLORS), cycle(_MARKERS), strict=False
    ):
        its = (settings["model"] == model).to_numpy()
        axes.plot(seconds[its], heights[its], marker, color=color, alpha=0.8, label=model)
    front = pareto_front(seconds, levels, settings.get("peak_memory_bytes"))
    joined = pareto_front(seconds, levels)
    axes.plot(seconds[joined], heights[joined], color="0.5", zorder=1, label="Pareto front")
    _name_points(axes, seconds[front], heights[front], [names[number] for number in front])
    if marked.any():
        axes.plot(
            seconds[marked],
            heights[marked],
            "o",
            markersize=12,
            fillstyle="none",
            color="black",
            label="recommended: " + ", ".join(names[number] for number in np.flatnonzero(marked)),
        )
    show_plainly(*axes.legend(loc="lower center", ncols=3, fontsize="small").get_texts())
    return axes


def plot_sdr_against_rtf(
    results: pd.DataFrame, *, quality: str | None = None, axes: Axes | None = None
) -> Axes:
    """Draw the quality of each source against the processing time of the settings.

    Parameters
    ----------
    results : DataFrame
        As a sweep returns it: one row per setting and source. Not modified. Settings that failed
        are not drawn.
    quality : str, optional
        One of `stemlab.metrics.QUALITIES`, such as "si_sdr_db". Default: SDR where
        there is any, else agreement.
    axes : Axes, optional
        Default: those of a new figure.

    Returns
    -------
    axes : Axes
        With one line for each source that has a value, in the order of the table.

    Raises
    ------
    ParameterError
        If `results` is no such table, all settings failed or have no value, or `quality` is
        another.

    Notes
    -----
    Infinite quality is drawn 3 dB above the best finite one, on a dotted line named "inf".

    Examples
    --------
    >>> table = pd.DataFrame({
    ...     "model": "m", "segment_seconds": [4.0, 8.0], "overlap": 0.25, "shifts": 0,
    ...     "padded": True, "source": "bass", "rtf": [0.2, 0.1], "sdr_db": [6.0, 5.0], "error": ""})
    >>> (line,) = plot_sdr_against_rtf(table).lines
    >>> line.get_label(), line.get_xdata().tolist()
    ('bass', [0.1, 0.2])
    """
    rows, quality = _graded(results, quality)
    rows = rows.sort_values("rtf", kind="stable")
    axes = _quality_axes(axes, FIGURES[quality].title)
    heights = _finite_heights(axes, rows[quality].to_numpy())
    sources = [name for name in results["source"].unique() if name in set(rows["source"])]
    for source, color, marker, line in zip(
        sources, cycle(COLORS), cycle(_MARKERS), cycle(_LINES), strict=False
    ):
        its = (rows["source"] == source).to_numpy()
        axes.plot(
            rows["rtf"].to_numpy()[its],
            heights[its],
            color=color,
            marker=marker,
            linestyle=line,
            label=source,
        )
    # Room for the legend, which hides points otherwise.
    axes.margins(y=0.12)
    legend = axes.legend(loc="lower center", ncols=6, handlelength=3.5, fontsize="small")
    show_plainly(*legend.get_texts())
    return axes


def _graded(results: pd.DataFrame, quality: str | None) -> tuple[pd.DataFrame, str]:
    """Rows with time and quality, and the column of the latter."""
    if quality is not None:
        known("quality", quality, QUALITIES)
    check_table(results, [])
    quality = quality or default_quality(done(results))
    check_table(results, [quality])
    rows = done(results).dropna(subset=["rtf", quality])
    if rows.empty:
        raise no_values(quality)
    return rows, quality


def _setting_names(settings: pd.DataFrame) -> list[str]:
    """Segment and overlap; shifts and missing padding only where the settings differ in them."""
    shifts, padded = (settings[name].nunique() > 1 for name in ("shifts", "padded"))
    return [
        f"{row['segment_seconds']:g} s / {row['overlap']:g}"
        + (f", shifts {row['shifts']}" if shifts and row["shifts"] else "")
        + (", not padded" if padded and not row["padded"] else "")
        for _, row in settings.iterrows()
    ]


def _name_points(
    axes: Axes,
    seconds: npt.NDArray[np.float64],
    heights: npt.NDArray[np.float64],
    names: Sequence[str],
) -> None:
    """Name the points of a front, the fastest first, up and to the left, where nothing else is."""
    longest = max(map(len, names))
    axes.margins(x=0.04 + 0.006 * longest, y=0.04 + 0.011 * longest)
    axes.autoscale_view()
    points = np.column_stack([seconds, heights])
    places = axes.transData.transform(points) * 72 / axes.figure.dpi
    free = -np.inf
    for (x, y), place, name in zip(points, places.sum(axis=1), names, strict=True):
        # The names are parallel, slanted lines: one that would meet the last is raised.
        raised = max(0.0, free - place)
        free = place + raised + _NAMES_APART
        axes.annotate(
            name,
            (x, y),
            xytext=(-5, 5 + raised),
            textcoords="offset points",
            ha="right",
            va="bottom",
            rotation=-45,
            rotation_mode="anchor",
            fontsize="small",
            arrowprops={"arrowstyle": "-", "color": "0.6", "relpos": (1, 0), "shrinkA": 0},
        )


def _matching(settings: pd.DataFrame, highlight: Mapping[str, Any] | None) -> npt.NDArray[np.bool_]:
    """Which settings `highlight` describes."""
    if highlight is None:
        return np.zeros(len(settings), np.bool_)
    unknown = [name for name in highlight if name not in SETTING_COLUMNS]
    if unknown:
        raise ParameterError(
            f"highlight has the key {unknown[0]!r}. Use only {', '.join(SETTING_COLUMNS)}."
        )
    matching = np.ones(len(settings), np.bool_)
    for name, value in highlight.items():
        matching &= (settings[name] == value).to_numpy()
    if not matching.any():
        raise ParameterError(
            f"highlight={dict(highlight)!r} is none of the settings drawn. Take one from a row of "
            "results that did not fail and has a quality."
        )
    return matching


def _quality_axes(given: Axes | None, label: str) -> Axes:
    axes: Axes = panels(given, 1, inches=(7.5, 5))[0, 0]
    axes.set(xscale="log", xlabel=FIGURES["rtf"].title, ylabel=label, axisbelow=True)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(color="0.9")
    return axes


def _finite_heights(axes: Axes, levels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Where levels are drawn: infinite ones outside the others, on a line that is named."""
    finite = levels[np.isfinite(levels)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    for infinity, height in ((-np.inf, low - _BEYOND_DB), (np.inf, high + _BEYOND_DB)):
        if (levels == infinity).any():
            axes.axhline(height, color="0.5", linestyle=":", linewidth=1, zorder=1)
            place = axes.get_yaxis_transform()
            style = {"ha": "right", "va": "bottom", "fontsize": "small"}
            axes.text(1, height, f"{infinity} ", style, transform=place)
    heights: npt.NDArray[np.float64] = np.clip(levels, low - _BEYOND_DB, high + _BEYOND_DB)
    return heights
