"""Draw the report of a recording as one figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from stemlab.analysis import ACTIVE_RANGE_DB, SignalLevels, SongReport, StemReport
from stemlab.plots._panels import Panels, name_bands, panels
from stemlab.plots.spectrograms import draw_comparison

# Bands further than this below the strongest have no bar.
_BAND_RANGE_DB = 60.0
_LANE_INCHES = 1.5
_PLAYS, _PAUSES = "#0072B2", "0.75"


def plot_report(report: SongReport, *, axes: npt.ArrayLike | None = None) -> Panels:
    """Draw a report: spectrograms, octave bands and, with stems, their activity and energy.

    Parameters
    ----------
    report : SongReport
        As `stemlab.analyze` returns it; it contains the spectrograms.
    axes : array of Axes, optional
        With the shape of the returned array. Default: axes of a new figure.

    Returns
    -------
    axes : ndarray of Axes, shape (signals, 2) or, with stems, (signals + 1, 2)
        A row for the recording and for each stem, with the spectrogram and beside it the levels of
        the octave bands at the height of their frequencies. The last row shows the activity of
        each stem and its share of the energy. The figure is ``axes[0, 0].figure``.

    Raises
    ------
    ParameterError
        If `axes` has another shape.

    Notes
    -----
    Activity is the RMS level of each half second, from 20 dB below to 20 dB above the threshold
    (dotted) above which a stem counts as playing. The area is dark where it does.

    Examples
    --------
    >>> from stemlab.analysis import analyze
    >>> axes = plot_report(analyze(0.1 * np.sin(np.arange(8000) / 20), 8000))
    >>> axes.shape, axes[0, 1].get_title(loc="left")
    ((1, 2), 'octave bands')
    """
    signals = {
        name: report.levels if at == 0 else report.stems[name].levels
        for at, name in enumerate(report.spectra.powers)
    }
    rows = len(signals) + bool(report.stems)
    inches = (11, 1.2 + _LANE_INCHES * rows)
    places = panels(axes, rows, 2, inches=inches, width_ratios=(4, 1))
    lanes, bands = places[: len(signals), 0], places[: len(signals), 1]
    draw_comparison(report.spectra, difference=False, axes=lanes)
    for lane, text in zip(lanes, _captions(report), strict=True):
        lane.set_title(text, loc="right", fontsize="small")
        lane.set_xlim(0, report.duration_seconds)  # The last frame may end before the song.
    levels_db = [level for levels in signals.values() for level in levels.band_levels_db]
    strongest = _floats(levels_db).max(initial=-np.inf)
    # The end of the level axis: the next multiple of 10 dB.
    top = float(10 * np.ceil(strongest / 10)) if np.isfinite(strongest) else -100.0
    for panel, lane, levels in zip(bands, lanes, signals.values(), strict=True):
        _draw_bands(panel, report.band_hz, levels, top)
        panel.set_ylim(lane.get_ylim())
    bands[0].set_title("octave bands", loc="left")
    bands[-1].set_xlabel("Level (dB)")
    if report.stems:
        _draw_activity(places[-1, 0], report)
        _draw_shares(places[-1, 1], report.stems)
    if axes is None:
        _link(places, len(signals))
    return places


def _link(places: Panels, signals: int) -> None:
    """Share the time axis of the first column, and the level axis of the bands; label the last."""
    for lane in places[1:, 0]:
        lane.sharex(places[0, 0])
    for column, last in ((places[:, 0], len(places)), (places[:, 1], signals)):
        for panel in column[: last - 1]:
            panel.tick_params(labelbottom=False)
            panel.set_xlabel("")


def _captions(report: SongReport) -> list[str]:
    channels = {1: "mono", 2: "stereo"}[report.channels]
    tempo = "no tempo" if report.tempo_bpm is None else f"{report.tempo_bpm:.1f} bpm"
    whole = f"{report.duration_seconds:.1f} s, {channels}, {tempo}, {_loudness(report.levels)}"
    return [whole, *(_loudness(stem.levels) for stem in report.stems.values())]


def _loudness(levels: SignalLevels) -> str:
    lufs = "–" if levels.loudness_lufs is None else f"{levels.loudness_lufs:z.1f}"
    peak = "–" if levels.peak_dbfs is None else f"{levels.peak_dbfs:z.1f}"
    return f"{lufs} LUFS, peak {peak} dBFS".replace("-", "−")


def _floats(levels: Sequence[float | None]) -> npt.NDArray[np.float64]:
    """Return levels as numbers; silence has none, and becomes minus infinity."""
    return np.array([-np.inf if level is None else level for level in levels], np.float64)


def _draw_bands(panel: Axes, band_hz: Sequence[float], levels: SignalLevels, top: float) -> None:
    floor = top - _BAND_RANGE_DB
    centres = np.array(band_hz)
    found = np.maximum(_floats(levels.band_levels_db), floor)
    panel.set_yscale("log")
    panel.barh(
        centres / 2**0.5,
        found - floor,
        height=centres / 2**0.5,
        left=floor,
        align="edge",
        color=_PLAYS,
        edgecolor="white",
        linewidth=0.5,
    )
    name_bands(panel.yaxis, band_hz, first=0)
    panel.set_xlim(floor, top)
    panel.set_xticks(np.arange(floor, top + 1, 20))
    panel.grid(axis="x", alpha=0.3)


def _draw_activity(panel: Axes, report: SongReport) -> None:
    """Draw a lane for each stem, the first on top."""
    threshold = report.active_above_dbfs
    level = -np.inf if threshold is None else threshold
    ends = np.append(
        np.arange(len(report.levels.over_time_dbfs)) * report.step_seconds, report.duration_seconds
    )
    for lane, stem in enumerate(report.stems.values()):
        found = _floats(stem.levels.over_time_dbfs)
        heights = np.zeros(len(found))
        if threshold is not None:
            heights = np.clip((found - level) / (2 * ACTIVE_RANGE_DB) + 0.5, 0, 1)
        base = len(report.stems) - 1.0 - lane
        for shown, color in ((found > level, _PLAYS), (found <= level, _PAUSES)):
            tops = base + 0.9 * np.where(shown, heights, 0)
            panel.stairs(tops, ends, baseline=base, fill=True, color=color)
        panel.axhline(base + 0.45, color="black", lw=0.6, ls=":")
        panel.axhline(base, color="0.5", lw=0.6)
    panel.set_xlim(0, report.duration_seconds)
    panel.set_xlabel("Time (s)")
    panel.set_title(
        "activity: level of each half second, dark where it plays (share of the time)", loc="left"
    )
    names = [f"{name}, {stem.active_share:.0%}" for name, stem in report.stems.items()]
    _name_lanes(panel, names)


def _draw_shares(panel: Axes, stems: Mapping[str, StemReport]) -> None:
    shares = [stem.energy_share or 0.0 for stem in stems.values()]
    places = len(shares) - 1.0 - np.arange(len(shares))
    bars = panel.barh(places + 0.45, shares, height=0.7, color=_PLAYS)
    panel.bar_label(bars, [f"{share:.0%}" for share in shares], padding=3, fontsize="small")
    # Room for the number beside the longest bar.
    panel.set_xlim(0, 1.3 * (max(shares) or 1))
    panel.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    panel.set_title("share of energy", loc="left")
    _name_lanes(panel, list(stems))


def _name_lanes(panel: Axes, names: Sequence[str]) -> None:
    panel.set_ylim(0, len(names))
    panel.set_yticks(len(names) - 1 - np.arange(len(names)) + 0.45, labels=names)
    panel.tick_params(axis="y", length=0)
    for text in panel.get_yticklabels():
        text.set_parse_math(False)
