"""Threads that wait do not keep other programs from the cores."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells what runs")
TELL = (
    "import os, stemlab; print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('OMP_WAIT_POLICY'))"
)


@pytest.fixture
def others() -> Iterator[None]:
    """A program for each core."""
    busy = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"])
        for _ in range(os.cpu_count() or 1)
    ]
    yield
    for each in busy:
        each.kill()
        each.wait()


def settings(program: str = TELL, **environment: str) -> list[str]:
    unset = {name: each for name, each in os.environ.items() if name != "GOMP_SPINCOUNT"}
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


def test_once_pytorch_is_loaded_it_is_too_late(others: None) -> None:
    assert settings(f"import torch; {TELL}") == ["None", "None"]


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
