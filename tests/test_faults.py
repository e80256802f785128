"""What happens to a machine while stemlab works: kills, disks, clocks, other processes.

After each of them, what is finished is whole, nothing stray is left once the next run has started,
and that run does its work. `make test-long` also kills hundreds of commands.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hostile import Nursery, cases, killed_at, mounted, permissions_hold
from model_files import hub_file, package

from stemlab import AudioStemSeparator, OutputSettings, audio
from stemlab.cli import main
from stemlab.errors import AudioError, OutputError
from stemlab.files import ScratchFolder
from stemlab.results import RunManifest
from stemlab.sweeps._excerpt import Excerpt
from stemlab.sweeps.store import SweepStore

RATE = 44_100
COMMAND = [sys.executable, "-m", "stemlab"]
unix = pytest.mark.skipif(sys.platform == "win32", reason="signals of Unix")


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="module")
def second_nursery() -> Iterator[Nursery]:
    with Nursery() as nursery:
        yield nursery


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "song.wav"
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (3 * RATE, 2)).astype(np.float32)
    soundfile.write(path, noise, RATE, subtype="FLOAT")
    return path


@pytest.fixture(scope="module")
def short_song(tmp_path_factory: pytest.TempPathFactory, song: Path) -> Path:
    """The first second."""
    path = tmp_path_factory.mktemp("short") / "song.wav"
    audio.write_file(path, [audio.read_file(song)[0][:, :RATE]], RATE, 2)
    return path


@pytest.fixture
def separator(tiny_htdemucs):
    return AudioStemSeparator(tiny_htdemucs)


def whole(out: Path) -> dict[str, str]:
    """Digests of the samples of the one result in a folder, all of whose files are as recorded."""
    (manifest,) = out.glob("*/run.json")
    stems = RunManifest.read(manifest).as_dict()["stems"]
    for each in stems.values():
        assert audio.file_digest(manifest.parent / each["file"]) == each["sha256"]
    names = {each.name for each in manifest.parent.iterdir()}
    assert names == {"run.json", *(each["file"] for each in stems.values())}
    return {name: each["samples_sha256"] for name, each in stems.items()}


# ---------------------------------------------------------------- killed at each step


def go_on_after_a_kill(separator, song, out, expected):
    """The next run ends with the samples of one that was not killed, and leaves nothing else."""
    separator.separate_file(
        song, out, sources=["drums", "bass"], output=OutputSettings(resume=True)
    )
    assert whole(out) == expected
    assert [path.name for path in out.iterdir()] == ["song"]
    shutil.rmtree(out)


@unix
@pytest.mark.parametrize("resume", [False, True])
def test_a_separation_killed_at_each_change_of_a_file(separator, short_song, tmp_path, resume):
    out, output = tmp_path / "out", OutputSettings(resume=resume)

    def separate(out: Path) -> None:
        separator.separate_file(short_song, out, sources=["drums", "bass"], output=output)

    separate(tmp_path / "whole")
    expected = whole(tmp_path / "whole")
    for number in itertools.count():
        was_killed = killed_at(number, lambda: separate(out))
        go_on_after_a_kill(separator, short_song, out, expected)
        if not was_killed:
            break
    assert number > 10


@unix
def test_a_store_of_sweeps_killed_at_each_change_of_a_file(tmp_path, rng):
    stems = {name: rng.uniform(-1, 1, (2, 100)).astype(np.float32) for name in ("bass", "drums")}
    excerpt, key = Excerpt("song", np.zeros((2, 100), np.float32), RATE, 0, 100), "ab" * 32
    for number in itertools.count():
        store = SweepStore(tmp_path / str(number))

        def fill(store: SweepStore = store) -> None:
            store.add(key, {"figure": 1.0})
            store.keep(key, stems, RATE)

        was_killed = killed_at(number, fill)
        assert store.find(key) in (None, {"figure": 1.0})
        for name, samples in store.kept_samples(key, tuple(stems), excerpt).items():
            np.testing.assert_array_equal(samples, stems[name])
        fill()
        assert store.find(key) == {"figure": 1.0}
        assert store.kept_samples(key, tuple(stems), excerpt).keys() == stems.keys()
        assert sorted(path.name for path in store.folder.iterdir()) == ["audio", "results"]
        if not was_killed:
            break
    assert number > 10


@unix
def test_a_sweep_killed_at_changes_of_files(tiny_model_folder, short_song, tmp_path, monkeypatch):
    """At all of them in `make test-long`.

    Only the store is looked at: a draft of the table, a single file, is cleared away by nobody.
    """
    whole, cache, step = tmp_path / "whole", tmp_path / "cache", cases(quick=20, long=1)

    def sweep(cache: Path) -> None:
        monkeypatch.setenv("STEMLAB_CACHE", str(cache))
        command = ["sweep", short_song, "--model", tiny_model_folder, "--keep-audio"]
        command += ["--segments", "1", "--overlaps", "0.25", "--out", f"{cache}.json"]
        assert main([*map(str, command)]) == 0

    whole.mkdir()
    sweep(whole)
    for number in itertools.count(0, step):
        cache.mkdir()
        shutil.copy(whole / "calibrations.json", cache)  # Measuring it anew takes longest.
        was_killed = killed_at(number, lambda: sweep(cache))
        sweep(cache)
        assert figures(Path(f"{cache}.json")) == figures(Path(f"{whole}.json"))
        stray = [path for path in cache.rglob("*") if path.name.startswith(".")]
        assert stray == [], f"killed at change {number}"
        shutil.rmtree(cache)
        if not was_killed:
            break
    assert number > 40


def figures(table: Path) -> list[tuple[object, ...]]:
    """What the table of a sweep says, but for what was measured in seconds."""
    names = ("segment_seconds", "overlap", "padded", "source", "agreement_db")
    rows = json.loads(table.read_bytes())["rows"]
    return sorted(tuple(str(row.get(name)) for name in names) for row in rows)


# ---------------------------------------------------------------- killed at any moment


@unix
@pytest.mark.long
def test_separations_that_are_killed(nursery, tiny_model_folder, song, tmp_path):
    command = ["separate", song, "--model", tiny_model_folder, "-q", "--overlap", "0.5"]
    _, seconds, _ = nursery.run([*command, "--out", tmp_path / "whole"])
    expected, rng = whole(tmp_path / "whole"), np.random.default_rng(20)
    killed, out = 0, tmp_path / "out"
    for number in range(200):
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
@pytest.mark.long
def test_replacements_that_are_killed(nursery, tiny_model_folder, song, tmp_path):
    command = ["separate", song, "--model", tiny_model_folder, "-q", "--out"]
    before = ["--overlap", "0", "--sources", "drums,bass"]
    known = []
    for number, options in enumerate((before, [])):
        _, seconds, _ = nursery.run([*command, tmp_path / str(number), *options])
        known.append(whole(tmp_path / str(number)))
    rng, out = np.random.default_rng(20), tmp_path / "0"
    for _ in range(200):
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
@pytest.mark.long
def test_sweeps_that_are_killed(nursery, tiny_model_folder, song, tmp_path):
    command = ["sweep", song, "--model", tiny_model_folder, "--segments", "0.5,1"]
    command += ["--overlaps", "0,0.25", "--keep-audio"]

    def run(cache: Path, **options: float) -> tuple[int, float, str]:
        table = ["--out", cache / "table.json"]
        environment = {"STEMLAB_CACHE": str(cache)}
        return nursery.run([*command, *table], environment=environment, **options)

    (tmp_path / "whole").mkdir()
    code, seconds, said = run(tmp_path / "whole")
    assert code == 0, said
    expected, rng = figures(tmp_path / "whole" / "table.json"), np.random.default_rng(20)
    cache = tmp_path / "cache"
    for _ in range(60):
        cache.mkdir()
        moment = rng.uniform(0, 1.1 * seconds)
        code, _, said = run(cache, kill_after=moment)
        assert code in (0, -9), said
        code, _, said = run(cache)
        assert code == 0, said
        assert figures(cache / "table.json") == expected
        stray = [each for each in cache.rglob("*") if each.name.startswith(".")]
        assert stray == [], f"killed after {moment} s"
        shutil.rmtree(cache)


@unix
def test_scratch_of_a_killed_process_goes_with_the_next_start(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = (
        "import os, signal, sys, tempfile\n"
        "tempfile.tempdir = sys.argv[1]\n"
        "from stemlab.files import ScratchFolder\n"
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


# ---------------------------------------------------------------- two at once


@unix
@pytest.mark.parametrize("options", [[], ["--force"], ["--resume"]])
def test_two_processes_separate_into_one_folder(
    nursery, second_nursery, tiny_model_folder, song, tmp_path, options
):
    command = ["separate", song, "--model", tiny_model_folder, "-q", "--overlap", "0.5", "--out"]
    nursery.run([*command, tmp_path / "whole"])
    out = tmp_path / "out"
    nurseries = (nursery, second_nursery)
    with ThreadPoolExecutor(2) as pool:
        for _ in range(cases(quick=1, long=30)):
            done = pool.map(lambda starts: starts.run([*command, out, *options]), nurseries)
            codes = {code: said for code, _, said in done}
            assert 0 in codes, codes
            assert codes.keys() <= {0, 6}, codes
            if "--resume" in options:
                # What the second one wanted to go on with goes, since it is done.
                code, _, said = nursery.run([*command, out, *options])
                assert code == 0, said
            assert whole(out) == whole(tmp_path / "whole")
            assert [each.name for each in out.iterdir()] == ["song"]
            shutil.rmtree(out)


@unix
def test_two_processes_sweep_into_one_store(
    nursery, second_nursery, tiny_model_folder, short_song, tmp_path
):
    environment = {"STEMLAB_CACHE": str(tmp_path / "cache")}
    command = ["sweep", short_song, "--model", tiny_model_folder, "--segments", "0.5,1"]
    command += ["--keep-audio", "--overlaps", "0", "--out", tmp_path / "table.json"]
    with ThreadPoolExecutor(2) as pool:
        runs = [children.run for children in (nursery, second_nursery)]
        done = pool.map(lambda run: run(command, environment=environment), runs)
        for code, _, said in done:
            assert code == 0, said
    rows = json.loads((tmp_path / "table.json").read_bytes())["rows"]
    assert len({each["agreement_db"] for each in rows if each["source"] == "bass"}) == 2
    store = SweepStore(tmp_path / "cache" / "sweeps")
    records = [each.stem for each in (store.folder / "results").rglob("*.json")]
    assert all(store.find(each) for each in records)
    assert not [each for each in tmp_path.rglob("*") if each.name.startswith(".")]


# ---------------------------------------------------------------- what may not be read or written


@pytest.fixture(params=["permissions", "disk"])
def lockable(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A folder, and what forbids to write there ("ro") and allows it ("rw")."""
    folder = tmp_path / "room"
    folder.mkdir()
    if request.param == "permissions":
        if not permissions_hold():
            pytest.skip("root may write everywhere here")

        def lock(how: str) -> None:
            for each in (folder, *(each for each in folder.rglob("*") if each.is_dir())):
                each.chmod(0o555 if how == "ro" else 0o755)

        yield folder, lock
        lock("rw")
    else:
        with mounted(folder, "size=50m"):
            yield (
                folder,
                lambda how: subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True),
            )


@unix
def test_nothing_is_begun_where_nothing_can_be_written(
    nursery, tiny_model_folder, tiny_htdemucs, short_song, lockable, tmp_path
):
    folder, lock = lockable
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(hub_file(tiny_htdemucs))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    environment = {
        "STEMLAB_CACHE": str(folder / "cache"),
        "STEMLAB_MODELS": str(folder / "models"),
    }
    model = ["--model", tiny_model_folder]
    sweep = ["sweep", short_song, *model, "--segments", "1", "--overlaps"]
    elsewhere = {**environment, "STEMLAB_CACHE": str(tmp_path / "cache")}
    commands = [
        (["separate", short_song, *model, "-q", "--out", folder / "out", "--force"], environment),
        ([*sweep, "0"], environment),
        ([*sweep, "0", "--out", folder / "table.csv"], elsewhere),
        (["models", "add", "mine", "--from", weights, "--sha256", digest], environment),
    ]

    def files() -> dict[Path, str]:
        there = [each for each in folder.rglob("*") if each.is_file()]
        return {each: hashlib.sha256(each.read_bytes()).hexdigest() for each in there}

    for command, variables in commands:
        code, _, said = nursery.run(command, environment=variables)
        assert code == 0, said
    before, stems = files(), whole(folder / "out")
    # What is stored already needs no folder.
    commands[1] = [*sweep, "0.25"], environment
    commands[3][0][2] = "another"
    lock("ro")
    for command, variables in commands:
        code, _, said = nursery.run(command, environment=variables)
        assert code == 6, said
        assert str(folder) in said.splitlines()[-1]
        assert "Recommended" not in said
        assert files() == before
    lock("rw")
    for command, variables in commands:
        code, _, said = nursery.run(command, environment=variables)
        assert code == 0, said
    assert whole(folder / "out") == stems
    assert [*folder.rglob(".stemlab*")] == []


def test_a_result_that_cannot_be_replaced_is_refused_before_the_work(separator, song, tmp_path):
    earlier = separator.separate_file(song, tmp_path / "earlier", sources=["bass"])
    folder = tmp_path / "out" / "song"
    folder.mkdir(parents=True)
    with mounted(folder, "size=50m"):
        for each in earlier.manifest_path.parent.iterdir():
            shutil.copy(each, folder)
        subprocess.run(["mount", "-o", "remount,ro", folder], check=True)
        with pytest.raises(OutputError, match=r"song' cannot be written to"):
            separator.separate_file(
                song,
                tmp_path / "out",
                output=OutputSettings(force=True),
                progress=lambda _: pytest.fail("it works"),
            )
        assert whole(tmp_path / "out") == whole(tmp_path / "earlier")
        assert [each.name for each in (tmp_path / "out").iterdir()] == ["song"]


@unix
@pytest.mark.skipif(not permissions_hold(), reason="root may read everything here")
@pytest.mark.parametrize("kept", ["song", "weights", "package"])
def test_what_may_not_be_read(nursery, tiny_model_folder, tiny_htdemucs, song, tmp_path, kept):
    model = tmp_path / "tiny"
    shutil.copytree(tiny_model_folder, model)
    copy, file = tmp_path / "song.wav", tmp_path / "mine.th"
    shutil.copy(song, copy)
    file.write_bytes(package(tiny_htdemucs))
    command = ["separate", copy, "--model", model, "-q", "--out", tmp_path / "out"]
    if kept == "package":
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        command = ["models", "add", "mine", "--from", file, "--sha256", digest]
    path = {"song": copy, "weights": model / "tiny.safetensors", "package": file}[kept]
    environment = {"STEMLAB_MODELS": str(tmp_path / "models")}
    path.chmod(0)
    code, _, said = nursery.run(command, environment=environment)
    assert code == (3 if kept == "song" else 4), said
    assert said.count("\n") == 1
    assert repr(str(path)) in said
    assert "ermission denied" in said
    assert not (tmp_path / "out").exists()
    path.chmod(0o644)
    code, _, said = nursery.run(command, environment=environment)
    assert code == 0, said


@unix
@pytest.mark.skipif(not permissions_hold(), reason="root may look everywhere here")
def test_folders_that_may_not_be_looked_into_and_names_that_cannot_be(
    nursery, tiny_model_folder, song, tmp_path
):
    closed = tmp_path / "closed"
    closed.mkdir()
    closed.chmod(0)
    model = ["--model", tiny_model_folder]
    for folder in (closed, closed / "below", tmp_path / ("x" * 300)):
        for command in (
            ["separate", song, *model, "-q", "--out", folder],
            ["sweep", song, *model, "--segments", "1", "--out", folder / "table.csv"],
            ["analyze", song, "--out", folder],
        ):
            code, _, said = nursery.run(command)
            assert code == 6, said
            assert said.count("\n") == 1
    assert {each.name for each in tmp_path.iterdir()} == {"closed"}
    closed.chmod(0o755)


# ---------------------------------------------------------------- memory


def processor_seconds(pid: int) -> float:
    """What all threads of a process have used."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def finish(
    process: subprocess.Popen[str], *, look_seconds: float = 60, most_seconds: float = 600
) -> tuple[int, str]:
    """Wait for a process as long as it works, for a busy machine only makes it slow.

    One that waits for ever uses no processor time, one in an endless loop too much of it.
    """
    used = 0.0
    while True:
        try:
            _, said = process.communicate(timeout=look_seconds)
            return process.returncode, said
        except subprocess.TimeoutExpired:
            before, used = used, processor_seconds(process.pid)
        if used - before < 0.01 or used > most_seconds:
            process.kill()
            _, said = process.communicate()
            raise AssertionError(f"no end after {used} s of processor time: {said}")


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("program", ["import time; time.sleep(99)", "while True: pass"])
def test_a_process_that_hangs_is_told_from_one_that_is_slow(program):
    slow = "import sys, time; end = time.monotonic() + 0.5\nwhile time.monotonic() < end: pass\n"
    for code, ends in ((slow + "sys.exit(3)", True), (program, False)):
        process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
        if ends:
            assert finish(process, look_seconds=0.2) == (3, "")
        else:
            with pytest.raises(AssertionError, match="no end after"):
                finish(process, look_seconds=0.2, most_seconds=1)


@pytest.mark.memory
@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS as Linux has it")
@pytest.mark.parametrize("name", ["separate", "sweep"])
def test_too_little_memory_at_any_point(tiny_model_folder, song, tmp_path, name):
    import resource

    out, cache = tmp_path / "out", tmp_path / "cache"
    command = [*COMMAND, name, song, "--model", tiny_model_folder, "--out"]
    if name == "separate":
        command += [out, "-q", "--force"]
    else:
        command += [tmp_path / "table.json", "--segments", "1", "--overlaps", "0,0.25"]

    def run(limit_bytes: int) -> tuple[int, str]:
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "STEMLAB_CACHE": str(cache)},
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes)),
        )
        return finish(process)

    # Where this build of PyTorch is loaded, and where a network of a few MB works.
    for megabytes in np.linspace(200, 1100, cases(quick=3, long=60)):
        code, said = run(int(megabytes * 1e6))
        lines = [each for each in said.splitlines() if "settings on cpu" not in each]
        assert "ulimit -v" in lines[0], said
        if code == 5:
            assert len(lines) == 2, said
        elif code:
            # A library ended the process, in places where no Python runs, or after it had its say.
            assert code < 0 or code in (1, 127), said
        assert all("memory" in each for each in lines[1:]), said
    code, said = run(resource.RLIM_INFINITY)
    assert code == 0, said
    if name == "separate":
        whole(out)
        assert [each.name for each in out.iterdir()] == ["song"]
    assert [*tmp_path.rglob(".stemlab*")] == []


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
