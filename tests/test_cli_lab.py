"""``stemlab lab``: notebooks copied and never overwritten; a real JupyterLab opens them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import pytest
from browsing import (
    RUN_SECONDS,
    Lab,
    expect_status,
    find_browser,
    free_port,
    open_page,
    press,
    wait_for,
)

from stemlab._assets import asset_dir
from stemlab.cli import lab as command
from stemlab.cli import main
from stemlab.errors import OutputError, ParameterError

unix = pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM to end it with")
NAMES = sorted(each.name for each in asset_dir("notebooks").glob("*.ipynb"))


def test_all_notebooks_are_copied_once(tmp_path):
    folder = tmp_path / "my" / "notebooks"
    assert command.copy_notebooks(folder) == (NAMES, [])
    for name in NAMES:
        assert (folder / name).read_bytes() == (asset_dir("notebooks") / name).read_bytes()
    assert command.copy_notebooks(folder) == ([], [])


def test_edited_notebooks_stay(tmp_path):
    command.copy_notebooks(tmp_path)
    edited = tmp_path / NAMES[0]
    notebook = nbformat.read(edited, as_version=4)
    notebook.cells[0].source += " Mine."
    nbformat.write(notebook, edited)
    before = edited.read_bytes()
    assert command.copy_notebooks(tmp_path) == ([], [NAMES[0]])
    assert edited.read_bytes() == before
    edited.unlink()
    assert command.copy_notebooks(tmp_path) == ([NAMES[0]], [])


def test_notebooks_that_were_only_run_are_not_called_edited(tmp_path):
    command.copy_notebooks(tmp_path)
    notebook = nbformat.read(tmp_path / NAMES[0], as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], 17
    nbformat.write(notebook, tmp_path / NAMES[0])
    assert command.copy_notebooks(tmp_path) == ([], [])


def test_a_broken_notebook_stays(tmp_path):
    (tmp_path / NAMES[0]).write_text("half a noteb")
    copied, kept = command.copy_notebooks(tmp_path)
    assert (copied, kept) == (NAMES[1:], [NAMES[0]])
    assert (tmp_path / NAMES[0]).read_text() == "half a noteb"


def test_folders_that_cannot_be(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ParameterError, match="is not a folder. Name one"):
        command.copy_notebooks(tmp_path / "file")
    with pytest.raises(OutputError, match="or choose another folder"):
        command.copy_notebooks(tmp_path / "file" / "below")


def test_without_jupyterlab(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    assert main(["lab", str(tmp_path / "new")]) == 3
    assert "pip install 'stemlab[lab]'" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


@contextmanager
def served(tmp_path: Path, *arguments: str) -> Iterator[tuple[Lab, dict[str, Any]]]:
    """The server that the command starts, and what it printed before."""
    lab = Lab(f"http://127.0.0.1:{free_port()}", "token", tmp_path / "notebooks")
    command = [sys.executable, "-m", "stemlab", "lab", str(lab.folder), "--no-browser", "--json"]
    own = {
        f"JUPYTER_{name}": str(tmp_path / "home" / name)
        for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    }
    log = tmp_path / "log"
    with (
        log.open("w") as stream,
        subprocess.Popen(
            [*command, f"--port={lab.url.rpartition(':')[2]}", *arguments],
            env={**os.environ, **own, "JUPYTER_TOKEN": lab.token},
            stdout=subprocess.PIPE,
            stderr=stream,
        ) as server,
    ):
        assert server.stdout is not None
        try:
            printed = json.loads(server.stdout.readline())
            wait_for(lab, server, log)
            yield lab, printed
        finally:
            server.send_signal(signal.SIGTERM)
            assert server.wait(30) == 128 + signal.SIGTERM, log.read_text("utf-8")
    with pytest.raises(OSError, match="refused"):
        lab.ask("api/status")


@pytest.mark.browser
@unix
def test_jupyterlab_opens_the_folder_without_asking_anything(tmp_path: Path) -> None:
    pytest.importorskip("jupyterlab")
    executable = find_browser()
    with served(tmp_path, "--allow-root") as (lab, printed):
        assert printed == {"folder": str(lab.folder), "copied": NAMES, "kept": []}
        with open_page(lab, "lab", executable) as visit:
            for name in NAMES:
                visit.page.locator(".jp-DirListing-item", has_text=name).wait_for()
            assert visit.page.get_by_text("Would you like to").count() == 0
            assert visit.faults == []


@pytest.mark.browser
@unix
def test_voila_shows_all_notebooks_without_code_or_network(tmp_path: Path) -> None:
    pytest.importorskip("voila")
    executable = find_browser()
    with served(tmp_path, "--voila") as (lab, _):
        with open_page(lab, "", executable) as visit:
            for name in NAMES:
                visit.page.get_by_text(name.removesuffix(".ipynb")).wait_for()
            assert [each for each in visit.faults if each.startswith("asked")] == []
        for name in NAMES:
            with open_page(lab, f"voila/render/{name}", executable) as visit:
                # All cells are run before anything is shown.
                answers = visit.page.get_by_text("Show the answers")
                answers.wait_for(timeout=RUN_SECONDS * 1000)
                assert visit.page.locator(".jp-Cell-outputWrapper").count() > 0
                assert visit.page.locator(".jp-Cell-inputWrapper pre").count() == 0
                assert visit.page.get_by_text("stemlab.widgets import").count() == 0
                if name == "01_separate.ipynb":
                    press(visit.page, "Separate")
                    expect_status(visit.page, "Done in")
                assert visit.faults == [], name
