"""Which models there are, and whether their files are what the registry says.

``models/registry.json`` pins the digest of each built-in model's ``manifest.json``, which pins
the size and digest of each file of weights: whoever changes one byte of either is found out.
A folder of the user's own with a ``manifest.json`` gets the same checks from there on. Nothing
here parses weights; that is for `stemlab._models`, which gets bytes that were already checked.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from stemlab._assets import asset_dir
from stemlab._typing import StrPath
from stemlab.errors import ModelNotFoundError, ModelRefusedError

__all__ = [
    "ModelManifest",
    "NetworkEntry",
    "check_sources",
    "find_model",
    "list_models",
    "read_manifest",
    "read_verified",
]

SCHEMA = 1
MANIFEST_NAME = "manifest.json"
SEGMENT_POLICIES = ("free", "padded", "fixed")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# A manifest is a page of text and weights are a few hundred megabytes: more is an attack or a
# mistake, and is refused before it is read.
_MAX_MANIFEST_BYTES = 1 << 20
_MAX_WEIGHTS_BYTES = 4 << 30


@dataclass(frozen=True)
class NetworkEntry:
    """One network of a model: how it is built and the file that holds its weights.

    Parameters
    ----------
    architecture : str
        Name in the allow-list of `stemlab._models`.
    arguments : mapping
        Keyword arguments of the architecture.
    file : Path
        The safetensors file.
    size : int, > 0
        Its size in bytes.
    sha256 : str
        Its full digest, 64 hex digits.
    gains : tuple of float, or None
        Share of this network in each source, for a bag; None if it makes them all.
    """

    architecture: str
    arguments: Mapping[str, Any]
    file: Path
    size: int
    sha256: str
    gains: tuple[float, ...] | None


@dataclass(frozen=True)
class ModelManifest:
    """What is known of a model without opening its weights.

    Parameters
    ----------
    name, title : str
    folder : Path
        Where its files lie.
    sources : tuple of str
        In the order of the network's output.
    sample_rate : int, in Hz
    channels : int
    segment_seconds : float
        Its own segment, which is the default.
    segment_policy : {"free", "padded", "fixed"}
        What a shorter segment does: the network adapts to it, pads it to the trained length
        (same cost for less), or refuses it.
    parameters : int
        Number of weights.
    networks : tuple of NetworkEntry
    code_license, weight_license, origin, training_data : str
    sha256 : str
        Digest of the manifest itself, 64 hex digits: it stands for the model in a run manifest.
    """

    name: str
    title: str
    folder: Path
    sources: tuple[str, ...]
    sample_rate: int
    channels: int
    segment_seconds: float
    segment_policy: str
    parameters: int
    networks: tuple[NetworkEntry, ...]
    code_license: str
    weight_license: str
    origin: str
    training_data: str
    sha256: str


def list_models() -> list[ModelManifest]:
    """Read the manifests of all registered models.

    Returns
    -------
    models : list of ModelManifest
        In the order of the registry.

    Raises
    ------
    ModelRefusedError
        If the registry or a manifest is damaged or does not match its digest.
    """
    return [find_model(name) for name in _registry()]


def find_model(name: str) -> ModelManifest:
    """Find a model by its registered name, or in a folder of the user's.

    Parameters
    ----------
    name : str
        A registered name; or the path of a folder that holds a ``manifest.json``, written with
        a separator (``./my-model``) so that no folder can stand in for a registered name.

    Returns
    -------
    manifest : ModelManifest

    Raises
    ------
    ModelNotFoundError
        If there is neither.
    ModelRefusedError
        If the manifest is damaged or does not match the registry.
    """
    registered = _registry()
    if name in registered:
        entry = registered[name]
        return read_manifest(asset_dir("models") / entry["folder"], sha256=entry["manifest_sha256"])
    if ("/" in name or "\\" in name) and Path(name).is_dir():
        return read_manifest(name)
    known = ", ".join(registered)
    hint = f" To use the folder of that name, write './{name}'." if Path(name).is_dir() else ""
    raise ModelNotFoundError(
        f"model={name!r} is neither a registered name ({known}) nor a folder with a "
        f"{MANIFEST_NAME}.{hint} `stemlab models list` shows what there is."
    )


def read_manifest(folder: StrPath, *, sha256: str | None = None) -> ModelManifest:
    """Read and check the manifest of a model.

    Parameters
    ----------
    folder : path
    sha256 : str, 64 hex digits, optional
        Digest that the file must have: the registry's, for a registered model.

    Returns
    -------
    manifest : ModelManifest

    Raises
    ------
    ModelNotFoundError
        If the folder has no manifest.
    ModelRefusedError
        If it does not match `sha256`, is not valid, or names a file outside the folder.
    """
    path = Path(folder) / MANIFEST_NAME
    content = _read(path, _MAX_MANIFEST_BYTES)
    actual = hashlib.sha256(content).hexdigest()
    if sha256 is not None and actual != sha256:
        raise _digest_refusal(path, sha256, actual)
    fields = _parse_json(path, content)
    try:
        return _manifest(Path(folder), fields, actual)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelRefusedError(
            f"{str(path)!r} is not a valid model manifest: {_say(error)}. "
            "Compare it with models/stemlab-mini/manifest.json.",
            path=path,
        ) from error


def read_verified(entry: NetworkEntry) -> bytes:
    """Read a file of weights once and hand it out only if size and digest are right.

    The caller parses this buffer and never opens the file again, so nothing can change between
    the check and the use.

    Parameters
    ----------
    entry : NetworkEntry

    Returns
    -------
    content : bytes

    Raises
    ------
    ModelNotFoundError
        If the file is missing.
    ModelRefusedError
        If its size or its SHA-256 is not the recorded one.
    """
    content = _read(entry.file, entry.size)
    if len(content) != entry.size:
        raise ModelRefusedError(
            f"{str(entry.file)!r} is shorter than recorded: expected {entry.size} bytes, got "
            f"{len(content)}. Install the model again.",
            path=entry.file,
            expected=entry.size,
            actual=len(content),
        )
    actual = hashlib.sha256(content).hexdigest()
    if actual != entry.sha256:
        raise _digest_refusal(entry.file, entry.sha256, actual)
    return content


def check_sources(sources: Sequence[str]) -> None:
    """Refuse sources that cannot name files.

    Parameters
    ----------
    sources : sequence of str

    Raises
    ------
    ModelRefusedError
        If one is not a plain word, or two are the same but for their case.
    """
    plain = all(_is_word(each) for each in sources)
    if not sources or not plain or len({each.lower() for each in sources}) < len(sources):
        raise ModelRefusedError(
            f"sources={list(sources)!r} cannot name files: expected different words of letters, "
            "digits, '-' and '_'. Correct the model."
        )


def _registry() -> dict[str, dict[str, str]]:
    path = asset_dir("models") / "registry.json"
    fields = _parse_json(path, _read(path, _MAX_MANIFEST_BYTES))
    try:
        _expect(fields["schema"] == SCHEMA, f"schema is {fields['schema']!r}, expected {SCHEMA}")
        for name, entry in fields["models"].items():
            _expect(
                Path(entry["folder"]).name == entry["folder"],
                f"the folder of {name!r} is not a plain name",
            )
            _check_digest(entry["manifest_sha256"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelRefusedError(
            f"{str(path)!r} is not a valid registry: {_say(error)}. Install stemlab again.",
            path=path,
        ) from error
    models: dict[str, dict[str, str]] = fields["models"]
    return models


def _manifest(folder: Path, fields: dict[str, Any], sha256: str) -> ModelManifest:
    _expect(fields["schema"] == SCHEMA, f"schema is {fields['schema']!r}, expected {SCHEMA}")
    sources = tuple(fields["sources"])
    check_sources(sources)
    _expect(
        fields["segment_policy"] in SEGMENT_POLICIES,
        f"segment_policy is not one of {', '.join(SEGMENT_POLICIES)}",
    )
    segment_seconds = float(fields["segment_seconds"])
    _expect(0 < segment_seconds < 3600, "segment_seconds is not in (0, 3600)")
    return ModelManifest(
        name=_text(fields, "name"),
        title=_text(fields, "title"),
        folder=folder,
        sources=sources,
        sample_rate=_positive(fields, "sample_rate"),
        channels=_positive(fields, "channels"),
        segment_seconds=segment_seconds,
        segment_policy=fields["segment_policy"],
        parameters=_positive(fields, "parameters"),
        networks=_networks(folder, fields["networks"], len(sources)),
        code_license=_text(fields, "code_license"),
        weight_license=_text(fields, "weight_license"),
        origin=_text(fields, "origin"),
        training_data=_text(fields, "training_data"),
        sha256=sha256,
    )


def _networks(
    folder: Path, entries: list[dict[str, Any]], sources: int
) -> tuple[NetworkEntry, ...]:
    _expect(bool(entries), "there is no network")
    networks = tuple(_network(folder, each, sources) for each in entries)
    if len(networks) > 1:
        for source in range(sources):
            _expect(
                sum(each.gains[source] if each.gains else 1.0 for each in networks) > 0,
                f"no network has a share in source {source}",
            )
    return networks


def _network(folder: Path, fields: dict[str, Any], sources: int) -> NetworkEntry:
    name = _text(fields, "file")
    # A plain name cannot leave the folder; a link could, so the folder must hold the file itself.
    _expect(
        Path(name).name == name and "\\" not in name and not (folder / name).is_symlink(),
        f"{name!r} leaves the model's folder",
    )
    _expect(name.endswith(".safetensors"), f"{name!r} is not a .safetensors file")
    size = _positive(fields, "bytes")
    _expect(size <= _MAX_WEIGHTS_BYTES, f"{name!r} claims {size} bytes")
    _check_digest(fields["sha256"])
    gains = fields.get("gains")
    if gains is not None:
        gains = tuple(float(each) for each in gains)
        _expect(len(gains) == sources and min(gains) >= 0, "gains are not one per source")
    _expect(isinstance(fields["arguments"], dict), "arguments are not a table")
    return NetworkEntry(
        architecture=_text(fields, "architecture"),
        arguments=MappingProxyType(fields["arguments"]),
        file=folder / name,
        size=size,
        sha256=fields["sha256"],
        gains=gains,
    )


def _read(path: Path, at_most: int) -> bytes:
    """Read a file, but not much more than it may hold."""
    try:
        with path.open("rb") as file:
            content = file.read(at_most + 1)
    except FileNotFoundError as error:
        raise ModelNotFoundError(
            f"{str(path)!r} is missing. `stemlab models list` shows what there is."
        ) from error
    except OSError as error:
        raise ModelRefusedError(
            f"{str(path)!r} cannot be read: {error.strerror}. Check its permissions.", path=path
        ) from error
    if len(content) > at_most:
        raise ModelRefusedError(
            f"{str(path)!r} is longer than recorded: expected at most {at_most} bytes. "
            "Install the model again.",
            path=path,
            expected=at_most,
        )
    return content


def _parse_json(path: Path, content: bytes) -> dict[str, Any]:
    try:
        fields = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ModelRefusedError(
            f"{str(path)!r} is not JSON: {_say(error)}. Install the model again.", path=path
        ) from error
    if not isinstance(fields, dict):
        raise ModelRefusedError(
            f"{str(path)!r} is not a JSON table. Install the model again.", path=path
        )
    return fields


def _digest_refusal(path: Path, expected: str, actual: str) -> ModelRefusedError:
    return ModelRefusedError(
        f"{str(path)!r} was changed or damaged: expected SHA-256 {expected}, got {actual}. "
        "Install the model again; do not use this file.",
        path=path,
        expected=expected,
        actual=actual,
    )


def _say(error: Exception) -> str:
    return f"{error} is missing" if isinstance(error, KeyError) else str(error)


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _check_digest(digest: Any) -> None:
    _expect(
        isinstance(digest, str) and _DIGEST.fullmatch(digest) is not None,
        f"sha256 {digest!r} is not 64 hex digits",
    )


def _is_word(value: Any) -> bool:
    # Sources name files and columns, so they must be safe in both.
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,40}", value) is not None


def _text(fields: dict[str, Any], key: str) -> str:
    value = fields[key]
    _expect(isinstance(value, str) and bool(value), f"{key} is not a text")
    text: str = value
    return text


def _positive(fields: dict[str, Any], key: str) -> int:
    value = fields[key]
    _expect(type(value) is int and value > 0, f"{key} is not a positive whole number")
    number: int = value
    return number
