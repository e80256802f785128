"""Keep what lies in the current folder out of this process and of those that it starts.

The current folder may have come from somebody else. Python imports modules from it, and some
libraries read settings there; both can run code.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import chdir
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import TypedDict

SERVED_FOLDER = "STEMLAB_SERVED_FOLDER"
"""Names the only folder that the panels of a served kernel may use."""

# As the current folder: it holds nothing to import and no settings.
_OWN_FOLDER = Path(__file__).resolve().parent / "assets"
_NUMBA_SETTINGS = ".numba_config.yaml"
# Made absolute, because the current folder changes.
_FOLDER_VARIABLES = ("STEMLAB_CACHE", "STEMLAB_MODELS", "TMPDIR")


class Child(TypedDict):
    """Keyword arguments of `subprocess.Popen`."""

    args: list[str]
    cwd: Path
    env: dict[str, str]


def child(
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    path: Iterable[str] | None = None,
) -> Child:
    """Return how to start Python so that it imports nothing from the current folder.

    The process gets another current folder: pass absolute paths. `path` replaces PYTHONPATH.
    """
    env = dict(os.environ if environment is None else environment)
    if path is None:
        path = env.get("PYTHONPATH", "").split(os.pathsep)
    env["PYTHONPATH"] = os.pathsep.join(_outside(path))
    # For the processes that it starts in turn, such as kernels.
    env["PYTHONSAFEPATH"] = "1"
    for name in _FOLDER_VARIABLES:
        if env.get(name):
            env[name] = os.path.abspath(env[name])
    return {"args": [sys.executable, "-P", *arguments], "cwd": _OWN_FOLDER, "env": env}


def leave_current_folder_out() -> None:
    """Stop importing from the current folder, where ``python -m`` looks first."""
    installed = Path(__file__).resolve().parent.parent
    # Unless stemlab itself runs from there.
    if not sys.flags.safe_path and Path.cwd().resolve() != installed:
        del sys.path[0]


def ignore_settings_here() -> None:
    """Keep the libraries of this process from reading settings in the current folder.

    Matplotlib looks for matplotlibrc there while it is imported, Numba for its own file also
    later: one can start LaTeX, the other load pickles. Those in the user's own folders stay.
    """
    sys.meta_path.insert(0, _ReadElsewhere())


class _ReadElsewhere(MetaPathFinder):
    """Changes the current folder while some libraries are imported."""

    def find_spec(
        self, name: str, path: object = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find the library as usual, and change how it is run."""
        spec = PathFinder.find_spec(name) if name in ("matplotlib", "numba") else None
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_elsewhere(module: ModuleType) -> None:
            with chdir(_OWN_FOLDER):
                run(module)
            if name == "numba":
                # Numba looks again at each compilation; this file does not exist.
                settings = sys.modules["numba.core.config"]
                vars(settings)["_config_fname"] = str(_OWN_FOLDER / _NUMBA_SETTINGS)

        vars(spec.loader)["exec_module"] = run_elsewhere
        return spec


def _outside(path: Iterable[str]) -> list[str]:
    """Leave out the current folder and relative paths."""
    here = os.path.realpath(os.curdir)
    return [entry for entry in path if os.path.isabs(entry) and os.path.realpath(entry) != here]
