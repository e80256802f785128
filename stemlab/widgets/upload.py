"""Bring a song from the browser to the kernel, in pieces small enough for every connection."""

from __future__ import annotations

import atexit
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import traitlets

from stemlab._typing import StrPath
from stemlab.errors import AudioError, ParameterError
from stemlab.widgets._arriving import ArrivingSong
from stemlab.widgets._page import STATIC, PageWidget, in_words
from stemlab.widgets._served import panel_path

__all__ = ["SongUpload"]


@dataclass
class _Upload:
    """One upload, from its start to its end."""

    id: str  # chosen by the page that sends it
    song: ArrivingSong
    state: str = "uploading"
    path: Path | None = None
    failure: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def name(self) -> str:
        return self.song.name


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

    state = traitlets.Enum(["idle", "uploading", "done", "cancelled", "failed"], "idle").tag(
        sync=True
    )
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
        self._current: _Upload | None = None
        self._last: _Upload | None = None
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
                self._cancel(self._current)

    def wait(self, timeout: float | None = None) -> Path:
        """Wait for the upload to end; interrupting the wait cancels it.

        Parameters
        ----------
        timeout : float, in seconds, optional
            Default: no limit.

        Returns
        -------
        path : Path
            The song.

        Raises
        ------
        AudioError
            If the upload was cancelled, there was none, or it is not a readable recording.
        OutputError
            If the song could not be written.
        TimeoutError
            If the upload still runs after `timeout`; it goes on.
        """
        upload = self._last
        if upload is None:
            raise AudioError("no song was uploaded yet. Press 'Upload a song…' first.")
        try:
            ended = upload.ended.wait(timeout)
        except KeyboardInterrupt:
            self.cancel()
            raise
        if not ended:
            raise TimeoutError(
                f"the upload of {upload.name!r} is not done after timeout={timeout} s "
                f"({self.progress:.0%}). Wait again, or call cancel()."
            )
        if upload.failure is not None:
            raise upload.failure
        assert upload.path is not None
        return upload.path

    def close(self) -> None:
        """Take the widget off all pages; ends an upload."""
        if hasattr(self, "_lock"):  # Also called if the constructor raised.
            with self._lock:
                self._closed = True
                self.cancel()
        super().close()

    # ------------------------------------------------------------ messages of the pages

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
                        if upload := self._find(id_):
                            self._take(upload, offset, memoryview(buffers[0]).cast("B"))
                    case {"kind": "where", "id": str(id_), "offset": int(offset)}:
                        if upload := self._find(id_):
                            self._acknowledge(upload, asked=offset)
                    case {"kind": "unreadable", "id": str(id_)}:
                        if upload := self._find(id_):
                            raise AudioError(
                                f"the browser can no longer read {upload.name!r}. It may have "
                                "been changed or moved. Choose it again."
                            )
                    case {"kind": "cancel", "id": str(id_)}:
                        if upload := self._find(id_):
                            self._cancel(upload)
                    case _:
                        self.log.warning("SongUpload: unknown message")
            except BaseException as error:
                if self._current is None:  # From an observer of the end; ipywidgets logs it.
                    raise
                if not isinstance(error, Exception):
                    # Interrupted: how much of a piece was written is unknown.
                    self._cancel(self._current)
                    raise
                self._end("failed", "Failed.", error, in_words(error))

    def _find(self, id_: str) -> _Upload | None:
        """Find the upload that a message is about; if it is over, tell the page so."""
        if self._current is not None and self._current.id == id_:
            return self._current
        known = self._last is not None and self._last.id == id_
        self._tell("end", id_, state=self._last.state if known and self._last else "unknown")
        return None

    def _start(self, id_: str, name: str, size: int) -> None:
        if self._last is not None and self._last.id == id_:  # A repeated message.
            if upload := self._find(id_):
                self._acknowledge(upload)
            return
        if self._current is not None:
            self._tell(
                "refused",
                id_,
                message=f"{self._current.name!r} is being uploaded. Wait for it, or cancel it.",
            )
            return
        upload = self._current = self._last = _Upload(id_, ArrivingSong(self.folder, name, size))
        atexit.register(self.cancel)
        for trait, value in {
            "_upload_id": id_,
            "error": "",
            "progress": 0.0,
            "message": f"Uploading {upload.name!r} ({size / 1e6:.1f} MB).",
            "state": "uploading",
        }.items():
            setattr(self, trait, value)
            if self._current is not upload:  # An observer cancelled it.
                return
        if size < 1:
            raise AudioError(f"{upload.name!r} is empty (0 bytes). Choose a recording.")
        if size > self.max_bytes:
            raise AudioError(
                f"{upload.name!r} has {size / 1e6:.1f} MB; the limit is "
                f"{self.max_bytes / 1e6:.1f} MB. Choose a smaller file, or make the widget with a "
                "larger max_bytes."
            )
        upload.song.open()
        self._acknowledge(upload)

    def _take(self, upload: _Upload, offset: int, content: memoryview) -> None:
        song = upload.song
        if offset != song.received:
            # Repeated or out of turn: tell the page where to go on.
            self._acknowledge(upload)
            return
        song.write(content)
        self._acknowledge(upload)
        self.progress = song.received / song.size
        if song.received == song.size and self._current is upload:
            self.message = f"Checking {song.name!r}."
            if self._current is upload:
                self._finish(upload)

    def _acknowledge(self, upload: _Upload, **more: object) -> None:
        self._tell("ack", upload.id, offset=upload.song.received, **more)

    def _tell(self, kind: str, id_: str, **more: object) -> None:
        self.send({"kind": kind, "id": id_, **more})

    # ------------------------------------------------------------ how an upload ends

    def _finish(self, upload: _Upload) -> None:
        upload.path, is_new = upload.song.publish()
        name, folder = upload.path.name, self.folder.name
        self._end(
            "done",
            f"Uploaded {name!r} to {folder!r}."
            if is_new
            else f"{name!r} is already in {folder!r}, with the same content.",
        )

    def _cancel(self, upload: _Upload) -> None:
        failure = AudioError(f"the upload of {upload.name!r} was cancelled. Choose a song again.")
        self._end("cancelled", "Cancelled. Nothing was kept.", failure)

    def _end(
        self, state: str, message: str, failure: Exception | None = None, text: str = ""
    ) -> None:
        upload, self._current = self._current, None
        assert upload is not None
        upload.song.close()
        upload.state, upload.failure = state, failure
        atexit.unregister(self.cancel)
        # An observer may raise, but the buttons and waiting code depend on what follows.
        try:
            if upload.path is not None:
                self.path = str(upload.path)
            self.error, self.message = text, message
        finally:
            try:
                self.state = state
            finally:
                upload.ended.set()
                self._tell("end", upload.id, state=state)
