"""What leaves the machine: nothing. The main job runs where there is no network at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from hostile import WITHOUT_NETWORK, cases, network_can_be_left

from stemlab import demo_song_dir, read_file

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
WRITTEN = ("stems/mixture/run.json", "analysis/mixture/report.json", "sweep.json", "sweep.csv")


@pytest.fixture(scope="module")
def alone() -> list[str]:
    if not network_can_be_left():
        pytest.skip("this system lets nobody make a network namespace")
    return WITHOUT_NETWORK


def run(command: list[object], folder: Path) -> None:
    environment = {**os.environ, "STEMLAB_CACHE": str(folder / "cache")}
    environment.pop("HF_HUB_OFFLINE", None)  # Nothing but the missing network keeps it offline.
    done = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


# One process runs them all, because a process of its own would import PyTorch for each.
RUN_ALL = """
import json, sys
from stemlab.cli import main
for command in json.loads(sys.argv[1]):
    code = main(command)
    if code:
        sys.exit(f"{command} ended with {code}")
"""


def test_the_main_job_needs_no_network(alone: list[str], tmp_path: Path) -> None:
    audio, rate = read_file(demo_song_dir() / "mixture.flac")
    soundfile.write(tmp_path / "mixture.flac", audio[:, : 6 * rate].T, rate)
    sweep = ["sweep", "mixture.flac", "--segments", "7.8", "--overlaps", "0", "--out"]
    commands = [
        ["demo", "--out", "demo"],
        ["separate", "mixture.flac", "--out", "stems", "-q"],
        ["plan", "mixture.flac"],
        ["models", "list"],
        ["replay", "stems/mixture"],
        ["analyze", "mixture.flac", "--out", "analysis"],
        [*sweep, "sweep.json"],
        [*sweep, "sweep.csv"],
    ]
    run([*alone, sys.executable, "-c", RUN_ALL, json.dumps(commands)], tmp_path)
    written = {name: (tmp_path / name).read_text("utf-8") for name in WRITTEN}
    for name, content in written.items():
        assert re.search(r'"contains": "[^"]*No audio', content), name
        # Neither where it is nor where anything else is.
        for folder in (tmp_path, Path.home()):
            assert str(folder) not in content, name
        assert len(content) < 50_000, name
    manifest = json.loads(written["stems/mixture/run.json"])
    assert Path(manifest["input"]["path"]).as_posix() == "../../mixture.flac"


@pytest.mark.parametrize(
    "name", sorted(each.name for each in NOTEBOOKS.glob("*.ipynb"))[: cases(quick=1, long=99)]
)
def test_notebooks_need_no_network(alone: list[str], tmp_path: Path, name: str) -> None:
    shutil.copy(NOTEBOOKS / name, tmp_path)
    # Kernels usually talk over the loopback; here they take files.
    convert = [sys.executable, "-m", "jupyter", "nbconvert", "--to", "notebook", "--execute"]
    run([*alone, *convert, "--inplace", "--KernelManager.transport=ipc", name], tmp_path)
