"""What the command line writes: nothing that a terminal obeys."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any, TextIO

from stemlab._text import printable


class PrintableStream:
    """A text stream that escapes all that is not printable, but for the ends of lines."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write text."""
        self.stream.write("\n".join(map(printable, text.split("\n"))))
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write each of some texts."""
        for line in lines:
            self.write(line)


@contextmanager
def printable_output() -> Iterator[None]:
    """Let what is printed hold no control characters, whatever is in names of files."""
    stdout: Any = PrintableStream(sys.stdout)
    stderr: Any = PrintableStream(sys.stderr)
    with redirect_stdout(stdout), redirect_stderr(stderr):
        yield
