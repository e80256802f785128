"""Write the inventory: what stemlab is made of, as one CycloneDX file.

    python supply-chain/inventory.py            writes supply-chain/inventory.cdx.json
    python supply-chain/inventory.py --check    says what is wrong or out of date

Only files of the repository go into it, so that every machine writes the same bytes: it holds no
date and nothing of what happens to be installed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tomllib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cyclonedx.model import (
    ExternalReference,
    ExternalReferenceType,
    HashAlgorithm,
    HashType,
    Property,
    XsUri,
)
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentScope, ComponentType
from cyclonedx.model.contact import OrganizationalContact
from cyclonedx.model.license import DisjunctiveLicense, License, LicenseExpression
from cyclonedx.output.json import JsonV1Dot6
from cyclonedx.schema import SchemaVersion
from cyclonedx.spdx import is_supported_id
from cyclonedx.validation.json import JsonStrictValidator
from license_expression import ExpressionError, Licensing, get_spdx_licensing
from packageurl import PackageURL
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
INVENTORY = Path("supply-chain", "inventory.cdx.json")

# Who never runs as part of a user's stemlab.
_BEHIND_THE_SCENES = {"build", "dev", "training"}
_SCRIPTS = {".js", ".mjs", ".cjs"}
_WEIGHTS = {".safetensors", ".th", ".pt", ".pth", ".ckpt", ".onnx"}
_STATEMENTS = ("title", "code_license", "weight_license", "origin", "training_data")
_USES = ("training", "evaluation", "tool")

Table = dict[str, Any]


class InventoryError(Exception):
    """The files of the repository contradict each other; `faults` has a line for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


@dataclass(frozen=True)
class Sources:
    """The files that the inventory is made from.

    `users` says what needs each direct dependency: "runtime", "build", "training" or the
    names of extras.
    `manifests` are the bytes of ``models/NAME/manifest.json``, `carried` the paths that the wheel
    takes from the repository, `vendored` those of the scripts of others that go into reports, and
    `builder` is the model that the sounds made.
    """

    root: Path
    project: Table
    version: str
    pins: dict[str, Requirement]
    users: dict[str, list[str]]
    admissions: dict[str, Table]
    licenses: dict[str, str]
    registry: dict[str, Table]
    manifests: dict[str, bytes]
    sounds: dict[str, Table]
    builder: str
    scripts: dict[str, Table]
    carried: list[str]
    vendored: list[str]


def read_sources(root: Path) -> Sources:
    """Read everything the inventory is made from; nothing is judged yet."""
    folder = root / "supply-chain"
    pyproject = _toml(root / "pyproject.toml")
    training = _toml(root / "models" / "training" / "pyproject.toml")
    project = pyproject["project"]
    users: dict[str, list[str]] = {}
    asked = {
        "runtime": project["dependencies"],
        "build": pyproject["build-system"]["requires"],
        **project["optional-dependencies"],
        "training": training["project"]["dependencies"],
    }
    for user, lines in asked.items():
        for line in lines:
            users.setdefault(canonicalize_name(Requirement(line).name), []).append(user)
    constraints = (folder / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in constraints if line and not line.startswith("#")]
    version = re.search(
        r'^__version__ = "(.+)"$', (root / "stemlab" / "_version.py").read_text("utf-8"), re.M
    )
    if version is None:
        raise ValueError("stemlab/_version.py states no version")
    sounds = _toml(folder / "sound-sources.toml")
    wheel = pyproject["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    return Sources(
        root=root,
        project=project,
        version=version[1],
        pins={canonicalize_name(pin.name): pin for pin in pins},
        users=users,
        admissions=_toml(folder / "admissions.toml"),
        licenses=_toml(folder / "licenses.toml"),
        registry=json.loads((root / "models" / "registry.json").read_bytes())["models"],
        manifests={
            path.parent.name: path.read_bytes()
            for path in sorted((root / "models").glob("*/manifest.json"))
        },
        sounds={name: each for name, each in sounds.items() if isinstance(each, dict)},
        builder=sounds["model"],
        scripts=_toml(folder / "javascript.toml"),
        carried=sorted(
            path.relative_to(root).as_posix()
            for each in wheel
            for path in [root / each, *(root / each).rglob("*")]
            if path.is_file()
        ),
        vendored=sorted(
            path.relative_to(root).as_posix() for path in (root / "docs" / "vendor").glob("*.js")
        ),
    )


def _toml(path: Path) -> Table:
    return tomllib.loads(path.read_text("utf-8"))


# --- what may not be


def faults(sources: Sources) -> Iterator[str]:
    """Say in one line each what is missing or contradicts something else."""
    yield from _faults_of_packages(sources)
    yield from _faults_of_models(sources)
    yield from _faults_of_sounds(sources)
    yield from _faults_of_scripts(sources)


def _faults_of_packages(sources: Sources) -> Iterator[str]:
    for name, pin in sources.pins.items():
        if [each.operator for each in pin.specifier] != ["=="]:
            yield f"constraints.txt: {pin} is no exact version"
        if name not in sources.users:
            yield from _faults_of_licence(f"licenses.toml: {name}", sources.licenses.get(name))
    for name in sources.licenses.keys() - (sources.pins.keys() - sources.users.keys()):
        yield f"licenses.toml: {name} is not among the packages that others pull in"
    for name, users in sources.users.items():
        if name not in sources.pins:
            yield f"constraints.txt: {name} is missing, which pyproject.toml asks for"
        admission = sources.admissions.get(name)
        if admission is None:
            yield f"admissions.toml: {name} is missing, a direct dependency ({', '.join(users)})"
            continue
        if not admission.get("why"):
            yield f"admissions.toml: {name} does not say why it is here"
        if not admission.get("size_mb", 0) > 0:
            yield f"admissions.toml: {name} has no size_mb"
        yield from _faults_of_licence(f"admissions.toml: {name}", admission.get("license"))
    for name in sources.admissions.keys() - sources.users.keys():
        yield f"admissions.toml: {name} is no direct dependency"


def _faults_of_licence(where: str, licence: str | None) -> Iterator[str]:
    if not licence:
        yield f"{where} has no licence"
    elif not _is_spdx(licence):
        yield f"{where}: {licence!r} is no SPDX expression"


def _faults_of_models(sources: Sources) -> Iterator[str]:
    weights = {path for path in sources.carried if Path(path).suffix in _WEIGHTS}
    for name in sources.manifests.keys() - sources.registry.keys():
        yield f"models/registry.json: {name} is missing, which has a manifest"
    for name, entry in sources.registry.items():
        where = f"models/{name}/manifest.json"
        content = sources.manifests.get(name)
        if content is None:
            yield f"{where} is missing, which the registry names"
            continue
        recorded, actual = entry["manifest_sha256"], hashlib.sha256(content).hexdigest()
        yield from _faults_of_digest(f"models/registry.json: {name}", recorded)
        if recorded != actual:
            yield f"{where} has SHA-256 {actual}, the registry has {recorded}"
        manifest = json.loads(content)
        for key in _STATEMENTS:
            if not str(manifest.get(key, "")).strip():
                yield f"{where} has no {key}"
        licence = manifest.get("weight_license", "")
        if licence and _is_spdx(licence) and any("icence" in each for each in manifest["disputes"]):
            yield f"{where}: weight_license {licence!r} hides that the licence is disputed"
        for file in _files(manifest):
            yield from _faults_of_digest(f"{where}: {file['name']}", file["sha256"])
            if not entry["bundled"] and not file.get("url"):
                yield f"{where}: {file['name']} has no url, and is not bundled"
            if entry["bundled"]:
                path = f"models/{name}/{file['name']}"
                weights.discard(path)
                yield from _faults_of_weights(sources.root, path, file)
    for path in weights:
        yield f"{path} is carried by the wheel and recorded by no bundled model"


def _faults_of_digest(where: str, digest: str) -> Iterator[str]:
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        yield f"{where}: {digest!r} is not 64 hex digits"


def _faults_of_weights(root: Path, path: str, file: Table) -> Iterator[str]:
    if not (root / path).is_file():
        yield f"{path} is missing, though its model is bundled"
        return
    content = (root / path).read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if (len(content), digest) != (file["bytes"], file["sha256"]):
        yield (
            f"{path} has {len(content)} bytes and SHA-256 {digest}, its manifest has "
            f"{file['bytes']} and {file['sha256']}"
        )


def _faults_of_sounds(sources: Sources) -> Iterator[str]:
    if sources.builder not in sources.registry:
        yield f"sound-sources.toml: there is no model {sources.builder!r}"
    for name, sound in sources.sounds.items():
        where = f"sound-sources.toml: {name}"
        if sound.get("use") not in _USES:
            yield f"{where} is not used for one of {', '.join(_USES)}"
        if not sound.get("part"):
            yield f"{where} does not say which part of it is used"
        if sound.get("pypi", "numpy") not in sources.pins:
            yield f"{where}: {sound['pypi']} is not in constraints.txt"
        yield from _faults_of_licence(where, sound.get("license"))


def _faults_of_scripts(sources: Sources) -> Iterator[str]:
    carried = {path for path in sources.carried if Path(path).suffix in _SCRIPTS}
    for path in carried - sources.scripts.keys():
        yield f"javascript.toml: {path} is missing, which the wheel carries"
    for path in set(sources.vendored) - sources.scripts.keys():
        yield f"javascript.toml: {path} is missing, which goes into reports"
    for path, script in sources.scripts.items():
        where = f"javascript.toml: {path}"
        if path not in carried.union(sources.vendored):
            yield f"{where} is neither carried by the wheel nor in docs/vendor"
            continue
        ours = script.get("origin") == "this project"
        for key in ("name", "origin", *(() if ours else ("version", "sha256"))):
            if not script.get(key):
                yield f"{where} has no {key}"
        if "sha256" in script and script["sha256"] != (actual := _script_sha256(sources, path)):
            yield f"{path} has SHA-256 {actual}, javascript.toml has {script['sha256']}"
        yield from _faults_of_licence(where, script.get("license"))


# --- the inventory


def render(sources: Sources) -> str:
    """Make the text of the inventory.

    Raises
    ------
    InventoryError
        If there are faults.
    """
    found = sorted(faults(sources))
    if found:
        raise InventoryError(found)
    document = json.loads(JsonV1Dot6(_bom(sources)).output_as_string())
    # The library says of every component that it depends on nothing, where we do not know.
    document["dependencies"] = [each for each in document["dependencies"] if "dependsOn" in each]
    # The library stamps both; they would be others each time.
    del document["metadata"]["timestamp"], document["serialNumber"]
    content = json.dumps(document, sort_keys=True)
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, content).urn
    text = json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    invalid = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if invalid is not None:
        raise InventoryError([f"the inventory would be invalid: {invalid}"])
    return text


def _bom(sources: Sources) -> Bom:
    packages = {name: _package(name, sources) for name in sources.pins}
    models = {name: _model(name, sources) for name in sources.registry}
    sounds = {name: _sound(name, sources) for name in sources.sounds}
    scripts = {path: _script(path, sources) for path in sources.scripts}
    project = sources.project
    stemlab = Component(
        type=ComponentType.APPLICATION,
        name=project["name"],
        version=sources.version,
        bom_ref=project["name"],
        description=project["description"],
        licenses=[_license(project["license"])],
        purl=PackageURL("pypi", name=project["name"], version=sources.version),
    )
    bundled_scripts = scripts.keys() & set(sources.carried)
    bom = Bom(
        components=[*packages.values(), *models.values(), *sounds.values(), *scripts.values()],
        metadata=BomMetaData(
            component=stemlab,
            authors=[OrganizationalContact(name=each["name"]) for each in project["authors"]],
            properties=_properties(
                {
                    "bundled-javascript": f"{len(bundled_scripts)} files",
                    "dependencies": "only the direct ones of stemlab, and the sources of sound of "
                    "its own model; what packages need in turn depends on the system",
                }
            ),
        ),
    )
    bundled = [models[name] for name, entry in sources.registry.items() if entry["bundled"]]
    direct = [packages[name] for name in sources.users]
    bom.register_dependency(stemlab, [*direct, *bundled, *scripts.values()])
    made_with = [
        component
        for name, component in sounds.items()
        if sources.sounds[name]["use"] != "evaluation"
    ]
    bom.register_dependency(models[sources.builder], made_with)
    return bom


def _package(name: str, sources: Sources) -> Component:
    pin = sources.pins[name]
    users = sources.users.get(name, [])
    admission = sources.admissions.get(name, {})
    version = _version(pin)
    return Component(
        type=ComponentType.LIBRARY,
        name=name,
        version=version,
        bom_ref=f"package:{name}",
        scope=_scope(users),
        licenses=[_license(admission["license"] if users else sources.licenses[name])],
        purl=PackageURL("pypi", name=name, version=version),
        properties=_properties(
            {
                "marker": str(pin.marker or ""),
                "needed-by": ", ".join(users) or "other packages",
                "why": admission.get("why"),
                "size-mb": admission.get("size_mb"),
                "carries": admission.get("carries"),
                "licence-differs": admission.get("differs"),
            }
        ),
    )


def _scope(users: Sequence[str]) -> ComponentScope | None:
    """Required, optional, or excluded from what a user runs; unknown for indirect ones."""
    if not users:
        return None
    if "runtime" in users:
        return ComponentScope.REQUIRED
    if _BEHIND_THE_SCENES.issuperset(users):
        return ComponentScope.EXCLUDED
    return ComponentScope.OPTIONAL


def _model(name: str, sources: Sources) -> Component:
    manifest = json.loads(sources.manifests[name])
    entry = sources.registry[name]
    licence = _license(manifest["weight_license"])
    card = f"models/{name}/README.md"
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=name,
        bom_ref=f"model:{name}",
        description=manifest["title"],
        scope=ComponentScope.REQUIRED if entry["bundled"] else ComponentScope.OPTIONAL,
        licenses=[licence],
        external_references=[
            ExternalReference(type=ExternalReferenceType.MODEL_CARD, url=XsUri(card))
        ]
        if card in sources.carried
        else [],
        # The library writes no model cards.
        properties=[
            *_properties(
                {
                    "bundled": str(entry["bundled"]).lower(),
                    "manifest-sha256": entry["manifest_sha256"],
                    "parameters": manifest["parameters"],
                    "code-licence": manifest["code_license"],
                    "weight-licence": manifest["weight_license"],
                    "origin": manifest["origin"],
                    "training-data": manifest["training_data"],
                }
            ),
            *(Property(name="stemlab:dispute", value=each) for each in manifest["disputes"]),
        ],
        components=[_weights(name, file, licence) for file in _files(manifest)],
    )


def _files(manifest: Table) -> Iterator[Table]:
    for network in manifest["networks"]:
        yield from network["files"]


def _weights(model: str, file: Table, licence: License) -> Component:
    return Component(
        type=ComponentType.FILE,
        name=file["name"],
        bom_ref=f"model:{model}/{file['name']}",
        licenses=[licence],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=file["sha256"])],
        external_references=[
            ExternalReference(type=ExternalReferenceType.DISTRIBUTION, url=XsUri(file["url"]))
        ]
        if "url" in file
        else [],
        properties=_properties(
            {"bytes": file["bytes"], "digest-confirmations": file.get("confirmations")}
        ),
    )


def _sound(name: str, sources: Sources) -> Component:
    sound = sources.sounds[name]
    purl = version = None
    if "debian" in sound:
        purl = PackageURL("deb", "debian", sound["debian"])
    elif "pypi" in sound:
        version = _version(sources.pins[sound["pypi"]])
        purl = PackageURL("pypi", name=sound["pypi"], version=version)
    return Component(
        type=ComponentType.APPLICATION if sound["use"] == "tool" else ComponentType.DATA,
        name=name,
        version=version,
        bom_ref=f"sound:{name}",
        description=sound["part"],
        scope=ComponentScope.EXCLUDED,
        licenses=[_license(sound["license"])],
        purl=purl,
        properties=_properties(
            {"used-for": sound["use"], "version-in-debian-12": sound.get("debian_12")}
        ),
    )


def _script(path: str, sources: Sources) -> Component:
    script = sources.scripts[path]
    origin = script["origin"]
    return Component(
        type=ComponentType.FILE,
        name=script["name"],
        version=script.get("version"),
        bom_ref=f"javascript:{path}",
        # What goes into reports never runs as part of a user's stemlab.
        scope=ComponentScope.REQUIRED if path in sources.carried else ComponentScope.EXCLUDED,
        licenses=[_license(script["license"])],
        hashes=[HashType(alg=HashAlgorithm.SHA_256, content=_script_sha256(sources, path))],
        purl=PackageURL.from_string(origin) if origin.startswith("pkg:") else None,
        properties=_properties(
            {
                "path": path,
                "origin": origin,
                "carries": script.get("carries"),
                "package-integrity": script.get("integrity"),
            }
        ),
    )


def _script_sha256(sources: Sources, path: str) -> str:
    # As text: a checkout may have other ends of lines.
    return hashlib.sha256((sources.root / path).read_text("utf-8").encode()).hexdigest()


def _version(pin: Requirement) -> str:
    (specifier,) = pin.specifier
    return specifier.version


def _properties(values: Table) -> list[Property]:
    return [Property(name=f"stemlab:{k}", value=str(v)) for k, v in values.items() if v]


def _license(statement: str) -> License:
    """An SPDX identifier or expression; anything else stands as it is, in its own words."""
    if is_supported_id(statement):
        return DisjunctiveLicense(id=statement)
    if _is_spdx(statement):
        return LicenseExpression(statement)
    return DisjunctiveLicense(name=statement)


def _is_spdx(statement: str) -> bool:
    # SPDX leaves the names behind LicenseRef- to us.
    known = re.sub(r"\bLicenseRef-[\w.-]+", "MIT", statement)
    try:
        _spdx().parse(known, validate=True, strict=True)
    except ExpressionError:
        return False
    return True


@cache
def _spdx() -> Licensing:
    return get_spdx_licensing()  # It reads a long list.


# --- is it up to date?


def check(root: Path) -> list[str]:
    """Say in one line each what is wrong, or what of the inventory is out of date."""
    try:
        expected = render(read_sources(root))
    except InventoryError as error:
        return list(error.faults)
    path = root / INVENTORY
    if not path.is_file():
        return [f"{INVENTORY.as_posix()} is missing"]
    text = path.read_text("utf-8")
    if text == expected:
        return []
    try:
        actual = json.loads(text)
    except ValueError as error:
        return [f"{INVENTORY.as_posix()} is not JSON: {error}"]
    found = [
        f"{INVENTORY.as_posix()}: {line}"
        for line in differences(json.loads(expected), actual)
        # It is made from all the rest.
        if not line.startswith("serialNumber")
    ]
    return found or [f"{INVENTORY.as_posix()} was not written by this script as it is"]


def differences(expected: Any, actual: Any, where: str = "") -> Iterator[str]:
    """Say in one line each where two JSON documents differ."""
    if isinstance(expected, list) and isinstance(actual, list):
        expected, actual = _by_name(expected), _by_name(actual)
    if not (isinstance(expected, dict) and isinstance(actual, dict)):
        if expected != actual:
            yield f"{where} is {actual!r}, should be {expected!r}"
        return
    for key in sorted(expected.keys() | actual.keys()):
        inner = f"{where} {key}".strip()
        if key not in actual:
            yield f"{inner} is missing"
        elif key not in expected:
            yield f"{inner} should not be there"
        else:
            yield from differences(expected[key], actual[key], inner)


def _by_name(items: Sequence[Any]) -> Table:
    """What a list holds, by the names that the entries have; a second one of a name is numbered."""
    named: Table = {}
    for item in items:
        fields = item if isinstance(item, dict) else {"name": item}
        keys = ("bom-ref", "ref", "name", "alg", "type")
        name = next((str(fields[key]) for key in keys if key in fields), "")
        named[f"{name} {len(named)}" if name in named else name] = item
    return named


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the inventory, or check it."""
    parser = argparse.ArgumentParser(description="Write supply-chain/inventory.cdx.json.")
    parser.add_argument("--check", action="store_true", help="only say what is out of date")
    try:
        if parser.parse_args(arguments).check:
            found = check(ROOT)
        else:
            text = render(read_sources(ROOT))
            (ROOT / INVENTORY).write_text(text, "utf-8", newline="\n")
            found = []
    except InventoryError as error:
        found = list(error.faults)
    for line in found:
        sys.stderr.write(f"{line}\n")
    if found:
        sys.stderr.write("correct what is said above, then run `make supply-chain`\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
