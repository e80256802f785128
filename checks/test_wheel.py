"""The wheel as a user gets it: built by the real backend, installed elsewhere and put to work."""

from __future__ import annotations

import email
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from stemlab import _assets

ROOT = Path(__file__).resolve().parent.parent

# Runs away from the checkout, with nothing but the installed wheel and its dependencies.
SEPARATE = """
import sys
from pathlib import Path

import numpy as np
import stemlab
from stemlab import _assets, audio

home = Path(sys.argv[1])
assert Path(stemlab.__file__).is_relative_to(home), stemlab.__file__
song = _assets.demo_song_dir()
assert song.is_relative_to(home), song
assert _assets.asset_dir("models").is_relative_to(home)

mixture, rate = audio.read_file(song / "mixture.flac")
excerpt = mixture[:, : 3 * rate]
separator = stemlab.AudioStemSeparator()
stems = separator.separate_audio(excerpt, rate)
assert tuple(stems) == tuple(separator.sources) == _assets.DEMO_SOURCES
for name, stem in stems.items():
    assert stem.dtype == np.float32, name
    assert stem.shape == excerpt.shape, name
    assert np.isfinite(stem).all(), name
    assert np.abs(stem).max() > 1e-3, name
print("separated", excerpt.shape[1])
"""


def run(*command: str | Path, **options: object) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )
    assert result.returncode == 0, f"{command}\n{result.stdout}{result.stderr}"
    return str(result.stdout)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT)
    (path,) = out.glob("*.whl")
    return path


def test_wheel_carries_everything_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata_name,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        metadata = email.message_from_bytes(archive.read(metadata_name))
        entry_points = archive.read(metadata_name.replace("METADATA", "entry_points.txt")).decode()
        licence = archive.read(metadata_name.replace("METADATA", "licenses/LICENSE")).decode()

    assert metadata["License-Expression"] == "MIT"
    assert metadata["Requires-Python"] == ">=3.11"
    assert "stemlab = stemlab.cli:main" in entry_points
    assert licence == (ROOT / "LICENSE").read_text("utf-8")

    tops = {name.partition("/")[0] for name in names}
    assert tops == {"stemlab", metadata_name.partition("/")[0]}
    assert not [name for name in names if "/training/" in name or "__pycache__" in name]

    registry = json.loads((ROOT / "models" / "registry.json").read_text("utf-8"))
    expected = {"stemlab/py.typed", "stemlab/assets/models/registry.json"}
    for model, entry in registry["models"].items():
        kept = {path.name for path in (ROOT / "models" / model).iterdir()}
        assert "manifest.json" in kept
        assert any(name.endswith(".safetensors") for name in kept) == entry["bundled"]
        expected |= {f"stemlab/assets/models/{model}/{name}" for name in kept}
    expected |= {f"stemlab/assets/demo/{name}.flac" for name in ("mixture", *_assets.DEMO_SOURCES)}
    notebooks = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
    assert notebooks
    expected |= {f"stemlab/assets/notebooks/{name}" for name in notebooks}
    expected |= {
        path.relative_to(ROOT).as_posix()
        for pattern in ("*.py", "*.js", "*.css")
        for path in (ROOT / "stemlab").rglob(pattern)
    }
    assert not expected - names


def test_installed_wheel_separates_the_demo_song(wheel: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    run(*pip, "--no-deps", "--no-index", "--target", home, wheel)
    environment = {**os.environ, "PYTHONPATH": str(home)}
    said = run(sys.executable, "-c", SEPARATE, home, cwd=elsewhere, env=environment)
    assert said == f"separated {3 * 44100}\n"
