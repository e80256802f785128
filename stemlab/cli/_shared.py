"""What several commands do alike: hand options on, show progress and results, save figures."""

from __future__ import annotations

import argparse
import inspect
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from stemlab._text import printable
from stemlab.cli._terminal import PrintableStream

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from stemlab.separation import SegmentDone


def passed(function: Callable[..., Any], options: argparse.Namespace) -> dict[str, Any]:
    """Pick the options that a function or class takes, under the names of its arguments."""
    names = inspect.signature(function).parameters
    return {name: vars(options)[name] for name in names if name in options}


def show(options: argparse.Namespace, facts: Any, lines: Iterable[str]) -> None:
    """Print a result, as JSON or in words."""
    if options.json:
        print(json.dumps(facts, indent=2))
    elif not options.quiet:
        print("\n".join(lines))


def aligned(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Align the columns of a table: the first to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    for first, *others in rows:
        cells = [first.ljust(widths[0])]
        cells += [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=False)]
        yield "  ".join(cells)


def save(figure: Figure, kind: str = "png", dpi: int = 110, **more: Any) -> bytes:
    """Make the content of a picture file."""
    content = BytesIO()
    figure.savefig(content, format=kind, dpi=dpi, **more)
    return content.getvalue()


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar that writes no control characters but its own."""

    def __str__(self) -> str:
        return printable(super().__str__())


def terminal_bar(options: argparse.Namespace, **more: Any) -> tqdm[Any]:
    """Make a progress bar that is shown on a terminal only, and goes when it is done."""
    # tqdm starts no monitor thread: it would warn if the system refuses a new thread.
    tqdm.monitor_interval = 0
    stream: Any = sys.stderr
    if isinstance(stream, PrintableStream):  # It would escape what moves the cursor.
        stream = stream.stream
    # `None` hides the bar where standard error is no terminal.
    hidden = True if options.quiet or options.json else None
    return _Bar(leave=False, disable=hidden, file=stream, **more)


@contextmanager
def progress_bar(
    options: argparse.Namespace, title: str
) -> Iterator[Callable[[SegmentDone], None]]:
    """Show a bar while a song is separated; what it yields moves it."""
    with terminal_bar(options, desc=title, unit="segment") as bar:

        def move(event: SegmentDone) -> None:
            bar.total = event.total
            bar.update(event.done - bar.n)

        yield move
