"""A song that arrives in pieces: a hidden draft in the folder, which gets a name at the end."""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
import stat
import unicodedata
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from stemlab import audio
from stemlab.errors import AudioError, OutputError, StemlabError
from stemlab.files import Folder, WorkFolder, abandoned_folders
from stemlab.results import file_safe
from stemlab.widgets._page import is_served

_OWNER, _DRAFT = "upload", "song.upload"
# Visitors of a page can upload until the files of a folder come to this.
_SERVED_BYTES = 8 * 1024**3
# Names that Windows takes for a device, whatever follows the first dot.
_DEVICES = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\.|$)", re.IGNORECASE
)


class ArrivingSong:
    """An upload: a file of known size that is written piece by piece."""

    def __init__(self, id_: str, folder: Path, name: str, size: int) -> None:
        self.id = id_  # Chosen by the page that sends it.
        self.state = "uploading"
        self.uploaded = Future[Path]()
        self.folder = folder
        self.name = _safe_name(name)
        self.size = size
        self.received = 0
        self._digest = hashlib.sha256()
        self._work: WorkFolder | None = None
        self._file: BinaryIO | None = None

    def open(self) -> None:
        """Make the draft, once what killed processes left is removed and there is room."""
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            for left_behind in abandoned_folders(self.folder, _OWNER):
                left_behind.close()
            self._check_quota()
            free = shutil.disk_usage(self.folder).free
            if free < self.size:
                raise OutputError(
                    f"{self.name!r} has {self.size / 1e6:.1f} MB, and {str(self.folder)!r} has "
                    f"{free / 1e6:.1f} MB of free space. Make room, or choose another folder.",
                    self.folder,
                )
            self._work = WorkFolder(self.folder, _OWNER)
            self._file = self._work.open(_DRAFT, "x+b")

    def write(self, content: memoryview) -> None:
        """Append a piece."""
        left = self.size - self.received
        if not 0 < content.nbytes <= left:
            raise AudioError(
                f"the page sent {content.nbytes} bytes of {self.name!r} where {left} were left. "
                "The file may have been changed. Choose it again."
            )
        assert self._file is not None
        with self._writing():
            self._check_quota()
            self._file.write(content)
            self._file.flush()
        self._digest.update(content)
        self.received += content.nbytes

    def publish(self) -> tuple[Path, bool]:
        """Give the draft a free name, or find a file of the same content; say whether it is new."""
        assert self._file is not None and self._work is not None
        with self._writing():
            self._file.close()
            self.name = _audio_name(self.name, self._read_info(self._work))
            name = Path(self.name)
            with Folder(self.folder) as target:
                for number in itertools.count(1):
                    suffix = f" ({number})" if number > 1 else ""
                    path = self.folder / f"{name.stem}{suffix}{name.suffix}"
                    try:
                        self._work.move(_DRAFT, target, path.name)
                    except FileExistsError:
                        if self._is_content_of(path):
                            return path, False
                    else:
                        break
        return path, True

    def close(self) -> None:
        """Remove the draft, if it is still there."""
        if self._file is not None:
            # A full disk fails here once more; it has been reported already.
            with suppress(OSError):
                self._file.close()
        if self._work is not None:
            with suppress(OSError):
                self._work.close()

    def _check_quota(self) -> None:
        """Keep visitors of a page from filling the disk, also with many uploads at once."""
        if not is_served():
            return
        taken = 0
        for pattern in ("*", f".stemlab-{_OWNER}-*/{_DRAFT}"):
            for path in self.folder.glob(pattern):
                with suppress(FileNotFoundError):  # An upload of another page has ended.
                    facts = path.lstat()
                    taken += facts.st_size if stat.S_ISREG(facts.st_mode) else 0
        if taken + self.size - self.received > _SERVED_BYTES:
            raise OutputError(
                f"{self.name!r} has {self.size / 1e6:.1f} MB, and the folder has no room for it: "
                f"it may hold {_SERVED_BYTES / 1e6:.0f} MB. Choose a shorter song, or ask whoever "
                "runs this page to make room.",
                self.folder,
            )

    def _read_info(self, work: WorkFolder) -> audio.AudioInfo:
        draft = work.path / _DRAFT
        try:
            return audio.read_info(draft)
        except AudioError as error:
            # The page knows the song by its own name.
            said = str(error).replace(repr(str(draft)), repr(str(self.folder / self.name)))
            error.args = (said, *error.args[1:])
            raise

    def _is_content_of(self, path: Path) -> bool:
        try:
            return (
                path.stat().st_size == self.size
                and audio.file_digest(path) == self._digest.hexdigest()
            )
        except (OSError, AudioError):
            return False

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except StemlabError:
            raise
        except OSError as error:
            raise OutputError(
                f"{self.name!r} cannot be written to {str(self.folder)!r}: "
                f"{error.strerror or error}. Check the permissions and the free space of the "
                "folder.",
                self.folder,
            ) from error


def _safe_name(name: str) -> str:
    """Turn a name from elsewhere into that of a visible file, valid on every system."""
    base = unicodedata.normalize("NFC", name).replace("\\", "/").rpartition("/")[2]
    # Marks that change the direction of writing would disguise the ending.
    shown = "".join(letter if letter.isprintable() else " " * letter.isspace() for letter in base)
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
    """Add the ending of the format to a name that does not end like a recording."""
    if Path(name).suffix.lower() in audio.RECORDING_SUFFIXES:
        return name
    formats = info.container.lower().split(",")
    known = (
        suffix
        for suffix in sorted(audio.RECORDING_SUFFIXES)
        if any(container.startswith(suffix[1:]) for container in formats)
    )
    return name + next(known, f".{formats[0]}")
