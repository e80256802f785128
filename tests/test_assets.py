"""The demo song and the figures that come with the package."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from stemlab._assets import DEMO_SOURCES, demo_song_dir
from stemlab.audio import read_file

MINI = Path(__file__).resolve().parents[1] / "models" / "stemlab-mini"


def test_the_shipped_figures_are_of_the_shipped_weights() -> None:
    shipped = json.loads((MINI / "evaluation.json").read_bytes())
    (network,) = json.loads((MINI / "manifest.json").read_bytes())["networks"]
    assert shipped["model"]["sha256"] == network["files"][0]["sha256"], "run make evaluate"


def test_the_demo_song_is_the_sum_of_its_stems() -> None:
    mixture, rate = read_file(demo_song_dir() / "mixture.flac")
    stems = [read_file(demo_song_dir() / f"{name}.flac")[0] for name in DEMO_SOURCES]
    assert rate == 44_100
    assert mixture.shape[0] == 2
    assert 20 <= mixture.shape[1] / rate <= 30
    np.testing.assert_allclose(sum(stems), mixture, atol=len(stems) / 2**15)
    assert np.abs(mixture).max() < 1
    for stem in stems:
        assert np.sqrt(np.mean(stem**2)) > 0.005
