"""Results on disk: whose files are touched, and what a kill leaves."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile import killed_at

from stemlab import AudioStemSeparator, OutputSettings
from stemlab.audio import file_digest
from stemlab.errors import OutputError, ParameterError
from stemlab.files import Folder, WorkFolder
from stemlab.results import ResultNames, RunManifest, check_filename
from stemlab.separation import save_result

RATE = 44_100
unix = pytest.mark.skipif(sys.platform == "win32", reason="links, pipes and signals of Unix")


@pytest.fixture(scope="module")
def song(tmp_path_factory):
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (RATE, 1)).astype(np.float32)
    soundfile.write(path, noise, RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def separator(tiny_model_folder):
    return AudioStemSeparator(tiny_model_folder)


@pytest.fixture(scope="module")
def results(separator, song, tmp_path_factory):
    """Finished runs of the same song in several ways, each in a folder of its own."""
    folder = tmp_path_factory.mktemp("results")
    ways = {
        "all": ({}, {}),
        "fewer": ({"sources": ["drums", "bass"]}, {}),
        "two": ({}, {"two_stems": "vocals"}),
        "flac": ({"overlap": 0.1}, {"format": "flac"}),
        "flat": ({}, {"filename": "{song} ({source}).{ext}"}),
        "folders": ({}, {"filename": "{source}/{song}.{ext}"}),
    }
    return {
        name: separator.separate_file(
            song, folder / name, output=OutputSettings(**output), **settings
        )
        for name, (settings, output) in ways.items()
    }


def files(folder):
    """Content of every regular file below a folder, by its relative path."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def whole(folder):
    """Digests of the samples of the one result in a folder, all of whose files are as recorded."""
    (manifest,) = folder.glob("*/run.json")
    stems = RunManifest.read(manifest).as_dict()["stems"]
    assert {path.name for path in manifest.parent.iterdir()} == {
        "run.json",
        *(stem["file"] for stem in stems.values()),
    }
    for stem in stems.values():
        assert file_digest(manifest.parent / stem["file"]) == stem["sha256"]
    return {name: stem["samples_sha256"] for name, stem in stems.items()}


def samples(result):
    return {name: stem["samples_sha256"] for name, stem in result.manifest["stems"].items()}


# ---------------------------------------------------------------- names


@pytest.mark.parametrize("way", ["all", "flat", "folders", "flac", "two"])
def test_a_result_is_saved_and_replaced_under_every_template(results, tmp_path, way):
    result = results[way]
    for force in (False, True):
        saved = save_result(result, tmp_path, force=force)
        for stem, path in saved.stems.items():
            assert file_digest(path) == result.manifest["stems"][stem]["sha256"]
        stored = RunManifest.read(saved.manifest_path)
        assert stored == saved.run
        assert stored.stems.keys() == result.stems.keys()
        for stem, record in stored.stems.items():
            assert os.path.samefile(saved.manifest_path.parent / record.file, saved.stems[stem])
    with pytest.raises(OutputError, match="exists already"):
        save_result(result, tmp_path)


def test_a_stem_is_named_by_its_source_alone():
    names = ResultNames("{song}/{source}.{ext}", "song", "model")
    assert names.stored_as("drums", "drums.flac") == "song/drums.flac"
    for file in ("../n.wav", "/etc/passwd", "other.wav", "drums", "drums.wav/x"):
        assert names.stored_as("drums", file) != file
        assert not (names.stored_as("drums", file) or "").startswith((".", "/"))
    assert ResultNames("{source}\\{song}.{ext}", "s", "m").stem("a/b", "wav") == "a_b/s.wav"
    for template in ("../{source}.{ext}", "{source}/../../x.{ext}", "./{source}.{ext}"):
        with pytest.raises(ParameterError, match="stay inside the output folder"):
            check_filename(template)


# ---------------------------------------------------------------- planted folders


def planted_record(out, owner, moves, content=b"planted"):
    """Lay a working folder of a killed run beside a song, as an archive would bring it."""
    work = out / f".stemlab-{owner}-planted.partial"
    work.mkdir(parents=True, mode=0o700)
    (work / "lock").touch()
    (work / "draft.wav").write_bytes(content)
    (work / "earlier-0").write_bytes(content)
    record = {"schema": 2, "moves": moves}
    (work / "moves-2.json").write_text(json.dumps(record), "utf-8")
    return work


@unix
def test_a_planted_folder_of_moves_touches_nothing_outside(separator, song, tmp_path):
    home, out = tmp_path / "home", tmp_path / "music" / "stems"
    home.mkdir()
    (home / ".bashrc").write_text("export A=1")
    (home / "notes.wav").write_text("mine")
    digest = {name: file_digest(home / name) for name in (".bashrc", "notes.wav")}
    owner = file_digest(song)[:16]
    sha256 = hashlib.sha256(b"planted").hexdigest()
    before = files(home)
    for name in (str(home / ".bashrc"), "../../home/.bashrc", str(home / "notes.wav"), "../x.wav"):
        for move in (
            {"name": name, "sha256": sha256, "draft": None, "earlier": "earlier-0"},
            {"name": name, "sha256": digest[".bashrc"], "draft": "draft.wav", "earlier": None},
            {"name": name, "sha256": digest["notes.wav"], "draft": "draft.wav", "earlier": None},
        ):
            last = {"name": "run.json", "sha256": sha256, "draft": "run.json", "earlier": None}
            planted_record(out, owner, [move, last])
            try:
                separator.separate_file(song, out)
            except OutputError as error:
                assert str(out) in str(error)  # noqa: PT017 - either is right, touching is not
            assert files(home) == before
            shutil.rmtree(out)


@unix
def test_what_version_0_1_left_is_named_and_never_acted_on(separator, song, tmp_path, caplog):
    victim, out = tmp_path / "victim.wav", tmp_path / "stems"
    victim.write_bytes(b"mine")
    work = out / f".stemlab-{file_digest(song)[:16]}.partial"
    work.mkdir(parents=True)
    for name in ("lock", "earlier-0", "drums.wav"):
        (work / name).write_bytes(name.encode())
    note = {"draft": "drums.wav", "final": str(victim), "earlier": "earlier-0"}
    (work / "moves.json").write_text(json.dumps([note]))
    before = files(work)
    separator.separate_file(song, out)
    assert victim.read_bytes() == b"mine"
    assert files(work) == before
    assert "earlier-0" in caplog.text
    assert str(work) in caplog.text


@unix
@pytest.mark.parametrize("resume", [False, True])
def test_working_folders_that_are_links_or_of_others_stay(separator, song, tmp_path, resume):
    documents, out = tmp_path / "documents", tmp_path / "stems"
    documents.mkdir()
    out.mkdir()
    for name in ("journal", "drums.f32", "lock", "letter.txt"):
        (documents / name).write_bytes(b"mine")
    owner = file_digest(song)[:16]
    (out / f".stemlab-{owner}.partial").symlink_to(documents)
    linked = out / f".stemlab-{owner}-1.partial"
    linked.mkdir()
    os.link(documents / "letter.txt", linked / "lock")
    (linked / "drums.f32").symlink_to(documents / "drums.f32")
    pipe = out / f".stemlab-{owner}-2.partial"
    pipe.mkdir()
    os.mkfifo(pipe / "lock")
    dangling = out / f".stemlab-{owner}-3.partial"
    dangling.mkdir()
    (dangling / "lock").symlink_to(tmp_path / "made")
    kept = out / f".stemlab-{owner}-4.partial"
    kept.mkdir()
    (kept / "lock").touch()
    (kept / "thesis.odt").write_bytes(b"mine")
    if os.geteuid() == 0:
        foreign = out / f".stemlab-{owner}-5.partial"
        foreign.mkdir()
        (foreign / "lock").touch()
        os.chown(foreign, 12345, 12345)
    before, there = files(documents), sorted(os.listdir(out))
    separator.separate_file(song, out, output=OutputSettings(resume=resume))
    assert files(documents) == before
    assert not os.path.lexists(tmp_path / "made")
    assert sorted(os.listdir(out)) == [*there, "song"]
    assert files(kept)["thesis.odt"] == b"mine"


@unix
def test_resuming_writes_to_nothing_that_it_finds(separator, song, tmp_path):
    """What an earlier run finished is copied; its files may be links to something else by now."""
    out, mine = tmp_path / "stems", tmp_path / "mine.f32"

    def stop(event):
        if event.done == 2:
            raise KeyboardInterrupt

    options = {"output": OutputSettings(resume=True), "overlap": 0.9}
    with pytest.raises(KeyboardInterrupt):
        separator.separate_file(song, out, progress=stop, **options)
    (work,) = out.glob(".stemlab-*.partial")
    os.rename(work / "drums.f32", mine)
    os.link(mine, work / "drums.f32")
    before = mine.read_bytes()
    result = separator.separate_file(song, out, **options)
    assert mine.read_bytes() == before
    assert any("was continued" in change for change in result.manifest["changes"])
    whole_run = separator.separate_file(song, tmp_path / "whole", overlap=0.9)
    assert samples(result) == samples(whole_run)
    assert os.listdir(out) == ["song"]


def manifest_of(result, **stems):
    manifest = json.loads(json.dumps(result.manifest))
    sample = next(iter(manifest["stems"].values()))
    manifest["stems"] = {name: {**sample, "file": file} for name, file in stems.items()}
    return manifest


@pytest.mark.parametrize("with_digest", [False, True])
def test_a_planted_manifest_removes_nothing(separator, results, song, tmp_path, with_digest):
    out = tmp_path / "stems"
    (out / "song").mkdir(parents=True)
    (out / "n.wav").write_bytes(b"a recording")
    (out / "other.wav").write_bytes(b"another one")
    (tmp_path / "outside.wav").write_bytes(b"outside")
    named = {"a": "../n.wav", "other": "../other.wav", "n": str(tmp_path / "outside.wav")}
    manifest = manifest_of(results["all"], **named)
    if with_digest:
        for record in manifest["stems"].values():
            record["sha256"] = file_digest(out / "song" / record["file"])
    (out / "song" / "run.json").write_text(json.dumps(manifest))
    before = files(tmp_path)
    separator.separate_file(song, out, output=OutputSettings(force=True))
    after = files(tmp_path)
    for name in ("stems/n.wav", "stems/other.wav", "outside.wav"):
        assert after[name] == before[name]


def test_only_files_that_are_as_stemlab_wrote_them_are_replaced(results, song, tmp_path):
    saved = save_result(results["all"], tmp_path)
    (tmp_path / "song" / "notes.txt").write_text("mine")
    with saved.stems["vocals"].open("ab") as file:
        file.write(b"edited")
    before = files(tmp_path)
    for way in ("all", "fewer", "two", "flac"):
        with pytest.raises(OutputError, match=r"vocals\.wav' exists and was changed since"):
            save_result(results[way], tmp_path, force=True)
    assert files(tmp_path) == before
    os.rename(saved.stems["vocals"], tmp_path / "edited.wav")
    save_result(results["fewer"], tmp_path, force=True)
    assert set(files(tmp_path)) == {
        "edited.wav",
        *(f"song/{name}" for name in ("bass.wav", "drums.wav", "notes.txt", "run.json")),
    }


def test_the_recording_is_never_replaced(separator, song, tmp_path):
    folder = tmp_path / "song"
    folder.mkdir()
    recording = folder / "drums.wav"
    shutil.copy(song, recording)
    before = files(tmp_path)
    output = OutputSettings(filename="song/{source}.{ext}", force=True)
    with pytest.raises(OutputError, match="is the recording itself"):
        separator.separate_file(recording, tmp_path, output=output)
    manifest = json.loads(json.dumps(separator.separate_file(song, tmp_path / "x").manifest))
    manifest["stems"]["drums"]["sha256"] = file_digest(recording)
    (folder / "run.json").write_text(json.dumps(manifest))
    before = files(folder)
    with pytest.raises(OutputError, match="is the recording itself"):
        separator.separate_file(recording, tmp_path, output=output)
    assert files(folder) == before


@unix
def test_a_folder_below_the_output_folder_is_not_a_link(separator, results, song, tmp_path):
    documents, out = tmp_path / "documents", tmp_path / "link"
    documents.mkdir()
    (tmp_path / "stems").mkdir()
    out.symlink_to(tmp_path / "stems")  # The folder that is named may be one.
    (tmp_path / "stems" / "song").symlink_to(documents)
    for force in (False, True):
        with pytest.raises(OutputError, match=r"song' cannot hold a result: it is a link"):
            separator.separate_file(song, out, output=OutputSettings(force=force))
    assert files(documents) == {}
    (tmp_path / "stems" / "song").unlink()

    def swap(event):
        if event.done == 1:
            (tmp_path / "stems" / "song").symlink_to(documents)

    with pytest.raises(OutputError, match="it is a link"):
        separator.separate_file(song, out, progress=swap)
    assert files(documents) == {}
    (tmp_path / "stems" / "song").unlink()
    save_result(results["all"], out)
    # Stems that are links, or hard links of the right content, are not replaced through.
    bass = tmp_path / "stems" / "song" / "bass.wav"
    bass.rename(documents / "bass.wav")
    bass.symlink_to(documents / "bass.wav")
    with pytest.raises(OutputError, match=r"bass\.wav' exists and is a link"):
        save_result(results["all"], out, force=True)


@unix
@pytest.mark.skipif(os.geteuid() != 0 if hasattr(os, "geteuid") else True, reason="needs root")
def test_files_of_another_user_stay(results, tmp_path):
    saved = save_result(results["all"], tmp_path)
    os.chown(saved.stems["bass"], 12345, 12345)
    with pytest.raises(OutputError, match=r"bass\.wav' exists .*belongs to another user"):
        save_result(results["all"], tmp_path, force=True)


@unix
@pytest.mark.parametrize(
    "content", ["pipe", "folder", "link", "", "[" * 100_000, '{"schema": 2}', "1e999"]
)
def test_a_manifest_that_is_none(results, tmp_path, content):
    (tmp_path / "song").mkdir()
    place = tmp_path / "song" / "run.json"
    if content == "pipe":
        os.mkfifo(place)
    elif content == "folder":
        place.mkdir()
    elif content == "link":
        (tmp_path / "x.json").write_text(json.dumps(results["all"].manifest))
        place.symlink_to(tmp_path / "x.json")
    else:
        place.write_text(content)
    with pytest.raises(OutputError, match=r"run\.json' exists and was not written by stemlab"):
        save_result(results["all"], tmp_path, force=True)
    if content != "link":
        with pytest.raises(ParameterError, match=r"run\.json"):
            RunManifest.read(place)


# ---------------------------------------------------------------- what version 0.1 left

V0_1 = Path(__file__).parent / "fixtures" / "v0_1"


@pytest.fixture
def earlier_version(tmp_path):
    """The song, a separator and a copy of what version 0.1 left of it."""

    def copy(name):
        return shutil.copytree(V0_1 / name, tmp_path / name)

    return V0_1 / "song.wav", AudioStemSeparator(V0_1 / "models" / "tiny"), copy


def test_a_result_of_version_0_1_is_replaced_only_on_demand(earlier_version):
    song, separator, copy = earlier_version
    out = copy("result")
    before = files(out)
    for output in (OutputSettings(), OutputSettings(format="flac", resume=True)):
        with pytest.raises(OutputError, match=r"made by an earlier version.* Pass --force"):
            separator.separate_file(song, out, output=output)
    assert files(out) == before
    vocals = out / "song" / "vocals.flac"
    edited = vocals.read_bytes() + b"edited"
    vocals.write_bytes(edited)
    with pytest.raises(OutputError, match=r"vocals\.flac' exists and was changed since"):
        separator.separate_file(song, out, output=OutputSettings(force=True))
    assert files(out) == {**before, "song/vocals.flac": edited}
    vocals.unlink()
    separator.separate_file(song, out, output=OutputSettings(force=True))
    assert set(whole(out)) == {"vocals", "other"}
    assert RunManifest.read(out / "song").schema == 2


def test_two_stems_of_version_0_1_are_replaced(earlier_version):
    song, separator, copy = earlier_version
    out = copy("two-stems")
    separator.separate_file(song, out, output=OutputSettings(force=True))
    assert set(whole(out)) == {"vocals", "other"}


def test_an_unfinished_run_of_version_0_1_is_begun_anew(earlier_version):
    song, separator, copy = earlier_version
    out = copy("unfinished")
    result = separator.separate_file(song, out, output=OutputSettings(resume=True), overlap=0.5)
    assert not [change for change in result.manifest["changes"] if "continued" in change]
    whole(out)
    assert os.listdir(out) == ["song"]


def test_moves_of_version_0_1_are_named_and_left(earlier_version, caplog):
    song, separator, copy = earlier_version
    out = copy("killed-while-moving")
    before = files(out)
    with pytest.raises(OutputError, match=r"vocals\.flac' exists and was changed since"):
        separator.separate_file(song, out, output=OutputSettings(force=True))
    assert files(out) == before
    assert "(earlier-0, earlier-1)" in caplog.text
    # As the user is told: move away what is there, and it works.
    os.rename(out / "song", out / "moved")
    separator.separate_file(song, out)
    after = files(out)
    assert {name: after[name] for name in before if name.startswith(".")} == {
        name: content for name, content in before.items() if name.startswith(".")
    }


# ---------------------------------------------------------------- plans that are read back


def test_plans_are_the_same_after_they_were_read(separator, song, tmp_path):
    for number, settings in enumerate(
        (
            {"skip_covered_tail": True, "overlap": 0.5},
            {"shifts": 2, "segment_seconds": 0.3},
            {"segment_seconds": 0.7, "pad_to_training_segment": False},
        )
    ):
        result = separator.separate_file(song, tmp_path / str(number), **settings)
        run = RunManifest.read(result.manifest_path)
        assert run.plans == result.run.plans
        assert [plan.calls for plan in run.plans] == [plan["calls"] for plan in run.plan]
        for plan, stored in zip(run.plans, run.plan, strict=True):
            assert plan.input_samples == stored["input_samples"]
            assert plan.skip_covered_tail == settings.get("skip_covered_tail", False)
        assert run.threads >= 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"samples": 10**13}, "more than"),
        ({"hop_samples": 1}, "hop"),
        ({"samples": 1e300}, "whole number"),
        ({"segment_samples": True}, "whole number"),
        ({"starts": []}, "starts"),
        ({"starts": [-(10**15)]}, "starts"),
        ({"starts": {"a": 1}}, "starts"),
        ({"overlap": "half"}, "overlap"),
        ({"overlap": 7}, "overlap"),
        ({"skip_covered_tail": 3}, "covered tail"),
        ({"starts": None}, "incomplete"),
    ],
)
def test_odd_plans_are_refused(results, change, words):
    manifest = json.loads(json.dumps(results["all"].manifest))
    manifest["plan"][0].update(change)
    with pytest.raises(ValueError, match=words):
        _ = RunManifest.from_json(json.dumps(manifest).encode()).plans


# ---------------------------------------------------------------- kills


@unix
@pytest.mark.parametrize(
    ("before", "after"),
    [(None, "all"), ("all", "fewer"), ("two", "flac")],
)
def test_killed_at_any_change_of_a_file(results, tmp_path, before, after):
    known = {name: samples(result) for name, result in results.items() if name in (before, after)}
    for number in range(1000):
        out = tmp_path / str(number)
        if before:
            save_result(results[before], out)
        if not killed_at(number, lambda out=out: save_result(results[after], out, force=True)):
            break
        # Without leave to replace it, the next run finds one of the results whole.
        if before:
            with pytest.raises(OutputError, match="exists already"):
                save_result(results[after], out)
            assert whole(out) in known.values()
        save_result(results[after], out, force=True)
        assert whole(out) == known[after]
        assert os.listdir(out) == ["song"]
        shutil.rmtree(out)
    assert number > (20 if before else 12)
    assert whole(out) == known[after]


def refused(result, out):
    """What was cut off is put right; then the earlier result is not replaced unasked."""
    with pytest.raises(OutputError, match="exists already"):
        save_result(result, out)


@unix
def test_killed_again_while_it_is_put_right(results, tmp_path):
    """Content that is equal before and after, in two of the files, must not confuse it."""
    known = [samples(results[way]) for way in ("all", "fewer")]
    for second in range(1000):
        out = tmp_path / str(second)
        save_result(results["all"], out)
        assert killed_at(24, lambda out=out: save_result(results["fewer"], out, force=True))
        if not killed_at(second, lambda out=out: refused(results["fewer"], out)):
            break
        refused(results["fewer"], out)
        assert whole(out) in known
        save_result(results["fewer"], out, force=True)
        assert whole(out) == known[1]
        assert os.listdir(out) == ["song"]
        shutil.rmtree(out)
    assert second > 8


@unix
def test_a_file_system_without_hard_links(results, tmp_path, monkeypatch):
    # No such file system is at hand: the call refuses as it would there.
    def refuse(*_, **__):
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    save_result(results["all"], tmp_path)
    save_result(results["fewer"], tmp_path, force=True)
    assert whole(tmp_path) == samples(results["fewer"])
    with Folder(tmp_path) as folder, folder.subfolder("song") as song:
        before = files(tmp_path)
        with pytest.raises(FileExistsError):
            song.move("bass.wav", song, "drums.wav")
    assert files(tmp_path) == before


@unix
def test_an_error_at_any_move_leaves_the_earlier_result(results, tmp_path, monkeypatch):
    save_result(results["all"], tmp_path)
    before, refused = files(tmp_path), 0
    real = Folder.move
    for number in range(8):
        left = number

        def move(self, *where):
            nonlocal left, refused
            left -= 1
            if left == -1:
                refused += 1
                raise PermissionError(13, "The file is open in another program")
            real(self, *where)

        with monkeypatch.context() as patched:
            patched.setattr(Folder, "move", move)
            with pytest.raises(OutputError, match="open in another program"):
                save_result(results["fewer"], tmp_path, force=True)
        assert files(tmp_path) == before
        assert os.listdir(tmp_path) == ["song"]
    assert refused == 8
    save_result(results["fewer"], tmp_path, force=True)
    assert whole(tmp_path) == samples(results["fewer"])


@unix
def test_an_earlier_result_that_cannot_be_put_back_is_kept(results, tmp_path):
    save_result(results["all"], tmp_path)
    owner = f"{results['all'].manifest['input']['sha256'][:16]}-saved"
    bass = tmp_path / "song" / "bass.wav"
    sha256 = file_digest(bass)
    work = WorkFolder(tmp_path, owner)
    os.rename(bass, work.path / "earlier-0")
    os.rename(tmp_path / "song" / "run.json", tmp_path / "run.json")
    moves = [
        {"name": "song/bass.wav", "sha256": sha256, "draft": None, "earlier": "earlier-0"},
        {"name": "song/run.json", "sha256": sha256, "draft": "manifest.json", "earlier": None},
    ]
    work.write("moves-2.json", json.dumps({"schema": 2, "moves": moves}).encode())
    work.close(keep=True)
    bass.write_bytes(b"somebody else's")
    with pytest.raises(OutputError, match=r"was cut off .* cannot be put back"):
        save_result(results["all"], tmp_path)
    assert bass.read_bytes() == b"somebody else's"
    bass.unlink()
