"""The models folder: added files, and the registry of the user's own models.

It holds one folder per model and ``registry.json``. The ``installed.json`` of a released model
records, for each file that was converted or confirmed, the digest of its source.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import platformdirs

from stemlab._text import brief
from stemlab.errors import ModelNotFoundError, ModelRefusedError
from stemlab.files import parse_json
from stemlab.registry.files import read_bounded
from stemlab.registry.manifests import (
    MAX_TABLE_BYTES,
    SCHEMA,
    ModelManifest,
    NetworkEntry,
    WeightFile,
    check_digest,
    check_file_name,
    invalid,
)

REGISTRY_NAME = "registry.json"
RECORDS_NAME = "installed.json"


@dataclass(frozen=True)
class InstalledFile:
    """The safetensors file that a network is loaded from."""

    path: Path
    size: int
    sha256: str
    source: WeightFile


@dataclass(frozen=True)
class SourceRecord:
    """A line of ``installed.json``: a file, and the digest of what it was made from."""

    file: str
    bytes: int
    sha256: str
    source_sha256: str
    confirmed: bool


def models_dir() -> Path:
    """Folder of the models that were added."""
    configured = os.environ.get("STEMLAB_MODELS")
    if configured:
        return Path(os.path.abspath(os.path.expanduser(configured)))
    return platformdirs.user_data_path("stemlab", appauthor=False) / "models"


def installed_file(manifest: ModelManifest, network: NetworkEntry) -> InstalledFile:
    """Find the file that a network is loaded from; it is not opened."""
    folder = manifest.folder
    if manifest.kind != "folder":
        refuse_link(folder)
    for source in network.files:
        path = folder / source.name
        if not (source.is_pickle or source.unconfirmed) and os.path.lexists(path):
            return InstalledFile(path, source.size, source.sha256, source)
    # A converted file has another digest than the manifest of a released model states.
    records = read_records(folder) if manifest.kind == "released" else []
    for record in records:
        for source in network.files:
            path = folder / record.file
            if (
                record.source_sha256 == source.sha256
                and (record.confirmed or not source.unconfirmed)
                and os.path.lexists(path)
            ):
                return InstalledFile(path, record.bytes, record.sha256, source)
    if manifest.kind == "folder":
        raise ModelNotFoundError(
            f"{str(folder / network.files[0].name)!r} is missing. Put the file there; pickles are "
            "not read from a folder, `stemlab models add NAME --from FILE --sha256 DIGEST` "
            "converts them."
        )
    raise ModelNotFoundError(
        f"model {manifest.name!r} is not installed: {network.files[0].name} is not in "
        f"{str(folder)!r}. Add it with `stemlab models add {manifest.name} --from FILE_OR_FOLDER`"
        + (" or `--download`." if network.files[0].url else ".")
    )


def refuse_link(folder: Path) -> None:
    """Refuse a model's folder that is a link to another place."""
    if folder.is_symlink():
        raise ModelRefusedError(
            f"{str(folder)!r} is a link, which leaves the models folder. Remove it; to keep models "
            "elsewhere, set STEMLAB_MODELS.",
            path=folder,
        )


def is_installed(manifest: ModelManifest) -> bool:
    """Tell whether every network of a model has a file; the files are not opened."""
    try:
        for network in manifest.networks:
            installed_file(manifest, network)
    except ModelNotFoundError:
        return False
    return True


def read_records(folder: Path) -> list[SourceRecord]:
    """Read what the files of a released model were made from; none without ``installed.json``."""
    path = folder / RECORDS_NAME
    if not os.path.lexists(path):
        return []
    with invalid(path, "record of installed files", "Move it away, and add the model again."):
        fields = _read(path)
        records = [SourceRecord(**entry) for entry in fields["files"]]
        for record in records:
            check_file_name(record.file)
            check_digest(record.sha256)
            check_digest(record.source_sha256)
            if not (type(record.bytes) is int and type(record.confirmed) is bool):
                raise ValueError("bytes is not a whole number, or confirmed neither true nor false")
    return records


def read_registry(folder: Path, *, required: bool = False) -> dict[str, dict[str, Any]]:
    """Read which models a registry names, and the digest of each one's manifest."""
    path = folder / REGISTRY_NAME
    if not required and not os.path.lexists(path):
        return {}
    advice = (
        "Install stemlab again."
        if required
        else "Move it away, and add the models of your own again."
    )
    with invalid(path, "registry", advice):
        models: dict[str, dict[str, Any]] = _read(path)["models"]
        for name, entry in models.items():
            check_file_name(name)
            check_digest(entry["manifest_sha256"])
    return models


def _read(path: Path) -> dict[str, Any]:
    fields = parse_json(read_bounded(path, MAX_TABLE_BYTES))
    if fields.get("schema") != SCHEMA:
        found = brief(repr(fields.get("schema")), at_most=80)
        raise ModelRefusedError(
            f"{str(path)!r} has schema {found}, expected {SCHEMA}. It belongs to "
            "another version of stemlab.",
            path=path,
            expected=SCHEMA,
            actual=fields.get("schema"),
        )
    return fields
