"""``stemlab compare`` on real files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import planted
import pytest
import soundfile

from stemlab._assets import demo_song_dir
from stemlab.audio import read_file
from stemlab.cli import main
from stemlab.separation import AudioStemSeparator, OutputSettings
from stemlab.spectra import SpectralGrid, compare_spectra

RATE = 22_050


def song(path, gain=0.2, seconds=1.0, rate=RATE, hz=None):
    samples = np.random.default_rng(1).standard_normal((int(seconds * rate), 2))
    if hz:
        samples = np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, gain * samples, rate, subtype="FLOAT")
    return path


@pytest.fixture
def pair(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    song(tmp_path / "loud.wav")
    song(tmp_path / "quiet.wav", gain=0.1)
    return ["loud.wav", "quiet.wav"]


@pytest.fixture
def unsaved(monkeypatch):
    """Where only the numbers matter: making the picture's file takes most of the time."""
    monkeypatch.setattr("stemlab.cli.compare._picture", lambda figure, kind: b"")


def run(*arguments):
    return main(["compare", *map(str, arguments)])


def test_in_a_process_of_its_own(pair):
    done = subprocess.run(
        [sys.executable, "-m", "stemlab", "compare", *pair],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("In dB. Octave bands in Hz: the level of loud")
    assert lines[2].split() == "distance 31.5 63 125 250 500 1k 2k 4k 8k".split()
    assert lines[3].startswith("loud")
    assert lines[4].split() == ["quiet", "6.0", *["-6.0"] * 9]
    assert lines[-1] == "Picture: comparison.png"
    assert Path("comparison.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("suffix", ["svg", "pdf"])
def test_vector_pictures_have_text_and_no_date(pair, suffix, capsys):
    for out in (f"a.{suffix}", f"pictures/b.{suffix.upper()}"):
        assert run(*pair, "--out", out, "--quiet") == 0
    assert capsys.readouterr().out == ""
    content = Path(f"a.{suffix}").read_bytes()
    assert content == Path(f"pictures/b.{suffix.upper()}").read_bytes()
    assert b"Date" not in content.replace(b"dc:date", b"Date")
    # Rasterized meshes: as vectors, hundreds of thousands of cells would be many megabytes.
    assert len(content) < 2_000_000
    if suffix == "svg":
        text = content.decode()
        assert re.search(r"<text[^>]*>minus loud: log-spectral distance 6.0 dB</text>", text)
        assert text.count("<image ") >= 3
    else:
        assert b"/FontFile2" in content
        assert b"/Subtype /Image" in content


@pytest.mark.parametrize("out", ["picture.jpg", "picture", "folder/"])
def test_an_unknown_suffix_is_refused_before_anything_is_read(tmp_path, capsys, out, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run("missing.wav", "--out", out) == 2
    assert re.fullmatch(
        rf"stemlab: --out '{out}' is not a known kind .* \.png, \.svg or \.pdf\.\n",
        capsys.readouterr().err,
    )


def test_json_has_the_numbers_of_python(pair, unsaved, capsys):
    song(Path("tone.wav"), hz=1000, seconds=0.5)
    assert run(*pair, "tone.wav", "--reference", "./quiet.wav", "--json", "--time", "0.1,0.9") == 0
    facts = json.loads(capsys.readouterr().out)
    names = ["loud", "quiet", "tone"]
    measured = compare_spectra(
        {name: read_file(f"{name}.wav")[0] for name in names},
        RATE,
        reference="quiet",
        grid=SpectralGrid(time_range_seconds=(0.1, 0.9)),
    )
    assert facts["reference"] == "quiet"
    assert facts["sample_rate"] == RATE
    assert facts["picture"] == "comparison.png"
    assert facts["seams_seconds"] == []
    assert facts["time_range_seconds"] == measured.seconds[[0, -1]].tolist()
    assert facts["band_hz"] == list(measured.band_hz)
    assert list(facts["signals"]) == names
    for name, each in facts["signals"].items():
        assert each["file"] == f"{name}.wav"
        assert each["band_levels_db"] == measured.band_levels_db[name].tolist()
        if name != "quiet":
            assert each["log_spectral_distance_db"] == measured.log_spectral_distance_db[name]
            assert each["band_differences_db"] == measured.band_differences_db[name].tolist()
    assert "log_spectral_distance_db" not in facts["signals"]["quiet"]


def test_json_has_no_nan(pair, unsaved, capsys):
    song(Path("short.wav"), seconds=0.2)
    assert run(*pair, "short.wav", "--time", "0.5,0.8", "--json") == 0
    short = json.loads(capsys.readouterr().out)["signals"]["short"]
    assert short["log_spectral_distance_db"] is None
    assert set(short["band_differences_db"]) == {None}
    assert run(*pair, "short.wav", "--time", "0.5,0.8") == 0
    assert re.search(r"^short +(– *){10}$", capsys.readouterr().out, re.MULTILINE)


def names_of(capsys, *files):
    assert run(*files, "--json", "--no-difference") == 0
    facts = json.loads(capsys.readouterr().out)["signals"]
    assert [each["file"] for each in facts.values()] == list(files)
    return list(facts)


def test_equal_names_are_told_apart_by_their_folders(tmp_path, monkeypatch, unsaved, capsys):
    monkeypatch.chdir(tmp_path)
    files = ["one/vocals.wav", "two/vocals.wav", "bass.wav", "a/x/z.wav", "b/x/z.wav"]
    for file in [*files, "one/vocals.flac.wav", "v.1.wav"]:
        song(tmp_path / file, seconds=0.1)
    (tmp_path / "bass.wav").rename("bass.aiff")
    song(tmp_path / "bass.wav", seconds=0.1)
    assert names_of(capsys, *files) == ["one/vocals", "two/vocals", "bass", "a/x/z", "b/x/z"]
    assert names_of(capsys, "one/vocals.wav", "bass.wav", "v.1.wav") == ["vocals", "bass", "v.1"]
    assert names_of(capsys, "bass.wav", "bass.aiff") == ["bass.wav", "bass.aiff"]
    song(tmp_path / "bass.wav.wav", seconds=0.1)
    assert names_of(capsys, "bass.wav", "bass.aiff", "bass.wav.wav") == [
        "bass.wav",
        "bass.aiff",
        "bass.wav (2)",
    ]
    assert names_of(capsys, "bass.wav", "one/vocals.wav", "bass.wav") == [
        "bass.wav",
        "vocals",
        "bass.wav (2)",
    ]


def test_another_rate_is_brought_to_the_references(pair, unsaved, capsys):
    song(Path("fast.wav"), rate=2 * RATE, hz=500)
    song(Path("slow.wav"), hz=500)
    assert run("slow.wav", "fast.wav", "--json") == 0
    said = capsys.readouterr()
    assert said.err == (
        "note: 'fast.wav' has 44100 Hz and is compared at 22050 Hz, the reference's rate\n"
    )
    fast = json.loads(said.out)["signals"]["fast"]
    assert np.abs(fast["band_differences_db"][4]) < 0.05  # 500 Hz
    assert run("slow.wav", "fast.wav", "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_options_decide_the_picture(pair):
    """Different options, different pictures."""
    pictures = set()
    options = [
        [],
        ["--no-difference"],
        ["--scale", "mel", "--fft", 512],
        ["--freq", "100,900"],
        ["--time", "0.2,0.5"],
        ["--range", "40"],
    ]
    for each in options:
        assert run(*pair, *each, "--quiet") == 0
        pictures.add(Path("comparison.png").read_bytes())
    assert len(pictures) == len(options)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["loud.wav", "missing.wav"], 3, "missing.wav"),
        (["loud.wav", "."], 3, "'.' is a folder. Name the files in it"),
        (["loud.wav", "notes.txt"], 3, "notes.txt"),
        (["loud.wav", "--reference", "quiet.wav"], 2, "'quiet.wav' is not one of the files"),
        (["loud.wav", "--fft", "15"], 2, "fft_samples=15"),
        (["loud.wav", "--time", "2,1"], 2, "time_range_seconds=[2.0, 1.0]"),
        (["loud.wav", "--time", "5,6"], 2, "begins after the recording"),
        (["loud.wav", "--freq", "1"], 2, "frequency_range_hz=[1.0]"),
        (["loud.wav", "--range", "0"], 2, "'0' is not a number of dB above 0"),
        (["loud.wav", "--scale", "bark"], 2, "bark"),
        (["loud.wav", "--seams", "missing.json"], 2, "missing.json"),
        (["loud.wav", "--seams", "notes.txt"], 2, "not a run manifest"),
        (["loud.wav", "--out", "notes.txt/x.png"], 6, "x.png"),
        ([], 2, "FILE"),
    ],
)
def test_what_is_wrong_is_one_line(pair, capsys, arguments, code, words):
    Path("notes.txt").write_text("no audio")
    try:
        found = run(*arguments)
    except SystemExit as error:
        found = error.code
    said = capsys.readouterr()
    assert (found, said.out) == (code, "")
    assert words in said.err
    assert len(said.err.splitlines()) == 1
    assert not Path("comparison.png").exists()


def test_more_than_two_channels_are_refused_without_an_option_that_compare_lacks(pair, capsys):
    soundfile.write("surround.wav", np.zeros((RATE, 6)), RATE)
    assert run("loud.wav", "surround.wav") == 3
    error = capsys.readouterr().err
    assert "has 6 channels; stemlab separates 1 or 2: mix it down to stereo first." in error
    assert "downmix" not in error


@pytest.mark.parametrize("options", [["--time", "0,1"], ["--time", "599,600"], []])
def test_a_long_recording_is_not_held_in_memory(pair, unsaved, capsys, monkeypatch, options):
    # Ten minutes of silence: 53 MB of samples in a file of 0.1 MB.
    monkeypatch.setattr("stemlab.audio.reading._MOST_BYTES", 20_000_000)
    with soundfile.SoundFile("long.flac", "w", RATE, 1, format="FLAC") as file:
        for _ in range(600):
            file.write(np.zeros(RATE, np.int16))
    tracemalloc.start()
    try:
        assert run("long.flac", "long.flac", *options, "--quiet") == 0
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 40_000_000
    assert capsys.readouterr() == ("", "")


def test_seams_are_those_of_the_run(tmp_path, monkeypatch, unsaved, capsys):
    monkeypatch.chdir(tmp_path)
    mixture, rate = read_file(demo_song_dir() / "mixture.flac")
    soundfile.write("song.wav", mixture[:, : 4 * rate].T, rate, subtype="FLOAT")
    separator = AudioStemSeparator(device="cpu")
    separator.separate_file(
        "song.wav",
        "stems",
        segment_seconds=1.0,
        shifts=1,
        pad_to_training_segment=False,
        sources=("vocals",),
        output=OutputSettings(filename="{source}.{ext}"),
    )
    recorded = json.loads(Path("stems/run.json").read_bytes())
    assert run("song.wav", "stems/vocals.wav", "--seams", "stems", "--json") == 0
    found = json.loads(capsys.readouterr().out)["seams_seconds"]
    (plan,) = recorded["plan"]
    expected = set()
    for start in plan["starts"]:
        for begin in range(start, plan["samples"], plan["hop_samples"]):
            expected |= {begin, begin + plan["segment_samples"]}
    inside = sorted(each / rate for each in expected if 0 < each < plan["samples"])
    assert plan["starts"] != [0]
    assert found == pytest.approx(inside)
    recorded["plan"][0]["hop_samples"] += 1
    Path("changed.json").write_text(json.dumps(recorded))
    assert run("song.wav", "--seams", "changed.json") == 2
    assert "was changed: the hop of a plan" in capsys.readouterr().err
    for field, value, words in (
        ("plan", [3], "was changed: a plan is incomplete"),
        ("plan", [{}], "was changed: a plan is incomplete"),
        ("model", {}, "is not a run manifest of schema 1 or 2: 'model' lacks a name"),
        ("parameters", 3, "is not a run manifest of schema 1 or 2: 'parameters' is missing"),
    ):
        Path("changed.json").write_text(json.dumps({**recorded, field: value}))
        assert run("song.wav", "--seams", "changed.json") == 2
        assert words in capsys.readouterr().err


def test_a_chunk_that_was_left_out_has_no_seams(tmp_path, monkeypatch, unsaved, capsys):
    """Of 2.4 s in chunks of one second, the third one reaches the end."""
    monkeypatch.chdir(tmp_path)
    song(tmp_path / "song.wav", seconds=2.4, rate=44_100)
    separator = AudioStemSeparator(planted.Planted(), device="cpu")
    seams = {}
    for skips in (False, True):
        separator.separate_file("song.wav", f"{skips}", sources=["bass"], skip_covered_tail=skips)
        assert run("song.wav", "--seams", f"{skips}/song", "--json") == 0
        seams[skips] = json.loads(capsys.readouterr().out)["seams_seconds"]
    assert seams[True] == pytest.approx([0.75, 1.0, 1.5, 1.75])
    assert seams[False] == pytest.approx([0.75, 1.0, 1.5, 1.75, 2.25])


def test_seams_of_a_run_of_version_0_1(v0_1, unsaved, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    stem = v0_1 / "result" / "song" / "vocals.flac"
    assert run(v0_1 / "song.wav", stem, "--seams", v0_1 / "result" / "song", "--json") == 0
    found = json.loads(capsys.readouterr().out)["seams_seconds"]
    begins = range(-542, 6000, 1000)
    expected = {edge for begin in begins for edge in (begin, begin + 2000) if 0 < edge < 6000}
    assert found == pytest.approx([edge / 8000 for edge in sorted(expected)])


@pytest.mark.parametrize(
    ("changes", "plans", "words"),
    [
        ({"samples": 10**13, "segment_samples": 2, "hop_samples": 1}, 1, "more than 1000000"),
        ({"samples": 1100 * 1000}, 1000, "more than 1000000 segments"),
        ({"samples": 10**400}, 1, "not a positive whole number"),
        ({"starts": [-(10**13)]}, 1, "starts somewhere else"),
        ({"starts": []}, 1, "starts somewhere else"),
        ({"hop_samples": 0}, 1, "not a positive whole number"),
        ({"hop_samples": True}, 1, "not a positive whole number"),
        ({}, 1001, "not a list of plans"),
    ],
)
def test_a_changed_plan_is_refused_at_once(v0_1, unsaved, capsys, changes, plans, words):
    file = v0_1 / "result" / "song" / "run.json"
    fields = json.loads(file.read_bytes())
    fields["plan"] = plans * [{**fields["plan"][0], **changes}]
    file.write_text(json.dumps(fields))
    assert run(v0_1 / "song.wav", "--seams", file) == 2
    assert words in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders there")
@pytest.mark.parametrize("kind", ["pipe", "endless", "long", "deep", "list"])
def test_a_planted_run_json_neither_hangs_nor_fills_memory(tmp_path, pair, capsys, kind):
    file = tmp_path / "run.json"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "endless":
        file.symlink_to("/dev/zero")
    elif kind == "long":
        with file.open("wb") as handle:
            handle.truncate(10**10)
    else:
        file.write_text("[" * 500_000 if kind == "deep" else "[1]")
    assert run(*pair, "--seams", file) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
