"""Add a released model: find or fetch its files, verify and convert them, move them into place."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from stemlab.errors import ModelError, ModelNotFoundError, ModelRefusedError, ParameterError
from stemlab.files import Folder
from stemlab.networks.loading import build_network, parse_network
from stemlab.provisioning import _store
from stemlab.provisioning._declared import read_weights
from stemlab.provisioning._download import ProgressCallback, fetch
from stemlab.provisioning.upkeep import is_whole
from stemlab.registry.files import read_bounded, read_verified
from stemlab.registry.manifests import ModelManifest, NetworkEntry, WeightFile
from stemlab.registry.store import RECORDS_NAME, SourceRecord

# A folder of downloads may hold anything; the search for one file in it should not take long.
_MOST_FILES_LOOKED_AT = 100_000


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
    with _store.locked_store() as store:
        missing = [network for network in manifest.networks if not is_whole(manifest, network)]
        # All files are found before the first is added, so that no bag is left incomplete.
        found: Sequence[tuple[WeightFile, Path | None]] = (
            _find_files(missing, manifest.name, paths)
            if paths
            else [(network.files[0], None) for network in missing]
        )
        for file, _ in found:
            _check_confirmed(manifest.name, file, digests)
        for network, (file, path) in zip(missing, found, strict=True):
            if path is None:
                with _store.subfolder(store, _store.DOWNLOADS) as downloads:
                    content = fetch(file, downloads, progress)
            else:
                content = read_verified(path, size=file.size, sha256=file.sha256, follow_links=True)
            label = str(path or file.name)
            weights, declaration = read_weights(content, file.name, label, progress)
            if declaration is not None:
                declaration.check(network, label)
            parse_network(network, weights, label)
            _install(manifest, network, file, weights, store)
        _store.discard_parts(store, manifest)
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
    recorded, target = _store.recorded_files(manifest), _store.weights_name(file)
    folder = _store.subfolder(store, manifest.name)
    with folder, _store.drafts_in(store) as drafts, _store.writing_to(folder.path):
        drafts.write(target, weights)
        # Recorded before the file is published: otherwise nothing shows that it is stemlab's.
        if file.is_pickle or file.unconfirmed:
            digest = hashlib.sha256(weights).hexdigest()
            record = SourceRecord(target, len(weights), digest, file.sha256, file.unconfirmed)
            _store.draft_records(drafts, manifest, record)
            _store.publish(drafts, RECORDS_NAME, folder, recorded.get(RECORDS_NAME, ()))
        _store.publish(drafts, target, folder, recorded.get(target, ()))
        # A damaged file of the same network would be preferred to the one that replaces it.
        for other in network.files:
            if other.name != target and not other.is_pickle:
                _store.make_way(folder, other.name, recorded[other.name])


def _find_files(
    networks: Sequence[NetworkEntry], model: str, paths: Sequence[Path]
) -> list[tuple[WeightFile, Path]]:
    """Find a file for each network; their names do not matter."""
    sizes = {file.size for network in networks for file in network.files}
    by_digest: dict[str, Path] = {}
    others: list[str] = []
    for path in _files(paths):
        # A file that cannot be read need not be the wanted one.
        with suppress(OSError, ModelError):
            size = path.stat().st_size
            if size in sizes:
                content = read_bounded(path, size, follow_links=True)
                by_digest[hashlib.sha256(content).hexdigest()] = path
            else:
                others.append(f"{str(path)!r} has {size} bytes")
    found = []
    for network in networks:
        file = next((file for file in network.files if file.sha256 in by_digest), None)
        if file is None:
            recorded = {file.sha256 for network in networks for file in network.files}
            strays = [
                f"{str(path)!r} has SHA-256 {digest}"
                for digest, path in by_digest.items()
                if digest not in recorded
            ]
            alone = len(others) == 1 and not by_digest
            raise _not_among(network, model, strays or (others if alone else []))
        found.append((file, by_digest[file.sha256]))
    return found


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    looked_at = 0
    for path in paths:
        check_exists(path)
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            looked_at += len(folders) + len(names)
            if looked_at > _MOST_FILES_LOOKED_AT:
                raise ParameterError(
                    f"{str(path)!r} holds more than {_MOST_FILES_LOOKED_AT} files. Name the file, "
                    "or a narrower folder."
                )
            yield from (Path(folder, name) for name in sorted(names))


def check_exists(path: Path) -> None:
    """Refuse a path where there is nothing."""
    # pathlib's own raises where a name is too long or a folder may not be entered.
    if not os.path.exists(path):
        raise ModelNotFoundError(
            f"{str(path)!r} does not exist, or may not be looked at. Name a file or a folder."
        )


def _not_among(network: NetworkEntry, model: str, instead: Sequence[str]) -> ModelError:
    """Say what was expected, and which files look as if they were meant for it."""
    expected = " or ".join(
        f"{file.name} ({file.size} bytes, SHA-256 {file.sha256})" for file in network.files
    )
    if instead:
        return ModelRefusedError(
            f"what was named is not the file of {model!r}: expected {expected}, but "
            f"{'; '.join(instead[:3])}. Get the file again; do not use this one.",
            expected=[file.sha256 for file in network.files],
            actual=list(instead),
        )
    return ModelNotFoundError(
        f"a file of {model!r} is not among those that were looked at: expected {expected}. Name "
        "the file, or its folder."
    )
