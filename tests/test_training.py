"""The training of stemlab-mini, on songs of noise: the commands work together, seeded, resumable.

The synthesiser's sampled sounds need system packages that a test machine need not have; what is
computed from scratch is tested here.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from stemlab._assets import DEMO_SOURCES, demo_song_dir
from stemlab.audio import read_file
from stemlab.registry import read_manifest
from stemlab.separation import AudioStemSeparator

TRAINING = Path(__file__).parents[1] / "models" / "training"
RATE = 44_100


def run(script, *arguments):
    done = subprocess.run(
        [sys.executable, str(TRAINING / script), *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("songs")
    generator = np.random.default_rng(3)
    for seed in (1, 2):
        stems = 0.05 * generator.standard_normal((6 * RATE, 8))
        soundfile.write(folder / f"song-{seed:07d}.flac", stems, RATE, subtype="PCM_16")
    return folder


def weights(run_folder):
    return torch.load(run_folder / "checkpoint.pt", weights_only=True)["averaged"]


def test_training_is_seeded_resumable_and_exports_a_model(songs, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        run("train.py", folder, "--songs", songs, "--steps", 1)
    for name, tensor in weights(first).items():
        torch.testing.assert_close(tensor, weights(second)[name])
    assert "going on from step 1" in run("train.py", first, "--songs", songs, "--steps", 2)
    assert any(
        not torch.equal(tensor, weights(second)[name]) for name, tensor in weights(first).items()
    )
    models = tmp_path / "models"
    run("export.py", first, "--models", models)
    manifest = read_manifest(models / "stemlab-mini")
    assert manifest.parameters == sum(each.numel() for each in weights(first).values())
    mixture = 0.1 * np.random.default_rng(4).standard_normal((2, RATE))
    stems = AudioStemSeparator(str(models / "stemlab-mini")).separate_audio(mixture, RATE)
    assert tuple(stems) == DEMO_SOURCES
    assert all(np.isfinite(stem).all() for stem in stems.values())


def test_composing_is_seeded():
    code = (
        "import numpy as np\n"
        "from synth.composition import compose\n"
        "print([repr(compose(np.random.default_rng(seed), 16.0)) for seed in (5, 5, 6)])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=TRAINING, check=True
    )
    first, again, other = eval(done.stdout)
    assert first == again
    assert first != other


def test_the_demo_song_is_the_sum_of_its_stems():
    mixture, rate = read_file(demo_song_dir() / "mixture.flac")
    stems = [read_file(demo_song_dir() / f"{name}.flac")[0] for name in DEMO_SOURCES]
    assert rate == RATE
    assert mixture.shape[0] == 2
    assert 20 <= mixture.shape[1] / rate <= 30
    np.testing.assert_allclose(sum(stems), mixture, atol=len(stems) / 2**15)
    assert np.abs(mixture).max() < 1
    for stem in stems:
        assert np.sqrt(np.mean(stem**2)) > 0.005
