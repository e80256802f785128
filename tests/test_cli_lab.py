"""``stemlab lab``: notebooks copied and never overwritten; a real JupyterLab opens them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from importlib import util
from pathlib import Path

import nbformat
import pytest
from browsing import Lab, find_browser, free_port, open_page, wait_for

from stemlab._assets import asset_dir
from stemlab.cli import lab as command
from stemlab.cli import main
from stemlab.errors import OutputError, ParameterError

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


@pytest.mark.browser
@pytest.mark.skipif(util.find_spec("jupyterlab") is None, reason="JupyterLab is not installed")
@pytest.mark.skipif(os.name == "nt", reason="there is no SIGTERM to end it with")
def test_jupyterlab_opens_the_folder_without_asking_anything(tmp_path: Path) -> None:
    executable = find_browser()
    folder = tmp_path / "notebooks"
    lab = Lab(f"http://127.0.0.1:{free_port()}", "token", folder)
    arguments = ["--no-browser", "--allow-root", "--json", f"--port={lab.url.rpartition(':')[2]}"]
    own = {
        f"JUPYTER{name}": str(tmp_path / "home" / name)
        for name in ("_CONFIG_DIR", "_DATA_DIR", "_RUNTIME_DIR")
    }
    log = tmp_path / "log"
    with log.open("w") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "stemlab", "lab", str(folder), *arguments],
            env={**os.environ, **own, "JUPYTER_TOKEN": lab.token},
            stdout=subprocess.PIPE,
            stderr=stream,
        )
    assert server.stdout is not None
    try:
        wait_for(lab, server, log)
        printed = json.loads(server.stdout.readline())
        assert printed == {"folder": str(folder), "copied": NAMES, "kept": []}
        with open_page(lab, "lab", executable) as visit:
            for name in NAMES:
                visit.page.locator(".jp-DirListing-item", has_text=name).wait_for()
            assert visit.page.get_by_text("Would you like to").count() == 0
            assert visit.faults == []
    finally:
        server.send_signal(signal.SIGTERM)
        server.stdout.close()
        assert server.wait(30) == 128 + signal.SIGTERM
    with pytest.raises(OSError, match="refused"):
        lab.ask("api/status")
