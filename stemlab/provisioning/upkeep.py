"""Verify installed models, and remove them."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass

from stemlab._typing import StrPath
from stemlab.errors import ModelError, ModelNotFoundError, ModelRefusedError, ParameterError
from stemlab.files import Folder
from stemlab.networks.forward import check_works
from stemlab.networks.loading import load_network
from stemlab.networks.spec import spec_of_manifest
from stemlab.provisioning import _store
from stemlab.registry.lookup import asked_for, find_model, is_folder, registered_name
from stemlab.registry.manifests import ModelManifest, NetworkEntry
from stemlab.registry.store import InstalledFile, models_dir


@dataclass(frozen=True)
class VerifiedModel:
    """A model whose files were found to be the recorded ones."""

    name: str
    files: tuple[InstalledFile, ...]
    parameters: int


def verify_model(name: StrPath) -> VerifiedModel:
    """Read every file of a model, check it just as loading does, and run each network once.

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
        is not the recorded one; or if a network does not make finite stems of a short noise.
    MissingDependencyError
        If the architecture is that of a package which does not load here.
    """
    manifest = find_model(name)
    files, parameters = [], 0
    for network, member in zip(manifest.networks, spec_of_manifest(manifest).members, strict=True):
        module, file = load_network(manifest, network)
        check_works(module, member, str(file.path))
        files.append(file)
        parameters += sum(weight.numel() for weight in module.parameters())
    if parameters != manifest.parameters:
        raise ModelRefusedError(
            f"{manifest.name!r} has {parameters} weights, recorded are {manifest.parameters}. "
            "Correct its manifest.",
            path=manifest.folder,
            expected=manifest.parameters,
            actual=parameters,
        )
    # A folder's manifest may state any name.
    called = str(name) if manifest.kind == "folder" else manifest.name
    return VerifiedModel(called, tuple(files), parameters)


def is_whole(manifest: ModelManifest, network: NetworkEntry) -> bool:
    """Tell whether a network is installed and can be loaded."""
    try:
        load_network(manifest, network)
    except ModelError:
        return False
    return True


def remove_model(name: str) -> None:
    """Remove a model's files from the models folder, and a model of the user's from the registry.

    Only files that stemlab wrote are removed; a warning names what stays in the model's folder.

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
    ModelRefusedError
        If the model's folder is a link, or the registry is damaged.
    """
    name = asked_for(name)
    if is_folder(name):
        raise ParameterError(f"name={name!r} is a folder of yours, which stemlab does not remove.")
    missing = ModelNotFoundError(
        f"model {name!r} is not installed. `stemlab models list` shows what is."
    )
    known = registered_name(name, own=False)
    released = None if known is None else find_model(known)
    if released is not None and released.kind == "bundled":
        raise ParameterError(f"{known!r} comes with stemlab and cannot be removed.")
    if not os.path.isdir(models_dir()):
        raise missing
    with _store.locked_store() as store:
        if released is None:
            removed = _remove_own(store, name)
        else:
            removed = _store.discard(store, released.name, _store.recorded_files(released))
            removed |= _store.discard_parts(store, released)
    if not removed:
        raise missing


def _remove_own(store: Folder, name: str) -> bool:
    known = registered_name(name)
    if known is None:
        return False
    recorded = {}
    with suppress(ModelError):  # Of a damaged one, nothing is known to be stemlab's.
        recorded = _store.recorded_files(find_model(known))
    _store.discard(store, known, recorded)
    _store.register_model(store, known, None)
    return True
