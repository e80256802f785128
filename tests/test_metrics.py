from __future__ import annotations

import itertools
import math
import sys

import numpy as np
import pytest

from stemlab.errors import MissingDependencyError, ParameterError
from stemlab.metrics import bss_eval, consistency, sdr, seams, si_sdr
from stemlab.metrics.bsseval import museval_metrics
from stemlab.metrics.figures import FIGURES, pareto_front


@pytest.mark.parametrize("level_db", [-6.0, 0.0, 12.5])
def test_known_noise_level(rng, level_db):
    reference = rng.standard_normal((2, 20_000))
    noise = rng.standard_normal((2, 20_000))
    noise *= math.sqrt((reference**2).sum() / (noise**2).sum()) * 10 ** (-level_db / 20)
    assert sdr(reference, reference + noise) == pytest.approx(level_db, abs=1e-9)
    assert si_sdr(reference, reference + noise) == pytest.approx(level_db, abs=0.2)


def test_si_sdr_ignores_scale_and_sdr_does_not(rng):
    reference, noise = rng.standard_normal((2, 2, 5000))
    estimate = reference + 0.1 * noise
    assert si_sdr(reference, 3 * estimate) == pytest.approx(si_sdr(reference, estimate))
    assert sdr(reference, 3 * estimate) < sdr(reference, estimate) - 20


def test_channels_count_together(rng):
    reference = rng.standard_normal((2, 5000))
    estimate = reference.copy()
    estimate[0] = 0
    expected = 10 * math.log10((reference**2).sum() / (reference[0] ** 2).sum())
    assert sdr(reference, estimate) == pytest.approx(expected)


def test_edges():
    tone, silence = np.ones(100), np.zeros(100)
    assert math.isnan(sdr(silence, tone))
    assert math.isnan(si_sdr(silence, tone))
    assert sdr(tone, tone) == si_sdr(tone, tone) == math.inf
    assert sdr(tone, silence) == 0.0
    assert si_sdr(tone, silence) == -math.inf


@pytest.mark.parametrize(
    ("reference", "estimate"),
    [((2, 5), (2, 6)), ((5,), (1, 5)), ((0,), (0,)), ((1, 1, 5), (1, 1, 5))],
)
def test_shapes_must_agree(reference, estimate):
    for metric in (sdr, si_sdr):
        with pytest.raises(ParameterError, match="reference has shape"):
            metric(np.zeros(reference), np.zeros(estimate))


# ---------------------------------------------------------------- published figures of peers


def test_published_vectors_of_torchmetrics():
    """The examples in the documentation of torchmetrics' functions, with the results they print.

    ``signal_noise_ratio`` is our `sdr`, ``scale_invariant_signal_distortion_ratio`` our `si_sdr`.
    """
    target, preds = [3.0, -0.5, 2.0, 7.0], [2.5, 0.0, 2.0, 8.0]
    assert sdr(target, preds) == pytest.approx(16.1805, abs=1e-4)
    assert si_sdr(target, preds) == pytest.approx(18.4030, abs=1e-4)


def test_bss_eval_is_that_of_museval(rng):
    """Against museval's own function, called as ``museval.evaluate`` does."""
    museval = museval_metrics()
    references = {name: rng.standard_normal((2, 3 * 8000)) for name in ("a", "b")}
    noise = {name: 0.2 * rng.standard_normal((2, 3 * 8000)) for name in references}
    estimates = {
        "a": references["a"] + 0.1 * references["b"] + noise["a"],
        "b": 0.8 * references["b"] + noise["b"],
    }
    figures = bss_eval(references, estimates, 8000)
    first = [np.stack([each.T for each in group.values()]) for group in (references, estimates)]
    expected = museval.bss_eval(*first, window=8000, hop=8000)[:4]
    for number, name in enumerate(references):
        found = [getattr(figures[name], f"{each}_db") for each in ("sdr", "isr", "sir", "sar")]
        assert found == pytest.approx([np.median(each[number]) for each in expected], abs=1e-9)


def test_bss_eval_of_a_silent_source_is_no_number_and_spoils_no_other(rng):
    heard = rng.standard_normal((2, 16_000))
    stems = {"a": heard + 0.1 * rng.standard_normal((2, 16_000)), "b": 0.1 * heard}
    figures = bss_eval({"a": heard, "b": np.zeros((2, 16_000))}, stems, 8000)
    assert math.isnan(figures["b"].sdr_db)
    assert figures["a"].sdr_db == pytest.approx(20, abs=0.5)
    alone = bss_eval({"a": heard}, {"a": stems["a"]}, 8000)
    assert figures["a"] == alone["a"]
    with pytest.raises(ParameterError, match="estimates has no 'c'"):
        bss_eval({"c": heard}, stems, 8000)


def test_bss_eval_tells_interference_from_artefacts_only_with_all_true_sources(rng):
    a, b, noise = rng.standard_normal((3, 2, 16_000))
    stem = a + 0.1 * b + 0.01 * noise
    whole = bss_eval({"a": a, "b": b}, {"a": stem, "b": b}, 8000)["a"]
    assert whole.sir_db == pytest.approx(20, abs=1)
    assert whole.sar_db == pytest.approx(40, abs=3)
    assert bss_eval({"a": a}, {"a": stem}, 8000, others={"b": b})["a"] == whole
    for some in (
        bss_eval({"a": a}, {"a": stem}, 8000, others=None)["a"],
        bss_eval({"a": a}, {"a": stem, "b": b}, 8000)["a"],
    ):
        assert (some.sdr_db, some.isr_db) == pytest.approx((whole.sdr_db, whole.isr_db))
        assert math.isnan(some.sir_db)
        assert math.isnan(some.sar_db)


def test_bss_eval_takes_each_stem_for_what_it_is_called(rng):
    """And does not look for the source that it fits best, as museval does by default."""
    a, b = rng.standard_normal((2, 2, 16_000))
    swapped = bss_eval({"a": a, "b": b}, {"a": b, "b": a}, 8000)
    assert swapped["a"].sdr_db < 1
    assert swapped["a"].sir_db < 0


def test_bss_eval_leaves_out_frames_without_sound(rng):
    """And takes the median of the others, each with its own noise."""
    reference = rng.standard_normal((2, 4 * 8000))
    reference[:, :8000] = 0
    noise = np.repeat([0.5, 0.1, 0.01, 0.0001], 8000) * rng.standard_normal((2, 4 * 8000))
    figures = bss_eval({"a": reference}, {"a": reference + noise}, 8000)
    assert figures["a"].sdr_db == pytest.approx(40, abs=1)


def test_bss_eval_without_museval_says_what_to_install(rng, monkeypatch):
    monkeypatch.setitem(sys.modules, "museval", None)
    museval_metrics.cache_clear()
    with pytest.raises(MissingDependencyError, match=r"stemlab\[bsseval\]"):
        bss_eval({"a": rng.standard_normal(8000)}, {"a": rng.standard_normal(8000)}, 8000)


@pytest.mark.parametrize("shape", [(2, 15_999), (1, 16_000), (16_000,)])
def test_bss_eval_wants_one_shape(rng, shape):
    with pytest.raises(ParameterError, match="pass one"):
        bss_eval({"a": rng.standard_normal((2, 16_000))}, {"a": rng.standard_normal(shape)}, 8000)


# ---------------------------------------------------------------- what the stems leave over


@pytest.mark.parametrize(("share", "expected"), [(0.9, -20.0), (1.1, -20.0), (0.0, 0.0)])
def test_consistency_of_a_gain(rng, share, expected):
    mixture = rng.standard_normal((2, 1000))
    stems = [share * part * mixture for part in (0.25, 0.75)]
    assert consistency(mixture, stems) == pytest.approx(expected)


def test_consistency_edges():
    assert consistency(np.ones(10), [np.ones(10)]) == -math.inf
    assert math.isnan(consistency(np.zeros(10), [np.ones(10)]))
    with pytest.raises(ParameterError, match="reference has shape"):
        consistency(np.ones(10), [np.ones(9)])


# ---------------------------------------------------------------- seams

RATE = 44_100


def music(rng, seconds=10):
    """Noise whose level moves by 40 dB, as a song's does."""
    moments = np.arange(int(seconds * RATE)) / RATE
    level = 10 ** (-1 - np.sin(2 * np.pi * 0.7 * moments))
    return level * rng.standard_normal((2, len(moments)))


@pytest.mark.parametrize("error_db", [-60.0, -20.0])
@pytest.mark.parametrize("hop_seconds", [3.9, 1.0, 0.1, 0.02])
def test_an_error_that_is_everywhere_alike_has_no_seams(rng, error_db, hop_seconds):
    reference = music(rng)
    stem = reference + 10 ** (error_db / 20) * music(rng)
    edges = np.arange(0, 10 * RATE, int(hop_seconds * RATE))
    report = seams(reference, stem, edges, RATE)
    assert report.count == len(edges) - 1
    assert abs(report.mean_db) < 1.0


def test_planted_clicks_have_the_level_that_their_definition_gives(rng):
    """White noise of known power as the error, a click of known height in its middle."""
    reference, noise = rng.standard_normal((2, 2, 10 * RATE))
    edges = np.arange(1, 10) * RATE
    stem = reference + 0.01 * noise
    stem[:, edges] += 1.0
    report = seams(reference, stem, edges, RATE)
    zone = 2 * int(0.005 * RATE)
    # Differentiated, a click of height 1 has power 2, and noise of variance v has 2 v per sample.
    expected = 10 * math.log10(1 + 2 * 1.0 / (zone * 2 * 0.01**2))
    assert report.mean_db == pytest.approx(expected, abs=0.5)
    assert {round(each.seconds, 3) for each in report.worst} <= {*map(float, range(1, 10))}


@pytest.mark.parametrize("hop_seconds", [1.3, 0.2, 0.05])
def test_worst_seams_are_those_with_clicks(rng, hop_seconds):
    reference = 0.02 * music(rng)
    stem = reference + 0.02 * 0.001 * music(rng)
    edges = np.arange(1, int(10 / hop_seconds)) * int(hop_seconds * RATE)
    stem[:, edges[[2, 5]]] += 0.5
    report = seams(reference, stem, edges, RATE)
    assert {each.seconds for each in report.worst[:2]} == {float(e / RATE) for e in edges[[2, 5]]}
    assert report.worst[1].excess_db > 20
    assert report.worst[1].excess_db > report.worst[2].excess_db + 10


def test_a_jump_is_a_seam_though_the_error_is_no_larger_there(rng):
    """An offset that changes its sign at a boundary clicks; its level is the same everywhere."""
    reference = 0.1 * np.sin(np.arange(4 * RATE) / 30)
    offset = 0.05 * np.where(np.arange(4 * RATE) // RATE % 2, 1, -1)
    report = seams(reference, reference + offset, [RATE, 2 * RATE, 3 * RATE], RATE)
    assert report.mean_db > 40


def test_clicks_elsewhere_are_no_seams(rng):
    reference = music(rng)
    stem = reference + 0.001 * rng.standard_normal(reference.shape)
    stem[:, RATE // 2 :: RATE] += 0.5
    assert seams(reference, stem, np.arange(1, 10) * RATE, RATE).mean_db < 1


def test_seams_that_mean_nothing(rng):
    reference = music(rng, 1)
    assert math.isnan(seams(reference, reference, [], RATE).mean_db)
    assert math.isnan(seams(reference, reference, [0, RATE, 2 * RATE, -5], RATE).mean_db)
    assert math.isnan(seams(0 * reference, reference, [RATE // 2], RATE).mean_db)
    equal = seams(reference, reference, [RATE // 2], RATE)
    assert (equal.mean_db, equal.count) == (pytest.approx(0.0, abs=1e-9), 1)
    # Every sample a boundary: nothing is elsewhere, or next to nothing.
    assert not seams(reference, reference, np.arange(RATE), RATE).mean_db > 1
    one = seams([0.5], [0.5], [0], 1000)
    assert (one.count, one.worst) == (0, ())


def test_edges_a_sample_apart_count_once(rng):
    reference = music(rng, 2)
    report = seams(reference, reference, [RATE, RATE + 1, RATE + 30], RATE)
    assert report.count == 1


def excesses_by_the_letter(true, found, edges, rate):
    """What the notes of `seams` say, sample by sample."""

    def slope_power(signal):
        steps = [[0.0, *(b - a for a, b in itertools.pairwise(row))] for row in signal]
        return [
            sum(each**2 for each in column) / len(column) for column in zip(*steps, strict=True)
        ]

    def level_db(ratio):
        return 10 * math.log10(ratio + 1e-6)

    def mean(values):
        return sum(values) / len(values)

    error, signal = slope_power(found - true), slope_power(true)
    half = min(int(0.005 * rate), len(error) // (len(edges) + 1) // 8)
    length = 2 * half
    pieces = range(len(error) // length)
    reach = int(0.1 * rate) // length
    power = [mean(signal[each * length : (each + 1) * length]) for each in pieces]
    around = [mean(power[max(each - reach, 0) : each + reach + 1]) for each in pieces]
    level = [max(each, 1e-6 * mean(signal)) for each in around]
    zones = [range(edge - half, edge + half) for edge in edges]
    elsewhere = [
        each
        for each in pieces
        if not any(set(range(each * length, (each + 1) * length)) & set(zone) for zone in zones)
    ]
    usual_db = mean(
        [
            level_db(mean(error[each * length : (each + 1) * length]) / level[each])
            for each in elsewhere
        ]
    )
    return [
        level_db(mean(error[max(edge - half, 0) : edge + half]) / level[edge // length]) - usual_db
        for edge in edges
    ]


@pytest.mark.parametrize("edges", [[400], [7, 1500, 2996], [*range(120, 3000, 117)]])
def test_seams_are_what_their_notes_say(rng, edges):
    rate, samples = 2000, 3000
    true = rng.standard_normal((2, samples)) * np.linspace(0, 1, samples)
    found = true + 0.1 * rng.standard_normal((2, samples))
    found[:, edges] += rng.uniform(0, 0.5, len(edges))
    expected = excesses_by_the_letter(true, found, edges, rate)
    report = seams(true, found, edges, rate)
    assert report.count == len(edges)
    assert report.mean_db == pytest.approx(np.mean(expected), abs=1e-9)
    worst = sorted(zip(expected, edges, strict=True), reverse=True)[:5]
    assert [each.excess_db for each in report.worst] == pytest.approx(
        [excess for excess, _ in worst], abs=1e-9
    )
    assert [each.seconds for each in report.worst] == [edge / rate for _, edge in worst]


@pytest.mark.parametrize(("gap", "count"), [(5, 1), (6, 2)])
def test_edges_count_apart_from_half_a_zone_on(rng, gap, count):
    true = rng.standard_normal((1, 3000))
    assert seams(true, true, [1000, 1000 + gap], 2000).count == count


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("peak_memory_bytes", 2e12, "2000000 MB"),
        ("wasted_share", 0.253, "25%"),
        ("wall_seconds", -0.01, "0.0 s"),
        ("rtf", 0.01234, "0.0123"),
        ("sdr_db", -3.456, "-3.46 dB"),
    ],
)
def test_figures_are_written_in_their_units(name, value, text):
    assert FIGURES[name].text(value) == text


def test_titles_have_units():
    assert FIGURES["peak_memory_bytes"].title == "Peak memory (MB)"
    assert FIGURES["repeats"].title == "Repeats"


def test_the_front_is_what_no_other_setting_beats():
    rtf, quality = [0.3, 0.1, 0.2, 0.2, 0.1], [9.0, 5.0, 5.0, 7.0, 5.0]
    # The fourth costs as much as the third and is better; the last one equals the second.
    assert pareto_front(rtf, quality) == [1, 3, 0]
    # Less memory counts, unless that of a setting is not known.
    assert pareto_front(rtf, quality, [4, 4, 3, 4, 4]) == [1, 3, 2, 0]
    assert pareto_front(rtf, quality, [4, 4, 3, 4, float("nan")]) == [1, 3, 0]
