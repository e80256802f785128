"""Run one command and turn what goes wrong into one line and an exit code."""

from __future__ import annotations

import errno
import logging
import math
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import TextIO, cast

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
)

__all__ = ["describe", "exit_code", "main"]

BUG, INTERRUPTED = 1, 130
# Address space, of which the libraries of PyTorch alone take half a gigabyte.
_LITTLE_BYTES = 2_000_000_000
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (ParameterError, 2),
    (AudioError, 3),
    (MissingDependencyError, 3),
    (ModelError, 4),
    (SeparationError, 4),
    (OutOfMemoryError, 5),
    (OutputError, 6),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command."""
    own_process = arguments is None
    if own_process:
        _open_streams()
    with printable_output():
        return _run(arguments, own_process=own_process)


def _run(arguments: Sequence[str] | None, *, own_process: bool) -> int:
    debug = False
    code = BUG
    options = None
    try:
        if own_process:
            _prepare_process()
        options = make_parser().parse_args(arguments)
        debug = options.debug
        if own_process and not debug:
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
    except BrokenPipeError:  # Whoever read our output has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0 if code == BUG else code
    except Exception as error:  # noqa: BLE001 - whatever it is becomes one line and a code
        if debug:
            traceback.print_exc()
        print(f"stemlab: {describe(error)}", file=sys.stderr)
        code = exit_code(error)
    return code


def exit_code(error: BaseException) -> int:
    """Find the exit code of an error."""
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return 6
    if _is_out_of_memory(error):
        return 5
    return next((code for kind, code in _CODES if isinstance(error, kind)), BUG)


def describe(error: BaseException) -> str:
    """Put an error into one line."""
    text = " ".join(str(error).split())
    if isinstance(error, StemlabError):
        return text
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"cannot write the output: {text}. Free some space."
    if _is_out_of_memory(error):
        why = f" ({type(error).__name__}{': ' if text else ''}{text})"
        return f"out of memory{why}. Close what else uses it, or allow more (ulimit -v)."
    return (
        f"a bug of ours: {type(error).__name__}: {text}. Please report it with what --debug and "
        "`stemlab info` print."
    )


def _is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: where there is little, libraries fail in any way, while they load or
    later.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    return not isinstance(error, StemlabError) and _limit_bytes() < _LITTLE_BYTES


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
    """Make signals end a run cleanly."""
    for name, handler in (("SIGINT", _interrupt), ("SIGTERM", _terminate), ("SIGHUP", _terminate)):
        number = getattr(signal, name, None)
        # Who starts us with a signal ignored (nohup, a background job) wants it ignored.
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        os.getcwd()
    except FileNotFoundError as error:
        raise OutputError("the current folder does not exist any more. Change to one.") from error
    ignore_settings_here()
    _warn_of_little_memory()


def _warn_of_little_memory() -> None:
    """Say beforehand what PyTorch would not: starved at some points, its libraries just end."""
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


def _interrupt(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # Once is enough; a second must not stop the clearing up.
    raise KeyboardInterrupt


def _terminate(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)
