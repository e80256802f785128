"""``stemlab lab``: the notebooks in a folder of the user, in JupyterLab or as pages."""

from __future__ import annotations

import argparse
import errno
import json
import os
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from stemlab._assets import asset_dir
from stemlab._isolation import SERVED_FOLDER, child
from stemlab._version import __version__
from stemlab.errors import MissingDependencyError, OutputError, ParameterError
from stemlab.files import ScratchFolder, parse_json, read_bounded, write_atomically

# The settings in this folder keep JupyterLab's page from asking whether it may fetch news, which
# no option does. They also make widgets talk to the kernel's main thread: with JupyterLab 4.6 and
# ipykernel 7.4, a page that is opened while the kernel computes often gets no answer from a
# subshell.
_ASSETS = Path(__file__).resolve().parent.parent / "assets"
_SETTINGS = _ASSETS / "lab"
# Holds a template for Voilà that fetches nothing from elsewhere.
_JUPYTER = _ASSETS / "jupyter"
_MOST_BYTES = 16_000_000


def run(options: argparse.Namespace) -> int:
    """Copy the notebooks and serve them until the user stops the server."""
    module, title, extra = (
        ("voila", "Voilà", "teach") if options.voila else ("jupyterlab", "JupyterLab", "lab")
    )
    if find_spec(module) is None or find_spec("ipykernel") is None:
        raise MissingDependencyError(
            f"{title} is not installed. Install it with `pip install 'stemlab[{extra}]'`."
        )
    folder = Path(options.folder)
    copied, kept = copy_notebooks(folder)
    lines = [f"The notebooks are in '{folder}'."]
    if copied:
        lines.append(f"Copied: {', '.join(copied)}.")
    if kept:
        lines.append(
            f"Kept, although they differ from those of stemlab {__version__}: {', '.join(kept)}. "
            "To get the new one, rename yours and start again."
        )
    stop = "Ctrl+C here" if options.voila else "Ctrl+C here, twice"
    lines.append(f"Opening {title}. To stop it, press {stop}.")
    if options.json:  # In one line: what the server prints comes after it.
        print(json.dumps({"folder": str(folder), "copied": copied, "kept": kept}), flush=True)
    elif not options.quiet:
        print("\n".join(lines), flush=True)
    environment = dict(os.environ)
    if options.voila:
        # No token here: every user of the machine could read it.
        arguments = ["-m", "stemlab.cli._voila", "--template=stemlab", "--Voila.auto_token=True"]
        # Visitors of pages may use only this folder.
        environment[SERVED_FOLDER] = os.path.realpath(folder)
    else:
        arguments = [
            *("-m", "jupyterlab"),
            f"--LabApp.app_settings_dir={_SETTINGS}",
            "--LabApp.news_url=",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
            "--LabApp.extension_manager=readonly",
            *(["--allow-root"] if options.allow_root else []),
        ]
    arguments.append(str(folder.resolve()))
    if options.no_browser:
        arguments.append("--no-browser")
    if options.port is not None:
        arguments.append(f"--port={options.port}")
    return _serve(arguments, environment)


def copy_notebooks(folder: Path) -> tuple[list[str], list[str]]:
    """Copy the notebooks of stemlab, except those that are there already."""
    if os.path.exists(folder) and not os.path.isdir(folder):
        raise ParameterError(f"'{folder}' is not a folder. Name one, or a new one.")
    copied, kept = [], []
    for notebook in sorted(asset_dir("notebooks").glob("*.ipynb")):
        target = folder / notebook.name
        content = notebook.read_bytes()
        if not os.path.lexists(target):
            write_atomically(target, content, advice=", or choose another folder")
            copied.append(notebook.name)
        elif _sources(target) != _sources(notebook):
            kept.append(notebook.name)
    return copied, kept


def _sources(notebook: Path) -> list[str] | None:
    """Text and code of the cells; None if the file is too large or not a notebook."""
    try:
        cells = parse_json(read_bounded(notebook, _MOST_BYTES))["cells"]
        return ["".join(cell["source"]) for cell in cells]
    except OSError as error:
        if error.errno == errno.EFBIG:
            return None
        raise OutputError(f"cannot read '{notebook}': {error.strerror}.", notebook) from error
    except (ValueError, TypeError, KeyError):
        return None


def _serve(arguments: list[str], environment: dict[str, str]) -> int:
    from ipykernel.kernelspec import write_kernel_spec

    with ScratchFolder() as kernels:
        # The usual kernel, started so that no settings beside its notebook take effect. With frozen
        # modules, the debugger of ipykernel would show a warning in the notebook.
        start = [sys.executable, "-P", "-Xfrozen_modules=off", "-m", "stemlab.cli._kernel"]
        start += ["--IPKernelApp.ignore_cwd=True", "-f", "{connection_file}"]
        write_kernel_spec(Path(kernels, "kernels", "python3"), {"argv": start})
        paths = [kernels, str(_JUPYTER), environment.get("JUPYTER_PATH")]
        environment["JUPYTER_PATH"] = os.pathsep.join(filter(None, paths))
        # Descriptor 2 is silenced, but the server prints the address to open to stderr.
        with subprocess.Popen(
            **child(*arguments, environment=environment), stderr=sys.stderr
        ) as server:
            try:
                # Both processes get a Ctrl+C of the terminal; the server handles it.
                signal.signal(signal.SIGINT, signal.SIG_IGN)
                return server.wait()
            finally:
                server.terminate()
