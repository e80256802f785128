"""Pictures: what the Axes hold, not how they look."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import librosa
import numpy as np
import pytest
from matplotlib.figure import Figure

from stemlab.errors import AudioError, ParameterError
from stemlab.plots import plot_spectrograms, plot_waveforms

RATE = 8000
PLOTS = [plot_waveforms, plot_spectrograms]


@pytest.fixture
def signals(rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    noise = rng.uniform(-0.5, 0.5, (2, RATE))
    return {"vocals": noise, "bass": 0.1 * noise[:, : RATE // 2], "drums": 0.5 * noise[0]}


def levels(lane: Any) -> Any:
    """Levels that a spectrogram shows, in dB, shape (rows, columns)."""
    (mesh,) = lane.collections
    return mesh.get_array()


def edges(lane: Any) -> tuple[Any, Any]:
    """Edges of the cells of a spectrogram, in seconds and in Hz."""
    (mesh,) = lane.collections
    corners = mesh.get_coordinates()
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
    expected = 10 * np.log10(power / power.max())
    assert levels(lanes[0]).shape == expected.shape
    np.testing.assert_allclose(levels(lanes[0]), expected, atol=0.02)


@pytest.mark.parametrize("scale", ["log", "linear"])
@pytest.mark.parametrize("seconds", [1.0, 40.0])
def test_a_tone_is_where_it_belongs(scale: str, seconds: float) -> None:
    start = round(0.5 * seconds * RATE)
    signal = np.zeros(round(seconds * RATE), np.float32)
    signal[start:] = np.sin(2 * np.pi * 1000 * np.arange(signal.size - start) / RATE)
    (lane,) = plot_spectrograms({"x": signal}, RATE, frequency_scale=scale, fft_samples=1024)
    assert lane.get_yscale() == scale
    times, frequencies = edges(lane)
    row, column = np.unravel_index(levels(lane).argmax(), levels(lane).shape)
    assert frequencies[row] <= 1000 <= frequencies[row + 1]
    assert frequencies[row + 1] - frequencies[row] < 50
    assert times[column + 1] > 0.5 * seconds
    silent = times[1:] < 0.5 * seconds - 1024 / RATE
    assert silent.any()
    np.testing.assert_allclose(levels(lane)[:, silent], -80, atol=1e-3)
    assert times[[0, -1]].tolist() == [0, seconds]
    assert frequencies[-1] == RATE / 2


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


def test_long_recordings_are_reduced_to_a_screen_and_keep_the_loudest() -> None:
    signal = np.zeros(RATE * 1200, np.float32)
    signal[7_654_321] = 1.0
    (lane,) = plot_spectrograms({"x": signal}, RATE, fft_samples=256, frequency_scale="linear")
    assert max(levels(lane).shape) <= 1200
    times, _ = edges(lane)
    loud = levels(lane).max(axis=0).argmax()
    assert times[loud] - 0.02 <= 7_654_321 / RATE <= times[loud + 1] + 0.02
    # A click has all frequencies alike.
    np.testing.assert_allclose(levels(lane)[:, loud], 0, atol=0.01)


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("max_db_range", 0, "max_db_range=0"),
        ("max_db_range", float("nan"), "max_db_range=nan"),
        ("frequency_scale", "mel", "frequency_scale='mel'"),
        ("fft_samples", 15, "fft_samples=15"),
        ("fft_samples", 1025, "fft_samples=1025"),
        ("fft_samples", 2048.0, "fft_samples=2048.0"),
    ],
)
def test_wrong_options_are_refused(option: str, value: Any, message: str) -> None:
    with pytest.raises(ParameterError, match=message):
        plot_spectrograms({"x": np.ones(5)}, RATE, **{option: value})
