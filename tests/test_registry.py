from __future__ import annotations

import hashlib
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file

from stemlab import registry
from stemlab._assets import asset_dir
from stemlab._models.loading import load_networks
from stemlab.errors import ModelNotFoundError, ModelRefusedError
from stemlab.registry import find_model, list_models, read_manifest, read_verified
from stemlab.separation import AudioStemSeparator

MINI = "stemlab-mini"


@pytest.fixture
def folder(tmp_path):
    """A copy of the default model that a test may damage."""
    copied = tmp_path / "model"
    shutil.copytree(asset_dir("models") / MINI, copied)
    return copied


def edit(folder, change, *, network=None):
    """Rewrite the manifest, as somebody would who wants a file to be accepted."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_bytes())
    fields.update(change)
    fields["networks"][0].update(network or {})
    path.write_text(json.dumps(fields), "utf-8")


def replace_weights(folder, state):
    """Change the weights and enter their new digest, so that only later checks can refuse them."""
    path = folder / f"{MINI}.safetensors"
    save_file(state, path)
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    edit(folder, {}, network={"bytes": len(content), "sha256": sha256})


def test_every_registered_model_is_complete_and_loads():
    names = [each.name for each in list_models()]
    assert MINI in names
    for manifest in list_models():
        networks = load_networks(manifest)
        assert sum(p.numel() for net in networks for p in net.parameters()) == manifest.parameters
        assert manifest.weight_license
        assert not any(each.training for each in networks)


def test_a_folder_gets_the_same_model(folder):
    assert find_model(str(folder)).networks[0].sha256 == find_model(MINI).networks[0].sha256


@pytest.mark.parametrize("position", [0, 7, 8, 5000, -1])
def test_any_flipped_byte_of_the_weights_is_refused(folder, position):
    path = folder / f"{MINI}.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    (entry,) = read_manifest(folder).networks
    with pytest.raises(ModelRefusedError, match="expected SHA-256") as caught:
        read_verified(entry)
    assert caught.value.path == path
    assert caught.value.expected == entry.sha256
    assert caught.value.actual == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda content: content[:-1], "shorter"), (lambda content: content + b"\0", "longer")],
)
def test_a_wrong_size_is_refused(folder, damage, message):
    path = folder / f"{MINI}.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelRefusedError, match=message):
        load_networks(read_manifest(folder))


def test_a_changed_manifest_of_a_registered_model_is_refused(folder, tmp_path, monkeypatch):
    shutil.copy(asset_dir("models") / "registry.json", tmp_path)
    (tmp_path / MINI).mkdir()
    for each in folder.iterdir():
        shutil.copy(each, tmp_path / MINI)
    monkeypatch.setattr(registry, "asset_dir", lambda _: tmp_path)
    find_model(MINI)
    edit(tmp_path / MINI, {"weight_license": "none of your business"})
    with pytest.raises(ModelRefusedError, match=r"manifest\.json.* expected SHA-256"):
        find_model(MINI)


@pytest.mark.parametrize(
    ("change", "network", "message"),
    [
        ({"schema": 2}, {}, "schema is 2"),
        ({"sources": []}, {}, "cannot name files"),
        ({"sources": ["../drums", "bass", "other", "vocals"]}, {}, "cannot name files"),
        ({"weight_license": ""}, {}, "weight_license"),
        ({"segment_policy": "any"}, {}, "segment_policy"),
        ({"sample_rate": -1}, {}, "sample_rate"),
        ({}, {"file": "../mini.safetensors"}, "leaves the model's folder"),
        ({}, {"file": "weights.th"}, "not a .safetensors"),
        ({}, {"sha256": "8726e21a"}, "not 64 hex digits"),
        ({}, {"bytes": 1 << 40}, "claims"),
        ({}, {"gains": [1, 1]}, "one per source"),
    ],
)
def test_invalid_manifests_are_refused(folder, change, network, message):
    edit(folder, change, network=network)
    with pytest.raises(ModelRefusedError, match=message):
        read_manifest(folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"schema": 1}'])
def test_what_is_no_manifest_is_refused(folder, content):
    (folder / "manifest.json").write_text(content, "utf-8")
    with pytest.raises(ModelRefusedError, match=r"manifest\.json"):
        read_manifest(folder)


def test_a_link_out_of_the_folder_is_refused(folder, tmp_path):
    path = folder / f"{MINI}.safetensors"
    path.rename(tmp_path / "elsewhere.safetensors")
    path.symlink_to(tmp_path / "elsewhere.safetensors")
    with pytest.raises(ModelRefusedError, match="leaves"):
        read_manifest(folder)


def test_unknown_names():
    with pytest.raises(ModelNotFoundError, match=f"{MINI}.*models list"):
        find_model("htdemucs-typo")


def test_a_folder_cannot_stand_in_for_a_name(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ModelNotFoundError, match=r"write '\./model'"):
        find_model("model")
    assert find_model("./model").name == MINI


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"architecture": "os.system"}, "allowed are HDemucs, HTDemucs"),
        ({"architecture": "HDemucs"}, "unknown arguments|does not fit"),
    ],
)
def test_architectures_outside_the_list_are_refused(folder, network, message):
    edit(folder, {}, network=network)
    with pytest.raises(ModelRefusedError, match=message):
        load_networks(read_manifest(folder))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spam": 1}, "unknown arguments"),
        ({"depth": "four"}, "does not take"),
        ({"channels": 12}, "of shape"),
        ({"t_layers": 1}, "not known"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(folder, change, message):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    edit(folder, {}, network={"arguments": {**manifest["networks"][0]["arguments"], **change}})
    with pytest.raises(ModelRefusedError, match=message):
        load_networks(read_manifest(folder))


def test_a_manifest_that_contradicts_itself_is_refused(folder):
    edit(folder, {"sample_rate": 48_000})
    with pytest.raises(ModelRefusedError, match="contradicts itself"):
        AudioStemSeparator(str(folder))


def test_states_that_do_not_fit_are_refused(folder):
    good = load_file(folder / f"{MINI}.safetensors")
    name = next(iter(good))
    for change, message in (
        ({name: torch.full_like(good[name], float("nan"))}, "not finite"),
        ({name: good[name].double()}, "float64"),
        ({name: good[name].flatten()[:-1].clone()}, "of shape"),
        ({"another": torch.zeros(1)}, "another"),
    ):
        replace_weights(folder, {**good, **change})
        with pytest.raises(ModelRefusedError, match=message):
            load_networks(read_manifest(folder))
    replace_weights(folder, {key: value for key, value in good.items() if key != name})
    with pytest.raises(ModelRefusedError, match="1 tensors are missing"):
        load_networks(read_manifest(folder))


def test_what_is_no_safetensors_is_refused(folder):
    content = b"\xff" * 100
    (folder / f"{MINI}.safetensors").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    edit(folder, {}, network={"bytes": len(content), "sha256": sha256})
    with pytest.raises(ModelRefusedError, match="not a valid safetensors"):
        load_networks(read_manifest(folder))


def test_half_precision_weights_make_a_float_network(folder):
    state = load_file(folder / f"{MINI}.safetensors")
    replace_weights(folder, {key: value.half() for key, value in state.items()})
    (network,) = load_networks(read_manifest(folder))
    assert {each.dtype for each in network.parameters()} == {torch.float32}
