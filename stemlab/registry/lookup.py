"""Find a model by its name or folder."""

from __future__ import annotations

import difflib
import logging
from pathlib import Path
from typing import Any

from stemlab._assets import asset_dir
from stemlab.errors import ModelError, ModelNotFoundError
from stemlab.registry.manifests import MANIFEST_NAME, ModelManifest, read_manifest
from stemlab.registry.store import models_dir, read_registry

__all__ = ["find_model", "is_builtin", "is_folder", "list_models", "model_names"]

_log = logging.getLogger(__name__)


def model_names() -> list[str]:
    """Name all registered models.

    Returns
    -------
    names : list of str
        Those that stemlab knows, then those that the user added.

    Raises
    ------
    ModelRefusedError
        If a registry is damaged.
    """
    users = [name for name in read_registry(models_dir()) if not is_builtin(name)]
    return [*_builtin(), *users]


def list_models() -> list[ModelManifest]:
    """Read the manifests of all registered models, installed or not.

    Returns
    -------
    models : list of ModelManifest
        In the order of the registry, then those the user added. A damaged one of these is left
        out, with a warning in the log, so that it does not hide the others.

    Raises
    ------
    ModelRefusedError
        If the registry is damaged, or a manifest that comes with stemlab.
    """
    models = []
    for name in model_names():
        try:
            models.append(find_model(name))
        except ModelError as error:
            if is_builtin(name):
                raise
            _log.warning("%s", error)
    return models


def find_model(name: str) -> ModelManifest:
    """Find a model by its registered name, or in a folder of the user's.

    Parameters
    ----------
    name : str
        A registered name, in any case; or the path of a folder that holds a ``manifest.json``,
        written with a separator (``./my-model``) so that no folder can stand in for a registered
        name.

    Returns
    -------
    manifest : ModelManifest
        Its weights need not be installed; see `installed_file`.

    Raises
    ------
    ModelNotFoundError
        If there is neither.
    ModelRefusedError
        If the manifest is damaged or does not match the registry.
    """
    if is_folder(name) and Path(name).is_dir():
        return read_manifest(name)
    builtin = _builtin()
    found = _same_name(name, builtin)
    if found is not None:
        digest, bundled = builtin[found]["manifest_sha256"], bool(builtin[found].get("bundled"))
        return read_manifest(
            asset_dir("models") / found,
            sha256=digest,
            files_in=None if bundled else models_dir() / found,
            kind="bundled" if bundled else "released",
        )
    # A damaged registry of the user's own must not stop what comes with stemlab: it is read last.
    users = read_registry(models_dir())
    found = _same_name(name, users)
    if found is not None:
        digest = users[found]["manifest_sha256"]
        return read_manifest(models_dir() / found, sha256=digest, kind="user")
    raise _not_found(name, [*builtin, *users])


def is_builtin(name: str) -> bool:
    """Tell whether a name is one of those that come with stemlab, which nothing can replace.

    Parameters
    ----------
    name : str

    Returns
    -------
    builtin : bool
    """
    return _same_name(name, _builtin()) is not None


def is_folder(name: str) -> bool:
    """Tell whether a model is asked for by its folder instead of by its name.

    Parameters
    ----------
    name : str

    Returns
    -------
    folder : bool
    """
    return "/" in name or "\\" in name


def _builtin() -> dict[str, dict[str, Any]]:
    return read_registry(asset_dir("models"), required=True)


def _same_name(name: str, known: dict[str, dict[str, Any]]) -> str | None:
    """Names that differ by case alone would be one folder on many systems."""
    return next((each for each in known if each.casefold() == name.casefold()), None)


def _not_found(name: str, known: list[str]) -> ModelNotFoundError:
    hint = f" To use the folder of that name, write './{name}'." if Path(name).is_dir() else ""
    close = difflib.get_close_matches(name, known, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    return ModelNotFoundError(
        f"model={name!r} is neither a registered name ({', '.join(known)}) nor a folder with a "
        f"{MANIFEST_NAME}.{guess}{hint} `stemlab models list` shows what there is."
    )
