"""The README keeps its word: every command and every example in it is run, every link leads on."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import soundfile
from model_files import package

from stemlab import demo_song_dir, read_file
from stemlab._version import __version__
from stemlab.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```", README, flags=re.M | re.S)
# Without its blocks, a README has code in single quotes only.
INLINE = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", README, flags=re.M | re.S))
LINES = [
    line.partition("  #")[0].removeprefix(".venv/bin/").strip()
    for kind, block in BLOCKS
    if kind == "console"
    for line in block.splitlines()
]
COMMANDS = list(dict.fromkeys([*LINES, *(" ".join(each.split()) for each in INLINE)]))
OURS = [each for each in COMMANDS if each.startswith("stemlab ")]
MAKES = [each for each in COMMANDS if re.match(r"make( [a-z]+)+$", each)]

# Files of others cannot be had here: these must end with the error that says so.
REFUSED = {
    "stemlab models add htdemucs --from ~/Downloads": (4, "955717e8"),
    "stemlab models add htdemucs --download": (4, "huggingface.co"),
}
# Servers, which tests of their own start.
SERVED = {
    "stemlab lab my-notebooks": "test_jupyterlab_opens_the_folder_without_asking_anything",
    "stemlab lab --voila my-notebooks": "test_voila_shows_all_notebooks_without_code_or_network",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the commands of the README expect to lie around, in a second of the demo song."""
    folder = tmp_path_factory.mktemp("readme")
    excerpts = {}
    for path in demo_song_dir().glob("*.flac"):
        audio, rate = read_file(path)
        excerpts[path.stem] = audio[:, 8 * rate : 9 * rate].T
    for name in ("my-song.mp3", "a.mp3", "b.flac", "music/c.ogg", "mixture.wav"):
        (folder / name).parent.mkdir(exist_ok=True)
        soundfile.write(folder / name, excerpts["mixture"], rate)
    (folder / "true").mkdir()
    for name in ("drums", "bass", "other", "vocals"):
        soundfile.write(folder / "true" / f"{name}.wav", excerpts[name], rate)
    shutil.copy(folder / "true" / "vocals.wav", folder / "vocals.wav")
    (folder / "Downloads").mkdir()
    return folder


def test_every_command_runs(
    folder: Path,
    tiny_htdemucs: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    mine = package(tiny_htdemucs)
    (folder / "mine.th").write_bytes(mine)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("STEMLAB_MODELS", str(folder / "models"))
    monkeypatch.setenv("STEMLAB_CACHE", str(folder / "cache"))
    assert len(OURS) > 25
    for command in OURS:
        if command in SERVED:
            continue
        words = shlex.split(command.replace("DIGEST", hashlib.sha256(mine).hexdigest()))
        expected, words_of_error = REFUSED.get(command, (0, ""))
        arguments = [str(Path(each).expanduser()) if each[0] == "~" else each for each in words[1:]]
        try:
            code = main(arguments)
        except SystemExit as stopped:
            code = int(stopped.code or 0)
        printed = capsys.readouterr()
        assert code == expected, f"{command}: {printed.err}"
        assert words_of_error in printed.err, command
    assert (folder / "stems" / "my-song" / "run.json").is_file()
    assert (folder / "analysis" / "my-song" / "report.png").is_file()
    assert list((folder / "pictures").glob("*.png"))


def test_servers_have_tests_of_their_own() -> None:
    tests = (ROOT / "tests" / "test_cli_lab.py").read_text("utf-8")
    for command, test in SERVED.items():
        assert command in OURS
        assert f"def {test}(" in tests


def test_every_make_target_exists() -> None:
    assert {"make demo", "make test", "make lab", "make report", "make docs"} <= set(MAKES)
    for command in MAKES:
        subprocess.run([*command.split(), "-n"], cwd=ROOT, check=True, capture_output=True)


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_demo(tmp_path: Path) -> None:
    """With the environment that runs the tests in place of the one that make would build."""
    for name in ("pyproject.toml", "supply-chain"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "stamp").touch()
    own = [f"BIN={Path(sys.executable).parent}", "STAMP=stamp"]
    done = subprocess.run(
        ["make", "-f", str(ROOT / "Makefile"), "demo", *own],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "SDR" in done.stdout
    assert len(list((tmp_path / "demo-output").rglob("*.wav"))) >= 4


def test_every_python_example_runs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("STEMLAB_CACHE", str(folder / "cache"))
    main(["separate", "my-song.mp3", "--force"])
    names: dict[str, Any] = {}
    examples = [block for kind, block in BLOCKS if kind == "python"]
    assert len(examples) == 3
    for example in examples:
        exec(compile(example, "README.md", "exec"), names)
    assert names["vocals"].shape == names["mixture"].shape
    assert len(names["results"]) == 36  # Nine settings, four stems.
    assert "of agreement with a long-context run" in capsys.readouterr().out


def test_what_it_points_to_is_there() -> None:
    links = [each for each in re.findall(r"\]\(([^)]+)\)", README) if "//" not in each]
    assert len(links) > 10
    for link in links:
        assert (ROOT / link).exists(), link
    notebooks = {f"notebooks/{each.name}" for each in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == {each for each in links if each.endswith(".ipynb")}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for extra in re.findall(r"stemlab\[(\w+)\]", README):
        assert extra in extras["optional-dependencies"]


def test_figures_of_the_model_are_those_of_its_card() -> None:
    """The table of the README has rows of the card's, whatever makes them anew."""
    card = (ROOT / "models" / "stemlab-mini" / "README.md").read_text("utf-8")
    cells = [
        re.findall(r"(?<![\d.(])[-−]?\d+\.\d(?![\d.]| to)", row)
        for row in README.split("measured by `make evaluate`")[1].splitlines()[4:8]
    ]
    known = [
        [re.match(r"[-−]?\d+\.\d", each.strip()) for each in row.split("|")[2:-1]]
        for row in card.splitlines()
        if row.startswith("|")
    ]
    rows = [[found.group() for found in row if found] for row in known]
    for row in cells:
        assert len(row) == 5
        assert [each.replace("−", "-") for each in row] in rows


def test_the_citation_has_this_version() -> None:
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text("utf-8")
