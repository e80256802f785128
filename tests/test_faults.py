"""What happens to a machine while stemlab works: kills, disks, clocks, other processes.

After each of them, what is finished is whole, nothing stray is left once the next run has started,
and that run does its work. `make test-long` kills hundreds of times.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile import Nursery, cases
from model_files import package

from stemlab import AudioStemSeparator, OutputSettings, audio
from stemlab._partial import PartialFolder, ScratchFolder
from stemlab.errors import AudioError, OutputError
from stemlab.runs import read_run
from stemlab.sweeps.store import SweepStore

RATE = 44_100
unix = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (6 * RATE, 2)).astype(np.float32)
    soundfile.write(path, noise, RATE, subtype="FLOAT")
    return path


@pytest.fixture
def separator(tiny_htdemucs):
    return AudioStemSeparator(tiny_htdemucs)


def whole(out: Path) -> dict[str, str]:
    """Digests of the samples of the one result in a folder, all of whose files are as recorded."""
    (manifest,) = out.glob("*/run.json")
    stems = read_run(manifest)["stems"]
    for each in stems.values():
        assert audio.file_digest(manifest.parent / each["file"]) == each["sha256"]
    names = {each.name for each in manifest.parent.iterdir()}
    assert names == {"run.json", *(each["file"] for each in stems.values())}
    return {name: each["samples_sha256"] for name, each in stems.items()}


# ---------------------------------------------------------------- killed at any moment


@unix
def test_separations_that_are_killed(nursery, tiny_model_folder, song, tmp_path):
    command = ["separate", song, "--model", tiny_model_folder, "-q", "--overlap", "0.5"]
    _, seconds, _ = nursery.run([*command, "--out", tmp_path / "whole"])
    expected, rng = whole(tmp_path / "whole"), np.random.default_rng()
    killed, out = 0, tmp_path / "out"
    for number in range(cases(quick=10, long=400)):
        options = ["--out", out, *([] if number % 3 else ["--resume"])]
        moment = rng.uniform(0, 1.1 * seconds)
        code, took, said = nursery.run([*command, *options], kill_after=moment)
        assert code in (0, -9), said
        if code == -9:
            killed += 1
        else:
            # The first run may have been slowed down by other work.
            seconds = min(seconds, took)
        code, _, said = nursery.run([*command, *options[:2], "--resume"])
        assert code == 0, said
        assert whole(out) == expected, f"killed after {moment} s"
        assert [each.name for each in out.iterdir()] == ["song"], f"killed after {moment} s"
        shutil.rmtree(out)
    assert killed > number // 2


@unix
def test_replacements_that_are_killed(nursery, tiny_model_folder, song, tmp_path):
    command = ["separate", song, "--model", tiny_model_folder, "-q", "--out"]
    before = ["--overlap", "0", "--sources", "drums,bass"]
    known = []
    for number, options in enumerate((before, [])):
        _, seconds, _ = nursery.run([*command, tmp_path / str(number), *options])
        known.append(whole(tmp_path / str(number)))
    rng, out = np.random.default_rng(), tmp_path / "0"
    for _ in range(cases(quick=10, long=400)):
        # Most of these moments are those in which files are written and moved.
        moment = rng.uniform(0.7, 1.05) * seconds
        code, _, said = nursery.run([*command, out, "--force"], kill_after=moment)
        assert code in (0, -9), said
        code, _, said = nursery.run([*command, out])
        assert code == 6, said
        assert "exists already" in said
        found = whole(out)
        assert found in known, f"killed after {moment} s"
        if found == known[1]:
            code, _, said = nursery.run([*command, out, "--force", *before])
            assert code == 0, said
    code, _, said = nursery.run([*command, out, "--force"])
    assert code == 0, said
    assert whole(out) == known[1]
    assert [each.name for each in out.iterdir()] == ["song"]


@unix
def test_sweeps_that_are_killed(nursery, tiny_model_folder, song, tmp_path):
    command = ["sweep", song, "--model", tiny_model_folder, "--segments", "0.5,1"]
    command += ["--overlaps", "0,0.25", "--keep-audio"]

    def run(cache: Path, **options: float) -> tuple[int, float, str]:
        table = ["--out", cache / "table.json"]
        environment = {"STEMLAB_CACHE": str(cache)}
        return nursery.run([*command, *table], environment=environment, **options)

    def table(cache: Path) -> list[tuple[object, ...]]:
        names = ("segment_seconds", "overlap", "padded", "source", "agreement_db")
        content = json.loads((cache / "table.json").read_bytes())
        rows = content["rows"] if isinstance(content, dict) else content
        return sorted(tuple(str(row.get(name)) for name in names) for row in rows)

    (tmp_path / "whole").mkdir()
    code, seconds, said = run(tmp_path / "whole")
    assert code == 0, said
    expected, rng = table(tmp_path / "whole"), np.random.default_rng()
    cache = tmp_path / "cache"
    for _ in range(cases(quick=4, long=200)):
        cache.mkdir()
        moment = rng.uniform(0, 1.1 * seconds)
        code, _, said = run(cache, kill_after=moment)
        assert code in (0, -9), said
        code, _, said = run(cache)
        assert code == 0, said
        assert table(cache) == expected
        stray = [each for each in cache.rglob("*") if each.name.startswith(".")]
        assert stray == [], f"killed after {moment} s"
        shutil.rmtree(cache)


@unix
def test_models_that_are_killed_while_they_are_added(nursery, tiny_htdemucs, song, tmp_path):
    content = package(tiny_htdemucs)
    file, store = tmp_path / "mine.th", tmp_path / "store"
    file.write_bytes(content)
    environment = {"STEMLAB_MODELS": str(store)}
    command = ["models", "add", "mine", "--from", file]
    command += ["--sha256", hashlib.sha256(content).hexdigest()]
    code, seconds, said = nursery.run(command, environment=environment)
    assert code == 0, said
    expected = {each.relative_to(store) for each in store.rglob("*")}
    rng = np.random.default_rng()
    for _ in range(cases(quick=6, long=200)):
        shutil.rmtree(store)
        moment = rng.uniform(0, 1.1 * seconds)
        code, _, said = nursery.run(command, environment=environment, kill_after=moment)
        assert code in (0, -9), said
        # Whole or not there: what is there is used.
        code, _, said = nursery.run(["models", "verify", "mine"], environment=environment)
        assert code in (0, 4), said
        code, _, said = nursery.run(command, environment=environment)
        assert code == 0, said
        assert {each.relative_to(store) for each in store.rglob("*")} == expected, moment
        code, _, said = nursery.run(["models", "verify", "mine"], environment=environment)
        assert code == 0, said


@unix
def test_scratch_of_a_killed_process_goes_with_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, signal, sys, tempfile\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "from stemlab._partial import ScratchFolder\n"
        "folder = ScratchFolder()\n"
        "open(folder.name + '/big', 'wb').write(bytes(1000))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], check=False)
    assert len([*tmp_path.glob("stemlab-scratch-*/big")]) == 1
    # Somebody else's, or a trap, is not touched.
    (tmp_path / "stemlab-scratch-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").mkdir()
    with ScratchFolder() as first, ScratchFolder() as second:
        left = {each.name for each in tmp_path.iterdir()}
        names = {Path(first).name, Path(second).name, "stemlab-scratch-link", "elsewhere"}
        assert left == names
    assert {each.name for each in tmp_path.iterdir()} == {"stemlab-scratch-link", "elsewhere"}
    assert (tmp_path / "elsewhere").is_dir()


@unix
def test_a_file_system_without_locks(separator, song, tmp_path, monkeypatch):
    import fcntl

    # No such file system is at hand: the call refuses as it would there.
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with ScratchFolder() as folder:
        assert [each.name for each in tmp_path.iterdir()] == [Path(folder).name]
    separator.separate_file(song, tmp_path / "out")
    whole(tmp_path / "out")
    SweepStore(tmp_path / "store").add("ab" * 32, {"figure": 1.0})
    assert [each.name for each in (tmp_path / "store").iterdir()] == ["results"]
    assert sorted(each.name for each in tmp_path.iterdir()) == ["out", "store"]


# ---------------------------------------------------------------- while it works


def test_the_folder_disappears(separator, song, tmp_path):
    out = tmp_path / "deep" / "out"

    def remove(event):
        if event.done == 3:
            shutil.rmtree(tmp_path / "deep")

    with pytest.raises(OutputError, match=r"deep.* cannot be written|cannot write to .*deep"):
        separator.separate_file(song, out, progress=remove)
    assert [*tmp_path.iterdir()] == []
    separator.separate_file(song, out)
    whole(out)


@pytest.mark.parametrize("change", ["content", "shorter", "gone", "other file"])
@pytest.mark.parametrize("resume", [False, True])
def test_the_recording_changes_while_it_is_read(separator, song, tmp_path, change, resume):
    copy, out = tmp_path / "song.wav", tmp_path / "out"
    shutil.copy(song, copy)

    def meddle(event):
        if event.done != 3:
            return
        if change == "content":
            with copy.open("r+b") as file:
                file.seek(-1000, os.SEEK_END)
                file.write(bytes(500))
        elif change == "shorter":
            os.truncate(copy, copy.stat().st_size // 3)
        elif change == "gone":
            copy.unlink()
        else:
            soundfile.write(tmp_path / "new.wav", np.zeros((100, 1)), 8000)
            os.replace(tmp_path / "new.wav", copy)

    output = OutputSettings(resume=resume)
    with pytest.raises(AudioError) as caught:
        separator.separate_file(copy, out, output=output, progress=meddle)
    assert str(copy) in str(caught.value)
    assert not out.exists()
    # Put back, it is separated anew: what was made of a mixture of both is of no use.
    shutil.copy(song, copy)
    separator.separate_file(copy, out, output=output)
    assert [each.name for each in out.iterdir()] == ["song"]
    separator.separate_file(song, tmp_path / "expected")
    assert whole(out) == whole(tmp_path / "expected")


def test_the_clock_is_set_back(separator, song, tmp_path, monkeypatch):
    # The clock is the one thing here that is not real.
    store = SweepStore(tmp_path / "store")
    abandoned = tmp_path / "store" / ".stemlab-sweep-abc.partial"
    abandoned.mkdir(parents=True)
    past = time.time() - 10 * 365 * 86_400
    monkeypatch.setattr(time, "time", lambda: past)
    store.check_writable()
    assert not abandoned.exists()
    separator.separate_file(song, tmp_path / "out")
    whole(tmp_path / "out")


def test_an_earlier_result_that_cannot_be_put_back_is_kept(tmp_path):
    folder = PartialFolder(tmp_path, "song")
    (folder.path / "earlier-0").write_bytes(b"before")
    note = {"draft": "new", "final": str(tmp_path / "a" / "stem.wav"), "earlier": "earlier-0"}
    (folder.path / "moves.json").write_text(json.dumps([note]), "utf-8")
    folder.close(keep=True)
    # The folder that it belongs to is not there: the move back fails.
    with pytest.raises(OutputError, match=r"was cut off .* cannot be put back"):
        PartialFolder(tmp_path, "song")
    assert (folder.path / "earlier-0").read_bytes() == b"before"
    (tmp_path / "a").mkdir()
    PartialFolder(tmp_path, "song").close(keep=False)
    assert (tmp_path / "a" / "stem.wav").read_bytes() == b"before"
    assert [each.name for each in tmp_path.iterdir()] == ["a"]
