"""Export the averaged weights of a run as a model folder and enter it in the registry.

Usage::

    python export.py RUN_FOLDER
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from configuration import Configuration, read_configuration
from curves import draw_curves
from network import build
from places import CONFIGURATION, MODELS
from safetensors.torch import save
from train import CHECKPOINT

SCHEMA = 2
CHANNELS = 2
# Above this, half precision is stored.
MAX_FLOAT_BYTES = 8_000_000
# Of the first steps, for `repeat.py`.
RECORDED_LOSSES = 100
TRAINING_DATA = (
    "songs synthesised by models/training/synth from the soundfonts FluidR3_GM (MIT) and "
    "MuseScore_General_Lite (MIT, parts public domain or CC0), single notes and drum strokes of "
    "sonic-pi-samples (CC0), "
    "synthesisers and a formant singer of this project, and lines spoken by Flite's voices "
    "(permissive licence), sung by the WORLD vocoder; no recordings of music"
)


def weights_of(
    state: dict[str, torch.Tensor], configuration: Configuration
) -> dict[str, torch.Tensor]:
    """Weights to be stored, checked against the architecture."""
    build(configuration.model).load_state_dict(state)
    weights = {name: tensor.contiguous() for name, tensor in state.items()}
    for name, tensor in weights.items():
        if not torch.isfinite(tensor).all():
            raise ValueError(f"weight {name} is not finite")
    if sum(tensor.nbytes for tensor in weights.values()) > MAX_FLOAT_BYTES:
        weights = {name: tensor.half() for name, tensor in weights.items()}
    return weights


def manifest_of(
    configuration: Configuration, weights: dict[str, torch.Tensor], file: str, content: bytes
) -> dict[str, Any]:
    """What `stemlab.registry` reads."""
    model = configuration.model
    return {
        "schema": SCHEMA,
        "name": model.name,
        "title": model.title,
        "sources": model.arguments["sources"],
        "sample_rate": model.arguments["samplerate"],
        "channels": CHANNELS,
        "segment_seconds": model.arguments["segment"],
        "segment_policy": model.segment_policy,
        "parameters": sum(tensor.numel() for tensor in weights.values()),
        "networks": [
            {
                "architecture": model.architecture,
                "arguments": model.arguments,
                "files": [
                    {
                        "name": file,
                        "bytes": len(content),
                        "sha256": hashlib.sha256(content).hexdigest(),
                    }
                ],
            }
        ],
        "code_license": "MIT",
        "weight_license": "MIT",
        "disputes": [],
        "origin": "trained by this project; see models/training",
        "training_data": TRAINING_DATA,
    }


def write_json(path: Path, fields: dict[str, Any]) -> bytes:
    """Write JSON and return what was written."""
    content = (json.dumps(fields, indent=2) + "\n").encode()
    path.write_bytes(content)
    return content


def training_record(history: dict[str, Any]) -> dict[str, Any]:
    """What the model card tells of the training, and the losses that a repetition is held to."""
    return {
        "steps": len(history["loss"]),
        "seconds_in_steps": round(history["seconds"]),
        "runs": history["runs"],
        "validation_sdr_db": history["validation"],
        "first_losses": history["loss"][:RECORDED_LOSSES],
    }


def register(models: Path, name: str, manifest: bytes) -> None:
    """Enter the digest of a manifest in the registry, keeping the other models."""
    path = models / "registry.json"
    registry: dict[str, Any] = {"schema": SCHEMA, "models": {}}
    if path.exists():
        registry = json.loads(path.read_bytes())
    registry["models"][name] = {
        "manifest_sha256": hashlib.sha256(manifest).hexdigest(),
        "bundled": True,
    }
    write_json(path, registry)


def export(run: Path, configuration: Configuration, models: Path) -> Path:
    """Write weights, manifest, registry and record of training; returns the model's folder."""
    name = configuration.model.name
    folder = models / name
    checkpoint = torch.load(run / CHECKPOINT, weights_only=True, map_location="cpu")
    done, steps = len(checkpoint["history"]["loss"]), configuration.training.steps
    if done < steps:
        raise ValueError(f"{run} has done {done} of {steps} steps. Train to the end first.")
    weights = weights_of(checkpoint["averaged"], configuration)
    content = save(weights)
    folder.mkdir(parents=True, exist_ok=True)
    file = f"{name}.safetensors"
    (folder / file).write_bytes(content)
    manifest = manifest_of(configuration, weights, file, content)
    register(models, name, write_json(folder / "manifest.json", manifest))
    write_json(folder / "training.json", training_record(checkpoint["history"]))
    draw_curves(checkpoint["history"], folder / "training.png")
    return folder


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="folder of the checkpoint")
    parser.add_argument("--configuration", type=Path, default=CONFIGURATION)
    parser.add_argument("--models", type=Path, default=MODELS)
    options = parser.parse_args()
    folder = export(options.run, read_configuration(options.configuration), options.models)
    print(folder)


if __name__ == "__main__":
    main()
