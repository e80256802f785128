"""Find a model by its name or folder."""

from __future__ import annotations

import difflib
import logging
import os
from pathlib import Path
from typing import Any

from stemlab._assets import asset_dir
from stemlab._typing import StrPath
from stemlab.errors import ModelError, ModelNotFoundError, ModelRefusedError, ParameterError
from stemlab.registry.manifests import MANIFEST_NAME, ModelManifest, read_manifest
from stemlab.registry.store import models_dir, read_registry

_log = logging.getLogger(__name__)


def builtin_names() -> list[str]:
    """List the names of the models that stemlab knows."""
    return list(_builtin())


def own_names() -> list[str]:
    """List the names of the models that the user added, without those that a built-in one hides."""
    builtin = _builtin()
    return [name for name in read_registry(models_dir()) if _same_name(name, builtin) is None]


def registered_name(name: str, *, own: bool = True) -> str | None:
    """Find the registered form of a name, whatever its case.

    Names that differ only in case would share a folder on many systems.
    """
    found = _same_name(name, _builtin())
    return _same_name(name, read_registry(models_dir())) if found is None and own else found


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
    models = [find_model(name) for name in builtin_names()]
    try:
        for name in own_names():
            try:
                models.append(find_model(name))
            except ModelError as error:
                _log.warning("%s", without_folder(error))
    except ModelRefusedError as error:
        _log.warning("%s", without_folder(error))
    return models


def without_folder(error: ModelError) -> str:
    """Tell what is wrong with a model, without the path of the folder of all models."""
    text = str(error)
    for folder in (models_dir(), asset_dir("models")):
        path = f"{folder}{os.sep}"
        text = text.replace(path, "").replace(repr(path)[1:-1], "")
    return text


def find_model(name: StrPath) -> ModelManifest:
    """Find a model by its registered name, or in a folder of the user's.

    Parameters
    ----------
    name : str or path
        A registered name, in any case; or the path of a folder that holds a ``manifest.json``,
        written with a separator (``./my-model``) so that no folder can stand in for a registered
        name.

    Returns
    -------
    manifest : ModelManifest
        Its weights need not be installed; see `installed_file`.

    Raises
    ------
    ParameterError
        If it is neither a name nor a path.
    ModelNotFoundError
        If there is neither.
    ModelRefusedError
        If the manifest is damaged or does not match the registry.
    """
    name = asked_for(name)
    if is_folder(name) and os.path.isdir(name):
        # Weights are loaded later, perhaps after the process has changed to another folder.
        return read_manifest(Path(name).absolute())
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
    # The user's registry is read last: if it is damaged, the models of stemlab still work.
    users = read_registry(models_dir())
    found = _same_name(name, users)
    if found is not None:
        digest, folder = users[found]["manifest_sha256"], models_dir() / found
        try:
            return read_manifest(folder, sha256=digest, kind="user")
        except ModelNotFoundError as error:
            raise ModelNotFoundError(
                f"model {found!r} was added, but {str(folder / MANIFEST_NAME)!r} is gone. Add it "
                f"again, or take it off the list with `stemlab models remove {found}`."
            ) from error
    known = [*builtin, *users]
    hint = f" To use the folder of that name, write './{name}'." if os.path.isdir(name) else ""
    close = difflib.get_close_matches(name, known, n=1)
    guess = f" Did you mean {close[0]!r}?" if close else ""
    raise ModelNotFoundError(
        f"model={name!r} is neither a registered name ({', '.join(known)}) nor a folder with a "
        f"{MANIFEST_NAME}.{guess}{hint} `stemlab models list` shows what there is."
    )


def asked_for(model: StrPath) -> str:
    """Read the name or folder of a model as text."""
    if isinstance(model, str):
        return model
    if isinstance(model, os.PathLike):
        path = os.fspath(model)
        if isinstance(path, str):
            return path if is_folder(path) else os.path.join(os.curdir, path)
    raise ParameterError(f"model={model!r} is not a name, a folder or a Demucs network.")


def is_folder(name: str) -> bool:
    """Tell whether a model is asked for by its folder instead of by its name."""
    return "/" in name or "\\" in name


def _builtin() -> dict[str, dict[str, Any]]:
    return read_registry(asset_dir("models"), required=True)


def _same_name(name: str, known: dict[str, dict[str, Any]]) -> str | None:
    return next((other for other in known if other.casefold() == name.casefold()), None)
