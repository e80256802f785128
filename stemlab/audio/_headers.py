"""What the headers of a file state, where libsndfile does not tell.

libsndfile shortens the length of a truncated WAV or AIFF file without a word, stops early in an MP3
file whose length it guessed too low, and reads only the first link of a chained Ogg file.
"""

from __future__ import annotations

import mmap
import os
import struct
from dataclasses import dataclass
from typing import BinaryIO

from stemlab._typing import StrPath

__all__ = ["Mp3Frames", "OggPages", "scan_mp3", "scan_ogg", "stated_data_bytes"]


def stated_data_bytes(path: StrPath) -> tuple[int, int] | None:
    """Return how many bytes of samples a RIFF, RF64 or AIFF header states, and how many there are.

    Parameters
    ----------
    path : str or PathLike

    Returns
    -------
    stated, present : tuple of int, or None
        None for another kind of file, and where the writer left the length open.
    """
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        start = file.read(12)
        family, kind = start[:4], start[8:12]
        if family in (b"RIFF", b"RF64", b"BW64", b"RIFX") and kind == b"WAVE":
            return _data_chunk(file, size, b"data", ">" if family == b"RIFX" else "<")
        if family == b"FORM" and kind in (b"AIFF", b"AIFC"):
            return _data_chunk(file, size, b"SSND", ">")
    return None


def _data_chunk(file: BinaryIO, size: int, wanted: bytes, order: str) -> tuple[int, int] | None:
    long_size = None
    while len(head := file.read(8)) == 8:
        name, length = struct.unpack(order + "4sI", head)
        body = file.tell()
        if name == b"ds64":
            fields = file.read(16)
            if len(fields) == 16:
                long_size = struct.unpack("<QQ", fields)[1]
        if name == wanted:
            if length == 0xFFFFFFFF and long_size is not None:
                length = long_size
            elif 0x7FFFF000 <= length <= 0x80000000 or length >= 0xFFFFF000:
                return None  # written to a pipe: the length was never filled in
            return length, size - body
        file.seek(body + length + length % 2)
    return None


@dataclass(frozen=True)
class Mp3Frames:
    """The frames of an MP3 file, counted.

    Parameters
    ----------
    samples : int
        Samples in all frames, encoder delay and padding included.
    frame_samples : int
        Samples in one frame: 1152 or 576.
    states_length : bool
        Whether a Xing, Info or VBRI header states the number of frames.
    """

    samples: int
    frame_samples: int
    states_length: bool


_BITRATES_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_BITRATES_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_RATES = (44_100, 48_000, 32_000)


def _mp3_frame(data: mmap.mmap, at: int) -> tuple[int, int] | None:
    """Return the bytes and samples of the layer III frame that starts at a byte."""
    header = int.from_bytes(data[at : at + 4], "big")
    version, layer = header >> 19 & 3, header >> 17 & 3
    bitrate, rate = header >> 12 & 15, header >> 10 & 3
    if at + 4 > len(data) or header >> 21 != 0x7FF or version == 1 or layer != 1:
        return None
    if bitrate in (0, 15) or rate == 3:
        return None
    first = version == 3
    samples = 1152 if first else 576
    kilobits = (_BITRATES_1 if first else _BITRATES_2)[bitrate]
    hertz = _MP3_RATES[rate] >> {3: 0, 2: 1, 0: 2}[version]
    return samples // 8 * kilobits * 1000 // hertz + (header >> 9 & 1), samples


def scan_mp3(path: StrPath) -> Mp3Frames | None:
    """Count the frames of an MP3 file by walking from header to header.

    Parameters
    ----------
    path : str or PathLike

    Returns
    -------
    frames : Mp3Frames or None
        None if no frame was found.
    """
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        at = samples = frame_samples = 0
        states_length = False
        while 0 <= at < len(data):
            if data[at : at + 3] == b"ID3":
                at += 10 + sum((byte & 127) << 7 * (9 - i) for i, byte in _bytes(data, at, 6, 10))
                continue
            frame = _mp3_frame(data, at)
            # A lone frame in the middle of rubbish is chance: after a gap it takes two in a row.
            if frame is None:
                at = _next_mp3_frame(data, at + 1)
                continue
            if not samples:
                frame_samples = frame[1]
                states_length = _states_length(data[at : at + 64])
            samples += frame[1]
            at += frame[0]
    return Mp3Frames(samples, frame_samples, states_length) if samples else None


def _bytes(data: mmap.mmap, at: int, start: int, stop: int) -> list[tuple[int, int]]:
    return [(i, data[at + i]) for i in range(start, stop) if at + i < len(data)]


def _next_mp3_frame(data: mmap.mmap, at: int) -> int:
    while (at := data.find(b"\xff", at)) >= 0:
        frame = _mp3_frame(data, at)
        if frame is not None and _mp3_frame(data, at + frame[0]) is not None:
            return at
        at += 1
    return -1


def _states_length(frame: bytes) -> bool:
    if b"VBRI" in frame:
        return True
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    return at >= 0 and bool(frame[at + 7] & 1)


@dataclass(frozen=True)
class OggPages:
    """What the pages of an Ogg file tell.

    Parameters
    ----------
    chained : bool
        Whether the file holds several recordings one after another.
    complete : bool
        Whether the pages reach the end of the file and the last one is marked as the last.
    """

    chained: bool
    complete: bool


def scan_ogg(path: StrPath) -> OggPages:
    """Walk through an Ogg file from page to page.

    Parameters
    ----------
    path : str or PathLike

    Returns
    -------
    pages : OggPages
    """
    with (
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        at, in_body, last = 0, False, False
        while data[at : at + 4] == b"OggS" and at + 27 <= len(data):
            first, last = bool(data[at + 5] & 2), bool(data[at + 5] & 4)
            if first and in_body:
                return OggPages(chained=True, complete=False)
            in_body = in_body or not first
            segments = data[at + 26]
            at += 27 + segments + sum(data[at + 27 : at + 27 + segments])
        return OggPages(chained=False, complete=last and at == len(data))
