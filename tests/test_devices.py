"""Devices that are not here: what is said of them is replaced, as each test tells."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stemlab import cost
from stemlab.networks.architectures import ARCHITECTURES
from stemlab.networks.devices import Device, is_same_device
from stemlab.networks.forward import NetworkRunner
from stemlab.separation import AudioStemSeparator


def on_gpu(place: str) -> AudioStemSeparator:
    separator = AudioStemSeparator(device="cpu")
    separator._model.device = Device(torch.device(place), "asked for")
    return separator


@pytest.mark.parametrize(
    ("place", "library", "function"),
    [
        ("cuda:0", torch.cuda, "get_device_name"),
        ("mps", torch.backends.mps, "get_name"),
    ],
)
def test_what_decides_the_samples_holds_the_name_of_the_gpu(
    monkeypatch, place, library, function
) -> None:
    names = iter(["GPU of one kind", "GPU of one kind", "GPU of another kind"])
    monkeypatch.setattr(library, function, lambda *_: next(names))
    separator = on_gpu(place)
    first, same, other = (separator.identity for _ in range(3))
    assert "GPU of one kind" in first["arithmetic"]["hardware"]
    assert first == same != other


def test_another_gpu_is_calibrated_anew(monkeypatch) -> None:
    name = "GPU of one kind"
    measured = []
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)
    monkeypatch.setattr(cost, "_measure", lambda *_: measured.append(name) or [0.1, 0.4])
    cost.calibrate(on_gpu("cuda:0"))
    cost.calibrate(on_gpu("cuda:0"))
    name = "GPU of another kind"
    cost.calibrate(on_gpu("cuda:0"))
    assert measured == ["GPU of one kind", "GPU of another kind"]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("mps:0", "mps", True),
        ("cuda:0", "cuda", True),
        ("cuda:1", "cuda:0", False),
        ("cpu", "mps", False),
    ],
)
def test_a_device_is_the_same_with_and_without_its_number(one, other, same) -> None:
    assert is_same_device(torch.device(one), torch.device(other)) == same


class Placed(nn.Module):
    """A network whose only weight says that it lies on some device, and that cannot be copied."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = torch.device(place)
        self.eval()

    def parameters(self, recurse: bool = True):
        yield SimpleNamespace(dtype=torch.float32, device=self.place)

    def __deepcopy__(self, memo):
        raise AssertionError("the network was copied")


def test_a_ready_network_on_an_apple_gpu_is_shared() -> None:
    NetworkRunner(Placed("mps:0"), ARCHITECTURES["HDemucs"], torch.device("mps"))


def test_a_ready_network_elsewhere_is_copied() -> None:
    with pytest.raises(AssertionError, match="was copied"):
        NetworkRunner(Placed("cpu"), ARCHITECTURES["HDemucs"], torch.device("mps"))
