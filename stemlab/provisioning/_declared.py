"""Read what a file of weights says of its network, and compare it with the record.

A class named in a file is only looked up in the table of architectures; what is built comes from a
manifest.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from stemlab.errors import ModelRefusedError
from stemlab.files import strict_json
from stemlab.networks.architectures import ARCHITECTURES, Architecture
from stemlab.provisioning._download import FileProgress, ProgressCallback
from stemlab.provisioning._pickles import convert
from stemlab.registry.manifests import PICKLE_SUFFIXES, NetworkEntry, check_sources, exact_seconds

_ZIP_MAGIC = b"PK\x03\x04"
# Far beyond any real network. A file that says more could keep the machine busy for hours.
_MOST_HEADER_BYTES = 1 << 22
_MOST_DEPTH = 16
_MOST_ITEMS = _MOST_LETTERS = 64
_LARGEST = 1e9


@dataclass(frozen=True)
class Declaration:
    """What a Demucs package, or a safetensors file in Demucs' form, says of its network."""

    architecture: Architecture
    arguments: dict[str, Any]
    dropped: tuple[str, ...]  # Names of arguments that Demucs no longer knows.

    def effective(self, name: str) -> Any:
        """Value of an argument, its default where it was not declared."""
        return self.arguments.get(name, self.architecture.parameters()[name].default)

    def check(self, network: NetworkEntry, label: str) -> None:
        """Refuse a file that contradicts the record of its network."""
        says: dict[str, Any] = {"architecture": self.architecture.name}
        recorded: dict[str, Any] = {"architecture": network.architecture}
        if says == recorded:
            parameters = self.architecture.parameters()
            for name in parameters.keys() - self.architecture.arguments_without_effect:
                says[name] = self.effective(name)
                recorded[name] = network.arguments.get(name, parameters[name].default)
        differing = [name for name in says if not _equal(says[name], recorded[name])]
        if differing:
            name = min(differing)
            raise ModelRefusedError(
                f"{label!r} says {name}={says[name]!r} of its network, recorded is "
                f"{recorded[name]!r}. The record is wrong, or this is another model: please "
                "report it.",
                path=label,
                expected=recorded[name],
                actual=says[name],
            )


def read_weights(
    content: bytes, name: str, label: str, progress: ProgressCallback | None
) -> tuple[bytes, Declaration | None]:
    """Convert verified content if it is a pickle, and read what it says of its network."""
    if content.startswith(_ZIP_MAGIC):
        if progress is not None:
            progress(FileProgress("convert", name, 0, len(content)))
        weights, facts = convert(content, label)
        return weights, declaration_of_package(facts, label)
    if Path(name).suffix in PICKLE_SUFFIXES:
        raise ModelRefusedError(
            f"{label!r} is not of the form that torch.save writes since PyTorch 1.6. Load it with "
            "the program that made it, and save it again.",
            path=label,
        )
    return content, declaration_of_safetensors(content, label)


def declaration_of_package(facts: dict[str, Any], label: str) -> Declaration | None:
    """Read what `_pickles.convert` found in a package."""
    if not facts:
        return None
    klass, args, kwargs = facts["klass"], facts["args"], facts["kwargs"]
    known = {entry.class_name: entry for entry in ARCHITECTURES.values() if entry.class_name}
    if klass not in known:
        raise ModelRefusedError(
            f"{label!r} is for {klass[:80]!r}; allowed are {', '.join(known)}.", path=label
        )
    architecture = known[klass]
    parameters = architecture.parameters()
    named = dict(zip(parameters, args, strict=False))
    stated = {**named, **kwargs}
    arguments = {name: value for name, value in stated.items() if name in parameters}
    dropped = tuple(sorted(stated.keys() - parameters.keys()))
    strange = {
        name: expected
        for name, value in arguments.items()
        if (expected := _expected(name, value, parameters[name].default)) is not None
    }
    wrong = None
    if len(args) > len(parameters) or len(dropped) > _MOST_ITEMS:
        wrong = f"has more arguments than {architecture.name} takes: {len(args) + len(kwargs)}"
    elif named.keys() & kwargs.keys():
        wrong = f"says twice what {min(named.keys() & kwargs.keys())} is"
    elif not all(name.isidentifier() and len(name) <= _MOST_LETTERS for name in dropped):
        wrong = "has arguments whose names are not identifiers"
    elif strange:
        name = min(strange)
        wrong = f"says {name}={_shown(arguments[name])}: expected {strange[name]}"
    if wrong is not None:
        raise ModelRefusedError(
            f"{label!r} {wrong}. Demucs makes no such file: do not use it.", path=label
        )
    if "sources" in arguments:
        check_sources(arguments["sources"])
    return Declaration(architecture, arguments, dropped)


def _expected(name: str, value: Any, default: Any) -> str | None:
    """Say what an argument should be if it is something else; merely reading some takes hours."""
    if isinstance(default, bool) and not isinstance(value, bool):
        return "true or false"  # Anything that is not empty would count as true.
    if name == "segment" and not isinstance(value, (int, float)):
        return "a number of seconds"
    if name == "sources" and not isinstance(value, list):
        return "a list of names"
    values = value if isinstance(value, list) else [value]
    if len(values) > _MOST_ITEMS or not all(map(_is_plain, values)):
        return "a number, a short text, or a short list of these"
    return None


def _shown(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return f"{type(value).__name__} of {len(value)}"
    return repr(value)[:80]


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= _MOST_LETTERS and value.isprintable()
    return value is None or (isinstance(value, (int, float)) and abs(value) <= _LARGEST)


def declaration_of_safetensors(content: bytes, label: str) -> Declaration | None:
    """Read the metadata that Demucs writes into its safetensors files."""
    try:
        length = int.from_bytes(content[:8], "little")
        if length > _MOST_HEADER_BYTES:
            raise ValueError(f"its header claims {length} bytes")
        metadata = strict_json(content[8 : 8 + length]).get("__metadata__", {})
        if "klass" not in metadata:
            return None
        args, kwargs = (_decode(strict_json(metadata[key])) for key in ("args", "kwargs"))
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            raise TypeError("its arguments are not a list and a table")
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ModelRefusedError(
            f"{label!r} is not a valid safetensors file of Demucs ({error}).", path=label
        ) from error
    facts = {"klass": str(metadata["klass"]), "args": args, "kwargs": kwargs}
    return declaration_of_package(facts, label)


def _decode(value: Any, room: int = _MOST_DEPTH) -> Any:
    """Demucs writes fractions as tables."""
    if not room:
        raise ValueError("it is nested too deeply")
    if isinstance(value, dict):
        if value.get("_type") == "fraction":
            return float(Fraction(int(value["numerator"]), int(value["denominator"])))
        return {name: _decode(item, room - 1) for name, item in value.items()}
    if isinstance(value, list):
        return [_decode(item, room - 1) for item in value]
    return value


def _equal(one: Any, other: Any) -> bool:
    numbers = (int, float, Fraction)
    if isinstance(one, numbers) and isinstance(other, numbers):
        return exact_seconds(float(one)) == exact_seconds(float(other))
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    # To Demucs, None and an empty list mean the same.
    return bool(one == other or (not one and not other))
