"""Read with PyAV what libsndfile does not support: AAC, video files, damaged or chained files."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stemlab._typing import AudioArray
from stemlab.audio._opening import AudioInfo, OpenRecording, decoding_error, reason, shown
from stemlab.audio.arrays import scale_samples, wave_layout
from stemlab.errors import AudioError, MissingDependencyError

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame

_LOG = logging.getLogger(__name__)


@contextmanager
def open_pyav(path: Path, refusal: Exception) -> Iterator[OpenRecording]:
    """Open a recording that libsndfile refused."""
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            f"{shown(path)} cannot be read by libsndfile ({reason(refusal)}). For m4a, mp4 and "
            "other formats, install PyAV: pip install 'stemlab[av]'."
        ) from error

    with ExitStack() as stack:
        handle = stack.enter_context(path.open("rb"))
        try:
            # Playlists (HLS, concat) name other files and addresses: none of them may be opened.
            container = stack.enter_context(
                av.open(
                    handle,
                    mode="r",
                    options={"protocol_whitelist": "none"},
                    metadata_errors="replace",  # Tags may have any encoding.
                )
            )
            if not container.streams.audio:
                raise AudioError(
                    f"{shown(path)} has no audio stream (read as {container.format.name}). "
                    "Pass an audio file.",
                    path,
                )
            stream = container.streams.audio[0]
            frames = container.decode(stream)
            # Only a decoded frame tells the true rate: HE-AAC states half of it.
            first = next(frames, None)
        except av.FFmpegError as error:
            raise AudioError(
                f"{shown(path)} is not audio, or is damaged (libsndfile: {reason(refusal)}; "
                f"PyAV: {reason(error)}). Pass a whole audio file.",
                path,
            ) from error
        if first is None:
            raise AudioError(f"{shown(path)} holds no samples. Pass a recording.", path)
        names = tuple(channel.name for channel in first.layout.channels)
        container_name, codec = container.format.name, stream.codec_context.name
        info = AudioInfo(path, first.sample_rate, len(names), None, container_name, codec, "pyav")
        # FFmpeg names a channel NONE if the file states no loudspeaker for it.
        layout = wave_layout(len(names)) if set(names) == {"NONE"} else names
        # The container's duration covers all its streams, so it is only a hint.
        stated_seconds = (container.duration or 0) / 1_000_000

        def blocks(block_samples: int) -> Iterator[AudioArray]:
            arrays = _arrays(frames, first, info, stated_seconds, av.FFmpegError)
            return _rechunk(arrays, block_samples)

        yield OpenRecording(info, layout, blocks)


def _arrays(
    frames: Iterator[AudioFrame],
    first: AudioFrame,
    info: AudioInfo,
    stated_seconds: float,
    decoder_error: type[Any],
) -> Iterator[AudioArray]:
    """Decode one frame after the other; the first one has been decoded already."""
    done = 0
    frame: AudioFrame | None = first
    while frame is not None:
        found = (frame.sample_rate, len(frame.layout.channels))
        if found != (info.sample_rate, info.channels):
            raise AudioError(
                f"{shown(info.path)} changes after {done / info.sample_rate:.3f} s from "
                f"{info.sample_rate} Hz, {info.channels} channels to {found[0]} Hz, "
                f"{found[1]} channels. Split it there.",
                info.path,
            )
        try:
            block = _frame_array(frame)
        except (TypeError, ValueError) as error:
            raise decoding_error(info, done, error) from error
        done += block.shape[1]
        yield block
        try:
            frame = next(frames, None)
        except decoder_error as error:
            raise decoding_error(info, done, error) from error
    if done / info.sample_rate < stated_seconds - 1.0:
        _LOG.warning(
            "%s gives %.3f s of audio, its header states %.3f s: it may be cut short",
            shown(info.path.name),
            done / info.sample_rate,
            stated_seconds,
        )


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
