"""Threads that wait do not keep other programs from the cores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what runs")
TELL = "print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
START = f"import os; from stemlab._threads import share_cores; share_cores(); {TELL}"
# Ends where PyTorch would be loaded.
COMMAND = (
    """
import os, sys
from stemlab.cli.parser import make_parser
from stemlab.errors import StemlabError

class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise ImportError("it is not to be loaded")

sys.meta_path.insert(0, Stop())
options = make_parser().parse_args({arguments!r})
try:
    options.run(options)
except (StemlabError, ImportError):
    pass
"""
    + TELL
)
IMPORT = """
import os, sys, time
before = dict(os.environ)
opened = []
time.sleep = lambda seconds: opened.append(f"slept {seconds}")
sys.addaudithook(lambda event, facts: event == "open" and opened.append(str(facts[0])))
import stemlab
assert dict(os.environ) == before
from stemlab import AudioStemSeparator, sweep
looked = [name for name in opened if name.startswith(("/proc/loadavg", "slept"))]
assert not looked, looked
assert "GOMP_SPINCOUNT" not in os.environ
"""


@pytest.fixture
def others() -> Iterator[None]:
    """Run a program on each core."""
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    yield
    for process in busy:
        process.kill()
        process.wait()


@pytest.fixture
def busy(tmp_path: Path) -> str:
    """A line of a program that makes the system tell of many others, without running them."""
    path = tmp_path / "loadavg"
    path.write_text(f"9 9 9 {(os.cpu_count() or 1) + 2}/99 7", "ascii")
    return f"import pathlib, stemlab._threads as t; t._WHAT_RUNS = pathlib.Path({str(path)!r})"


def settings(program: str = START, **environment: str) -> list[str]:
    unset = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    told = subprocess.run(
        [sys.executable, "-c", program],
        env={**unset, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return told.stdout.split()


def test_beside_others_threads_do_not_spin_long(others: None) -> None:
    assert settings() == ["1000", "None"]


def test_what_the_user_set_stays(others: None) -> None:
    assert settings(GOMP_SPINCOUNT="7") == ["7", "None"]
    assert settings(OMP_WAIT_POLICY="active") == ["None", "active"]


def test_once_pytorch_is_loaded_it_is_too_late(busy: str) -> None:
    assert settings(f"{busy}; import torch; {START}") == ["None", "None"]


def test_importing_stemlab_does_not_look_wait_or_set_anything() -> None:
    assert settings(IMPORT) == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["separate", "/nowhere.wav"], "1000"),
        (["analyze", "/nowhere.wav"], "1000"),
        (["sweep", "/nowhere.wav"], "1000"),
        (["models", "show", "nothing"], "None"),
    ],
)
def test_commands_that_separate_look_before_pytorch_is_loaded(
    busy: str, arguments: list[str], expected: str
) -> None:
    assert settings(busy + COMMAND.format(arguments=arguments)) == [expected, "None"]


def test_the_kernels_of_stemlab_lab_look_first(others: None) -> None:
    program = (
        "import os, sys, types; from stemlab.cli import _kernel; app = types.ModuleType('app'); "
        "app.launch_new_instance = lambda: print('torch' in sys.modules); "
        f"sys.modules['ipykernel.kernelapp'] = app; _kernel._main(); {TELL}"
    )
    assert settings(program) == ["False", "1000", "None"]


@pytest.mark.parametrize(
    ("told", "spins"),
    [
        ("0.1 0.2 0.3 1/99 7", True),
        ("0.1 0.2 0.3 {}/99 7", False),
        ("0.1 0.2 0.3", True),
        ("a b c d", True),
        (None, True),
    ],
    ids=["nobody else", "many", "cut", "no number", "nothing"],
)
def test_others_are_known_from_what_the_system_tells(tmp_path, told, spins) -> None:
    path = tmp_path / "loadavg"
    if told is not None:
        path.write_text(told.format((os.cpu_count() or 1) + 2), "ascii")
    program = (
        "import os; os.environ['GOMP_SPINCOUNT'] = '1'; from stemlab import _threads; "
        f"from pathlib import Path; _threads._WHAT_RUNS = Path({str(path)!r}); "
        "del os.environ['GOMP_SPINCOUNT']; _threads.share_cores(); "
        "print(os.environ.get('GOMP_SPINCOUNT'))"
    )
    assert settings(program) == ["None" if spins else "1000"]
