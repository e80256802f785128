"""Progress bars on a terminal."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

from stemlab._text import printable
from stemlab.cli._terminal import PrintableStream

__all__ = ["terminal_bar"]


class _Bar(tqdm):  # type: ignore[type-arg]
    """A bar that writes no control characters but its own."""

    def __str__(self) -> str:
        return printable(super().__str__())


def terminal_bar(*, hidden: bool, **options: Any) -> tqdm[Any]:
    """Make a progress bar that is shown on a terminal only, and goes when it is done."""
    # No thread that looks after bars that hang: where none can be started, tqdm warns of that.
    tqdm.monitor_interval = 0
    stream: Any = sys.stderr
    if isinstance(stream, PrintableStream):  # It would escape what moves the cursor.
        stream = stream.stream
    # `None` hides the bar where standard error is no terminal.
    return _Bar(leave=False, disable=True if hidden else None, file=stream, **options)
