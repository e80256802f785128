"""What a sweep over separation settings found: what each costs, and what it buys.

All of it reads without colour: numbers stand in the cells, and lines and points differ in shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from stemlab.errors import ParameterError
from stemlab.plots._panels import COLORS, show_plainly

__all__ = ["plot_sdr_against_rtf", "plot_sweep_heatmap", "plot_sweep_heatmaps", "plot_sweep_pareto"]

_SETTING = ["model", "segment_seconds", "overlap", "shifts", "padded"]


@dataclass(frozen=True)
class _Column:
    """How a column is shown. The z in a format drops the minus of a rounded zero."""

    label: str
    spec: str
    higher_is_better: bool = False
    by_source: bool = False
    unit: float = 1.0


_QUALITIES = {
    "sdr_db": _Column("SDR (dB)", "z.2f", True, True),
    "sdr_gain_db": _Column("SDR gain (dB)", "z.2f", True, True),
    "si_sdr_db": _Column("SI-SDR (dB)", "z.2f", True, True),
    "si_sdr_gain_db": _Column("SI-SDR gain (dB)", "z.2f", True, True),
    "agreement_db": _Column("Agreement (dB)", "z.1f", True, True),
}
_COLUMNS = {
    "rtf": _Column("Processing time / duration (RTF)", ".3g"),
    "wall_seconds": _Column("Processing time (s)", "z.1f"),
    "peak_memory_bytes": _Column("Peak memory (MB)", ".0f", unit=1e6),
    "calls": _Column("Calls of the network", ".0f"),
    "wasted_share": _Column("Wasted share (%)", ".0f", unit=0.01),
    **_QUALITIES,
    "seam_db": _Column("Seams (dB)", "z.1f", by_source=True),
    "consistency_db": _Column("Mixture left over (dB)", "z.1f"),
}

_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES: tuple[Any, ...] = (
    *("-", "--", "-.", ":"),
    *((0, (7, 1)), (0, (4, 1, 1, 1, 1, 1)), (0, (1, 3))),
)
# Infinite levels are drawn this far outside the finite ones.
_BEYOND_DB = 3.0
# Between the slanted names of two points, across and up together, in points.
_NAMES_APART = 16.0


def plot_sweep_heatmap(
    results: pd.DataFrame,
    column: str,
    *,
    source: str | None = None,
    model: str | None = None,
    shifts: int | None = None,
    padded: bool | None = None,
    axes: Axes | None = None,
) -> Axes:
    """Draw one result for every segment and overlap, brighter where it is better.

    The number stands in each cell. A setting that failed is hatched and says so; a dash stands
    where there is no such setting or no value.

    Parameters
    ----------
    results : DataFrame
        As a sweep returns it: one row per setting and source. Not modified.
    column : str
        One of "rtf", "wall_seconds", "peak_memory_bytes", "calls", "wasted_share", "sdr_db",
        "sdr_gain_db", "si_sdr_db", "si_sdr_gain_db", "agreement_db", "seam_db" and
        "consistency_db".
    source : str, optional
        Whose quality is shown. Default: the mean over the sources that have a value. Costs and
        consistency are the same for all.
    model, shifts, padded : str, int and bool, optional
        Which settings are shown. Default: those of the first row that did not fail. The title
        tells.
    axes : Axes, optional
        Default: those of a new figure.

    Returns
    -------
    axes : Axes
        Its figure, ``axes.figure``, also gets the colour bar.

    Raises
    ------
    ParameterError
        If `results` is no such table, all that it would show failed or has no value, `column` is
        another, or there is no such source, model, number of shifts or padding.

    Notes
    -----
    "Agreement" is SDR against a long-context run of the same model, "seams" how far the error
    stands out at segment boundaries, and "mixture left over" the level of what the sum of the stems
    leaves of the mixture, relative to it.

    Infinite values have the colour of their end of the scale. That is the best for an estimate
    without error, and for stems that leave nothing of the mixture.

    Examples
    --------
    >>> table = pd.DataFrame({
    ...     "model": "m", "segment_seconds": [4.0, 8.0], "overlap": 0.25, "shifts": 0,
    ...     "padded": True, "source": "bass", "rtf": [0.2, 0.1], "error": ""})
    >>> axes = plot_sweep_heatmap(table, "rtf")
    >>> axes.get_title(), [text.get_text() for text in axes.texts]
    ('m, shifts 0, padded', ['0.2', '0.1'])
    """
    rows = _select(results, [_known("column", column, _COLUMNS)], model, shifts, padded)
    style = _COLUMNS[column]
    cells = _cells(rows, column, source) / style.unit
    failed = rows[_failed(rows)].set_index(["segment_seconds", "overlap"]).index
    axes = _one_axes(axes, _heatmap_inches(rows))
    image = _draw_cells(axes, cells.to_numpy(), brightest_is_highest=style.higher_is_better)
    colors = image.to_rgba(cells.to_numpy())
    for y, segment in enumerate(cells.index):
        for x, overlap in enumerate(cells.columns):
            value = cells.to_numpy()[y, x]
            text = "–" if np.isnan(value) else f"{value:{style.spec}}"
            color = _readable_on(colors[y, x])
            if (segment, overlap) in failed:
                text = "failed"
                axes.add_patch(
                    Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="//", edgecolor="0.75")
                )
            axes.text(x, y, text, ha="center", va="center", color=color, fontsize="small")
    axes.set_xticks(range(cells.shape[1]), labels=[f"{each:g}" for each in cells.columns])
    axes.set_yticks(range(cells.shape[0]), labels=[f"{each:g}" for each in cells.index])
    axes.set_xlabel("Overlap")
    axes.set_ylabel("Segment (s)")
    whose = f"{source or 'mean of the sources'}\n" if style.by_source else ""
    show_plainly([axes.set_title(whose + _selection_name(rows), fontsize="medium")])
    axes.figure.colorbar(image, ax=axes).set_label(style.label, fontsize="small")
    return axes


def plot_sweep_heatmaps(
    results: pd.DataFrame,
    columns: Sequence[str] | None = None,
    *,
    source: str | None = None,
    model: str | None = None,
    shifts: int | None = None,
    padded: bool | None = None,
    axes: Axes | npt.ArrayLike | None = None,
) -> npt.NDArray[np.object_]:
    """Draw several results for every segment and overlap beside each other.

    Parameters
    ----------
    results : DataFrame
        As a sweep returns it: one row per setting and source. Not modified.
    columns : sequence of str, optional
        As for `plot_sweep_heatmap`. Default: RTF, peak memory, SDR or else agreement, and seams,
        as far as there are values of them.
    source, model, shifts, padded : str, str, int and bool, optional
        As for `plot_sweep_heatmap`.
    axes : Axes or array of Axes, optional
        One for each column. Default: those of a new figure.

    Returns
    -------
    axes : ndarray of Axes, shape (columns,)
        Their figure is ``axes[0].figure``.

    Raises
    ------
    ParameterError
        As `plot_sweep_heatmap`, or if there are no columns, or another number of axes than columns.

    See Also
    --------
    plot_sweep_heatmap : One of them, and what its cells show.

    Examples
    --------
    >>> table = pd.DataFrame({
    ...     "model": "m", "segment_seconds": [4.0, 8.0], "overlap": 0.25, "shifts": 0,
    ...     "padded": True, "source": "bass", "rtf": [0.2, 0.1], "sdr_db": 5.0, "error": ""})
    >>> [each.images[0].colorbar.ax.get_ylabel() for each in plot_sweep_heatmaps(table)]
    ['Processing time / duration (RTF)', 'SDR (dB)']
    """
    needed = [_known("columns", each, _COLUMNS) for each in columns or []]
    rows = _select(results, needed, model, shifts, padded)
    if columns is None:
        columns = _default_columns(rows)
    panels = _panels(axes, len(columns), _heatmap_inches(rows))
    for column, panel in zip(columns, panels, strict=True):
        plot_sweep_heatmap(
            results, column, source=source, model=model, shifts=shifts, padded=padded, axes=panel
        )
    return panels


def plot_sweep_pareto(
    results: pd.DataFrame,
    *,
    quality: str | None = None,
    axes: Axes | None = None,
    highlight: Mapping[str, Any] | None = None,
) -> Axes:
    """Draw every setting by its speed and quality, and join those that none beats.

    A setting is on the Pareto front if no other is at least as fast and at least as good, and
    better in one of the two. Those are named by segment and overlap, and where the settings differ
    in it by shifts and missing padding; of those at one point, the first is named.

    Parameters
    ----------
    results : DataFrame
        As a sweep returns it: one row per setting and source. Not modified. Settings that failed
        are not drawn.
    quality : str, optional
        One of "sdr_db", "sdr_gain_db", "si_sdr_db", "si_sdr_gain_db" and "agreement_db"; the mean
        over the sources that have a value. Default: SDR where there is any, else agreement.
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
    by_setting = rows.groupby(_SETTING, sort=False).agg({"rtf": "first", quality: "mean"})
    settings = by_setting.dropna().reset_index()
    seconds, levels = settings["rtf"].to_numpy(), settings[quality].to_numpy()
    marked = _matching(settings, highlight)
    names = _setting_names(settings)
    axes = _quality_axes(axes, f"{_COLUMNS[quality].label}, mean of the sources")
    heights = _finite_heights(axes, levels)
    for model, color, marker in zip(
        settings["model"].unique(), cycle(COLORS), cycle(_MARKERS), strict=False
    ):
        its = (settings["model"] == model).to_numpy()
        axes.plot(seconds[its], heights[its], marker, color=color, alpha=0.8, label=model)
    front = np.flatnonzero(_on_front(seconds, levels))
    # The fastest first. Two that are equally fast are on the front if they are equally good too.
    front = front[np.unique(seconds[front], return_index=True)[1]]
    axes.plot(seconds[front], heights[front], color="0.5", zorder=1, label="Pareto front")
    _name_points(axes, seconds[front], heights[front], [names[each] for each in front])
    if marked.any():
        axes.plot(
            seconds[marked],
            heights[marked],
            "o",
            markersize=12,
            fillstyle="none",
            color="black",
            label="recommended: " + ", ".join(names[each] for each in np.flatnonzero(marked)),
        )
    legend = axes.legend(loc="lower center", ncols=3, fontsize="small")
    show_plainly(legend.get_texts())
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
        One of "sdr_db", "sdr_gain_db", "si_sdr_db", "si_sdr_gain_db" and "agreement_db". Default:
        SDR where there is any, else agreement.
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
    axes = _quality_axes(axes, _COLUMNS[quality].label)
    heights = _finite_heights(axes, rows[quality].to_numpy())
    sources = [each for each in results["source"].unique() if each in set(rows["source"])]
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
    show_plainly(legend.get_texts())
    return axes


def _known(name: str, value: str, allowed: Mapping[str, _Column]) -> str:
    if value not in allowed:
        raise ParameterError(f"{name}={value!r} is not known. Choose one of {', '.join(allowed)}.")
    return value


def _failed(rows: pd.DataFrame) -> pd.Series[bool]:
    # Read back by pandas alone, an empty text is NaN.
    return rows["error"].notna() & (rows["error"] != "")


def _done(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows of the settings that did not fail."""
    done = rows[~_failed(rows)]
    if done.empty:
        raise ParameterError(
            f"results has only settings that failed, the first with "
            f"{rows['error'].iloc[0]!r}. Choose or sweep others."
        )
    return done


def _check_table(results: pd.DataFrame, columns: Sequence[str]) -> None:
    if not isinstance(results, pd.DataFrame):
        raise ParameterError(
            f"results is of type {type(results).__name__}. Pass the DataFrame that a sweep returns."
        )
    needed = [*_SETTING, "source", "error", "rtf", *columns]
    missing = [each for each in needed if each not in results.columns]
    if missing:
        raise ParameterError(
            f"results has no column {missing[0]!r}; it has {', '.join(map(str, results.columns))}. "
            "Pass the DataFrame that a sweep returns."
        )
    if results.empty:
        raise ParameterError("results has no rows. Sweep at least one setting.")


def _no_values(column: str) -> ParameterError:
    return ParameterError(
        f"results has no value of {column!r} for these settings. Measure it in the sweep, or show "
        "another."
    )


def _select(
    results: pd.DataFrame,
    columns: Sequence[str],
    model: str | None,
    shifts: int | None,
    padded: bool | None,
) -> pd.DataFrame:
    """Rows of one model, number of shifts and padding, some of which did not fail."""
    _check_table(results, columns)
    rows = results
    for name, value in {"model": model, "shifts": shifts, "padded": padded}.items():
        there = rows[name].unique().tolist()
        if value is not None and value not in there:
            raise ParameterError(
                f"{name}={value!r} is not in results. Choose one of "
                f"{', '.join(map(repr, there))}, or leave it out."
            )
        if value is not None:
            rows = rows[rows[name] == value]
    first = _done(rows).iloc[0]
    for name in ("model", "shifts", "padded"):
        rows = rows[rows[name] == first[name]]
    return rows


def _selection_name(rows: pd.DataFrame) -> str:
    first = rows.iloc[0]
    padding = "padded" if first["padded"] else "not padded"
    return f"{first['model']}, shifts {first['shifts']}, {padding}"


# --- heatmaps


def _cells(rows: pd.DataFrame, column: str, source: str | None) -> pd.DataFrame:
    """Value of each segment (index) and overlap (columns), those that failed included."""
    done = _done(rows)
    sources = done["source"].unique().tolist()
    if source is not None and source not in sources:
        raise ParameterError(
            f"source={source!r} is not in results. Choose one of {', '.join(map(repr, sources))}, "
            "or leave it out for their mean."
        )
    if source is not None:
        done = done[done["source"] == source]
    if done[column].isna().all():
        raise _no_values(column)
    segments, overlaps = _grid(rows)
    cells = done.groupby(["segment_seconds", "overlap"])[column].mean().unstack()
    return cells.reindex(index=segments, columns=overlaps)


def _grid(rows: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Segments and overlaps that occur, sorted."""
    return sorted(rows["segment_seconds"].unique()), sorted(rows["overlap"].unique())


def _default_columns(rows: pd.DataFrame) -> list[str]:
    done = _done(rows)
    wanted = ["rtf", "peak_memory_bytes", _default_quality(done), "seam_db"]
    return [each for each in wanted if each in done.columns and done[each].notna().any()]


def _draw_cells(
    axes: Axes, values: npt.NDArray[np.float64], *, brightest_is_highest: bool
) -> AxesImage:
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    if low == high:
        # Some width, so that a single value has the middle colour and an infinite one the end.
        low, high = low - 0.05 * (abs(low) or 1), high + 0.05 * (abs(high) or 1)
    # Lightness alone orders the values: it reads the same in grey and to the colour-blind.
    colors = colormaps["cividis" if brightest_is_highest else "cividis_r"]
    return axes.imshow(
        np.ma.masked_invalid(np.clip(values, low, high)),
        cmap=colors.with_extremes(bad="white"),
        vmin=low,
        vmax=high,
        origin="lower",
        aspect="auto",
    )


def _readable_on(color: npt.NDArray[np.float64]) -> str:
    # Relative luminance as in WCAG; at 0.18 black and white contrast alike.
    luminance = color[:3] ** 2.2 @ (0.2126, 0.7152, 0.0722)
    return "black" if luminance > 0.18 else "white"


def _heatmap_inches(rows: pd.DataFrame) -> tuple[float, float]:
    segments, overlaps = _grid(rows)
    return max(3.6, 1.6 + 0.6 * len(overlaps)), max(2.8, 1.4 + 0.4 * len(segments))


def _panels(
    axes: Axes | npt.ArrayLike | None, count: int, inches: tuple[float, float]
) -> npt.NDArray[np.object_]:
    if not count:
        raise ParameterError("columns is empty. Name at least one, such as 'rtf'.")
    if axes is None:
        figure = Figure(figsize=(inches[0] * count, inches[1]), layout="constrained")
        panels: npt.NDArray[np.object_] = figure.subplots(1, count, squeeze=False)[0]
        return panels
    panels = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
    if len(panels) != count or not all(isinstance(each, Axes) for each in panels):
        raise ParameterError(
            f"axes holds {len(panels)} objects for {count} columns. Pass one matplotlib Axes for "
            "each column, or leave axes out."
        )
    return panels


# --- quality against time


def _default_quality(done: pd.DataFrame) -> str:
    known = "sdr_db" in done.columns and done["sdr_db"].notna().any()
    return "sdr_db" if known else "agreement_db"


def _graded(results: pd.DataFrame, quality: str | None) -> tuple[pd.DataFrame, str]:
    """Rows with time and quality, and the column of the latter."""
    if quality is not None:
        _known("quality", quality, _QUALITIES)
    _check_table(results, [])
    quality = quality or _default_quality(_done(results))
    _check_table(results, [quality])
    rows = _done(results).dropna(subset=["rtf", quality])
    if rows.empty:
        raise _no_values(quality)
    return rows, quality


def _on_front(
    seconds: npt.NDArray[np.float64], levels: npt.NDArray[np.float64]
) -> npt.NDArray[np.bool_]:
    """Whether no other is at least as fast and at least as good, and better in one."""
    fast, good = seconds[:, None] <= seconds, levels[:, None] >= levels
    better = (seconds[:, None] < seconds) | (levels[:, None] > levels)
    beaten: npt.NDArray[np.bool_] = np.any(fast & good & better, axis=0)
    return ~beaten


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
    unknown = [each for each in highlight if each not in _SETTING]
    if unknown:
        raise ParameterError(
            f"highlight has the key {unknown[0]!r}. Use only {', '.join(_SETTING)}."
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


def _quality_axes(axes: Axes | None, label: str) -> Axes:
    axes = _one_axes(axes, (7.5, 5))
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(_COLUMNS["rtf"].label)
    axes.set_ylabel(label)
    axes.grid(color="0.9")
    axes.set_axisbelow(True)
    return axes


def _finite_heights(axes: Axes, levels: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Where levels are drawn: infinite ones outside the others, on a line that is named."""
    finite = levels[np.isfinite(levels)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 0.0)
    for infinity, height in ((-np.inf, low - _BEYOND_DB), (np.inf, high + _BEYOND_DB)):
        if (levels == infinity).any():
            axes.axhline(height, color="0.5", linestyle=":", linewidth=1, zorder=1)
            axes.text(
                *(1, height, f"{infinity} "),
                transform=axes.get_yaxis_transform(),
                ha="right",
                va="bottom",
                fontsize="small",
            )
    heights: npt.NDArray[np.float64] = np.clip(levels, low - _BEYOND_DB, high + _BEYOND_DB)
    return heights


def _one_axes(axes: Axes | None, inches: tuple[float, float]) -> Axes:
    if axes is None:
        return Figure(figsize=inches, layout="constrained").subplots()
    if not isinstance(axes, Axes):
        raise ParameterError(
            f"axes is of type {type(axes).__name__}. Pass one matplotlib Axes, or leave axes out."
        )
    return axes
