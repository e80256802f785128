"""Reading recordings: libsndfile first, PyAV for what it does not know."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import stat
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Literal

import numpy as np
import soundfile

from stemlab._checks import RATE_RANGE_HZ, check_count, check_rate
from stemlab._typing import AudioArray, StrPath
from stemlab.audio._headers import (
    scan_mp3,
    scan_ogg,
    stated_data_bytes,
    stated_loudspeakers,
)
from stemlab.audio.arrays import (
    MAX_CHANNELS,
    downmix_matrix,
    first_not_finite,
    scale_samples,
    wave_layout,
)
from stemlab.audio.resampling import StreamResampler, resampled_length
from stemlab.errors import AudioError, AudioNotFoundError, MissingDependencyError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

__all__ = [
    "AudioInfo",
    "ForwardFile",
    "check_length",
    "file_digest",
    "read_file",
    "read_info",
    "read_length",
    "stream_file",
]

# What is logged names files without their folders: logs are passed on more readily than errors.
_LOG = logging.getLogger(__name__)

# Where a format has an order of channels that is not that of WAVE; libsndfile passes all on as they
# are. Opus is in Ogg, too, and has the order of Vorbis.
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
# 50 minutes of stereo float32 at 44.1 kHz. A few MB of FLAC can decode to days.
_MOST_BYTES = 1 << 30
_MOST_BLOCK_SAMPLES = 1 << 26
# Files in which every sample has its place; in others a jump fails, or changes the samples that
# follow.
_EXACT_CONTAINERS = frozenset({"WAV", "WAVEX", "RF64", "W64", "AIFF", "CAF", "AU", "FLAC"})
_EXACT_CODECS = ("PCM_", "FLOAT", "DOUBLE", "ULAW", "ALAW")

# A compressed file may miss this much of the length it states before anybody is told.
_LENGTH_SLACK_SECONDS = 0.1


class ForwardFile(soundfile.SoundFile):  # type: ignore[misc]  # soundfile has no types
    """A sound file that is read or written from start to end, never sought.

    soundfile seeks after each block; in Opus and in MP3 files of variable bit rate that changes the
    samples that follow.
    """

    def seekable(self) -> bool:
        """Return False."""
        return False


@dataclass(frozen=True)
class AudioInfo:
    """What a recording states about itself."""

    path: Path
    sample_rate: int
    channels: int
    samples: int | None
    container: str
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
class _Recording:
    """An open file: its description, the loudspeakers of its channels and a way to decode it."""

    info: AudioInfo
    layout: tuple[str, ...] | None
    blocks: Callable[[int], Iterator[AudioArray]]


class _NotCoveredError(Exception):
    """libsndfile opens this file but would give only a part of it; the message says why."""


def _shown(path: StrPath) -> str:
    # repr keeps newlines and undecodable bytes of a file name on one printable line.
    return repr(os.fspath(path))


def _regular_file(path: StrPath) -> Path:
    """Return the path of a non-empty regular file; anything else is refused unopened."""
    shown = _shown(path)
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        raise AudioNotFoundError(
            f"{shown} does not exist; check the path", path=Path(path)
        ) from None
    except (OSError, ValueError) as error:
        raise AudioError(f"{shown} cannot be opened: {_reason(error)}", path=Path(path)) from error
    found = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }.get(stat.S_IFMT(status.st_mode))
    if found or not stat.S_ISREG(status.st_mode):
        raise AudioError(
            f"{shown} is {found or 'not a regular file'}; pass an audio file", path=Path(path)
        )
    if not status.st_size:
        raise AudioError(f"{shown} is empty (0 bytes); pass an audio file", path=Path(path))
    return Path(path)


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        if error.errno == errno.EACCES:
            return "permission denied; change its permissions"
        if error.errno == errno.ELOOP:
            return "its symbolic links run in a circle; pass the file itself"
        return f"{error.strerror or error}".lower()
    if isinstance(error, soundfile.LibsndfileError):
        # Code 7 speaks of a missing file; what is missing is an MPEG frame.
        text = "no known format" if error.code == 7 else error.error_string.removeprefix("Error : ")
        return str(text).rstrip(".")
    if text := getattr(error, "strerror", None):
        return str(text)
    return " ".join(str(error).split()).rstrip(".")


@contextmanager
def _open_recording(path: StrPath) -> Iterator[_Recording]:
    file_path = _regular_file(path)
    shown = _shown(path)
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(open(file_path, "rb", buffering=0))
        except OSError as error:
            raise AudioError(
                f"{shown} cannot be opened: {_reason(error)}", path=file_path
            ) from error
        try:
            recording = _open_soundfile(file_path, shown, handle, stack)
        except (soundfile.SoundFileError, _NotCoveredError) as error:
            recording = _open_pyav(file_path, shown, error, stack)
        _check_info(recording.info, shown)
        yield recording


def _check_info(info: AudioInfo, shown: str) -> None:
    if info.samples == 0:
        raise AudioError(
            f"{shown} holds no samples, by its header; pass a recording", path=info.path
        )
    if not 1 <= info.channels <= MAX_CHANNELS:
        raise AudioError(
            f"{shown} has {info.channels} channels; stemlab reads 1 to {MAX_CHANNELS}",
            path=info.path,
        )
    low, high = RATE_RANGE_HZ
    if not low <= info.sample_rate <= high:
        raise AudioError(
            f"{shown} has a sample rate of {info.sample_rate} Hz; stemlab reads {low} to {high} Hz",
            path=info.path,
        )


def _open_soundfile(path: Path, shown: str, handle: BinaryIO, stack: ExitStack) -> _Recording:
    # A descriptor has no name for libsndfile to guess a headerless format from; on Windows it would
    # belong to another C runtime.
    source = str(path) if os.name == "nt" else handle.fileno()
    try:
        file = stack.enter_context(ForwardFile(source, closefd=False))
    except TypeError as error:  # by its name a headerless format, which needs a rate to be given
        raise _NotCoveredError(str(error)) from error
    samples: int | None = file.frames if file.frames < 2**62 else None
    complete = True
    if file.format == "MP3":
        samples = _mp3_samples(path, file.frames)
    elif file.format == "OGG":
        pages = scan_ogg(path)
        if pages.chained:
            raise _NotCoveredError("it is a chained Ogg file: several recordings in a row")
        complete = pages.complete
    elif samples:
        _check_not_truncated(path, shown, samples, file.samplerate)
    info = AudioInfo(
        path, file.samplerate, file.channels, samples, file.format, file.subtype, "soundfile"
    )
    usual = _OWN_LAYOUTS.get((file.format, file.channels)) or wave_layout(file.channels)
    layout = stated_loudspeakers(path) or usual

    def decode(block_samples: int) -> Iterator[AudioArray]:
        yield from _soundfile_blocks(file, info, shown, block_samples)
        if not complete:
            _LOG.warning("%s lacks its last Ogg page: it may be cut short", _shown(path.name))

    return _Recording(info, layout, decode)


def _mp3_samples(path: Path, claim: int) -> int:
    """Check libsndfile's count, at which it stops reading, against the frames in the file."""
    frames = scan_mp3(path)
    if frames is None:
        return claim
    slack = frames.frame_samples + (_MP3_TRIM_SAMPLES if frames.states_length else 0)
    if claim < frames.samples - slack:
        raise _NotCoveredError(
            f"its header leads libsndfile to stop after {claim} of {frames.samples} samples"
        )
    return claim if frames.states_length else min(claim, frames.samples)


def _check_not_truncated(path: Path, shown: str, samples: int, rate: int) -> None:
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
            f"{shown} is truncated: {samples / rate:.3f} s of {(samples + lost) / rate:.3f} s are "
            "there; get a whole copy of the file",
            path=path,
        )


def _soundfile_blocks(
    file: ForwardFile, info: AudioInfo, shown: str, block_samples: int
) -> Iterator[AudioArray]:
    done = 0
    while True:
        try:
            block = file.read(block_samples, dtype="float32", always_2d=True)
        except soundfile.SoundFileError as error:
            with suppress(soundfile.SoundFileError):
                done = max(done, file.tell())
            raise _decoding_error(info, shown, done, error) from error
        if not len(block):
            break
        done += len(block)
        yield np.ascontiguousarray(block.T)
    if info.samples is None or done == info.samples or not done:
        return
    missing = (info.samples - done) / info.sample_rate
    message = (
        f"gives {done / info.sample_rate:.3f} s, its header states "
        f"{info.samples / info.sample_rate:.3f} s: it is damaged or cut short"
    )
    if info.container == "MP3":
        if missing > _LENGTH_SLACK_SECONDS:
            _LOG.warning("%s %s", _shown(info.path.name), message)
    elif info.container != "OGG" or missing > _LENGTH_SLACK_SECONDS:
        raise AudioError(f"{shown} {message}; get a whole copy of the file", path=info.path)


def _decoding_error(info: AudioInfo, shown: str, done: int, error: Exception) -> AudioError:
    total = "" if info.samples is None else f" of {info.samples / info.sample_rate:.3f} s"
    return AudioError(
        f"{shown} cannot be decoded after {done / info.sample_rate:.3f} s{total} "
        f"({_reason(error)}): it is damaged or cut short; get a whole copy of the file",
        path=info.path,
    )


def _open_pyav(path: Path, shown: str, refusal: Exception, stack: ExitStack) -> _Recording:
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            f"{shown} cannot be read by libsndfile ({_reason(refusal)}); for m4a, mp4 and other "
            "formats, install PyAV: pip install 'stemlab[av]'"
        ) from error

    handle = stack.enter_context(path.open("rb"))
    try:
        # Playlists (HLS, concat) name other files and addresses: none of them may be opened.
        container = stack.enter_context(
            av.open(
                handle,
                mode="r",
                options={"protocol_whitelist": "none"},
                metadata_errors="replace",  # Tags are in any encoding, and nobody reads them.
            )
        )
        if not container.streams.audio:
            raise AudioError(
                f"{shown} has no audio stream (read as {container.format.name}); "
                "pass an audio file",
                path=path,
            )
        stream = container.streams.audio[0]
        frames = container.decode(stream)
        # Only a decoded frame tells the true rate: HE-AAC states half of it.
        first = next(frames, None)
    except av.FFmpegError as error:
        raise AudioError(
            f"{shown} is not audio, or is damaged (libsndfile: {_reason(refusal)}; "
            f"PyAV: {_reason(error)}); pass a whole audio file",
            path=path,
        ) from error
    if first is None:
        raise AudioError(f"{shown} holds no samples; pass a recording", path=path)
    names = tuple(channel.name for channel in first.layout.channels)
    info = AudioInfo(
        path,
        first.sample_rate,
        len(names),
        None,
        container.format.name,
        stream.codec_context.name,
        "pyav",
    )
    # FFmpeg's name of a channel for which the file states no loudspeaker.
    layout = wave_layout(len(names)) if set(names) == {"NONE"} else names

    def decode(block_samples: int) -> Iterator[AudioArray]:
        done = 0

        def arrays() -> Iterator[AudioArray]:
            nonlocal done
            frame: AudioFrame | None = first
            while frame is not None:
                found = (frame.sample_rate, len(frame.layout.channels))
                if found != (info.sample_rate, info.channels):
                    raise AudioError(
                        f"{shown} changes after {done / info.sample_rate:.3f} s from "
                        f"{info.sample_rate} Hz, {info.channels} channels to {found[0]} Hz, "
                        f"{found[1]} channels; split it there",
                        path=path,
                    )
                try:
                    block = _frame_array(frame)
                except (TypeError, ValueError) as error:
                    raise _decoding_error(info, shown, done, error) from error
                done += block.shape[1]
                yield block
                try:
                    frame = next(frames, None)
                except av.FFmpegError as error:
                    raise _decoding_error(info, shown, done, error) from error

        yield from _rechunk(arrays(), block_samples)
        # The container's duration covers all its streams, so it is a hint and no more.
        stated = (container.duration or 0) / 1_000_000
        if done / info.sample_rate < stated - 1.0:
            _LOG.warning(
                "%s gives %.3f s of audio, its header states %.3f s: it may be cut short",
                _shown(path.name),
                done / info.sample_rate,
                stated,
            )

    return _Recording(info, layout, decode)


def _frame_array(frame: AudioFrame) -> AudioArray:
    samples = frame.to_ndarray()
    if not frame.format.is_planar:
        samples = samples.reshape(-1, len(frame.layout.channels)).T
    # A copy: the array may be a view of memory that belongs to the frame.
    return np.array(scale_samples(samples), order="C")


def _rechunk(blocks: Iterable[AudioArray], size: int) -> Iterator[AudioArray]:
    """Join and cut blocks so that all but the last have `size` samples."""
    pending: list[AudioArray] = []
    waiting = 0
    for block in blocks:
        pending.append(block)
        waiting += block.shape[1]
        if waiting >= size:
            joined = np.concatenate(pending, axis=1)
            whole = waiting - waiting % size
            for start in range(0, whole, size):
                yield joined[:, start : start + size].copy()
            pending, waiting = [joined[:, whole:].copy()], waiting - whole
    if waiting:
        yield np.concatenate(pending, axis=1)


def read_info(path: StrPath) -> AudioInfo:
    """Describe a recording without decoding it."""
    with _open_recording(path) as recording:
        return recording.info


def read_length(path: StrPath) -> tuple[int, int]:
    """Tell how long a recording is: as its header states, or decoded where that states nothing."""
    info = read_info(path)
    samples = info.samples
    if samples is None:
        samples = sum(block.shape[1] for block in stream_file(path, downmix=True))
    return samples, info.sample_rate


def stream_file(
    path: StrPath, *, block_samples: int = 65_536, downmix: bool = False
) -> Generator[AudioArray, None, None]:
    """Read a recording block by block at its own sample rate.

    The file is open from the first block to the last; closing the generator closes it.

    Notes
    -----
    Encoder delay and padding are as the decoder leaves them. Folding down follows ITU-R BS.775 [1]_
    with the weights divided by their sum, so that full scale cannot clip.

    References
    ----------
    .. [1] ITU-R, "Multichannel stereophonic sound system with and without accompanying picture",
       Recommendation BS.775-4, 2022. https://www.itu.int/rec/R-REC-BS.775
    """
    advice = "Leave it out for 65536."
    size = check_count("block_samples", block_samples, 1, _MOST_BLOCK_SAMPLES, advice)
    return _stream(path, size, downmix)


def _stream(path: StrPath, block_samples: int, downmix: bool) -> Generator[AudioArray, None, None]:
    shown = _shown(path)
    with _open_recording(path) as recording:
        info = recording.info
        matrix = _fold(recording, shown, downmix) if info.channels > 2 else None
        done = 0
        for block in recording.blocks(block_samples):
            index = first_not_finite(block)
            if index is not None:
                raise AudioError(
                    f"{shown} holds a NaN or infinite sample at "
                    f"{(done + index) / info.sample_rate:.3f} s; repair or re-export the file",
                    path=info.path,
                )
            done += block.shape[1]
            yield block if matrix is None else matrix @ block
        if not done:
            raise AudioError(f"{shown} holds no samples; pass a recording", path=info.path)


def _fold(recording: _Recording, shown: str, downmix: bool) -> AudioArray:
    channels, layout = recording.info.channels, recording.layout or ()
    matrix = downmix_matrix(layout) if len(layout) == channels else None
    if matrix is not None and downmix:
        return matrix
    if matrix is not None:
        step = "pass --downmix (downmix=True) to fold it down"
    elif downmix:
        step = "downmix does not know the loudspeakers of these; mix it down to stereo first"
    else:
        step = "mix it down to stereo first"
    raise AudioError(
        f"{shown} has {channels} channels; stemlab separates 1 or 2: {step}",
        path=recording.info.path,
    )


def check_length(path: StrPath, samples: int, sample_rate: int, channels: int) -> None:
    """Refuse to hold so much of a recording in memory at once."""
    most = _MOST_BYTES // (4 * channels)
    if samples > most:
        raise AudioError(
            f"{_shown(path)} is too long to be held in memory: {samples / sample_rate:.0f} s or "
            f"more. At {sample_rate} Hz with {channels} channel(s), at most "
            f"{most // sample_rate} s (1 GiB) are allowed. Cut out a part, or read it in blocks "
            "with stream_file.",
            Path(path),
        )


def read_file(
    path: StrPath, *, sample_rate: int | None = None, downmix: bool = False
) -> tuple[AudioArray, int]:
    """Read a whole recording, resampled if asked.

    For recordings that take no more than 1 GiB as float32: 50 minutes of stereo at 44.1 kHz.

    Parameters
    ----------
    path : str or PathLike
        See `stream_file`.
    sample_rate : int or None, in Hz, in [1000, 768000]
        Rate of the result. Default: the recording's own.
    downmix : bool
        Fold more than two channels down to stereo; see `stream_file`.

    Returns
    -------
    audio : ndarray, shape (1 or 2, samples), float32
    sample_rate : int, in Hz

    Raises
    ------
    AudioNotFoundError, AudioError, MissingDependencyError
        As `stream_file`; AudioError as well if the recording is too long.
    ParameterError
        If `sample_rate` is out of its range.

    See Also
    --------
    stream_file : the same, block by block, for any length.
    """
    if sample_rate is not None:
        sample_rate = check_rate("sample_rate", sample_rate)
    info = read_info(path)
    native, rate = info.sample_rate, sample_rate or info.sample_rate
    if info.samples is not None and info.is_exact:  # Known before anything is decoded.
        length = resampled_length(info.samples, native, rate)
        check_length(path, length, rate, min(info.channels, 2))
    blocks: list[AudioArray] = []
    resampler: StreamResampler | None = None
    done = 0
    for block in stream_file(path, downmix=downmix):
        resampler = resampler or StreamResampler(native, rate, block.shape[0])
        blocks.append(resampler.push(block))
        done += blocks[-1].shape[1]
        check_length(path, done, rate, block.shape[0])
    if resampler is not None:
        blocks.append(resampler.finish())
    return np.concatenate(blocks, axis=1), rate


def file_digest(path: StrPath) -> str:
    """Return the SHA-256 of a file's bytes."""
    file_path = _regular_file(path)
    digest = hashlib.sha256()
    try:
        with open(file_path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise AudioError(
            f"{_shown(path)} cannot be read: {_reason(error)}", path=file_path
        ) from error
    return digest.hexdigest()
