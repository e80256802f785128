"""``stemlab`` at the shell: in this process, which takes a moment, or in a fresh one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout

import pytest

from stemlab.cli import main

Done = subprocess.CompletedProcess[str]


def run_here(
    *arguments: object,
    cwd: os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Done:
    """Run a command in this process, where PyTorch is loaded already."""
    out, error = (io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True) for _ in range(2))
    words = [str(argument) for argument in arguments]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(error):
        if cwd is not None:
            patch.chdir(cwd)
        for name, value in (environment or {}).items():
            patch.setenv(name, value)
        try:
            code = main(words)
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 0
    said = [stream.buffer.getvalue().decode() for stream in (out, error)]
    return subprocess.CompletedProcess(words, code, *said)


def run_fresh(
    *arguments: object,
    cwd: os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> Done:
    """Run a command in a process of its own, where that is the point."""
    return subprocess.run(
        [sys.executable, "-m", "stemlab", *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
