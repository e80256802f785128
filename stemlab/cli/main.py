"""Run one command and turn what goes wrong into one line and an exit code."""

from __future__ import annotations

import argparse
import errno
import logging
import math
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import Any, TextIO, cast

from stemlab._isolation import ignore_settings_here
from stemlab.cli._terminal import PrintableStream, printable_output
from stemlab.cli.parser import make_parser
from stemlab.errors import (
    AudioError,
    MissingDependencyError,
    ModelError,
    OutOfMemoryError,
    OutputError,
    ParameterError,
    SeparationError,
    StemlabError,
    is_out_of_memory,
)

BUG, INTERRUPTED = 1, 130
# A small address space: the libraries of PyTorch alone take half a gigabyte.
_LITTLE_BYTES = 2_000_000_000
# What the loader of libraries says, and Python of C code that does not tell what failed in it.
_NO_REASON = ("failed to map segment", "without setting an exception", "without exception set")
_CODES: dict[type[StemlabError], int] = {
    ParameterError: 2,
    AudioError: 3,
    MissingDependencyError: 3,
    ModelError: 4,
    SeparationError: 4,
    OutOfMemoryError: 5,
    OutputError: 6,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command."""
    own_process = arguments is None
    if own_process:
        _open_streams()
    with printable_output():
        return _run(arguments, own_process=own_process)


def _run(arguments: Sequence[str] | None, *, own_process: bool) -> int:
    code = BUG
    options = None
    try:
        if own_process:
            _prepare_process()
        options = make_parser().parse_args(arguments)
        if own_process and not options.debug:
            _silence_libraries()
        logging.basicConfig(
            level=logging.DEBUG if options.verbose else logging.WARNING,
            format="%(name)s: %(message)s",
        )
        logging.getLogger("matplotlib").setLevel(logging.ERROR)
        code = options.run(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        kept = getattr(options, "resume", False)
        left = "the same command goes on from here" if kept else "nothing half-written was left"
        print(f"stemlab: interrupted; {left}", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:  # The reader of the output has closed it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0 if code == BUG else code
    except Exception as error:  # noqa: BLE001 - whatever it is becomes one line and a code
        code = tell(error, options)["exit_code"]
    return code


def tell(error: Exception, options: argparse.Namespace | None) -> dict[str, Any]:
    """Print what went wrong, and report it with the exit code."""
    if getattr(options, "debug", False):
        traceback.print_exc()
    words, code = explain(error)
    print(f"stemlab: {words}", file=sys.stderr)
    return {"error": words, "exit_code": code}


def explain(error: Exception) -> tuple[str, int]:
    """Put an error into one line, and find its exit code."""
    text = " ".join(str(error).split())
    if isinstance(error, StemlabError):
        return text, next((code for kind, code in _CODES.items() if isinstance(error, kind)), BUG)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"cannot write the output: {text}. Free some space.", 6
    named = f"{type(error).__name__}{': ' if text else ''}{text}"
    if is_out_of_memory(error) or _hides_lack_of_memory(error):
        return f"out of memory ({named}). Close what else uses it, or allow more (ulimit -v).", 5
    return (
        f"a bug of ours: {named}. Please report it with what --debug and `stemlab info` print.",
        BUG,
    )


def _hides_lack_of_memory(error: Exception) -> bool:
    """Tell whether an error that gives no reason may be lack of memory, as memory is limited."""
    if isinstance(error, (ImportError, SystemError)) and _limit_bytes() < _LITTLE_BYTES:
        return any(words in str(error) for words in _NO_REASON)
    return False


def _limit_bytes() -> float:
    """Address space that this process may use."""
    try:
        import resource
    except ImportError:  # Windows has no such limit.
        return math.inf
    most_bytes, _ = resource.getrlimit(resource.RLIMIT_AS)
    return math.inf if most_bytes == resource.RLIM_INFINITY else most_bytes


def _open_streams() -> None:
    """Make every name printable wherever output goes, or to nowhere."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # Closed by the caller.
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _prepare_process() -> None:
    """Make signals end a run cleanly, and warn of little memory: PyTorch may just end there."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        # A signal that is ignored from the start (nohup, a background job) stays ignored.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise OutputError("the current folder does not exist any more. Change to one.") from error
    ignore_settings_here()
    most_bytes = _limit_bytes()
    if most_bytes < _LITTLE_BYTES:
        print(
            f"stemlab: this process may use no more than {most_bytes / 1e6:.0f} MB (ulimit -v). "
            "Where that is too little, PyTorch may end it without a word.",
            file=sys.stderr,
        )


def _silence_libraries() -> None:
    """Keep what C libraries print (libmpg123 on a damaged file) out of standard error.

    Python's own `sys.stderr` keeps writing to where it did.
    """
    try:
        own = os.dup(2)
    except OSError:  # Closed by the caller: there is nothing to keep clean.
        return
    encoding = sys.stderr.encoding
    stream = os.fdopen(own, "w", buffering=1, encoding=encoding, errors="backslashreplace")
    sys.stderr = cast(TextIO, PrintableStream(stream))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def _stop(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # A second one must not stop the clean-up.
    raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
