"""Fetch a published file: over HTTPS alone, resumed where it was cut off, verified at the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import requests

from stemlab._version import __version__
from stemlab.errors import DownloadError, ModelRefusedError, OutputError
from stemlab.registry import WeightFile, read_verified

__all__ = ["FileProgress", "ProgressCallback", "fetch", "part_path"]

# To connect, and between two pieces.
TIMEOUT_SECONDS = (10.0, 30.0)
PAUSE_SECONDS = 1.0
# In a row, without a single byte in between.
MOST_FAILURES = 4
# In all: a server that gives one byte for each would keep us for ever.
MOST_CONNECTIONS = 1000
MOST_REDIRECTS = 10
# What is lost of a piece when the connection breaks off within it.
_PIECE_BYTES = 1 << 14


@dataclass(frozen=True)
class FileProgress:
    """How far the work on one file of a model is.

    Parameters
    ----------
    step : {"download", "convert"}
    file : str
        Its name.
    done, total : int, in bytes
    """

    step: Literal["download", "convert"]
    file: str
    done: int
    total: int


ProgressCallback = Callable[[FileProgress], None]


class _Interrupted(Exception):
    """The connection failed in a way that another try may mend."""


def fetch(file: WeightFile, folder: Path, progress: ProgressCallback | None = None) -> bytes:
    """Download a file, or the rest of it, and verify it.

    Parameters
    ----------
    file : WeightFile
        With a URL.
    folder : Path
        Keeps ``<digest>.part``, for a later call if this one is cut off.
    progress : callable, optional

    Returns
    -------
    content : bytes
        Of the recorded size and digest.

    Raises
    ------
    DownloadError
        If the server cannot be reached, refuses, sends something else, or leaves HTTPS.
    OutputError
        If what arrives cannot be stored.
    """
    part = part_path(file, folder)
    failures = connections = 0
    try:
        folder.mkdir(parents=True, exist_ok=True)
        while (before := _size(part)) != file.size:
            if before > file.size:
                part.unlink()
                continue
            try:
                _receive(file, part, before, progress)
                reason = "the connection was closed too early"
            except (_Interrupted, requests.RequestException) as error:
                reason = _say(error)
            connections += 1
            failures = 0 if _size(part) > before else failures + 1
            if failures == MOST_FAILURES or connections == MOST_CONNECTIONS:
                raise DownloadError(
                    f"{file.url} cannot be downloaded: {reason}. {_size(part)} of {file.size} "
                    "bytes are there; the same command goes on from there. Or get the file "
                    "another way and name it with --from."
                )
            if failures:
                time.sleep(PAUSE_SECONDS)
    except OSError as error:
        if isinstance(error, DownloadError):
            raise
        raise OutputError(
            f"{str(part)!r} cannot be written: {error.strerror or error}. Check the permissions "
            "and the free space of its folder, or set STEMLAB_MODELS to another one.",
            part,
        ) from error
    try:
        return read_verified(part, size=file.size, sha256=file.sha256)
    except ModelRefusedError as error:
        part.unlink()
        raise DownloadError(
            f"what {file.url} sent is not the recorded file: expected SHA-256 {error.expected}, "
            f"got {error.actual}. It was deleted. Run the command again; if this comes again, do "
            "not use that file."
        ) from error


def part_path(file: WeightFile, folder: Path) -> Path:
    """Where the beginning of a download is kept; named by its digest, it can be no other file's.

    Parameters
    ----------
    file : WeightFile
    folder : Path

    Returns
    -------
    path : Path
    """
    return folder / f"{file.sha256}.part"


def _receive(file: WeightFile, part: Path, done: int, progress: ProgressCallback | None) -> None:
    with _request(str(file.url), done) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            part.unlink(missing_ok=True)
            raise _Interrupted("the server has no such rest of the file")
        if response.status_code == requests.codes.partial_content:
            offered = response.headers.get("Content-Range", "")
            if offered != f"bytes {done}-{file.size - 1}/{file.size}":
                part.unlink(missing_ok=True)
                raise _Interrupted(f"the server sent another part of the file ({offered!r})")
        elif response.status_code == requests.codes.ok:
            done = 0
        else:
            raise _refused(file, response)
        _check_length(file, response, file.size - done)
        with part.open("ab" if done else "wb") as target:
            for piece in response.iter_content(_PIECE_BYTES):
                done += len(piece)
                if done > file.size:
                    target.truncate(0)
                    raise _not_it(file, f"more than {file.size} bytes")
                target.write(piece)
                if progress is not None:
                    progress(FileProgress("download", file.name, done, file.size))


def _request(url: str, first_byte: int) -> requests.Response:
    """Ask for a file from some byte on, and follow redirects that stay with HTTPS."""
    with requests.Session() as session:
        # Compressed, sizes and ranges would count something else.
        headers = {"Accept-Encoding": "identity", "User-Agent": f"stemlab/{__version__}"}
        if first_byte:
            headers["Range"] = f"bytes={first_byte}-"
        # An `auth` of its own keeps requests from sending what ~/.netrc holds for the host.
        request = session.prepare_request(
            requests.Request("GET", url, headers=headers, auth=lambda prepared: prepared)
        )
        for _ in range(MOST_REDIRECTS + 1):
            settings = session.merge_environment_settings(request.url, {}, True, None, None)
            response = session.send(
                request, allow_redirects=False, timeout=TIMEOUT_SECONDS, **settings
            )
            if response.next is None:
                return response
            response.close()
            request = response.next
            request.headers.pop("Authorization", None)
            if not str(request.url).startswith("https://"):
                raise DownloadError(
                    f"{url} redirects to {request.url}, which is not HTTPS. Nothing was fetched "
                    "from there. Get the file another way and name it with --from."
                )
    raise DownloadError(
        f"{url} redirects more than {MOST_REDIRECTS} times. Get the file another way and name it "
        "with --from."
    )


def _refused(file: WeightFile, response: requests.Response) -> Exception:
    words = f"the server answered {response.status_code} {response.reason}"
    if response.status_code >= 500 or response.status_code == requests.codes.too_many_requests:
        return _Interrupted(words)
    return DownloadError(
        f"{file.url} cannot be downloaded: {words}. Get the file another way and name it with "
        "--from."
    )


def _check_length(file: WeightFile, response: requests.Response, expected: int) -> None:
    """Do not begin a download that cannot end well."""
    offered = response.headers.get("Content-Length")
    if offered is not None and offered != str(expected):
        raise _not_it(file, f"{offered} bytes where {expected} were expected")


def _not_it(file: WeightFile, what: str) -> DownloadError:
    return DownloadError(
        f"what {file.url} sends is not the recorded file: {what}. Get the file another way and "
        "name it with --from."
    )


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _say(error: Exception) -> str:
    """The innermost reason: requests wraps what happened several times."""
    reason: object = error
    while isinstance(reason, Exception) and reason.args:
        inner = getattr(reason, "reason", None) or reason.args[-1]
        if not isinstance(inner, Exception):
            break
        reason = inner
    return str(reason)
