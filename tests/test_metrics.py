from __future__ import annotations

import math

import numpy as np
import pytest

from stemlab.errors import ParameterError
from stemlab.metrics import sdr, si_sdr


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
