from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from safetensors.torch import load_file, save_file

from stemlab._assets import asset_dir
from stemlab.errors import ModelNotFoundError, ModelRefusedError, ParameterError
from stemlab.networks.loading import build_network, load_network
from stemlab.networks.spec import spec_of_manifest
from stemlab.registry import lookup
from stemlab.registry.lookup import (
    builtin_names,
    find_model,
    list_models,
    own_names,
    registered_name,
)
from stemlab.registry.manifests import read_manifest
from stemlab.registry.store import (
    InstalledFile,
    installed_file,
    is_installed,
    models_dir,
    read_records,
    read_registry,
)
from stemlab.separation import AudioStemSeparator, SeparationSettings

MINI = "stemlab-mini"
RELEASED = [
    "htdemucs",
    "htdemucs_ft",
    "htdemucs_6s",
    "hdemucs_mmi",
    "hdemucs_high_musdb_plus",
]


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    """A models folder of the test's own."""
    folder = tmp_path / "store"
    monkeypatch.setenv("STEMLAB_MODELS", str(folder))
    return folder


def load(manifest):
    """Load the only network of a model."""
    (network,) = manifest.networks
    return load_network(manifest, network)[0]


def manifest_digest(folder):
    return hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()


@pytest.fixture
def folder(tmp_path):
    """A copy of the default model that a test may damage."""
    copied = tmp_path / "model"
    shutil.copytree(asset_dir("models") / MINI, copied)
    return copied


def register_model(name, sha256):
    """List a model of the user's, as adding does."""
    models_dir().mkdir(exist_ok=True)
    models = {**read_registry(models_dir()), name: {"manifest_sha256": sha256}}
    content = json.dumps({"schema": 2, "models": models})
    (models_dir() / "registry.json").write_text(content, "utf-8")


def record_file(folder, installed, *, confirmed):
    """Record what a file was made from, as adding does."""
    record = {
        "file": installed.path.name,
        "bytes": installed.size,
        "sha256": installed.sha256,
        "source_sha256": installed.source.sha256,
        "confirmed": confirmed,
    }
    content = json.dumps({"schema": 2, "files": [record]})
    (folder / "installed.json").write_text(content, "utf-8")
    assert len(read_records(folder)) == 1


def edit(folder, model=(), *, network=(), file=()):
    """Rewrite the manifest, as somebody would who wants a file to be accepted."""
    path = folder / "manifest.json"
    fields = json.loads(path.read_bytes())
    fields.update(model)
    if network:
        fields["networks"][0].update(network)
    if file:
        fields["networks"][0]["files"][0].update(file)
    path.write_text(json.dumps(fields), "utf-8")


def replace_weights(folder, state):
    """Change the weights and enter their new digest, so that only later checks can refuse them."""
    path = folder / f"{MINI}.safetensors"
    save_file(state, path)
    content = path.read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    edit(folder, file={"bytes": len(content), "sha256": sha256})


def test_every_model_that_comes_with_stemlab_is_complete_and_loads():
    bundled = [each for each in list_models() if each.kind == "bundled"]
    assert [each.name for each in bundled] == [MINI]
    for manifest in bundled:
        network = load(manifest)
        assert sum(p.numel() for p in network.parameters()) == manifest.parameters
        assert not any(each.training for each in network.modules())


def test_the_registry_holds_the_released_models():
    assert builtin_names() == [MINI, *RELEASED]
    for manifest in list_models():
        assert manifest.weight_license
        assert is_installed(manifest) == (manifest.name == MINI)


@pytest.mark.parametrize("name", RELEASED)
def test_recorded_architectures_fit_the_recorded_sizes(name):
    """Nobody here has these files; but their sizes leave no room for another architecture."""
    manifest = find_model(name)
    total = 0
    for network in manifest.networks:
        if network.architecture == "torchaudio.HDemucs":
            # Counted by test_torchaudio, which can import it.
            total += 83_639_368
            width = 4
        else:
            module = build_network(network, name)
            total += sum(each.numel() for each in module.parameters())
            width = 2
        share = manifest.parameters // len(manifest.networks)
        for file in network.files:
            assert 0 < file.size - width * share < 200_000, file.name
    assert total == manifest.parameters


@pytest.mark.parametrize("name", RELEASED)
def test_origins_of_the_released_models_are_pinned(name):
    for network in find_model(name).networks:
        for file in network.files:
            signature, _, beginning = file.name.partition(".")[0].partition("-")
            assert file.url.endswith("/" + file.name)
            if "huggingface.co" in file.url:
                assert re.search(r"/resolve/[0-9a-f]{40}/", file.url)
            # The first part of a name is a signature of the training, no checksum.
            assert file.sha256.startswith(beginning)
            assert not signature or not file.sha256.startswith(signature)


def test_the_bag_uses_each_network_for_one_source():
    manifest = find_model("htdemucs_ft")
    assert [each.gains for each in manifest.networks] == [
        tuple(float(row == column) for column in range(4)) for row in range(4)
    ]
    assert len(spec_of_manifest(manifest).members) == 4


def test_licences_of_disputed_weights_are_never_just_mit():
    for name in RELEASED:
        manifest = find_model(name)
        assert manifest.weight_license != manifest.code_license
        assert any(each.startswith("Licence of the weights") for each in manifest.disputes)


def test_a_digest_with_one_source_is_marked():
    unconfirmed = {
        manifest.name
        for manifest in list_models()
        for network in manifest.networks
        for file in network.files
        if file.unconfirmed
    }
    assert unconfirmed == {"hdemucs_mmi"}


def test_names_are_found_in_any_case():
    assert find_model("HDEMUCS_HIGH_MUSDB_PLUS").name == "hdemucs_high_musdb_plus"


def test_names_of_own_models_are_found_in_any_case_after_the_built_in_ones(store, folder):
    register_model("mine", manifest_digest(folder))
    assert registered_name("Mine") == "mine"
    assert registered_name("Mine", own=False) is None
    assert registered_name("HTDemucs") == registered_name("HTDemucs", own=False) == "htdemucs"
    assert registered_name("theirs") is None


def test_an_installation_without_its_registry_is_no_empty_one(store, tmp_path, monkeypatch):
    monkeypatch.setattr(lookup, "asset_dir", lambda name: tmp_path)
    with pytest.raises(ModelNotFoundError, match=r"registry\.json' is missing"):
        find_model(MINI)


def test_models_that_are_not_installed_say_how_to_add_them(store):
    manifest = find_model("htdemucs")
    with pytest.raises(ModelNotFoundError, match="models add htdemucs --from"):
        installed_file(manifest, manifest.networks[0])
    separator = AudioStemSeparator("htdemucs")
    assert separator.plan(44_100 * 60)
    with pytest.raises(ModelNotFoundError, match="not installed"):
        separator.check(SeparationSettings())


def test_models_live_where_the_platform_keeps_data_or_where_the_user_says(monkeypatch, store):
    assert models_dir() == store
    monkeypatch.delenv("STEMLAB_MODELS")
    assert models_dir() == Path(platformdirs.user_data_dir("stemlab", False)) / "models"


def test_an_own_model_cannot_replace_a_built_in_one(folder, store):
    """Even if somebody writes it into the user's registry by hand, in whatever case."""
    for name in (MINI, "HTDemucs"):
        shutil.copytree(folder, store / name)
        edit(store / name, {"title": "not the real one"})
        register_model(name, manifest_digest(store / name))
    assert own_names() == []
    assert find_model(MINI).title != "not the real one"
    assert find_model("htdemucs").kind == "released"


def test_a_changed_manifest_of_an_own_model_is_refused_and_hides_no_other(
    folder, store, caplog, refused
):
    shutil.copytree(folder, store / "mine")
    register_model("mine", manifest_digest(folder))
    assert find_model("mine").kind == "user"
    assert own_names() == ["mine"]
    edit(store / "mine", {"title": "another"})
    with pytest.raises(ModelRefusedError, match="expected SHA-256") as refusal:
        find_model("mine")
    refused("manifest", "an own model's manifest changed", refusal.value)
    assert [each.name for each in list_models()] == [MINI, *RELEASED]
    assert "mine/manifest.json' is not the recorded file" in caplog.text.replace("\\", "/")
    assert str(store) not in caplog.text, "logs name no folders"


def test_an_own_model_whose_files_are_gone_says_what_to_do(folder, store, caplog):
    register_model("mine", manifest_digest(folder))
    with pytest.raises(ModelNotFoundError, match="is gone.*`stemlab models remove mine`"):
        find_model("Mine")
    assert [each.name for each in list_models()] == [MINI, *RELEASED]
    assert "models remove mine" in caplog.text
    assert str(store) not in caplog.text, "logs name no folders"


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        '{"schema": 1, "models": {}}',
        '{"schema": 2}',
        '{"schema": 2, "models": []}',
        '{"schema": 2, "models": {"../x": {"manifest_sha256": "' + 64 * "0" + '"}}}',
        '{"schema": 2, "models": {"x": {"manifest_sha256": "0000000"}}}',
        '{"schema": 2, "models": {"x": 1}}',
    ],
)
def test_a_damaged_user_registry_is_refused_and_spares_the_built_in_models(store, content, refused):
    store.mkdir()
    (store / "registry.json").write_text(content, "utf-8")
    assert find_model(MINI).name == MINI
    with pytest.raises(ModelRefusedError, match=r"registry\.json") as refusal:
        find_model("x")
    refused("models folder", f"registry.json: {content}", refusal.value)


def test_files_with_an_unconfirmed_digest_load_only_with_the_users_word(folder, store):
    """Not because the file lies there; only with a record that its digest was typed."""
    edit(folder, file={"confirmations": 1})
    manifest = read_manifest(folder, kind="released")
    (network,) = manifest.networks
    assert not is_installed(manifest)
    (file,) = network.files
    path = folder / file.name
    record_file(folder, InstalledFile(path, file.size, file.sha256, file), confirmed=False)
    assert not is_installed(manifest)
    record_file(folder, InstalledFile(path, file.size, file.sha256, file), confirmed=True)
    assert load(manifest)


@pytest.mark.parametrize(
    "record",
    [
        {"file": "../x.safetensors"},
        {"sha256": "d9fa1413"},
        {"bytes": "many"},
        {"confirmed": "yes"},
        {"more": 1},
    ],
)
def test_damaged_records_are_refused(folder, record, refused):
    manifest = read_manifest(folder, kind="released")
    (file,) = manifest.networks[0].files
    (folder / file.name).rename(folder / "made.safetensors")
    installed = InstalledFile(folder / "made.safetensors", file.size, file.sha256, file)
    record_file(folder, installed, confirmed=False)
    assert load(manifest)
    path = folder / "installed.json"
    fields = json.loads(path.read_bytes())
    fields["files"][0].update(record)
    path.write_text(json.dumps(fields), "utf-8")
    with pytest.raises(ModelRefusedError, match=r"installed\.json") as refusal:
        load(manifest)
    refused("models folder", f"installed.json: {json.dumps(record)}", refusal.value)


def test_a_folder_gets_the_same_model(folder):
    assert find_model(str(folder)).networks == find_model(MINI).networks


@pytest.mark.parametrize("position", [0, 7, 8, 5000, -1])
def test_any_flipped_byte_of_the_weights_is_refused(folder, position, refused):
    path = folder / f"{MINI}.safetensors"
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    manifest = read_manifest(folder)
    with pytest.raises(ModelRefusedError, match="expected SHA-256") as caught:
        load(manifest)
    assert caught.value.path == path
    assert caught.value.expected == manifest.networks[0].files[0].sha256
    assert caught.value.actual == hashlib.sha256(content).hexdigest()
    refused("models folder", f"byte {position} of the weights flipped", caught.value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [(lambda content: content[:-1], "shorter"), (lambda content: content + b"\0", "longer")],
)
def test_a_wrong_size_is_refused(folder, damage, message, refused):
    path = folder / f"{MINI}.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelRefusedError, match=message) as refusal:
        load(read_manifest(folder))
    refused("models folder", f"weights {message} than recorded", refusal.value)


def test_a_changed_manifest_of_a_registered_model_is_refused(
    folder, tmp_path, monkeypatch, refused
):
    shutil.copy(asset_dir("models") / "registry.json", tmp_path)
    (tmp_path / MINI).mkdir()
    for each in folder.iterdir():
        shutil.copy(each, tmp_path / MINI)
    monkeypatch.setattr(lookup, "asset_dir", lambda _: tmp_path)
    find_model(MINI)
    edit(tmp_path / MINI, {"weight_license": "none of your business"})
    with pytest.raises(ModelRefusedError, match=r"manifest\.json.* expected SHA-256") as refusal:
        find_model(MINI)
    refused("manifest", "a registered model's manifest changed", refusal.value)


@pytest.mark.parametrize(
    ("where", "change", "message"),
    [
        ("model", {"schema": 1}, "schema is 1"),
        ("model", {"sources": []}, "cannot name files"),
        ("model", {"sources": ["../drums", "bass", "other", "vocals"]}, "cannot name files"),
        ("model", {"weight_license": ""}, "weight_license"),
        ("model", {"segment_policy": "any"}, "segment_policy"),
        ("model", {"segment_seconds": 0}, "segment_seconds"),
        ("model", {"sample_rate": -1}, "sample_rate"),
        ("model", {"networks": []}, "no network"),
        ("network", {"gains": [1, 1]}, "one per source"),
        ("network", {"gains": [1, 1, -1, 1]}, "one per source"),
        ("network", {"gains": [1, 1, 0, 1]}, "no network has a share in source 2"),
        ("network", {"arguments": []}, "not a table"),
        ("network", {"files": []}, "no files"),
        ("file", {"name": "../mini.safetensors"}, "leaves the model's folder"),
        ("file", {"name": "..\\\\mini.safetensors"}, "leaves the model's folder"),
        ("file", {"name": ".."}, "not a plain name"),
        ("file", {"name": "nul.safetensors"}, "not a plain name"),
        ("file", {"name": "con.tar.safetensors"}, "not a plain name"),
        ("model", {"title": "red\x1b[31m"}, "title is not a text of printable"),
        ("model", {"origin": "two\nlines"}, "origin is not a text of printable"),
        ("model", {"disputes": ["\x1b[2J"]}, "disputes is not a text of printable"),
        ("model", {"disputes": "one"}, "disputes is not a list"),
        ("model", {"more": float("nan")}, "NaN is not a number"),
        ("file", {"name": "weights.ckpt"}, "neither .safetensors nor"),
        ("file", {"sha256": "8726e21a"}, "not 64 lower-case hex digits"),
        ("file", {"sha256": None}, "not 64 lower-case hex digits"),
        ("file", {"bytes": 1 << 40}, "claims"),
        ("file", {"bytes": True}, "bytes"),
        ("file", {"url": "http://example.org/x"}, "https"),
        ("file", {"confirmations": 0}, "confirmations"),
    ],
)
def test_invalid_manifests_are_refused(folder, where, change, message, refused):
    edit(folder, **{where: change})
    with pytest.raises(ModelRefusedError, match=message) as refusal:
        read_manifest(folder)
    refused("manifest", f"{where}: {json.dumps(change)}", refusal.value)


@pytest.mark.parametrize(
    ("where", "change", "beyond"),
    [
        ("model", {"segment_seconds": 3599.5}, {"segment_seconds": 3600}),
        ("file", {"bytes": 4 << 30}, {"bytes": (4 << 30) + 1}),
        ("file", {"name": 116 * "a" + ".safetensors"}, {"name": 117 * "a" + ".safetensors"}),
    ],
)
def test_a_manifest_may_hold_what_is_at_its_limits(folder, where, change, beyond):
    edit(folder, **{where: change})
    assert read_manifest(folder).name == MINI
    edit(folder, **{where: beyond})
    with pytest.raises(ModelRefusedError):
        read_manifest(folder)


@pytest.mark.parametrize(("confirmations", "unconfirmed"), [(None, False), (1, True), (2, False)])
def test_two_sources_confirm_a_digest(folder, confirmations, unconfirmed):
    edit(folder, file={"confirmations": confirmations})
    assert read_manifest(folder).networks[0].files[0].unconfirmed is unconfirmed


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"schema": 1}'])
def test_what_is_no_manifest_is_refused(folder, content, refused):
    (folder / "manifest.json").write_text(content, "utf-8")
    with pytest.raises(ModelRefusedError, match=r"manifest\.json") as refusal:
        read_manifest(folder)
    refused("manifest", f"manifest.json: {content[:20]}", refusal.value)


@pytest.mark.parametrize(
    ("name", "what"),
    [(f"{MINI}.safetensors", "weights that are"), ("manifest.json", "a manifest that is")],
)
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, name, what, refused):
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    with pytest.raises(ModelRefusedError, match="leaves") as refusal:
        load(read_manifest(folder))
    refused("models folder", f"{what} a link out of the folder", refusal.value)


def test_a_link_is_refused_where_the_system_cannot_refuse_to_follow_it(folder, monkeypatch):
    monkeypatch.delattr(os, "O_NOFOLLOW", raising=False)
    (folder / "here.safetensors").symlink_to(folder / f"{MINI}.safetensors")
    edit(folder, file={"name": "here.safetensors"})
    with pytest.raises(ModelRefusedError, match="leaves"):
        load(read_manifest(folder))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
@pytest.mark.parametrize("name", [f"{MINI}.safetensors", "manifest.json"])
def test_what_is_no_plain_file_is_refused_and_not_waited_for(folder, name, refused):
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(ModelRefusedError, match="not a regular file") as refusal:
        load(read_manifest(folder))
    refused("models folder", f"a named pipe as {Path(name).suffix}", refusal.value)
    (folder / name).unlink()
    (folder / name).mkdir()
    with pytest.raises(ModelRefusedError, match="not a regular file|Is a directory|denied"):
        load(read_manifest(folder))


def test_a_pickle_in_a_folder_is_not_read(folder, refused):
    path = folder / f"{MINI}.safetensors"
    path.rename(folder / "weights.th")
    edit(folder, file={"name": "weights.th"})
    with pytest.raises(ModelNotFoundError, match="pickles are not read") as refusal:
        load(read_manifest(folder))
    refused("models folder", "a pickle as weights", refusal.value)


def test_unknown_names():
    with pytest.raises(ModelNotFoundError, match=f"{MINI}.*models list"):
        find_model("htdemucs-typo")


def test_a_folder_cannot_stand_in_for_a_name(folder, monkeypatch, refused):
    monkeypatch.chdir(folder.parent)
    with pytest.raises(ModelNotFoundError, match=r"write '\./model'") as refusal:
        find_model("model")
    refused("models folder", "a folder where one works, with the name of a model", refusal.value)
    assert find_model("./model").name == MINI


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"architecture": "os.system"}, "allowed are HDemucs, HTDemucs, torchaudio.HDemucs"),
        ({"architecture": "HDemucs"}, "unknown arguments|does not fit"),
    ],
)
def test_architectures_outside_the_list_are_refused(folder, network, message, refused):
    edit(folder, network=network)
    with pytest.raises(ModelRefusedError, match=message) as refusal:
        load(read_manifest(folder))
    refused("manifest", f"network: {json.dumps(network)}", refusal.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spam": 1}, "unknown arguments"),
        ({"depth": "four"}, "does not take"),
        ({"depth": 10**9}, "depth is larger"),
        ({"t_layers": 10**9}, "t_layers is larger"),
        ({"channels": 12}, "of shape"),
        ({"t_layers": 1}, "not known"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(folder, change, message, refused):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    edit(folder, network={"arguments": {**manifest["networks"][0]["arguments"], **change}})
    with pytest.raises(ModelRefusedError, match=message) as refusal:
        load(read_manifest(folder))
    refused("manifest", f"arguments: {json.dumps(change)}", refusal.value)


def test_a_segment_below_one_hop_is_refused(folder, refused):
    manifest = json.loads((folder / "manifest.json").read_bytes())
    arguments = {**manifest["networks"][0]["arguments"], "segment": 0.001}
    edit(folder, {"segment_seconds": 0.001}, network={"arguments": arguments})
    with pytest.raises(ModelRefusedError, match="less than one hop") as refusal:
        AudioStemSeparator(str(folder))
    refused("manifest", "a segment below one hop", refusal.value)


def test_a_record_cannot_replace_what_a_manifest_pins(folder):
    """Of a folder and of an own model; only a converted pickle of a known model needs one."""
    (network,) = read_manifest(folder).networks
    (file,) = network.files
    other = folder / "other.safetensors"
    (folder / file.name).rename(other)
    record_file(folder, InstalledFile(other, file.size, file.sha256, file), confirmed=True)
    assert load(read_manifest(folder, kind="released"))
    for kind in ("folder", "user"):
        with pytest.raises(ModelNotFoundError, match=re.escape(file.name)):
            load(read_manifest(folder, kind=kind))


def test_a_recorded_file_that_is_gone_is_not_installed(folder):
    (file,) = read_manifest(folder).networks[0].files
    made = folder / "made.safetensors"
    (folder / file.name).rename(made)
    record_file(folder, InstalledFile(made, file.size, file.sha256, file), confirmed=True)
    manifest = read_manifest(folder, kind="released")
    assert is_installed(manifest)
    made.unlink()
    assert not is_installed(manifest)


def test_a_folder_of_the_store_that_is_a_link_is_refused(folder, store, refused):
    store.mkdir()
    (store / "mine").symlink_to(folder)
    register_model("mine", manifest_digest(folder))
    with pytest.raises(ModelRefusedError, match="is a link") as refusal:
        load(find_model("mine"))
    refused("models folder", "a model's folder that is a link", refusal.value)


@pytest.mark.parametrize("name", ["a" * 300, "./" + "a" * 300, "", " ", "\x00"])
def test_names_that_no_system_takes_are_not_found(name):
    with pytest.raises(ModelNotFoundError, match="models list"):
        find_model(name)


@pytest.mark.parametrize("name", [None, 5, b"htdemucs", ["htdemucs"]])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(ParameterError, match="not a name"):
        find_model(name)


def test_a_path_is_always_a_folder(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert find_model(Path("model")).kind == "folder"


def test_an_unknown_home_folder_is_no_bug_of_ours(monkeypatch):
    monkeypatch.setenv("STEMLAB_MODELS", "~no-such-user/models")
    assert models_dir().is_absolute()
    assert len(list_models()) == 6


@pytest.mark.parametrize(
    ("model", "network"),
    [
        ({}, {"sources": 5}),
        ({}, {"sources": "a" * 100_000}),
        ({}, {"nfft": "a" * 100_000}),
        ({}, {"wiener_iters": 10**9, "end_iters": 10**9}),
        ({"sources": ["a" * 100_000]}, {}),
        ({"schema": "a" * 100_000}, {}),
        ({"sample_rate": 10**9}, {"samplerate": 10**9}),
    ],
)
def test_strange_values_are_refused_in_few_words(folder, model, network):
    arguments = json.loads((folder / "manifest.json").read_bytes())["networks"][0]["arguments"]
    edit(folder, model, network={"arguments": {**arguments, **network}})
    with pytest.raises(ModelRefusedError, match="^.{20,1000}$"):
        AudioStemSeparator(str(folder)).separate_audio(np.zeros((2, 100), np.float32), 44_100)


def test_a_manifest_that_contradicts_itself_is_refused(folder, refused):
    edit(folder, {"sample_rate": 48_000})
    with pytest.raises(ModelRefusedError, match="contradicts itself") as refusal:
        AudioStemSeparator(str(folder))
    refused("manifest", "a rate that contradicts the network's", refusal.value)


def test_states_that_do_not_fit_are_refused(folder, refused):
    good = load_file(folder / f"{MINI}.safetensors")
    name = next(iter(good))
    for change, message in (
        ({name: torch.full_like(good[name], float("nan"))}, "not finite"),
        ({name: good[name].double()}, "float64"),
        ({name: good[name].flatten()[:-1].clone()}, "of shape"),
        ({"another": torch.zeros(1)}, "another"),
    ):
        replace_weights(folder, {**good, **change})
        with pytest.raises(ModelRefusedError, match=message) as refusal:
            load(read_manifest(folder))
        refused("safetensors", f"right digest, but a tensor is {message}", refusal.value)
    replace_weights(folder, {key: value for key, value in good.items() if key != name})
    with pytest.raises(ModelRefusedError, match="1 tensors are missing"):
        load(read_manifest(folder))


def test_what_is_no_safetensors_is_refused(folder, refused):
    content = b"\xff" * 100
    (folder / f"{MINI}.safetensors").write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    edit(folder, file={"bytes": len(content), "sha256": sha256})
    with pytest.raises(ModelRefusedError, match="not a valid safetensors") as refusal:
        load(read_manifest(folder))
    refused("safetensors", "right digest, but no safetensors", refusal.value)


def test_half_precision_weights_make_a_float_network(folder):
    state = load_file(folder / f"{MINI}.safetensors")
    replace_weights(folder, {key: value.half() for key, value in state.items()})
    network = load(read_manifest(folder))
    assert {each.dtype for each in network.parameters()} == {torch.float32}
