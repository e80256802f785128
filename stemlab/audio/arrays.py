"""Arrays of audio: validation, sample types and the fold-down to stereo."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stemlab._typing import AudioArray
from stemlab.errors import AudioError, ParameterError

MAX_CHANNELS = 8

_SAMPLE_TYPES = "float32, float64, float16, int16, int32 or uint8"

# The order in which WAVE files store their channels, by count.
_WAVE_LAYOUTS = {
    1: ("FC",),
    2: ("FL", "FR"),
    3: ("FL", "FR", "FC"),
    4: ("FL", "FR", "BL", "BR"),
    5: ("FL", "FR", "FC", "BL", "BR"),
    6: ("FL", "FR", "FC", "LFE", "BL", "BR"),
    8: ("FL", "FR", "FC", "LFE", "BL", "BR", "SL", "SR"),
}

_HALF_POWER = math.sqrt(0.5)
_DOWNMIX = {
    "FL": (1.0, 0.0),
    "FR": (0.0, 1.0),
    "FC": (_HALF_POWER, _HALF_POWER),
    "LFE": (0.0, 0.0),
    "BL": (_HALF_POWER, 0.0),
    "BR": (0.0, _HALF_POWER),
    "SL": (_HALF_POWER, 0.0),
    "SR": (0.0, _HALF_POWER),
    # One rear channel feeds both sides, 3 dB below a rear pair.
    "BC": (0.5, 0.5),
}


def first_not_finite(audio: AudioArray) -> int | None:
    """Return the index of the first sample that is NaN or infinite."""
    finite = np.isfinite(audio).all(axis=0)
    return None if finite.all() else int(np.argmin(finite))


def check_finite(audio: AudioArray, path: Path, start: int, sample_rate: int) -> None:
    """Refuse a stretch of a file with a sample that is NaN or infinite; `start` is its position."""
    index = first_not_finite(audio)
    if index is not None:
        raise AudioError(
            f"{str(path)!r} holds a NaN or infinite sample at "
            f"{(start + index) / sample_rate:.3f} s. Repair or re-export the file.",
            path,
        )


def scale_samples(samples: npt.NDArray[np.generic]) -> AudioArray:
    """Convert samples of any supported type to float32."""
    kind = samples.dtype.newbyteorder("=")
    if kind in (np.float16, np.float32, np.float64):
        with np.errstate(over="ignore"):  # what overflows becomes infinite and is refused later
            return samples.astype(np.float32, copy=False)
    if kind == np.int16:
        return samples.astype(np.float32) / np.float32(2**15)
    if kind == np.int32:
        return (samples.astype(np.float64) / 2**31).astype(np.float32)
    if kind == np.uint8:
        return (samples.astype(np.float32) - np.float32(128)) / np.float32(128)
    raise TypeError(f"{samples.dtype} is not a sample type")


def as_audio(audio: npt.ArrayLike, *, name: str = "audio") -> AudioArray:
    """Check an array of audio and convert it to float32 of shape (channels, samples)."""
    try:
        array = np.asarray(audio)
    except (TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise AudioError(
            f"{name} is not an array: {reason}. Pass a NumPy array (channels, samples)."
        ) from error
    if array.ndim not in (1, 2):
        raise AudioError(
            f"{name} has {array.ndim} dimensions, shape {array.shape}. "
            "Pass (channels, samples), or (samples,) for mono."
        )
    if array.size == 0:
        raise AudioError(f"{name} is empty, shape {array.shape}. Pass at least one sample.")
    if array.ndim == 1:
        array = array[np.newaxis]
    channels, samples = array.shape
    if channels > 2:
        hint = (
            "stemlab takes (channels, samples): did you pass (samples, channels)? transpose it"
            if samples <= MAX_CHANNELS < channels or samples <= 2
            else "stemlab takes 1 or 2: fold it down to stereo first"
        )
        raise AudioError(f"{name} has {channels} channels, shape {array.shape}; {hint}.")
    try:
        result = scale_samples(array)
    except TypeError:
        raise AudioError(
            f"{name} has the dtype {array.dtype}. Pass {_SAMPLE_TYPES} (integers are PCM)."
        ) from None
    index = first_not_finite(result)
    if index is not None:
        raise AudioError(
            f"{name} holds a NaN or infinite sample at index {index}. "
            "Replace it, for example with numpy.nan_to_num."
        )
    return result


def as_signals(signals: Mapping[str, npt.ArrayLike]) -> dict[str, AudioArray]:
    """Check several arrays of audio that have names."""
    if not signals:
        raise ParameterError("signals is empty. Pass a mapping such as {'vocals': array}.")
    return {name: as_audio(signal, name=f"signals[{name!r}]") for name, signal in signals.items()}


def wave_layout(channels: int) -> tuple[str, ...] | None:
    """Return the loudspeaker of each channel of a WAVE file."""
    return _WAVE_LAYOUTS.get(channels)


def downmix_matrix(layout: Sequence[str]) -> AudioArray | None:
    """Return the weights that fold a layout down to stereo, or None for unknown loudspeakers.

    They are those of ITU-R BS.775-4, annex 4: centre and surround channels enter at -3 dB, the
    low-frequency channel is left out. Divided by their sum, they cannot clip full scale.
    """
    if not all(name in _DOWNMIX for name in layout):
        return None
    matrix = np.array([_DOWNMIX[name] for name in layout]).T
    sums = matrix.sum(axis=1)
    if not sums.all():
        return None
    result: AudioArray = (matrix / sums.max()).astype(np.float32)
    return result
