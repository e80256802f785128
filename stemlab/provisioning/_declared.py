"""What a file of weights says of its own network, compared with what is recorded of it.

The name of a class in a file is only ever looked up here; what is built comes from a manifest.
"""

from __future__ import annotations

import inspect
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from stemlab._models.loading import ARCHITECTURES
from stemlab.errors import ModelRefusedError
from stemlab.registry import NetworkEntry, exact_seconds, strict_json

__all__ = ["Declaration", "declaration_of_package", "declaration_of_safetensors"]

_ARCHITECTURES = {"demucs.htdemucs.HTDemucs": "HTDemucs", "demucs.hdemucs.HDemucs": "HDemucs"}
# They act while a network is made or trained and change nothing of a loaded one; or only together
# with others, which are compared: `multi_freqs`, `t_sparse_self_attn`, `t_sparse_cross_attn`.
_WITHOUT_EFFECT = {
    "dconv_init",
    "end_iters",
    "multi_freqs_depth",
    "rescale",
    "t_auto_sparsity",
    "t_cape_augment",
    "t_dropout",
    "t_global_window",
    "t_lr",
    "t_mask_random_seed",
    "t_mask_type",
    "t_sparse_attn_window",
    "t_sparsity",
    "t_weight_decay",
}


@dataclass(frozen=True)
class Declaration:
    """What a Demucs package, or a safetensors file in Demucs' form, says of its network.

    Parameters
    ----------
    architecture : str
        Name in the allow-list of `stemlab._models`.
    arguments : dict
        Those the architecture takes.
    dropped : tuple of str
        Names of those it does not take, which Demucs drops as well.
    """

    architecture: str
    arguments: dict[str, Any]
    dropped: tuple[str, ...]

    def effective(self, name: str) -> Any:
        """Value of an argument, its default where it was not declared.

        Parameters
        ----------
        name : str

        Returns
        -------
        value : object
        """
        return _effective(self.architecture, self.arguments, name)

    def check(self, network: NetworkEntry, label: str) -> None:
        """Refuse a file that says something else of its network than what is recorded.

        Parameters
        ----------
        network : NetworkEntry
        label : str
            How errors name the file.

        Raises
        ------
        ModelRefusedError
            If class or arguments differ.
        """
        differing = [] if self.architecture == network.architecture else ["architecture"]
        says = {"architecture": self.architecture}
        recorded = {"architecture": network.architecture}
        if not differing:
            for name in set(_parameters(self.architecture)) - _WITHOUT_EFFECT:
                says[name] = self.effective(name)
                recorded[name] = _effective(network.architecture, network.arguments, name)
            differing = [each for each in says if not _equal(says[each], recorded[each])]
        # Demucs' bags override the segment of their networks, which depend on it in nothing else.
        if network.architecture == "HDemucs" and differing == ["segment"]:
            differing = []
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


def declaration_of_package(facts: dict[str, Any], label: str) -> Declaration | None:
    """Read what `_pickles.convert` found in a package.

    Parameters
    ----------
    facts : dict
        ``klass``, ``args`` and ``kwargs``, or nothing.
    label : str
        How errors name the file.

    Returns
    -------
    declaration : Declaration or None
        None if it says nothing.

    Raises
    ------
    ModelRefusedError
        If what it says is no network that stemlab knows.
    """
    if not facts:
        return None
    if facts["klass"] not in _ARCHITECTURES:
        raise ModelRefusedError(
            f"{label!r} is for {facts['klass']!r}; allowed are {', '.join(_ARCHITECTURES)}.",
            path=label,
        )
    architecture = _ARCHITECTURES[facts["klass"]]
    parameters = _parameters(architecture)
    if len(facts["args"]) > len(parameters):
        raise ModelRefusedError(
            f"{label!r} has more arguments than {architecture} takes: {len(facts['args'])}, "
            f"expected at most {len(parameters)}.",
            path=label,
        )
    stated = {**dict(zip(parameters, facts["args"], strict=False)), **facts["kwargs"]}
    arguments = {name: value for name, value in stated.items() if name in parameters}
    for name, value in arguments.items():
        # Whatever is not empty would be true.
        if isinstance(parameters[name].default, bool) and not isinstance(value, bool):
            raise ModelRefusedError(
                f"{label!r} says {name}={value!r} of its network: expected true or false.",
                path=label,
            )
    return Declaration(architecture, arguments, tuple(sorted(stated.keys() - parameters.keys())))


def declaration_of_safetensors(content: bytes, label: str) -> Declaration | None:
    """Read the metadata that Demucs writes into its safetensors files.

    Parameters
    ----------
    content : bytes
        Its digest has been checked.
    label : str
        How errors name the file.

    Returns
    -------
    declaration : Declaration or None
        None if it has none.

    Raises
    ------
    ModelRefusedError
        If it is malformed, or names no network that stemlab knows.
    """
    try:
        (length,) = struct.unpack_from("<Q", content)
        metadata = strict_json(content[8 : 8 + length]).get("__metadata__", {})
        if "klass" not in metadata:
            return None
        facts = {
            "klass": str(metadata["klass"]),
            "args": [_decode(each) for each in strict_json(metadata["args"])],
            "kwargs": dict(_decode(strict_json(metadata["kwargs"]))),
        }
    except (
        struct.error,
        ArithmeticError,
        AttributeError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        raise ModelRefusedError(
            f"{label!r} is not a valid safetensors file of Demucs ({error}).", path=label
        ) from error
    return declaration_of_package(facts, label)


def _decode(value: Any) -> Any:
    """Demucs writes fractions as tables."""
    if isinstance(value, dict):
        if value.get("_type") == "fraction":
            return float(Fraction(int(value["numerator"]), int(value["denominator"])))
        return {name: _decode(each) for name, each in value.items()}
    return value


def _parameters(architecture: str) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(ARCHITECTURES[architecture]()).parameters)


def _effective(architecture: str, arguments: Any, name: str) -> Any:
    return arguments.get(name, _parameters(architecture)[name].default)


def _equal(one: Any, other: Any) -> bool:
    numbers = (int, float, Fraction)
    if isinstance(one, numbers) and isinstance(other, numbers):
        return exact_seconds(float(one)) == exact_seconds(float(other))
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_equal, one, other))
    # No list and an empty one mean the same to Demucs.
    return bool(one == other or (not one and not other))
