"""``stemlab models``: see, add, verify and remove models."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from stemlab.cli.main import describe, exit_code
from stemlab.errors import ModelError, ModelNotFoundError
from stemlab.registry import (
    ModelManifest,
    NetworkEntry,
    builtin_names,
    find_model,
    installed_file,
    is_installed,
    models_dir,
    own_names,
)

if TYPE_CHECKING:
    from stemlab.provisioning import FileProgress

__all__ = ["describe_models", "run_add", "run_list", "run_remove", "run_show", "run_verify"]

_OWN_REGISTRY = "your own models"
_POLICIES = {
    "free": "free: shorter ones work as well, and save time and memory with --no-pad",
    "padded": "padded: a shorter one costs as much and saves nothing; longer ones are refused",
    "fixed": "fixed: no other works",
}


def run_list(options: argparse.Namespace) -> int:
    """List the registered models."""
    models = describe_models()
    if options.json:
        print(json.dumps(models, indent=2))
    else:
        for model in models:
            print("\n".join(_summary(model) if "error" not in model else _broken(model)))
        print(f"\nModels are added to {models_dir()}; `stemlab models show NAME` tells all.")
    return next((model["exit_code"] for model in models if "error" in model), 0)


def run_show(options: argparse.Namespace) -> int:
    """Tell all that is recorded of a model."""
    model = find_model(options.name)
    facts = _describe(model)
    if options.json:
        print(json.dumps(facts, indent=2))
        return 0
    lines = _summary(facts)
    lines += [f"  origin     {model.origin}", f"  trained on {model.training_data}"]
    lines += [f"  disputed   {dispute}" for dispute in model.disputes]
    for number, network in enumerate(facts["networks"], start=1):
        lines.append(f"  network {number}: {network['architecture']}")
        lines.append(f"    arguments {json.dumps(network['arguments'])}")
        if network["gains"] is not None:
            lines.append(
                f"    gains     {dict(zip(facts['sources'], network['gains'], strict=True))}"
            )
        for file in network["files"]:
            lines += [f"    file      {file['name']}, {file['bytes']} bytes"]
            lines += [f"      SHA-256 {file['sha256']}"]
            if file["confirmations"] is not None:
                projects = file["confirmations"]
                alike = "one project only" if projects == 1 else f"{projects} independent projects"
                lines += [f"      stated by {alike}"]
            if file["url"]:
                lines += [f"      from    {file['url']}"]
        if network["installed"]:
            lines.append(f"    installed {network['installed']['path']}")
            lines.append(f"      SHA-256 {network['installed']['sha256']}")
    print("\n".join(lines))
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Read and check the files of one model, or of all that are installed."""
    from stemlab.provisioning import verify_model

    reports, first_code = [], 0
    for name in [options.name] if options.name else _names():
        try:
            if not options.name and not _was_added(_find(name)):
                continue
            verified = verify_model(name)
        except Exception as error:  # noqa: BLE001 - the other models still have their turn
            print(f"stemlab: {describe(error)}", file=sys.stderr)
            code = exit_code(error)
            first_code = first_code or code
            reports.append({"name": name, "error": describe(error), "exit_code": code})
            continue
        size = sum(file.size for file in verified.files)
        reports.append({"name": verified.name, "files": len(verified.files), "bytes": size})
        if not (options.json or options.quiet):
            print(
                f"{verified.name}: verified, {len(verified.files)} file(s), {size / 1e6:.1f} MB, "
                f"{verified.parameters:,} weights"
            )
    if options.json:
        print(json.dumps(reports, indent=2))
    return first_code


def run_add(options: argparse.Namespace) -> int:
    """Put a model into the models folder."""
    from stemlab.provisioning import add_model

    with _file_bar(hidden=options.quiet or options.json) as bar:
        model = add_model(
            options.name,
            options.paths or (),
            download=options.download,
            sha256=options.sha256 or (),
            weight_license=options.license,
            progress=bar,
        )
    facts = _describe(model)
    if options.json:
        print(json.dumps(facts, indent=2))
    elif not options.quiet:
        print(f"{model.name}: installed and verified, in {model.folder}")
        print(f"  licence of the weights: {model.weight_license}")
    return 0


def run_remove(options: argparse.Namespace) -> int:
    """Take a model out of the models folder."""
    from stemlab.provisioning import remove_model

    remove_model(options.name)
    if options.json:
        print(json.dumps({"name": options.name, "removed": True}))
    elif not options.quiet:
        print(f"{options.name}: removed")
    return 0


def describe_models() -> list[dict[str, Any]]:
    """Put what the registry says into plain tables."""
    models = []
    for name in _names():
        try:
            models.append(_describe(_find(name)))
        except ModelError as error:
            models.append({"name": name, "error": describe(error), "exit_code": exit_code(error)})
    return models


def _names() -> list[str]:
    """Name all models; where the user's registry is damaged, itself instead of what it names."""
    try:
        return [*builtin_names(), *own_names()]
    except ModelError:
        return [*builtin_names(), _OWN_REGISTRY]


def _find(name: str) -> ModelManifest:
    """Find one of `_names`."""
    if name == _OWN_REGISTRY:
        own_names()  # It says what is wrong.
    return find_model(name)


def _was_added(model: ModelManifest) -> bool:
    """Whether anything of a model was ever put into the models folder, or comes with stemlab."""
    return model.kind != "released" or os.path.lexists(model.folder)


def _describe(model: ModelManifest) -> dict[str, Any]:
    return {
        "name": model.name,
        "title": model.title,
        "kind": model.kind,
        "sources": list(model.sources),
        "sample_rate": model.sample_rate,
        "segment_seconds": model.segment_seconds,
        "segment_policy": model.segment_policy,
        "parameters": model.parameters,
        "bytes": sum(network.files[0].size for network in model.networks),
        "code_license": model.code_license,
        "weight_license": model.weight_license,
        "disputes": list(model.disputes),
        "origin": model.origin,
        "training_data": model.training_data,
        "manifest_sha256": model.sha256,
        "installed": is_installed(model),
        "networks": [_describe_network(model, network) for network in model.networks],
    }


def _describe_network(model: ModelManifest, network: NetworkEntry) -> dict[str, Any]:
    installed = None
    try:
        file = installed_file(model, network)
        installed = {
            "path": str(file.path),
            "bytes": file.size,
            "sha256": file.sha256,
            "source_sha256": file.source.sha256,
        }
    except ModelNotFoundError:
        pass
    return {
        "architecture": network.architecture,
        "arguments": dict(network.arguments),
        "gains": None if network.gains is None else list(network.gains),
        "files": [
            {
                "name": file.name,
                "bytes": file.size,
                "sha256": file.sha256,
                "url": file.url,
                "confirmations": file.confirmations,
            }
            for file in network.files
        ],
        "installed": installed,
    }


def _summary(facts: dict[str, Any]) -> list[str]:
    return [
        f"{facts['name']}: {facts['title']}",
        f"  sources    {', '.join(facts['sources'])} at {facts['sample_rate']} Hz",
        f"  segment    {facts['segment_seconds']:g} s, {_POLICIES[facts['segment_policy']]}",
        f"  size       {facts['parameters']:,} parameters, {facts['bytes'] / 1e6:.1f} MB",
        f"  licence    weights {facts['weight_license']}; code {facts['code_license']}",
        f"  installed  {'yes' if facts['installed'] else 'no'}",
    ]


def _broken(facts: dict[str, Any]) -> list[str]:
    return [f"{facts['name']}: REFUSED", f"  {facts['error']}"]


class _FileBar:
    """A progress callback that shows one bar for each file and step."""

    def __init__(self, *, hidden: bool) -> None:
        self._hidden = hidden
        self._title = ""
        self._bar: Any = None

    def __call__(self, event: FileProgress) -> None:
        from stemlab.cli._bars import terminal_bar

        title = f"{event.step} {event.file}"
        if title != self._title:
            self.close()
            self._title = title
            self._bar = terminal_bar(
                hidden=self._hidden, desc=title, total=event.total, unit="B", unit_scale=True
            )
        self._bar.update(event.done - self._bar.n)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


@contextmanager
def _file_bar(*, hidden: bool) -> Iterator[_FileBar]:
    bar = _FileBar(hidden=hidden)
    try:
        yield bar
    finally:
        bar.close()
