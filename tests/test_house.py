"""The house rules: docstrings, the façade, and files that must agree."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import os
import pkgutil
import re
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from numpydoc.validate import validate
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

import stemlab

ROOT = Path(__file__).resolve().parent.parent
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PROJECT = PYPROJECT["project"]
TRAINING: dict[str, Any] = tomllib.loads(
    (ROOT / "models" / "training" / "pyproject.toml").read_text("utf-8")
)["project"]

PUBLIC = [
    "AudioError",
    "AudioNotFoundError",
    "AudioStemSeparator",
    "ChunkPlan",
    "CostEstimate",
    "CostModel",
    "DownloadError",
    "MissingDependencyError",
    "ModelError",
    "ModelManifest",
    "ModelNotFoundError",
    "ModelRefusedError",
    "OutOfMemoryError",
    "OutputError",
    "OutputSettings",
    "ParameterError",
    "Recommendation",
    "ReplayReport",
    "SegmentDone",
    "SeparationError",
    "SeparationResult",
    "SeparationSettings",
    "SongReport",
    "SpectralComparison",
    "SpectralGrid",
    "StemBlock",
    "StemlabError",
    "Sweep",
    "__version__",
    "add_model",
    "analyze",
    "bss_eval",
    "calibrate",
    "clicks",
    "compare_spectra",
    "compare_spectrograms",
    "consistency",
    "demo_song_dir",
    "find_model",
    "list_models",
    "plan_sweep",
    "read_file",
    "read_sweep",
    "recommend",
    "remove_model",
    "replay",
    "save_result",
    "sdr",
    "seams",
    "si_sdr",
    "sweep",
    "verify_model",
    "write_file",
    "write_sweep",
]

# Packages that take long to load, and that a person who only wants the version should not wait for.
HEAVY = {"IPython", "demucs", "ipywidgets", "librosa", "matplotlib", "pandas", "scipy", "torch"}

# Names on conda-forge where they differ from those on PyPI.
CONDA_NAMES = {"soundfile": "pysoundfile", "soxr": "soxr-python", "torch": "pytorch"}


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


# --- docstrings


def is_public(module_name: str) -> bool:
    return not any(part.startswith("_") for part in module_name.split("."))


def public_modules() -> Iterator[str]:
    for module in pkgutil.walk_packages(stemlab.__path__, "stemlab."):
        if is_public(module.name):
            yield module.name


def public_objects(module_name: str) -> Iterator[tuple[str, Any]]:
    """Functions, classes and their own methods that a module defines, or exports for others."""
    module = importlib.import_module(module_name)
    exported = getattr(module, "__all__", ())
    for name, thing in list(vars(module).items()):
        if name.startswith("_") or not (inspect.isroutine(thing) or inspect.isclass(thing)):
            continue
        defined_in = thing.__module__
        if defined_in != module_name and (name not in exported or is_public(defined_in)):
            continue
        yield f"{module_name}.{name}", thing
        for member_name, member in vars(thing).items() if inspect.isclass(thing) else ():
            described = isinstance(member, property | classmethod | staticmethod)
            if not member_name.startswith("_") and (described or inspect.isfunction(member)):
                yield f"{module_name}.{name}.{member_name}", getattr(thing, member_name)


def raises_something(thing: Any) -> bool:
    if not inspect.isroutine(thing):
        return False
    tree = ast.parse(textwrap.dedent(inspect.getsource(thing)))
    return any(isinstance(node, ast.Raise) and node.exc for node in ast.walk(tree))


def reference() -> set[str]:
    """Module and name of everything in the reference."""
    names, module = set(), ""
    for line in (ROOT / "docs" / "api.rst").read_text("utf-8").splitlines():
        if match := re.fullmatch(r"\.\. currentmodule:: (\S+)", line):
            module = match[1]
        elif re.fullmatch(r" {3}\w+", line):
            thing = getattr(importlib.import_module(module), line.strip())
            names.add(f"{thing.__module__}.{thing.__qualname__}")
    return names


SECTIONS = re.compile(r"^(Parameters|Attributes|Returns|Yields|Raises)\n-+$", re.MULTILINE)


def docstring_faults(name: str, thing: Any, *, in_reference: bool) -> Iterator[str]:
    checks = set(PYPROJECT["tool"]["numpydoc_validation"]["checks"])
    docstring = inspect.getdoc(thing) or ""
    if not in_reference:  # A line says what it does; sections are for readers of the reference.
        checks = {check for check in checks if check.startswith(("GL", "SS"))}
    if inspect.isclass(thing) and (
        issubclass(thing, BaseException)
        or "__init__" not in vars(thing)
        or "Attributes\n---" in docstring
    ):
        # The errors tell their attributes in a sentence, an inherited constructor is described
        # by the base class, and a dataclass may list its fields as Attributes.
        checks.discard("PR01")
    if "Yields\n---" in docstring:
        # Also true of a function that returns the generator of another.
        checks.discard("RT01")
    for code, message in validate(name)["errors"]:
        if code in checks:
            yield f"{name}: {code} {message}"
    if not in_reference and (found := SECTIONS.search(docstring)):
        yield f"{name}: {found[1]} section, though it is not in the reference (docs/api.rst)"
    if in_reference and raises_something(thing) and "Raises\n---" not in docstring:
        yield f"{name}: raises and has no Raises section"


def is_in(documented: set[str], name: str, thing: Any) -> bool:
    """Whether a name, or the class that it belongs to, is in the reference."""
    module = getattr(thing, "__module__", name.rpartition(".")[0])
    path = getattr(thing, "__qualname__", "").partition(".")[0]
    return bool({f"{module}.{path}", name, name.rpartition(".")[0]} & documented)


# numpydoc reads every attribute of a class, the deprecated ones of ipywidgets too.
@pytest.mark.filterwarnings(r"ignore:Widget\..* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("module_name", sorted(public_modules()))
def test_docstrings_follow_numpydoc(module_name: str) -> None:
    documented = reference()
    faults = [
        fault
        for name, thing in public_objects(module_name)
        for fault in docstring_faults(name, thing, in_reference=is_in(documented, name, thing))
    ]
    assert not faults, "\n".join(faults)


# --- the façade


def test_import_loads_nothing_heavy() -> None:
    code = "import sys, stemlab, stemlab.errors; print(*{m.partition('.')[0] for m in sys.modules})"
    result = run(sys.executable, "-c", code)
    assert result.returncode == 0, result.stderr
    loaded = set(result.stdout.split())
    assert "stemlab" in loaded
    assert not loaded & HEAVY


def test_exported_names_are_pinned() -> None:
    assert sorted(stemlab.__all__) == PUBLIC
    assert set(PUBLIC) <= set(dir(stemlab))


@pytest.mark.parametrize("name", PUBLIC)
def test_exported_name_resolves(name: str) -> None:
    assert getattr(stemlab, name) is not None


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        stemlab.no_such_name  # noqa: B018


# --- files that must agree


def requirements(*extras: str) -> dict[str, Requirement]:
    optional = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    return {canonicalize_name(r.name): r for r in map(Requirement, lines)}


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "supply-chain" / "constraints.txt").read_text("utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    by_name = {canonicalize_name(pin.name): pin for pin in pins}
    assert len(by_name) == len(pins), "a package is pinned twice"
    return by_name


def test_constraints_are_exact_pins() -> None:
    for pin in constraints().values():
        (specifier,) = pin.specifier
        assert specifier.operator == "==", pin
        assert "*" not in specifier.version, pin
        # A build of one index ("+cpu") would shut out everybody else.
        assert Version(specifier.version).local is None, pin
        assert pin.url is None
        assert not pin.extras


def test_constraints_meet_pyproject() -> None:
    pins = constraints()
    needed = requirements(*PROJECT["optional-dependencies"]).values()
    for requirement in (*needed, *map(Requirement, TRAINING["dependencies"])):
        name = canonicalize_name(requirement.name)
        assert name in pins, f"{requirement} is not in supply-chain/constraints.txt"
        (pinned,) = pins[name].specifier
        assert requirement.specifier.contains(pinned.version), (requirement, pins[name])


def test_constraints_cover_what_is_installed() -> None:
    """Follow the installed packages' own requirements: each one that applies here is pinned."""
    pins = constraints()
    open_requirements = list(requirements("dev", "lab", "av").values())
    seen: set[tuple[str, frozenset[str]]] = set()
    while open_requirements:
        requirement = open_requirements.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        assert name in pins, f"{name} is needed and not in supply-chain/constraints.txt"
        for line in importlib.metadata.requires(name) or []:
            needed = Requirement(line)
            if needed.marker is None or any(
                needed.marker.evaluate({**default_environment(), "extra": extra})
                for extra in {"", *requirement.extras}
            ):
                open_requirements.append(needed)
    assert {"torch", "filelock", "jupyter-server"} <= {name for name, _ in seen}


def test_conda_environment_matches_pyproject() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *conda, pip = environment["dependencies"]
    assert environment["channels"] == ["conda-forge"]
    assert pip["pip"][-1] == "--editable ."
    listed = [*conda, *pip["pip"][:-1]]
    expected = {
        f"{CONDA_NAMES.get(name, name)}{requirement.specifier}"
        for name, requirement in requirements("lab", "av").items()
    }
    assert set(listed) == expected | {f"python{PROJECT['requires-python']}", "pip"}
    assert len(listed) == len(set(listed))


def agree(version: str, changelog: str) -> bool:
    """Whether a changelog is well-formed and its newest release, if any, is this version."""
    headings = re.findall(r"^## \[(.+?)\](.*)$", changelog, re.MULTILINE)
    released = headings[1:]
    versions = [Version(name) for name, _ in released]
    return (
        headings[0] == ("Unreleased", "")
        and all(re.fullmatch(r" - \d{4}-\d\d-\d\d", date) for _, date in released)
        and versions == sorted(versions, reverse=True)
        and (not versions or versions[0] == Version(version))
    )


def test_version_and_changelog_agree() -> None:
    assert "version" in PROJECT["dynamic"]
    assert PYPROJECT["tool"]["hatch"]["version"]["path"] == "stemlab/_version.py"
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert agree(stemlab.__version__, changelog)


def test_the_next_release_agrees_with_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    released = changelog.replace("## [Unreleased]", "## [Unreleased]\n\n## [9.0.0] - 2030-01-31")
    assert agree("9.0.0", released)
    assert not agree("8.9.9", released)
    assert not agree("9.0.0", released.replace("2030-01-31", "soon"))
    assert not agree("9.0.0", released.replace("## [Unreleased]\n\n", ""))
    later = released.replace("## [9.0.0]", "## [9.0.0] - 2030-01-31\n\n## [9.0.1]")
    assert not agree("9.0.0", later)


def test_licence_is_mit_and_covers_the_weights() -> None:
    text = (ROOT / "LICENSE").read_text("utf-8")
    assert text.startswith("MIT License\n")
    assert re.search(r"^Copyright \(c\) \d{4} the stemlab developers$", text, re.MULTILINE)
    assert "model weights trained by\nthis project (models/stemlab-mini)" in text
    assert PROJECT["license"] == "MIT"
    assert PROJECT["license-files"] == ["LICENSE"]


def tracked_texts() -> Iterator[tuple[Path, str]]:
    """Every text file that is in the repository or would be at the next commit."""
    listing = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    assert listing.returncode == 0, listing.stderr
    for name in filter(None, listing.stdout.split("\0")):
        path = ROOT / name
        if not path.is_file():
            continue
        try:
            yield path, path.read_text("utf-8")
        except UnicodeDecodeError:
            continue


MACHINE_PATH = re.compile(
    r"(?<![\w.])/(?:home|root|Users|work|farm)/\w|\b[A-Za-z]:(?:\\|/)+Users\b"
)


def test_no_file_names_a_path_of_one_machine() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path, text in tracked_texts()
        if (match := MACHINE_PATH.search(text))
    ]
    assert not found, "\n".join(found)


def test_paths_of_one_machine_are_recognised() -> None:
    for path in ("/".join(["", "home", "ann"]), "\\".join(["C:", "Users", "ann"])):
        assert MACHINE_PATH.search(f"see '{path}'")
    assert not MACHINE_PATH.search("https://example.org" + "/".join(["", "home", "ann"]))


# --- the commands

UNIX_SHELL = pytest.mark.skipif(sys.platform == "win32", reason="the commands need a Unix shell")


def make_targets() -> set[str]:
    text = (ROOT / "Makefile").read_text("utf-8")
    return set(re.findall(r"^([a-z-]+):.* ## ", text, re.MULTILINE))


@UNIX_SHELL
def test_make_lists_every_target() -> None:
    result = run("make")
    assert result.returncode == 0, result.stderr
    assert set(re.findall(r"^  make ([a-z-]+) ", result.stdout, re.MULTILINE)) == make_targets()
    assert {"demo", "test", "check", "lint", "format", "lab", "clean"} <= make_targets()


def test_make_commands_of_the_documents_exist() -> None:
    for path, text in tracked_texts():
        if path.suffix != ".md":
            continue
        code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
        named = set(re.findall(r"(?:^|`|&& |\$ )make ([a-z-]+)", "\n".join(code), re.MULTILINE))
        assert named <= make_targets(), f"{path.relative_to(ROOT)} names {named - make_targets()}"


@UNIX_SHELL
def test_make_refuses_an_old_python_in_one_line(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    # Answers the two questions the Makefile asks: "new enough?" no; "which version?" 3.9.2.
    old.write_text('#!/bin/sh\ncase "$*" in *version_info*) exit 1;; *) echo 3.9.2;; esac\n')
    old.chmod(0o755)
    result = run("make", "demo", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}")
    assert result.returncode != 0
    said = [line for line in result.stderr.splitlines() if "Error" not in line]
    assert said == [
        f"make: stemlab needs Python 3.11 or newer and {old} is 3.9.2; "
        "name a newer one: make PYTHON=python3.12"
    ]
    assert not (tmp_path / "venv").exists()


@UNIX_SHELL
def test_continuous_integration_runs_the_tests_and_the_checks() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert run("bash", "-n", script).returncode == 0
    lines = script.read_text("utf-8").splitlines()
    assert "set -euo pipefail" in lines
    assert lines.index("make check") < lines.index("make test")
    assert lines[-1].endswith("-- models/training 2> /dev/null || make test-training")
