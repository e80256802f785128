"""Bring a song from the browser to the kernel, in pieces small enough for every connection."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import traitlets

from stemlab._typing import StrPath
from stemlab.errors import AudioError, ParameterError
from stemlab.widgets._arriving import ArrivingSong
from stemlab.widgets._page import STATIC, PageWidget, in_words, panel_path, wait_for

__all__ = ["SongUpload"]

_STATES = ["idle", "uploading", "done", "cancelled", "failed"]


class SongUpload(PageWidget):
    """Upload a song from the browser's machine to a folder of the kernel's.

    As the last expression of a cell it shows a button, on which a file can also be dropped. Files
    may have any size: they are sent in small pieces, one after the other.

    Parameters
    ----------
    folder : path
        Gets the song under its own name, made safe. No other file is replaced: a number is added
        to the name, unless the file there has the same content. Created if missing.
    max_bytes : int, >= 1, default 2 GiB
        Larger files are refused.

    Attributes
    ----------
    folder : Path
    max_bytes : int
    state : {"idle", "uploading", "done", "cancelled", "failed"}
    progress : float, in [0, 1]
    message : str
        Status in words.
    error : str
        Error message of the last upload; empty if there was none.
    path : str
        The last uploaded song; empty before.

    Raises
    ------
    ParameterError
        If `folder` exists and is not a folder, or `max_bytes` is less than 1.

    Notes
    -----
    While a song arrives, it is in a hidden folder in `folder`, ``.stemlab-upload-*.partial``; the
    next upload removes what a killed process left. A name that does not end like a recording gets
    the ending of its format. Pages of ``stemlab lab --voila`` accept no more once the files of the
    folder reach 8 GiB. Where JupyterLab and the kernel have no subshells (before JupyterLab 4.4 and
    ipykernel 7), nothing arrives while a cell runs.

    Examples
    --------
    >>> upload = SongUpload("songs")
    >>> upload
    SongUpload(folder='songs', state='idle')
    """

    _esm = STATIC / "upload.js"
    _css = STATIC / "upload.css"

    state = traitlets.Enum(_STATES, "idle").tag(sync=True)
    progress = traitlets.Float(0.0).tag(sync=True)
    message = traitlets.Unicode("Choose a song, or drop one here.").tag(sync=True)
    error = traitlets.Unicode().tag(sync=True)
    path = traitlets.Unicode()
    # With it any page can cancel, even if the one that sends is gone.
    _upload_id = traitlets.Unicode().tag(sync=True)

    def __init__(self, folder: StrPath, *, max_bytes: int = 2 * 1024**3) -> None:
        # Messages arrive in other threads where the kernel has subshells. Reentrant, because
        # observers of the traits may call cancel().
        self._lock = threading.RLock()
        self._closed = False
        self._current: ArrivingSong | None = None
        self._last: ArrivingSong | None = None
        self.folder = Path(os.path.abspath(panel_path(folder)))
        self.max_bytes = max_bytes
        if os.path.exists(self.folder) and not os.path.isdir(self.folder):
            raise ParameterError(f"folder={str(folder)!r} is not a folder. Name one, or a new one.")
        if max_bytes < 1:
            raise ParameterError(f"max_bytes={max_bytes!r} must be 1 or more.")
        super().__init__()
        self.on_msg(self._hear)

    def __repr__(self) -> str:
        return f"SongUpload(folder={self.folder.name!r}, state={self.state!r})"

    def cancel(self) -> None:
        """End the upload, if there is one, and remove what has arrived."""
        with self._lock:
            if self._current is not None:
                name = self._current.name
                failure = AudioError(f"the upload of {name!r} was cancelled. Choose a song again.")
                self._end("cancelled", "Cancelled. Nothing was kept.", failure)

    def wait(self, timeout: float | None = None) -> Path:
        """Wait for the upload to end; interrupting the wait cancels it.

        Parameters
        ----------
        timeout : float, in seconds, optional
            Default: no limit.

        Returns
        -------
        path : Path

        Raises
        ------
        AudioError, OutputError
            If the song is not a readable recording, could not be written, or was cancelled, or if
            there was none.
        TimeoutError
            If the upload still runs after `timeout`; it goes on.
        """
        if self._last is None:
            raise AudioError("no song was uploaded yet. Press 'Upload a song…' first.")
        what = f"the upload of {self._last.name!r}"
        return wait_for(self, what, self._last.uploaded, timeout)

    def close(self) -> None:
        """Take the widget off all pages; ends an upload."""
        if hasattr(self, "_lock"):  # Also called if the constructor raised.
            with self._lock:
                self._closed = True
                self.cancel()
        super().close()

    def _hear(
        self, _: object, content: Mapping[str, Any], buffers: Sequence[memoryview] | None
    ) -> None:
        with self._lock:
            if self._closed:
                return
            try:
                match content:
                    case {"kind": "start", "id": str(id_), "name": str(name), "size": int(size)}:
                        self._start(id_, name, max(0, min(size, sys.maxsize)))
                    case {"kind": "piece", "id": str(id_), "offset": int(offset)} if buffers:
                        if song := self._find(id_):
                            self._take(song, offset, memoryview(buffers[0]).cast("B"))
                    case {"kind": "where", "id": str(id_), "offset": int(offset)}:
                        if song := self._find(id_):
                            self._acknowledge(song, asked=offset)
                    case {"kind": "unreadable", "id": str(id_)}:
                        if song := self._find(id_):
                            raise AudioError(
                                f"the browser can no longer read {song.name!r}. It may have been "
                                "changed or moved. Choose it again."
                            )
                    case {"kind": "cancel", "id": str(id_)}:
                        if self._find(id_):
                            self.cancel()
                    case _:
                        self.log.warning("SongUpload: unknown message")
            except BaseException as error:
                if self._current is None:  # From an observer of the end; ipywidgets logs it.
                    raise
                if not isinstance(error, Exception):
                    self.cancel()  # How much of a piece was written is unknown.
                    raise
                self._end("failed", "Failed.", error, in_words(error))

    def _find(self, id_: str) -> ArrivingSong | None:
        """Find the upload that a message is about; if it is over, tell the page so."""
        if self._current is not None and self._current.id == id_:
            return self._current
        known = self._last is not None and self._last.id == id_
        self._tell("end", id_, state=self._last.state if known and self._last else "unknown")
        return None

    def _start(self, id_: str, name: str, size: int) -> None:
        if self._last is not None and self._last.id == id_:  # A repeated message.
            if song := self._find(id_):
                self._acknowledge(song)
            return
        if self._current is not None:
            name = self._current.name
            message = f"{name!r} is being uploaded. Wait for it, or cancel it."
            self._tell("refused", id_, message=message)
            return
        song = self._current = self._last = ArrivingSong(id_, self.folder, name, size)
        atexit.register(self.cancel)
        for trait, value in {
            "_upload_id": id_,
            "error": "",
            "progress": 0.0,
            "message": f"Uploading {song.name!r} ({size / 1e6:.1f} MB).",
            "state": "uploading",
        }.items():
            setattr(self, trait, value)
            if self._current is not song:  # An observer cancelled it.
                return
        if size < 1:
            raise AudioError(f"{song.name!r} is empty (0 bytes). Choose a recording.")
        if size > self.max_bytes:
            raise AudioError(
                f"{song.name!r} has {size / 1e6:.1f} MB; the limit is "
                f"{self.max_bytes / 1e6:.1f} MB. Choose a smaller file, or make the widget with a "
                "larger max_bytes."
            )
        song.open()
        self._acknowledge(song)

    def _take(self, song: ArrivingSong, offset: int, content: memoryview) -> None:
        if offset != song.received:
            # Repeated or out of turn: tell the page where to go on.
            self._acknowledge(song)
            return
        song.write(content)
        self._acknowledge(song)
        self.progress = song.received / song.size
        if song.received == song.size and self._current is song:
            self.message = f"Checking {song.name!r}."
            if self._current is song:
                path, is_new = song.publish()
                name, folder = path.name, self.folder.name
                message = f"{name!r} is already in {folder!r}, with the same content."
                if is_new:
                    message = f"Uploaded {name!r} to {folder!r}."
                self._end("done", message, path)

    def _acknowledge(self, song: ArrivingSong, **more: object) -> None:
        self._tell("ack", song.id, offset=song.received, **more)

    def _tell(self, kind: str, id_: str, **more: object) -> None:
        self.send({"kind": kind, "id": id_, **more})

    def _end(self, state: str, message: str, result: Path | Exception, error: str = "") -> None:
        song, self._current = self._current, None
        assert song is not None
        song.close()
        song.state = state
        atexit.unregister(self.cancel)
        # An observer may raise, but the buttons and waiting code depend on what follows.
        try:
            if isinstance(result, Path):
                self.path = str(result)
            self.error, self.message = error, message
        finally:
            try:
                self.state = state
            finally:
                if isinstance(result, Path):
                    song.uploaded.set_result(result)
                else:
                    song.uploaded.set_exception(result)
                self._tell("end", song.id, state=state)
