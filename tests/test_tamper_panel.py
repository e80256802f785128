"""The tampering panel: real weights, really changed, really refused."""

from __future__ import annotations

import hashlib
import json
import pickle
import tempfile
from collections.abc import Iterator
from pathlib import Path

import ipywidgets
import pytest
import traitlets
from panels import find, shown
from safetensors.numpy import load

from stemlab import find_model
from stemlab._assets import asset_dir
from stemlab.widgets import TamperPanel
from stemlab.widgets.tamper_panel import TAMPERING

SECONDS = 60
MODEL = asset_dir("models") / "stemlab-mini"
WEIGHTS = MODEL / "stemlab-mini.safetensors"
OTHER = "put other weights in its place"
PICKLE = "put a pickle in its place"


@pytest.fixture
def panel(
    threads_end: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TamperPanel]:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before = {each.name: each.read_bytes() for each in MODEL.iterdir()}
    made = TamperPanel()
    yield made
    made.close()
    assert list(tmp_path.glob("stemlab-*")) == []
    assert {each.name: each.read_bytes() for each in MODEL.iterdir()} == before


def loads(panel: TamperPanel, tampering: str, *, fit: bool = False, by: str = "folder") -> bool:
    panel.tampering, panel.fit_manifest, panel.ask_by = tampering, fit, by
    panel.tamper()
    loaded = panel.wait(SECONDS)
    assert isinstance(loaded, bool)
    assert panel.loaded is loaded
    assert panel.message == ("Loaded." if loaded else "Refused.")
    assert loaded == (panel.refusal == "")
    assert panel.error == ""
    return loaded


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, bytes]]]:
    """What was in each copy when it was to be loaded."""
    seen: list[dict[str, bytes]] = []
    load_copy = TamperPanel._load

    def look(panel: TamperPanel, folder: Path, ask_by: str) -> str:
        seen.append({each.name: each.read_bytes() for each in folder.iterdir()})
        return load_copy(panel, folder, ask_by)

    monkeypatch.setattr(TamperPanel, "_load", look)
    yield seen
    assert seen


@pytest.mark.parametrize(
    ("tampering", "says"),
    [
        ("flip one bit", "is not the recorded file, or was damaged"),
        ("cut off the last byte", "is shorter than recorded"),
        (OTHER, "is not the recorded file, or was damaged"),
        (PICKLE, "is not the recorded file, or was damaged"),
    ],
)
def test_changed_weights_are_refused(panel: TamperPanel, tampering: str, says: str) -> None:
    find(panel, ipywidgets.Dropdown, "Tampering").value = tampering
    find(panel, ipywidgets.Button, "Tamper and load").click()
    assert panel.wait(SECONDS) is False
    assert panel.loaded is False
    assert says in panel.refusal
    assert panel.refusal.startswith("'copy/stemlab-mini.safetensors'")
    assert "<b>stemlab says:</b>" in shown(panel)
    assert "of 64 digits differ" in shown(panel)
    assert panel.error == ""
    assert panel.message == "Refused."


@pytest.mark.parametrize("by", ["folder", "name"])
def test_an_untouched_copy_is_loaded(panel: TamperPanel, by: str) -> None:
    assert loads(panel, "nothing", fit=True, by=by)
    assert "stemlab says" not in shown(panel)
    assert "weights: actual SHA-256, identical" in shown(panel)
    assert ("manifest: actual SHA-256, identical" in shown(panel)) == (by == "name")
    assert "<b style" not in shown(panel)


def test_a_folder_is_loaded_if_its_own_manifest_matches(panel: TamperPanel) -> None:
    assert loads(panel, OTHER, fit=True)
    assert "weights: actual SHA-256, identical" in shown(panel)
    assert "in the registry" not in shown(panel)


@pytest.mark.parametrize("tampering", TAMPERING[1:])
def test_a_name_is_held_against_the_registry(panel: TamperPanel, tampering: str) -> None:
    find(panel, ipywidgets.Checkbox, "Change the manifest to match").value = True
    find(panel, ipywidgets.Dropdown, "Load by").value = "name"
    assert not loads(panel, tampering, fit=True, by="name")
    assert panel.refusal.startswith("'copy/manifest.json' is not the recorded file")
    assert find_model("stemlab-mini").sha256 in panel.refusal
    assert find_model("stemlab-mini").sha256 in shown(panel)


@pytest.mark.parametrize("tampering", ["cut off the last byte", PICKLE])
def test_what_is_no_weights_is_refused_whatever_vouches_for_it(
    panel: TamperPanel, tampering: str
) -> None:
    assert not loads(panel, tampering, fit=True)
    assert "is not a valid safetensors file" in panel.refusal


def test_the_pickle_is_live_and_never_opened(
    panel: TamperPanel, copies: list[dict[str, bytes]], capfd: pytest.CaptureFixture[str]
) -> None:
    assert not loads(panel, PICKLE)
    assert not loads(panel, PICKLE, fit=True)
    assert capfd.readouterr().out == ""
    content = copies[0][WEIGHTS.name]
    assert len(content) == WEIGHTS.stat().st_size
    pickle.loads(content)
    assert capfd.readouterr().out == "A pickle was opened, and its code ran.\n"


def test_other_weights_are_valid_ones_of_the_same_size(
    panel: TamperPanel, copies: list[dict[str, bytes]]
) -> None:
    loads(panel, OTHER, fit=True)
    content = copies[0][WEIGHTS.name]
    assert len(content) == WEIGHTS.stat().st_size
    true, other = load(WEIGHTS.read_bytes()), load(content)
    assert {key: each.shape for key, each in other.items()} == {
        key: each.shape for key, each in true.items()
    }
    assert not any(each.any() for each in other.values())


@pytest.mark.parametrize("tampering", TAMPERING[1:])
def test_the_manifest_is_changed_only_where_it_has_to_be(
    panel: TamperPanel, copies: list[dict[str, bytes]], tampering: str
) -> None:
    loads(panel, tampering, fit=True)
    loads(panel, tampering)
    fitted, untouched = (each["manifest.json"] for each in copies)
    assert untouched == (MODEL / "manifest.json").read_bytes()
    weights = copies[0][WEIGHTS.name]
    expected = json.loads(untouched)
    (file,) = expected["networks"][0]["files"]
    file |= {"bytes": len(weights), "sha256": hashlib.sha256(weights).hexdigest()}
    assert json.loads(fitted) == expected


@pytest.mark.parametrize("byte", [0, 10**12])
def test_any_byte_counts_and_both_digests_are_shown(panel: TamperPanel, byte: int) -> None:
    panel.byte = byte
    assert panel.byte == min(byte, WEIGHTS.stat().st_size - 1)
    assert not loads(panel, "flip one bit")
    manifest = json.loads((MODEL / "manifest.json").read_text("utf-8"))
    recorded = manifest["networks"][0]["files"][0]["sha256"]
    changed = bytearray(WEIGHTS.read_bytes())
    changed[panel.byte] ^= 1
    found = hashlib.sha256(changed).hexdigest()
    assert f"<code>{recorded}</code>" in shown(panel)
    assert found in panel.refusal
    different = sum(one != other for one, other in zip(found, recorded, strict=True))
    assert f"weights: actual SHA-256, {different} of 64 digits differ" in shown(panel)
    assert shown(panel).count("<b style") == different


def test_the_slider_belongs_to_the_bit(panel: TamperPanel) -> None:
    slider = find(panel, ipywidgets.IntSlider, "Byte")
    assert slider.layout.display == "none"
    panel.tampering = "flip one bit"
    assert slider.layout.display == ""
    slider.value = 7
    assert panel.byte == 7


def test_only_what_is_offered_can_be_set(panel: TamperPanel) -> None:
    for name, value in (("tampering", "burn it"), ("ask_by", "telephone"), ("fit_manifest", 2)):
        with pytest.raises(traitlets.TraitError, match=name):
            setattr(panel, name, value)
    assert repr(panel) == (
        "TamperPanel(tampering='nothing', fit_manifest=False, ask_by='folder', loaded=None)"
    )
