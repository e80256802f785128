"""``stemlab analyze``: files, text, JSON, and everything that is refused."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import soundfile
import torch
from planted import Planted

from stemlab._assets import demo_song_dir
from stemlab.cli import main, separate
from stemlab.separation import AudioStemSeparator

RATE = 44_100


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, with nine seconds of the demo song in it."""
    monkeypatch.chdir(tmp_path)
    start = 8 * RATE
    excerpt, rate = soundfile.read(
        demo_song_dir() / "mixture.flac", start=start, frames=9 * RATE, dtype="float32"
    )
    soundfile.write(tmp_path / "song.wav", excerpt, rate, subtype="FLOAT")
    return tmp_path


def files_in(folder):
    return sorted(str(each.relative_to(folder)) for each in folder.rglob("*"))


def run(*arguments):
    try:
        return main(["analyze", *map(str, arguments)])
    except SystemExit as stopped:
        return stopped.code


def test_the_demo_song_with_its_stems(folder, capsys):
    assert run("song.wav", "--separate-stems", "--overlap", "0.1", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    files = printed.pop("files")
    written = json.loads((folder / "analysis" / "song" / "report.json").read_text("utf-8"))
    assert printed == written
    assert files["picture"].endswith("report.png")
    assert (folder / "analysis" / "song" / "report.png").read_bytes().startswith(b"\x89PNG")
    assert written["song"] == "song.wav"
    assert written["separation"]["model"] == "stemlab-mini"
    assert written["separation"]["settings"]["overlap"] == 0.1
    assert written["tempo_bpm"] == pytest.approx(104.5, abs=2)
    assert -16 < written["levels"]["loudness_lufs"] < -12
    stems = written["stems"]
    assert list(stems) == ["drums", "bass", "other", "vocals"]
    assert sum(each["energy_share"] for each in stems.values()) == pytest.approx(1)
    assert all(0.05 < each["energy_share"] < 0.6 for each in stems.values())
    assert stems["drums"]["active_share"] == stems["other"]["active_share"] == 1
    # The singer pauses for two seconds.
    assert 0.5 < stems["vocals"]["active_share"] < 1
    loudest_band = np.argmax([each or -200 for each in stems["bass"]["levels"]["band_levels_db"]])
    assert written["band_hz"][loudest_band] < 100


def test_without_stems_it_is_a_short_text(folder, capsys):
    assert run("song.wav", "--out", "reports") == 0
    printed = capsys.readouterr().out
    assert printed.startswith("song.wav: 9.0 s, 44100 Hz, stereo\ntempo 10")
    assert "report.json" in printed
    assert "energy" not in printed
    assert files_in(folder / "reports" / "song") == ["report.json", "report.png"]
    # Again, in place of the first; and quietly.
    assert run("song.wav", "--out", "reports", "--quiet") == 0
    assert capsys.readouterr().out == ""


def test_text_with_stems(folder, capsys, monkeypatch):
    monkeypatch.setattr(
        separate, "AudioStemSeparator", lambda *_, **options: AudioStemSeparator(Planted())
    )
    soundfile.write(folder / "song.wav", np.zeros((RATE, 1)), RATE)
    assert run("song.wav", "--separate-stems") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "mono; stems by" in lines[0]
    assert lines[1] == "tempo none found"
    assert lines[3].split() == ["LUFS", "RMS", "dBFS", "peak", "dBFS", "energy", "active"]
    assert lines[5].split() == ["drums", "–", "–", "–", "–", "0%"]
    assert "note: loudness of mixture: nothing is louder than -70 LUFS" in lines
    assert len({len(line) for line in lines[5:9]}) == 1


def test_surround_is_refused_or_mixed_down(folder, capsys):
    rng = np.random.default_rng(1)
    soundfile.write(folder / "surround.wav", 0.1 * rng.standard_normal((RATE, 6)), RATE)
    assert run("surround.wav") == 3
    assert "--downmix" in capsys.readouterr().err
    assert run("surround.wav", "--downmix", "--json") == 0
    assert json.loads(capsys.readouterr().out)["channels"] == 2


class Broken(Planted):
    def forward(self, mix: torch.Tensor) -> torch.Tensor:
        return super().forward(mix) * torch.nan


def test_a_failed_separation_fails_the_command_and_writes_nothing(folder, capsys, monkeypatch):
    monkeypatch.setattr(
        separate, "AudioStemSeparator", lambda *_, **options: AudioStemSeparator(Broken())
    )
    before = files_in(folder)
    assert run("song.wav", "--separate-stems") == 4
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert files_in(folder) == before


# Without a song there is nothing to open: what is named comes before.
@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["missing.wav"], 3, "does not exist"),
        (["missing.wav", "--separate-stems"], 3, "does not exist"),
        (["missing.wav", "--separate-stems", "--segment", "99"], 2, "segment_seconds=99"),
        (["missing.wav", "--separate-stems", "--overlap", "1"], 2, "overlap=1.0"),
        (["missing.wav", "--separate-stems", "--sources", "piano"], 2, "piano"),
        (["missing.wav", "--separate-stems", "--device", "tpu"], 2, "device='tpu'"),
        (["missing.wav", "--separate-stems", "--batch-size", "0"], 2, "batch_size=0"),
        (["missing.wav", "--separate-stems", "--model", "htdemucs"], 4, "models add htdemucs"),
        (["missing.wav", "--separate-stems", "--out", "song.wav"], 6, "is not a folder"),
        (["missing.wav", "--out", "song.wav/deeper"], 6, "is not a folder"),
        (["song.wav", "--out", "taken"], 6, "is a folder"),
        (["missing.wav", "--model", "htdemucs"], 2, "Add --separate-stems"),
        (["missing.wav", "--segment", "2"], 2, "Add --separate-stems, or leave --segment out"),
        (["missing.wav", "--overlap", "0"], 2, "--overlap decides"),
        (["missing.wav", "--shifts", "1"], 2, "--shifts decides"),
        (["missing.wav", "--seed", "1"], 2, "--seed decides"),
        (["missing.wav", "--no-pad"], 2, "--no-pad decides"),
        (["missing.wav", "--skip-covered-tail"], 2, "leave --skip-covered-tail out"),
        (["missing.wav", "--batch-size", "2"], 2, "--batch-size decides"),
        (["missing.wav", "--device", "cpu"], 2, "--device decides"),
        (["missing.wav", "--sources", "bass"], 2, "--sources decides"),
        ([""], 2, "SONG is empty"),
        ([], 2, "SONG"),
    ],
)
def test_what_does_not_work_is_said_in_a_line(folder, capsys, arguments, code, words):
    (folder / "taken" / "song" / "report.png").mkdir(parents=True)
    before = files_in(folder)
    assert run(*arguments) == code
    error = capsys.readouterr().err
    assert words in error
    assert len(error.splitlines()) == 1
    assert files_in(folder) == before


@pytest.mark.skipif(sys.platform == "win32", reason="links of Unix")
def test_only_reports_of_stemlab_are_replaced(folder, tmp_path, capsys):
    song, out = folder / "song.wav", tmp_path / "analysis"
    soundfile.write(song, np.zeros((4000, 1)), 8000)
    arguments = ["analyze", str(song), "--out", str(out), "--quiet"]
    for _ in range(2):
        assert main(arguments) == 0
    report, picture = out / "song" / "report.json", out / "song" / "report.png"
    mine = b"mine"
    for file in (picture, report):
        earlier = file.read_bytes()
        file.write_bytes(mine)
        assert main(arguments) == 6
        assert f"{file.name}' exists and was not written by stemlab" in capsys.readouterr().err
        assert file.read_bytes() == mine
        file.write_bytes(earlier)
    # Killed between the two files, it leaves a report whose picture is missing.
    picture.unlink()
    assert main(arguments) == 0
    documents = tmp_path / "documents"
    documents.mkdir()
    (out / "song").rename(tmp_path / "earlier")
    (out / "song").symlink_to(documents)
    assert main(arguments) == 6
    assert "it is a link" in capsys.readouterr().err
    assert [*documents.iterdir()] == []


def test_a_recording_that_is_too_long_is_one_line(folder, capsys, monkeypatch):
    monkeypatch.setattr("stemlab.audio.reading._MOST_BYTES", 8 * 5 * RATE)
    assert run("song.wav") == 3
    said = capsys.readouterr()
    assert said.out == ""
    assert "'song.wav' is too long to be held in memory: 9 s or more." in said.err
    assert "at most 5 s" in said.err
    assert said.err.count("\n") == 1
    assert files_in(folder) == ["song.wav"]
