"""Bring a song from the browser to the kernel, in pieces that every connection takes."""

from __future__ import annotations

import atexit
import hashlib
import itertools
import os
import re
import shutil
import stat
import sys
import threading
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import traitlets

from stemlab import audio
from stemlab._typing import StrPath
from stemlab.errors import AudioError, OutputError, ParameterError, StemlabError
from stemlab.files import Folder, WorkFolder, abandoned_folders
from stemlab.results import file_safe
from stemlab.widgets._page import STATIC, PageWidget
from stemlab.widgets._served import is_served, panel_path

__all__ = ["SongUpload"]

_OWNER, _DRAFT = "upload", "song.upload"
# Visitors of a page can upload until the files of a folder come to this.
_SERVED_BYTES = 8 * 1024**3
# What Windows takes for a device, whatever follows the first dot.
_DEVICES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE
)


@dataclass
class _Upload:
    """One file on its way; `id` is what the page that sends it calls it."""

    id: str
    name: str
    size: int
    work: WorkFolder | None = None
    file: BinaryIO | None = None
    received: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    state: str = "uploading"
    path: Path | None = None
    failure: Exception | None = None
    ended: threading.Event = field(default_factory=threading.Event)

    def clear_up(self) -> None:
        """Close the hidden file, and remove it if it is still there."""
        if self.file is not None:
            # A full disk shows up here once more; it has been reported already.
            with suppress(OSError):
                self.file.close()
        if self.work is not None:
            with suppress(OSError):
                self.work.close()


class SongUpload(PageWidget):
    """Upload a song from the browser's machine to a folder of the kernel's.

    The last expression of a cell shows a button, which is also a place to drop a file. Files of
    any size arrive: they are sent in small pieces, one after the other.

    Parameters
    ----------
    folder : path
        Gets the song under its own name, made safe. No other file is replaced: another number is
        added to the name, unless the file there has the same content. Made when missing.
    max_bytes : int, >= 1, default 2 GiB
        Larger files are refused.

    Attributes
    ----------
    folder : Path
    max_bytes : int
    state : {"idle", "uploading", "done", "cancelled", "failed"}
    progress : float, in [0, 1]
    message : str
        What the widget says about the state.
    error : str
        What went wrong in the last upload; empty otherwise.
    path : str
        The song that was uploaded last; empty before.

    Raises
    ------
    ParameterError
        If `folder` is something else than a folder, or `max_bytes` is less than 1.

    Notes
    -----
    While a song arrives it lies in a hidden folder in `folder`, ``.stemlab-upload-*.partial``; what
    a killed process left of one is removed by the next upload. A name that does not end like a
    recording gets the ending of its format. Pages of ``stemlab lab --voila`` take no more once the
    files of the folder come to 8 GiB. Where JupyterLab and the kernel have no subshells (before
    JupyterLab 4.4 and ipykernel 7), nothing arrives while a cell runs.

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
    # Lets every page cancel, also if the one that sends is gone.
    _upload_id = traitlets.Unicode().tag(sync=True)

    def __init__(self, folder: StrPath, *, max_bytes: int = 2 * 1024**3) -> None:
        # Messages arrive in a thread of their own where the kernel has subshells. Reentrant,
        # because whoever observes a trait may call cancel().
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
        """End the upload, if there is one; nothing of it is left."""
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
            If the upload was cancelled, or there was none, or it is no recording that can be read.
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
        if hasattr(self, "_lock"):  # Python closes what its constructor refused, too.
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
                                f"the browser cannot read {upload.name!r} any more: was it "
                                "changed or moved? Choose it again."
                            )
                    case {"kind": "cancel", "id": str(id_)}:
                        if upload := self._find(id_):
                            self._cancel(upload)
                    case _:
                        self.log.warning("SongUpload: a message that it does not know")
            except BaseException as error:
                if self._current is None:  # From an observer of the end; ipywidgets shows it.
                    raise
                if isinstance(error, StemlabError):
                    self._fail(str(error), error)
                elif isinstance(error, Exception):
                    text = f"{type(error).__name__}: {error}"
                    self._fail(f"This is a bug of stemlab, please report it. {text}", error)
                else:  # Interrupted: how much of a piece was taken is not known.
                    self._cancel(self._current)
                    raise

    def _find(self, id_: str) -> _Upload | None:
        """Find the upload that a message is about; a page that asks for another hears its end."""
        if self._current is not None and self._current.id == id_:
            return self._current
        known = self._last is not None and self._last.id == id_
        self._tell("end", id_, state=self._last.state if known and self._last else "unknown")
        return None

    def _start(self, id_: str, name: str, size: int) -> None:
        if self._last is not None and self._last.id == id_:  # Said twice.
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
        upload = self._current = self._last = _Upload(id_, _safe_name(name), size)
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
            raise AudioError(f"{upload.name!r} is empty (0 bytes); choose a recording.")
        if size > self.max_bytes:
            raise AudioError(
                f"{upload.name!r} has {size / 1e6:.1f} MB; at most {self.max_bytes / 1e6:.1f} MB "
                "are taken here. Choose a smaller file, or make the widget with a larger "
                "max_bytes."
            )
        with self._writing(upload):
            self.folder.mkdir(parents=True, exist_ok=True)
            for left_behind in abandoned_folders(self.folder, _OWNER):
                left_behind.close()
            self._check_quota(upload)
            free = shutil.disk_usage(self.folder).free
            if free < size:
                raise OutputError(
                    f"{upload.name!r} has {size / 1e6:.1f} MB, and {str(self.folder)!r} has "
                    f"{free / 1e6:.1f} MB of free space. Make room, or choose another folder.",
                    self.folder,
                )
            upload.work = WorkFolder(self.folder, _OWNER)
            upload.file = upload.work.open(_DRAFT, "x+b")
        self._acknowledge(upload)

    def _take(self, upload: _Upload, offset: int, content: memoryview) -> None:
        if offset != upload.received:
            # Said twice or out of turn: the page hears where to go on.
            self._acknowledge(upload)
            return
        left = upload.size - upload.received
        if not 0 < content.nbytes <= left:
            raise AudioError(
                f"the page sent {content.nbytes} bytes of {upload.name!r} where {left} were left: "
                "was the file changed? Choose it again."
            )
        assert upload.file is not None
        with self._writing(upload):
            self._check_quota(upload)
            upload.file.write(content)
            upload.file.flush()
        upload.digest.update(content)
        upload.received += content.nbytes
        self._acknowledge(upload)
        self.progress = upload.received / upload.size
        if upload.received == upload.size and self._current is upload:
            self.message = f"Checking {upload.name!r}."
            if self._current is upload:
                self._finish(upload)

    def _check_quota(self, upload: _Upload) -> None:
        """Keep visitors of a page from filling the disk, also with many uploads at once."""
        if not is_served():
            return
        taken = 0
        for pattern in ("*", f".stemlab-{_OWNER}-*/{_DRAFT}"):
            for path in self.folder.glob(pattern):
                with suppress(FileNotFoundError):  # An upload of another page has ended.
                    facts = path.lstat()
                    taken += facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        if taken + upload.size - upload.received > _SERVED_BYTES:
            raise OutputError(
                f"{upload.name!r} has {upload.size / 1e6:.1f} MB, and the folder has no room for "
                f"it: at most {_SERVED_BYTES / 1e6:.0f} MB are kept there. Choose a shorter song, "
                "or ask whoever runs this page to make room.",
                self.folder,
            )

    def _acknowledge(self, upload: _Upload, **more: object) -> None:
        self._tell("ack", upload.id, offset=upload.received, **more)

    def _tell(self, kind: str, id_: str, **more: object) -> None:
        self.send({"kind": kind, "id": id_, **more})

    # ------------------------------------------------------------ how an upload ends

    def _finish(self, upload: _Upload) -> None:
        assert upload.file is not None and upload.work is not None
        with self._writing(upload):
            upload.file.close()
            upload.name = _audio_name(upload.name, self._read_draft(upload))
            path, is_new = _publish(upload, upload.work, self.folder)
        upload.path = path
        self._end(
            "done",
            f"Done: {path.name!r} is in {self.folder.name!r}."
            if is_new
            else f"Done: {path.name!r} was in {self.folder.name!r} already, with the same content.",
        )

    def _read_draft(self, upload: _Upload) -> audio.AudioInfo:
        assert upload.work is not None
        draft = upload.work.path / _DRAFT
        try:
            return audio.read_info(draft)
        except AudioError as error:
            # The page knows the song by its own name.
            said = str(error).replace(repr(str(draft)), repr(str(self.folder / upload.name)))
            error.args = (said, *error.args[1:])
            raise

    def _cancel(self, upload: _Upload) -> None:
        failure = AudioError(f"the upload of {upload.name!r} was cancelled. Choose a song again.")
        self._end("cancelled", "Cancelled. Nothing was kept.", failure)

    def _fail(self, text: str, error: Exception) -> None:
        self._end("failed", "This did not work.", error, text)

    def _end(
        self, state: str, message: str, failure: Exception | None = None, text: str = ""
    ) -> None:
        upload, self._current = self._current, None
        assert upload is not None
        upload.clear_up()
        upload.state, upload.failure = state, failure
        atexit.unregister(self.cancel)
        # An observer may raise: the buttons and whoever waits depend on the rest.
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

    @contextmanager
    def _writing(self, upload: _Upload) -> Iterator[None]:
        """Say what could not be written, and why."""
        try:
            yield
        except StemlabError:
            raise
        except OSError as error:
            raise OutputError(
                f"{upload.name!r} cannot be written to {str(self.folder)!r}: "
                f"{error.strerror or error}. Check the permissions and the free space of the "
                "folder.",
                self.folder,
            ) from error


def _safe_name(name: str) -> str:
    """Make a name from elsewhere one of a visible file in the folder, on every system."""
    base = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    # Marks that turn the direction of writing would disguise the ending.
    shown = "".join(each if each.isprintable() else " " * each.isspace() for each in base)
    stem, _, ending = shown.strip().rpartition(".")
    if not re.fullmatch(r"[A-Za-z0-9]{1,8}", ending):
        stem, ending = shown, ""
    elif "." not in shown:
        stem, ending = ending, ""
    stem = file_safe(stem)
    if _DEVICES.match(stem):
        stem = f"_{stem}"
    return f"{stem}.{ending}" if ending else stem


def _audio_name(name: str, info: audio.AudioInfo) -> str:
    """Add the ending of its format to a name that ends like anything but a recording."""
    if Path(name).suffix.lower() in audio.RECORDING_SUFFIXES:
        return name
    formats = info.container.lower().split(",")
    known = (
        suffix
        for suffix in sorted(audio.RECORDING_SUFFIXES)
        if any(container.startswith(suffix[1:]) for container in formats)
    )
    return name + next(known, f".{formats[0]}")


def _publish(upload: _Upload, work: WorkFolder, folder: Path) -> tuple[Path, bool]:
    """Give the hidden file a name that is free, or find one with the same content; say which."""
    name = Path(upload.name)
    with Folder(folder) as target:
        for number in itertools.count(1):
            number_shown = f" ({number})" if number > 1 else ""
            path = folder / f"{name.stem}{number_shown}{name.suffix}"
            try:
                work.move(_DRAFT, target, path.name)
            except FileExistsError:
                if _has_content(path, upload):
                    return path, False
            else:
                break
    return path, True


def _has_content(path: Path, upload: _Upload) -> bool:
    try:
        return (
            path.stat().st_size == upload.size
            and audio.file_digest(path) == upload.digest.hexdigest()
        )
    except (OSError, AudioError):
        return False
