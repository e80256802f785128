"""Runs that are killed and go on, mostly in forks of this process, killed without warning."""

from __future__ import annotations

import copy
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import planted
import pytest
import soundfile
import torch
from commands import Fork
from demucs.apply import BagOfModels
from demucs.htdemucs import HTDemucs
from hostile import mounted

from stemlab import AudioStemSeparator, OutputSettings, ParameterError
from stemlab.cli.main import main
from stemlab.errors import OutputError

SECONDS = 6


@pytest.fixture(scope="module")
def songs(tmp_path_factory):
    """Noise in the ways in which recordings differ: rate and channels."""
    folder, rng = tmp_path_factory.mktemp("songs"), np.random.default_rng(0)
    for name, rate, channels in (("plain", 44_100, 2), ("other", 48_000, 2), ("mono", 44_100, 1)):
        audio = rng.uniform(-0.3, 0.3, (SECONDS * rate, channels)).astype(np.float32)
        soundfile.write(folder / f"{name}.wav", audio, rate, subtype="FLOAT")
    return folder


def command(song, model, out, *options):
    return [
        *("separate", str(song), "--model", str(model)),
        *("--out", str(out), "--overlap", "0.5", *options),
    ]


def journals(out):
    return [*Path(out).glob(".stemlab-*.partial/journal")]


def kill_after(lines, arguments, out):
    """Start a run and kill it once its journal has so many lines; how many blocks are finished."""
    running = Fork(*arguments)
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not running.ended():
        found = journals(out)
        if found and found[0].read_bytes().count(b"\n") > lines:
            break
        time.sleep(0.005)
    assert not running.ended(), "the run ended before it was killed"
    running.kill(signal.SIGKILL)
    return len(journals(out)[0].read_bytes().splitlines()) - 1


def samples(out):
    (manifest,) = Path(out).glob("*/run.json")
    run = json.loads(manifest.read_bytes())
    return run, {name: each["samples_sha256"] for name, each in run["stems"].items()}


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL on Windows")
@pytest.mark.parametrize(
    ("song", "options"),
    [("plain", ("--shifts", "2")), ("other", ("--two-stems", "bass", "--format", "flac"))],
)
def test_killed_again_and_again_it_ends_with_the_samples_of_one_run(
    tiny_model_folder, songs, tmp_path, song, options
):
    path = songs / f"{song}.wav"
    assert main(command(path, tiny_model_folder, tmp_path / "whole", *options)) == 0
    resumed = command(path, tiny_model_folder, tmp_path / "cut", "--resume", *options)
    # The first is killed without having been told to resume.
    done = [kill_after(1, [word for word in resumed if word != "--resume"], tmp_path / "cut")]
    done += [kill_after(done[0] + 3, resumed, tmp_path / "cut")]
    assert done[0] < done[1]
    assert main(resumed) == 0
    (expected_run, expected), (run, found) = samples(tmp_path / "whole"), samples(tmp_path / "cut")
    assert found == expected
    assert run["fingerprint"] == expected_run["fingerprint"]
    assert [each for each in run["changes"] if "was continued, from" in each]
    names = [each.name for each in (tmp_path / "cut").iterdir()]
    assert names == [song], "something stray was left"


def test_a_finished_run_is_recognised_and_not_repeated(
    tiny_model_folder, songs, tmp_path, capsys, monkeypatch
):
    arguments = command(songs / "plain.wav", tiny_model_folder, tmp_path / "out", "--resume")
    assert main(arguments) == 0
    before = {each: each.stat().st_mtime_ns for each in (tmp_path / "out").rglob("*")}
    capsys.readouterr()

    def never(*_):
        raise AssertionError("it was separated again")

    with monkeypatch.context() as patched:
        patched.setattr("stemlab.separation._job.Job.separate", never)
        assert main(arguments) == 0
    assert "finished already" in capsys.readouterr().out
    assert {each: each.stat().st_mtime_ns for each in (tmp_path / "out").rglob("*")} == before
    # Made in another way, or no longer what was written, it is not taken for finished.
    assert main([*arguments, "--shifts", "1"]) == 6
    with (tmp_path / "out" / "plain" / "bass.wav").open("ab") as file:
        file.write(b"more")
    assert main(arguments) == 6
    assert "--force" in capsys.readouterr().err


def interrupted(separator, song, out, blocks, **options):
    """Run until so many blocks are done and then give up, as after Ctrl-C."""

    def progress(event):
        if event.done == blocks:
            raise KeyboardInterrupt

    output = OutputSettings(resume=True)
    with pytest.raises(KeyboardInterrupt):
        separator.separate_file(song, out, output=output, progress=progress, **options)
    return next(Path(out).glob(".stemlab-*.partial"))


@pytest.fixture
def short_song(tmp_path, rng):
    path = tmp_path / "short.wav"
    soundfile.write(path, rng.uniform(-0.3, 0.3, (30_000, 2)), 44_100, subtype="FLOAT")
    return path


@pytest.fixture
def separator(tiny_htdemucs):
    return AudioStemSeparator(tiny_htdemucs)


def digests(result):
    return {name: each["samples_sha256"] for name, each in result.manifest["stems"].items()}


def test_the_speed_of_a_resumed_run_counts_what_it_computed(separator, songs, tmp_path):
    song, out = songs / "plain.wav", tmp_path / "out"
    interrupted(separator, song, out, 4)
    output = OutputSettings(resume=True)
    run = separator.separate_file(song, out, output=output).manifest
    (change,) = [change for change in run["changes"] if "was continued, from" in change]
    begin = float(change.split(" from ")[1].split()[0])  # In whole seconds.
    own_seconds = run["cost"]["wall_seconds"] / run["cost"]["rtf"]
    assert own_seconds == pytest.approx(run["input"]["seconds"] - begin, abs=0.6)
    assert own_seconds < run["input"]["seconds"] - 1
    assert "earlier runs included" in run["cost"]["peak_memory_of"]


def test_early_ends_keep_what_is_finished_and_calls_are_not_repeated(separator, songs, tmp_path):
    song, calls = songs / "plain.wav", []
    interrupted(separator, song, tmp_path / "out", 4)
    result = separator.separate_file(
        song, tmp_path / "out", output=OutputSettings(resume=True), progress=calls.append
    )
    total = result.manifest["plan"][0]["calls"]
    # One chunk reaches over the place where it was cut off.
    assert len(calls) in (total - 3, total - 2)
    assert calls[0].done == total - len(calls) + 1
    assert calls[-1].done == calls[-1].total == total
    assert digests(result) == digests(separator.separate_file(song, tmp_path / "whole"))


@pytest.mark.parametrize("damage", ["flip", "shorten", "lose", "tear", "garbage"])
def test_what_was_damaged_is_made_again(separator, songs, tmp_path, damage):
    song = songs / "plain.wav"
    folder = interrupted(separator, song, tmp_path / "out", 4)
    raw, journal = folder / "drums.f32", folder / "journal"
    content = bytearray(raw.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
        raw.write_bytes(content)
    elif damage == "shorten":
        raw.write_bytes(content[: len(content) // 3])
    elif damage == "lose":
        raw.unlink()
    elif damage == "tear":
        journal.write_bytes(journal.read_bytes()[:-30])
    else:
        journal.write_bytes(b"\xff\x00 no journal")
    result = separator.separate_file(song, tmp_path / "out", output=OutputSettings(resume=True))
    assert digests(result) == digests(separator.separate_file(song, tmp_path / "whole"))
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["plain"]


@pytest.mark.parametrize("resume", [True, False])
def test_another_run_of_the_song_takes_nothing_over(separator, songs, tmp_path, resume):
    song = songs / "plain.wav"
    interrupted(separator, song, tmp_path / "out", 4)
    settings = {"overlap": 0.1} if resume else {}
    result = separator.separate_file(
        song, tmp_path / "out", output=OutputSettings(resume=resume), **settings
    )
    assert not [each for each in result.manifest["changes"] if "was continued, from" in each]
    assert digests(result) == digests(separator.separate_file(song, tmp_path / "w", **settings))
    assert [each.name for each in (tmp_path / "out").iterdir()] == ["plain"]


@pytest.mark.parametrize(("extension", "samples"), [("wav", 5), ("wav", 30_000), ("flac", 5)])
def test_a_forged_finished_run_is_not_taken_for_one(
    separator, short_song, tmp_path, extension, samples
):
    """Its manifest agrees with its files: the key, and the digests of these."""
    output = OutputSettings(resume=True, format=extension)
    result = separator.separate_file(short_song, tmp_path, sources=["bass"], output=output)
    again = separator.separate_file(short_song, tmp_path, sources=["bass"], output=output)
    assert again.was_cached
    soundfile.write(result.stems["bass"], np.zeros((samples, 2)), 44_100, subtype=None)
    run = json.loads(result.manifest_path.read_bytes())
    content = result.stems["bass"].read_bytes()
    run["stems"]["bass"]["sha256"] = hashlib.sha256(content).hexdigest()
    result.manifest_path.write_text(json.dumps(run))
    with pytest.raises(OutputError, match="exists already"):
        separator.separate_file(short_song, tmp_path, sources=["bass"], output=output)


def _other_segment(network):
    network.segment = Fraction(1, 2)


def _other_padding(network):
    network.use_train_segment = False


def _other_class(network):
    class Louder(HTDemucs):
        def forward(self, mix):
            return 2 * super().forward(mix)

    network.__class__ = Louder


def _other_hook(network):
    network.register_forward_hook(lambda module, inputs, stems: 2 * stems)


def _other_activation(network):
    network.crosstransformer.layers[0].activation = torch.relu


@pytest.mark.parametrize(
    "change", [_other_segment, _other_padding, _other_class, _other_hook, _other_activation]
)
def test_a_network_gets_no_stems_of_another_with_its_weights(
    tiny_htdemucs, short_song, tmp_path, change
):
    other = copy.deepcopy(tiny_htdemucs)
    change(other)
    _is_not_taken_over(tiny_htdemucs, other, short_song, tmp_path)


def test_a_bag_gets_no_stems_of_one_with_other_gains(tiny_htdemucs, short_song, tmp_path):
    bags = [
        BagOfModels([tiny_htdemucs, tiny_htdemucs], weights=[gains, [1.0] * 4])
        for gains in ([1.0, 1.0, 1.0, 1.0], [1.0, 2.0, 1.0, 1.0])
    ]
    _is_not_taken_over(*bags, short_song, tmp_path)


def _is_not_taken_over(network, other, song, out):
    """The same network, made again, is recognised; the other one is not."""
    resume = OutputSettings(resume=True)
    AudioStemSeparator(network).separate_file(song, out, sources=["bass"], output=resume)
    again = AudioStemSeparator(copy.deepcopy(network))
    assert again.separate_file(song, out, sources=["bass"], output=resume).was_cached
    with pytest.raises(OutputError, match="exists already"):
        AudioStemSeparator(other).separate_file(song, out, sources=["bass"], output=resume)


def test_a_network_of_ones_own_class_goes_on_with_a_version_alone(short_song, tmp_path, caplog):
    output = OutputSettings(resume=True)

    def run(version, shares=planted.SHARES):
        network = planted.Planted(shares=shares)
        separator = AudioStemSeparator(network, network_version=version)
        return separator.separate_file(short_song, tmp_path / "out", output=output)

    assert not run("a").was_cached
    assert run("a").was_cached
    assert not caplog.records
    for version, shares in (("b", planted.SHARES), ("a", (1, 1, 1, 1)), (None, planted.SHARES)):
        with pytest.raises(OutputError, match="exists already"):
            run(version, shares)
    assert "Pass network_version" in caplog.text


def test_threads_are_recorded_and_part_of_the_key(separator, short_song, tmp_path):
    output, threads = OutputSettings(resume=True), torch.get_num_threads()
    result = separator.separate_file(short_song, tmp_path, sources=["bass"], output=output)
    assert result.manifest["threads"] == threads
    try:
        torch.set_num_threads(threads + 1)
        with pytest.raises(OutputError, match="exists already"):
            separator.separate_file(short_song, tmp_path, sources=["bass"], output=output)
    finally:
        torch.set_num_threads(threads)


def test_calls_of_several_segments_are_those_of_one_run(tiny_hdemucs, tmp_path, rng):
    """What is computed together with a segment changes its last bits."""
    song = tmp_path / "song.wav"
    soundfile.write(song, rng.uniform(-0.3, 0.3, (5 * 44_100, 2)), 44_100, subtype="FLOAT")
    separator = AudioStemSeparator(tiny_hdemucs, batch_size=3)
    whole = separator.separate_file(song, tmp_path / "whole", sources=["bass"])
    interrupted(separator, song, tmp_path / "out", 6, sources=["bass"])
    output = OutputSettings(resume=True)
    result = separator.separate_file(song, tmp_path / "out", sources=["bass"], output=output)
    assert digests(result) == digests(whole)
    assert any("was continued, from" in change for change in result.manifest["changes"])


def test_a_mono_recording_goes_on_as_well(separator, songs, tmp_path):
    interrupted(separator, songs / "mono.wav", tmp_path / "out", 4)
    output = OutputSettings(resume=True)
    result = separator.separate_file(songs / "mono.wav", tmp_path / "out", output=output)
    whole = separator.separate_file(songs / "mono.wav", tmp_path / "whole")
    assert digests(result) == digests(whole)


def test_an_unfinished_run_of_another_song_stays(separator, songs, tmp_path):
    folder = interrupted(separator, songs / "plain.wav", tmp_path / "out", 4)
    separator.separate_file(songs / "mono.wav", tmp_path / "out")
    assert folder.exists()


def test_a_run_that_works_is_left_alone(separator, songs, tmp_path):
    """The same song twice at once: each has its own folder, and one of them is the first."""
    song, out = songs / "plain.wav", tmp_path / "out"

    def second(event):
        if event.done == 5:
            (held,) = out.glob(".stemlab-*.partial")
            result = separator.separate_file(song, out, output=OutputSettings(resume=True))
            assert not result.was_cached
            assert [*out.glob(".stemlab-*.partial")] == [held]

    with pytest.raises(OutputError, match="exists already"):
        separator.separate_file(song, out, progress=second)
    assert [each.name for each in out.iterdir()] == ["plain"]


def test_ctrl_c_says_how_to_go_on(tiny_model_folder, songs, tmp_path):
    for options, words in (
        (["--resume"], "goes on from here"),
        ([], "nothing half-written was left"),
    ):
        out = tmp_path / "out"
        arguments = command(songs / "plain.wav", tiny_model_folder, out, *options)
        command_line = [sys.executable, "-m", "stemlab", *arguments]
        process = subprocess.Popen(command_line, stderr=subprocess.PIPE, text=True)
        while not (journals(out) and journals(out)[0].read_bytes().count(b"\n") > 2):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert words in said
        assert process.returncode == 130
        assert out.exists() == bool(options)
        shutil.rmtree(out, ignore_errors=True)


def test_a_disk_that_fills_up_is_said_and_the_next_run_goes_on(
    tiny_model_folder, songs, tmp_path, capsys
):
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "size=15m"):
        arguments = command(songs / "plain.wav", tiny_model_folder, disk / "out", "--resume")
        (disk / "other").write_bytes(bytes(10_000_000))
        assert main(arguments) == 6  # 6 s of four stems, twice: 17 MB.
        said = capsys.readouterr().err
        assert re.search(r"has \d MB of free space; this run needs about 17 MB", said)
        assert [each.name for each in disk.iterdir()] == ["other"]
        # Somebody else fills it while the run works.
        shorter = ["--sources", "bass", "--format", "flac", "--bits", "16"]
        song = songs / "plain.wav"
        separator = AudioStemSeparator(tiny_model_folder)
        output = OutputSettings(resume=True)

        def fill(event):
            if event.done == 4:
                free = shutil.disk_usage(disk).free
                (disk / "more").write_bytes(bytes(free - 100_000))

        with pytest.raises(OutputError, match="No space left on device"):
            separator.separate_file(
                song, disk / "out", sources=["bass"], output=output, progress=fill
            )
        (disk / "more").unlink()
        result = separator.separate_file(song, disk / "out", sources=["bass"], output=output)
        whole = separator.separate_file(song, tmp_path / "whole", sources=["bass"])
        assert digests(result) == digests(whole)
        assert any("was continued, from" in each for each in result.manifest["changes"])
        assert main([*arguments, *shorter]) == 6  # What is there was made in another way.


def test_resume_is_no_part_of_how_a_run_is_repeated(separator, songs, tmp_path):
    result = separator.separate_file(
        songs / "plain.wav", tmp_path / "out", output=OutputSettings(resume=True)
    )
    plain = separator.separate_file(songs / "plain.wav", tmp_path / "plain")
    assert result.manifest["fingerprint"] == plain.manifest["fingerprint"]
    with pytest.raises(ParameterError):
        OutputSettings(resume=True, format="wma")
