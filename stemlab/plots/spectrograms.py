"""Draw spectrograms of recordings and their differences, as `stemlab.spectra` measures them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.lines import Line2D
from matplotlib.ticker import AutoLocator, EngFormatter, FixedLocator, NullFormatter

from stemlab._checks import is_number
from stemlab.errors import ParameterError
from stemlab.plots._panels import (
    COLORS,
    Panels,
    name_bands,
    panels,
    share_time,
    short,
    show_plainly,
)
from stemlab.spectra import SpectralComparison, SpectralGrid, compare_spectra

# Round numbers at about equal distances on a mel scale.
_MEL_TICKS = (500, 1000, 2000, 4000, 8000, 16_000, 32_000)
# Longer names do not fit.
_LONGEST_NAME = 36
_SMALLEST_SPAN_DB = 3.0


def compare_spectrograms(
    signals: Mapping[str, npt.ArrayLike],
    sample_rate: int,
    *,
    reference: str | None = None,
    difference: bool = True,
    frequency_scale: str = "log",
    fft_samples: int = 2048,
    time_range_seconds: tuple[float, float] | None = None,
    frequency_range_hz: tuple[float, float] | None = None,
    max_db_range: float = 80.0,
    max_difference_db: float = 24.0,
    seams_seconds: npt.ArrayLike = (),
    axes: Axes | npt.ArrayLike | None = None,
) -> Panels:
    """Draw spectrograms one below the other, and beside each its difference from a reference.

    All levels are relative to the loudest cell of the loudest signal, so that the lanes can be
    compared.

    Parameters
    ----------
    signals : mapping of str to array, each shape (channels, samples) or (samples,)
        One or two channels. Names become titles. Lengths may differ.
    sample_rate : int, in Hz
        Of all of them.
    reference : str, optional
        The signal that the others are compared with. Default: the first.
    difference : bool, default True
        Whether to draw the second column; with a single signal there is none.
    frequency_scale : {"log", "linear", "mel"}, default "log"
    fft_samples : int, even, in [16, 65536], default 2048
        Length of a frame (46 ms at 44.1 kHz). Longer frames resolve frequencies better, shorter
        ones resolve time better.
    time_range_seconds : (float, float), optional
        Range to measure and show. Default: all of the longest signal.
    frequency_range_hz : (float, float), optional
        Range to show. Default: all frequencies.
    max_db_range : float, > 0, default 80
        Levels this far below the loudest, and lower ones, have the darkest colour. The differences
        treat them as equal.
    max_difference_db : float, > 0, default 24
        Differences of this size, and larger ones, have the strongest colours.
    seams_seconds : array of float, each >= 0, optional
        Times to mark by a thin line, for instance where segments meet. Those outside the time
        range are left out.
    axes : Axes or array of Axes, optional
        With the shape of the returned array. Default: axes of a new figure.

    Returns
    -------
    axes : ndarray of Axes, shape (signals, 2), or (signals,) without a second column
        The first column holds the spectrograms, the second the differences and, beside the
        reference, the differences of octave bands. The figure, ``axes.flat[0].figure``, also
        holds the colour bars.

    Raises
    ------
    ParameterError
        If there are no signals, `reference` is not one of them, `axes` has another shape, or an
        option is outside its range.
    AudioError
        If a signal is empty, not finite or has more than two channels.

    See Also
    --------
    draw_comparison : Draw measurements of `stemlab.spectra.compare_spectra`.
    stemlab.spectra.compare_spectra : The measurements, and how they are made.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).uniform(-1, 1, 8000)
    >>> axes = compare_spectrograms({"noise": noise, "quieter": noise / 2}, 8000)
    >>> axes.shape, axes[1, 0].get_title(loc="left"), axes[1, 0].collections[0].get_clim()
    ((2, 2), 'quieter', (-80.0, 0.0))
    >>> axes[1, 1].get_title(loc="left")
    'minus noise: log-spectral distance 6.0 dB'
    """
    grid = SpectralGrid(fft_samples, frequency_scale, time_range_seconds, frequency_range_hz)
    # Checked first, because measuring takes time.
    _check_options(max_db_range, max_difference_db, seams_seconds)
    comparison = compare_spectra(signals, sample_rate, reference=reference, grid=grid)
    return draw_comparison(
        comparison,
        difference=difference,
        max_db_range=max_db_range,
        max_difference_db=max_difference_db,
        seams_seconds=seams_seconds,
        axes=axes,
    )


def draw_comparison(
    comparison: SpectralComparison,
    *,
    difference: bool = True,
    max_db_range: float = 80.0,
    max_difference_db: float = 24.0,
    seams_seconds: npt.ArrayLike = (),
    axes: Axes | npt.ArrayLike | None = None,
) -> Panels:
    """Draw the measurements of `stemlab.spectra.compare_spectra`.

    Parameters
    ----------
    comparison : SpectralComparison
    difference : bool, default True
        As for `compare_spectrograms`.
    max_db_range, max_difference_db : float, > 0
        As for `compare_spectrograms`.
    seams_seconds : array of float, each >= 0, optional
        As for `compare_spectrograms`.
    axes : Axes or array of Axes, optional
        With the shape of the returned array. Default: axes of a new figure.

    Returns
    -------
    axes : ndarray of Axes, shape (signals, 2), or (signals,) without a second column
        As of `compare_spectrograms`.

    Raises
    ------
    ParameterError
        If `axes` has another shape, or an option is outside its range.

    Examples
    --------
    >>> import numpy as np
    >>> from stemlab.spectra import compare_spectra
    >>> measured = compare_spectra({"bass": np.sin(np.arange(8000) / 20)}, 8000)
    >>> draw_comparison(measured)[0].get_yscale()
    'log'
    """
    seams = _check_options(max_db_range, max_difference_db, seams_seconds)
    start, stop = float(comparison.seconds[0]), float(comparison.seconds[-1])
    seams = seams[(seams >= start) & (seams <= stop)]
    names = list(comparison.powers)
    columns = 2 if difference and len(names) > 1 else 1
    inches = (9, 0.6 + 1.6 * len(names)) if columns == 1 else (14, 0.6 + 2.0 * len(names))
    places = panels(
        axes, len(names), columns, inches=inches, sharex=columns == 1, sharey=columns == 1
    )
    levels = _levels(comparison, max_db_range)
    for lane, name in zip(places[:, 0], names, strict=True):
        # Lightness alone orders the levels: it reads the same in grey.
        limits = -max_db_range, 0.0
        mesh = _draw_lane(lane, comparison, levels[name], limits, "magma", seams)
        lane.set_ylabel("Frequency (Hz)")
        show_plainly(lane.set_title(short(name, _LONGEST_NAME), loc="left"))
    share_time(places[:, 0], start, stop)
    size = (
        {"pad": 0.01, "aspect": 10 * len(names)} if columns > 1 else {"pad": 0.02, "fraction": 0.05}
    )
    figure = places[0, 0].figure
    figure.colorbar(mesh, ax=list(places[:, 0]), label="Level (dB, loudest = 0)", **size)
    if columns == 1:
        return places[:, 0]
    others = [name for name in names if name != comparison.reference]
    lanes = np.array([places[names.index(name), 1] for name in others], object)
    for lane, name in zip(lanes, others, strict=True):
        minus = levels[name] - levels[comparison.reference]
        limits = (-max_difference_db, max_difference_db)
        mesh = _draw_lane(lane, comparison, minus, limits, "RdBu_r", seams)
        distance = comparison.log_spectral_distance_db[name]
        title = lane.set_title(
            f"minus {short(comparison.reference, _LONGEST_NAME)}: log-spectral distance "
            + ("–" if np.isnan(distance) else f"{distance:.1f} dB"),
            loc="left",
        )
        show_plainly(title)
    share_time(lanes, start, stop)
    # Inside the margin that the legend above or below needs anyway.
    bar = lanes[0].inset_axes((1.02, 0, 0.02, 1))
    figure.colorbar(mesh, cax=bar, label="Difference (dB)", extend="both")
    _draw_bands(places[names.index(comparison.reference), 1], comparison, others)
    if axes is None:
        _link(places[:, 0], lanes)
    return places


def _check_options(
    max_db_range: float, max_difference_db: float, seams_seconds: npt.ArrayLike
) -> npt.NDArray[np.float64]:
    for name, value, usual in (
        ("max_db_range", max_db_range, 80),
        ("max_difference_db", max_difference_db, 24),
    ):
        if not is_number(value) or not 0 < value < np.inf:
            raise ParameterError(
                f"{name}={value!r} is not above 0. Give a number of dB, for instance {usual}."
            )
    try:
        seams = np.asarray(seams_seconds, np.float64)
        fits = seams.ndim == 1 and bool(np.isfinite(seams).all() and (seams >= 0).all())
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ParameterError(
            f"seams_seconds={seams_seconds!r} is not a list of times. Pass numbers of seconds, "
            "each at least 0, such as the boundaries of a plan divided by its sample rate."
        )
    return seams


def _levels(
    comparison: SpectralComparison, max_db_range: float
) -> dict[str, npt.NDArray[np.floating[Any]]]:
    """Return levels in dB relative to the loudest cell of all, limited to the range."""
    loudest = max(float(power.max()) for power in comparison.powers.values()) or 1.0
    # Silence has a level, too, however wide the range is.
    floor = max(loudest * 10 ** (-max_db_range / 10), 1e-300)
    return {
        name: 10 * np.log10(np.maximum(power, np.float64(floor)) / loudest)
        for name, power in comparison.powers.items()
    }


def _draw_lane(
    lane: Axes,
    comparison: SpectralComparison,
    cells: npt.NDArray[np.floating[Any]],
    limits: tuple[float, float],
    colours: str,
    seams: npt.NDArray[np.float64],
) -> QuadMesh:
    mesh = lane.pcolormesh(
        comparison.seconds,
        comparison.hz,
        cells,
        vmin=limits[0],
        vmax=limits[1],
        cmap=colours,
        rasterized=True,
    )
    low, high = float(comparison.hz[0]), float(comparison.hz[-1])
    scale = comparison.grid.frequency_scale
    if scale == "mel":
        import librosa  # Takes a while to load.

        lane.set_yscale("function", functions=(librosa.hz_to_mel, librosa.mel_to_hz))
    else:
        lane.set_yscale(scale)
    lane.yaxis.set_major_formatter(EngFormatter(sep=""))
    if scale != "linear":
        ticks = _ticks(scale, low, high)
        lane.yaxis.set_major_locator(FixedLocator(ticks) if ticks else AutoLocator())
        lane.yaxis.set_minor_formatter(NullFormatter())
    lane.set_ylim(low, high)
    if seams.size:
        # In a colour that neither colour scale has, and above the edge, where nothing hides them.
        place = lane.get_xaxis_transform()
        lane.vlines(seams, 0, 1.03, "limegreen", transform=place, linewidth=0.8, clip_on=False)
    return mesh


def _ticks(scale: str, low: float, high: float) -> list[float]:
    """Return round frequencies within a range, or none if it is too narrow."""
    decades = [10.0**decade for decade in range(7)]
    finer = [digit * decade for decade in decades for digit in (1, 2, 5)]
    for ticks in (_MEL_TICKS if scale == "mel" else decades, finer):
        found = [tick for tick in ticks if low <= tick <= high]
        if len(found) >= 3:
            return found
    return []


def _draw_bands(panel: Axes, comparison: SpectralComparison, others: Sequence[str]) -> None:
    """Draw how the levels of octave bands differ from the reference's."""
    panel.axhline(0, color="0.5", lw=0.8)
    low, high = -_SMALLEST_SPAN_DB, _SMALLEST_SPAN_DB
    drawn = []
    # Markers tell lines apart without colour; the first one, a dot, would vanish in the line.
    styles = zip(cycle(COLORS), cycle(Line2D.filled_markers[1:]), strict=False)
    for name, (color, marker) in zip(others, styles, strict=False):
        differences = comparison.band_differences_db[name]
        drawn += panel.plot(
            comparison.band_hz, differences, color=color, marker=marker, markersize=4, linewidth=1.2
        )
        low = min(low, 1.1 * float(np.nanmin(differences, initial=0)))
        high = max(high, 1.1 * float(np.nanmax(differences, initial=0)))
    panel.set_xscale("log")
    name_bands(panel.xaxis, comparison.band_hz, first=1)
    panel.set(ylim=(low, high), xlabel="Octave band (Hz)", ylabel="Difference (dB)")
    panel.grid(axis="y", alpha=0.3)
    title = panel.set_title(
        f"octave bands, minus {short(comparison.reference, _LONGEST_NAME)}", loc="left"
    )
    legend = panel.legend(
        drawn,
        [short(name, 20) for name in others],
        # Beside the panel, where it hides no line.
        loc="upper left",
        bbox_to_anchor=(1.0, 1.05),
        fontsize="small",
        frameon=False,
    )
    show_plainly(title, *legend.get_texts())


def _link(levels: Panels, differences: Panels) -> None:
    """Make all lanes zoom together, with numbers on the outer axes only."""
    first = levels[0]
    for lane in [*levels[1:], *differences]:
        lane.sharex(first)
        lane.sharey(first)
    for column in (levels, differences):
        for lane in column[:-1]:
            lane.tick_params(labelbottom=False)
    for lane in differences:
        lane.tick_params(labelleft=False)
