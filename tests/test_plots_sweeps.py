"""Pictures of sweeps: what the Axes hold, not how they look."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from stemlab.errors import ParameterError
from stemlab.plots import (
    plot_sdr_against_rtf,
    plot_sweep_heatmap,
    plot_sweep_heatmaps,
    plot_sweep_pareto,
)
from stemlab.sweeps import COLUMNS, recommend

SETTING: dict[str, Any] = {"model": "mini", "overlap": 0.25, "shifts": 0, "padded": True}
PLOTS: list[Callable[..., Any]] = [
    lambda results, **options: plot_sweep_heatmap(results, "rtf", **options),
    plot_sweep_heatmaps,
    plot_sweep_pareto,
    plot_sdr_against_rtf,
]


def table(*settings: dict[str, Any]) -> pd.DataFrame:
    """Table of a sweep over two sources; a column given as a list has a value for each."""
    rows = []
    for each in settings:
        setting = {**SETTING, "error": "", **each}
        for number, source in enumerate(["bass", "vocals"] if not setting["error"] else [None]):
            values = {
                name: value[number] if isinstance(value, list) else value
                for name, value in setting.items()
            }
            rows.append({**values, "source": source})
    return pd.DataFrame(rows, columns=list(COLUMNS))


@pytest.fixture
def results() -> pd.DataFrame:
    """Segments of 8 and 4 s, overlaps of 0.5 and 0.25; the setting 4 s / 0.5 failed."""
    return table(
        {"segment_seconds": 8.0, "overlap": 0.5, "rtf": 0.4, "sdr_db": [6.0, 10.0], "seam_db": 0.0},
        {"segment_seconds": 8.0, "rtf": 0.2, "sdr_db": [5.0, 8.0], "seam_db": 1.0},
        {"segment_seconds": 4.0, "overlap": 0.5, "error": "out of memory", "calls": 9},
        {"segment_seconds": 4.0, "rtf": 0.3, "sdr_db": [2.0, np.nan], "seam_db": 2.0},
    )


def cells(axes: Any) -> list[list[str]]:
    """Texts of a heatmap, the shortest segment first."""
    places = {text.get_position(): text.get_text() for text in axes.texts}
    overlaps, segments = len(axes.get_xticks()), len(axes.get_yticks())
    return [[places[x, y] for x in range(overlaps)] for y in range(segments)]


def shown(axes: Any) -> Any:
    (image,) = axes.images
    return image.get_array()


def labels(axis: Any) -> list[str]:
    return [each.get_text() for each in axis.get_ticklabels()]


def line(axes: Any, label: str) -> Any:
    (found,) = (each for each in axes.lines if each.get_label() == label)
    return found


def legend(axes: Any) -> list[str]:
    return [text.get_text() for text in axes.get_legend().get_texts()]


# --- what all have in common


@pytest.mark.parametrize("plot", PLOTS)
def test_draws_into_given_axes_and_changes_nothing(plot: Any, results: pd.DataFrame) -> None:
    kept = results.copy(deep=True)
    axes = Figure().subplots(1, 3)
    drawn = plot(results, axes=axes if plot is plot_sweep_heatmaps else axes[0])
    assert np.atleast_1d(drawn)[0] is axes[0]
    assert axes[2].has_data() == (plot is plot_sweep_heatmaps)
    axes[0].figure.draw_without_rendering()
    pd.testing.assert_frame_equal(results, kept)


@pytest.mark.parametrize("plot", PLOTS)
def test_new_axes_have_a_figure(plot: Any, results: pd.DataFrame) -> None:
    figure = np.atleast_1d(plot(results))[0].figure
    assert isinstance(figure, Figure)
    figure.draw_without_rendering()


@pytest.mark.parametrize("plot", PLOTS)
def test_one_setting_can_be_drawn(plot: Any) -> None:
    axes = plot(table({"segment_seconds": 8.0, "rtf": 0.4, "sdr_db": 6.0}))
    np.atleast_1d(axes)[0].figure.draw_without_rendering()


@pytest.mark.parametrize("plot", PLOTS)
def test_a_table_that_pandas_read_back_is_the_same(
    plot: Any, results: pd.DataFrame, tmp_path: Any
) -> None:
    results[results["error"] == ""].to_csv(tmp_path / "results.csv")
    axes = plot(pd.read_csv(tmp_path / "results.csv"))
    assert "failed" not in {text.get_text() for text in np.atleast_1d(axes)[0].texts}


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda results: results.iloc[:0], "results has no rows"),
        (lambda results: results.drop(columns="rtf"), "results has no column 'rtf'"),
        (lambda results: results.to_dict(), "results is of type dict"),
        (
            lambda results: results[results["error"] != ""],
            "only settings that failed, the first with 'out of memory'. Choose",
        ),
    ],
)
def test_what_is_no_usable_table_is_refused(
    plot: Any, change: Any, message: str, results: pd.DataFrame
) -> None:
    with pytest.raises(ParameterError, match=message):
        plot(change(results))


@pytest.mark.parametrize("plot", PLOTS)
def test_wrong_axes_are_refused(plot: Any, results: pd.DataFrame) -> None:
    with pytest.raises(ParameterError, match="axes (is of type int|holds 1 objects for 3 columns)"):
        plot(results, axes=3)


# --- heatmaps


def test_heatmap_has_sorted_cells_of_one_size(results: pd.DataFrame) -> None:
    axes = plot_sweep_heatmap(results, "rtf")
    assert cells(axes) == [["0.3", "failed"], ["0.2", "0.4"]]
    np.testing.assert_array_equal(shown(axes).filled(-1), [[0.3, -1], [0.2, 0.4]])
    assert (labels(axes.xaxis), labels(axes.yaxis)) == (["0.25", "0.5"], ["4", "8"])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("Overlap", "Segment (s)")
    assert axes.get_xlim() == axes.get_ylim() == (-0.5, 1.5)
    (hatched,) = axes.patches
    assert hatched.get_xy() == (0.5, -0.5)
    assert hatched.get_hatch()


def test_heatmap_of_a_quality_is_the_mean_or_one_source(results: pd.DataFrame) -> None:
    mean = plot_sweep_heatmap(results, "sdr_db")
    assert cells(mean) == [["2.00", "failed"], ["6.50", "8.00"]]
    assert mean.get_title() == "mean of the sources\nmini, shifts 0, padded"
    vocals = plot_sweep_heatmap(results, "sdr_db", source="vocals")
    assert cells(vocals) == [["–", "failed"], ["8.00", "10.00"]]
    assert vocals.get_title() == "vocals\nmini, shifts 0, padded"
    # Costs are the same for all sources.
    cost = plot_sweep_heatmap(results, "rtf", source="vocals")
    assert cells(cost) == cells(plot_sweep_heatmap(results, "rtf"))


@pytest.mark.parametrize(
    ("column", "value", "text", "label"),
    [
        ("rtf", 0.12345, "0.123", "Processing time / duration (RTF)"),
        ("wall_seconds", 1234.56, "1234.6", "Processing time (s)"),
        ("peak_memory_bytes", 2.5e9, "2500", "Peak memory (MB)"),
        ("calls", 12, "12", "Network calls"),
        ("wasted_share", 0.254, "25", "Wasted share (%)"),
        ("si_sdr_gain_db", 3.456, "3.46", "SI-SDR gain (dB)"),
        ("seam_db", -0.01, "0.0", "Seams (dB)"),
        ("consistency_db", -30.0, "-30.0", "Mixture left over (dB)"),
    ],
)
def test_heatmap_has_name_and_unit(column: str, value: float, text: str, label: str) -> None:
    axes = plot_sweep_heatmap(table({"segment_seconds": 8.0, column: value}), column)
    assert cells(axes) == [[text]]
    assert axes.images[0].colorbar.ax.get_ylabel() == label


@pytest.mark.parametrize(
    ("column", "values", "texts"),
    [
        ("agreement_db", [20.0, np.inf, 30.0], ["20.0", "inf", "30.0"]),
        ("consistency_db", [-20.0, -np.inf, -30.0], ["-20.0", "-inf", "-30.0"]),
        ("agreement_db", [20.0, np.inf, 20.0], ["20.0", "inf", "20.0"]),
        ("agreement_db", [np.inf] * 3, ["inf"] * 3),
    ],
)
def test_heatmap_draws_infinite_as_the_best(
    column: str, values: list[float], texts: list[str]
) -> None:
    overlaps = [0.0, 0.25, 0.5]
    axes = plot_sweep_heatmap(
        table(
            *(
                {"segment_seconds": 8.0, "overlap": overlap, column: value}
                for overlap, value in zip(overlaps, values, strict=True)
            )
        ),
        column,
    )
    assert cells(axes) == [texts]
    (image,) = axes.images
    colors = image.to_rgba(image.get_array())[0]
    np.testing.assert_array_equal(colors[1], image.get_cmap()(0.0 if values[1] < 0 else 1.0))
    # The brightest.
    assert colors[1, :3].sum() == colors[:, :3].sum(axis=1).max()
    if np.isfinite(values[0]):
        assert colors[1, :3].sum() > colors[0, :3].sum()


@pytest.mark.parametrize("column", ["rtf", "sdr_db"])
def test_heatmap_is_brighter_where_better_and_its_texts_stand_out(column: str) -> None:
    levels = np.linspace(1, 2, 40)
    axes = plot_sweep_heatmap(
        table(*({"segment_seconds": each, column: each} for each in levels)), column
    )
    (image,) = axes.images
    colors = image.to_rgba(shown(axes))[:, 0, :3]
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    lightness = linear @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(lightness) * (1 if column == "sdr_db" else -1) >= 0).all()
    for text, light in zip(axes.texts, lightness, strict=True):
        written = {"black": 0.0, "white": 1.0}[text.get_color()]
        low, high = sorted([written, light])
        # What WCAG asks for.
        assert (high + 0.05) / (low + 0.05) > 4.5


def test_heatmap_selects_and_tells() -> None:
    results = table(
        {"segment_seconds": 8.0, "model": "broken", "error": "no such file"},
        {"segment_seconds": 8.0, "rtf": 0.1},
        {"segment_seconds": 8.0, "rtf": 0.2, "padded": False},
        {"segment_seconds": 8.0, "rtf": 0.3, "model": "large", "shifts": 2},
        {"segment_seconds": 8.0, "rtf": 0.4, "model": "large", "shifts": 1, "padded": False},
    )
    for options, text, title in (
        ({}, "0.1", "mini, shifts 0, padded"),
        ({"padded": False}, "0.2", "mini, shifts 0, not padded"),
        ({"model": "large"}, "0.3", "large, shifts 2, padded"),
        ({"shifts": 1}, "0.4", "large, shifts 1, not padded"),
    ):
        axes = plot_sweep_heatmap(results, "rtf", **options)
        assert (cells(axes), axes.get_title()) == ([[text]], title)
    for options, message in (
        ({"model": "huge"}, "model='huge' is not in results. Choose one of 'broken', 'mini', "),
        ({"model": "mini", "shifts": 2}, "shifts=2 is not in results. Choose one of 0, or"),
        ({"shifts": 2, "padded": False}, "padded=False is not in results. Choose one of True"),
        ({"model": "broken"}, "only settings that failed, the first with 'no such file'"),
        ({"source": "drums"}, "source='drums' is not in results. Choose one of 'bass', 'vocals'"),
    ):
        with pytest.raises(ParameterError, match=message):
            plot_sweep_heatmap(results, "rtf", **options)


def test_heatmap_refuses_other_columns(results: pd.DataFrame) -> None:
    with pytest.raises(ParameterError, match="column='device' is not known. Choose one of calls, "):
        plot_sweep_heatmap(results, "device")
    with pytest.raises(ParameterError, match="no value of 'peak_memory_bytes'"):
        plot_sweep_heatmap(results, "peak_memory_bytes")


def test_heatmaps_show_cost_quality_and_seams(results: pd.DataFrame) -> None:
    def bars(results: pd.DataFrame, **options: Any) -> list[str]:
        panels = plot_sweep_heatmaps(results, **options)
        assert panels.shape == (len(panels),)
        return [panel.images[0].colorbar.ax.get_ylabel() for panel in panels]

    time, memory = "Processing time / duration (RTF)", "Peak memory (MB)"
    assert bars(results) == [time, "SDR (dB)", "Seams (dB)"]
    measured = results.assign(peak_memory_bytes=1e9)
    assert bars(measured) == [time, memory, "SDR (dB)", "Seams (dB)"]
    agreement = measured.assign(sdr_db=np.nan, agreement_db=20.0, seam_db=np.nan)
    assert bars(agreement) == [time, memory, "Agreement (dB)"]
    assert bars(results, columns=["sdr_db", "rtf"]) == ["SDR (dB)", time]


def test_heatmaps_share_the_selection(results: pd.DataFrame) -> None:
    both = pd.concat([results, results.assign(model="large", rtf=0.9)])
    panels = plot_sweep_heatmaps(both, ["rtf", "sdr_db"], source="bass", model="large")
    assert cells(panels[0]) == [["0.9", "failed"], ["0.9", "0.9"]]
    assert cells(panels[1]) == [["2.00", "failed"], ["5.00", "6.00"]]
    assert panels[1].get_title() == "bass\nlarge, shifts 0, padded"


@pytest.mark.parametrize(
    ("columns", "message"),
    [([], "columns is empty"), (["rtf", "note"], "columns='note' is not known. Choose")],
)
def test_heatmaps_refuse_wrong_columns(
    columns: list[str], message: str, results: pd.DataFrame
) -> None:
    with pytest.raises(ParameterError, match=message):
        plot_sweep_heatmaps(results, columns)


# --- Pareto front


def front(axes: Any) -> tuple[list[float], list[float]]:
    x, y = line(axes, "Pareto front").get_data()
    return x.tolist(), y.tolist()


def test_pareto_joins_and_names_what_none_beats(results: pd.DataFrame) -> None:
    axes = plot_sweep_pareto(results)
    points = line(axes, "mini").get_xydata().tolist()
    assert points == [[0.4, 8.0], [0.2, 6.5], [0.3, 2.0]]
    assert front(axes) == ([0.2, 0.4], [6.5, 8.0])
    assert [text.get_text() for text in axes.texts] == ["8 s / 0.25", "8 s / 0.5"]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "Processing time / duration (RTF)"
    assert axes.get_ylabel() == "SDR (dB), mean of the sources"


@pytest.mark.parametrize(
    ("points", "on_front"),
    [
        ([(1, 1)], [(1, 1)]),
        ([(1, 1), (2, 1), (1, 0)], [(1, 1)]),
        ([(3, 3), (2, 2), (1, 1), (2.5, 1.5)], [(1, 1), (2, 2), (3, 3)]),
        # Equal settings do not beat each other; their point is joined once.
        ([(1, 1), (1, 1), (2, 2), (2, 2)], [(1, 1), (2, 2)]),
    ],
)
def test_pareto_front(points: list[tuple[float, float]], on_front: list[tuple[float, ...]]) -> None:
    settings = [
        {"segment_seconds": 4.0 + number, "rtf": rtf, "sdr_db": level}
        for number, (rtf, level) in enumerate(points)
    ]
    axes = plot_sweep_pareto(table(*settings))
    assert list(zip(*front(axes), strict=True)) == on_front
    assert len(axes.texts) == len(on_front)


def test_pareto_names_the_settings_that_the_sweep_recommends_from() -> None:
    """One front: memory counts where it was measured, and of equal settings the first is named."""
    settings = (
        {"segment_seconds": 8.0, "rtf": 0.1, "sdr_db": 6.0, "peak_memory_bytes": 9e8},
        {"segment_seconds": 9.0, "rtf": 0.1, "sdr_db": 6.0, "peak_memory_bytes": 9e8},
        {"segment_seconds": 4.0, "rtf": 0.2, "sdr_db": 5.0, "peak_memory_bytes": 5e8},
        {"segment_seconds": 2.0, "rtf": 0.3, "sdr_db": 4.0, "peak_memory_bytes": 6e8},
    )
    results = table(*settings)
    axes = plot_sweep_pareto(results)
    found = recommend(results).front
    assert [setting.segment_seconds for setting in found] == [8.0, 4.0]
    assert [text.get_text() for text in axes.texts] == ["8 s / 0.25", "4 s / 0.25"]
    assert front(axes) == ([0.1], [6.0])


def test_pareto_tells_models_and_settings_apart() -> None:
    settings = (
        {"segment_seconds": 8.0, "rtf": 0.1, "sdr_db": 4.0, "padded": False},
        {"segment_seconds": 8.0, "rtf": 0.2, "sdr_db": 5.0},
        {"segment_seconds": 8.0, "rtf": 0.5, "sdr_db": 7.0, "model": "large", "shifts": 2},
    )
    axes = plot_sweep_pareto(table(*settings))
    names = [text.get_text() for text in axes.texts]
    assert names == ["8 s / 0.25, not padded", "8 s / 0.25", "8 s / 0.25, shifts 2"]
    assert legend(axes) == ["mini", "large", "Pareto front"]
    mini, large = line(axes, "mini"), line(axes, "large")
    assert mini.get_marker() != large.get_marker()
    assert mini.get_color() != large.get_color()
    assert large.get_xydata().tolist() == [[0.5, 7.0]]


def test_pareto_names_do_not_meet() -> None:
    crowd = [
        {"segment_seconds": 8.0 + each, "rtf": 0.1 + each / 1000, "sdr_db": 5 + each / 1000}
        for each in range(6)
    ]
    axes = plot_sweep_pareto(table(*crowd, {"segment_seconds": 4.0, "rtf": 1.0, "sdr_db": 2.0}))
    axes.figure.draw_without_rendering()
    # How far up and to the right the slanted lines are, in pixels.
    starts = axes.transData.transform([text.xy for text in axes.texts])
    offsets = np.array([text.get_position() for text in axes.texts]) * axes.figure.dpi / 72
    apart = np.diff((starts + offsets).sum(axis=1)) / np.sqrt(2)
    assert len(apart) == 5
    assert (apart > axes.texts[0].get_fontsize() * axes.figure.dpi / 72).all()


def test_any_model_and_source_can_be_drawn(results: pd.DataFrame) -> None:
    odd = "5$ and 6$ \\frac\x1b[31m\u202e" + 100_000 * "a"
    results = results.replace({"mini": odd, "bass": odd})
    for plot in PLOTS:
        axes = np.ravel(plot(results))[0]
        axes.figure.draw_without_rendering()
        shown = [axes.get_title(), *(legend(axes) if axes.get_legend() else [])]
        assert all(line.isprintable() for text in shown for line in text.split("\n"))
        assert max(map(len, shown)) < 500
        assert any("5$ and 6$ \\frac" in text for text in shown)


@pytest.mark.parametrize(
    ("highlight", "marked", "name"),
    [
        ({**SETTING, "segment_seconds": 8.0}, [[0.2, 6.5]], "8 s / 0.25"),
        ({"segment_seconds": 4.0}, [[0.3, 2.0]], "4 s / 0.25"),
        ({"segment_seconds": 8.0}, [[0.4, 8.0], [0.2, 6.5]], "8 s / 0.5, 8 s / 0.25"),
    ],
)
def test_pareto_marks_the_recommended(
    highlight: Any, marked: Any, name: str, results: pd.DataFrame
) -> None:
    axes = plot_sweep_pareto(results, highlight=highlight)
    ring = line(axes, f"recommended: {name}")
    assert ring.get_xydata().tolist() == marked
    assert ring.get_fillstyle() == "none"
    assert legend(axes)[-1] == ring.get_label()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"highlight": {"rtf": 0.2}}, "highlight has the key 'rtf'. Use only model, segment"),
        ({"highlight": {"model": "large"}}, "highlight={'model': 'large'} is none of"),
        ({"highlight": {"segment_seconds": 4.0, "overlap": 0.5}}, "did not fail"),
        ({"quality": "seam_db"}, "quality='seam_db' is not known. Choose one of sdr_db, "),
        ({"quality": "si_sdr_db"}, "no value of 'si_sdr_db'"),
    ],
)
def test_pareto_refuses(options: Any, message: str, results: pd.DataFrame) -> None:
    with pytest.raises(ParameterError, match=message):
        plot_sweep_pareto(results, **options)


@pytest.mark.parametrize("plot", [plot_sweep_pareto, plot_sdr_against_rtf])
def test_quality_is_agreement_where_there_is_no_sdr(plot: Any, results: pd.DataFrame) -> None:
    axes = plot(results.assign(sdr_db=np.nan, agreement_db=20.0))
    assert axes.get_ylabel().startswith("Agreement (dB)")
    assert plot(results, quality="sdr_db").get_ylabel().startswith("SDR (dB)")
    with pytest.raises(ParameterError, match="results has no column 'agreement_db'"):
        plot(results.drop(columns=["sdr_db", "agreement_db"]))


def test_pareto_draws_infinite_quality_on_a_named_line() -> None:
    axes = plot_sweep_pareto(
        table(
            {"segment_seconds": 4.0, "rtf": 0.1, "sdr_db": 20.0},
            {"segment_seconds": 8.0, "rtf": 0.2, "sdr_db": [20.0, np.inf]},
            {"segment_seconds": 9.0, "rtf": 0.3, "sdr_db": np.inf},
        )
    )
    assert front(axes) == ([0.1, 0.2], [20, 23])
    (name,) = (text for text in axes.texts if text.get_text() == "inf ")
    assert name.get_position()[1] == 23
    assert axes.get_ylim()[1] > 23


# --- quality against time


def test_each_source_has_its_line_over_time(results: pd.DataFrame) -> None:
    axes = plot_sdr_against_rtf(results)
    assert line(axes, "bass").get_xydata().tolist() == [[0.2, 5.0], [0.3, 2.0], [0.4, 6.0]]
    assert line(axes, "vocals").get_xydata().tolist() == [[0.2, 8.0], [0.4, 10.0]]
    assert legend(axes) == ["bass", "vocals"]
    assert axes.get_xscale() == "log"
    assert axes.get_xlabel() == "Processing time / duration (RTF)"
    assert axes.get_ylabel() == "SDR (dB)"


def test_lines_differ_without_colour_too() -> None:
    sources = ["drums", "bass", "other", "vocals", "guitar", "piano"]
    results = pd.concat(
        [
            table({"segment_seconds": 8.0, "rtf": 0.1, "sdr_db": 5.0}).assign(source=each)
            for each in sources
        ]
    )
    axes = plot_sdr_against_rtf(results)
    assert legend(axes) == sources
    assert len({each.get_marker() for each in axes.lines}) == 6
    assert len({each.get_color() for each in axes.lines}) == 6
    # The others have patterns that matplotlib has no names for.
    assert len({each.get_linestyle() for each in axes.lines[:4]}) == 4


def test_infinite_levels_of_a_source_are_outside_the_others() -> None:
    axes = plot_sdr_against_rtf(
        table(
            {"segment_seconds": 4.0, "rtf": 0.1, "si_sdr_db": [5.0, -np.inf]},
            {"segment_seconds": 8.0, "rtf": 0.2, "si_sdr_db": [np.inf, 7.0]},
        ),
        quality="si_sdr_db",
    )
    assert line(axes, "bass").get_ydata().tolist() == [5, 10]
    assert line(axes, "vocals").get_ydata().tolist() == [2, 7]
    assert [text.get_text() for text in axes.texts] == ["-inf ", "inf "]
