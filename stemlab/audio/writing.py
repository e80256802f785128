"""Writing stems as WAV, FLAC, MP3 or Ogg Vorbis, block by block."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import soundfile

from stemlab._checks import RATE_RANGE_HZ, check_count, check_rate, is_number, plain
from stemlab._typing import AudioArray, StrPath
from stemlab.audio._libsndfile import ForwardFile, descriptor_or_name
from stemlab.audio.arrays import first_not_finite
from stemlab.errors import OutputError, ParameterError
from stemlab.files import atomic_file

# libvorbis overflows the stack when it is handed a very long block.
_BLOCK_SAMPLES = 65_536
# A RIFF length has 32 bits; leave room for the header's own chunks.
_WAV_DATA_BYTES = 2**32 - 65_536
_LARGEST = float(np.finfo(np.float32).max)
_SUBTYPES = {16: "PCM_16", 24: "PCM_24", 32: "FLOAT"}


@dataclass(frozen=True)
class OutputFormat:
    """A file format that stems can be written in."""

    name: str
    extension: str  # Without the dot.
    bits: tuple[int, ...]  # Bits per sample, the default first; empty for lossy formats.
    sample_rates: tuple[range, ...]  # In Hz.

    @property
    def default_bits(self) -> int | None:
        """Bits per sample when none are asked for; None for lossy formats."""
        return self.bits[0] if self.bits else None


_LOW, _HIGH = RATE_RANGE_HZ

FORMATS: Mapping[str, OutputFormat] = MappingProxyType(
    {
        "wav": OutputFormat("wav", "wav", (32, 24, 16), (range(_LOW, _HIGH + 1),)),
        # A frame of FLAC states its rate in Hz with 16 bits, above that in tens of Hz.
        "flac": OutputFormat(
            "flac",
            "flac",
            (24, 16),
            (range(_LOW, 65_535 + 1), range(65_540, 655_350 + 1, 10)),
        ),
        "mp3": OutputFormat(
            "mp3",
            "mp3",
            (),
            tuple(
                range(rate, rate + 1)
                for rate in (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
            ),
        ),
        # Above 200 kHz libvorbis has no settings and libsndfile 1.2.2 crashes.
        "ogg": OutputFormat("ogg", "ogg", (), (range(_LOW, 200_000 + 1),)),
    }
)
"""The formats of `write_file`, by name."""


def check_output_format(
    format: str, bits: int | None = None, sample_rate: int | None = None
) -> int | None:
    """Check an output format and return its bits per sample; None for lossy formats."""
    if format not in tuple(FORMATS):
        raise ParameterError(f"format={format!r} is unknown. Choose one of {', '.join(FORMATS)}.")
    known = FORMATS[format]
    if bits is not None and (not is_number(bits) or bits not in known.bits):
        allowed = (
            f"it takes {' or '.join(map(str, sorted(known.bits)))}"
            if known.bits
            else "it has no bits per sample: leave bits out"
        )
        raise ParameterError(f"bits={bits!r} does not go with format={format!r}; {allowed}.")
    if sample_rate is not None:
        rate = check_rate("sample_rate", sample_rate)
        if not any(rate in rates for rates in known.sample_rates):
            allowed = ", ".join(map(_describe_rates, known.sample_rates))
            raise ParameterError(
                f"sample_rate={sample_rate!r} does not go with format={format!r}, which takes "
                f"{allowed} Hz. Resample, or choose wav."
            )
    return known.default_bits if bits is None else int(bits)


def _describe_rates(rates: range) -> str:
    if len(rates) == 1:
        return f"{rates[0]}"
    steps = "" if rates.step == 1 else f" in steps of {rates.step}"
    return f"{rates[0]} to {rates[-1]}{steps}"


def write_file(
    path: StrPath,
    blocks: Iterable[AudioArray],
    sample_rate: int,
    channels: int,
    *,
    format: str = "wav",
    bits: int | None = None,
    gain: float = 1.0,
    clamp: bool = False,
    samples: int | None = None,
) -> int:
    """Write blocks of audio to a file, in constant memory.

    The file appears under its name only when it is complete, and then replaces an earlier one;
    before that it is a hidden file in the same folder, removed if anything fails.

    Parameters
    ----------
    path : str or PathLike
        The name is taken as it is; the format does not follow from its extension.
    blocks : iterable of ndarray, each shape (channels, n), float32
        Finite, nominally in [-1, 1]. Not modified. Errors that the iterable raises pass through.
    sample_rate : int, in Hz
        See `FORMATS` for what a format takes.
    channels : {1, 2}
    format : {"wav", "flac", "mp3", "ogg"}
        mp3 is written at the highest variable bit rate (about 250 kbit/s in stereo), ogg at quality
        0.8 (about 260 kbit/s).
    bits : int or None
        Bits per sample: wav 32 (float, the default), 24 or 16; flac 24 (default) or 16.
    gain : float, finite
        Factor on every sample.
    clamp : bool
        Clip to [-1, 1] after the gain. Integer formats always saturate and never wrap; without
        `clamp`, float WAV keeps what is louder.
    samples : int or None
        Expected length. A WAV file whose data would pass 4 GiB becomes RF64, which must be decided
        before the first sample: such a file needs it.

    Returns
    -------
    samples : int
        Number of samples written.

    Raises
    ------
    ParameterError
        If an argument is out of its range, a block has another shape or a sample that is NaN or
        infinite, or there are no samples at all.
    OutputError
        If the file cannot be written, with the reason.

    Notes
    -----
    Integer samples are rounded to the nearest value, without dither.
    """
    target = Path(path)
    _check_target(target)
    try:
        with atomic_file(target) as handle:
            return write_to(
                handle,
                target,
                blocks,
                sample_rate,
                channels,
                format=format,
                bits=bits,
                gain=gain,
                clamp=clamp,
                samples=samples,
            )
    except OutputError:
        raise
    except OSError as error:
        raise _output_error(target, error.strerror) from error


def write_to(
    handle: BinaryIO,
    target: Path,
    blocks: Iterable[AudioArray],
    sample_rate: int,
    channels: int,
    *,
    format: str = "wav",
    bits: int | None = None,
    gain: float = 1.0,
    clamp: bool = False,
    samples: int | None = None,
) -> int:
    """Write to an open unbuffered file what `write_file` writes; `target` names it in errors."""
    sample_rate = check_rate("sample_rate", sample_rate)
    bits = check_output_format(format, bits, sample_rate)
    if not is_number(channels) or channels not in (1, 2):
        raise ParameterError(f"channels={channels!r} must be 1 or 2")
    channels = int(channels)
    gain = plain(gain)
    if not is_number(gain) or not abs(gain) <= _LARGEST:
        raise ParameterError(f"gain={gain!r} must be a finite number, as float32")
    if samples is not None:
        samples = check_count("samples", samples, 0, 2**63 - 1)
    container = _container(format, bits, channels, samples)
    pieces = _pieces(blocks, sample_rate, channels, gain, clamp)
    return _write(handle, target, container, bits, sample_rate, channels, pieces)


def _output_error(target: Path, reason: str | None) -> OutputError:
    return OutputError(
        f"{str(target)!r} cannot be written: {(reason or 'unknown reason').lower()}. "
        "Choose another folder or make room.",
        path=target,
    )


def _check_target(target: Path) -> None:
    try:
        mode = os.stat(target).st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise _output_error(target, getattr(error, "strerror", None) or str(error)) from error
    if not stat.S_ISREG(mode):
        # Replacing a device or a pipe by a file would do harm.
        raise _output_error(target, "it is not a regular file")


def _container(format: str, bits: int | None, channels: int, samples: int | None) -> str:
    if format == "wav" and bits and samples and samples * channels * bits // 8 > _WAV_DATA_BYTES:
        return "RF64"
    return format.upper()


def _pieces(
    blocks: Iterable[AudioArray], sample_rate: int, channels: int, gain: float, clamp: bool
) -> Iterator[AudioArray]:
    """Check the blocks, apply gain and clamp, and cut them into pieces that are safe to encode."""
    done = 0
    for block in blocks:
        kind = getattr(block, "dtype", None)
        if kind is None or not np.issubdtype(kind, np.floating):
            found = kind or type(block).__name__
            raise ParameterError(f"blocks: one is {found}, not an array of float32")
        if block.ndim != 2 or block.shape[0] != channels:
            raise ParameterError(f"blocks: one has the shape {block.shape}, not ({channels}, n)")
        for start in range(0, block.shape[1], _BLOCK_SAMPLES):
            with np.errstate(over="ignore"):  # What overflows becomes infinite.
                piece = block[:, start : start + _BLOCK_SAMPLES].astype(np.float32)
                piece *= np.float32(gain)
            index = first_not_finite(piece)
            if index is not None:
                raise ParameterError(
                    "blocks: a sample is NaN or infinite after the gain, at "
                    f"{(done + index) / sample_rate:.3f} s. Only finite samples can be written."
                )
            done += piece.shape[1]
            yield np.clip(piece, -1.0, 1.0) if clamp else piece
    if not done:
        raise ParameterError("blocks: there are no samples. A file needs at least one.")


def _write(
    handle: BinaryIO,
    target: Path,
    container: str,
    bits: int | None,
    sample_rate: int,
    channels: int,
    pieces: Iterator[AudioArray],
) -> int:
    # Level 0 is the least compression: V0 for MP3; 0.2 is quality 0.8 for Vorbis.
    quality: dict[str, float | str] = {}
    if container == "MP3":
        quality = {"compression_level": 0.0, "bitrate_mode": "VARIABLE"}
    elif container == "OGG":
        quality = {"compression_level": 0.2}
    subtype = {"MP3": "MPEG_LAYER_III", "OGG": "VORBIS"}.get(container) or _SUBTYPES[bits or 32]
    failing = partial(_failing_as_output_error, handle, target)
    with failing():
        file = ForwardFile(
            descriptor_or_name(handle),
            "w",
            sample_rate,
            channels,
            subtype=subtype,
            format=container,
            closefd=False,
            **quality,
        )
    written = 0
    try:
        for piece in pieces:
            written += piece.shape[1]
            if container == "WAV" and bits and written * channels * bits // 8 > _WAV_DATA_BYTES:
                raise _output_error(target, "WAV data past 4 GiB needs samples= up front, for RF64")
            with failing():
                file.write(_encodable(piece, bits))
    finally:
        with failing():
            file.close()
    with failing():
        _check_written(handle, container, written)
        if bits == 32:
            _clear_peak_time(handle)
    return written


@contextmanager
def _failing_as_output_error(handle: BinaryIO, target: Path) -> Iterator[None]:
    try:
        yield
    # soundfile asserts that everything was written.
    except (soundfile.SoundFileError, OSError, AssertionError) as error:
        raise _output_error(target, _reason(handle, error)) from error


def _encodable(piece: AudioArray, bits: int | None) -> npt.NDArray[np.float32 | np.int32]:
    """Return samples first; for integer formats rounded and saturated, in the top bits of int32.

    libsndfile itself rounds for FLAC but rounds down for WAV.
    """
    samples = np.ascontiguousarray(piece.T)
    if bits not in (16, 24):
        return samples
    full = 2 ** (bits - 1)
    whole = np.clip(np.rint(samples.astype(np.float64) * full), -full, full - 1)
    shifted: npt.NDArray[np.int32] = whole.astype(np.int32) << (32 - bits)
    return shifted


def _check_written(handle: BinaryIO, container: str, written: int) -> None:
    """Read the finished header back: some encoders swallow a write that failed."""
    handle.seek(0)
    with ForwardFile(descriptor_or_name(handle), closefd=False) as file:
        found = file.frames
    if found != written:
        raise OSError(f"{container} holds {found} of {written} samples")


def _clear_peak_time(handle: BinaryIO) -> None:
    """Blank the time in a float file's PEAK chunk: equal audio should give equal bytes."""
    handle.seek(0)
    at = handle.read(4096).find(b"PEAK")
    if at >= 0:
        handle.seek(at + 12)
        handle.write(bytes(4))


def _reason(handle: BinaryIO, error: Exception) -> str:
    """Find out why a write failed: libsndfile keeps the system's reason to itself."""
    try:
        handle.seek(0, os.SEEK_END)
        handle.write(bytes(_BLOCK_SAMPLES))
    except OSError as system_error:
        return system_error.strerror or str(system_error)
    return " ".join(str(error).split()).rstrip(".")
