"""The command line: arguments in, one library call, words and an exit code out.

`parser` says what can be typed, `main` runs it and turns errors into exit codes, `_shared` is what
several commands do alike. Each of the other modules is one command and is imported only when it
runs.
"""

from stemlab.cli.main import main

__all__ = ["main"]
