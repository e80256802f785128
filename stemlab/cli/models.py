"""``stemlab models``: see, add, verify and remove models."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from stemlab.cli._shared import passed, show, terminal_bar
from stemlab.cli.main import explain, tell
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

_POLICIES = {
    "free": "free: shorter ones work as well, and save time and memory with --no-pad",
    "padded": "padded: a shorter one costs as much and saves nothing; longer ones are refused",
    "fixed": "fixed: no other works",
}


def run_list(options: argparse.Namespace) -> int:
    """List the registered models."""
    models, lines = [], []
    for name, found in described_models():
        if isinstance(found, ModelError):
            words, code = explain(found)
            models.append({"name": name, "error": words, "exit_code": code})
            lines += [f"{name}: REFUSED", f"  {words}"]
        else:
            models.append(found)
            lines += _summary(found)
    lines.append(f"\nModels are added to {models_dir()}; `stemlab models show NAME` tells all.")
    print(json.dumps(models, indent=2) if options.json else "\n".join(lines))
    return _first_code(models)


def run_show(options: argparse.Namespace) -> int:
    """Tell all that is recorded of a model."""
    facts = _describe(find_model(options.name))
    print(json.dumps(facts, indent=2) if options.json else "\n".join(_lines(facts)))
    return 0


def run_verify(options: argparse.Namespace) -> int:
    """Read and check the files of one model, or of all that are installed."""
    from stemlab.provisioning import verify_model

    reports: list[dict[str, Any]] = []
    for name, found in [(options.name, None)] if options.name else described_models():
        try:
            if isinstance(found, ModelError):
                raise found
            # Nothing of it was ever put into the models folder.
            if found and found["kind"] == "released" and not os.path.lexists(models_dir() / name):
                continue
            verified = verify_model(name)
        except Exception as error:  # noqa: BLE001 - the other models still have their turn
            reports.append({"name": name, **tell(error, options)})
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
    return _first_code(reports)


def run_add(options: argparse.Namespace) -> int:
    """Put a model into the models folder."""
    from stemlab.provisioning import add_model

    with _file_bar(options) as progress:
        model = add_model(**passed(add_model, options), progress=progress)
    words = [
        f"{model.name}: installed and verified, in {model.folder}",
        f"  licence of the weights: {model.weight_license}",
    ]
    show(options, _describe(model), words)
    return 0


def run_remove(options: argparse.Namespace) -> int:
    """Take a model out of the models folder."""
    from stemlab.provisioning import remove_model

    remove_model(options.name)
    show(options, {"name": options.name, "removed": True}, [f"{options.name}: removed"])
    return 0


def described_models() -> Iterator[tuple[str, dict[str, Any] | ModelError]]:
    """Tell what is recorded of each model, or why it is refused.

    If the user's registry is damaged, it comes in place of the models that it names.
    """
    names, damage = builtin_names(), None
    try:
        names += own_names()
    except ModelError as error:
        damage = error
    for name in names:
        try:
            yield name, _describe(find_model(name))
        except ModelError as error:
            yield name, error
    if damage is not None:
        yield "your own models", damage


def _first_code(reports: list[dict[str, Any]]) -> int:
    return next((report["exit_code"] for report in reports if "error" in report), 0)


def _describe(model: ModelManifest) -> dict[str, Any]:
    facts = {name: value for name, value in vars(model).items() if name not in ("folder", "sha256")}
    return facts | {
        "bytes": sum(network.files[0].size for network in model.networks),
        "manifest_sha256": model.sha256,
        "installed": is_installed(model),
        "networks": [_describe_network(model, network) for network in model.networks],
    }


def _describe_network(model: ModelManifest, network: NetworkEntry) -> dict[str, Any]:
    installed = None
    with suppress(ModelNotFoundError):
        found = installed_file(model, network)
        installed = {
            "path": str(found.path),
            "bytes": found.size,
            "sha256": found.sha256,
            "source_sha256": found.source.sha256,
        }
    files = [vars(file) | {"bytes": file.size} for file in network.files]
    for file in files:
        del file["size"]
    arguments = dict(network.arguments)
    return vars(network) | {"arguments": arguments, "files": files, "installed": installed}


def _summary(facts: dict[str, Any]) -> list[str]:
    return [
        f"{facts['name']}: {facts['title']}",
        f"  sources    {', '.join(facts['sources'])} at {facts['sample_rate']} Hz",
        f"  segment    {facts['segment_seconds']:g} s, {_POLICIES[facts['segment_policy']]}",
        f"  size       {facts['parameters']:,} parameters, {facts['bytes'] / 1e6:.1f} MB",
        f"  licence    weights {facts['weight_license']}; code {facts['code_license']}",
        f"  installed  {'yes' if facts['installed'] else 'no'}",
    ]


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    yield from _summary(facts)
    yield f"  origin     {facts['origin']}"
    yield f"  trained on {facts['training_data']}"
    yield from (f"  disputed   {dispute}" for dispute in facts["disputes"])
    for number, network in enumerate(facts["networks"], start=1):
        yield f"  network {number}: {network['architecture']}"
        yield f"    arguments {json.dumps(network['arguments'])}"
        if network["gains"] is not None:
            yield f"    gains     {dict(zip(facts['sources'], network['gains'], strict=True))}"
        for file in network["files"]:
            yield f"    file      {file['name']}, {file['bytes']} bytes"
            yield f"      SHA-256 {file['sha256']}"
            if file["confirmations"] is not None:
                projects = file["confirmations"]
                alike = "one project only" if projects == 1 else f"{projects} independent projects"
                yield f"      stated by {alike}"
            if file["url"]:
                yield f"      from    {file['url']}"
        if network["installed"]:
            yield f"    installed {network['installed']['path']}"
            yield f"      SHA-256 {network['installed']['sha256']}"


@contextmanager
def _file_bar(options: argparse.Namespace) -> Iterator[Callable[[FileProgress], None]]:
    """Show a bar that begins anew for each file and step."""
    title = ""
    with terminal_bar(options, unit="B", unit_scale=True) as bar:

        def move(event: FileProgress) -> None:
            nonlocal title
            if title != f"{event.step} {event.file}":
                title = f"{event.step} {event.file}"
                bar.set_description(title, refresh=False)
                bar.reset(event.total)
            bar.update(event.done - bar.n)

        yield move
