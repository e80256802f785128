"""The errors stemlab raises.

StemlabError
├── ParameterError          (ValueError)         an argument is outside its range
├── MissingDependencyError  (ImportError)        an optional package is needed and absent
├── AudioError              (ValueError)         a recording cannot be read or used
│   └── AudioNotFoundError  (FileNotFoundError)
├── ModelError              (RuntimeError)
│   ├── DownloadError       (ConnectionError)    a model's file cannot be fetched
│   ├── ModelNotFoundError  (LookupError)
│   └── ModelRefusedError   (ValueError)         a model failed one of its checks
├── SeparationError         (RuntimeError)       the network gave something unusable
├── OutOfMemoryError        (RuntimeError)
└── OutputError             (OSError)            a result cannot be written

Every message names the thing, the value received, what is allowed and the next step.
"""

from __future__ import annotations

import os
from pathlib import Path


class StemlabError(Exception):
    """Root of every error that stemlab raises on purpose."""


class ParameterError(StemlabError, ValueError):
    """An argument has a value outside its range."""


class MissingDependencyError(StemlabError, ImportError):
    """An optional package is needed for this and is not installed or does not load."""


class _FileError(StemlabError):
    """An error about one file, kept as `path` for callers."""

    def __init__(self, message: str, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(message)
        self.path = None if path is None else Path(path)


class AudioError(_FileError, ValueError):
    """A recording cannot be read, or holds nothing that can be separated."""


class AudioNotFoundError(AudioError, FileNotFoundError):
    """There is no recording at the given path."""

    # OSError prints its own fields; the message alone is what a person needs.
    def __str__(self) -> str:
        return str(self.args[0])


class ModelError(StemlabError, RuntimeError):
    """A model cannot be used."""


class DownloadError(ModelError, ConnectionError):
    """A file of a model cannot be fetched; what arrived is kept for the next try."""

    # OSError prints its own fields; the message alone is what a person needs.
    def __str__(self) -> str:
        return str(self.args[0])


class ModelNotFoundError(ModelError, LookupError):
    """No model of that name or in that folder."""


class ModelRefusedError(ModelError, ValueError):
    """A model failed one of its checks; `path`, `expected` and `actual` say which."""

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        expected: object = None,
        actual: object = None,
    ) -> None:
        super().__init__(message)
        self.path = None if path is None else Path(path)
        self.expected = expected
        self.actual = actual


class SeparationError(StemlabError, RuntimeError):
    """The network's output cannot be used."""


class OutOfMemoryError(StemlabError, RuntimeError):
    """The device has too little memory for this run."""


class OutputError(_FileError, OSError):
    """A result cannot be written, or would overwrite an earlier one."""

    def __str__(self) -> str:
        return str(self.args[0])
