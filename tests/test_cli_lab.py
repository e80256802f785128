"""``stemlab lab``: notebooks copied and never overwritten; a real JupyterLab opens them."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import urllib.error
import urllib.request
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
    write_notebook,
)
from hostile import cases
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.blocking import BlockingKernelClient

from stemlab._assets import asset_dir
from stemlab._isolation import SERVED_FOLDER
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


@unix
@unix
def test_a_link_in_place_of_a_notebook_stays(tmp_path):
    (tmp_path / "01_separate.ipynb").symlink_to(tmp_path / "nowhere")
    with pytest.raises(OutputError, match="cannot read"):
        command.copy_notebooks(tmp_path)
    assert (tmp_path / "01_separate.ipynb").is_symlink()
    assert not (tmp_path / "nowhere").exists()


def test_a_planted_notebook_neither_hangs_nor_fills_memory(tmp_path):
    command.copy_notebooks(tmp_path)
    with (tmp_path / NAMES[0]).open("wb") as file:
        file.truncate(10**10)
    (tmp_path / NAMES[1]).write_text('{"cells":' + "[" * 500_000)
    (tmp_path / NAMES[2]).write_text('{"cells": [{"source": [1]}]}')
    assert command.copy_notebooks(tmp_path) == ([], NAMES[:3])
    (tmp_path / NAMES[0]).unlink()
    os.mkfifo(tmp_path / NAMES[0])
    with pytest.raises(OutputError, match="not a regular file"):
        command.copy_notebooks(tmp_path)


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
def served(
    tmp_path: Path, *arguments: str, cwd: Path | None = None
) -> Iterator[tuple[Lab, dict[str, Any]]]:
    """The server that the command starts, and what it printed before."""
    lab = Lab(f"http://127.0.0.1:{free_port()}", "token", tmp_path / "notebooks")
    # As `stemlab` itself, which imports nothing from the current folder.
    command = [sys.executable, "-P", "-m", "stemlab", "lab", str(lab.folder)]
    command += ["--no-browser", "--json"]
    own = {
        f"JUPYTER_{name}": str(tmp_path / "home" / name)
        for name in ("CONFIG_DIR", "DATA_DIR", "RUNTIME_DIR")
    }
    log = tmp_path / "log"
    with (
        log.open("w") as stream,
        subprocess.Popen(
            [*command, f"--port={lab.url.rpartition(':')[2]}", *arguments],
            cwd=cwd,
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


def plant(folder: Path, ran: Path) -> None:
    """Put modules and settings into a folder that leave a file in another one where they run."""
    folder.mkdir()
    ran.mkdir()
    names = "jupyter_config jupyter_server_config jupyter_lab_config ipython_config voila"
    names += " ipython_kernel_config ipykernel jupyterlab stemlab numpy yaml ipywidgets"
    for name in names.split():
        (folder / f"{name}.py").write_text(f"open({str(ran / name)!r}, 'w').close()")
    (folder / "voila.json").write_text('{"Voila": {"root_dir": "/"}}')
    (folder / "jupyter_server_config.json").write_text('{"ServerApp": {"root_dir": "/"}}')
    (folder / "matplotlibrc").write_text("text.usetex: True")
    (folder / ".numba_config.yaml").write_text(f"cache_dir: {ran}")


PROBE = """
import os, matplotlib, numba, numpy, yaml, stemlab
numba.njit(lambda: 0)()
print(matplotlib.rcParams["text.usetex"], repr(numba.config.CACHE_DIR), os.getcwd())
"""


def run_in_kernel(runtime: Path, id_: str, code: str) -> str:
    """Run code in a kernel of the server; what it printed, or the error."""
    client = BlockingKernelClient(connection_file=str(runtime / f"kernel-{id_}.json"))
    client.load_connection_file()
    client.start_channels()
    said: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        content = message["content"]
        said.append(content.get("text", "") + content.get("evalue", ""))

    client.execute_interactive(code, timeout=RUN_SECONDS, output_hook=hear)
    client.stop_channels()
    return "".join(said)


@unix
def test_nothing_in_the_folder_runs_or_is_obeyed_by_jupyterlab(tmp_path: Path) -> None:
    pytest.importorskip("jupyterlab")
    folder, ran = tmp_path / "notebooks", tmp_path / "ran"
    plant(folder, ran)
    with served(tmp_path, "--allow-root", cwd=folder) as (lab, _):
        # As the page does that opens a notebook.
        asked = {"path": NAMES[0], "type": "notebook", "name": "", "kernel": {"name": "python3"}}
        kernel = lab.ask("api/sessions", "POST", asked)["kernel"]
        # But for how it is started, it is the usual one.
        spec = lab.ask("api/kernelspecs/python3")["spec"]
        assert {**spec, "argv": []} == {**spec, **get_kernel_dict(), "argv": []}
        said = run_in_kernel(tmp_path / "home" / "RUNTIME_DIR", kernel["id"], PROBE)
        assert {entry["name"] for entry in lab.ask("api/contents")["content"]} >= set(NAMES)
    assert said == f"False '' {folder}\n"
    assert list(ran.iterdir()) == []


def status(lab: Lab, path: str, **headers: str) -> tuple[int, bytes]:
    """Ask as a browser does, without following to the page that asks for a token."""

    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    request = urllib.request.Request(f"{lab.url}/{path}", headers=headers)
    try:
        with urllib.request.build_opener(Stay).open(request, timeout=RUN_SECONDS) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, b""


@unix
def test_voila_asks_for_a_token_and_stays_in_the_folder(tmp_path: Path) -> None:
    pytest.importorskip("voila")
    websocket = pytest.importorskip("websocket")
    folder, ran = tmp_path / "notebooks", tmp_path / "ran"
    plant(folder, ran)
    (folder / "picture.png").write_bytes(b"picture")
    code = f"{PROBE}\nprint(os.environ['{SERVED_FOLDER}'])"
    write_notebook(Lab("", "", folder), "probe.ipynb", code)
    with served(tmp_path, "--voila", cwd=folder) as (lab, _):
        pages = ["", "voila/tree", "voila/render/probe.ipynb", "voila/api/contents"]
        pages += ["voila/files/picture.png"]
        allowed = {"Authorization": f"token {lab.token}"}
        for page in pages:
            assert status(lab, page)[0] in (302, 403), page
            assert status(lab, page, Authorization="token wrong")[0] in (302, 403), page
            assert status(lab, page, **allowed, Host="elsewhere.example")[0] == 403, page
            code, content = status(lab, page, **allowed)
            assert code == 200, page
            if page.endswith("probe.ipynb"):
                shown = content.decode()
        assert f"False &#39;&#39; {folder}\n{folder}\n" in shown
        found = re.search(r'"kernelId": "([0-9a-f-]+)"', shown)
        assert found is not None, shown
        channels = f"ws{lab.url.removeprefix('http')}/api/kernels/{found[1]}/channels"
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            websocket.create_connection(channels)
        with pytest.raises(websocket.WebSocketBadStatusException, match="403"):
            websocket.create_connection(channels, header=allowed, host="elsewhere.example")
        page = websocket.create_connection(channels, header=allowed)
        # A page talks to its widgets; code is not taken from it.
        for kind, content in (
            ("execute_request", {"code": f"open({str(ran / 'code')!r}, 'w')", "silent": True}),
            ("kernel_info_request", {}),
        ):
            header = {"msg_id": kind, "msg_type": kind, "session": "page", "username": ""}
            message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
            page.send(json.dumps({**message, "channel": "shell"}))
        while json.loads(page.recv())["header"]["msg_type"] != "kernel_info_reply":
            pass
        page.close()
    assert list(ran.iterdir()) == []


@unix
def test_voila_opens_an_address_with_its_token_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    pytest.importorskip("voila")
    opened, log = tmp_path / "opened", tmp_path / "log"
    os.mkfifo(opened)
    pipe = os.open(opened, os.O_RDWR)
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\ncat \"${{1#file://}}\" > '{opened}'\n")
    browser.chmod(0o700)
    command = [sys.executable, "-P", "-m", "stemlab", "lab", "notebooks", "--voila"]
    inherited = {name: value for name, value in os.environ.items() if "TOKEN" not in name}
    with (
        log.open("w") as stream,
        subprocess.Popen(
            [*command, f"--port={free_port()}"],
            cwd=tmp_path,
            env={**inherited, "BROWSER": str(browser), "TMPDIR": str(tmp_path)},
            stdout=subprocess.DEVNULL,
            stderr=stream,
            start_new_session=True,
        ) as server,
    ):
        try:
            assert select.select([pipe], [], [], RUN_SECONDS)[0], log.read_text("utf-8")
            found = re.search(rb"url=(http://[^\"]+)/(\?token=[0-9a-f]+)\"", os.read(pipe, 10_000))
            assert found is not None
            url, token = (part.decode() for part in found.groups())
            assert status(Lab(url, "", tmp_path), token)[0] == 200
            assert f"{url}/{token}" in log.read_text("utf-8")
        finally:
            # As the terminal sends it: to both.
            os.killpg(server.pid, signal.SIGINT)
            assert server.wait(30) == 0, log.read_text("utf-8")
    os.close(pipe)
    # Nothing that holds the token stays.
    assert list(tmp_path.glob("*.html")) == []


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
        for name in NAMES[: cases(quick=0, long=99)]:
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
