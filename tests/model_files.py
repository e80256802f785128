"""Models as others publish them, made of small real networks by the tests."""

from __future__ import annotations

import copy
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from demucs.states import get_state
from safetensors.torch import save

from stemlab.provisioning._pickles import convert

__all__ = ["convert_once", "hub_file", "package", "publish", "recorded"]

_CONVERTED: dict[bytes, tuple[bytes, dict[str, Any]]] = {}


def convert_once(content: bytes, label: str) -> tuple[bytes, dict[str, Any]]:
    """Convert a pickle as stemlab does, in a process of its own; the same one only once."""
    if content not in _CONVERTED:
        _CONVERTED[content] = convert(content, label)
    weights, facts = _CONVERTED[content]
    return weights, copy.deepcopy(facts)


def package(network: Any, **changes: Any) -> bytes:
    """A network as Demucs publishes it: a pickle, in half precision."""
    args, kwargs = network._init_args_kwargs
    buffer = io.BytesIO()
    fields = {
        "klass": type(network),
        "args": args,
        "kwargs": kwargs,
        "state": get_state(network, None, half=True),
        "training_args": {"epochs": 3, "augment": {"shift": [1, 2]}},
    }
    torch.save({**fields, **changes}, buffer)
    return buffer.getvalue()


def hub_file(network: Any, **changes: str) -> bytes:
    """A network as Demucs publishes it on the hub: safetensors that describe themselves."""
    args, kwargs = network._init_args_kwargs
    metadata = {
        "klass": f"{type(network).__module__}.{type(network).__qualname__}",
        "args": json.dumps(args),
        "kwargs": json.dumps(kwargs),
    }
    state = {name: each.half().contiguous() for name, each in network.state_dict().items()}
    return save(state, {**metadata, **changes})


def recorded(name: str, content: bytes, **more: Any) -> dict[str, Any]:
    """A file as a manifest records it."""
    digest = hashlib.sha256(content).hexdigest()
    return {"name": name, "bytes": len(content), "sha256": digest, **more}


def publish(
    assets: Path,
    name: str,
    networks: Sequence[Any],
    files: Sequence[Sequence[dict[str, Any]]],
    *,
    gains: Sequence[Sequence[float]] | None = None,
) -> None:
    """Enter a model in a registry that stands in for the one that comes with stemlab.

    Parameters
    ----------
    assets : Path
        Folder of the registry.
    name : str
    networks : sequence of HTDemucs or HDemucs
    files : sequence of sequences of dict
        The files of each network.
    gains : sequence of sequences of float, optional
    """
    first = networks[0]
    (sources,), options = first._init_args_kwargs
    arguments = {**options, "sources": sources, "segment": float(first.segment)}
    fields = {
        "schema": 2,
        "name": name,
        "title": f"{name} of the tests",
        "sources": sources,
        "sample_rate": 44_100,
        "channels": 2,
        "segment_seconds": float(first.segment),
        "segment_policy": "padded",
        "parameters": sum(each.numel() for one in networks for each in one.parameters()),
        "networks": [
            {
                "architecture": type(one).__name__,
                "arguments": arguments,
                "files": list(published),
                **({"gains": list(gains[index])} if gains else {}),
            }
            for index, (one, published) in enumerate(zip(networks, files, strict=True))
        ],
        "code_license": "MIT",
        "weight_license": "CC0-1.0",
        "disputes": [],
        "origin": "random numbers",
        "training_data": "none",
    }
    folder = assets / name
    folder.mkdir(parents=True, exist_ok=True)
    manifest = json.dumps(fields).encode()
    (folder / "manifest.json").write_bytes(manifest)
    path = assets / "registry.json"
    registry = json.loads(path.read_bytes()) if path.exists() else {"schema": 2, "models": {}}
    registry["models"][name] = {"manifest_sha256": hashlib.sha256(manifest).hexdigest()}
    path.write_text(json.dumps(registry), "utf-8")
