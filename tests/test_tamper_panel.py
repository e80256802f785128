"""The tampering panel: real weights, really changed, really refused."""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import ipywidgets
import pytest
from panels import find, shown

from stemlab._assets import asset_dir
from stemlab.widgets import TamperPanel
from stemlab.widgets.tamper_panel import TAMPERING

SECONDS = 60
MODEL = asset_dir("models") / "stemlab-mini"


@pytest.fixture
def panel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[TamperPanel]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = {each.name: each.read_bytes() for each in MODEL.iterdir()}
    threads = set(threading.enumerate())
    made = TamperPanel()
    yield made
    made.close()
    assert set(threading.enumerate()) <= threads
    assert list(tmp_path.glob("stemlab-*")) == []
    assert {each.name: each.read_bytes() for each in MODEL.iterdir()} == before


@pytest.mark.parametrize(
    ("tampering", "says"),
    [
        ("flip one bit", "is not the recorded file, or was damaged"),
        ("cut off the last byte", "is shorter than recorded"),
        ("put a pickle in its place", "is not the recorded file"),
    ],
)
def test_changed_weights_are_refused(panel: TamperPanel, tampering: str, says: str) -> None:
    find(panel, ipywidgets.Dropdown, "Do").value = tampering
    find(panel, ipywidgets.Button, "Tamper and load").click()
    assert panel.wait(SECONDS) is False
    assert panel.loaded is False
    assert says in panel.refusal
    assert panel.refusal.startswith("'copy/stemlab-mini.safetensors'")
    assert "<b>Refused:</b>" in shown(panel)
    assert panel.error == ""


@pytest.mark.parametrize("tampering", [TAMPERING[0], TAMPERING[-1]])
def test_what_its_own_manifest_vouches_for_is_loaded(panel: TamperPanel, tampering: str) -> None:
    panel.tampering = tampering
    panel.tamper()
    assert panel.wait(SECONDS) is True
    assert panel.refusal == ""
    assert "<b>Loaded.</b>" in shown(panel)
    assert "<b style" not in shown(panel)


@pytest.mark.parametrize("byte", [0, 10**12])
def test_any_byte_counts_and_both_digests_are_shown(panel: TamperPanel, byte: int) -> None:
    panel.tampering, panel.byte = "flip one bit", byte
    assert 0 <= panel.byte < (MODEL / "stemlab-mini.safetensors").stat().st_size
    panel.tamper()
    assert panel.wait(SECONDS) is False
    manifest = json.loads((MODEL / "manifest.json").read_text("utf-8"))
    recorded = manifest["networks"][0]["files"][0]["sha256"]
    changed = bytearray((MODEL / "stemlab-mini.safetensors").read_bytes())
    changed[panel.byte] ^= 1
    assert recorded in shown(panel)
    assert hashlib.sha256(changed).hexdigest() in panel.refusal


def test_the_slider_belongs_to_the_bit(panel: TamperPanel) -> None:
    slider = find(panel, ipywidgets.IntSlider, "Byte")
    assert slider.layout.display == "none"
    panel.tampering = "flip one bit"
    assert slider.layout.display == ""
    assert repr(panel) == "TamperPanel(tampering='flip one bit', loaded=None)"
