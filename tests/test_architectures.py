"""The table of architectures: a new kind of network is one entry, and no caller knows of it."""

from __future__ import annotations

import ast
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import stemlab
from stemlab.cost import calibrate
from stemlab.errors import ModelRefusedError, ParameterError
from stemlab.networks import devices
from stemlab.networks.architectures import ARCHITECTURES, Architecture, MemberSpec
from stemlab.provisioning import verify_model
from stemlab.separation import AudioStemSeparator
from stemlab.sweeps import sweep

RATE = 8000
GAINS = [0.25, 2.0]


class Gain(nn.Module):
    """A network that is none of Demucs': each source is the mixture, louder or softer."""

    def __init__(self, sources: list[str], segment: float, broken: bool = False) -> None:
        super().__init__()
        self.sources, self.segment = sources, segment
        self.samplerate, self.audio_channels, self.broken = RATE, 2, broken
        self.gains = nn.Parameter(torch.ones(len(sources)))
        self.eval().requires_grad_(False)

    def forward(self, mixture: torch.Tensor) -> torch.Tensor:
        estimates = mixture[:, None] * self.gains[None, :, None, None]
        return estimates[..., :-1] if self.broken else estimates


class GainArchitecture(Architecture):
    name = "Gain"
    code_license = "MIT"
    cost_shape = "HDemucs"
    devices = ("cpu",)
    normalises = False
    takes_ready = True

    def network_class(self) -> type[nn.Module]:
        return Gain

    def describe(self, manifest: Any, entry: Any) -> MemberSpec:
        return MemberSpec(self, manifest.segment_seconds, 1, None, False, (1.0,) * 2)

    def describe_network(self, network: Any, gains: tuple[float, ...]) -> MemberSpec:
        return MemberSpec(self, network.segment, 1, None, False, gains)


@pytest.fixture
def gain(monkeypatch: pytest.MonkeyPatch) -> Gain:
    """A ready network of a kind that the table has for the time of a test."""
    monkeypatch.setitem(ARCHITECTURES, "Gain", GainArchitecture())
    network = Gain(["soft", "loud"], 0.5)
    network.gains.copy_(torch.tensor(GAINS))
    return network


@pytest.fixture
def gain_folder(gain: Gain, tmp_path: Path) -> Path:
    folder = tmp_path / "gain"
    folder.mkdir()
    save_file(gain.state_dict(), folder / "gain.safetensors")
    write_manifest(folder)
    return folder


def write_manifest(folder: Path, **arguments: Any) -> None:
    content = (folder / "gain.safetensors").read_bytes()
    file = {
        "name": "gain.safetensors",
        "bytes": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    network = {
        "architecture": "Gain",
        "arguments": {"sources": ["soft", "loud"], "segment": 0.5, **arguments},
        "files": [file],
    }
    facts = ("title", "code_license", "weight_license", "origin", "training_data")
    manifest = {
        "schema": 2,
        "name": "gain",
        **dict.fromkeys(facts, "made for a test"),
        "sources": ["soft", "loud"],
        "sample_rate": RATE,
        "channels": 2,
        "segment_seconds": 0.5,
        "segment_policy": "free",
        "parameters": 2,
        "networks": [network],
        "disputes": [],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")


@pytest.fixture
def song() -> np.ndarray:
    # Far from mean 0: normalising would show in the samples.
    return (0.2 + np.random.default_rng(0).normal(0, 0.1, (2, 3 * RATE))).astype(np.float32)


def test_another_kind_of_network_separates_from_its_file(gain_folder, song) -> None:
    stems = AudioStemSeparator(gain_folder).separate_audio(song, RATE)
    for factor, stem in zip(GAINS, stems.values(), strict=True):
        assert np.allclose(stem, factor * song, atol=1e-6)


def test_another_kind_of_network_separates_when_it_is_ready(gain, song) -> None:
    separator = AudioStemSeparator(gain)
    assert separator.sources == ("soft", "loud")
    stems = separator.separate_audio(song, RATE)
    assert np.allclose(stems["loud"], 2 * song, atol=1e-6)


def test_another_kind_of_network_is_verified_measured_and_swept(gain_folder, song) -> None:
    assert verify_model(gain_folder).parameters == 2
    separator = AudioStemSeparator(gain_folder)
    assert calibrate(separator).estimate(separator.plan(song.shape[1])).seconds > 0
    results = sweep(
        song, gain_folder, sample_rate=RATE, segments=[0.5, 2.0], overlaps=[0.25], store=False
    )
    assert set(results["source"]) >= {"soft", "loud"}


def test_a_network_runs_only_on_devices_of_its_architecture(gain, monkeypatch) -> None:
    monkeypatch.setattr(devices, "available_devices", lambda: ["cuda:0", "mps", "cpu"])
    assert AudioStemSeparator(gain).device == "cpu"
    with pytest.raises(ParameterError, match="'mps' is not available.*auto, cpu"):
        AudioStemSeparator(gain, device="mps")


def test_verifying_runs_the_network_once(gain_folder) -> None:
    write_manifest(gain_folder, broken=True)
    with pytest.raises(ModelRefusedError, match=r"expected .*, got"):
        verify_model(gain_folder)


def test_a_kind_that_takes_no_ready_networks_takes_none(gain, monkeypatch) -> None:
    monkeypatch.setattr(GainArchitecture, "takes_ready", False)
    with pytest.raises(ModelRefusedError, match="model is a Gain: expected .*HTDemucs, HDemucs,"):
        AudioStemSeparator(gain)


def test_names_of_architectures_stand_in_their_table_alone() -> None:
    root = Path(stemlab.__file__).parent
    for path in root.rglob("*.py"):
        if (root / "networks" / "architectures") in path.parents:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant):
                assert node.value not in ARCHITECTURES, f"{path}:{node.lineno}"
