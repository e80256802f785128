"""``stemlab info``: what one pastes into a bug report."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from typing import Any

import soundfile
import torch

from stemlab.cli.models import described_models
from stemlab.errors import ModelError
from stemlab.networks.devices import available_devices
from stemlab.registry import without_folder
from stemlab.results import package_versions


def run(options: argparse.Namespace) -> int:
    """Print versions, devices, models and codecs; no paths and no names of persons."""
    facts = {
        "versions": package_versions(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "processors": os.cpu_count(),
        "devices": [
            f"{name} ({torch.cuda.get_device_name(name)})" if name.startswith("cuda") else name
            for name in available_devices()
        ],
        "torch threads": torch.get_num_threads(),
        "models": _models(),
        "codecs": {
            "libsndfile": soundfile.__libsndfile_version__,
            "reads": ", ".join(sorted(soundfile.available_formats())),
            "PyAV (m4a, AAC, video)": _optional_version("av"),
        },
    }
    print(json.dumps(facts, indent=2) if options.json else "\n".join(_lines(facts)))
    return 0


def _models() -> dict[str, str]:
    try:
        return {name: _state(found) for name, found in described_models()}
    except ModelError as error:  # A damaged registry is what the report should show.
        return {"registry": without_folder(error)}


def _state(found: dict[str, Any] | ModelError) -> str:
    if isinstance(found, ModelError):
        return f"refused: {without_folder(found)}"
    return "installed" if found["installed"] else "not installed"


def _optional_version(module: str) -> str:
    try:
        return str(importlib.import_module(module).__version__)
    except ImportError:
        return "not installed"


def _lines(facts: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list):
            lines.append(f"{indent}{name}: {', '.join(map(str, value))}")
        else:
            lines.append(f"{indent}{name}: {value}")
    return lines
