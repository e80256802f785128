"""The reference is built from the docstrings without a warning, and is complete."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

import pytest

import stemlab
from stemlab import plots, widgets
from stemlab.metrics import FIGURES

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("docs")
    # A copy: Sphinx puts a page for each name beside the sources.
    command = f"""
import shutil, sys
from sphinx.cmd.build import main
shutil.copytree({str(ROOT / "docs")!r}, {str(folder / "sources")!r},
                ignore=shutil.ignore_patterns("generated", "vendor"))
sys.exit(main(["-q", "-W", "--keep-going", {str(folder / "sources")!r}, {str(folder / "html")!r}]))
"""
    result = subprocess.run(
        [sys.executable, "-c", command], capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    return folder / "html"


def test_every_public_name_has_a_page(pages: Path) -> None:
    found = {each.stem for each in (pages / "generated").glob("*.html")}
    public = {f"stemlab.{name}" for name in stemlab.__all__ if not name.startswith("_")}
    for module in (plots, widgets):
        names = {name for name in module.__all__ if f"stemlab.{name}" not in public}
        public |= {f"{module.__name__}.{name}" for name in names}
    assert found == public


def test_a_page_has_what_the_docstring_says(pages: Path) -> None:
    page = (pages / "generated" / "stemlab.si_sdr.html").read_text("utf-8")
    text = re.sub(r"<[^>]+>", "", page)
    for part in ("Parameters:", "Returns:", "Raises:", "References", "Examples", "&gt;&gt;&gt; "):
        assert part in text


def test_the_reference_lists_every_figure(pages: Path) -> None:
    page = (pages / "api.html").read_text("utf-8")
    assert [name for name in FIGURES if f">{name}<" not in page] == []


def test_the_promises_name_tests_that_exist_and_count_the_attacks() -> None:
    text = (ROOT / "docs" / "promises.rst").read_text("utf-8")
    named = set(re.findall(r"``(test_\w+\.py)``", text))
    assert len(named) > 10
    there = {path.name for folder in ("tests", "checks") for path in (ROOT / folder).glob("*.py")}
    assert named <= there
    with (ROOT / "docs" / "attacks.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert f"{len(rows)} attacks, all refused" in text
    assert all(each["outcome"].startswith("refused: ") for each in rows)


def test_pages_load_nothing_from_elsewhere(pages: Path) -> None:
    for page in pages.rglob("*.html"):
        loaded = re.findall(r"<(?:script|link|img|iframe)\b[^>]*", page.read_text("utf-8"))
        assert loaded
        assert [each for each in loaded if "//" in each] == []
