"""Facts from the headers of audio files that libsndfile does not report.

libsndfile shortens the length of a truncated WAV or AIFF file without a word, stops early in an MP3
file whose length it guessed too low, reads only the first link of a chained Ogg file, and keeps to
itself which loudspeakers the channels are for.
"""

from __future__ import annotations

import mmap
import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stemlab._typing import StrPath

# By bit of a channel mask. Apple labels channels with the same order, counted from 1.
_LOUDSPEAKERS = "FL FR FC LFE BL BR FLC FRC BC SL SR TC TFL TFC TFR TBL TBC TBR".split()
_UNKNOWN = "?"

# Apple's numbers of whole layouts, and the loudspeakers that they stand for.
_APPLE_LAYOUTS = {
    108: "FL FR BL BR",
    113: "FL FR FC",
    114: "FC FL FR",
    115: "FL FR FC BC",
    116: "FC FL FR BC",
    117: "FL FR FC BL BR",
    118: "FL FR BL BR FC",
    119: "FL FC FR BL BR",
    120: "FC FL FR BL BR",
    121: "FL FR FC LFE BL BR",
    122: "FL FR BL BR FC LFE",
    123: "FL FC FR BL BR LFE",
    124: "FC FL FR BL BR LFE",
    125: "FL FR FC LFE BL BR BC",
    128: "FL FR FC LFE SL SR BL BR",
    131: "FL FR BC",
    132: "FL FR BL BR",
    133: "FL FR LFE",
    134: "FL FR LFE BC",
    135: "FL FR LFE BL BR",
    136: "FL FR FC LFE",
    137: "FL FR FC LFE BC",
    138: "FL FR BL BR LFE",
}
_MOST_CHUNK_BYTES = 1 << 20


def stated_data_bytes(path: StrPath) -> tuple[int, int] | None:
    """Return the bytes of samples that a RIFF, RF64 or AIFF header states, and those present."""
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


def stated_loudspeakers(path: StrPath) -> tuple[str, ...] | None:
    """Return the loudspeaker of each channel as a WAVE, FLAC, Opus, CAF or AIFF file states it."""
    with open(path, "rb") as file:
        start = file.read(12)
        if start[:4] == b"fLaC":
            return _flac_loudspeakers(file)
        if start[:4] == b"OggS":
            return _opus_loudspeakers(file.read(512))
        order = ">" if start[:4] == b"RIFX" else "<"
        for name, body in _layout_chunks(file, start):
            if name == b"fmt ":
                return _wave_loudspeakers(body, order)
            if name.lower() == b"chan" and len(body) >= 12:
                return _apple_loudspeakers(body)
    return None


def _layout_chunks(file: BinaryIO, start: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and the beginning of each chunk that may state a layout."""
    family, kind = start[:4], start[8:12]
    if family == b"caff":
        file.seek(8)
        head, align, own = struct.Struct(">4sq"), 1, 0
    elif family == b"riff":  # Sony Wave64: names are 16 bytes long, sizes include the head.
        file.seek(40)
        head, align, own = struct.Struct("<4s12xq"), 8, 24
    elif family in (b"RIFX", b"FORM"):
        head, align, own = struct.Struct(">4sI"), 2, 0
    elif kind == b"WAVE":
        head, align, own = struct.Struct("<4sI"), 2, 0
    else:
        return
    while len(found := file.read(head.size)) == head.size:
        name, length = head.unpack(found)
        length -= own
        if length < 0:
            return
        body = file.tell()
        if name in (b"fmt ", b"chan", b"CHAN"):
            yield name, file.read(min(length, _MOST_CHUNK_BYTES))
        try:
            file.seek(body + length + -length % align)
        except (OSError, OverflowError):  # The stated length is impossible.
            return


def _wave_loudspeakers(body: bytes, order: str) -> tuple[str, ...] | None:
    extensible = len(body) >= 24 and struct.unpack_from(order + "H", body)[0] == 0xFFFE
    return _by_mask(struct.unpack_from(order + "I", body, 20)[0]) if extensible else None


def _flac_loudspeakers(file: BinaryIO) -> tuple[str, ...] | None:
    """Read the tag in which `flac` keeps an unusual channel mask of a WAVE file."""
    file.seek(4)
    kind = 0
    while kind < 128 and len(head := file.read(4)) == 4:
        kind, length = head[0], int.from_bytes(head[1:], "big")
        if kind & 127 == 4:
            tags = file.read(min(length, _MOST_CHUNK_BYTES))
            tag = re.search(
                rb"WAVEFORMATEXTENSIBLE_CHANNEL_MASK=(?:0x)?([0-9a-f]{1,8})", tags, re.IGNORECASE
            )
            return _by_mask(int(tag[1], 16)) if tag else None
        file.seek(length, os.SEEK_CUR)
    return None


def _opus_loudspeakers(first_page: bytes) -> tuple[str, ...] | None:
    """Return an unknown loudspeaker for mapping families above 1, such as ambisonics."""
    at = first_page.find(b"OpusHead")
    return (_UNKNOWN,) if at >= 0 and first_page[at + 18 : at + 19] > b"\x01" else None


def _apple_loudspeakers(body: bytes) -> tuple[str, ...] | None:
    tag, mask, count = struct.unpack_from(">III", body)
    if tag == 0x10000:
        return _by_mask(mask)
    if tag == 0:
        labels = [struct.unpack_from(">I", body, at)[0] for at in range(12, len(body) - 19, 20)]
        return tuple(
            _LOUDSPEAKERS[label - 1] if 0 < label <= len(_LOUDSPEAKERS) else _UNKNOWN
            for label in labels[:count]
        )
    return tuple(_APPLE_LAYOUTS.get(tag >> 16, _UNKNOWN).split())


def _by_mask(mask: int) -> tuple[str, ...] | None:
    """Name the loudspeakers of a channel mask; a mask of 0 names none."""
    bits = [bit for bit in range(32) if mask >> bit & 1]
    names = (_LOUDSPEAKERS[bit] if bit < len(_LOUDSPEAKERS) else _UNKNOWN for bit in bits)
    return tuple(names) or None


@dataclass(frozen=True)
class Mp3Frames:
    """What the frames of an MP3 file say about it."""

    samples: int  # In all frames, encoder delay and padding included.
    frame_samples: int  # 1152 or 576.
    states_length: bool  # Whether a Xing, Info or VBRI header states the number of frames.


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
    """Count the frames of an MP3 file by walking from header to header."""
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
            # A single header in garbage may be chance: after a gap, two must follow each other.
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
    """What the pages of an Ogg file say about it."""

    chained: bool  # Several recordings, one after another.
    complete: bool  # The pages reach the end of the file, and the last one is marked as such.


def scan_ogg(path: StrPath) -> OggPages:
    """Walk through an Ogg file from page to page."""
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
