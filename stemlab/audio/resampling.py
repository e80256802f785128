"""Sample-rate conversion, in one go or block by block, with the same result."""

from __future__ import annotations

import numpy as np
import soxr

from stemlab._checks import check_count, check_rate
from stemlab._typing import AudioArray
from stemlab.audio.arrays import as_audio
from stemlab.errors import ParameterError

_BLOCK_SAMPLES = 65_536
# What soxr takes; the stems of a separation go through together.
_MOST_CHANNELS = 65_536


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """Return the length of a recording after resampling: rounded, at least 1 unless it is empty."""
    length = (2 * samples * to_rate + from_rate) // (2 * from_rate)
    return max(length, 1) if samples else 0


class StreamResampler:
    """Resample a recording block by block, in constant memory.

    Push the blocks in order, then call `finish` once; the joined output has exactly
    `resampled_length` samples, is aligned with the input (no delay), and does not depend on how the
    input was cut into blocks.

    It uses the SoX Resampler library at its quality "HQ".
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int) -> None:
        self.from_rate = check_rate("from_rate", from_rate)
        self.to_rate = check_rate("to_rate", to_rate)
        self.channels = check_count("channels", channels, 1, _MOST_CHANNELS)
        self._taken = 0
        self._given = 0
        self._finished = False
        self._soxr = (
            None
            if from_rate == to_rate
            else soxr.ResampleStream(
                self.from_rate, self.to_rate, self.channels, dtype="float32", quality="HQ"
            )
        )

    def push(self, block: AudioArray) -> AudioArray:
        """Take a block of input and return the output that is ready."""
        self._check_open()
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise ParameterError(
                f"block has the shape {block.shape}; this resampler takes ({self.channels}, n)."
            )
        self._taken += block.shape[1]
        if self._soxr is None:
            return block.astype(np.float32, copy=False)
        # soxr wants samples first, in C order.
        ready = self._soxr.resample_chunk(np.ascontiguousarray(block.T, dtype=np.float32))
        self._given += len(ready)
        return np.ascontiguousarray(ready.T)

    def finish(self) -> AudioArray:
        """Return the rest of the output; the resampler is used up."""
        self._check_open()
        self._finished = True
        if self._soxr is None or not self._taken:
            return np.zeros((self.channels, 0), dtype=np.float32)
        rest = self._soxr.resample_chunk(np.zeros((0, self.channels), np.float32), last=True)
        missing = resampled_length(self._taken, self.from_rate, self.to_rate) - self._given
        result = np.zeros((self.channels, missing), dtype=np.float32)
        ready = rest[:missing].T
        result[:, : ready.shape[1]] = ready
        return result

    def _check_open(self) -> None:
        if self._finished:
            raise ParameterError("this resampler is finished. Make a new one.")


def resample(audio: AudioArray, from_rate: int, to_rate: int) -> AudioArray:
    """Convert a recording to another sample rate."""
    audio = as_audio(audio)
    stream = StreamResampler(from_rate, to_rate, audio.shape[0])
    if stream.from_rate == stream.to_rate:
        return audio
    blocks = [
        stream.push(audio[:, start : start + _BLOCK_SAMPLES])
        for start in range(0, audio.shape[1], _BLOCK_SAMPLES)
    ]
    blocks.append(stream.finish())
    return np.concatenate(blocks, axis=1)
