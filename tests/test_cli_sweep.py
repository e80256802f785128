"""``stemlab plan``, ``sweep``, ``figures`` and ``cache`` at the shell."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
from commands import Fork, run_fresh, run_here

from stemlab._assets import demo_song_dir
from stemlab.sweeps import read_sweep

COMMAND = [sys.executable, "-m", "stemlab"]
MIXTURE = demo_song_dir() / "mixture.flac"
GRID = ["--segments", "0.5,1", "--overlaps", "0,0.25", "--excerpt", "3"]


@pytest.fixture
def environment(tmp_path):
    return {"STEMLAB_CACHE": str(tmp_path / "cache")}


def run(environment, *arguments, check=0, cwd=None, by=run_here):
    done = by(*arguments, environment=environment, cwd=cwd)
    assert done.returncode == check, done.stderr
    assert "Traceback" not in done.stderr
    return done


def test_the_whole_way(environment, tmp_path):
    """Sweep, the recommended command, figures from the file, an instant second run, the cache."""
    table, pictures = tmp_path / "results.csv", tmp_path / "pictures"
    arguments = ["sweep", MIXTURE, *GRID, "--references", demo_song_dir(), "--out", table]
    arguments += ["--sources", "drums,bass,other,vocals", "--device", "cpu"]
    done = run(environment, *arguments, "--keep-audio", "--figures", pictures)
    assert "4 settings on cpu" in done.stdout
    assert "Recommended: stemlab-mini, segment" in done.stdout
    kept = dict(re.findall(r"^Stems of (stemlab-mini, .*): (/.*)$", done.stdout, re.MULTILINE))
    assert len(kept) == 4
    for folder in kept.values():
        assert (Path(folder) / "bass.wav").is_file()
    assert {each.suffix for each in pictures.iterdir()} == {".png"}
    assert len(list(pictures.iterdir())) == 3
    results = read_sweep(table)
    assert len(results) == 4 * 4
    assert results[["sdr_db", "agreement_db", "seam_db", "rtf"]].notna().all().all()

    (line,) = [each for each in done.stdout.splitlines() if each.startswith("  stemlab separate")]
    program, *typed = shlex.split(line)
    assert program == "stemlab"
    assert typed[-4:] == ["--sources", "drums,bass,other,vocals", "--device", "cpu"]
    run(environment, *typed, "--out", tmp_path / "stems", "--quiet")
    assert (tmp_path / "stems" / "mixture" / "run.json").is_file()

    again = run(environment, *arguments, "--keep-audio", "--json", by=run_fresh)
    facts = json.loads(again.stdout)
    assert facts["recommendation"]["command"] == line.strip()
    assert len(facts["rows"]) == 16
    assert [stems["folder"] for stems in facts["stems"]] == list(kept.values())
    assert facts["stems"][0]["setting"]["model"] == "stemlab-mini"
    assert read_sweep(table)["wall_seconds"].tolist() == results["wall_seconds"].tolist()

    redrawn = run(environment, "figures", table, "--out", tmp_path / "redrawn")
    assert len(redrawn.stdout.splitlines()) == 3

    shown = json.loads(run(environment, "cache", "show", "--json").stdout)
    assert (shown["results"], shown["kept"]) == (4, 5)  # With the long-context run.
    run(environment, "cache", "clear", "--audio")
    shown = json.loads(run(environment, "cache", "show", "--json").stdout)
    assert (shown["results"], shown["kept"]) == (4, 0)
    assert shown["calibration_bytes"] > 0
    run(environment, "cache", "clear", "--stale")
    assert json.loads(run(environment, "cache", "show", "--json").stdout) == shown
    run(environment, "cache", "clear", "--calibrations")
    left = json.loads(run(environment, "cache", "show", "--json").stdout)
    assert left == {**shown, "calibration_bytes": 0}
    assert "4 settings" in run(environment, "cache", "show").stdout
    assert "MB freed" in run(environment, "cache", "clear").stdout


def test_the_command_of_a_folder_model_runs_as_printed(environment, tiny_model_folder, tmp_path):
    """In a folder with a blank in its name, and named like a model that comes with stemlab."""
    folder = tmp_path / "my models" / "stemlab-mini"
    shutil.copytree(tiny_model_folder, folder)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "name": "stemlab-mini"}))
    soundfile.write(tmp_path / "-a song.wav", np.zeros((30_000, 2)) + 0.1, 44_100)
    arguments = ["sweep", "./-a song.wav", "--model", "./my models/stemlab-mini", "--overlaps", "0"]
    arguments += ["--segments", "0.5123456789", "--pad", "no", "--batch-size", "2"]
    done = run(environment, *arguments, cwd=tmp_path)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("  stemlab separate")]
    command = line.strip().replace("stemlab", shlex.join(COMMAND), 1)
    variables = {**os.environ, **environment}
    subprocess.run(["sh", "-c", command], cwd=tmp_path, env=variables, check=True)
    (made,) = tmp_path.glob("stems/*/run.json")
    fields = json.loads(made.read_bytes())
    assert (
        fields["model"]["sha256"]
        == hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    )
    assert fields["parameters"]["segment_seconds"] == 0.5123456789
    assert fields["parameters"]["batch_size"] == 2


def test_plan_says_what_it_costs(environment, tmp_path):
    done = run(environment, "plan", MIXTURE, "--segment", "2", "--json")
    facts = json.loads(done.stdout)
    assert facts["seconds"] == 24
    assert facts["networks"][0]["network_seconds"] == pytest.approx(7.8)
    assert facts["estimate"]["calls"] == facts["networks"][0]["calls"] == 16
    assert facts["estimate"]["seconds"] > 0
    assert "no memory is saved" in facts["notes"][0]
    free = json.loads(
        run(environment, "plan", MIXTURE, "--segment", 2, "--no-pad", "--json").stdout
    )
    assert free["estimate"]["seconds"] < facts["estimate"]["seconds"]
    assert free["estimate"]["peak_memory_bytes"] < facts["estimate"]["peak_memory_bytes"]
    text = run(environment, "plan", MIXTURE).stdout
    assert "24.0 s with stemlab-mini on cpu" in text
    assert "memory       about" in text


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["sweep", "missing.wav"], 3, "does not exist"),
        (["sweep", MIXTURE, "--overlaps", "0,1"], 2, "overlap=1.0"),
        (["sweep", MIXTURE, "--overlaps", "0;1"], 2, "separated by commas"),
        (["sweep", MIXTURE, "--shifts", "0.5"], 2, "list of whole numbers"),
        (["sweep", MIXTURE, "--segments", "9"], 2, "longer than the 7.8 s"),
        (["sweep", MIXTURE, "--excerpt", "half"], 2, "neither seconds nor 'all'"),
        (["sweep", MIXTURE, "--model", "htdemucs"], 4, "models add htdemucs"),
        (["sweep", MIXTURE, "--out", "table.xlsx"], 2, ".csv or .json"),
        (["sweep", MIXTURE, "--figures", __file__], 6, "is a file"),
        (["sweep", MIXTURE, "--memory-limit", "2GB"], 2, "Add --memory"),
        (["sweep", MIXTURE, "--memory", "--memory-limit", "2 elephants"], 2, "no amount of memory"),
        (["sweep", MIXTURE, "--max-rtf", "-1"], 2, "max_rtf=-1.0"),
        (["sweep", MIXTURE, "--bsseval"], 2, "needs true stems"),
        (["sweep", MIXTURE, "--references", "nowhere"], 2, "is not a folder"),
        (["sweep", MIXTURE, "--scheduler", "nonsense"], 2, "cannot be reached"),
        (["plan", "missing.wav"], 3, "does not exist"),
        (["plan", MIXTURE, "--segment", "9"], 2, "longer than the 7.8 s"),
        (["figures", "missing.csv"], 2, "cannot be read"),
        (["figures", __file__], 2, "not the table of a sweep"),
    ],
)
def test_what_does_not_work_is_said_in_a_line(environment, arguments, code, words):
    done = run(environment, *arguments, check=code)
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("stemlab")


def test_a_long_sweep_asks_first(environment):
    grid = ["--overlaps", "0.99,0.995", "--shifts", "50,100"]
    done = run(environment, "sweep", MIXTURE, *grid, check=2)
    assert "this sweep takes about" in done.stderr
    assert "--yes" in done.stderr


def test_a_limit_that_nothing_meets_is_said_after_the_table(environment, tiny_model_folder):
    model = ["--model", tiny_model_folder]
    done = run(environment, "sweep", MIXTURE, *model, *GRID, "--max-rtf", "0.0001", check=2)
    assert "max_rtf=0.0001 is below every setting" in done.stderr
    assert "segment" in done.stdout


def test_costs_alone_are_no_error(environment, tiny_model_folder):
    model = ["--model", tiny_model_folder]
    done = run(environment, "sweep", MIXTURE, *model, *GRID, "--no-agreement", "--no-store")
    assert "nothing is recommended" in done.stderr
    assert json.loads(run(environment, "cache", "show", "--json").stdout)["results"] == 0


@pytest.mark.skipif(sys.platform == "win32", reason="forks and signals of Unix")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_sweep_goes_on_where_it_was(environment, tiny_model_folder, tmp_path, rng, number):
    soundfile.write(tmp_path / "song.wav", rng.uniform(-0.3, 0.3, (2 * 44_100, 2)), 44_100)
    arguments = ["sweep", tmp_path / "song.wav", "--model", tiny_model_folder]
    arguments += ["--segments", "0.4,0.6,0.8,1", "--overlaps", "0,0.25"]
    running = Fork(
        *arguments,
        environment=environment,
        first=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    records = (tmp_path / "cache").glob
    deadline = time.monotonic() + 180
    while len(list(records("sweeps/results/*/*.json"))) < 3:
        assert not running.ended(), running.wait().stderr
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed = running.kill(number)
    assert killed.returncode in (-number, 130), killed.stderr
    assert "Traceback" not in killed.stderr
    if number == signal.SIGINT:
        assert "the same command goes on from there" in killed.stderr
    before = {each: each.stat().st_mtime_ns for each in records("sweeps/results/*/*.json")}
    assert 3 <= len(before) < 8
    done = run(environment, *arguments)
    assert f"{len(before)} measured before" in done.stdout
    after = {each: each.stat().st_mtime_ns for each in records("sweeps/results/*/*.json")}
    assert len(after) == 8
    assert before.items() <= after.items(), "what was measured was measured again"
