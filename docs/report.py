"""Make notebooks into pages that open offline: pictures, widgets and sound are inside.

    python docs/report.py NOTEBOOK_OR_FOLDER OUT_DIR

Each notebook is run from top to bottom, in a copy of its folder. A page asks the network for
nothing, and tells the browser not to let it. What fails is told in one line, and an earlier page of
that notebook stays as it was. A folder gets an index.html, too.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import mimetypes
import re
import shutil
import subprocess
import sys
import tempfile
from base64 import b64encode
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from html import escape, unescape
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import anywidget
import nbformat
from jupyter_client.kernelspec import NoSuchKernel
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell

from stemlab.errors import StemlabError
from stemlab.files import write_atomically

VENDOR = Path(__file__).resolve().parent / "vendor"
CELL_SECONDS = 900
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
# What a page can show: the first three are part of embed-amd.js.
MODULES = {
    "@jupyter-widgets/base",
    "@jupyter-widgets/controls",
    "@jupyter-widgets/output",
    "anywidget",
}

# Runs last, in the kernel. It waits for what panels still do, and writes down all widgets as they
# are then: nbclient would keep closed ones, too, and miss what threads change after their cell.
LAST_CELL = """
import json, pathlib, sys, threading
import ipywidgets
for each in threading.enumerate():
    if each.name.startswith("stemlab-"):
        each.join(300)
mixer = sys.modules.get("stemlab.widgets.mixer")
for each in list(ipywidgets.widgets.widget._instances.values()):
    if mixer and isinstance(each, mixer.StemMixer):
        each.embed()
pathlib.Path({path!r}).write_text(json.dumps(ipywidgets.Widget.get_manager_state()), "utf-8")
"""

STYLE = """
body { max-width: 1100px; margin: 0 auto; padding: 16px; }
div.jp-OutputArea-output.jp-RenderedText pre { padding-left: 8px; }
.stemlab-report { margin: 0 0 12px; padding: 8px 12px; border-left: 4px solid #1976d2;
  background: #f3f6fa; color: #222; font: 14px/1.5 system-ui, sans-serif; }
.stemlab-report a { color: #0d5bb5; text-decoration: underline; }
"""
# Whatever a notebook holds: the browser loads nothing that is not in the page. ipywidgets names
# fonts of icons beside it, which are not there; Chromium complains where it may not look for them.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'unsafe-inline'; img-src data: blob:; media-src data: blob:; "
    "font-src 'self' file: data:"
)
PAGE = """
{%- extends "lab/index.html.j2" -%}
{%- block html_head_js -%}
<meta http-equiv="Content-Security-Policy" content="{{ resources.report.policy }}">
{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}<style>{{ resources.report.style }}</style>{%- endblock -%}
{%- block body_header -%}{{ super() }}{{ resources.report.note }}{%- endblock -%}
{%- block footer_js -%}{{ resources.report.scripts }}{%- endblock -%}
"""
INDEX = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>stemlab: reports</title>
<style>{style} body {{ font: 16px/1.5 system-ui, sans-serif; }} li {{ margin: 1em 0; }}</style>
</head>
<body>
<h1>stemlab: reports</h1>
<p class="stemlab-report">Made from notebooks by <code>make report</code>. Every page opens
without a network; the mixers play, other controls need the notebook.</p>
<ul>
{entries}
</ul>
</body>
</html>
"""


class ReportError(Exception):
    """A notebook that cannot be made into a page; the message is one line."""

    def __init__(self, text: str) -> None:
        super().__init__(" ".join(text.split()))


def read(path: Path) -> Any:
    """Read a notebook.

    Parameters
    ----------
    path : Path

    Returns
    -------
    notebook : NotebookNode

    Raises
    ------
    ReportError
        If it cannot be read.
    """
    try:
        return nbformat.read(path, as_version=4)
    except (OSError, ValueError, nbformat.ValidationError) as error:
        raise ReportError(f"is not a notebook that can be read: {error}") from error


def run(path: Path, folder: Path) -> Any:
    """Run a notebook in a folder; what it becomes holds its outputs and the state of its widgets.

    Parameters
    ----------
    path : Path
        Of the notebook.
    folder : Path
        Where it runs. Its widgets are written beside that folder.

    Returns
    -------
    notebook : NotebookNode

    Raises
    ------
    ReportError
        If it cannot be read; if a cell, a callback of a widget or a thread fails or complains.
    """
    notebook = read(path)
    states = folder.parent / "widgets.json"
    client = NotebookClient(notebook, timeout=CELL_SECONDS, store_widget_state=False)
    try:
        # What its process says, not its cells, is only noise: how safe the connection is.
        with client.setup_kernel(cwd=str(folder), stderr=subprocess.DEVNULL):
            complaints = _listen(client)
            notebook.cells.append(new_code_cell(LAST_CELL.format(path=str(states))))
            for number, cell in enumerate(notebook.cells):
                where = f"In [{client.code_cells_executed + 1}]"
                if number == len(notebook.cells) - 1:
                    where = "while its widgets were put into the page"
                try:
                    client.execute_cell(cell, number)
                except CellExecutionError as error:
                    raise ReportError(f"{where}: {error.ename}: {error.evalue}") from error
                except (CellTimeoutError, DeadKernelError) as error:
                    raise ReportError(f"{where}: {error}") from error
                if complaints:
                    lines = "".join(complaints).strip().splitlines()
                    telling = [each for each in lines if re.search(r"(Error|Warning)\b", each)]
                    said = ["wrote to stderr", *lines, *telling][-1]
                    raise ReportError(f"{where}, or earlier in the background: {said}")
            notebook.cells.pop()
    except (RuntimeError, NoSuchKernel) as error:
        raise ReportError(f"its kernel does not start: {error}") from error
    notebook.metadata["widgets"] = {WIDGET_STATE: json.loads(states.read_text("utf-8"))}
    return notebook


def _listen(client: NotebookClient) -> list[str]:
    """Collect what goes to stderr, and errors, whichever cell they belong to.

    nbclient itself only takes what belongs to the cell that runs, and does not mind errors of
    callbacks.
    """
    complaints: list[str] = []
    channel = client.kc.iopub_channel
    hear = channel.get_msg

    async def listen(*arguments: Any, **options: Any) -> Any:
        message = await hear(*arguments, **options)
        content = message["content"]
        if message["msg_type"] == "error":
            complaints.append(f"{content['ename']}: {content['evalue']}\n")
        elif message["msg_type"] == "stream" and content["name"] == "stderr":
            complaints.append(content["text"])
        return message

    channel.get_msg = listen
    return complaints


def render(notebook: Any, name: str, folder: Path, siblings: Sequence[str] = ()) -> str:
    """Make the page of a notebook that was run.

    Parameters
    ----------
    notebook : NotebookNode
    name : str
        Of its file, without ending.
    folder : Path
        Where its pictures are.
    siblings : sequence of str
        Names of all notebooks that get pages, for links between them.

    Returns
    -------
    html : str

    Raises
    ------
    ReportError
        If it has widgets that a page cannot show, or needs something from the network.
    """
    states = notebook.metadata["widgets"][WIDGET_STATE]["state"]
    if unknown := {each["model_module"] for each in states.values()} - MODULES:
        raise ReportError(f"a page cannot show widgets of {', '.join(sorted(unknown))}")
    title, _ = describe(notebook, name)
    notebook.metadata["title"] = f"{title} – stemlab"
    index = '<a href="index.html">All reports</a>' if siblings else ""
    note = (
        f'<p class="stemlab-report">This page was made from <code>{escape(name)}.ipynb</code> by '
        "<code>make report</code>. The mixers play; other controls need the notebook. It contains "
        "all that the notebook showed, names of files too, and the sound of its mixers as MP3: "
        f"whoever has the page has these. {index}</p>"
    )
    exporter = HTMLExporter(template_name="lab", raw_template=PAGE, exclude_anchor_links=True)
    resources = {
        "metadata": {"name": name, "path": str(folder)},
        "report": {"note": note, "style": STYLE, "policy": POLICY, "scripts": _scripts()},
    }
    html, _ = exporter.from_notebook_node(notebook, resources)
    for each in siblings:
        html = html.replace(f'href="{each}.ipynb"', f'href="{each}.html"')
    return _put_files_in(html, folder)


def _put_files_in(html: str, folder: Path) -> str:
    """Replace the names of pictures and sounds by what is in them.

    nbconvert can do this for pictures, but then closes what a cell folds away (<details>) at once.
    """

    def embed(found: re.Match[str]) -> str:
        before, address, after = found.groups()
        if address.startswith("data:"):
            return found[0]
        path = (folder / unquote(unescape(address))).resolve()
        kind = mimetypes.guess_type(path.name)[0]
        if kind is None or not path.is_relative_to(folder.resolve()) or not path.is_file():
            raise ReportError(f"needs {address!r}, which cannot be put into a page")
        return f"{before}data:{kind};base64,{b64encode(path.read_bytes()).decode()}{after}"

    tags = "img|audio|video|source|iframe|embed|script"
    return re.sub(rf'(<(?:{tags})\b[^<>]*?\bsrc=")([^"]*)(")', embed, html)


def _scripts() -> str:
    """What draws the widgets, with its licences: a loader, anywidget, and ipywidgets."""
    bundle = Path(anywidget.__file__).parent / "nbextension" / "index.js"
    licence = importlib.metadata.distribution("anywidget").read_text("licenses/LICENSE") or ""
    # It has no name of its own in there, and would be looked for at an address.
    named = (
        "(() => { const define = (...parts) => window.define('anywidget', ...parts.slice(-2));\n"
        f"{bundle.read_text('utf-8')}\n}})();"
    )
    loader, renderer = (
        (
            (VENDOR / f"{name}.LICENSE.txt").read_text("utf-8"),
            (VENDOR / name).read_text("utf-8"),
        )
        for name in ("require.js", "embed-amd.js")
    )
    # The last one draws what it finds once the page was loaded.
    return "".join(
        f"<script>/*\n{terms.replace('*/', '')}*/\n{_in_script(code)}</script>\n"
        for terms, code in (loader, (f"anywidget\n\n{licence}", named), renderer)
    )


def _in_script(code: str) -> str:
    """Keep strings in code from ending its element."""
    return code.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def describe(notebook: Any, name: str) -> tuple[str, str]:
    """Find the title of a notebook and the question it answers.

    Parameters
    ----------
    notebook : NotebookNode
    name : str
        The title, if it has none.

    Returns
    -------
    title, question : str
        Of the first heading, and the first that stands in bold letters; that may be missing.
    """
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    title = re.search(r"^# +(.+)$", text, re.MULTILINE)
    question = re.search(r"^\*\*(.+?)\*\*", text, re.MULTILINE)
    return title[1].strip() if title else name, question[1] if question else ""


def make_page(path: Path, out_dir: Path, siblings: Sequence[str] = ()) -> Path:
    """Run a notebook and write its page.

    Parameters
    ----------
    path : Path
        Of the notebook.
    out_dir : Path
    siblings : sequence of str
        As in `render`.

    Returns
    -------
    page : Path

    Raises
    ------
    ReportError
        If something is wrong with the notebook.
    OutputError
        If the page cannot be written.
    """
    with tempfile.TemporaryDirectory(prefix="stemlab-report-") as scratch:
        folder = Path(scratch, "notebooks")
        try:
            shutil.copytree(path.parent, folder, ignore=shutil.ignore_patterns(".*"))
        except OSError as error:
            raise ReportError(f"its folder cannot be copied: {error}") from error
        html = render(run(path, folder), path.stem, folder, siblings)
    page = out_dir / f"{path.stem}.html"
    write_atomically(page, html.encode("utf-8"))
    return page


def write_index(notebooks: Sequence[Path], out_dir: Path) -> Path:
    """List the pages that are there.

    Parameters
    ----------
    notebooks : sequence of Path
    out_dir : Path

    Returns
    -------
    page : Path

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    entries = []
    for path in notebooks:
        if not (out_dir / f"{path.stem}.html").is_file():
            continue
        title, question = path.stem, ""
        with suppress(ReportError):
            title, question = describe(read(path), path.stem)
        link = f'<a href="{quote(path.stem)}.html">{escape(title)}</a>'
        entries.append(f"<li>{link}<br>{escape(question)}</li>")
    page = out_dir / "index.html"
    text = INDEX.format(policy=POLICY, style=STYLE, entries="\n".join(entries))
    write_atomically(page, text.encode("utf-8"))
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the script; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a notebook, or a folder of notebooks")
    parser.add_argument("out_dir", type=Path, help="gets a page for each notebook")
    asked = parser.parse_args(arguments)
    whole_folder = asked.source.is_dir()
    notebooks = sorted(asked.source.glob("*.ipynb")) if whole_folder else [asked.source]
    siblings = [path.stem for path in notebooks] if whole_folder else []
    if not notebooks:
        sys.stderr.write(f"{asked.source}: there are no notebooks in this folder\n")
        return 1
    jobs = [(path, partial(make_page, path, asked.out_dir, siblings)) for path in notebooks]
    if whole_folder:
        jobs.append((asked.source, partial(write_index, notebooks, asked.out_dir)))
    failed = False
    for source, make in jobs:
        try:
            page = make()
        except (ReportError, StemlabError) as error:
            failed = True
            sys.stderr.write(f"{source}: {error}\n")
        else:
            sys.stdout.write(f"{page}  {page.stat().st_size / 1e6:.1f} MB\n")
            sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("stopped")
