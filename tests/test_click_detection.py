"""Clicks: found where they are planted, not where music or a crossfade goes on."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile
import soxr

from stemlab import demo_song_dir
from stemlab.chunking import ChunkPlan
from stemlab.errors import ParameterError
from stemlab.metrics import clicks

RATE = 44_100
STEMS = ("mixture", "drums", "bass", "other", "vocals")


@pytest.fixture(scope="module")
def music():
    """The demo song and its stems, 20 s, each of shape (2, samples)."""
    folder = demo_song_dir()
    return {
        stem: soundfile.read(folder / f"{stem}.flac", frames=20 * RATE, always_2d=True)[0].T
        for stem in STEMS
    }


def places(rng, samples, count):
    return np.sort(rng.choice(np.arange(2000, samples - 2000), count, replace=False))


@pytest.mark.parametrize("stem", STEMS)
def test_one_in_a_hundred_random_places_of_music_clicks_at_most(music, rng, stem):
    signal = music[stem]
    assert clicks(signal, places(rng, signal.shape[1], 400), RATE).share <= 0.01


@pytest.mark.parametrize("rate", [8_000, 192_000])
def test_other_rates(music, rng, rate):
    signal = soxr.resample(music["other"][:, : 8 * RATE].T, RATE, rate).T
    edges = places(rng, signal.shape[1], 200)
    assert clicks(signal, edges, rate).share <= 0.01
    for edge in edges[::20]:
        signal[:, edge:] += 0.3 * (-1) ** edge
    assert clicks(signal, edges[::20], rate).share >= 0.9


@pytest.mark.parametrize(("segment_seconds", "overlap"), [(0.1, 0.9), (2, 0.25), (1, 0.1)])
def test_a_crossfade_of_two_estimates_does_not_click(music, segment_seconds, overlap):
    # The estimates of neighbouring segments differ by more than those of a network do.
    two = music["other"][:, : 5 * RATE], 0.7 * music["other"][::-1, : 5 * RATE]
    plan = ChunkPlan(5 * RATE, RATE, segment_seconds, overlap)
    total, weight = np.zeros_like(two[0]), np.zeros(5 * RATE)
    for number, chunk in enumerate(plan.chunks()):
        here = slice(chunk.start, chunk.stop)
        window = plan.window[: chunk.samples]
        total[:, here] += window * two[number % 2][:, here]
        weight[here] += window
    assert clicks(total / weight, plan.boundaries, RATE).share <= 0.01


def step(signal, edge, level):
    signal[:, edge:] += level


def click(signal, edge, level):
    signal[:, edge] += level


def hole(signal, edge, _):
    signal[:, edge : edge + 300] = 0


def dropout(signal, edge, _):
    signal[:, edge : edge + RATE // 30] *= 0.1


# Levels are multiples of the music's own around the boundary. Where the music is noise, as in
# drums, a step must be larger to stand out of it.
@pytest.mark.parametrize(
    ("plant", "stem", "level"),
    [
        (step, "bass", 0.2),
        (step, "other", 2),
        (step, "drums", 4),
        (click, "bass", 0.2),
        (click, "other", 2),
        (click, "drums", 4),
        (hole, "bass", 0),
        (hole, "other", 0),
        (hole, "drums", 0),
        (dropout, "bass", 0),
        (dropout, "other", 0),
        (dropout, "drums", 0),
    ],
)
@pytest.mark.parametrize(("gain", "channels"), [(1, 2), (1e-3, 1)])
def test_what_is_planted_is_found(music, rng, plant, stem, level, gain, channels):
    signal = gain * music[stem][:channels]
    power = np.convolve((signal**2).mean(axis=0), np.full(2000, 1 / 2000), "same")
    loud = np.flatnonzero(power > 0.01 * power.max())
    edges = np.sort(rng.choice(loud[(loud > 4000) & (loud < 19 * RATE)], 40, replace=False))
    edges = edges[np.append(True, np.diff(edges) > 4000)]
    for edge in edges:
        plant(signal, edge, level * np.sqrt(power[edge]))
    assert clicks(signal, edges, RATE).share >= 0.9


def test_a_click_in_a_quiet_passage_and_in_silence_is_found(music):
    signal = music["mixture"].copy()
    signal[:, 5 * RATE : 7 * RATE] *= 1e-3
    signal[:, 10 * RATE : 12 * RATE] = 0
    for second in (6, 11):
        signal[:, second * RATE] += 3e-3
    report = clicks(signal, [4 * RATE, 6 * RATE, 11 * RATE], RATE)
    assert {found.seconds for found in report.worst} == {6, 11}


def test_silence_and_no_boundaries(rng):
    silence = clicks(np.zeros((2, RATE)), [RATE // 2], RATE)
    assert (silence.boundaries, silence.count, silence.share, silence.worst) == (1, 0, 0, ())
    assert np.isnan(clicks(rng.standard_normal(RATE), [0, RATE, -5], RATE).share)
    assert clicks(np.ones(10), [5], RATE).count == 0


def test_the_worst_come_first_and_the_level_does_not_matter(music):
    signal = music["other"][:, : 10 * RATE].copy()
    edges = np.arange(1, 9) * RATE
    for number, edge in enumerate(edges):
        signal[:, edge:] += 0.2 * (number + 1) * (-1) ** number
    report = clicks(signal, edges, RATE)
    assert report.count == 8
    assert len(report.worst) == 5
    assert sorted((found.excess_db for found in report.worst), reverse=True) == [
        found.excess_db for found in report.worst
    ]
    assert clicks(1e-4 * signal, edges, RATE).count == 8


def test_shapes_and_rates_are_checked():
    for signal in (np.zeros((1, 2, 3)), np.zeros((2, 0)), 1.0, [0.0, np.nan], [[np.inf]]):
        with pytest.raises(ParameterError, match="signal has shape .* or samples that are not"):
            clicks(signal, [1], RATE)
    with pytest.raises(ParameterError, match="sample_rate"):
        clicks(np.zeros(10), [1], 0)
