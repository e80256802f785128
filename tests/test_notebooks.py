"""The committed notebooks are complete, clean and really compared; nbval itself runs them."""

from __future__ import annotations

import copy
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import soundfile
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook, new_output

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
MAX_FILE_BYTES = 300_000
MAX_TEXT = 5_000
# Two parts make a path: a lone slash may be a division or an alternative.
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/<])/[\w.-]+/[\w.-]+|\b[A-Za-z]:\\+\w")


def texts(output: Any) -> Iterator[str]:
    """Everything in an output that people read, and nbval compares."""
    if output.output_type == "stream":
        yield output.text
    for kind, content in output.get("data", {}).items():
        if kind.startswith("text/"):
            yield content


def faults(notebook: Any) -> list[str]:
    """What keeps a notebook from being committed."""
    found = []
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        found.append(f"was not run once from top to bottom: execution counts {counts}")
    if not any(cell.outputs for cell in code):
        found.append("has no outputs: nbval would compare nothing")
    if "widgets" in notebook.metadata:
        found.append("holds the state of its widgets: execute it with store_widget_state=False")
    if len(nbformat.writes(notebook).encode()) > MAX_FILE_BYTES:
        found.append(f"is larger than {MAX_FILE_BYTES} bytes")
    for position, cell in enumerate(notebook.cells):
        outputs = cell.get("outputs", [])
        read = [text for output in outputs for text in texts(output)]
        if any(output.output_type == "error" for output in outputs):
            found.append(f"cell {position} ended in an error")
        if any(output.get("name") == "stderr" for output in outputs):
            found.append(f"cell {position} wrote to stderr")
        if sum(map(len, read)) > MAX_TEXT:
            found.append(f"cell {position} printed more than {MAX_TEXT} characters")
        for text in (cell.source, *read):
            if match := ABSOLUTE_PATH.search(text):
                found.append(f"cell {position} names the path {match.group()}")
    return found


def test_there_are_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS][:1] == ["01_separate.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_is_complete_and_clean(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert faults(notebook) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_opens_with_a_question_and_its_time(path: Path) -> None:
    opening = nbformat.read(path, as_version=4).cells[0]
    assert opening.cell_type == "markdown"
    assert opening.source.startswith("# ")
    assert "?" in opening.source
    assert re.search(r"\b(seconds?|minutes?)\b", opening.source)


# --- the check itself


def good_notebook() -> Any:
    return new_notebook(
        cells=[
            new_code_cell(
                "print(1 / 2)",
                execution_count=1,
                outputs=[new_output("stream", name="stdout", text="0.5\n")],
            ),
            new_code_cell("3 / 4", execution_count=2),
        ]
    )


def last_outputs(notebook: Any) -> Any:
    return notebook.cells[-1].outputs


BROKEN: dict[str, Callable[[Any], Any]] = {
    r"was not run once.*\[1, None\]": lambda nb: nb.cells[1].update(execution_count=None),
    r"was not run once.*\[2, 1\]": lambda nb: nb.cells.reverse(),
    r"was not run once.*\[1, 7\]": lambda nb: nb.cells[1].update(execution_count=7),
    "compare nothing": lambda nb: nb.cells[0].update(outputs=[]),
    "state of its widgets": lambda nb: nb.metadata.update(widgets={}),
    "is larger than": lambda nb: last_outputs(nb).append(
        new_output("display_data", {"image/png": "A" * MAX_FILE_BYTES})
    ),
    "cell 1 ended in an error": lambda nb: last_outputs(nb).append(
        new_output("error", ename="E", evalue="", traceback=[])
    ),
    "cell 1 wrote to stderr": lambda nb: last_outputs(nb).append(
        new_output("stream", name="stderr", text="careful")
    ),
    "cell 1 printed more": lambda nb: last_outputs(nb).append(
        new_output("stream", text="x" * (MAX_TEXT + 1))
    ),
    "cell 1 names the path /tmp/run": lambda nb: last_outputs(nb).append(
        new_output("execute_result", {"text/plain": "PosixPath('/tmp/run')"})
    ),
    "cell 0 names the path /mnt/data": lambda nb: nb.cells[0].update(source="'/mnt/data/x'"),
    r"cell 0 names the path C:\\\\": lambda nb: nb.cells[0].update(source=r"'C:\\data'"),
}


def test_a_good_notebook_has_no_faults() -> None:
    assert faults(good_notebook()) == []


@pytest.mark.parametrize("message", BROKEN)
def test_each_fault_is_found(message: str) -> None:
    notebook = copy.deepcopy(good_notebook())
    BROKEN[message](notebook)
    (fault,) = faults(notebook)
    assert re.search(message, fault), fault


def test_nbval_compares_with_our_settings(tmp_path: Path) -> None:
    """Times may differ, other numbers may not."""
    for name, stored in (
        ("time", "level -12.5 dB after 3.1 s\n"),
        ("number", "level -12.4 dB after 2.2 s\n"),
    ):
        cell = new_code_cell(
            "print('level -12.5 dB after 2.2 s')",
            execution_count=1,
            outputs=[new_output("stream", name="stdout", text=stored)],
        )
        nbformat.write(new_notebook(cells=[cell]), tmp_path / f"{name}.ipynb")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-c", "pyproject.toml"]
    result = subprocess.run(
        [*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 1, result.stdout + result.stderr
    assert "1 failed, 1 passed" in result.stdout
    assert "-12.4" in result.stdout


def test_make_test_runs_every_notebook() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "--quiet", "notebooks"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    for path in NOTEBOOKS:
        cells = nbformat.read(path, as_version=4).cells
        code = sum(cell.cell_type == "code" for cell in cells)
        assert result.stdout.count(f"notebooks/{path.name}::") == code > 0


ONE, *OTHERS = NOTEBOOKS


@pytest.mark.parametrize(
    "path",
    [ONE, *(pytest.param(path, marks=pytest.mark.long) for path in OTHERS)],
    ids=lambda path: path.name,
)
def test_cells_run_in_any_order_and_again(path: Path, tmp_path: Path) -> None:
    """The first code cell is the only one that others need; the rest from the last to the first."""
    notebook = nbformat.read(path, as_version=4)
    first, *others = (cell for cell in notebook.cells if cell.cell_type == "code")
    notebook.cells = [copy.deepcopy(cell) for cell in (first, *reversed(others), first)]
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    for cell in notebook.cells:
        assert [each for each in cell.outputs if each.get("name") == "stderr"] == []
    # Nothing was written beside the notebook: its folder may be read-only.
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "name", ["01_separate.ipynb", pytest.param("02_chunk_sweep.ipynb", marks=pytest.mark.long)]
)
def test_any_song_can_take_the_place_of_the_demo_song(
    name: str, tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the cells say of the demo song need not be true of others: here, of noise."""
    monkeypatch.setenv("STEMLAB_CACHE", str(tmp_path / "cache"))
    song = tmp_path / "noise.mp3"
    soundfile.write(song, rng.uniform(-0.5, 0.5, 4 * 48_000), 48_000)
    notebook = nbformat.read(ROOT / "notebooks" / name, as_version=4)
    first, *others = (cell for cell in notebook.cells if cell.cell_type == "code")
    notebook.cells = [first, new_code_cell(f"panel.song = {str(song)!r}"), *others]
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=300, resources=resources).execute()
