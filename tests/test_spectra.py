"""Spectra against librosa and against what is known of sines, levels and silence."""

from __future__ import annotations

import itertools
from typing import Any

import librosa
import numpy as np
import pytest

from stemlab.errors import AudioError, ParameterError
from stemlab.spectra import SpectralGrid, compare_spectra, comparison

RATE = 8000
LINEAR = SpectralGrid(fft_samples=256, frequency_scale="linear")


@pytest.fixture
def noise(rng: np.random.Generator) -> np.ndarray[Any, Any]:
    return rng.uniform(-0.5, 0.5, (2, 9000)).astype(np.float32)


def librosa_power(signal: Any, size: int) -> Any:
    """Power as stemlab scales it, shape (bins, frames)."""
    spectrum = librosa.stft(signal, n_fft=size, hop_length=size // 4, pad_mode="constant")
    power = (np.abs(spectrum) ** 2).mean(axis=0)
    window = librosa.filters.get_window("hann", size)
    power *= 4 / size / (window**2).sum()
    power[[0, -1]] /= 2
    return power


def test_powers_agree_with_librosa(noise: Any) -> None:
    """All frames, all bins; the channels are averaged as powers."""
    found = compare_spectra({"x": noise}, RATE, grid=LINEAR)
    expected = librosa_power(noise, 256)
    assert found.powers["x"].shape == expected.shape
    np.testing.assert_allclose(found.powers["x"], expected, rtol=1e-4, atol=1e-9)
    assert found.seconds[[0, -1]].tolist() == [0, 9000 / RATE]
    assert found.hz[[0, -1]].tolist() == [0, RATE / 2]


@pytest.mark.parametrize("window", [(0.25, 0.5), (0, 0.1), (0.9, 5.0), (0.5004, 0.5005)])
def test_a_time_range_has_the_frames_of_the_whole(noise: Any, window: Any) -> None:
    grid = SpectralGrid(256, "linear", time_range_seconds=window)
    found = compare_spectra({"x": noise}, RATE, grid=grid)
    frames = grid.frames(9000, RATE)
    assert window[0] - 64 / RATE < frames.start * 64 / RATE <= window[0]
    expected = librosa_power(noise, 256)[:, frames.start : frames.stop]
    np.testing.assert_allclose(found.powers["x"], expected, rtol=1e-4, atol=1e-9)
    stop = min(window[1], 9000 / RATE)
    assert found.seconds[0] == pytest.approx(window[0], abs=64 / RATE)
    assert found.seconds[-1] == pytest.approx(stop, abs=2 * 64 / RATE)
    assert (np.diff(found.seconds) > 0).all()


def test_a_logarithmic_row_is_the_mean_of_its_bins(noise: Any) -> None:
    found = compare_spectra({"x": noise}, RATE, grid=SpectralGrid(fft_samples=256))
    expected = librosa_power(noise, 256)
    bins = np.round(found.hz / (RATE / 256) + 0.5).astype(int)
    bins[-1] = 129
    for row, (first, stop) in enumerate(itertools.pairwise(bins)):
        np.testing.assert_allclose(
            found.powers["x"][row], expected[first:stop].mean(axis=0), rtol=1e-3, atol=1e-9
        )


def test_mel_rows_are_librosas_bands(noise: Any) -> None:
    grid = SpectralGrid(2048, "mel", frequency_range_hz=(200, 3000))
    found = compare_spectra({"x": noise}, RATE, grid=grid)
    rows = len(found.hz) - 1
    np.testing.assert_allclose(found.hz, librosa.mel_frequencies(rows + 1, fmin=200, fmax=3000))
    centres = librosa.fft_frequencies(sr=RATE, n_fft=2048)
    expected = librosa_power(noise, 2048)
    for row in range(rows):
        inside = (centres >= found.hz[row]) & (centres < found.hz[row + 1])
        assert inside.any()
        np.testing.assert_allclose(
            found.powers["x"][row], expected[inside].mean(axis=0), rtol=1e-3, atol=1e-9
        )


def test_mel_rows_are_never_empty() -> None:
    grid = SpectralGrid(64, "mel")
    edges, weights = grid.rows(44_100)
    assert len(edges) == weights.shape[1] + 1
    np.testing.assert_allclose(weights.sum(axis=0), 1, rtol=1e-6)


@pytest.mark.parametrize("hz", [125.0, 1000.0, 3150.0])
def test_a_sine_of_full_scale_is_0_db_in_its_band(hz: float) -> None:
    sine = np.sin(2 * np.pi * hz * np.arange(4 * RATE) / RATE)
    grid = SpectralGrid(2048, "linear", time_range_seconds=(1, 3))
    found = compare_spectra({"x": sine}, RATE, grid=grid)
    total = found.powers["x"] * np.round(np.diff(found.hz) * 2048 / RATE)[:, np.newaxis]
    np.testing.assert_allclose(10 * np.log10(total.sum(axis=0)), 0, atol=0.1)
    levels = found.band_levels_db["x"]
    band = int(levels.argmax())
    assert found.band_hz[band] / 2**0.5 <= hz <= found.band_hz[band] * 2**0.5
    assert levels[band] == pytest.approx(0, abs=0.05)
    assert np.delete(levels, band).max() < -25


def test_half_the_level_is_6_db(noise: Any) -> None:
    found = compare_spectra({"a": noise, "b": noise / 2, "c": noise}, RATE)
    assert found.reference == "a"
    assert found.log_spectral_distance_db == {
        "b": pytest.approx(6.02, abs=0.01),
        "c": pytest.approx(0, abs=1e-9),
    }
    np.testing.assert_allclose(found.band_differences_db["b"], -6.02, atol=0.01)
    np.testing.assert_array_equal(found.band_differences_db["c"], 0)
    back = compare_spectra({"a": noise, "b": noise / 2}, RATE, reference="b")
    np.testing.assert_allclose(back.band_differences_db["a"], 6.02, atol=0.01)


def test_silence_equals_silence(noise: Any) -> None:
    found = compare_spectra({"a": np.zeros(5000), "b": np.zeros((2, 5000)), "c": noise}, RATE)
    assert found.log_spectral_distance_db["b"] == 0
    np.testing.assert_array_equal(found.band_differences_db["b"], 0)
    assert np.isfinite(found.log_spectral_distance_db["c"])
    assert not found.powers["a"].any()


def test_what_both_have_is_compared(noise: Any) -> None:
    """The rest of the longer one is shown and does not count."""
    longer = np.concatenate([noise[:, :4096], 0.9 * np.ones((2, 30_000))], axis=1)
    frames = 1 + 4096 // 64
    grid = LINEAR
    found = compare_spectra({"a": noise[:, :4096], "b": longer}, RATE, grid=grid)
    assert found.powers["a"].shape == found.powers["b"].shape
    ended = found.seconds[:-1] > (4096 + 256) / RATE
    assert ended.any()
    assert not found.powers["a"][:, ended].any()
    assert found.powers["b"][:, ended].any(axis=0).all()
    # The frames of the last moments reach into what follows; those before are equal.
    early = SpectralGrid(256, "linear", time_range_seconds=(0, (frames - 3) * 64 / RATE))
    cut = compare_spectra({"a": noise[:, :4096], "b": longer}, RATE, grid=early)
    assert cut.log_spectral_distance_db["b"] == 0
    expected = librosa_power(longer, 256)[:, :frames], librosa_power(noise[:, :4096], 256)
    ratio = 10 * np.log10(np.maximum(expected[0], 1e-10) / np.maximum(expected[1], 1e-10))
    distance = np.sqrt((ratio**2).mean(axis=0)).mean()
    assert found.log_spectral_distance_db["b"] == pytest.approx(distance, rel=1e-3)


def test_without_common_time_nothing_is_compared(noise: Any) -> None:
    grid = SpectralGrid(256, time_range_seconds=(1, 1.1))
    found = compare_spectra({"a": noise, "b": noise[:, :4000]}, RATE, grid=grid)
    assert np.isnan(found.log_spectral_distance_db["b"])
    assert np.isnan(found.band_differences_db["b"]).all()


@pytest.mark.parametrize("at_once", [1, 7, 100_000])
def test_blocks_do_not_show(noise: Any, at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    signals = {"a": noise, "b": noise[0, :5000] / 3, "c": np.tile(noise, 20)}
    grid = SpectralGrid(256, time_range_seconds=(0.2, 20))
    expected = compare_spectra(signals, RATE, grid=grid)
    monkeypatch.setattr(comparison, "_FRAMES_AT_ONCE", at_once)
    found = compare_spectra(signals, RATE, grid=grid)
    for name in signals:
        np.testing.assert_allclose(found.powers[name], expected.powers[name], rtol=1e-4)
        np.testing.assert_allclose(
            found.band_levels_db[name], expected.band_levels_db[name], atol=1e-4
        )
    assert found.log_spectral_distance_db == pytest.approx(expected.log_spectral_distance_db)


@pytest.mark.parametrize("samples", [1, 63, 64, 65, 255, 256, 257])
def test_any_length_can_be_measured(samples: int) -> None:
    signal = np.ones(samples)
    found = compare_spectra({"a": signal, "b": signal / 2}, RATE, grid=LINEAR)
    assert found.powers["a"].shape == (129, 1 + samples // 64)
    assert found.seconds[-1] == samples / RATE
    assert found.log_spectral_distance_db["b"] <= 6.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fft_samples": 15}, "fft_samples=15 is not a whole number"),
        ({"fft_samples": 17}, "fft_samples=17 is not even"),
        ({"fft_samples": True}, "fft_samples=True"),
        ({"frequency_scale": "bark"}, "frequency_scale='bark'.*log, linear, mel"),
        ({"time_range_seconds": (3, 2)}, r"time_range_seconds=\(3, 2\) is not a range"),
        ({"time_range_seconds": 3}, "time_range_seconds=3 is not a range"),
        ({"time_range_seconds": (0, float("inf"))}, "time_range_seconds"),
        ({"time_range_seconds": (0, float("nan"))}, "time_range_seconds"),
        ({"time_range_seconds": (0, 1e308)}, "time_range_seconds=.* at most 10,000,000"),
        ({"time_range_seconds": (0, 10**400)}, "time_range_seconds=.* at most 10,000,000"),
        ({"frequency_range_hz": (-1, 5)}, r"frequency_range_hz=\(-1, 5\).*smaller first"),
        ({"frequency_range_hz": "ab"}, "frequency_range_hz='ab'"),
        ({"time_range_seconds": (5, 6)}, r"\(5.0, 6.0\) begins after the recording.*1.125 s"),
        ({"frequency_range_hz": (4000, 5000)}, "frequency_range_hz.*less than one step"),
        ({"frequency_range_hz": (0, 1e-3)}, "frequency_range_hz.*less than one step"),
    ],
)
def test_a_wrong_grid_is_refused(options: Any, message: str, noise: Any) -> None:
    with pytest.raises(ParameterError, match=message):
        compare_spectra({"x": noise}, RATE, grid=SpectralGrid(**options))


def test_wrong_signals_are_refused(noise: Any) -> None:
    with pytest.raises(ParameterError, match="signals is empty"):
        compare_spectra({}, RATE)
    with pytest.raises(ParameterError, match="reference='c' is not one of .* one of a, b"):
        compare_spectra({"a": noise, "b": noise}, RATE, reference="c")
    with pytest.raises(ParameterError, match="sample_rate=8000.5"):
        compare_spectra({"a": noise}, 8000.5)  # type: ignore[arg-type]
    with pytest.raises(AudioError, match=r"signals\['b'\]"):
        compare_spectra({"a": noise, "b": np.array([np.nan])}, RATE)
