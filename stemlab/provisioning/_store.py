"""Write and remove in the models folder: one process at a time, and only stemlab's own files.

The models folder itself may be a link; below it, no link is followed. A file is replaced or removed
only if it is a regular file of this user's and its content is the recorded one. The record of a
user's model is the registry, which is written before the model's files and after they are removed:
a killed process leaves at most a listed model that is not whole.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import secrets
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from stemlab.errors import ModelError, OutputError, StemlabError
from stemlab.files import Folder, WorkFolder, abandoned_folders, lock_file
from stemlab.provisioning._download import part_name
from stemlab.registry.manifests import MANIFEST_NAME, SCHEMA, ModelManifest, WeightFile
from stemlab.registry.store import (
    RECORDS_NAME,
    REGISTRY_NAME,
    SourceRecord,
    models_dir,
    read_records,
    read_registry,
    refuse_link,
)

DOWNLOADS = ".downloads"
# Also of version 0.1, so that it and this one wait for each other.
_LOCK_NAME = ".lock"
_DRAFTS_OWNER = "model"
_DRAFTS_PREFIX = f".stemlab-{_DRAFTS_OWNER}-"
_POLL_SECONDS = 0.05
_log = logging.getLogger(__name__)


@contextmanager
def locked_store() -> Iterator[Folder]:
    """Lock the models folder, make it if it is missing, and remove what a killed process left."""
    path = models_dir()
    with ExitStack() as held:
        with writing_to(path, "set STEMLAB_MODELS to another folder"):
            path.mkdir(parents=True, exist_ok=True)
            store = held.enter_context(Folder(path))
            held.enter_context(_lock(store))
            for abandoned in abandoned_folders(path, _DRAFTS_OWNER):
                abandoned.close()
            strays = [name for name in store.names() if name.startswith(_DRAFTS_PREFIX)]
        if strays:
            _log.warning(
                "the models folder holds %s, which stemlab 0.1 leaves if it is killed, or which is "
                "not stemlab's. Look, and delete it",
                ", ".join(map(repr, strays)),
            )
        yield store


def _lock(store: Folder) -> BinaryIO:
    waiting = False
    while (lock := lock_file(store, _LOCK_NAME, make=True)) is None:
        if not waiting:
            _log.warning("waiting for another stemlab that is adding or removing a model")
        waiting = True
        time.sleep(_POLL_SECONDS)
    return lock


@contextmanager
def writing_to(path: Path, advice: str = "try again") -> Iterator[None]:
    """Turn a failure to write in the models folder into an error that names the place."""
    try:
        yield
    except StemlabError:  # Some of these are of the system's kind too.
        raise
    except OSError as error:
        reason = "it is a link" if error.errno == errno.ELOOP else error.strerror or str(error)
        named = error.filename if isinstance(error.filename, str) else ""
        place = path / named if named else path
        raise OutputError(
            f"{str(place)!r} cannot be written: {reason}. Check what it is and its permissions, "
            f"and {advice}.",
            place,
        ) from error


def subfolder(store: Folder, name: str) -> Folder:
    """Open a folder of this user's in the models folder; a missing one is made."""
    path = store.path / name
    refuse_link(path)
    with writing_to(path):
        folder = store.subfolder(name, make=True)
        if not folder.is_own():
            folder.close()
            raise PermissionError(errno.EPERM, "it belongs to another user", str(path))
    return folder


def drafts_in(store: Folder) -> WorkFolder:
    """Make a folder for unfinished files; after a kill, a later command removes it."""
    with writing_to(store.path):
        return WorkFolder(store.path, _DRAFTS_OWNER)


def publish(drafts: Folder, name: str, folder: Folder, recorded: Collection[str]) -> None:
    """Move a draft to its place; an earlier file is replaced if its digest is recorded, or kept."""
    earlier = folder.stat(name)
    if earlier and not _is_recorded(folder, name, {*recorded, drafts.digest(name)}):
        _keep(folder, name)
        earlier = None
    if earlier:
        drafts.replace(name, folder, name)
    else:
        drafts.move(name, folder, name)


def make_way(folder: Folder, name: str, recorded: Collection[str]) -> None:
    """Free a name: a file is removed if its digest is recorded, or kept under another name."""
    if folder.stat(name) is None:
        return
    if _is_recorded(folder, name, recorded):
        folder.remove(name)
    else:
        _keep(folder, name)


def refuse_foreign(folder: Folder, name: str) -> None:
    """Refuse anything under the name of stemlab's file but a regular file of this user's."""
    if folder.stat(name) is not None and not folder.owns(name):
        reason = "it is a link, a folder, or another user's"
        raise FileExistsError(errno.EEXIST, reason, str(folder.path / name))


def _is_recorded(folder: Folder, name: str, recorded: Collection[str]) -> bool:
    refuse_foreign(folder, name)
    return folder.digest(name) in recorded


def _keep(folder: Folder, name: str) -> None:
    kept = f"{name}.{secrets.token_hex(4)}.kept"
    folder.replace(name, folder, kept)  # In one step: a name that is new.
    _log.warning(
        "%r in %r was damaged, or is not stemlab's: it is kept as %r", name, folder.path.name, kept
    )


def discard(store: Folder, name: str, recorded: Mapping[str, Collection[str]]) -> bool:
    """Remove the recorded files of a model, and its folder if it is empty; tell whether any was."""
    if store.stat(name) is None:
        return False
    removed = False
    with subfolder(store, name) as folder, writing_to(folder.path):
        for file, digests in recorded.items():
            if folder.owns(file) and folder.digest(file) in digests:
                folder.remove(file)
                removed = True
        left = folder.names()
    if left:
        _log.warning(
            "%s in the folder of %s stays: it was changed, or is not stemlab's",
            ", ".join(map(repr, left)),
            name,
        )
        return removed
    with writing_to(folder.path):
        store.remove_folder(name)
    return True


def discard_parts(store: Folder, manifest: ModelManifest) -> bool:
    """Remove unfinished downloads of a model; tell whether there were any."""
    if store.stat(DOWNLOADS) is None:
        return False
    with subfolder(store, DOWNLOADS) as downloads, writing_to(downloads.path):
        parts = [part_name(file) for network in manifest.networks for file in network.files]
        begun = [part for part in parts if downloads.owns(part)]
        for part in begun:
            downloads.remove(part)
    return bool(begun)


def recorded_files(manifest: ModelManifest) -> dict[str, set[str]]:
    """List digests of all that stemlab may have written into a model's folder, records last."""
    recorded: dict[str, set[str]] = {}
    sources = [source for network in manifest.networks for source in network.files]
    for source in sources:
        if not source.is_pickle:
            recorded.setdefault(source.name, set()).add(source.sha256)
    if manifest.kind == "user":
        return {**recorded, MANIFEST_NAME: {manifest.sha256}}
    records = _records(manifest)
    for record in records:
        for source in sources:
            if (record.source_sha256, record.file) == (source.sha256, weights_name(source)):
                recorded.setdefault(record.file, set()).add(record.sha256)
    return {**recorded, RECORDS_NAME: {_digest(_records_table(records))}}


def weights_name(source: WeightFile) -> str:
    """Name the safetensors file that is made from a published file."""
    return f"{Path(source.name).stem}.safetensors"


def draft_records(drafts: Folder, manifest: ModelManifest, record: SourceRecord) -> None:
    """Draft the record of what the files of a released model were made from."""
    kept = [old for old in _records(manifest) if old.source_sha256 != record.source_sha256]
    drafts.write(RECORDS_NAME, _records_table([*kept, record]))


def _records(manifest: ModelManifest) -> list[SourceRecord]:
    # A damaged record counts as none: it is not replaced, but kept under another name.
    with suppress(ModelError):
        return read_records(manifest.folder)
    return []


def register_model(store: Folder, name: str, manifest_sha256: str | None) -> None:
    """Enter a model of the user's in the registry of the models folder; None takes it out."""
    before = read_registry(store.path)
    after = {other: entry for other, entry in before.items() if other != name}
    if manifest_sha256 is not None:
        after[name] = {"manifest_sha256": manifest_sha256}
    if after == before:
        return
    with drafts_in(store) as drafts, writing_to(store.path):
        drafts.write(REGISTRY_NAME, _table({"models": after}))
        publish(drafts, REGISTRY_NAME, store, {_digest(_table({"models": before}))})


def _records_table(records: list[SourceRecord]) -> bytes:
    return _table({"files": [asdict(record) for record in records]})


def _table(fields: dict[str, Any]) -> bytes:
    content = json.dumps({"schema": SCHEMA, **fields}, indent=2, sort_keys=True) + "\n"
    return content.encode()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
