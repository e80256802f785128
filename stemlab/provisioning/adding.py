"""The way of a model's files into the models folder: found or fetched, verified, converted."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemlab._typing import StrPath
from stemlab.errors import (
    ModelError,
    ModelNotFoundError,
    ModelRefusedError,
    ParameterError,
)
from stemlab.files import Folder
from stemlab.networks.loading import build_network, load_network, parse_network
from stemlab.networks.spec import spec_of_manifest
from stemlab.provisioning._declared import (
    Declaration,
    declaration_of_package,
    declaration_of_safetensors,
)
from stemlab.provisioning._download import FileProgress, ProgressCallback, fetch
from stemlab.provisioning._pickles import convert
from stemlab.provisioning._store import (
    DOWNLOADS,
    discard_parts,
    draft_records,
    drafts_in,
    locked_store,
    make_way,
    publish,
    recorded_files,
    refuse_foreign,
    register_model,
    subfolder,
    weights_name,
    writing_to,
)
from stemlab.registry import (
    MANIFEST_NAME,
    MAX_WEIGHTS_BYTES,
    PICKLE_SUFFIXES,
    RECORDS_NAME,
    REGISTRY_NAME,
    SCHEMA,
    ModelManifest,
    NetworkEntry,
    SourceRecord,
    WeightFile,
    asked_for,
    builtin_names,
    check_digest,
    check_file_name,
    check_text,
    find_model,
    parse_manifest,
    read_bounded,
    read_verified,
    refuse_digest,
    registered_name,
)

__all__ = ["add_model"]

# A person's folder of downloads may hold anything; looking for one file in it should not last.
_MOST_FILES_LOOKED_AT = 100_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_ZIP_MAGIC = b"PK\x03\x04"
_NO_LICENSE = "not stated: added by the user, who has to know"


def add_model(
    name: str,
    paths: StrPath | Sequence[StrPath] = (),
    *,
    download: bool = False,
    sha256: str | Sequence[str] = (),
    weight_license: str | None = None,
    progress: ProgressCallback | None = None,
) -> ModelManifest:
    """Put a model into the models folder: one that stemlab knows, or one of the user's own.

    A file is read once, and that buffer is verified, converted if it is a pickle (in a process of
    its own, with ``weights_only`` and an exact list of what it may name), compared with the
    architecture and only then moved into place. Two processes may do this at once.

    Parameters
    ----------
    name : str
        Registered name; or, for a model of the user's own, a new one.
    paths : path or sequence of path, optional
        Files, or folders that are searched for them by size and digest. They are left as they are.
    download : bool, optional
        Fetch the files from where they are published, instead of taking them from `paths`.
    sha256 : str or sequence of str, 64 hex digits each, optional
        Digests that the user vouches for: of the one file of an own model, and of a file whose
        digest is known from a single source.
    weight_license : str, optional
        Terms of the weights of an own model.
    progress : callable, optional
        Called with a `FileProgress`.

    Returns
    -------
    manifest : ModelManifest
        Of the model, which is installed now. Nothing is done if it was before, and is whole.

    Raises
    ------
    ParameterError
        If the arguments do not go together, or the name cannot be used.
    ModelNotFoundError
        If a file is not where it was looked for. Nothing is added then.
    ModelRefusedError
        If a file is not the recorded one, or holds something else than weights of the network.
    DownloadError
        If a file cannot be fetched; what arrived is kept and used next time.
    MissingDependencyError
        If the model's network is that of a package which does not load here.
    OutputError
        If the models folder cannot be written to.
    """
    name = asked_for(name)
    paths = _paths([paths] if isinstance(paths, (str, os.PathLike)) else paths)
    typed = [_digest(each) for each in ([sha256] if isinstance(sha256, str) else sha256)]
    if download == bool(paths):
        raise ParameterError(
            f"where the files of {name!r} come from is not clear: name files or folders (--from), "
            "or download them (--download), one of the two."
        )
    if registered_name(name, own=False) is not None:
        return _add_released(find_model(name), paths, typed, weight_license, progress)
    if download:
        raise ParameterError(
            f"name={name!r} is none of the models that can be downloaded "
            f"({', '.join(builtin_names())}). Name the file of a model of your own with --from."
        )
    if weight_license is None:
        weight_license = _NO_LICENSE
    return _add_own(name, paths, typed, weight_license, progress)


def _paths(paths: Sequence[StrPath]) -> list[Path]:
    try:
        made = [Path(each) for each in paths]
    except TypeError as error:
        raise ParameterError(f"paths={paths!r} are not paths of files or folders.") from error
    if any(not os.fspath(each) for each in paths):
        raise ParameterError("one of the paths is empty. Name a file or a folder; '.' is this one.")
    return made


def _digest(typed: str) -> str:
    digest = str(typed).strip().lower()
    try:
        check_digest(digest)
    except ValueError as error:
        raise ParameterError(
            f"sha256={typed!r} is not a full SHA-256: expected 64 hex digits, got {len(digest)} "
            "characters. The first few digits are not enough."
        ) from error
    return digest


# --- models that stemlab knows


def _add_released(
    manifest: ModelManifest,
    paths: Sequence[Path],
    typed: Sequence[str],
    weight_license: str | None,
    progress: ProgressCallback | None,
) -> ModelManifest:
    if manifest.kind == "bundled":
        raise ParameterError(f"{manifest.name!r} comes with stemlab; there is nothing to add.")
    if weight_license is not None:
        raise ParameterError(
            f"the terms of {manifest.name!r} are recorded: {manifest.weight_license}. Leave "
            "--license out."
        )
    recorded = {each.sha256 for network in manifest.networks for each in network.files}
    for digest in typed:
        if digest not in recorded:
            raise ModelRefusedError(
                f"sha256={digest} is the digest of no file of {manifest.name!r}; `stemlab models "
                f"show {manifest.name}` shows those that are recorded. If it is another model, "
                "add it under another name.",
                expected=sorted(recorded),
                actual=digest,
            )
    for network in manifest.networks:
        # Whether this machine can run it at all is known before anything is fetched.
        build_network(network, manifest.name)
    with ExitStack() as held:
        store = held.enter_context(locked_store())
        missing = [each for each in manifest.networks if not _is_whole(manifest, each)]
        # All are found before the first is added; only then is a bag not left half there.
        if paths:
            finds = _find_all(missing, manifest.name, paths)
        else:
            finds = [_Find(each.files[0], None) for each in missing]
        for find in finds:
            _check_confirmed(manifest.name, find.file, typed)
        downloads = subfolder(store, DOWNLOADS, make=bool(missing) and not paths)
        if downloads is not None:
            held.enter_context(downloads)
        for network, find in zip(missing, finds, strict=True):
            if find.path is None:
                assert downloads is not None
                content = fetch(find.file, downloads, progress)
            else:
                content = read_verified(
                    find.path, size=find.file.size, sha256=find.file.sha256, follow_links=True
                )
            _install(manifest, network, find, content, store, progress)
        if downloads is not None:
            discard_parts(downloads, manifest)
    return manifest


@dataclass(frozen=True)
class _Find:
    """A recorded file, and where it is: at a path, or still where it is published."""

    file: WeightFile
    path: Path | None


def _is_whole(manifest: ModelManifest, network: NetworkEntry) -> bool:
    try:
        load_network(manifest, network)
    except ModelError:
        return False
    return True


def _find_all(networks: Sequence[NetworkEntry], model: str, paths: Sequence[Path]) -> list[_Find]:
    """Find a file for each network by size and digest; their names do not matter."""
    sizes = {file.size for each in networks for file in each.files}
    by_digest: dict[str, Path] = {}
    others: list[str] = []
    for path in _files(paths):
        # What cannot be read may not be what is looked for.
        with suppress(OSError, ModelError):
            size = path.stat().st_size
            if size in sizes:
                content = read_bounded(path, size, follow_links=True)
                by_digest[hashlib.sha256(content).hexdigest()] = path
            else:
                others.append(f"{str(path)!r} has {size} bytes")
    finds = []
    for network in networks:
        file = next((each for each in network.files if each.sha256 in by_digest), None)
        if file is None:
            recorded = {file.sha256 for each in networks for file in each.files}
            strays = [
                f"{str(path)!r} has SHA-256 {digest}"
                for digest, path in by_digest.items()
                if digest not in recorded
            ]
            alone = len(others) == 1 and not by_digest
            raise _not_among(network, model, strays or (others if alone else []))
        finds.append(_Find(file, by_digest[file.sha256]))
    return finds


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    looked_at = 0
    for path in paths:
        _check_exists(path)
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
            yield from (Path(folder, each) for each in sorted(names))


def _check_exists(path: Path) -> None:
    # pathlib's own raises where a name is too long or a folder may not be entered.
    if not os.path.exists(path):
        raise ModelNotFoundError(
            f"{str(path)!r} does not exist, or may not be looked at. Name a file or a folder."
        )


def _not_among(network: NetworkEntry, model: str, instead: Sequence[str]) -> ModelError:
    """Say what was expected, and what was there that looks as if it were meant for it."""
    expected = " or ".join(
        f"{each.name} ({each.size} bytes, SHA-256 {each.sha256})" for each in network.files
    )
    if instead:
        return ModelRefusedError(
            f"what was named is not the file of {model!r}: expected {expected}, but "
            f"{'; '.join(instead[:3])}. Get the file again; do not use this one.",
            expected=[each.sha256 for each in network.files],
            actual=list(instead),
        )
    return ModelNotFoundError(
        f"a file of {model!r} is not among those that were looked at: expected {expected}. Name "
        "the file, or its folder."
    )


def _check_confirmed(model: str, file: WeightFile, typed: Sequence[str]) -> None:
    if file.unconfirmed and file.sha256 not in typed:
        raise ModelRefusedError(
            f"the digest of {file.name} of {model!r} is known from one source only. Make sure of "
            "it where you trust the publisher, and type it: --sha256 DIGEST. `stemlab models show "
            f"{model}` shows the recorded one. Nothing was added.",
            path=file.name,
        )


def _install(
    manifest: ModelManifest,
    network: NetworkEntry,
    find: _Find,
    content: bytes,
    store: Folder,
    progress: ProgressCallback | None,
) -> None:
    file = find.file
    label = str(find.path or file.name)
    weights, declaration = _safetensors(content, file.name, label, progress)
    if declaration is not None:
        declaration.check(network, label)
    parse_network(network, weights, label)
    recorded, target = recorded_files(manifest), weights_name(file)
    folder = subfolder(store, manifest.name, make=True)
    assert folder is not None
    with folder, drafts_in(store) as drafts, writing_to(folder.path):
        drafts.write(target, weights)
        # Before the file itself, which could otherwise not be proved to be stemlab's.
        if file.is_pickle or file.unconfirmed:
            digest = hashlib.sha256(weights).hexdigest()
            record = SourceRecord(target, len(weights), digest, file.sha256, file.unconfirmed)
            draft_records(drafts, manifest, record)
            publish(drafts, RECORDS_NAME, folder, recorded.get(RECORDS_NAME, ()))
        publish(drafts, target, folder, recorded.get(target, ()))
        # A damaged one of the same network would be preferred to what was added instead of it.
        for other in network.files:
            if other.name != target and not other.is_pickle:
                make_way(folder, other.name, recorded[other.name])


def _safetensors(
    content: bytes, name: str, label: str, progress: ProgressCallback | None
) -> tuple[bytes, Declaration | None]:
    """Convert verified content if it is a pickle, and read what it says of its network."""
    if not content.startswith(_ZIP_MAGIC):
        if Path(name).suffix in PICKLE_SUFFIXES:
            raise ModelRefusedError(
                f"{label!r} is not of the form that torch.save writes since PyTorch 1.6. Load it "
                "with the program that made it, and save it again.",
                path=label,
            )
        return content, declaration_of_safetensors(content, label)
    if progress is not None:
        progress(FileProgress("convert", name, 0, len(content)))
    weights, facts = convert(content, label)
    return weights, declaration_of_package(facts, label)


# --- models of the user's own


def _add_own(
    name: str,
    paths: Sequence[Path],
    typed: Sequence[str],
    weight_license: str,
    progress: ProgressCallback | None,
) -> ModelManifest:
    path = _own_file(name, paths)
    try:
        check_text("the licence", weight_license)
    except ValueError as error:
        raise ParameterError(f"weight_license={weight_license!r}: {error}.") from error
    if len(typed) != 1:
        raise ParameterError(
            f"a model of your own needs the full SHA-256 of its file, once: got {len(typed)}. "
            "Take it from whoever gave you the file, and type it: --sha256 DIGEST."
        )
    _check_exists(path)
    with locked_store() as store:
        taken = registered_name(name)
        recorded: dict[str, set[str]] | None = None
        if taken is not None:
            manifest, name = _same_again(taken, typed[0]), taken
            if manifest and all(_is_whole(manifest, each) for each in manifest.networks):
                return manifest
            recorded = recorded_files(manifest) if manifest else {}
        content = read_bounded(path, MAX_WEIGHTS_BYTES, follow_links=True)
        refuse_digest(
            path, content, typed[0], advice="Compare it with what was typed; do not use this file."
        )
        weights, declaration = _safetensors(content, path.name, str(path), progress)
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
        _check_own(manifest_content, weights, path)
        contents = {MANIFEST_NAME: manifest_content, files[0]["name"]: weights}
        _put(store, name, contents, recorded)
        return find_model(name)


def _own_file(name: str, paths: Sequence[Path]) -> Path:
    try:
        check_file_name(name)
        # The registry of the models folder lies beside the models.
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
            f"{name!r} is none of the models that stemlab knows ({', '.join(builtin_names())}), "
            "and one of your own is added from one file. A folder with a manifest.json needs no "
            "adding: name it with --model ./FOLDER."
        )
    return paths[0]


def _same_again(name: str, digest: str) -> ModelManifest | None:
    """The model that has the name, if it was made of the same file; None if it has no manifest."""
    remove = f"Choose another name, or remove that one first: `stemlab models remove {name}`."
    try:
        manifest = find_model(name)
    except ModelNotFoundError:
        return None
    except ModelError as error:
        raise ParameterError(
            f"name={name!r} is taken by a model of yours that is damaged. {remove}"
        ) from error
    if digest not in {file.sha256 for each in manifest.networks for file in each.files}:
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
        "parameters": sum(each.numel() for each in module.parameters()),
        "networks": [{"architecture": architecture.name, "arguments": arguments, "files": files}],
        "code_license": architecture.code_license,
        "weight_license": weight_license,
        "disputes": [f"Arguments that Demucs no longer knows were left out: {dropped}."]
        if dropped
        else [],
        "origin": f"added by the user from {origin}",
        "training_data": "not stated",
    }


def _check_own(manifest_content: bytes, weights: bytes, path: Path) -> None:
    """Read the manifest that was made, and build the network, as every later use will."""
    manifest = parse_manifest(path, manifest_content, kind="user", folder=path.parent)
    spec_of_manifest(manifest)
    parse_network(manifest.networks[0], weights, str(path))


def _put(
    store: Folder, name: str, contents: Mapping[str, bytes], recorded: Mapping[str, set[str]] | None
) -> None:
    """Move a model to its place; `recorded` is of the damaged one there, None for a new name."""
    manifest_sha256 = hashlib.sha256(contents[MANIFEST_NAME]).hexdigest()
    path, advice = store.path / name, "choose another name, or look at what is there"
    with drafts_in(store) as drafts, writing_to(path, advice):
        for file, content in contents.items():
            drafts.write(file, content)
        earlier = subfolder(store, name)
        if earlier is not None:
            with earlier:
                _make_room(earlier, contents, recorded)
        # From here on, a killed process leaves a model that is listed and can be added or removed.
        register_model(store, name, manifest_sha256)
        folder = subfolder(store, name, make=True)
        assert folder is not None
        with folder:
            for file in contents:
                publish(drafts, file, folder, (recorded or {}).get(file, ()))


def _make_room(
    folder: Folder, contents: Mapping[str, bytes], recorded: Mapping[str, set[str]] | None
) -> None:
    """Refuse what stemlab may not replace; take away a manifest that will not be the listed one."""
    for name in contents:
        refuse_foreign(folder, name)
    if recorded is not None:
        manifests = recorded.get(MANIFEST_NAME, set())
        if hashlib.sha256(contents[MANIFEST_NAME]).hexdigest() not in manifests:
            make_way(folder, MANIFEST_NAME, manifests)
        return
    # Version 0.1, if it was killed, may have left the same model there.
    for name in folder.names():
        if name not in contents or folder.read(name, MAX_WEIGHTS_BYTES) != contents[name]:
            reason = "something else of that name is there"
            raise FileExistsError(errno.EEXIST, reason, str(folder.path))
