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

import errno
import os
from pathlib import Path

# Messages of the allocators of CPU and MPS, and of Python if a thread finds no room. PyTorch's own
# allocator on CUDA has an exception class; the libraries beside it (cuBLAS, cuDNN, cuFFT) only
# name a status.
_OUT_OF_MEMORY_WORDS = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "bad_alloc",
    "can't start new thread",
    "alloc_failed",
    "allocation_failed",
)
# oneDNN says what it could not do, not why. These whole messages mean lack of memory; an
# unsupported operation fails with a longer one ("could not create a primitive descriptor for ...").
_ONEDNN_OUT_OF_MEMORY = (
    "could not create a primitive",
    "could not create a memory object",
    "could not execute a primitive",
)


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


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether Python, the system or PyTorch says that memory ran out."""
    # PyTorch's class is found by its name: loading it takes long, and memory.
    named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if named or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    message = str(error).lower()
    return isinstance(error, RuntimeError) and (
        message in _ONEDNN_OUT_OF_MEMORY or any(words in message for words in _OUT_OF_MEMORY_WORDS)
    )
