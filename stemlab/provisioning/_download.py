"""Fetch a published file over HTTPS, resume where a connection broke, and verify the digest.

A server may be hostile: no more than the recorded size is read of a file, nothing of the body of a
redirect or an error, and its words are shown without control characters.
"""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, BinaryIO, Literal
from urllib.parse import urljoin

import requests
from urllib3.exceptions import HTTPError

from stemlab._text import brief
from stemlab._version import __version__
from stemlab.errors import DownloadError, ModelRefusedError, OutputError
from stemlab.files import Folder
from stemlab.registry.files import refuse_digest
from stemlab.registry.manifests import WeightFile

# To connect, and to wait for the next piece.
TIMEOUT_SECONDS = (10.0, 30.0)
PAUSE_SECONDS = 1.0
# Consecutive failures before giving up.
MOST_FAILURES = 4
# A connection that brings fewer bytes counts as a failure; one that brings fewer in this time is
# given up.
LEAST_BYTES = 1 << 16
PATIENCE_SECONDS = 60.0
MOST_CONNECTIONS = 1000
MOST_REDIRECTS = 10
_PIECE_BYTES = 1 << 18
_MOST_WORDS = 200
_OTHERWISE = "Get the file another way and name it with --from."


@dataclass(frozen=True)
class FileProgress:
    """Progress of the work on one file of a model."""

    step: Literal["download", "convert"]
    file: str
    done: int  # Bytes.
    total: int


ProgressCallback = Callable[[FileProgress], None]


class _Interrupted(Exception):
    """The connection failed; another attempt may succeed."""


def fetch(file: WeightFile, folder: Folder, progress: ProgressCallback | None = None) -> bytes:
    """Download a file, or the rest of it, and verify it."""
    path = folder.path / part_name(file)
    try:
        with _part(folder, path.name) as part:
            _receive_all(file, part, progress)
            part.seek(0)
            content = part.read(file.size + 1)
            try:
                refuse_digest(path, content, file.sha256)
            except ModelRefusedError as error:
                part.truncate(0)
                raise DownloadError(
                    f"what came from {file.url} is not the recorded file: expected SHA-256 "
                    f"{error.expected}, got {error.actual}. It was deleted. Run the command "
                    "again; if this comes again, do not use that file."
                ) from error
    except DownloadError:
        raise
    except OSError as error:
        raise OutputError(
            f"{str(path)!r} cannot be written: {error.strerror or error}. Check what it is, the "
            "permissions and the free space of its folder, or set STEMLAB_MODELS to another one.",
            path,
        ) from error
    return content


def part_name(file: WeightFile) -> str:
    """Name the file of an unfinished download after its digest, so that it fits no other file."""
    return f"{file.sha256}.part"


@contextmanager
def _part(folder: Folder, name: str) -> Iterator[BinaryIO]:
    """Open what has arrived so far, if the file is this user's and has no second name."""
    part = folder.open_own(name, make=True)
    try:
        with part:
            yield part
    finally:
        facts = folder.stat(name)
        if facts is not None and facts.st_size == 0:
            folder.remove(name)


def _receive_all(file: WeightFile, part: BinaryIO, progress: ProgressCallback | None) -> None:
    failures = connections = 0
    reason = ""
    if _size(part) > file.size:
        part.truncate(0)
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


def _receive(
    file: WeightFile, part: BinaryIO, done: int, progress: ProgressCallback | None
) -> None:
    with _request(str(file.url), done) as response:
        if response.status_code == requests.codes.requested_range_not_satisfiable:
            part.truncate(0)
            raise _Interrupted("the server has no such rest of the file")
        if response.status_code == requests.codes.partial_content:
            offered = response.headers.get("Content-Range", "")
            if offered != f"bytes {done}-{file.size - 1}/{file.size}":
                part.truncate(0)
                raise _Interrupted(f"the server sent another part of the file ({_plain(offered)})")
        elif response.status_code == requests.codes.ok:
            done = 0
        else:
            raise _refused(file, response)
        _check_offer(file, response, file.size - done)
        part.truncate(done)
        part.seek(done)
        due, until = done + LEAST_BYTES, time.monotonic() + PATIENCE_SECONDS
        while piece := _piece(response, file.size - done):
            part.write(piece)
            part.flush()
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
    """Read what has arrived; waiting for more would lose it if the connection breaks."""
    try:
        piece: bytes = response.raw.read1(min(wanted, _PIECE_BYTES), decode_content=False)
    except HTTPError as error:
        words = _plain(_innermost(error))
        raise _Interrupted(f"the connection broke off ({words})") from error
    return piece


def _request(first_url: str, first_byte: int) -> requests.Response:
    """Request a file from some byte on, and follow redirects that stay with HTTPS."""
    # Sizes and ranges of a compressed file would mean something else.
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
                    f"fetched from there. {_OTHERWISE}"
                )
    raise DownloadError(f"{first_url} redirects more than {MOST_REDIRECTS} times. {_OTHERWISE}")


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
    return DownloadError(f"{file.url} cannot be downloaded: {words}. {_OTHERWISE}")


def _check_offer(file: WeightFile, response: requests.Response, expected: int) -> None:
    """Refuse a download that cannot be the recorded file."""
    encoding = response.headers.get("Content-Encoding", "").lower()
    length = response.headers.get("Content-Length", str(expected))
    if encoding not in ("", "identity"):
        what = f"it is compressed ({_plain(encoding)})"
    elif length != str(expected):
        what = f"{_plain(length)} bytes where {expected} were expected"
    else:
        return
    raise DownloadError(f"what {file.url} sends is not the recorded file: {what}. {_OTHERWISE}")


def _size(part: BinaryIO) -> int:
    return os.fstat(part.fileno()).st_size


def _innermost(error: Exception) -> Exception:
    """Unwrap what happened from the exceptions of requests and urllib3."""
    while error.args:
        inner = getattr(error, "reason", None) or error.args[-1]
        if not isinstance(inner, Exception):
            break
        error = inner
    return error


def _plain(words: object) -> str:
    """Make a server's words short and safe for a terminal."""
    return brief(str(words)[:_MOST_WORDS].rstrip(". \r\n"))
