"""Adding, verifying and removing models: real networks in the forms that Demucs publishes."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from commands import Fork
from demucs.apply import BagOfModels, apply_model
from demucs.states import load_model
from hostile import killed_at
from model_files import convert_once, hub_file, package, publish, recorded

from stemlab.audio import write_file
from stemlab.cli import main
from stemlab.errors import (
    DownloadError,
    ModelError,
    ModelNotFoundError,
    ModelRefusedError,
    OutputError,
    ParameterError,
)
from stemlab.networks import loading
from stemlab.provisioning import (
    _declared,
    _download,
    _own,
    _released,
    add_model,
    remove_model,
    verify_model,
)
from stemlab.provisioning._pickles import convert
from stemlab.registry import find_model, installed_file, is_installed, lookup, own_names
from stemlab.separation import AudioStemSeparator

ONE_HOT = [[float(row == column) for column in range(4)] for row in range(4)]


@pytest.fixture(autouse=True)
def store(tmp_path, monkeypatch):
    folder = tmp_path / "store"
    monkeypatch.setenv("STEMLAB_MODELS", str(folder))
    return folder


@pytest.fixture(autouse=True)
def converted_once(monkeypatch):
    """Most tests add the same two pickles; to convert one takes seconds."""
    monkeypatch.setattr(_declared, "convert", convert_once)


@pytest.fixture(scope="module")
def pickled(tiny_htdemucs):
    return package(tiny_htdemucs)


@pytest.fixture(scope="module")
def hub(tiny_htdemucs):
    return hub_file(tiny_htdemucs)


@pytest.fixture
def assets(tmp_path, monkeypatch, tiny_htdemucs, pickled, hub):
    """A registry with one network, which is published in two forms."""
    folder = tmp_path / "assets"
    files = [recorded("abc.safetensors", hub, confirmations=4)]
    files += [recorded("abc-12345678.th", pickled, confirmations=9)]
    publish(folder, "tiny", [tiny_htdemucs], [files])
    monkeypatch.setattr(lookup, "asset_dir", lambda _: folder)
    return folder


@pytest.fixture
def downloads(tmp_path):
    """A folder of the user's, with other things in it."""
    folder = tmp_path / "downloads"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "readme.txt").write_text("hello", "utf-8")
    return folder


def digest(content):
    return hashlib.sha256(content).hexdigest()


def lying_in(folder):
    """Names of the files in a folder, but for the lock."""
    return {str(each.relative_to(folder)) for each in folder.rglob("*") if each.is_file()} - {
        ".lock"
    }


def estimate(network, mixture):
    """Demucs' own result."""
    waveform = torch.from_numpy(mixture)
    reference = waveform.mean(0)
    mean, deviation = reference.mean(), reference.std() + 1e-8
    normalised = (waveform - mean) / deviation
    stems = apply_model(network, normalised[None], overlap=0.25, shifts=0, device="cpu")[0]
    return (stems * deviation + mean).numpy()


def half(network):
    """What is left of a network that was published in half precision."""
    copied = type(network)(*network._init_args_kwargs[0], **network._init_args_kwargs[1])
    copied.load_state_dict({name: each.half() for name, each in network.state_dict().items()})
    return copied.eval()


def assert_separates_like(model, network, rng):
    mixture = rng.uniform(-0.3, 0.3, (2, 100_000)).astype(np.float32)
    stems = AudioStemSeparator(model, device="cpu").separate_audio(mixture, 44_100)
    expected = estimate(network, mixture)
    for index, stem in enumerate(stems.values()):
        assert np.abs(stem - expected[index]).max() < 1e-5
        assert np.abs(stem).max() > 0.01


# --- models that stemlab knows


@pytest.mark.parametrize("form", ["safetensors", "th"])
def test_a_published_file_is_found_by_its_content_and_separates_as_demucs_does(
    assets, downloads, store, pickled, hub, tiny_htdemucs, rng, form
):
    content = hub if form == "safetensors" else pickled
    # A name that says nothing, beside a file of the same size.
    (downloads / "deep" / "er" / "whatever.bin").write_bytes(content)
    (downloads / "same-size").write_bytes(b"\0" * len(content))
    with pytest.raises(ModelNotFoundError, match="not installed"):
        verify_model("tiny")
    add_model("tiny", [downloads])
    verified = verify_model("tiny")
    assert verified.parameters == sum(each.numel() for each in tiny_htdemucs.parameters())
    (file,) = verified.files
    assert file.source.sha256 == digest(content)
    assert file.sha256 == digest(file.path.read_bytes())
    expected = {"tiny/abc.safetensors"}
    if form == "th":
        expected = {"tiny/abc-12345678.safetensors", "tiny/installed.json"}
    assert lying_in(store) == expected
    assert (downloads / "deep" / "er" / "whatever.bin").read_bytes() == content
    assert_separates_like("tiny", half(tiny_htdemucs), rng)


def test_an_installed_model_is_left_as_it_is(assets, downloads, store, hub):
    (downloads / "abc.safetensors").write_bytes(hub)
    add_model("tiny", [downloads])
    before = (store / "tiny" / "abc.safetensors").stat()
    add_model("tiny", [downloads])
    assert (store / "tiny" / "abc.safetensors").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.parametrize("form", ["safetensors", "th"])
def test_a_damaged_model_is_refused_and_mended_by_adding_it_again(
    assets, downloads, store, pickled, hub, form
):
    (downloads / "file").write_bytes(hub if form == "safetensors" else pickled)
    add_model("tiny", [downloads])
    path = installed_file(find_model("tiny"), find_model("tiny").networks[0]).path
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelRefusedError, match="expected SHA-256"):
        AudioStemSeparator("tiny").separate_audio(np.zeros((2, 1000), np.float32), 44_100)
    add_model("tiny", [downloads])
    assert verify_model("tiny")


def test_a_damaged_safetensors_gives_way_to_a_converted_pickle(
    assets, downloads, store, pickled, hub
):
    (downloads / "file").write_bytes(hub)
    add_model("tiny", [downloads])
    (store / "tiny" / "abc.safetensors").write_bytes(hub[:-1])
    (downloads / "file").write_bytes(pickled)
    add_model("tiny", [downloads])
    assert verify_model("tiny").files[0].source.name == "abc-12345678.th"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-1], "expected abc.safetensors .* has [0-9]+ bytes"),
        (lambda content: content + b"\0", "expected abc.safetensors .* has [0-9]+ bytes"),
        (
            lambda content: content[:-1] + bytes([content[-1] ^ 1]),
            "expected abc.safetensors .* has SHA-256",
        ),
        (lambda content: b"", "has 0 bytes"),
    ],
    ids=["truncated", "longer", "flipped", "empty"],
)
@pytest.mark.parametrize("form", ["safetensors", "th"])
def test_other_files_are_refused_and_nothing_is_added(
    assets, downloads, store, pickled, hub, form, damage, message
):
    path = downloads / "file"
    path.write_bytes(damage(hub if form == "safetensors" else pickled))
    with pytest.raises(ModelRefusedError, match=message):
        add_model("tiny", [path])
    assert not is_installed(find_model("tiny"))
    assert lying_in(store) == set()


def test_a_folder_without_the_file_says_what_was_expected(assets, downloads, hub):
    (downloads / "other").write_text("there", "utf-8")
    with pytest.raises(ModelNotFoundError, match=rf"not among .*{len(hub)} bytes.*{digest(hub)}"):
        add_model("tiny", [downloads])
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        add_model("tiny", [downloads / "nowhere"])


def test_a_file_that_says_something_else_of_its_network_is_refused(
    assets, downloads, tiny_htdemucs, store, refused
):
    """The record would be wrong then, and the stems wrong with it."""
    _, kwargs = tiny_htdemucs._init_args_kwargs
    content = package(tiny_htdemucs, kwargs={**kwargs, "t_max_period": 5000.0})
    publish(assets, "tiny", [tiny_htdemucs], [[recorded("abc.th", content)]])
    (downloads / "abc.th").write_bytes(content)
    with pytest.raises(
        ModelRefusedError, match=r"t_max_period=5000\.0 .* recorded is 10000\.0"
    ) as refusal:
        add_model("tiny", [downloads])
    refused("what a file states", "another number than recorded", refusal.value)
    assert lying_in(store) == set()


@pytest.fixture
def bag(assets, tiny_htdemucs, downloads):
    """Four networks, one for each source, and their files in the folder of downloads."""
    networks, files = [], []
    for index in range(4):
        network = half(tiny_htdemucs)
        with torch.no_grad():
            network.decoder[-1].conv_tr.weight.mul_(1 + index / 4)
        networks.append(network)
        content = package(network) if index == 2 else hub_file(network)
        name = f"net{index}.{'th' if index == 2 else 'safetensors'}"
        (downloads / name).write_bytes(content)
        files.append([recorded(name, content)])
    publish(assets, "bag", networks, files, gains=ONE_HOT)
    return networks


def test_a_bag_is_added_whole_and_separates_as_demucs_does(bag, downloads, rng):
    add_model("bag", [downloads])
    assert len(verify_model("bag").files) == 4
    assert_separates_like("bag", BagOfModels([half(each) for each in bag], ONE_HOT), rng)


def test_a_bag_with_a_missing_file_is_not_begun(bag, downloads, store):
    (downloads / "net3.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match=r"net3\.safetensors"):
        add_model("bag", [downloads])
    assert lying_in(store) == set()


def test_files_of_a_bag_may_come_from_several_places(bag, downloads, tmp_path):
    shutil.move(downloads / "net3.safetensors", tmp_path / "elsewhere")
    add_model("bag", [downloads, tmp_path / "elsewhere"])
    assert is_installed(find_model("bag"))


def test_files_of_a_bag_cannot_stand_in_for_each_other(bag, downloads, store, refused):
    """They have the same size and the same tensors; but not the same digest."""
    add_model("bag", [downloads])
    one, other = store / "bag" / "net0.safetensors", store / "bag" / "net1.safetensors"
    first, second = one.read_bytes(), other.read_bytes()
    assert len(first) == len(second)
    one.write_bytes(second)
    other.write_bytes(first)
    with pytest.raises(ModelRefusedError, match=r"net0\.safetensors.*expected SHA-256") as refusal:
        verify_model("bag")
    refused("models folder", "two networks of a bag exchanged", refusal.value)


def test_one_source_of_a_bag_needs_one_of_its_files(bag, downloads, store):
    add_model("bag", [downloads])
    for index in range(3):
        next((store / "bag").glob(f"net{index}.safetensors")).unlink()
    separator = AudioStemSeparator("bag", device="cpu")
    mixture = np.zeros((2, 1000), np.float32)
    assert separator.separate_audio(mixture, 44_100, sources=["vocals"])
    with pytest.raises(ModelNotFoundError, match="net0"):
        separator.separate_audio(mixture, 44_100, sources=["drums"])


def test_a_digest_with_one_source_has_to_be_typed(
    assets, downloads, store, tiny_htdemucs, pickled, refused
):
    files = [recorded("abc-12345678.th", pickled, confirmations=1)]
    publish(assets, "rare", [tiny_htdemucs], [files])
    (downloads / "abc.th").write_bytes(pickled)
    with pytest.raises(ModelRefusedError, match="known from one source only.*--sha256") as refusal:
        add_model("rare", [downloads])
    refused("pickle", "a digest that one source alone states, not typed", refusal.value)
    with pytest.raises(ModelRefusedError, match="the digest of no file of 'rare'"):
        add_model("rare", [downloads], sha256=["0" * 64])
    with pytest.raises(ParameterError, match="64 hex digits, got 8"):
        add_model("rare", [downloads], sha256=[digest(pickled)[:8]])
    assert not is_installed(find_model("rare"))
    add_model("rare", [downloads], sha256=[digest(pickled).upper()])
    assert verify_model("rare")


def test_a_built_in_model_takes_no_other_file_whatever_is_typed(
    assets, downloads, tiny_hdemucs, refused
):
    content = package(tiny_hdemucs)
    (downloads / "other.th").write_bytes(content)
    with pytest.raises(
        ModelRefusedError, match="another model, add it under another name"
    ) as refusal:
        add_model("tiny", [downloads / "other.th"], sha256=[digest(content)])
    refused("pickle", "another network under the name of a known model", refusal.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "tiny"}, "name files or folders"),
        ({"name": "tiny", "paths": ["x"], "download": True}, "one of the two"),
        ({"name": "mine", "download": True}, "none of the models that can be downloaded"),
        ({"name": "tiny", "paths": ["x"], "weight_license": "MIT"}, "terms of 'tiny' are recorded"),
        ({"name": "../mine", "paths": ["x"]}, "cannot name a model"),
        ({"name": "nul", "paths": ["x"]}, "cannot name a model"),
        ({"name": ".mine", "paths": ["x"]}, "cannot name a model"),
        ({"name": "mine", "paths": ["x", "y"]}, "from one file"),
        ({"name": "mine", "paths": ["x"]}, "needs the full SHA-256"),
        ({"name": "registry.json", "paths": ["x"], "sha256": ["0" * 64]}, "cannot name a model"),
        ({"name": "con.tar.gz", "paths": ["x"], "sha256": ["0" * 64]}, "cannot name a model"),
        ({"name": "tiny", "paths": ""}, "one of the paths is empty"),
        ({"name": "tiny", "paths": None}, "not paths"),
        ({"name": "tiny", "paths": [5]}, "not paths"),
        ({"name": None, "paths": ["x"]}, "not a name"),
        ({"name": "tiny", "paths": ["x"], "sha256": [None]}, "not a full SHA-256"),
        ({"name": "mine", "paths": ["x"], "weight_license": "a\x1b[31m"}, "printable"),
        ({"name": "mine", "paths": ["x"], "weight_license": ""}, "printable"),
    ],
)
def test_requests_that_do_not_go_together_are_refused_before_any_work(
    assets, store, arguments, message
):
    with pytest.raises(ParameterError, match=message):
        add_model(**arguments)
    assert not store.exists()


def test_what_comes_with_stemlab_is_neither_added_nor_removed(tmp_path):
    for act in (
        lambda: add_model("stemlab-mini", [tmp_path]),
        lambda: remove_model("Stemlab-Mini"),
    ):
        with pytest.raises(ParameterError, match="comes with stemlab"):
            act()
    assert verify_model("stemlab-mini").parameters == 1_623_896


# --- models of the user's own


@pytest.mark.parametrize("form", ["th", "safetensors", "hdemucs"])
def test_an_own_model_is_added_and_separates_as_demucs_does(
    downloads, store, tiny_htdemucs, tiny_hdemucs, rng, form
):
    network = tiny_hdemucs if form == "hdemucs" else tiny_htdemucs
    content = hub_file(network) if form == "safetensors" else package(network)
    path = downloads / "weights of mine.bin"
    path.write_bytes(content)
    manifest = add_model("mine", [path], sha256=[digest(content)], weight_license="mine alone")
    assert manifest.kind == "user"
    assert manifest.weight_license == "mine alone"
    assert manifest.segment_policy == ("free" if form == "hdemucs" else "padded")
    assert digest(content) in {each.sha256 for each in manifest.networks[0].files}
    assert own_names() == ["mine"]
    assert verify_model("mine")
    assert lying_in(store) == {"registry.json", "mine/manifest.json", "mine/mine.safetensors"}
    assert_separates_like("MINE", half(network), rng)


def test_the_result_is_the_one_of_demucs_loading_the_very_file(downloads, pickled, rng):
    path = downloads / "abc.th"
    path.write_bytes(pickled)
    add_model("mine", [path], sha256=[digest(pickled)])
    assert_separates_like("mine", load_model(path).eval(), rng)


def test_a_run_records_the_weights_that_it_used(downloads, pickled, tmp_path, rng):
    (downloads / "abc.th").write_bytes(pickled)
    add_model("mine", downloads / "abc.th", sha256=digest(pickled))
    song = tmp_path / "song.wav"
    write_file(song, [rng.uniform(-0.1, 0.1, (2, 5000)).astype(np.float32)], 44_100, 2)
    run = AudioStemSeparator("mine").separate_file(song, tmp_path / "out").manifest["model"]
    (file,) = verify_model("mine").files
    assert run["weights_sha256"] == [file.sha256]
    assert run["sha256"] == find_model("mine").sha256


def test_an_own_model_needs_the_digest_of_its_file(downloads, store, pickled):
    path = downloads / "abc.th"
    path.write_bytes(pickled)
    wrong = "0" * 64
    with pytest.raises(ModelRefusedError, match=f"expected SHA-256 {wrong}, got {digest(pickled)}"):
        add_model("mine", [path], sha256=[wrong])
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        add_model("mine", [downloads / "nowhere.th"], sha256=[wrong])
    assert lying_in(store) == set()
    assert "mine" not in own_names()


def test_an_own_name_is_not_taken_twice(downloads, pickled, hub):
    for name, content in (("one", pickled), ("two", hub)):
        (downloads / name).write_bytes(content)
    add_model("mine", [downloads / "one"], sha256=[digest(pickled)])
    # One path and one digest need no lists.
    assert add_model("Mine", downloads / "one", sha256=digest(pickled)).name == "mine"
    with pytest.raises(ParameterError, match="taken by another model"):
        add_model("MINE", [downloads / "two"], sha256=[digest(hub)])


DAMAGE = {
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:1000]),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir(), (path / "x").touch()),
    "a link": lambda path: (path.unlink(), path.symlink_to(__file__)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_own_model_is_told_and_mended_by_adding_it_again(
    downloads, store, pickled, capsys, damage
):
    (downloads / "one").write_bytes(pickled)
    add_model("mine", downloads / "one", sha256=digest(pickled))
    weights = store / "mine" / "mine.safetensors"
    DAMAGE[damage](weights)
    assert main(["models", "verify"]) == 4
    assert "mine" in capsys.readouterr().err
    with pytest.raises(ModelNotFoundError, match="does not exist"):
        add_model("mine", downloads / "nowhere", sha256=digest(pickled))
    kept = 0
    if damage in ("a folder", "a link"):
        with pytest.raises(OutputError, match="it is a link, a folder, or another user's"):
            add_model("MINE", downloads / "one", sha256=digest(pickled))
        assert (weights / "x").exists() or weights.readlink() == Path(__file__)
        weights.rename(store / "elsewhere")
    elif damage != "gone":
        # Damaged, or made by the user: who knows.
        kept, content = 1, weights.read_bytes()
    add_model("MINE", downloads / "one", sha256=digest(pickled))
    assert verify_model("mine")
    found = sorted(each.name for each in (store / "mine").iterdir())
    assert found[:2] == ["manifest.json", "mine.safetensors"]
    assert len(found) == 2 + kept
    assert all((store / "mine" / each).read_bytes() == content for each in found[2:])


def test_what_else_lies_in_the_models_folder_is_not_touched(
    assets, downloads, store, pickled, hub, capsys
):
    """Somebody may keep other things there, and what is named in --from is theirs."""
    (store / "mine").mkdir(parents=True)
    (store / "mine" / "thesis.txt").write_text("years of work", "utf-8")
    (store / "stems" / ".stemlab-abc.partial").mkdir(parents=True)
    (store / "tiny").mkdir()
    (store / "tiny" / "abc-12345678.th").write_bytes(pickled)
    (downloads / "one").write_bytes(pickled)
    with pytest.raises(OutputError, match="something else of that name"):
        add_model("mine", downloads / "one", sha256=digest(pickled))
    add_model("tiny", store)
    assert verify_model("tiny")
    assert (store / "mine" / "thesis.txt").read_text("utf-8") == "years of work"
    assert (store / "tiny" / "abc-12345678.th").read_bytes() == pickled
    assert (store / "stems" / ".stemlab-abc.partial").exists()


def test_a_damaged_user_registry_is_told_beside_the_built_in_models(store, downloads, capsys):
    store.mkdir()
    (store / "registry.json").write_text("{", "utf-8")
    assert main(["models", "list"]) == 4
    listed = capsys.readouterr().out
    assert "htdemucs: Hybrid" in listed
    assert "Move it away" in listed
    assert main(["models", "verify"]) == 4
    captured = capsys.readouterr()
    assert "stemlab-mini: verified" in captured.out
    assert "Move it away" in captured.err


def test_older_forms_of_torch_say_what_to_do(downloads, tiny_htdemucs):
    path = downloads / "old.th"
    torch.save({"x": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(ModelRefusedError, match="save it again"):
        add_model("mine", path, sha256=digest(path.read_bytes()))


def test_a_file_that_cannot_be_read_does_not_hide_the_right_one(assets, downloads, hub):
    (downloads / "a-folder-link").symlink_to(downloads / "nowhere")
    (downloads / "z").write_bytes(hub)
    add_model("tiny", downloads)
    assert is_installed(find_model("tiny"))


def test_weights_that_do_not_say_their_network_are_refused(downloads, tiny_htdemucs):
    from safetensors.torch import save

    content = save(tiny_htdemucs.state_dict())
    (downloads / "bare").write_bytes(content)
    with pytest.raises(ModelRefusedError, match=r"manifest\.json beside it"):
        add_model("mine", [downloads / "bare"], sha256=[digest(content)])


def test_folders_need_no_adding(downloads):
    with pytest.raises(ParameterError, match=r"--model \./FOLDER"):
        add_model("mine", [downloads], sha256=["0" * 64])


# --- removing


def test_models_are_removed_and_can_be_added_again(assets, downloads, store, pickled, hub):
    (downloads / "one").write_bytes(pickled)
    (downloads / "two").write_bytes(hub)
    add_model("mine", [downloads / "one"], sha256=[digest(pickled)])
    add_model("tiny", [downloads / "two"])
    for name in ("MINE", "tiny"):
        remove_model(name)
        with pytest.raises(ModelNotFoundError, match="not installed"):
            remove_model(name)
    assert own_names() == []
    assert lying_in(store) == {"registry.json"}
    add_model("mine", [downloads / "one"], sha256=[digest(pickled)])
    assert verify_model("mine")


def test_removing_leaves_what_is_not_provably_of_stemlab(
    assets, downloads, store, pickled, hub, caplog
):
    """A damaged file may be one that the user put there."""
    (downloads / "one").write_bytes(pickled)
    (downloads / "two").write_bytes(hub)
    add_model("mine", downloads / "one", sha256=digest(pickled))
    add_model("tiny", downloads / "two")
    (store / "mine" / "manifest.json").write_text("{", "utf-8")
    (store / "tiny" / "notes.txt").write_text("heard it all", "utf-8")
    # As published: stemlab itself stores no pickle.
    (store / "tiny" / "abc-12345678.th").write_bytes(pickled)
    remove_model("mine")
    assert "mine" not in own_names()
    remove_model("tiny")
    stays = {"mine/manifest.json", "mine/mine.safetensors"}
    stays |= {"tiny/notes.txt", "tiny/abc-12345678.th"}
    assert lying_in(store) == {"registry.json", *stays}
    assert "'notes.txt'" in caplog.text
    assert "'mine.safetensors'" in caplog.text
    with pytest.raises(ModelNotFoundError, match="not installed"):
        remove_model("tiny")
    assert lying_in(store) == {"registry.json", *stays}


@pytest.mark.parametrize("name", ["", ".", "..", ".lock", "registry.json", "left-over", "con"])
def test_only_models_are_removed(downloads, store, pickled, name):
    (downloads / "one").write_bytes(pickled)
    add_model("mine", downloads / "one", sha256=digest(pickled))
    (store / "left-over").mkdir()
    with pytest.raises(ModelNotFoundError, match="not installed"):
        remove_model(name)
    assert verify_model("mine")
    assert (store / "left-over").exists()


def test_folders_are_not_removed(tmp_path):
    with pytest.raises(ParameterError, match="does not remove"):
        remove_model(f"{tmp_path}/")


# --- more than one process, and dead ones


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks of Unix")
def test_processes_that_add_at_once_all_succeed(downloads, store, pickled, hub, monkeypatch):
    """Two want the same model, the third another one."""
    monkeypatch.setattr(_declared, "convert", convert)
    (downloads / "one").write_bytes(pickled)
    (downloads / "two").write_bytes(hub)
    running = [
        Fork("models", "add", name, "--from", downloads / file, "--sha256", digest(content))
        for name, file, content in (("a", "one", pickled), ("a", "one", pickled), ("b", "two", hub))
    ]
    done = [fork.wait() for fork in running]
    assert [fork.returncode for fork in done] == [0, 0, 0], done
    assert {"a", "b"} <= set(own_names())
    for name in ("a", "b"):
        assert verify_model(name)
    assert lying_in(store) == {
        "registry.json",
        *(f"{name}/{file}" for name in "ab" for file in ("manifest.json", f"{name}.safetensors")),
    }


def tree(folder):
    """All that lies in a folder, sorted; a file that was kept has a name by chance."""
    return sorted(
        (
            re.sub(r"\.[0-9a-f]{8}\.kept$", ".kept", str(each.relative_to(folder))),
            digest(each.read_bytes()) if each.is_file() else "a folder",
        )
        for each in folder.rglob("*")
    )


@pytest.fixture
def unparsed(monkeypatch, tiny_htdemucs, hub):
    """What is read of the files is tested elsewhere: here it would only take time."""
    for module in (_own, _released, loading):
        monkeypatch.setattr(module, "parse_network", lambda *_: tiny_htdemucs)
    for module in (_own, _released):
        monkeypatch.setattr(module, "build_network", lambda *_: tiny_htdemucs)
    monkeypatch.setattr(_declared, "convert", lambda *_: (hub, {}))
    monkeypatch.setattr(os, "fsync", lambda _: None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="signals of Unix")
@pytest.mark.parametrize("act", ["add", "mend", "remove"])
@pytest.mark.parametrize("name", ["mine", "tiny"])
def test_a_kill_at_any_step_leaves_nothing_that_the_next_command_minds(
    assets, downloads, store, tmp_path, unparsed, pickled, hub, name, act
):
    (downloads / "own").write_bytes(hub)
    (downloads / "published").write_bytes(pickled)
    part = store / ".downloads" / f"{digest(pickled)}.part"

    def add(license=None):
        if name == "mine":
            add_model(name, downloads / "own", sha256=digest(hub), weight_license=license)
        else:
            add_model(name, downloads / "published")

    def remove():
        with suppress(ModelNotFoundError):
            remove_model(name)

    def start():
        shutil.rmtree(store, ignore_errors=True)
        shutil.copytree(tmp_path / "before", store)

    part.parent.mkdir(parents=True)
    (store / "registry.json").write_text('{\n  "models": {},\n  "schema": 2\n}\n', "utf-8")
    (store / ".lock").touch()
    gone = tree(store)
    if act == "add" and name == "tiny":
        part.write_bytes(pickled[:1000])
    elif act != "add":
        add("another licence" if name == "mine" else None)
    if act == "mend":
        weights = {"mine": "mine.safetensors", "tiny": "abc-12345678.safetensors"}[name]
        (store / name / weights).write_bytes(b"damaged")
        if name == "tiny":  # It would be preferred to the one that is added.
            (store / name / "abc.safetensors").write_bytes(b"damaged")
    shutil.copytree(store, tmp_path / "before")

    command, other = (remove, add) if act == "remove" else (add, remove)
    command()
    after = tree(store)
    assert (after == gone) == (act == "remove")
    start()
    for step in itertools.count():
        if not killed_at(step, command):
            break
        shutil.copytree(store, tmp_path / "killed")
        own_names()
        command()
        assert tree(store) == after, f"killed at step {step}, the same command again"
        shutil.rmtree(store)
        (tmp_path / "killed").rename(store)
        other()
        left = tree(store)
        if act == "mend":  # What was damaged stays, under whatever name it has by then.
            damaged = digest(b"damaged")
            left = [(path, content) for path, content in left if content != damaged]
            left.remove((name, "a folder"))
        if act == "remove":
            assert is_installed(find_model(name))
            remove()
            left = tree(store)
        assert left == gone, f"killed at step {step}, another command"
        start()
    assert step > 3


# --- what others may have put into the models folder


@pytest.mark.parametrize("mask", [0o002, 0o022, 0o077])
def test_others_may_use_what_the_umask_lets_them(
    assets, downloads, store, unparsed, pickled, hub, mask
):
    (downloads / "one").write_bytes(pickled)
    (downloads / "two").write_bytes(hub)
    before = os.umask(mask)
    try:
        add_model("tiny", downloads / "one")
        add_model("mine", downloads / "two", sha256=digest(hub))
    finally:
        os.umask(before)
    found = {
        str(each.relative_to(store)): each.stat().st_mode & 0o777 for each in [*store.rglob("*")]
    }
    assert {"mine", "mine/mine.safetensors", "tiny/installed.json"} <= found.keys()
    for name, mode in found.items():
        assert mode == (0o777 if (store / name).is_dir() else 0o666) & ~mask, name


def link(place, precious):
    place.symlink_to(precious)


def dangling(place, precious):
    place.symlink_to(precious.with_name("new"))


def hard_link(place, precious):
    place.hardlink_to(precious)


def pipe(place, precious):
    os.mkfifo(place)


def folder_of_theirs(place, precious):
    place.mkdir()
    (place / "thesis.txt").write_text("years of work", "utf-8")


def file_of_another_user(place, precious):
    if os.geteuid() != 0:
        pytest.skip("only root can make a file of another user's")
    place.write_text("{}", "utf-8")
    os.chown(place, 12345, 12345)


PLANTED = [link, dangling, hard_link, pipe, folder_of_theirs, file_of_another_user]
PLACES = [
    ".lock",
    ".downloads",
    ".downloads/PART",
    "registry.json",
    "mine",
    "mine/manifest.json",
    "mine/mine.safetensors",
    "tiny",
    "tiny/abc.safetensors",
    "tiny/installed.json",
    ".stemlab-model-abcdefgh.partial",
    ".stemlab-model-abcdefgh.partial/lock",
    "tiny/.stemlab-model-0123456789abcdef.partial",
]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="links, pipes and users of Unix")
@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
@pytest.mark.parametrize("place", PLACES)
def test_nothing_of_anybodys_is_touched(
    assets, downloads, store, tmp_path, monkeypatch, unparsed, pickled, hub, place, plant
):
    """Whatever is planted, each command ends well or says in one line what is in its way."""
    precious = tmp_path / "home" / "precious"
    precious.parent.mkdir()
    precious.write_text("years of work", "utf-8")
    (downloads / "one").write_bytes(pickled)
    (downloads / "two").write_bytes(hub)
    planted = store / place.replace("PART", f"{digest(hub)}.part")
    planted.parent.mkdir(mode=0o700, parents=True)
    plant(planted, precious)
    facts = planted.lstat()

    def receive(file, part, done, progress):
        part.seek(done)
        part.write(hub[done:])
        part.flush()

    monkeypatch.setattr(_download, "_receive", receive)
    said = []
    for act in (
        lambda: add_model("tiny", download=True),
        lambda: remove_model("tiny"),
        lambda: add_model("tiny", downloads / "one"),
        lambda: add_model("mine", downloads / "two", sha256=digest(hub)),
        own_names,
        lambda: is_installed(find_model("tiny")),
        lambda: verify_model("mine"),
        lambda: remove_model("tiny"),
        lambda: remove_model("mine"),
    ):
        try:
            act()
        except (DownloadError, ModelError, OutputError, ParameterError) as error:
            said.append(str(error))
    assert not any("\n" in each for each in said)
    assert precious.read_text("utf-8") == "years of work"
    assert os.listdir(precious.parent) == ["precious"]
    # It is where it was, or kept beside.
    inodes = {each.lstat().st_ino for each in store.rglob("*")}
    assert facts.st_ino in inodes or plant is hard_link
    if plant is folder_of_theirs:
        assert (planted / "thesis.txt").read_text("utf-8") == "years of work"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_processes_that_add_and_remove_at_once(downloads, store, unparsed, hub):
    (downloads / "one").write_bytes(hub)

    def work():
        for _ in range(5):
            assert add_model("mine", downloads / "one", sha256=digest(hub)).name == "mine"
            with suppress(ModelNotFoundError):  # The other one was quicker.
                remove_model("mine")

    with ThreadPoolExecutor(2) as pool:
        assert not any(pool.map(lambda _: killed_at(sys.maxsize, work), range(2)))
    assert own_names() == []
    assert {each.name for each in store.iterdir()} == {".lock", "registry.json"}


def test_a_models_folder_that_cannot_be_made_is_said(tmp_path, monkeypatch, downloads, pickled):
    (tmp_path / "file").write_text("in the way", "utf-8")
    monkeypatch.setenv("STEMLAB_MODELS", str(tmp_path / "file" / "models"))
    (downloads / "one").write_bytes(pickled)
    with pytest.raises(OutputError, match="STEMLAB_MODELS"):
        add_model("mine", [downloads / "one"], sha256=[digest(pickled)])


# --- the command line


def test_the_commands_tell_what_they_do(downloads, store, pickled, capsys):
    path = downloads / "one.th"
    path.write_bytes(pickled)
    assert main(["models", "add", "mine", "--from", str(path), "--sha256", digest(pickled)]) == 0
    assert "mine: installed and verified" in capsys.readouterr().out
    assert main(["models", "list"]) == 0
    listed = capsys.readouterr().out
    assert "htdemucs_ft: Hybrid" in listed
    assert "mine: mine, added by the user" in listed
    assert main(["models", "show", "mine", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["networks"][0]["files"][1]["sha256"] == digest(pickled)
    assert main(["models", "verify"]) == 0
    verified = capsys.readouterr().out.splitlines()
    assert [each.partition(":")[0] for each in verified] == ["stemlab-mini", "mine"]
    assert main(["models", "remove", "mine"]) == 0
    assert capsys.readouterr().out == "mine: removed\n"
    assert main(["models", "verify", "mine"]) == 4
    assert main(["models", "verify", "htdemucs"]) == 4
    assert "models add htdemucs" in capsys.readouterr().err


def test_a_tampered_model_is_told_and_spares_the_others(downloads, store, pickled, capsys):
    path = downloads / "one.th"
    path.write_bytes(pickled)
    add_model("mine", [path], sha256=[digest(pickled)])
    with (store / "mine" / "mine.safetensors").open("r+b") as file:
        file.seek(5000)
        file.write(b"x")
    assert main(["models", "verify"]) == 4
    captured = capsys.readouterr()
    assert "stemlab-mini: verified" in captured.out
    assert "expected SHA-256" in captured.err
    (store / "mine" / "manifest.json").write_text("{}", "utf-8")
    assert main(["models", "list"]) == 4
    assert "mine: REFUSED" in capsys.readouterr().out


def test_a_song_is_not_begun_with_a_model_that_is_not_installed(tmp_path, capsys):
    code = main(["separate", "song.wav", "--model", "htdemucs", "--out", str(tmp_path / "out")])
    assert code == 4
    assert "stemlab models add htdemucs" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_everything_that_is_recorded_is_shown(capsys):
    assert main(["models", "show", "htdemucs_ft"]) == 0
    shown = capsys.readouterr().out
    for network in find_model("htdemucs_ft").networks:
        for file in network.files:
            assert file.sha256 in shown
            assert str(file.size) in shown
            assert file.url in shown
    assert "scientific purposes" in shown
    assert "'vocals': 1.0" in shown


def test_models_that_version_0_1_added_load(v0_1, monkeypatch, rng):
    monkeypatch.setattr(lookup, "asset_dir", lambda _: v0_1 / "assets")
    assert list(own_names()) == ["tiny", "tiny-pickle"]
    for name in ("tiny", "tiny-pickle", "tiny-released"):
        assert verify_model(name).parameters == 5444
        mixture = rng.uniform(-0.1, 0.1, (2, 3000)).astype(np.float32)
        stems = AudioStemSeparator(name, device="cpu").separate_audio(mixture, 8000)
        assert list(stems) == ["vocals", "other"]


def test_models_that_version_0_1_added_are_replaced_and_removed(v0_1, monkeypatch, unparsed):
    monkeypatch.setattr(lookup, "asset_dir", lambda _: v0_1 / "assets")
    # As it left them when it was killed.
    (v0_1 / "models" / ".stemlab-model-abc_1def").mkdir()
    content = (v0_1 / "models" / "tiny" / "tiny.safetensors").read_bytes()
    (v0_1 / "models" / "tiny" / "tiny.safetensors").unlink()
    (v0_1 / "tiny").write_bytes(content)
    add_model("tiny", v0_1 / "tiny", sha256=digest(content))
    assert is_installed(find_model("tiny"))
    for name in ("tiny", "tiny-pickle", "tiny-released"):
        remove_model(name)
    assert own_names() == []
    left = {each.name for each in (v0_1 / "models").iterdir()}
    assert left == {".lock", ".stemlab-model-abc_1def", "registry.json"}
