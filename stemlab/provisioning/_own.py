"""Add a model of the user's own from one file that says what network it is for."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stemlab.errors import ModelError, ModelNotFoundError, ModelRefusedError, ParameterError
from stemlab.files import Folder
from stemlab.networks.loading import build_network, parse_network
from stemlab.networks.spec import spec_of_manifest
from stemlab.provisioning import _store
from stemlab.provisioning._declared import Declaration, read_weights
from stemlab.provisioning._download import ProgressCallback
from stemlab.provisioning._released import check_exists
from stemlab.provisioning.upkeep import is_whole
from stemlab.registry.files import read_bounded, refuse_digest
from stemlab.registry.lookup import builtin_names, find_model, registered_name
from stemlab.registry.manifests import (
    MANIFEST_NAME,
    MAX_WEIGHTS_BYTES,
    SCHEMA,
    ModelManifest,
    NetworkEntry,
    check_file_name,
    check_text,
    parse_manifest,
)
from stemlab.registry.store import REGISTRY_NAME

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_NO_LICENSE = "not stated: added by the user, who has to know"


def add_own(
    name: str,
    paths: Sequence[Path],
    digests: Sequence[str],
    weight_license: str | None,
    progress: ProgressCallback | None,
) -> ModelManifest:
    """Add a model that stemlab does not know; see `add_model`."""
    path = _own_file(name, paths)
    weight_license = _NO_LICENSE if weight_license is None else weight_license
    try:
        check_text("the licence", weight_license)
    except ValueError as error:
        raise ParameterError(f"weight_license={weight_license!r}: {error}.") from error
    if len(digests) != 1:
        raise ParameterError(
            f"a model of your own needs the full SHA-256 of its file, once: got {len(digests)}. "
            "Take it from whoever gave you the file, and type it: --sha256 DIGEST."
        )
    check_exists(path)
    with _store.locked_store() as store:
        taken = registered_name(name)
        recorded: dict[str, set[str]] | None = None
        if taken is not None:
            manifest, name = _same_again(taken, digests[0]), taken
            if manifest and all(is_whole(manifest, network) for network in manifest.networks):
                return manifest
            recorded = _store.recorded_files(manifest) if manifest else {}
        content = read_bounded(path, MAX_WEIGHTS_BYTES, follow_links=True)
        refuse_digest(
            path,
            content,
            digests[0],
            advice="Compare it with what was typed; do not use this file.",
        )
        weights, declaration = read_weights(content, path.name, str(path), progress)
        if declaration is None:
            raise ModelRefusedError(
                f"{str(path)!r} does not say what network it is for. Write that into a "
                "manifest.json beside it (see models/stemlab-mini/manifest.json) and name the "
                "folder: --model ./FOLDER. It needs no adding.",
                path=path,
            )
        files = [_file_fields(f"{name}.safetensors", weights)]
        if weights is not content:
            files.append(_file_fields(f"{name}.th", content))
        fields = _manifest_fields(name, declaration, files, weight_license, path.name)
        manifest_content = (json.dumps(fields, indent=2, allow_nan=False) + "\n").encode()
        # As every later use does.
        manifest = parse_manifest(path, manifest_content, kind="user", folder=path.parent)
        spec_of_manifest(manifest)
        parse_network(manifest.networks[0], weights, str(path))
        contents = {MANIFEST_NAME: manifest_content, files[0]["name"]: weights}
        _put(store, name, contents, recorded)
        return find_model(name)


def _own_file(name: str, paths: Sequence[Path]) -> Path:
    try:
        check_file_name(name)
        # The registry lies beside the folders of the models.
        valid = _NAME.fullmatch(name) is not None and name.casefold() != REGISTRY_NAME
    except ValueError:
        valid = False
    if not valid:
        raise ParameterError(
            f"name={name!r} cannot name a model: expected 1 to 64 letters, digits, '-', '_' and "
            "'.', the first a letter or digit, the last no '.', and no name that a system keeps "
            "for itself."
        )
    if len(paths) != 1 or os.path.isdir(paths[0]):
        raise ParameterError(
            f"{name!r} is not a model that stemlab knows ({', '.join(builtin_names())}), and one "
            "of your own is added from one file. A folder with a manifest.json needs no adding: "
            "name it with --model ./FOLDER."
        )
    return paths[0]


def _same_again(name: str, digest: str) -> ModelManifest | None:
    """Find the model of this name if it was made of the same file; None if it has no manifest."""
    remove = f"Choose another name, or remove that one first: `stemlab models remove {name}`."
    try:
        manifest = find_model(name)
    except ModelNotFoundError:
        return None
    except ModelError as error:
        raise ParameterError(
            f"name={name!r} is taken by a model of yours that is damaged. {remove}"
        ) from error
    if digest not in {file.sha256 for network in manifest.networks for file in network.files}:
        raise ParameterError(f"name={name!r} is taken by another model of yours. {remove}")
    return manifest


def _file_fields(name: str, content: bytes) -> dict[str, Any]:
    return {"name": name, "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _manifest_fields(
    name: str,
    declaration: Declaration,
    files: list[dict[str, Any]],
    weight_license: str,
    origin: str,
) -> dict[str, Any]:
    get = declaration.effective
    architecture = declaration.architecture
    network = NetworkEntry(architecture.name, declaration.arguments, (), None)
    module = build_network(network, origin)
    pads = architecture.describe_network(module, ()).pads
    arguments = {
        **declaration.arguments,
        "sources": list(get("sources")),
        "segment": float(get("segment")),
    }
    dropped = ", ".join(declaration.dropped)
    return {
        "schema": SCHEMA,
        "name": name,
        "title": f"{name}, added by the user",
        "sources": list(get("sources")),
        "sample_rate": get("samplerate"),
        "channels": get("audio_channels"),
        "segment_seconds": float(get("segment")),
        "segment_policy": "padded" if pads else "free",
        "parameters": sum(weight.numel() for weight in module.parameters()),
        "networks": [{"architecture": architecture.name, "arguments": arguments, "files": files}],
        "code_license": architecture.code_license,
        "weight_license": weight_license,
        "disputes": [f"Arguments that Demucs no longer knows were left out: {dropped}."]
        if dropped
        else [],
        "origin": f"added by the user from {origin}",
        "training_data": "not stated",
    }


def _put(
    store: Folder, name: str, contents: Mapping[str, bytes], recorded: Mapping[str, set[str]] | None
) -> None:
    """Move a model into place; `recorded` lists the files of a damaged one, None for a new name."""
    manifest_sha256 = hashlib.sha256(contents[MANIFEST_NAME]).hexdigest()
    path, advice = store.path / name, "choose another name, or look at what is there"
    with _store.drafts_in(store) as drafts, _store.writing_to(path, advice):
        for file, content in contents.items():
            drafts.write(file, content)
        if store.stat(name) is not None:
            with _store.subfolder(store, name) as earlier:
                _make_room(earlier, contents, recorded)
        # From here on, a killed process leaves a listed model, which can be added again or removed.
        _store.register_model(store, name, manifest_sha256)
        with _store.subfolder(store, name) as folder:
            for file in contents:
                _store.publish(drafts, file, folder, (recorded or {}).get(file, ()))


def _make_room(
    folder: Folder, contents: Mapping[str, bytes], recorded: Mapping[str, set[str]] | None
) -> None:
    """Refuse files that stemlab may not replace; remove a manifest unlike the new one."""
    for name in contents:
        _store.refuse_foreign(folder, name)
    if recorded is not None:
        manifests = recorded.get(MANIFEST_NAME, set())
        if hashlib.sha256(contents[MANIFEST_NAME]).hexdigest() not in manifests:
            _store.make_way(folder, MANIFEST_NAME, manifests)
        return
    # A killed version 0.1 may have left the same model there.
    for name in folder.names():
        if name not in contents or folder.read(name, MAX_WEIGHTS_BYTES) != contents[name]:
            reason = "something else of that name is there"
            raise FileExistsError(errno.EEXIST, reason, str(folder.path))
