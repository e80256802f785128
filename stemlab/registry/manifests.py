"""Read and check what is recorded of a model: its ``manifest.json``."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from stemlab._checks import RATE_RANGE_HZ
from stemlab._text import brief
from stemlab._typing import StrPath
from stemlab.errors import ModelError, ModelRefusedError
from stemlab.files import parse_json
from stemlab.registry.files import read_bounded, refuse_digest

SCHEMA = 2
MANIFEST_NAME = "manifest.json"
SEGMENT_POLICIES = ("free", "padded", "fixed")
PICKLE_SUFFIXES = (".th", ".pt", ".pth")
_DIGEST = re.compile(r"[0-9a-f]{64}")
# Sources name files and columns, so they must be safe in both.
_SOURCE = re.compile(r"[A-Za-z0-9_-]{1,40}")
_FILE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")
# A manifest is a page of text and weights are a few hundred megabytes: more is an attack or a
# mistake, and is refused before it is read.
MAX_TABLE_BYTES = 1 << 20
MAX_WEIGHTS_BYTES = 4 << 30
ModelKind = Literal["bundled", "released", "user", "folder"]
# Windows opens devices by these names, whatever their suffix.
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"COM{n}" for n in range(10))}
_RESERVED |= {f"LPT{n}" for n in range(10)}


@dataclass(frozen=True)
class WeightFile:
    """A published file with the weights of a network."""

    name: str
    size: int  # In bytes.
    sha256: str
    url: str | None
    confirmations: int | None  # How many independent sources state the digest; None: it is ours.

    @property
    def is_pickle(self) -> bool:
        """Whether it has to be converted before it can be loaded."""
        return self.name.endswith(PICKLE_SUFFIXES)

    @property
    def unconfirmed(self) -> bool:
        """Whether one source alone states its digest, so that the user must type it."""
        return self.confirmations is not None and self.confirmations < 2


@dataclass(frozen=True)
class NetworkEntry:
    """One network of a model: how it is built and the files that hold its weights."""

    architecture: str
    arguments: Mapping[str, Any]
    files: tuple[WeightFile, ...]
    gains: tuple[float, ...] | None  # Its share in each source; None: 1 in all.


@dataclass(frozen=True)
class ModelManifest:
    """What is known of a model without opening its weights.

    Parameters
    ----------
    name, title : str
    kind : {"bundled", "released", "user", "folder"}
        Whether its weights come with stemlab, stemlab knows those that others released, the user
        registered it, or it was asked for by its folder.
    folder : Path
        Where its weights lie, if they are installed.
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
    code_license, weight_license : str
        They are two things: the second may be disputed, and then says so.
    disputes : tuple of str
        What is not certain about the model.
    origin, training_data : str
    sha256 : str
        Digest of the manifest itself, 64 hex digits: it stands for the model in a run manifest.
    """

    name: str
    title: str
    kind: ModelKind
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
    disputes: tuple[str, ...]
    origin: str
    training_data: str
    sha256: str


def read_manifest(
    folder: StrPath,
    *,
    sha256: str | None = None,
    kind: ModelKind = "folder",
    files_in: StrPath | None = None,
) -> ModelManifest:
    """Read and check the manifest of a model."""
    path = Path(folder) / MANIFEST_NAME
    content = read_bounded(path, MAX_TABLE_BYTES)
    if sha256 is not None:
        refuse_digest(path, content, sha256)
    return parse_manifest(path, content, kind=kind, folder=folder if files_in is None else files_in)


def parse_manifest(
    path: Path, content: bytes, *, kind: ModelKind, folder: StrPath
) -> ModelManifest:
    """Check the content of a manifest."""
    with invalid(path, "model manifest", "Compare it with models/stemlab-mini/manifest.json."):
        fields = parse_json(content)
        _expect(fields["schema"] == SCHEMA, f"schema is {fields['schema']!r}, expected {SCHEMA}")
        sources = tuple(fields["sources"])
        check_sources(sources)
        policies = ", ".join(SEGMENT_POLICIES)
        policy = fields["segment_policy"]
        _expect(policy in SEGMENT_POLICIES, f"segment_policy is not one of {policies}")
        segment_seconds = float(fields["segment_seconds"])
        _expect(0 < segment_seconds < 3600, "segment_seconds is not in (0, 3600)")
        sample_rate = _positive(fields, "sample_rate")
        # A recording is resampled to it: a thousand times the usual would fill the disk.
        highest = RATE_RANGE_HZ[1]
        _expect(sample_rate <= highest, f"sample_rate is above {highest} Hz")
        _expect(isinstance(fields["disputes"], list), "disputes is not a list")
        return ModelManifest(
            name=_text(fields, "name"),
            title=_text(fields, "title"),
            kind=kind,
            folder=Path(folder),
            sources=sources,
            sample_rate=sample_rate,
            channels=_positive(fields, "channels"),
            segment_seconds=segment_seconds,
            segment_policy=policy,
            parameters=_positive(fields, "parameters"),
            networks=_networks(fields["networks"], len(sources)),
            code_license=_text(fields, "code_license"),
            weight_license=_text(fields, "weight_license"),
            disputes=tuple(check_text("disputes", text) for text in fields["disputes"]),
            origin=_text(fields, "origin"),
            training_data=_text(fields, "training_data"),
            sha256=hashlib.sha256(content).hexdigest(),
        )


@contextmanager
def invalid(path: Path, what: str, advice: str) -> Iterator[None]:
    """Refuse a table whose fields are missing, or not what they should be."""
    try:
        yield
    except ModelError:
        raise
    except (
        AttributeError,
        KeyError,
        OverflowError,
        RecursionError,  # Of showing a value that is nested as deeply as can be read.
        TypeError,
        ValueError,
    ) as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ModelRefusedError(
            f"{str(path)!r} is not a valid {what}: {brief(reason)}. {advice}", path=path
        ) from error


def exact_seconds(seconds: float) -> Fraction:
    """Read a duration as the fraction that its decimals stand for.

    7.8 s are 39/5 s: rounded to a binary number, a duration can miss its last sample.

    Examples
    --------
    >>> int(44_100 * 8.2), int(44_100 * exact_seconds(8.2))
    (361619, 361620)
    """
    return Fraction(str(seconds)).limit_denominator(1_000_000)


def check_sources(sources: Sequence[Any]) -> None:
    """Refuse sources that cannot name files."""
    plain = all(isinstance(source, str) and _SOURCE.fullmatch(source) for source in sources)
    if not sources or not plain or len({source.lower() for source in sources}) < len(sources):
        raise ModelRefusedError(
            f"sources={brief(repr(list(sources)))} cannot name files: expected different words "
            "of letters, digits, '-' and '_'. Correct the model."
        )


def check_digest(digest: Any) -> None:
    """Refuse anything but a full SHA-256."""
    _expect(
        isinstance(digest, str) and _DIGEST.fullmatch(digest) is not None,
        f"sha256 {digest!r} is not 64 lower-case hex digits",
    )


def check_text(key: str, value: Any) -> str:
    """Return text; refuse control characters, which a terminal would obey."""
    plain = isinstance(value, str) and bool(value.strip()) and value.isprintable()
    _expect(plain, f"{key} is not a text of printable characters")
    return str(value)


def check_file_name(name: Any) -> None:
    """Refuse a name that leaves the folder or that some system does not allow."""
    _expect(isinstance(name, str), f"{name!r} is not a name")
    _expect("/" not in name and "\\" not in name, f"{name!r} leaves the model's folder")
    _expect(
        _FILE_NAME.fullmatch(name) is not None
        and not name.endswith(".")
        and name.partition(".")[0].upper() not in _RESERVED,
        f"{name!r} is not a plain name of letters, digits, '.', '-' and '_' that every system "
        "allows",
    )


def _networks(entries: list[dict[str, Any]], sources: int) -> tuple[NetworkEntry, ...]:
    _expect(bool(entries), "there is no network")
    networks = tuple(_network(entry, sources) for entry in entries)
    for source in range(sources):
        _expect(
            any(network.gains is None or network.gains[source] > 0 for network in networks),
            f"no network has a share in source {source}",
        )
    return networks


def _network(fields: dict[str, Any], sources: int) -> NetworkEntry:
    gains = fields.get("gains")
    if gains is not None:
        gains = tuple(float(gain) for gain in gains)
        _expect(
            len(gains) == sources and all(math.isfinite(gain) and gain >= 0 for gain in gains),
            "gains are not one per source, each 0 or more",
        )
    _expect(isinstance(fields["arguments"], dict), "arguments are not a table")
    _expect(bool(fields["files"]), "a network has no files")
    return NetworkEntry(
        architecture=_text(fields, "architecture"),
        arguments=MappingProxyType(fields["arguments"]),
        files=tuple(_weight_file(entry) for entry in fields["files"]),
        gains=gains,
    )


def _weight_file(fields: dict[str, Any]) -> WeightFile:
    name, url = fields["name"], fields.get("url")
    check_file_name(name)
    _expect(
        name.endswith((".safetensors", *PICKLE_SUFFIXES)),
        f"{name!r} is neither .safetensors nor one of {', '.join(PICKLE_SUFFIXES)}",
    )
    size = _positive(fields, "bytes")
    _expect(size <= MAX_WEIGHTS_BYTES, f"{name!r} claims {size} bytes")
    check_digest(fields["sha256"])
    _expect(
        url is None or (isinstance(url, str) and url.startswith("https://")),
        f"the url of {name!r} does not begin with https://",
    )
    stated = fields.get("confirmations") is not None
    confirmations = _positive(fields, "confirmations") if stated else None
    return WeightFile(name, size, fields["sha256"], url, confirmations)


def _expect(condition: bool, otherwise: str) -> None:
    if not condition:
        raise ValueError(otherwise)


def _text(fields: dict[str, Any], key: str) -> str:
    return check_text(key, fields[key])


def _positive(fields: dict[str, Any], key: str) -> int:
    value = fields[key]
    _expect(type(value) is int and value > 0, f"{key} is not a positive whole number")
    return int(value)
