"""What lies in the current folder is neither imported nor obeyed; planted files are real ones."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stemlab
from stemlab._assets import demo_song_dir
from stemlab._isolation import child


def start(command: list[str], folder: Path, **environment: str) -> str:
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_child_looks_for_modules_where_they_are_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path)
    places = ["", ".", "other", str(tmp_path), str(tmp_path / "link"), str(tmp_path / "other")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(places))
    monkeypatch.setenv("STEMLAB_CACHE", "cache")
    started = child("-m", "module")
    assert started["args"] == [sys.executable, "-P", "-m", "module"]
    assert started["env"]["PYTHONPATH"] == str(tmp_path / "other")
    assert started["env"]["PYTHONSAFEPATH"] == "1"
    assert started["env"]["STEMLAB_CACHE"] == str(tmp_path / "cache")
    assert child(path=places)["env"]["PYTHONPATH"] == str(tmp_path / "other")


@pytest.mark.parametrize("places", ["", os.pathsep, f".{os.pathsep}"])
def test_a_child_imports_nothing_from_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, places: str
) -> None:
    (tmp_path / "colorsys.py").write_text("print('planted')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", places)
    # Its own children neither.
    code = "import colorsys, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]])"
    child_code = f"import os; os.chdir({str(tmp_path)!r}); import colorsys"
    done = subprocess.run(
        **child("-c", code, child_code), capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_settings_here_are_not_read(tmp_path: Path) -> None:
    settings = tmp_path / "settings"
    settings.mkdir()
    (settings / "matplotlibrc").write_text("lines.linewidth: 7")
    (tmp_path / "matplotlibrc").write_text("text.usetex: True")
    (tmp_path / ".numba_config.yaml").write_text(f"cache_dir: {tmp_path}")
    code = (
        "import os\n"
        "from stemlab._isolation import ignore_settings_here\n"
        "ignore_settings_here()\n"
        "import matplotlib, numba\n"
        "numba.njit(lambda: 0)()\n"
        "print(matplotlib.rcParams['text.usetex'], repr(numba.config.CACHE_DIR),\n"
        "      matplotlib.rcParams['lines.linewidth'], os.getcwd())\n"
    )
    # Those of the user stay.
    said = start([sys.executable, "-c", code], tmp_path, MPLCONFIGDIR=str(settings))
    assert said == f"False '' 7.0 {tmp_path}\n"


def test_a_picture_is_drawn_without_latex(tmp_path: Path) -> None:
    """The command line, in a folder that asks for it; there is no LaTeX here, so that it fails."""
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\ntext.latex.preamble: \\undefined")
    (tmp_path / "numpy.py").write_text("raise SystemExit('planted')")
    song = demo_song_dir() / "bass.flac"
    command = [sys.executable, "-m", "stemlab", "compare", str(song), str(song), "--time", "0,1"]
    start([*command, "--out", "picture.png"], tmp_path)
    assert (tmp_path / "picture.png").stat().st_size > 0


def test_every_process_is_started_as_a_child() -> None:
    package = Path(stemlab.__file__).parent
    started = 0
    for path in package.rglob("*.py"):
        for call in re.findall(
            r"subprocess\.(?:Popen|run)\((.{40})", path.read_text("utf-8"), re.S
        ):
            assert call.split()[0].startswith("**child("), f"{path}: {call}"
            started += 1
    assert started == 3
