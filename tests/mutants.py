"""Change the code a little and see whether the tests notice: ``make mutants``.

Each mutant is a copy of the tree with one small fault in one room. The test files of the room run
against it, and a mutant that passes them all points to something that no test looks at, or to code
that makes no difference. Which faults are planted is drawn from a seed.
"""

from __future__ import annotations

import argparse
import ast
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# The tests that belong to a room; a mutant runs against all of them.
ROOMS = {
    "chunking": ["test_chunking.py"],
    "metrics": ["test_metrics.py", "test_click_detection.py"],
    "registry": ["test_registry.py"],
    "separation": ["test_separation.py"],
}
TIMEOUT_SECONDS = 600

_PAIRS = [
    (ast.Lt, ast.LtE),
    (ast.Gt, ast.GtE),
    (ast.Eq, ast.NotEq),
    (ast.Is, ast.IsNot),
    (ast.In, ast.NotIn),
    (ast.And, ast.Or),
    (ast.Add, ast.Sub),
]
_SWAPPED = {one: other for pair in _PAIRS for one, other in (pair, pair[::-1])}

# The line, what is changed, and what changes it.
Change = tuple[int, str, Callable[[], None]]


def changes(tree: ast.Module) -> Iterator[Change]:
    """List what can be changed in a file."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            for place, operator in enumerate(node.ops):
                if type(operator) in _SWAPPED:
                    yield _swap(node.lineno, operator, node.ops.__setitem__, place)
        elif isinstance(node, (ast.BoolOp, ast.BinOp)) and type(node.op) in _SWAPPED:
            yield _swap(node.lineno, node.op, node.__setattr__, "op")
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            twice = ast.UnaryOp(ast.Not(), node.operand)
            yield _change(node.lineno, "not is dropped", node.__setattr__, "operand", twice)
        elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            near = [node.value + 1, node.value - 1]
            for value in [not node.value] if isinstance(node.value, bool) else near:
                words = f"{node.value} becomes {value}"
                yield _change(node.lineno, words, node.__setattr__, "value", value)
        elif isinstance(node, ast.FunctionDef):
            yield from _returns(node)


def _swap(line: int, operator: ast.AST, put: Callable[..., None], place: object) -> Change:
    other = _SWAPPED[type(operator)]
    words = f"{type(operator).__name__} becomes {other.__name__}"
    return _change(line, words, put, place, other())


def _change(
    line: int, words: str, put: Callable[..., None], place: object, value: object
) -> Change:
    return line, words, lambda: put(place, value)


def _returns(function: ast.FunctionDef) -> Iterator[Change]:
    """Return another name of the function in place of the one that is returned."""
    arguments = [argument.arg for argument in function.args.args]
    stored = [
        node.id
        for node in ast.walk(function)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    ]
    names = list(dict.fromkeys([*arguments, *stored]))
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Name):
            name = node.value.id
            if name in names and len(names) > 1:
                other = names[names.index(name) - 1]
                words = f"{other} is returned in place of {name}"
                yield _change(node.lineno, words, node.value.__setattr__, "id", other)


def mutate(path: Path, number: int) -> tuple[str, int, str]:
    """Make one of the changes of a file: its new text, the line, and what was changed."""
    tree = ast.parse(path.read_text("utf-8"))
    line, words, change = list(changes(tree))[number]
    change()
    return ast.unparse(ast.fix_missing_locations(tree)), line, words


def passes(copy: Path, room: str) -> bool:
    """Whether the tests of a room pass in a copy of the tree."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *(f"tests/{name}" for name in ROOMS[room])],
            cwd=copy,
            # For the processes that tests start, too.
            env={**os.environ, "PYTHONPATH": str(copy), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def main() -> None:
    """Make mutants, run the tests on each, and write what became of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rooms", nargs="*", default=[*ROOMS], metavar="ROOM", help="|".join(ROOMS))
    parser.add_argument("--count", type=int, default=10, help="mutants of each room")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "mutants.csv")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    left_out = shutil.ignore_patterns(".*", "build", "dist", "__pycache__")
    with tempfile.TemporaryDirectory() as folder, options.out.open("w", encoding="utf-8") as file:
        copy = Path(folder) / "tree"
        shutil.copytree(ROOT, copy, ignore=left_out)
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("room", "file", "line", "change", "outcome", "seconds"))
        for room in options.rooms:
            assert passes(copy, room), f"the tests of {room} fail without any mutant"
            mutants = [
                (path, number)
                for path in sorted((ROOT / "stemlab" / room).glob("*.py"))
                for number, _ in enumerate(changes(ast.parse(path.read_text("utf-8"))))
            ]
            count = min(options.count, len(mutants))
            for path, number in random.Random(options.seed).sample(mutants, count):
                name = path.relative_to(ROOT)
                text, line, words = mutate(path, number)
                (copy / name).write_text(text, "utf-8")
                started = time.monotonic()
                outcome = "SURVIVED" if passes(copy, room) else "caught"
                seconds = round(time.monotonic() - started)
                shutil.copy(path, copy / name)
                table.writerow((room, name, line, words, outcome, seconds))
                file.flush()
                print(f"{outcome:8}  {name}:{line}  {words}", flush=True)


if __name__ == "__main__":
    main()
