"""Read recordings with libsndfile, and check what it reports about them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from stemlab._typing import AudioArray
from stemlab.audio._headers import scan_mp3, scan_ogg, stated_data_bytes, stated_loudspeakers
from stemlab.audio._opening import (
    AudioInfo,
    NotCoveredError,
    OpenRecording,
    decoding_error,
    shown,
)
from stemlab.audio.arrays import wave_layout
from stemlab.errors import AudioError

# Log messages name files without their folders: logs are passed on more readily than errors.
_LOG = logging.getLogger(__name__)

# Formats whose channel order differs from that of WAVE; libsndfile does not reorder channels. Opus
# is stored in Ogg too, and has the order of Vorbis.
_OWN_LAYOUTS = {
    ("OGG", 3): ("FL", "FC", "FR"),
    ("OGG", 5): ("FL", "FC", "FR", "BL", "BR"),
    ("OGG", 6): ("FL", "FC", "FR", "BL", "BR", "LFE"),
    ("OGG", 7): ("FL", "FC", "FR", "SL", "SR", "BC", "LFE"),
    ("OGG", 8): ("FL", "FC", "FR", "SL", "SR", "BL", "BR", "LFE"),
    ("FLAC", 7): ("FL", "FR", "FC", "LFE", "BC", "SL", "SR"),
}

# Encoder delay and padding, 12 bits each in the LAME header: what a decoder may leave out.
_MP3_TRIM_SAMPLES = 2 * 4095
# A compressed file may miss this much of the length it states without a warning.
_LENGTH_SLACK_SECONDS = 0.1


class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A sound file that is read or written from start to end, never sought.

    soundfile seeks after each block; in Opus and in MP3 files of variable bit rate that changes the
    samples that follow.
    """

    def seekable(self) -> bool:
        """Return False."""
        return False


def descriptor_or_name(handle: BinaryIO) -> int | str:
    """Return what libsndfile opens: a descriptor, from whose name it can guess no format."""
    # A descriptor on Windows would belong to another C runtime.
    return str(handle.name) if os.name == "nt" else handle.fileno()


@contextmanager
def open_libsndfile(path: Path, handle: BinaryIO) -> Iterator[OpenRecording]:
    """Open a recording, or raise NotCoveredError or the errors of soundfile."""
    try:
        sound = ForwardFile(descriptor_or_name(handle), closefd=False)
    except TypeError as error:  # The name is that of a headerless format, which needs a rate.
        raise NotCoveredError(str(error)) from error
    with sound as file:
        samples: int | None = file.frames if file.frames < 2**62 else None
        complete = True
        if file.format == "MP3":
            samples = _mp3_samples(path, file.frames)
        elif file.format == "OGG":
            pages = scan_ogg(path)
            if pages.chained:
                raise NotCoveredError("it is a chained Ogg file: several recordings in a row")
            complete = pages.complete
        elif samples:
            _check_not_truncated(path, samples, file.samplerate)
        info = AudioInfo(
            path, file.samplerate, file.channels, samples, file.format, file.subtype, "soundfile"
        )
        usual = _OWN_LAYOUTS.get((file.format, file.channels)) or wave_layout(file.channels)
        layout = stated_loudspeakers(path) or usual
        yield OpenRecording(info, layout, partial(_blocks, file, info, complete))


def _mp3_samples(path: Path, claim: int) -> int:
    """Check libsndfile's count, at which it stops reading, against the frames in the file."""
    frames = scan_mp3(path)
    if frames is None:
        return claim
    slack = frames.frame_samples + (_MP3_TRIM_SAMPLES if frames.states_length else 0)
    if claim < frames.samples - slack:
        raise NotCoveredError(
            f"its header leads libsndfile to stop after {claim} of {frames.samples} samples"
        )
    return claim if frames.states_length else min(claim, frames.samples)


def _check_not_truncated(path: Path, samples: int, rate: int) -> None:
    stated_present = stated_data_bytes(path)
    if stated_present is None:
        return
    stated, present = stated_present
    missing = stated - present
    # Some writers count a padding byte that they leave out: that is no lost sample.
    padding = missing < present // samples and present % samples == 0
    if missing > 0 and not padding:
        lost = max(1, missing * samples // present)
        raise AudioError(
            f"{shown(path)} is truncated: {samples / rate:.3f} s of "
            f"{(samples + lost) / rate:.3f} s are there. Get a whole copy of the file.",
            path,
        )


def _blocks(
    file: ForwardFile, info: AudioInfo, complete: bool, block_samples: int
) -> Iterator[AudioArray]:
    done = 0
    while True:
        try:
            block = file.read(block_samples, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            with suppress(soundfile.SoundFileError):
                done = max(done, file.tell())
            raise decoding_error(info, done, error) from error
        if not len(block):
            break
        done += len(block)
        yield np.ascontiguousarray(block.T)
    if done:
        _check_length(info, done)
    if not complete:
        _LOG.warning("%s lacks its last Ogg page: it may be cut short", shown(info.path.name))


def _check_length(info: AudioInfo, done: int) -> None:
    """Compare what was decoded with the stated length: warn, or refuse the recording."""
    if info.samples is None or done == info.samples:
        return
    missing = (info.samples - done) / info.sample_rate
    message = (
        f"gives {done / info.sample_rate:.3f} s, its header states "
        f"{info.samples / info.sample_rate:.3f} s: it is damaged or cut short"
    )
    if info.container == "MP3":
        if missing > _LENGTH_SLACK_SECONDS:
            _LOG.warning("%s %s", shown(info.path.name), message)
    elif info.container != "OGG" or missing > _LENGTH_SLACK_SECONDS:
        raise AudioError(f"{shown(info.path)} {message}. Get a whole copy of the file.", info.path)
