"""``stemlab models list``."""

from __future__ import annotations

import argparse
import json
from typing import Any

from stemlab.registry import ModelManifest, list_models

__all__ = ["describe_models", "run"]

_POLICIES = {
    "free": "free: shorter ones work as well, and save time and memory with --no-pad",
    "padded": "padded: a shorter one costs as much and saves nothing",
    "fixed": "fixed: no other works",
}


def run(options: argparse.Namespace) -> int:
    """List the registered models.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    code : int
    """
    models = describe_models()
    if options.json:
        print(json.dumps(models, indent=2))
        return 0
    for each in models:
        print(f"{each['name']}: {each['title']}")
        print(f"  sources    {', '.join(each['sources'])} at {each['sample_rate']} Hz")
        print(f"  segment    {each['segment_seconds']:g} s, {_POLICIES[each['segment_policy']]}")
        print(f"  size       {each['parameters']:,} parameters, {each['bytes'] / 1e6:.1f} MB")
        print(f"  licence    weights {each['weight_license']}, code {each['code_license']}")
        print(f"  installed  {'yes' if each['installed'] else 'no'}")
    return 0


def describe_models() -> list[dict[str, Any]]:
    """Put what the registry says into plain tables.

    Returns
    -------
    models : list of dict
    """
    return [_describe(each) for each in list_models()]


def _describe(model: ModelManifest) -> dict[str, Any]:
    return {
        "name": model.name,
        "title": model.title,
        "sources": list(model.sources),
        "sample_rate": model.sample_rate,
        "segment_seconds": model.segment_seconds,
        "segment_policy": model.segment_policy,
        "parameters": model.parameters,
        "bytes": sum(each.size for each in model.networks),
        "code_license": model.code_license,
        "weight_license": model.weight_license,
        "installed": all(each.file.is_file() for each in model.networks),
    }
