"""Pictures of a sweep: a figure of every segment and overlap, as cells.

They read without colour: the number stands in each cell.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle

from stemlab.errors import ParameterError
from stemlab.metrics import FIGURES
from stemlab.plots._panels import Panels, panels, show_plainly
from stemlab.plots._sweep_rows import check_table, default_quality, done, failed, known, no_values


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
        The name of a figure, such as "rtf", "peak_memory_bytes", "wasted_share", "sdr_db",
        "agreement_db" or "seam_db": a key of `stemlab.metrics.FIGURES`.
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
    rows = _select(results, [known("column", column, FIGURES)], model, shifts, padded)
    figure = FIGURES[column]
    cells = _cells(rows, column, source)
    broken = set(rows[failed(rows)].set_index(["segment_seconds", "overlap"]).index)
    axes = panels(axes, 1, inches=_inches(rows))[0, 0]
    values = cells.to_numpy() / figure.scale
    image = _draw_cells(axes, values, brightest_is_highest=figure.more_is_better)
    colors = image.to_rgba(values)
    for y, segment in enumerate(cells.index):
        for x, overlap in enumerate(cells.columns):
            value = cells.loc[segment, overlap]
            text = "–" if np.isnan(value) else figure.number(value)
            color = _readable_on(colors[y, x])
            if (segment, overlap) in broken:
                text = "failed"
                axes.add_patch(
                    Rectangle((x - 0.5, y - 0.5), 1, 1, fill=False, hatch="//", edgecolor="0.75")
                )
            axes.text(x, y, text, ha="center", va="center", color=color, fontsize="small")
    axes.set_xticks(range(cells.shape[1]), labels=[f"{overlap:g}" for overlap in cells.columns])
    axes.set_yticks(range(cells.shape[0]), labels=[f"{segment:g}" for segment in cells.index])
    axes.set(xlabel="Overlap", ylabel="Segment (s)")
    whose = f"{source or 'mean of the sources'}\n" if figure.by_source else ""
    first = rows.iloc[0]
    padding = "padded" if first["padded"] else "not padded"
    title = f"{whose}{first['model']}, shifts {first['shifts']}, {padding}"
    show_plainly(axes.set_title(title, fontsize="medium"))
    axes.figure.colorbar(image, ax=axes).set_label(figure.title, fontsize="small")
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
) -> Panels:
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
    >>> [panel.images[0].colorbar.ax.get_ylabel() for panel in plot_sweep_heatmaps(table)]
    ['Processing time / duration (RTF)', 'SDR (dB)']
    """
    needed = [known("columns", name, FIGURES) for name in columns or []]
    rows = _select(results, needed, model, shifts, padded)
    if columns is None:
        shown = done(rows)
        wanted = ["rtf", "peak_memory_bytes", default_quality(shown), "seam_db"]
        columns = [name for name in wanted if name in shown.columns and shown[name].notna().any()]
    if not columns:
        raise ParameterError("columns is empty. Name at least one, such as 'rtf'.")
    wide, high = _inches(rows)
    inches = wide * len(columns), high
    places: Panels = panels(axes, 1, len(columns), inches=inches, things="columns")[0]
    for column, panel in zip(columns, places, strict=True):
        plot_sweep_heatmap(
            results, column, source=source, model=model, shifts=shifts, padded=padded, axes=panel
        )
    return places


def _select(
    results: pd.DataFrame,
    columns: Sequence[str],
    model: str | None,
    shifts: int | None,
    padded: bool | None,
) -> pd.DataFrame:
    """Rows of one model, number of shifts and padding, some of which did not fail."""
    check_table(results, columns)
    rows = results
    for name, value in {"model": model, "shifts": shifts, "padded": padded}.items():
        rows = _pick(rows, name, value)
    first = done(rows).iloc[0]
    for name in ("model", "shifts", "padded"):
        rows = rows[rows[name] == first[name]]
    return rows


def _pick(rows: pd.DataFrame, name: str, value: str | int | None) -> pd.DataFrame:
    """Rows with a value, which must be there; all of them for None."""
    there = rows[name].unique().tolist()
    if value is not None and value not in there:
        raise ParameterError(
            f"{name}={value!r} is not in results. Choose one of {', '.join(map(repr, there))}, or "
            "leave it out."
        )
    return rows if value is None else rows[rows[name] == value]


def _cells(rows: pd.DataFrame, column: str, source: str | None) -> pd.DataFrame:
    """Value of each segment (index) and overlap (columns), those that failed included."""
    shown = _pick(done(rows), "source", source)
    if shown[column].isna().all():
        raise no_values(column)
    cells = shown.groupby(["segment_seconds", "overlap"])[column].mean().unstack()
    return cells.reindex(
        index=sorted(rows["segment_seconds"].unique()), columns=sorted(rows["overlap"].unique())
    )


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


def _inches(rows: pd.DataFrame) -> tuple[float, float]:
    segments, overlaps = rows["segment_seconds"].nunique(), rows["overlap"].nunique()
    return max(3.6, 1.6 + 0.6 * overlaps), max(2.8, 1.4 + 0.4 * segments)
