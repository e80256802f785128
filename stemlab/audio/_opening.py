"""What all readers of recordings share: the description of an open recording, and its errors."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import soundfile

from stemlab._typing import AudioArray, StrPath
from stemlab.errors import AudioError, AudioNotFoundError

# Formats that can be read from any position. In others, seeking fails or changes the samples that
# follow.
_EXACT_CONTAINERS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC"})
_EXACT_CODECS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")


@dataclass(frozen=True)
class AudioInfo:
    """What a recording states about itself."""

    path: Path
    sample_rate: int
    channels: int
    samples: int | None  # As the header claims; None where only decoding tells.
    container: str  # As the reader names it, for instance "WAV" or "mov,mp4,m4a,3gp,3g2,mj2".
    codec: str
    reader: Literal["soundfile", "pyav"]

    @property
    def is_exact(self) -> bool:
        """Whether `samples` is the true length, and any stretch can be read by its position."""
        return (
            self.samples is not None
            and self.reader == "soundfile"
            and self.container in _EXACT_CONTAINERS
            and self.codec.startswith(_EXACT_CODECS)
        )


@dataclass(frozen=True)
class OpenRecording:
    """An open file: its description, and a way to decode it."""

    info: AudioInfo
    layout: tuple[str, ...] | None  # Loudspeaker of each channel; None where it is not known.
    blocks: Callable[[int], Iterator[AudioArray]]  # Takes the length of a block in samples.


class NotCoveredError(Exception):
    """libsndfile opens this file but would give only a part of it; the message says why."""


def shown(path: StrPath) -> str:
    """Return a path as it is shown in messages."""
    # repr keeps newlines and undecodable bytes of a file name on one printable line.
    return repr(os.fspath(path))


def regular_file(path: StrPath) -> Path:
    """Return the path of a non-empty regular file; anything else is refused unopened."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise AudioNotFoundError(f"{shown(path)} does not exist. Check the path.", path) from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{shown(path)} cannot be opened: {reason(error)}", path) from error
    found = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }.get(stat.S_IFMT(status.st_mode))
    if found or not stat.S_ISREG(status.st_mode):
        kind = found or "not a regular file"
        raise AudioError(f"{shown(path)} is {kind}. Pass an audio file.", path)
    if not status.st_size:
        raise AudioError(f"{shown(path)} is empty (0 bytes). Pass an audio file.", path)
    return Path(path)


def reason(error: Exception) -> str:
    """Say in a few words why a file cannot be opened or decoded."""
    if isinstance(error, OSError):
        if error.errno == errno.EACCES:
            return "permission denied. Change its permissions."
        if error.errno == errno.ELOOP:
            return "its symbolic links run in a circle. Pass the file itself."
        return f"{error.strerror or error}".lower()
    if isinstance(error, soundfile.LibsndfileError):
        # Code 7 speaks of a missing file; what is missing is an MPEG frame.
        text = "no known format" if error.code == 7 else error.error_string.removeprefix("Error : ")
        return str(text).rstrip(".")
    if text := getattr(error, "strerror", None):
        return str(text)
    return " ".join(str(error).split()).rstrip(".")


def decoding_error(info: AudioInfo, done: int, error: Exception) -> AudioError:
    """Say that a recording cannot be decoded after its first `done` samples."""
    total = "" if info.samples is None else f" of {info.samples / info.sample_rate:.3f} s"
    return AudioError(
        f"{shown(info.path)} cannot be decoded after {done / info.sample_rate:.3f} s{total} "
        f"({reason(error)}): it is damaged or cut short. Get a whole copy of the file.",
        info.path,
    )
