"""Pictures: what the Axes hold, not how they look."""

from __future__ import annotations

import functools
import subprocess
import sys
from typing import Any

import librosa
import numpy as np
import pytest
from matplotlib.figure import Figure

from stemlab.errors import AudioError, ParameterError
from stemlab.plots import compare_spectrograms, draw_comparison, plot_waveforms
from stemlab.spectra import SpectralGrid, compare_spectra

RATE = 8000
plot_spectrograms = functools.partial(compare_spectrograms, difference=False)
PLOTS = [
    pytest.param(plot_waveforms, id="waveforms"),
    pytest.param(plot_spectrograms, id="spectrograms"),
]


@pytest.fixture
def signals(rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    noise = rng.uniform(-0.5, 0.5, (2, RATE))
    return {"vocals": noise, "bass": 0.1 * noise[:, : RATE // 2], "drums": 0.5 * noise[0]}


def levels(lane: Any) -> Any:
    """Levels that a spectrogram shows, in dB, shape (rows, columns)."""
    return lane.collections[0].get_array()


def edges(lane: Any) -> tuple[Any, Any]:
    """Edges of the cells of a spectrogram, in seconds and in Hz."""
    corners = lane.collections[0].get_coordinates()
    return corners[0, :, 0], corners[:, 0, 1]


@pytest.mark.parametrize("plot", PLOTS)
def test_lanes_have_titles_units_and_one_time_axis(plot: Any, signals: Any) -> None:
    lanes = plot(signals, RATE)
    assert [lane.get_title(loc="left") for lane in lanes] == ["vocals", "bass", "drums"]
    assert {lane.get_xlim() for lane in lanes} == {(0, 1)}
    assert len({lane.get_ylim() for lane in lanes}) == 1
    assert [lane.get_xlabel() for lane in lanes] == ["", "", "Time (s)"]
    assert all(lane.get_ylabel() in {"Amplitude", "Frequency (Hz)"} for lane in lanes)
    assert isinstance(lanes[0].figure, Figure)


@pytest.mark.parametrize("plot", PLOTS)
def test_draws_into_given_axes(plot: Any, signals: Any) -> None:
    figure = Figure()
    axes = figure.subplots(3, 2)
    lanes = plot(signals, RATE, axes=axes[:, 1])
    assert list(lanes) == list(axes[:, 1])
    assert not any(lane.has_data() for lane in axes[:, 0])
    (single,) = plot({"bass": signals["bass"]}, RATE, axes=axes[0, 0])
    assert single is axes[0, 0]


@pytest.mark.parametrize("plot", PLOTS)
def test_changes_neither_signals_nor_pyplot(plot: Any, signals: Any) -> None:
    kept = {name: each.copy() for name, each in signals.items()}
    plot(signals, RATE)
    for name, each in signals.items():
        np.testing.assert_array_equal(each, kept[name])


def test_pyplot_is_never_loaded() -> None:
    code = "import sys, stemlab.plots; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize("samples", [1, 2, 511, 512, 513, 2047, 2049])
def test_any_length_can_be_drawn(plot: Any, samples: int, rng: np.random.Generator) -> None:
    (lane,) = plot({"x": rng.uniform(-1, 1, (1, samples))}, RATE)
    lane.figure.draw_without_rendering()
    assert lane.get_xlim() == (0, samples / RATE)


@pytest.mark.parametrize("plot", PLOTS)
def test_silence_can_be_drawn(plot: Any) -> None:
    (lane,) = plot({"x": np.zeros((2, 5000))}, RATE)
    lane.figure.draw_without_rendering()


@pytest.mark.parametrize("plot", PLOTS)
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (({}, RATE), {}, ParameterError, "signals is empty"),
        (({"x": np.ones(5)}, 0), {}, ParameterError, "sample_rate=0"),
        (({"x": np.ones(0)}, RATE), {}, AudioError, r"signals\['x'\]"),
        (({"x": np.array([np.nan])}, RATE), {}, AudioError, r"signals\['x'\]"),
        (
            ({"x": np.ones(5)}, RATE),
            {"axes": Figure().subplots(2)},
            ParameterError,
            "axes holds 2 objects for 1 signals",
        ),
        (({"x": np.ones(5)}, RATE), {"axes": [3]}, ParameterError, "axes holds 1 objects"),
    ],
)
def test_wrong_arguments_are_refused(
    plot: Any, arguments: Any, options: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        plot(*arguments, **options)


# --- waveforms


def test_waveforms_share_the_amplitude_of_the_loudest() -> None:
    lanes = plot_waveforms({"loud": np.array([0.0, -0.8]), "quiet": np.array([0.1, 0.0])}, RATE)
    assert lanes[0].get_ylim() == lanes[1].get_ylim() == pytest.approx((-0.84, 0.84))


def test_one_loud_sample_of_an_hour_stays_visible() -> None:
    samples = 3600 * 1000
    signal = np.zeros((2, samples), np.float32)
    signal[1, 1_234_567] = -0.9
    (lane,) = plot_waveforms({"x": signal}, 1000)
    (outline,) = lane.collections
    vertices = outline.get_paths()[0].vertices
    assert len(vertices) < 5000
    lowest = vertices[vertices[:, 1].argmin()]
    assert lowest[1] == pytest.approx(-0.9)
    assert lowest[0] == pytest.approx(1234.567, abs=3)
    assert vertices[:, 1].max() == 0
    assert vertices[:, 0].max() == 3600


def test_a_short_waveform_keeps_every_sample() -> None:
    signal = np.array([0.1, -0.2, 0.3], np.float32)
    (lane,) = plot_waveforms({"x": signal}, RATE)
    vertices = lane.collections[0].get_paths()[0].vertices
    for position, value in enumerate(signal):
        assert any(np.allclose(each, (position / RATE, value)) for each in vertices)


# --- spectrograms


def test_spectrogram_agrees_with_librosa(rng: np.random.Generator) -> None:
    signal = rng.uniform(-1, 1, (2, 9000)).astype(np.float32)
    lanes = plot_spectrograms(
        {"x": signal}, RATE, fft_samples=256, frequency_scale="linear", max_db_range=200
    )
    spectrum = librosa.stft(signal, n_fft=256, hop_length=64, center=True, pad_mode="constant")
    power = (np.abs(spectrum) ** 2).mean(axis=0)
    # These two stand for themselves, all others for a negative frequency too.
    power[[0, -1]] /= 2
    expected = 10 * np.log10(power / power.max())
    assert levels(lanes[0]).shape == expected.shape
    np.testing.assert_allclose(levels(lanes[0]), expected, atol=0.02)


@pytest.mark.parametrize("scale", ["log", "linear", "mel"])
@pytest.mark.parametrize("seconds", [1.0, 40.0])
def test_a_tone_is_where_it_belongs(scale: str, seconds: float) -> None:
    start = round(0.5 * seconds * RATE)
    signal = np.zeros(round(seconds * RATE), np.float32)
    signal[start:] = np.sin(2 * np.pi * 1000 * np.arange(signal.size - start) / RATE)
    (lane,) = plot_spectrograms({"x": signal}, RATE, frequency_scale=scale, fft_samples=1024)
    assert lane.get_yscale() == {"mel": "function"}.get(scale, scale)
    times, frequencies = edges(lane)
    row, column = np.unravel_index(levels(lane).argmax(), levels(lane).shape)
    assert frequencies[row] <= 1000 <= frequencies[row + 1]
    assert frequencies[row + 1] - frequencies[row] < 50
    assert times[column + 1] > 0.5 * seconds
    silent = times[1:] < 0.5 * seconds - 1024 / RATE
    assert silent.any()
    np.testing.assert_allclose(levels(lane)[:, silent], -80, atol=1e-3)
    assert times[[0, -1]].tolist() == [0, seconds]
    assert frequencies[-1] == pytest.approx(RATE / 2)


def test_lanes_share_reference_and_colours(signals: Any) -> None:
    lanes = plot_spectrograms(signals, RATE, max_db_range=60)
    assert [lane.collections[0].get_clim() for lane in lanes] == [(-60, 0)] * 3
    assert len({lane.collections[0].get_cmap().name for lane in lanes}) == 1
    vocals, bass, drums = (levels(lane).max() for lane in lanes)
    assert vocals == pytest.approx(0, abs=1e-4)
    assert drums < -3
    assert bass == pytest.approx(-20, abs=2)
    (bar,) = set(lanes[0].figure.axes) - set(lanes)
    assert bar.get_ylabel() == "Level (dB, loudest = 0)"


def test_long_recordings_are_reduced_to_a_screen_and_keep_their_power() -> None:
    """A cell holds a mean: a click is as far below its frame as the cell has more frames."""
    signal = np.zeros(RATE * 1200, np.float32)
    signal[7_654_321] = 1.0
    (lane,) = plot_spectrograms(
        {"x": signal}, RATE, fft_samples=256, frequency_scale="linear", max_db_range=200
    )
    assert max(levels(lane).shape) <= 1200
    times, _ = edges(lane)
    loud = levels(lane).max(axis=0).argmax()
    assert times[loud] - 0.02 <= 7_654_321 / RATE <= times[loud + 1] + 0.02
    # A click has all frequencies alike; the rest is silent. Frames of 4 hops hold it.
    np.testing.assert_allclose(levels(lane)[1:-1, loud], 0, atol=0.01)
    assert np.delete(levels(lane), [loud - 1, loud, loud + 1], axis=1).max() == -200
    power = compare_spectra(
        {"x": signal}, RATE, grid=SpectralGrid(fft_samples=256, frequency_scale="linear")
    ).powers["x"]
    frames = (1 + signal.size // 64) / 1200
    one_frame = compare_spectra(
        {"x": signal[7_650_000:7_660_000]},
        RATE,
        grid=SpectralGrid(fft_samples=256, frequency_scale="linear"),
    ).powers["x"]
    assert power[10].sum() * frames == pytest.approx(one_frame[10].sum(), rel=0.01)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max_db_range", 0, "max_db_range=0 is not above 0.*dB"),
        ("max_db_range", float("nan"), "max_db_range=nan"),
        ("max_db_range", True, "max_db_range=True"),
        ("max_difference_db", -3, "max_difference_db=-3 is not above 0"),
        ("max_difference_db", "24", "max_difference_db='24'"),
        ("frequency_scale", "bark", "frequency_scale='bark'.*log, linear, mel"),
        ("fft_samples", 15, "fft_samples=15"),
        ("fft_samples", 1025, "fft_samples=1025"),
        ("fft_samples", 2048.0, "fft_samples=2048.0"),
        ("reference", "y", "reference='y'.*one of x"),
        ("time_range_seconds", (2, 1), r"time_range_seconds=\(2, 1\)"),
        ("frequency_range_hz", (5, 6), r"frequency_range_hz=\(5.0, 6.0\)"),
        ("seams_seconds", [1.0, -1.0], r"seams_seconds=\[1.0, -1.0\].*at least 0"),
        ("seams_seconds", [float("inf")], r"seams_seconds=\[inf\]"),
        ("seams_seconds", 3, "seams_seconds=3"),
        ("seams_seconds", ["a"], "seams_seconds=\\['a'\\]"),
    ],
)
def test_wrong_options_are_refused(option: str, value: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        compare_spectrograms({"x": np.ones(5)}, RATE, **{option: value})


# --- differences


def test_differences_stand_beside_the_lanes(signals: Any) -> None:
    axes = compare_spectrograms(signals, RATE, reference="bass", max_difference_db=12)
    assert axes.shape == (3, 2)
    measured = compare_spectra(signals, RATE, reference="bass")
    assert [each.get_title(loc="left") for each in axes[:, 0]] == ["vocals", "bass", "drums"]
    for row, name in ((0, "vocals"), (2, "drums")):
        lane, beside = axes[row]
        distance = measured.log_spectral_distance_db[name]
        assert beside.get_title(loc="left") == (
            f"minus bass: log-spectral distance {distance:.1f} dB"
        )
        assert beside.collections[0].get_clim() == (-12, 12)
        assert beside.collections[0].get_cmap().name == "RdBu_r"
        np.testing.assert_allclose(levels(beside), levels(lane) - levels(axes[1, 0]), atol=1e-4)
        np.testing.assert_array_equal(edges(beside)[0], edges(lane)[0])
        np.testing.assert_array_equal(edges(beside)[1], edges(lane)[1])
        assert beside.get_xlim() == lane.get_xlim()
        assert beside.get_ylim() == lane.get_ylim()
    assert {each.collections[0].get_clim() for each in axes[:, 0]} == {(-80, 0)}
    assert axes[2, 0].get_xlabel() == axes[2, 1].get_xlabel() == "Time (s)"
    axes[0, 0].figure.draw_without_rendering()


def test_octave_bands_stand_beside_the_reference(signals: Any) -> None:
    axes = compare_spectrograms(signals, RATE)
    measured = compare_spectra(signals, RATE)
    bands = axes[0, 1]
    assert bands.get_title(loc="left") == "octave bands, minus vocals"
    lines = [line for line in bands.lines if len(line.get_xdata()) == len(measured.band_hz)]
    for line, name in zip(lines, ("bass", "drums"), strict=True):
        np.testing.assert_array_equal(line.get_xdata(), measured.band_hz)
        np.testing.assert_array_equal(line.get_ydata(), measured.band_differences_db[name])
    assert [text.get_text() for text in bands.get_legend().get_texts()] == ["bass", "drums"]
    named = [text.get_text() for text in bands.get_xticklabels()]
    assert named == ["", "63", "", "250", "", "1k", "", "4k"]
    low, high = bands.get_ylim()
    assert low < min(measured.band_differences_db["bass"])
    assert high >= 3


def test_silence_does_not_differ_from_silence() -> None:
    """Nor does what is below the range: only what can be seen is compared."""
    noise = np.random.default_rng(0).uniform(-1, 1, RATE)
    axes = compare_spectrograms(
        {"a": noise, "b": 1e-4 * noise, "c": 0 * noise}, RATE, reference="b", max_db_range=40
    )
    np.testing.assert_array_equal(levels(axes[2, 1]), 0)
    axes = compare_spectrograms({"a": noise, "b": noise}, RATE)
    np.testing.assert_array_equal(levels(axes[1, 1]), 0)
    silent = compare_spectrograms({"a": np.zeros(5000), "b": np.zeros(5000)}, RATE)
    np.testing.assert_array_equal(levels(silent[1, 1]), 0)
    assert silent[1, 1].get_title(loc="left").endswith("distance 0.0 dB")
    silent[0, 0].figure.draw_without_rendering()
    wide = compare_spectrograms({"a": noise, "b": 0 * noise}, RATE, max_db_range=5000)
    assert np.isfinite(levels(wide[1, 1])).all()


def test_half_the_level_is_6_db_everywhere() -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, RATE)
    axes = compare_spectrograms({"a": noise, "b": noise / 2}, RATE, max_db_range=150)
    np.testing.assert_allclose(levels(axes[1, 1]), -6.02, atol=0.01)


def test_no_common_time_has_no_distance() -> None:
    signals = {"a": np.ones(RATE), "b": np.ones(3 * RATE)}
    axes = compare_spectrograms(signals, RATE, time_range_seconds=(2, 3))
    assert axes[1, 1].get_title(loc="left").endswith("log-spectral distance –")
    axes[0, 0].figure.draw_without_rendering()


def test_one_signal_has_no_second_column(signals: Any) -> None:
    assert compare_spectrograms({"vocals": signals["vocals"]}, RATE).shape == (1,)
    assert compare_spectrograms(signals, RATE, difference=False).shape == (3,)


def test_measured_once_drawn_twice(signals: Any) -> None:
    measured = compare_spectra(signals, RATE, grid=SpectralGrid(fft_samples=512))
    expected = compare_spectrograms(signals, RATE, fft_samples=512)
    axes = draw_comparison(measured)
    for ours, theirs in zip(axes[:, 0], expected[:, 0], strict=True):
        np.testing.assert_array_equal(levels(ours), levels(theirs))
    assert draw_comparison(measured, difference=False).shape == (3,)


def test_comparison_is_drawn_into_given_axes(signals: Any) -> None:
    given = Figure().subplots(3, 3)
    axes = compare_spectrograms(signals, RATE, axes=given[:, 1:])
    np.testing.assert_array_equal(axes, given[:, 1:])
    assert not any(each.has_data() for each in given[:, 0])
    for wrong in (given, given[:2, :2], given[:, 0], given[0, 0], np.full((3, 2), 1)):
        with pytest.raises(ParameterError, match=r"for 3 signals. Pass .* of shape \(3, 2\)"):
            compare_spectrograms(signals, RATE, axes=wrong)


def test_seams_are_marked_in_every_lane(signals: Any) -> None:
    axes = compare_spectrograms(
        signals, RATE, seams_seconds=[0.1, 0.3, 0.5, 0.99, 7], time_range_seconds=(0.2, 0.8)
    )
    for lane in [*axes[:, 0], *axes[1:, 1]]:
        _, seams = lane.collections
        found = [path.vertices[:, 0].tolist() for path in seams.get_paths()]
        assert found == [[0.3, 0.3], [0.5, 0.5]]
        assert lane.get_xlim() == pytest.approx((0.2, 0.8), abs=2048 / 4 / RATE)
    assert len(axes[0, 1].collections) == 0
    assert len(compare_spectrograms(signals, RATE)[0, 0].collections) == 1


@pytest.mark.parametrize("scale", ["log", "linear", "mel"])
def test_the_frequency_range_is_what_is_shown(scale: str, signals: Any) -> None:
    axes = compare_spectrograms(
        signals, RATE, frequency_scale=scale, frequency_range_hz=(200, 1000), fft_samples=1024
    )
    lane = axes[0, 0]
    assert lane.get_ylim() == pytest.approx((200, 1000), abs=RATE / 1024)
    ticks = [each for each in lane.get_yticks() if 200 <= each <= 1000]
    assert len(ticks) >= 3
    lane.figure.draw_without_rendering()


def test_mel_axis_is_librosas(signals: Any) -> None:
    lane = compare_spectrograms(signals, RATE, frequency_scale="mel")[0, 0]
    hz = np.array([100.0, 1000.0, 3500.0])
    heights = lane.yaxis.get_transform().transform(hz)
    np.testing.assert_allclose(heights, librosa.hz_to_mel(hz))


def test_control_characters_of_a_name_are_not_drawn() -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, RATE)
    odd = {"a": noise, "5$ \\frac$\x1b[31m\u202e": noise}
    for axes in (compare_spectrograms(odd, RATE), plot_waveforms(odd, RATE)):
        axes.ravel()[0].figure.draw_without_rendering()
        titles = [lane.get_title(loc="left") for lane in axes.ravel()]
        assert all(title.isprintable() for title in titles)
        assert any("5$ \\frac$\\x1b[31m" in title for title in titles)


def test_any_name_can_be_drawn() -> None:
    noise = np.random.default_rng(0).uniform(-1, 1, RATE)
    names = ["_hidden", "5$ and 6$ \\frac", "a" * 60 + "end"]
    axes = compare_spectrograms(dict.fromkeys(names, noise), RATE, reference=names[2])
    axes[0, 0].figure.draw_without_rendering()
    legend = [text.get_text() for text in axes[2, 1].get_legend().get_texts()]
    assert legend == names[:2]
    title = axes[2, 0].get_title(loc="left")
    assert len(title) < 40
    assert title.endswith("aend")
