"""Processes that may come to grief: a separator that is handed anything, and commands to be killed.

What crashes, hangs or eats the memory takes its process along and not the tests, which then say
what it was given. Run as a program, this file is either process.
"""

from __future__ import annotations

import importlib
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

__all__ = [
    "WITHOUT_NETWORK",
    "Nursery",
    "Outcome",
    "Victim",
    "cases",
    "killed_at",
    "mounted",
    "network_can_be_left",
    "permissions_hold",
]

# No file of the tests takes a hundredth of these; what does not end takes all of it.
_PATIENCE_SECONDS = 120
_MEMORY_BYTES = 1_000_000_000


# A network namespace without an interface that is up, not even the loopback.
WITHOUT_NETWORK = ["unshare", "--net", "--map-root-user"]


def network_can_be_left() -> bool:
    """Whether the system lets this user run programs where there is no network."""
    if sys.platform != "linux" or not shutil.which(WITHOUT_NETWORK[0]):
        return False
    reach = [sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"]
    tried = subprocess.run([*WITHOUT_NETWORK, *reach], capture_output=True, text=True, check=False)
    if "unshare" in tried.stderr:
        return False
    assert "Network is unreachable" in tried.stderr
    return True


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Run something in a fork that is killed at its nth change of a file; whether it was."""
    changes = {"os.link", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}
    left = number

    def count(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        counts = event in changes
        if event == "open":
            mode, flags = arguments[1:]
            writes = flags & (os.O_CREAT | os.O_TRUNC) if isinstance(flags, int) else 0
            counts = bool(writes) or (mode is not None and "r" not in mode)
        if counts:
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of threads, none of which the fork needs.
        child = os.fork()
    if child == 0:
        code = 1
        try:
            sys.addaudithook(count)
            work()
            code = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the fork ends here
            traceback.print_exc()
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def cases(quick: int, long: int) -> int:
    """How many cases a test tries: `make test-long` asks for more."""
    return long if os.environ.get("STEMLAB_LONG") == "1" else quick


@dataclass(frozen=True)
class Outcome:
    """What became of a file.

    Parameters
    ----------
    kind : {"success", "refused", "bug"}
    error : str
        The class of what was raised, and for a bug where.
    message : str
    grown_bytes : int
        By how much the most memory that the process ever had has grown since its start.
    files, threads : int
        That the process has open, and running, afterwards.
    """

    kind: str
    error: str = ""
    message: str = ""
    grown_bytes: int = 0
    files: int = 0
    threads: int = 0


def permissions_hold() -> bool:
    """Whether the processes below may do no more than the modes of files let them."""
    return hasattr(os, "geteuid") and (os.geteuid() != 0 or bool(_as_anybody()))


@cache
def _as_anybody() -> list[str]:
    """How root runs a program that permissions hold for, as for anybody else."""
    tool = shutil.which("setpriv")
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not tool:
        return []
    wrapped = [tool, "--bounding-set", "-dac_override,-dac_read_search"]
    tried = subprocess.run([*wrapped, "true"], capture_output=True, check=False)
    return [] if tried.returncode else wrapped


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Make a folder a file system of its own, in memory; the test is skipped where none may be."""
    arguments = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", os.fspath(folder)]
    if (
        sys.platform != "linux"
        or os.geteuid() != 0
        or subprocess.run(arguments, capture_output=True, check=False).returncode
    ):
        pytest.skip("this system lets nobody mount")
    try:
        yield
    finally:
        subprocess.run(["umount", os.fspath(folder)], check=True)


class _Server:
    """A process that answers lines of JSON; a context manager."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [*_as_anybody(), sys.executable, __file__, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Several of them may work at once, and each was started before the others did.
            env={**os.environ, "OMP_WAIT_POLICY": "PASSIVE"},
        )
        self._replies = selectors.DefaultSelector()
        self._replies.register(self._process.stdout, selectors.EVENT_READ)
        self._read("its start")

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._replies.close()

    def ask(self, what: str, **request: Any) -> dict[str, Any]:
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        reply: dict[str, Any] = json.loads(self._read(what))
        return reply

    def _read(self, what: str) -> bytes:
        if not self._replies.select(_PATIENCE_SECONDS):
            self._process.kill()
            raise AssertionError(f"no end of {what} after {_PATIENCE_SECONDS} s")
        line = self._process.stdout.readline()
        assert line, f"{what} ended the process with {self._process.wait()}"
        return line


class Victim(_Server):
    """A process with a separator.

    Parameters
    ----------
    model : str
        Folder of a small model.
    """

    def __init__(self, model: str) -> None:
        super().__init__("separator", model)

    def separate(self, song: Path, out: Path, **output: Any) -> Outcome:
        """Separate a file; an AssertionError where the process crashes or does not answer."""
        paths = {"song": os.fspath(song), "out": os.fspath(out)}
        return Outcome(**self.ask(repr(song), **paths, output=output))


class Nursery(_Server):
    """A process that has loaded all that commands need and forks a child for each.

    To load it takes seconds, of which a test of hundreds of kills has no use. The child is what a
    command of its own would be: nothing was computed before it was forked.
    """

    def __init__(self) -> None:
        super().__init__("nursery")

    def run(
        self,
        arguments: Sequence[Any],
        *,
        environment: Mapping[str, str] | None = None,
        kill_after: float | None = None,
    ) -> tuple[int, float, str]:
        """Run a command; its exit code (-9 if it was killed), seconds and what it said."""
        reply = self.ask(
            f"stemlab {' '.join(map(str, arguments))}",
            arguments=[*map(str, arguments)],
            environment=dict(environment or {}),
            kill_after=kill_after,
        )
        return reply["code"], reply["seconds"], reply["said"]


def _separate_all(model: str) -> None:
    import resource
    import threading

    import numpy as np

    from stemlab import AudioStemSeparator, OutputSettings, StemlabError
    from stemlab.results import peak_memory_bytes

    # C libraries may print; the replies go elsewhere.
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    separator = AudioStemSeparator(model, device="cpu")
    separator.separate_audio(np.zeros((2, 50_000), np.float32), 44_100)
    with open("/proc/self/status", encoding="ascii") as status:
        (virtual,) = (int(each.split()[1]) * 1024 for each in status if "VmSize" in each)
    resource.setrlimit(resource.RLIMIT_AS, (virtual + _MEMORY_BYTES,) * 2)
    before = peak_memory_bytes()
    replies.write(b"ready\n")
    for line in sys.stdin:
        request = json.loads(line)
        kind, error, message = "success", "", ""
        try:
            separator.separate_file(
                request["song"], request["out"], output=OutputSettings(**request["output"])
            )
        except StemlabError as raised:
            kind, error, message = "refused", type(raised).__name__, str(raised)
        except BaseException as raised:  # noqa: BLE001 - it is what the tests look for
            kind, error, message = "bug", traceback.format_exc(), str(raised)
        give_up = time.monotonic() + 5
        while threading.active_count() > 1 and time.monotonic() < give_up:
            time.sleep(0.001)
        reply = {
            "kind": kind,
            "error": error,
            "message": message,
            "grown_bytes": peak_memory_bytes() - before,
            "files": len(os.listdir("/proc/self/fd")),
            "threads": len(os.listdir("/proc/self/task")),
        }
        replies.write(json.dumps(reply).encode() + b"\n")


# What commands load on their way; PyTorch's compiler belongs to the building of a network.
_LOADED = ("torch._dynamo", "stemlab.cli.separate", "stemlab.cli.sweep", "stemlab.provisioning")


def _nurse() -> None:
    import tempfile

    from stemlab.cli.main import main

    for name in _LOADED:
        importlib.import_module(name)
    replies = os.fdopen(os.dup(1), "wb", buffering=0)
    replies.write(b"ready\n")
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as said:
            started = time.monotonic()
            child = os.fork()
            if not child:
                os.dup2(said.fileno(), 1)
                os.dup2(said.fileno(), 2)
                os.environ.update(request["environment"])
                code = main(request["arguments"])
                sys.stderr.flush()
                os._exit(code)
            code = _wait(child, request["kill_after"])
            seconds = time.monotonic() - started
            said.seek(0)
            text = said.read().decode(errors="replace")
        reply = {"code": code, "seconds": seconds, "said": text}
        replies.write(json.dumps(reply).encode() + b"\n")


def _wait(child: int, kill_after: float | None) -> int:
    """Wait for a child, or not so long."""
    deadline = None if kill_after is None else time.monotonic() + kill_after
    while deadline is not None:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= deadline:
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.0005)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    _separate_all(sys.argv[2]) if sys.argv[1] == "separator" else _nurse()
