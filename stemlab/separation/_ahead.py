"""Work ahead in a thread, so that whoever reads and writes never makes the model wait."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Generator, Iterable
from queue import SimpleQueue
from typing import Any

__all__ = ["ahead"]


class _Stopped(BaseException):
    """Raised in the thread when nobody wants its results any more."""


def ahead(
    function: Callable[..., Any], calls: Iterable[tuple[Any, ...]]
) -> Generator[Any, None, None]:
    """Give the results of a function like `itertools.starmap`, one call ahead of who takes them.

    Parameters
    ----------
    function : callable
        Runs in a thread of its own, one call after the other.
    calls : iterable of tuple
        Its arguments; taken in the caller's thread.

    Yields
    ------
    result : object
        In the order of the calls. What a call raises is raised here.

    Notes
    -----
    Closing the generator stops a call that is under way between two lines of Python.
    """
    waiting: SimpleQueue[tuple[Any, ...] | None] = SimpleQueue()
    finished: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()
    thread = threading.Thread(
        target=_work, args=(function, waiting, finished), name="stemlab-model", daemon=True
    )
    thread.start()
    under_way = 0
    try:
        for call in calls:
            waiting.put(call)
            del call
            under_way += 1
            if under_way == 2:
                under_way -= 1
                yield _result(finished)
        for _ in range(under_way):
            yield _result(finished)
    finally:
        waiting.put(None)
        _stop(thread)


def _work(
    function: Callable[..., Any],
    waiting: SimpleQueue[tuple[Any, ...] | None],
    finished: SimpleQueue[tuple[Any, BaseException | None]],
) -> None:
    try:
        while (call := waiting.get()) is not None:
            try:
                finished.put((function(*call), None))
            except Exception as error:  # noqa: BLE001 - raised again where the result is taken
                finished.put((None, error))
            del call
    except _Stopped:
        pass


def _result(finished: SimpleQueue[tuple[Any, BaseException | None]]) -> Any:
    result, error = finished.get()
    if error is not None:
        raise error
    return result


def _stop(thread: threading.Thread) -> None:
    # As Ctrl-C does in the main thread. Delivered when the operation of PyTorch that runs ends.
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(_Stopped)
    )
    thread.join()
