"""``stemlab`` at the shell: in this process or a fork of it, which is quick, or in a fresh one."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
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


class Fork:
    """A command in a fork of this process, which has loaded PyTorch already.

    The command runs as in a process of its own. Only on systems that have forks.

    Parameters
    ----------
    *arguments : object
        Of ``stemlab``.
    cwd : path, optional
    environment : mapping, optional
        Variables that are set besides those of this process.
    first : callable, optional
        Called in the fork before the command.
    """

    def __init__(
        self,
        *arguments: object,
        cwd: os.PathLike[str] | None = None,
        environment: Mapping[str, str] | None = None,
        first: Callable[[], object] = lambda: None,
    ) -> None:
        self._words = [str(argument) for argument in arguments]
        self._streams = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Of threads, none of which the fork needs.
            self.pid = os.fork()
        if self.pid == 0:
            os.environ.update(environment or {})
            self._run(cwd, first)

    def _run(self, cwd: os.PathLike[str] | None, first: Callable[[], object]) -> None:
        code = 1
        try:
            for number, stream in enumerate(self._streams, start=1):
                os.dup2(stream.fileno(), number)
            # Those of pytest are put by.
            sys.stdout = open(1, "w", encoding="utf-8")  # noqa: SIM115
            sys.stderr = open(2, "w", encoding="utf-8")  # noqa: SIM115
            if cwd is not None:
                os.chdir(cwd)
            first()
            sys.argv = ["stemlab", *self._words]
            code = main()
        except SystemExit as stopped:
            code = stopped.code if isinstance(stopped.code, int) else 0
        except BaseException:  # noqa: BLE001 - whatever it is, the fork ends here
            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)

    def ended(self) -> bool:
        """Whether it ended, without waiting."""
        done = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        return done is not None

    def kill(self, number: int) -> Done:
        """Send a signal, and wait."""
        os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> Done:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        said = []
        for stream in self._streams:
            with stream:
                stream.seek(0)
                said.append(stream.read().decode())
        return subprocess.CompletedProcess(self._words, code, *said)


def run_forked(*arguments: object, cwd: os.PathLike[str] | None = None) -> Done:
    """Run a command in a fork, or a fresh process where there are no forks."""
    if not hasattr(os, "fork"):
        return run_fresh(*arguments, cwd=cwd)
    return Fork(*arguments, cwd=cwd).wait()
