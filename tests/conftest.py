"""What the tests share: an offline environment, a seeded generator and small real networks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from attacks import AttackTable
from filelock import FileLock

if TYPE_CHECKING:
    from demucs.apply import BagOfModels
    from demucs.hdemucs import HDemucs
    from demucs.htdemucs import HTDemucs

# The sockets of this process are closed to all but the loopback (see pyproject.toml). Programs and
# kernels that a test starts are not covered by that; these settings, which they inherit, make the
# usual clients fail at once instead of downloading. They are a guard against accidents, not a wall.
os.environ["HF_HUB_OFFLINE"] = "1"
for _name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
    os.environ[_name] = os.environ[_name.lower()] = "http://127.0.0.1:9"
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost,::1"

# One thread of PyTorch, here and in every process that a test starts. Two tests may run at a time,
# and threads that wait for each other spin: networks this small take six times as long with two.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Whatever models the person who runs the tests has added are not theirs to use or to change.
_MODELS = tempfile.TemporaryDirectory(prefix="stemlab-tests-")
os.environ["STEMLAB_MODELS"] = _MODELS.name
# Nor what was measured before.
_CACHE = tempfile.TemporaryDirectory(prefix="stemlab-tests-")
os.environ["STEMLAB_CACHE"] = _CACHE.name

SOURCES = ["drums", "bass", "other", "vocals"]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out long tests."""
    if os.environ.get("STEMLAB_LONG") != "1":
        left_out = [item for item in items if item.get_closest_marker("long")]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("long")]


@pytest.fixture(autouse=True)
def one_at_a_time(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Run one test at a time of those that measure memory, and of those that drive a browser."""
    with ExitStack() as held:
        if "PYTEST_XDIST_WORKER" in os.environ:
            shared = tmp_path_factory.getbasetemp().parent
            for marker in ("browser", "memory"):
                if request.node.get_closest_marker(marker):
                    held.enter_context(FileLock(shared / f"{marker}.lock"))
        yield


@pytest.fixture
def threads_end() -> Iterator[None]:
    """No thread of the test outlives it: each may take a moment after it told that it is done."""
    before = set(threading.enumerate())
    yield
    give_up = time.monotonic() + 5
    while (left := set(threading.enumerate()) - before) and time.monotonic() < give_up:
        time.sleep(0.01)
    assert not left


@pytest.fixture(scope="session")
def attack_table() -> Iterator[AttackTable]:
    table = AttackTable()
    yield table
    table.save()


@pytest.fixture
def refused(
    attack_table: AttackTable, request: pytest.FixtureRequest
) -> Callable[[str, str, object], None]:
    """Hold what was said to an attack against the table: by which way it came, and its name."""
    test = f"{request.node.path.name}: {request.node.originalname}"
    return lambda way, attack, said: attack_table.refused(way, attack, str(said), test)


@pytest.fixture
def v0_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what version 0.1 left on disk, with its models and its cache in use."""
    folder = tmp_path / "v0_1"
    shutil.copytree(Path(__file__).parent / "fixtures" / "v0_1", folder)
    monkeypatch.setenv("STEMLAB_MODELS", str(folder / "models"))
    monkeypatch.setenv("STEMLAB_CACHE", str(folder / "cache"))
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def _lively(make: Callable[..., Any], seed: int, **arguments: Any) -> Any:
    """Build a network whose output is as loud as its input and follows it.

    A fresh one is close to silent, gives mostly the pattern of its biases, and nearly switches off
    its residual branches (scales of 1e-3 and 1e-4): that would hide errors.
    """
    import torch

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = make(SOURCES, samplerate=44100, **arguments).eval().requires_grad_(False)
        for name, parameter in network.named_parameters():
            if name.endswith(".scale"):
                parameter.normal_(0.0, 0.3)
            elif parameter.ndim == 1 and name.endswith(".weight"):
                parameter.normal_(1.0, 0.2)
            elif parameter.ndim == 1:
                parameter.mul_(0.1)
            elif ".conv" in name or ".rewrite" in name:
                parameter.mul_(2.0)
        noise = 0.1 * torch.randn(1, 2, 44100)
        gain = noise.std() / network(noise).std()
        for decoder in (network.decoder, network.tdecoder):
            last = decoder[-1].conv_tr
            last.weight.mul_(gain)
            last.bias.mul_(gain)
    return network


def _tiny_htdemucs(seed: int) -> HTDemucs:
    from demucs.htdemucs import HTDemucs

    return _lively(
        HTDemucs,
        seed,
        channels=8,
        bottom_channels=32,
        t_layers=3,
        t_heads=2,
        t_hidden_scale=1.0,
        segment=1.0,
    )


@pytest.fixture(scope="session")
def tiny_htdemucs() -> HTDemucs:
    """A real HTDemucs of 0.3 million weights, one second of training segment. Do not modify."""
    return _tiny_htdemucs(0)


@pytest.fixture(scope="session")
def tiny_hdemucs() -> HDemucs:
    """A real HDemucs of 0.6 million weights, one second of segment. Do not modify."""
    from demucs.hdemucs import HDemucs

    return _lively(HDemucs, 1, channels=4, segment=1.0)


@pytest.fixture(scope="session")
def tiny_bag(tiny_htdemucs: HTDemucs) -> BagOfModels:
    """Two networks with unequal weights for every source. Do not modify."""
    from demucs.apply import BagOfModels

    return BagOfModels(
        [tiny_htdemucs, _tiny_htdemucs(2)], weights=[[1.0, 0.5, 0.0, 2.0], [1.0, 1.5, 1.0, 1.0]]
    )


@pytest.fixture(scope="session")
def tiny_model_folder(tiny_htdemucs: HTDemucs, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small real model: four segments for three seconds."""
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    weights = folder / "tiny.safetensors"
    save_file({name: each.clone() for name, each in tiny_htdemucs.state_dict().items()}, weights)
    network = {
        "architecture": "HTDemucs",
        "arguments": {
            "sources": SOURCES,
            "samplerate": 44100,
            "channels": 8,
            "bottom_channels": 32,
            "t_layers": 3,
            "t_heads": 2,
            "t_hidden_scale": 1.0,
            "segment": 1.0,
        },
        "files": [
            {
                "name": weights.name,
                "bytes": weights.stat().st_size,
                "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            }
        ],
    }
    manifest = {
        "schema": 2,
        "name": "tiny",
        "title": "tiny <of the tests>",
        "sources": SOURCES,
        "sample_rate": 44100,
        "channels": 2,
        "segment_seconds": 1.0,
        "segment_policy": "padded",
        "parameters": sum(each.numel() for each in tiny_htdemucs.parameters()),
        "networks": [network],
        "code_license": "MIT",
        "weight_license": "CC0-1.0",
        "disputes": [],
        "origin": "random numbers",
        "training_data": "none",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return str(folder)
