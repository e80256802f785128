"""The inventory of the supply chain, what it refuses, and the workflow that checks it."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from license_expression import get_spdx_licensing
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parent.parent
COPIED = [
    "pyproject.toml",
    "models/training/pyproject.toml",
    "stemlab/_version.py",
    "models/registry.json",
    "models/*/manifest.json",
    "models/*/README.md",
    "models/stemlab-mini/*.safetensors",
    "supply-chain/*",
    "stemlab/widgets/static/*.js",
    "docs/vendor/*",
]


def load_script(path: Path) -> ModuleType:
    """Import a file that is in no package."""
    spec = importlib.util.spec_from_file_location(f"script_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # Its dataclasses look themselves up there.
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def inventory() -> ModuleType:
    return load_script(ROOT / "supply-chain" / "inventory.py")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    text = (ROOT / "supply-chain" / "inventory.cdx.json").read_text("utf-8")
    parsed: dict[str, Any] = json.loads(text)
    return parsed


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the inventory is made from, to be damaged."""
    for pattern in COPIED:
        for path in ROOT.glob(pattern):
            if path.is_file():
                target = tmp_path / path.relative_to(ROOT)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)
    return tmp_path


def components(document: dict[str, Any], kind: str) -> dict[str, dict[str, Any]]:
    found = [c for c in document["components"] if c["type"] == kind]
    by_name = {c["name"]: c for c in found}
    assert len(by_name) == len(found)
    return by_name


def values(component: dict[str, Any], name: str) -> list[str]:
    return [p["value"] for p in component["properties"] if p["name"] == f"stemlab:{name}"]


# --- what it says


def test_inventory_is_up_to_date(inventory: ModuleType) -> None:
    found = inventory.check(ROOT)
    assert not found, "run make supply-chain\n" + "\n".join(found)


def test_inventory_is_the_same_everywhere(document: dict[str, Any]) -> None:
    text = (ROOT / "supply-chain" / "inventory.cdx.json").read_bytes().decode("utf-8")
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert "timestamp" not in text
    assert "\r" not in text
    assert text.endswith("}\n")


def test_packages_are_the_constraints(document: dict[str, Any]) -> None:
    lines = (ROOT / "supply-chain" / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    listed = components(document, "library")
    assert sorted(listed) == sorted(pin.name for pin in pins)
    for pin in pins:
        component = listed[pin.name]
        assert f"=={component['version']}" == str(pin.specifier)
        assert component["purl"] == f"pkg:pypi/{pin.name}@{component['version']}"
        assert values(component, "marker") == ([str(pin.marker)] if pin.marker else [])
        assert component["licenses"]
    assert values(listed["torch"], "needed-by") == ["runtime"]
    assert values(listed["av"], "needed-by") == ["av, dev"]
    assert values(listed["hatchling"], "needed-by") == ["build, dev"]
    assert values(listed["sympy"], "needed-by") == ["other packages"]


def test_installed_packages_are_listed_with_their_version(document: dict[str, Any]) -> None:
    listed = components(document, "library")
    checked = 0
    for distribution in importlib.metadata.distributions():
        name = canonicalize_name(distribution.name)
        if name in listed:
            # A build such as 2.13.0+cpu is the same version.
            assert Version(distribution.version).public == listed[name]["version"], name
            checked += 1
    assert checked > 100


def test_licences_are_those_that_the_installed_packages_state(document: dict[str, Any]) -> None:
    listed = components(document, "library")
    spdx = get_spdx_licensing()
    checked = 0
    for distribution in importlib.metadata.distributions():
        component = listed.get(canonicalize_name(distribution.name))
        stated = distribution.metadata["License-Expression"]
        if component is None or not stated or values(component, "licence-differs"):
            continue
        ((recorded,),) = [list(entry.values()) for entry in component["licenses"]]
        # What a wheel carries of others may stand beside it.
        recorded = recorded if isinstance(recorded, str) else recorded["id"]
        assert spdx.contains(recorded, stated), (distribution.name, recorded, stated)
        checked += 1
    assert checked > 50


def test_models_are_listed_with_digests_licences_and_origins(document: dict[str, Any]) -> None:
    listed = components(document, "machine-learning-model")
    registry = json.loads((ROOT / "models" / "registry.json").read_text("utf-8"))["models"]
    assert listed.keys() == registry.keys()
    for name, model in listed.items():
        manifest = json.loads((ROOT / "models" / name / "manifest.json").read_text("utf-8"))
        for key in ("code_license", "weight_license", "origin", "training_data"):
            said = key.replace("_", "-").replace("license", "licence")
            assert values(model, said) == [manifest[key]]
        assert sorted(values(model, "dispute")) == sorted(manifest["disputes"])
        assert values(model, "manifest-sha256") == [registry[name]["manifest_sha256"]]
        files = {file["name"]: file for file in model["components"]}
        expected = [file for network in manifest["networks"] for file in network["files"]]
        assert len(expected) == len(files)
        for file in expected:
            component = files[file["name"]]
            assert component["hashes"] == [{"alg": "SHA-256", "content": file["sha256"]}]
            assert values(component, "bytes") == [str(file["bytes"])]
            addresses = [r["url"] for r in component.get("externalReferences", [])]
            assert addresses == ([file["url"]] if "url" in file else [])
    assert listed["stemlab-mini"]["licenses"] == [{"license": {"id": "MIT"}}]
    for name in listed.keys() - {"stemlab-mini"}:
        # In the words of the manifest, never as one of the known licences.
        ((licence,),) = [list(each.values()) for each in listed[name]["licenses"]]
        assert set(licence) == {"name"}
        assert licence["name"].startswith(("disputed", "not stated"))


def sounds() -> dict[str, dict[str, Any]]:
    text = (ROOT / "supply-chain" / "sound-sources.toml").read_text("utf-8")
    return {name: each for name, each in tomllib.loads(text).items() if isinstance(each, dict)}


def test_sounds_tell_training_from_evaluation(document: dict[str, Any]) -> None:
    listed = components(document, "data")
    uses = {name: values(sound, "used-for")[0] for name, sound in listed.items()}
    assert uses["FluidR3_GM"] == uses["flite"] == "training"
    assert uses["TimGM6mb"] == uses["stempeg-example"] == "evaluation"
    (learned,) = [
        entry["dependsOn"]
        for entry in document["dependencies"]
        if entry["ref"] == "model:stemlab-mini"
    ]
    expected = {name for name, each in sounds().items() if each["use"] != "evaluation"}
    assert set(learned) == {f"sound:{name}" for name in expected}


def test_inventory_lists_the_javascript(document: dict[str, Any]) -> None:
    """What the wheel carries is ours; what is not goes into reports, with its licence."""
    ours, vendored = (
        {path.relative_to(ROOT).as_posix() for path in (ROOT / folder).rglob("*.js")}
        for folder in ("stemlab", "docs/vendor")
    )
    listed = {
        value: each
        for each in document["components"]
        for value in (values(each, "path") if each["bom-ref"].startswith("javascript:") else ())
    }
    assert listed.keys() == ours | vendored
    assert values(document["metadata"], "bundled-javascript") == [f"{len(ours)} files"]
    for path, script in listed.items():
        assert (values(script, "origin") == ["this project"]) == (path in ours)
        assert script["scope"] == ("required" if path in ours else "excluded")
        assert (ROOT / f"{path}.LICENSE.txt").is_file() == (path in vendored)
        if path in vendored:
            assert script["purl"].startswith("pkg:npm/")
            assert f"@{script['version']}#" in script["purl"]


# --- what it refuses


def replace(path: str, pattern: str, replacement: str) -> Callable[[Path], None]:
    def damage(root: Path) -> None:
        text = (root / path).read_text("utf-8")
        changed, count = re.subn(pattern, replacement, text, count=1, flags=re.MULTILINE)
        assert count == 1
        (root / path).write_bytes(changed.encode("utf-8"))

    return damage


def change_manifest(**changes: object) -> Callable[[Path], None]:
    """Change a manifest and the registry with it, so that only the change itself is wrong."""

    def damage(root: Path) -> None:
        path = root / "models" / "htdemucs" / "manifest.json"
        manifest = json.loads(path.read_text("utf-8"))
        file = manifest["networks"][0]["files"][0]
        for key, value in changes.items():
            (file if key in file else manifest)[key] = value
        path.write_bytes(json.dumps(manifest).encode("utf-8"))
        registry_path = root / "models" / "registry.json"
        registry = json.loads(registry_path.read_text("utf-8"))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        registry["models"]["htdemucs"]["manifest_sha256"] = digest
        registry_path.write_bytes(json.dumps(registry).encode("utf-8"))

    return damage


def exchange_weights(root: Path) -> None:
    path = root / "models" / "stemlab-mini" / "stemlab-mini.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def add_script(root: Path) -> None:
    (root / "stemlab" / "widgets" / "third.js").write_bytes(b"export default {};\n")


TABLES = "supply-chain"
MINI = "models/stemlab-mini/manifest.json"


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        pytest.param(
            replace(f"{TABLES}/admissions.toml", r"^\[librosa\]$", "[librosa-too]"),
            "admissions.toml: librosa is missing, a direct dependency",
            id="no admission",
        ),
        pytest.param(
            replace("pyproject.toml", r'^    "librosa>=0.11",\n', ""),
            "admissions.toml: librosa is no direct dependency",
            id="admission of nothing",
        ),
        pytest.param(
            replace(f"{TABLES}/admissions.toml", r'^why = ".*"$', 'why = ""'),
            "does not say why it is here",
            id="admission without reason",
        ),
        pytest.param(
            replace(f"{TABLES}/admissions.toml", r"^size_mb = .*$", ""),
            "has no size_mb",
            id="admission without size",
        ),
        pytest.param(
            replace(f"{TABLES}/licenses.toml", r"^sympy = ", 'librosa = "MIT"\nsympy = '),
            "licenses.toml: librosa is not among the packages that others pull in",
            id="two licences",
        ),
        pytest.param(
            replace(f"{TABLES}/licenses.toml", r"^sympy = .*\n", ""),
            "licenses.toml: sympy has no licence",
            id="no licence",
        ),
        pytest.param(
            replace(f"{TABLES}/licenses.toml", r'^sympy = ".*"$', 'sympy = "BSD"'),
            "sympy: 'BSD' is no SPDX expression",
            id="unknown licence",
        ),
        pytest.param(
            replace(f"{TABLES}/admissions.toml", r"^license = .*\n", ""),
            "admissions.toml: anywidget has no licence",
            id="admission without licence",
        ),
        pytest.param(
            replace(f"{TABLES}/constraints.txt", r"^librosa==.*\n", ""),
            "constraints.txt: librosa is missing, which pyproject.toml asks for",
            id="not pinned",
        ),
        pytest.param(
            change_manifest(sha256="d9fa1413"),
            "'d9fa1413' is not 64 hex digits",
            id="short digest of weights",
        ),
        pytest.param(
            replace("models/registry.json", r'("manifest_sha256": "\w{8})\w+', r"\1"),
            "models/registry.json: stemlab-mini: 'fd0b14c4' is not 64 hex digits",
            id="short digest of a manifest",
        ),
        pytest.param(
            change_manifest(weight_license=""),
            "models/htdemucs/manifest.json has no weight_license",
            id="weights without licence",
        ),
        pytest.param(
            change_manifest(url=""),
            "955717e8.safetensors has no url, and is not bundled",
            id="weights without address",
        ),
        pytest.param(
            exchange_weights,
            "models/stemlab-mini/stemlab-mini.safetensors has 6517104 bytes and SHA-256",
            id="other weights",
        ),
        pytest.param(
            replace(MINI, r'"bytes": \d+', '"bytes": 1'),
            "its manifest has 1 and",
            id="other size",
        ),
        pytest.param(
            replace(MINI, r'"title": "', '"title": "The '),
            f"{MINI} has SHA-256",
            id="other manifest",
        ),
        pytest.param(
            replace("models/registry.json", '"htdemucs": {', '"htdemucs_2": {'),
            "models/registry.json: htdemucs is missing, which has a manifest",
            id="unregistered model",
        ),
        pytest.param(
            change_manifest(weight_license="MIT"),
            "hides that the licence is disputed",
            id="disputed licence hidden",
        ),
        pytest.param(
            replace(f"{TABLES}/sound-sources.toml", r'^use = "evaluation"$', 'use = "fun"'),
            "TimGM6mb is not used for one of training, evaluation, tool",
            id="sound of no use",
        ),
        pytest.param(
            replace(f"{TABLES}/sound-sources.toml", r'^license = ".*"$', ""),
            "sound-sources.toml: FluidR3_GM has no licence",
            id="sound without licence",
        ),
        pytest.param(
            add_script,
            "javascript.toml: stemlab/widgets/third.js is missing, which the wheel carries",
            id="undeclared script",
        ),
        pytest.param(
            replace("docs/vendor/require.js", "RequireJS 2.3.8", "RequireJS 2.3.9"),
            "docs/vendor/require.js has SHA-256",
            id="other script of others",
        ),
        pytest.param(
            replace(f"{TABLES}/javascript.toml", r"^sha256 = .*$", ""),
            "javascript.toml: docs/vendor/embed-amd.js has no sha256",
            id="script of others without digest",
        ),
        pytest.param(
            replace(f"{TABLES}/javascript.toml", r"docs/vendor/require", "docs/vendor/required"),
            "javascript.toml: docs/vendor/require.js is missing, which goes into reports",
            id="undeclared script of others",
        ),
    ],
)
def test_disagreement_is_refused(
    inventory: ModuleType,
    copy: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path], None],
    fault: str,
) -> None:
    monkeypatch.setattr(inventory, "ROOT", copy)
    before = (copy / inventory.INVENTORY).read_bytes()
    damage(copy)
    assert inventory.main([]) == 1
    assert inventory.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert said.count(fault) == 2, said
    assert (copy / inventory.INVENTORY).read_bytes() == before


def test_a_changed_version_is_named_and_renewed(
    inventory: ModuleType,
    copy: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inventory, "ROOT", copy)
    assert inventory.main(["--check"]) == 0
    replace("supply-chain/constraints.txt", r"^librosa==.*$", "librosa==0.99.0")(copy)
    assert inventory.main(["--check"]) == 1
    said = capsys.readouterr().err
    assert "package:librosa version is '0.11.0', should be '0.99.0'" in said
    assert "make supply-chain" in said
    assert inventory.main([]) == 0
    assert inventory.main(["--check"]) == 0


def test_an_edited_or_missing_inventory_is_noticed(inventory: ModuleType, copy: Path) -> None:
    path = copy / inventory.INVENTORY
    path.write_bytes(path.read_bytes().replace(b'  "', b' "', 1))
    assert inventory.check(copy)
    path.unlink()
    assert inventory.check(copy) == ["supply-chain/inventory.cdx.json is missing"]


def test_a_declared_script_is_listed(inventory: ModuleType, copy: Path) -> None:
    add_script(copy)
    table = copy / "supply-chain" / "javascript.toml"
    before = table.read_text("utf-8")
    table.write_text(
        f'{before}\n["stemlab/widgets/third.js"]\nname = "third"\nlicense = "MIT"\n'
        'origin = "this project"\n',
        "utf-8",
    )
    document = json.loads(inventory.render(inventory.read_sources(copy)))
    script = components(document, "file")["third"]
    digest = hashlib.sha256(b"export default {};\n").hexdigest()
    assert script["hashes"][0]["content"] == digest
    count = sum(path.startswith("stemlab/") for path in tomllib.loads(before)) + 1
    assert values(document["metadata"], "bundled-javascript") == [f"{count} files"]


# --- the workflow


def test_workflow_runs_the_suite_and_the_checks_of_the_supply_chain() -> None:
    path = ROOT / ".github" / "workflows" / "check.yml"
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert workflow["permissions"] == {"contents": "read"}
    jobs = workflow["jobs"]
    commands = {
        name: "\n".join(step.get("run", "") for step in job["steps"]) for name, job in jobs.items()
    }
    assert [job["runs-on"].partition("-")[0] for job in jobs.values()] == [
        "ubuntu",
        "macos",
        "windows",
        "ubuntu",
    ]
    assert "bash .ci/run" in commands["linux"]
    assert "make test" in commands["macos-arm64"]
    assert "intel" not in jobs["macos-arm64"]["runs-on"]
    pinned = "--constraint supply-chain/constraints.txt"
    assert pinned in commands["windows"]
    assert "python -m pytest" in commands["windows"]
    assert "pip-audit --strict --requirement" in commands["supply-chain"]
    assert pinned in commands["supply-chain"]
    assert "python supply-chain/inventory.py --check" in commands["supply-chain"]
    used = [step["uses"] for job in jobs.values() for step in job["steps"] if "uses" in step]
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in used)
