"""torchaudio's HDemucs. Its wheel links CUDA, so beside a PyTorch without CUDA it does not import.

Where that is so, these tests import a copy of the package without its compiled extensions, which
torchaudio takes for "extension off"; the network is pure Python, the real one.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

from stemlab.errors import MissingDependencyError
from stemlab.networks.loading import build_network
from stemlab.provisioning import add_model
from stemlab.registry import find_model
from stemlab.separation import AudioStemSeparator

NAME = "hdemucs_high_musdb_plus"
SOURCES = ["drums", "bass", "other", "vocals"]


def forget_torchaudio():
    for name in [each for each in sys.modules if each.partition(".")[0] == "torchaudio"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def torchaudio_hdemucs(tmp_path_factory):
    """The class, of the installed package or of a copy without extensions."""
    try:
        from torchaudio.models import HDemucs
    except OSError:
        forget_torchaudio()
        installed = Path(importlib.util.find_spec("torchaudio").origin).parent
        copy = tmp_path_factory.mktemp("packages") / "torchaudio"
        shutil.copytree(installed, copy, ignore=shutil.ignore_patterns("*.so", "__pycache__"))
        with pytest.MonkeyPatch.context() as patch:
            patch.syspath_prepend(str(copy.parent))
            from torchaudio.models import HDemucs

            yield HDemucs
        forget_torchaudio()
    else:
        yield HDemucs


@pytest.fixture
def network(torchaudio_hdemucs):
    """A small one whose output is as loud as its input."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(5)
        network = torchaudio_hdemucs(SOURCES, channels=4, depth=6).eval()
        noise = 0.1 * torch.randn(1, 2, 44_100)
        gain = noise.std() / network(noise).std()
        for decoder in (network.freq_decoder, network.time_decoder):
            decoder[-1].conv_tr.weight.mul_(gain)
            decoder[-1].conv_tr.bias.mul_(gain)
    return network


def write_model(folder, network):
    content = save(network.state_dict())
    folder.mkdir()
    (folder / "weights.safetensors").write_bytes(content)
    fields = {
        "schema": 2,
        "name": "small",
        "title": "small",
        "sources": SOURCES,
        "sample_rate": 44_100,
        "channels": 2,
        "segment_seconds": 2.0,
        "segment_policy": "free",
        "parameters": sum(each.numel() for each in network.parameters()),
        "networks": [
            {
                "architecture": "torchaudio.HDemucs",
                "arguments": {"sources": SOURCES, "channels": 4, "depth": 6},
                "files": [
                    {
                        "name": "weights.safetensors",
                        "bytes": len(content),
                        "sha256": hashlib.sha256(content).hexdigest(),
                    }
                ],
            }
        ],
        "code_license": "BSD-2-Clause",
        "weight_license": "CC0-1.0",
        "disputes": [],
        "origin": "random numbers",
        "training_data": "none",
    }
    (folder / "manifest.json").write_text(json.dumps(fields), "utf-8")


def test_separates_as_the_pipeline_of_torchaudio_does(network, tmp_path, rng):
    """Its tutorial normalises by mean and deviation of the mono mixture, and undoes that."""
    write_model(tmp_path / "small", network)
    samples = 2 * 44_100
    mixture = (0.3 + 0.1 * rng.standard_normal((2, samples))).astype(np.float32)
    stems = AudioStemSeparator(f"{tmp_path}/small", device="cpu").separate_audio(
        mixture, 44_100, overlap=0
    )
    waveform = torch.from_numpy(mixture)
    reference = waveform.mean(0)
    with torch.inference_mode():
        (expected,) = network(((waveform - reference.mean()) / reference.std())[None])
    expected = expected * reference.std() + reference.mean()
    for index, source in enumerate(SOURCES):
        assert np.abs(stems[source] - expected[index].numpy()).max() < 1e-5
        assert np.abs(stems[source]).max() > 0.1


def test_longer_recordings_and_other_segments_work(network, tmp_path, rng):
    write_model(tmp_path / "small", network)
    mixture = rng.uniform(-0.1, 0.1, (2, 3 * 44_100 + 17)).astype(np.float32)
    separator = AudioStemSeparator(f"{tmp_path}/small", device="cpu")
    for segment in (0.5, 2.0, 5.0):
        stems = separator.separate_audio(mixture, 44_100, segment_seconds=segment)
        assert {each.shape for each in stems.values()} == {mixture.shape}


def test_the_recorded_architecture_is_torchaudios_own(torchaudio_hdemucs):
    """What `torchaudio.models.hdemucs_high` builds for the pipeline."""
    from torchaudio.models import hdemucs_high

    (entry,) = find_model(NAME).networks
    with torch.device("meta"):
        expected = hdemucs_high(SOURCES).state_dict()
    state = build_network(entry, NAME).state_dict()
    assert {name: each.shape for name, each in state.items()} == {
        name: each.shape for name, each in expected.items()
    }
    parameters = sum(each.numel() for each in state.values())
    assert parameters == find_model(NAME).parameters


@pytest.fixture
def broken_torchaudio(monkeypatch, tmp_path):
    """A package that fails to load a library, as torchaudio does beside another PyTorch."""
    package = tmp_path / "packages" / "torchaudio"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise OSError('libcudart.so.13: cannot open')\n", "utf-8")
    kept = {n: m for n, m in sys.modules.items() if n.partition(".")[0] == "torchaudio"}
    forget_torchaudio()
    monkeypatch.syspath_prepend(str(package.parent))
    yield
    forget_torchaudio()
    sys.modules.update(kept)


def test_where_torchaudio_does_not_import_the_error_says_what_to_install(
    broken_torchaudio, tmp_path, monkeypatch
):
    monkeypatch.setenv("STEMLAB_MODELS", str(tmp_path / "store"))
    with pytest.raises(MissingDependencyError, match=r"libcudart.*pip install .*torchaudio"):
        add_model(NAME, download=True)
    assert not (tmp_path / "store").exists()
