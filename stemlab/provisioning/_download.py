"""Fetch a published file: over HTTPS alone, resumed where it was cut off, verified at the end.

A server may be hostile: of what it sends, no more than the recorded size is read, nothing of a
redirect or of an error, and what it says is shown without what a terminal would obey.
"""

from __future__ import annotations

import errno
import ssl
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urljoin

import requests
from urllib3.exceptions import HTTPError

from stemlab._version import __version__
from stemlab.errors import DownloadError, ModelRefusedError, OutputError
from stemlab.provisioning._store import remove_tree
from stemlab.registry import WeightFile, printable, read_verified

__all__ = ["FileProgress", "ProgressCallback", "fetch", "part_path"]

# To connect, and between two pieces.
TIMEOUT_SECONDS = (10.0, 30.0)
PAUSE_SECONDS = 1.0
# In a row.
MOST_FAILURES = 4
# A connection that brings less failed; one that brings less in so many seconds is given up.
LEAST_BYTES = 1 << 16
PATIENCE_SECONDS = 60.0
MOST_CONNECTIONS = 1000
MOST_REDIRECTS = 10
_PIECE_BYTES = 1 << 18
_MOST_WORDS = 200


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
    reason = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if _size(part) > file.size:
            part.unlink()
        while (before := _size(part)) != file.size:
            if failures == MOST_FAILURES or connections == MOST_CONNECTIONS:
                raise DownloadError(
                    f"{file.url} cannot be downloaded: {reason}. {before} of {file.size} bytes "
                    "are there; the same command goes on from there. Or get the file another "
                    "way and name it with --from."
                )
            if failures:
                time.sleep(PAUSE_SECONDS)
            try:
                _receive(file, part, before, progress)
                reason = "the connection was closed too early"
            except _Interrupted as error:
                reason = str(error)
            connections += 1
            failures = 0 if _size(part) - before >= LEAST_BYTES else failures + 1
    except DownloadError:
        raise
    except OSError as error:
        raise OutputError(
            f"{str(part)!r} cannot be written: {error.strerror or error}. Check the permissions "
            "and the free space of its folder, or set STEMLAB_MODELS to another one.",
            part,
        ) from error
    try:
        return read_verified(part, size=file.size, sha256=file.sha256)
    except ModelRefusedError as error:
        remove_tree(part)
        raise DownloadError(
            f"what came from {file.url} is not the recorded file: expected SHA-256 "
            f"{error.expected}, got {error.actual}. It was deleted. Run the command again; if this "
            "comes again, do not use that file."
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
                raise _Interrupted(f"the server sent another part of the file ({_plain(offered)})")
        elif response.status_code == requests.codes.ok:
            done = 0
        else:
            raise _refused(file, response)
        _check_offer(file, response, file.size - done)
        with part.open("ab" if done else "wb") as target:
            due, until = done + LEAST_BYTES, time.monotonic() + PATIENCE_SECONDS
            while piece := _piece(response, file.size - done):
                target.write(piece)
                done += len(piece)
                if progress is not None:
                    progress(FileProgress("download", file.name, done, file.size))
                if time.monotonic() > until:
                    if done < due:
                        raise _Interrupted(
                            f"fewer than {LEAST_BYTES} bytes came in {PATIENCE_SECONDS:g} s"
                        )
                    due, until = done + LEAST_BYTES, time.monotonic() + PATIENCE_SECONDS


def _piece(response: requests.Response, wanted: int) -> bytes:
    """Read what has come: waiting for more would lose it if the connection breaks off."""
    try:
        piece: bytes = response.raw.read1(min(wanted, _PIECE_BYTES), decode_content=False)
    except HTTPError as error:
        words = _plain(_innermost(error))
        raise _Interrupted(f"the connection broke off ({words})") from error
    return piece


def _request(first_url: str, first_byte: int) -> requests.Response:
    """Ask for a file from some byte on, and follow redirects that stay with HTTPS."""
    # Compressed, sizes and ranges would count something else.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"stemlab/{__version__}"}
    if first_byte:
        headers["Range"] = f"bytes={first_byte}-"
    url = first_url
    with requests.Session() as session:
        for _ in range(MOST_REDIRECTS + 1):
            response = _send(session, url, headers)
            try:
                location = session.get_redirect_target(response)
                if location is None:
                    return response
                url = urljoin(url, location)
            except ValueError:
                url = "an invalid URL"
            response.close()
            if not url.startswith("https://"):
                raise DownloadError(
                    f"{first_url} redirects to {_plain(url)}, which is not HTTPS. Nothing was "
                    "fetched from there. Get the file another way and name it with --from."
                )
    raise DownloadError(
        f"{first_url} redirects more than {MOST_REDIRECTS} times. Get the file another way and "
        "name it with --from."
    )


def _send(session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
    try:
        # An `auth` of its own keeps requests from sending what ~/.netrc holds for the host.
        request = session.prepare_request(
            requests.Request("GET", url, headers=headers, auth=lambda prepared: prepared)
        )
        settings: Any = session.merge_environment_settings(url, {}, True, None, None)
        # `session.send` would read all of a redirect, which may never end.
        return session.get_adapter(url).send(request, timeout=TIMEOUT_SECONDS, **settings)
    except (OSError, ValueError, HTTPError) as error:
        cause = _innermost(error)
        if isinstance(cause, ssl.SSLCertVerificationError):
            raise DownloadError(
                f"the certificate of {_plain(url)} is not trusted: {_plain(cause)}. If your "
                "network has an authority of its own, name the file of its certificate in "
                "REQUESTS_CA_BUNDLE. Or get the file another way and name it with --from."
            ) from error
        words = _plain(cause)
        if isinstance(cause, HTTPException):
            words = f"no proper answer came ({words})"
        raise _Interrupted(words) from error


def _refused(file: WeightFile, response: requests.Response) -> Exception:
    words = f"the server answered {response.status_code} {_plain(response.reason)}"
    if response.status_code >= 500 or response.status_code == requests.codes.too_many_requests:
        return _Interrupted(words)
    return DownloadError(
        f"{file.url} cannot be downloaded: {words}. Get the file another way and name it with "
        "--from."
    )


def _check_offer(file: WeightFile, response: requests.Response, expected: int) -> None:
    """Do not begin a download that cannot end well."""
    encoding = response.headers.get("Content-Encoding", "").lower()
    length = response.headers.get("Content-Length", str(expected))
    if encoding not in ("", "identity"):
        what = f"it is compressed ({_plain(encoding)})"
    elif length != str(expected):
        what = f"{_plain(length)} bytes where {expected} were expected"
    else:
        return
    raise DownloadError(
        f"what {file.url} sends is not the recorded file: {what}. Get the file another way and "
        "name it with --from."
    )


def _size(path: Path) -> int:
    try:
        facts = path.lstat()
    except FileNotFoundError:
        return 0
    if not stat.S_ISREG(facts.st_mode):
        raise FileExistsError(errno.EEXIST, "it is no plain file", str(path))
    return facts.st_size


def _innermost(error: Exception) -> Exception:
    """What happened: requests and urllib3 wrap it several times."""
    while error.args:
        inner = getattr(error, "reason", None) or error.args[-1]
        if not isinstance(inner, Exception):
            break
        error = inner
    return error


def _plain(words: object) -> str:
    """What a server said may be long, and may be commands to the terminal."""
    return printable(str(words)[:_MOST_WORDS].rstrip(". \r\n"))
