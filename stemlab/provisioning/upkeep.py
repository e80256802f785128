"""Verify what is installed, and take it away."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stemlab._models.loading import load_network
from stemlab._typing import StrPath
from stemlab.errors import ModelNotFoundError, ModelRefusedError, OutputError, ParameterError
from stemlab.provisioning._download import part_path
from stemlab.provisioning._store import DOWNLOADS, locked_store, remove_tree, staging_folder
from stemlab.registry import (
    InstalledFile,
    asked_for,
    find_model,
    forget_model,
    is_folder,
    models_dir,
    registered_name,
)

__all__ = ["VerifiedModel", "remove_model", "verify_model"]


@dataclass(frozen=True)
class VerifiedModel:
    """What was read and found to be what it should be.

    Parameters
    ----------
    name : str
        As it is registered; of a folder, as it was asked for.
    files : tuple of InstalledFile
        One for each network.
    parameters : int
        Number of weights.
    """

    name: str
    files: tuple[InstalledFile, ...]
    parameters: int


def verify_model(name: StrPath) -> VerifiedModel:
    """Read every file of a model and check it just as loading does.

    Nothing is remembered: the next use of the model checks again.

    Parameters
    ----------
    name : str or path
        Registered name or folder.

    Returns
    -------
    verified : VerifiedModel

    Raises
    ------
    ModelNotFoundError
        If there is no such model, or it is not installed.
    ModelRefusedError
        If a file is not the recorded one, does not fit its architecture, or the number of weights
        is not the recorded one.
    MissingDependencyError
        If the architecture is that of a package which does not load here.
    """
    manifest = find_model(name)
    files, parameters = [], 0
    for network in manifest.networks:
        module, file = load_network(manifest, network)
        files.append(file)
        parameters += sum(each.numel() for each in module.parameters())
    if parameters != manifest.parameters:
        raise ModelRefusedError(
            f"{manifest.name!r} has {parameters} weights, recorded are {manifest.parameters}. "
            "Correct its manifest.",
            path=manifest.folder,
            expected=manifest.parameters,
            actual=parameters,
        )
    # A folder may call itself what it likes.
    called = str(name) if manifest.kind == "folder" else manifest.name
    return VerifiedModel(called, tuple(files), parameters)


def remove_model(name: str) -> None:
    """Take a model's files out of the models folder, and an own model out of the registry.

    Parameters
    ----------
    name : str
        Registered name.

    Raises
    ------
    ParameterError
        If the model comes with stemlab, or is asked for by its folder.
    ModelNotFoundError
        If it is not installed.
    OutputError
        If a file cannot be removed.
    """
    name = asked_for(name)
    if is_folder(name):
        raise ParameterError(f"name={name!r} is a folder of yours, which stemlab does not remove.")
    missing = ModelNotFoundError(
        f"model {name!r} is not installed. `stemlab models list` shows what is."
    )
    known = registered_name(name)
    if known is None:
        raise missing
    own, files = registered_name(known, own=False) is None, []
    if not own:
        manifest = find_model(known)
        if manifest.kind == "bundled":
            raise ParameterError(f"{known!r} comes with stemlab and cannot be removed.")
        files = [file for each in manifest.networks for file in each.files]
    begun = [part_path(each, models_dir() / DOWNLOADS) for each in files]
    if not own and not any(map(os.path.lexists, [models_dir() / known, *begun])):
        raise missing
    with locked_store() as store:
        if own:
            forget_model(known)
        _remove_at_once(store / known, store)
        for part in begun:
            remove_tree(part)


def _remove_at_once(folder: Path, store: Path) -> None:
    """Out of its place in one step, so that nobody finds half of it."""
    if not os.path.lexists(folder):
        return
    with staging_folder(store) as aside:
        try:
            os.replace(folder, aside / folder.name)
        except OSError as error:
            raise OutputError(
                f"{str(folder)!r} cannot be removed: {error.strerror or error}. Check its "
                "permissions.",
                folder,
            ) from error
