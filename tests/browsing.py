"""JupyterLab in Chromium, for the tests that look at notebooks as a person does."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from hostile import WITHOUT_NETWORK, network_can_be_left

import stemlab

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Page, Route

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
BROWSER_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--autoplay-policy=no-user-gesture-required",
    "--mute-audio",
]
RUN_SECONDS = 300
ASSETS = Path(stemlab.__file__).resolve().parent / "assets"

# Lets scripts wait for the kernel, and keeps what the page does not show: exceptions in the
# callbacks of widgets, and what threads write to stderr.
ATTACH = """async () => {
  const app = window.jupyterapp;
  await app.restored;
  let panel;
  while (!(panel = app.shell.currentWidget)?.context) await new Promise(r => setTimeout(r, 100));
  await panel.context.ready;
  await panel.sessionContext.ready;
  const complaints = window.kernelComplaints = [];
  panel.sessionContext.session.kernel.iopubMessage.connect((_, message) => {
    const type = message.header.msg_type, content = message.content;
    if (type === 'error') complaints.push(`${content.ename}: ${content.evalue}\\n`);
    if (type === 'stream' && content.name === 'stderr') complaints.push(content.text);
  });
}"""
RUN_ALL = "() => window.jupyterapp.commands.execute('notebook:run-all-cells')"
# An evaluation has no time limit of its own.
LIMITED = """([script, seconds]) => Promise.race([eval(script)(),
  new Promise((_, reject) => setTimeout(
    () => reject(new Error('not done within ' + seconds + ' s')), seconds * 1000))])"""
CELLS = """() => window.jupyterapp.shell.currentWidget.content.widgets
  .filter(cell => cell.model.type === 'code')
  .map(cell => ({count: cell.model.executionCount,
                 outputs: cell.model.sharedModel.toJSON().outputs}))"""
# What keys that are meant for a widget must not change.
NOTEBOOK = """() => {
  const { content } = window.jupyterapp.shell.currentWidget;
  return [content.activeCellIndex, ...content.widgets.map(
    ({ model }) => [model.type, model.sharedModel.source, model.executionCount])];
}"""
# What a fresh kernel says when a page asks it for the widgets of an earlier one.
RESTORING = re.compile(r"No such comm(: [0-9a-f-]+| target registered: jupyter\.widget\.control)\n")


@dataclass
class Lab:
    """A JupyterLab server and the folder it shows."""

    url: str
    token: str
    folder: Path

    def ask(self, path: str, method: str = "GET", content: object = None) -> Any:
        request = urllib.request.Request(
            f"{self.url}/{path}",
            None if content is None else json.dumps(content).encode(),
            method=method,
            headers={"Authorization": f"token {self.token}"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")


@dataclass
class Visit:
    """An open page and everything that went wrong on it."""

    page: Page
    faults: list[str] = field(default_factory=list)

    def complaints(self) -> list[str]:
        """What the page and the kernel complained of so far."""
        said = "".join(self.page.evaluate("() => window.kernelComplaints"))
        return [*self.faults, *filter(None, RESTORING.sub("", said).splitlines())]


def find_browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        reason = f"no browser: none of {', '.join(BROWSERS)} is on the PATH"
        if os.environ.get("STEMLAB_REQUIRE_BROWSER"):
            pytest.fail(f"{reason}, and STEMLAB_REQUIRE_BROWSER is set")
        pytest.skip(reason)
    return found


def browser_without_network(folder: Path) -> str:
    """A program that starts the browser where there is no network at all, if the system lets us."""
    executable = find_browser()
    if not network_can_be_left():
        return executable
    wrapper = folder / "browser"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(WITHOUT_NETWORK)} {executable} "$@"\n', "utf-8")
    wrapper.chmod(0o700)
    return str(wrapper)


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


@contextmanager
def running_lab(folder: Path) -> Iterator[Lab]:
    """Serve notebooks from `folder`/work, away from the settings of whoever runs this."""
    home, work = folder / "home", folder / "work"
    work.mkdir(parents=True)
    lab = Lab(f"http://127.0.0.1:{free_port()}", uuid.uuid4().hex, work)
    own_folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "IPYTHONDIR": "ipython",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
        "--expose-app-in-browser",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.port={lab.url.rpartition(':')[2]}",
        "--ServerApp.port_retries=0",
        f"--ServerApp.root_dir={work}",
        f"--IdentityProvider.token={lab.token}",
        # Those that `stemlab lab` uses.
        f"--LabApp.app_settings_dir={ASSETS / 'lab'}",
        "--LabApp.news_url=",
        "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
        "--LabApp.extension_manager=readonly",
    ]
    home.mkdir()
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            command,
            cwd=work,
            env={
                **os.environ,
                **{name: str(home / part) for name, part in own_folders.items()},
                # Or a debugger that the page starts may warn of Python's own modules.
                "PYDEVD_DISABLE_FILE_VALIDATION": "1",
            },
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            wait_for(lab, server, home / "server.log")
            yield lab
        finally:
            stop(lab, server)


def wait_for(lab: Lab, server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(300):
        assert server.poll() is None, log.read_text("utf-8")
        try:
            lab.ask("api/status")
        except urllib.error.HTTPError:
            return  # Voilà has no such page.
        except OSError:
            time.sleep(0.2)
        else:
            return
    pytest.fail(f"the server did not start:\n{log.read_text('utf-8')}")


def end_kernels(lab: Lab) -> None:
    for kernel in lab.ask("api/kernels"):
        lab.ask(f"api/kernels/{kernel['id']}", "DELETE")


def stop(lab: Lab, server: subprocess.Popen[bytes]) -> None:
    try:
        # Kernels outlive a server that is only told to end.
        if server.poll() is None:
            end_kernels(lab)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@contextmanager
def open_page(lab: Lab, path: str, executable: str) -> Iterator[Visit]:
    """Show a page of the server; whatever it asks of others is refused and noted."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER_ARGUMENTS)
        page = browser.new_page(viewport={"width": 1200, "height": 1500})
        page.set_default_timeout(60_000)
        visit = Visit(page)

        def keep_inside(route: Route) -> None:
            if route.request.url.startswith((lab.url, "data:", "blob:")):
                route.continue_()
            else:
                visit.faults.append(f"asked for {route.request.url}")
                route.abort()

        def note(message: ConsoleMessage) -> None:
            if message.type == "error":
                visit.faults.append(f"console: {message.text}")

        page.route("**/*", keep_inside)
        page.on("console", note)
        page.on("pageerror", lambda error: visit.faults.append(f"page: {error}"))
        # Voilà runs a notebook before it answers.
        page.goto(f"{lab.url}/{path}?token={lab.token}", timeout=RUN_SECONDS * 1000)
        try:
            yield visit
        finally:
            browser.close()


@contextmanager
def open_notebook(lab: Lab, name: str, executable: str) -> Iterator[Visit]:
    with open_page(lab, f"doc/tree/{name}", executable) as visit:
        visit.page.wait_for_function("() => window.jupyterapp")
        within(visit.page, 60, ATTACH)
        yield visit


def within(page: Page, seconds: float, script: str) -> Any:
    return page.evaluate(LIMITED, [script, seconds])


def run_all(page: Page) -> None:
    """Run every cell, none of which may fail or complain."""
    within(page, RUN_SECONDS, RUN_ALL)
    for cell in page.evaluate(CELLS):
        assert cell["count"] is not None, cell
        kinds = [(each["output_type"], each.get("name")) for each in cell["outputs"]]
        assert ("error", None) not in kinds, cell
        assert ("stream", "stderr") not in kinds, cell


def press(page: Page, name: str, *, times: int = 1) -> None:
    page.get_by_role("button", name=name, exact=True).first.click(click_count=times)


def write_notebook(lab: Lab, name: str, *sources: str) -> None:
    """Put a notebook with these cells where the server finds it."""
    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(each) for each in sources],
        # Without it, JupyterLab asks which kernel to take.
        metadata={
            "kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}
        },
    )
    nbformat.write(notebook, lab.folder / name)


def expect_status(page: Page, text: str | re.Pattern[str]) -> None:
    page.get_by_role("status").filter(has_text=text).wait_for(timeout=RUN_SECONDS * 1000)
