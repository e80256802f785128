"""Add a released model: find or fetch its files, verify and convert them, move them into place."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from stemlab.errors import ModelRefusedError, ParameterError
from stemlab.files import Folder
from stemlab.networks.loading import build_network, parse_network
from stemlab.provisioning._declared import read_weights
from stemlab.provisioning._download import ProgressCallback, fetch
from stemlab.provisioning._finding import find_files
from stemlab.provisioning._store import (
    DOWNLOADS,
    discard_parts,
    draft_records,
    drafts_in,
    locked_store,
    make_way,
    publish,
    recorded_files,
    subfolder,
    weights_name,
    writing_to,
)
from stemlab.provisioning.upkeep import is_whole
from stemlab.registry import (
    RECORDS_NAME,
    ModelManifest,
    NetworkEntry,
    SourceRecord,
    WeightFile,
    read_verified,
)

__all__ = ["add_released"]


def add_released(
    manifest: ModelManifest,
    paths: Sequence[Path],
    digests: Sequence[str],
    weight_license: str | None,
    progress: ProgressCallback | None,
) -> ModelManifest:
    """Add a model that stemlab knows; see `add_model`. Without paths, it is downloaded."""
    _check_request(manifest, digests, weight_license)
    for network in manifest.networks:
        # Fail before anything is fetched if this machine cannot run it.
        build_network(network, manifest.name)
    with ExitStack() as held:
        store = held.enter_context(locked_store())
        missing = [network for network in manifest.networks if not is_whole(manifest, network)]
        # All files are found before the first is added, so that no bag is left incomplete.
        found: Sequence[tuple[WeightFile, Path | None]] = (
            find_files(missing, manifest.name, paths)
            if paths
            else [(network.files[0], None) for network in missing]
        )
        for file, _ in found:
            _check_confirmed(manifest.name, file, digests)
        downloads = subfolder(store, DOWNLOADS, make=bool(missing) and not paths)
        if downloads is not None:
            held.enter_context(downloads)
        for network, (file, path) in zip(missing, found, strict=True):
            if path is None:
                assert downloads is not None
                content = fetch(file, downloads, progress)
            else:
                content = read_verified(path, size=file.size, sha256=file.sha256, follow_links=True)
            label = str(path or file.name)
            weights, declaration = read_weights(content, file.name, label, progress)
            if declaration is not None:
                declaration.check(network, label)
            parse_network(network, weights, label)
            _install(manifest, network, file, weights, store)
        if downloads is not None:
            discard_parts(downloads, manifest)
    return manifest


def _check_request(
    manifest: ModelManifest, digests: Sequence[str], weight_license: str | None
) -> None:
    if manifest.kind == "bundled":
        raise ParameterError(f"{manifest.name!r} comes with stemlab; there is nothing to add.")
    if weight_license is not None:
        raise ParameterError(
            f"the terms of {manifest.name!r} are recorded: {manifest.weight_license}. Leave "
            "--license out."
        )
    recorded = {file.sha256 for network in manifest.networks for file in network.files}
    for digest in digests:
        if digest not in recorded:
            raise ModelRefusedError(
                f"sha256={digest} is the digest of no file of {manifest.name!r}; `stemlab models "
                f"show {manifest.name}` shows those that are recorded. If it is another model, "
                "add it under another name.",
                expected=sorted(recorded),
                actual=digest,
            )


def _check_confirmed(model: str, file: WeightFile, digests: Sequence[str]) -> None:
    if file.unconfirmed and file.sha256 not in digests:
        raise ModelRefusedError(
            f"the digest of {file.name} of {model!r} is known from one source only. Make sure of "
            "it where you trust the publisher, and type it: --sha256 DIGEST. `stemlab models show "
            f"{model}` shows the recorded one. Nothing was added.",
            path=file.name,
        )


def _install(
    manifest: ModelManifest, network: NetworkEntry, file: WeightFile, weights: bytes, store: Folder
) -> None:
    recorded, target = recorded_files(manifest), weights_name(file)
    folder = subfolder(store, manifest.name, make=True)
    assert folder is not None
    with folder, drafts_in(store) as drafts, writing_to(folder.path):
        drafts.write(target, weights)
        # Recorded before the file is published: otherwise nothing shows that it is stemlab's.
        if file.is_pickle or file.unconfirmed:
            digest = hashlib.sha256(weights).hexdigest()
            record = SourceRecord(target, len(weights), digest, file.sha256, file.unconfirmed)
            draft_records(drafts, manifest, record)
            publish(drafts, RECORDS_NAME, folder, recorded.get(RECORDS_NAME, ()))
        publish(drafts, target, folder, recorded.get(target, ()))
        # A damaged file of the same network would be preferred to the one that replaces it.
        for other in network.files:
            if other.name != target and not other.is_pickle:
                make_way(folder, other.name, recorded[other.name])
