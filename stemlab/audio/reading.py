"""Read recordings: with libsndfile where it can, otherwise with PyAV."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import soundfile

from stemlab._checks import RATE_RANGE_HZ, check_count, check_rate
from stemlab._typing import AudioArray, StrPath
from stemlab.audio._libsndfile import open_libsndfile
from stemlab.audio._opening import (
    AudioInfo,
    NotCoveredError,
    OpenRecording,
    reason,
    regular_file,
    shown,
)
from stemlab.audio._pyav import open_pyav
from stemlab.audio.arrays import MAX_CHANNELS, check_finite, downmix_matrix
from stemlab.audio.resampling import StreamResampler, resampled_length
from stemlab.errors import AudioError

# 50 minutes of stereo float32 at 44.1 kHz. A few MB of FLAC can decode to days.
_MOST_BYTES = 1 << 30
_MOST_BLOCK_SAMPLES = 1 << 26


@contextmanager
def _open_recording(path: StrPath) -> Iterator[OpenRecording]:
    file_path = regular_file(path)
    with ExitStack() as stack:
        try:
            handle = stack.enter_context(open(file_path, "rb", buffering=0))
        except OSError as error:
            message = f"{shown(path)} cannot be opened: {reason(error)}"
            raise AudioError(message, path) from error
        try:
            recording = stack.enter_context(open_libsndfile(file_path, handle))
        except (soundfile.SoundFileError, NotCoveredError) as error:
            recording = stack.enter_context(open_pyav(file_path, error))
        _check_info(recording.info)
        yield recording


def _check_info(info: AudioInfo) -> None:
    low, high = RATE_RANGE_HZ
    fault = None
    if info.samples == 0:
        fault = "holds no samples, by its header. Pass a recording."
    elif not 1 <= info.channels <= MAX_CHANNELS:
        fault = f"has {info.channels} channels; stemlab reads 1 to {MAX_CHANNELS}."
    elif not low <= info.sample_rate <= high:
        fault = f"has a sample rate of {info.sample_rate} Hz; stemlab reads {low} to {high} Hz."
    if fault is not None:
        raise AudioError(f"{shown(info.path)} {fault}", info.path)


def read_info(path: StrPath) -> AudioInfo:
    """Describe a recording without decoding it."""
    with _open_recording(path) as recording:
        return recording.info


def read_length(path: StrPath) -> tuple[int, int]:
    """Return the length of a recording and its rate; decode it if the header states no length."""
    info = read_info(path)
    samples = info.samples
    if samples is None:
        samples = sum(block.shape[1] for block in stream_file(path, downmix=True))
    return samples, info.sample_rate


def stream_file(
    path: StrPath, *, block_samples: int = 65_536, downmix: bool | None = None
) -> Generator[AudioArray, None, None]:
    """Read a recording block by block at its own sample rate.

    The file is open from the first block to the last; closing the generator closes it. Encoder
    delay and padding are as the decoder leaves them. With `downmix`, more than two channels are
    folded down to stereo; see `arrays.downmix_matrix`. None means that the user of the caller
    cannot choose.
    """
    advice = "Leave it out for 65536."
    size = check_count("block_samples", block_samples, 1, _MOST_BLOCK_SAMPLES, advice)
    return _stream(path, size, downmix)


def _stream(
    path: StrPath, block_samples: int, downmix: bool | None
) -> Generator[AudioArray, None, None]:
    with _open_recording(path) as recording:
        info = recording.info
        matrix = _fold(recording, downmix) if info.channels > 2 else None
        done = 0
        for block in recording.blocks(block_samples):
            check_finite(block, info.path, done, info.sample_rate)
            done += block.shape[1]
            yield block if matrix is None else matrix @ block
        if not done:
            raise AudioError(f"{shown(path)} holds no samples. Pass a recording.", path)


def _fold(recording: OpenRecording, downmix: bool | None) -> AudioArray:
    channels, layout = recording.info.channels, recording.layout or ()
    matrix = downmix_matrix(layout) if len(layout) == channels else None
    if matrix is not None and downmix:
        return matrix
    if matrix is not None and downmix is not None:
        step = "pass --downmix (downmix=True) to fold it down"
    elif downmix:
        step = "downmix does not know the loudspeakers of these; mix it down to stereo first"
    else:
        step = "mix it down to stereo first"
    raise AudioError(
        f"{shown(recording.info.path)} has {channels} channels; stemlab separates 1 or 2: {step}.",
        recording.info.path,
    )


def check_length(path: StrPath, samples: int, sample_rate: int, channels: int) -> None:
    """Refuse to hold more samples of a recording in memory than allowed."""
    most = _MOST_BYTES // (4 * channels)
    if samples > most:
        raise AudioError(
            f"{shown(path)} is too long to be held in memory: {samples / sample_rate:.0f} s or "
            f"more. At {sample_rate} Hz with {channels} channel(s), at most "
            f"{most // sample_rate} s (1 GiB) are allowed. Cut out a part, or read it in blocks "
            "with stream_file.",
            path,
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
    file_path = regular_file(path)
    try:
        with open(file_path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise AudioError(f"{shown(path)} cannot be read: {reason(error)}", path) from error
