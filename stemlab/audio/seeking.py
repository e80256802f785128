"""Random access to a recording, for players."""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import soundfile

from stemlab._checks import check_rate
from stemlab._typing import AudioArray, StrPath
from stemlab.audio.arrays import as_audio, check_finite
from stemlab.audio.reading import read_info, stream_file
from stemlab.audio.resampling import StreamResampler
from stemlab.errors import AudioError, OutputError, ParameterError

# Six hours of stereo at 44.1 kHz. A few MB of FLAC can decode to days, and fill the disk.
_MOST_DECODED_BYTES = 1 << 33


class SeekableRecording:
    """A recording of which any stretch can be read at any time, from any thread.

    An array is kept without a copy. A WAV, AIFF or FLAC file is read where it is wanted. Any other
    file, or one that has to be resampled, is decoded once into a temporary file (8 bytes per
    sample in stereo, at most 8 GiB), which `close` removes.
    """

    def __init__(self, recording: StrPath | npt.ArrayLike, sample_rate: int | None = None) -> None:
        self._closing = ExitStack()
        self._one_reader = threading.Lock()
        self._array: AudioArray | None = None
        self._path: Path | None = None
        self._decoded: IO[bytes] | None = None
        if sample_rate is not None:
            sample_rate = check_rate("sample_rate", sample_rate)
        if isinstance(recording, (str, os.PathLike)):
            self._open(Path(recording), sample_rate)
        else:
            if sample_rate is None:
                raise ParameterError("sample_rate is missing. Pass the rate of the arrays in Hz.")
            self._array = as_audio(recording)
            self.channels, self.samples = self._array.shape
            self.sample_rate = sample_rate

    def read(self, start: int, stop: int) -> AudioArray:
        """Read a range of samples; silence follows the end of the recording."""
        if not 0 <= start <= stop:
            raise ParameterError(
                f"start={start!r}, stop={stop!r} is not a range of samples. Pass two of at least "
                "0, the smaller first."
            )
        # libsndfile does not go beyond the end.
        first, last = min(start, self.samples), min(stop, self.samples)
        if self._array is not None:
            audio = self._array[:, first:last]
        elif self._decoded is not None:
            audio = self._read_decoded(self._decoded, first, last)
        else:
            audio = self._read_file(first, last)
        silent = stop - start - audio.shape[1]
        return np.pad(audio, ((0, 0), (0, silent))) if silent else audio

    def close(self) -> None:
        """Remove the temporary file; nothing can be read after that."""
        with self._one_reader:
            self._closing.close()

    def _open(self, path: Path, sample_rate: int | None) -> None:
        info = read_info(path)
        self.sample_rate = sample_rate or info.sample_rate
        in_place = info.is_exact and info.channels <= 2 and self.sample_rate == info.sample_rate
        if in_place and info.samples:
            # The current folder may have changed when it is read.
            self._path, self._status = path.absolute(), _status(path)
            self.channels, self.samples = info.channels, info.samples
            return
        self._recording = str(path)
        try:
            decoded = self._closing.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        except OSError as error:
            raise _no_room(error) from error
        self._decoded = decoded
        resampler: StreamResampler | None = None
        self.samples = 0
        try:
            for block in stream_file(path):
                self.channels = len(block)
                resampler = resampler or StreamResampler(
                    info.sample_rate, self.sample_rate, self.channels
                )
                self._keep(decoded, resampler.push(block))
            assert resampler is not None
            self._keep(decoded, resampler.finish())
        except BaseException:
            # On a full disk, closing fails too.
            with suppress(OSError):
                self.close()
            raise

    def _keep(self, file: IO[bytes], block: AudioArray) -> None:
        try:
            file.write(np.ascontiguousarray(block.T).tobytes())
            file.flush()
        except OSError as error:
            raise _no_room(error) from error
        self.samples += block.shape[1]
        most = _MOST_DECODED_BYTES // (4 * self.channels)
        if self.samples > most:
            raise AudioError(
                f"{self._recording!r} is too long to be decoded in advance: at {self.sample_rate} "
                f"Hz with {self.channels} channel(s), at most {most // self.sample_rate} s (8 GiB) "
                "are allowed. Cut out a part, or convert it to WAV or FLAC of that rate."
            )

    def _read_decoded(self, file: IO[bytes], start: int, stop: int) -> AudioArray:
        width = 4 * self.channels
        with self._one_reader:
            if file.closed:
                raise AudioError("the recording was closed. Open it again.")
            file.seek(start * width)
            content = file.read((stop - start) * width)
        return np.frombuffer(content, np.float32).reshape(-1, self.channels).T

    def _read_file(self, start: int, stop: int) -> AudioArray:
        assert self._path is not None
        try:
            if _status(self._path) != self._status:
                raise AudioError(f"{str(self._path)!r} has changed. Load it again.", self._path)
            with soundfile.SoundFile(self._path) as file:
                file.seek(start)
                samples = file.read(stop - start, dtype="float32", always_2d=True)
            if len(samples) != stop - start:
                end_seconds = (start + len(samples)) / self.sample_rate
                raise AudioError(
                    f"{str(self._path)!r} ends after {end_seconds:.3f} s: it is damaged or cut "
                    "short. Get a whole copy of the file.",
                    self._path,
                )
        except (OSError, soundfile.SoundFileError) as error:
            raise AudioError(
                f"{str(self._path)!r} cannot be read any more: {error}. Load it again.", self._path
            ) from error
        audio: AudioArray = samples.T
        check_finite(audio, self._path, start, self.sample_rate)
        return audio


def _no_room(error: OSError) -> OutputError:
    # `tempdir` is None if no temporary folder is usable.
    folder = f" {tempfile.tempdir!r}" if tempfile.tempdir else ""
    return OutputError(
        f"the temporary folder{folder} cannot hold the decoded recording: {error.strerror}. "
        "Free some space there, name another folder in TMPDIR, or pass WAV files of one rate."
    )


def _status(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns
