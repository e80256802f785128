"""The recording of a sweep and its true stems, cut to the excerpt that is used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from stemlab import audio as audio_io
from stemlab._checks import check_rate, check_seconds
from stemlab._typing import AudioArray, StrPath
from stemlab.audio.reading import check_length
from stemlab.chunking import samples_in
from stemlab.errors import AudioError, ParameterError

References = StrPath | Mapping[str, StrPath | npt.ArrayLike]


@dataclass(frozen=True)
class Excerpt:
    """The excerpt of a recording that every setting separates."""

    name: str
    mixture: AudioArray
    sample_rate: int
    start: int
    total: int
    references: Mapping[str, AudioArray] = field(default_factory=dict)

    @property
    def seconds(self) -> float:
        """Length of the excerpt in seconds."""
        return float(self.mixture.shape[1] / self.sample_rate)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Return digests of the samples, and the rate."""
        return {
            "sample_rate": self.sample_rate,
            "mixture_sha256": samples_digest(self.mixture),
            "references_sha256": {
                name: samples_digest(stem) for name, stem in self.references.items()
            },
        }


def load_audio(
    audio: StrPath | npt.ArrayLike,
    sample_rate: int | None,
    *,
    excerpt_seconds: float | None,
    excerpt_start_seconds: float | None,
) -> Excerpt:
    """Load the excerpt of a recording."""
    if excerpt_seconds is not None:
        excerpt_seconds = _check_seconds("excerpt_seconds", excerpt_seconds, above=True)
    if excerpt_start_seconds is not None:
        excerpt_start_seconds = _check_seconds(
            "excerpt_start_seconds", excerpt_start_seconds, above=False
        )
    if _is_path(audio):
        if sample_rate is not None:
            raise ParameterError(
                f"sample_rate={sample_rate!r} goes with an array. A file states its own; leave it "
                "out."
            )
        info = audio_io.read_info(audio)
        if info.channels > 2:
            raise AudioError(
                f"{str(audio)!r} has {info.channels} channels. Mix it down to stereo first.",
                info.path,
            )
        total = _count(info)
        rate, name = info.sample_rate, Path(audio).name
        start, stop = _excerpt(total, rate, excerpt_seconds, excerpt_start_seconds)
        return Excerpt(name, _read(info, start, stop), rate, start, total)
    if sample_rate is None:
        raise ParameterError("sample_rate is missing. Pass the rate of the array in Hz.")
    array: Any = audio
    mixture, rate = audio_io.as_audio(array), check_rate("sample_rate", sample_rate)
    total = mixture.shape[1]
    start, stop = _excerpt(total, rate, excerpt_seconds, excerpt_start_seconds)
    # A copy, as the caller may change the array while settings run.
    return Excerpt("array", mixture[:, start:stop].copy(), rate, start, total)


def load_references(
    references: References, audio: Excerpt, sources: Sequence[str]
) -> dict[str, AudioArray]:
    """Load the true stems of the excerpt."""
    if isinstance(references, Mapping):
        given: dict[str, Any] = {name: references[name] for name in sources if name in references}
        where = f"references has {', '.join(map(str, references)) or 'nothing'}"
    else:
        # The first file of a name wins: a folder may hold the same stem in two formats.
        files = {path.stem.casefold(): path for path in reversed(_list(Path(references)))}
        given = {name: files[name.casefold()] for name in sources if name.casefold() in files}
        where = f"{str(references)!r} holds {', '.join(sorted(files)) or 'no audio file'}"
    if not given:
        raise ParameterError(
            f"{where}, and the models make {', '.join(sources)}. Name the true stems like these, "
            f"for instance {sources[0]}.wav."
        )
    return {name: _reference(name, stem, audio) for name, stem in given.items()}


def _list(folder: Path) -> list[Path]:
    if not os.path.isdir(folder):
        raise ParameterError(
            f"references={str(folder)!r} is not a folder. Pass the folder of the true stems, or a "
            "mapping of source to file."
        )
    return audio_io.find_recordings(folder)


def _reference(name: str, reference: Any, audio: Excerpt) -> AudioArray:
    start, stop = audio.start, audio.start + audio.mixture.shape[1]
    shown = f"the true stem of {name!r}"
    if _is_path(reference):
        info = audio_io.read_info(reference)
        rate, total = info.sample_rate, _count(info)
        excerpt = _read(info, start, min(stop, total)) if start < total else None
        shown += f", {str(reference)!r},"
    else:
        whole = audio_io.as_audio(reference, name=f"references[{name!r}]")
        rate, total, excerpt = audio.sample_rate, whole.shape[1], whole[:, start:stop].copy()
    found = (rate, total, 0 if excerpt is None else excerpt.shape[0])
    expected = (audio.sample_rate, audio.total, audio.mixture.shape[0])
    if found != expected or excerpt is None:
        raise AudioError(
            f"{shown} does not fit the recording: it has {_shape(*found)}, the recording "
            f"{_shape(*expected)}. Export both alike; a lossy format may change the length."
        )
    return excerpt


def _shape(rate: int, samples: int, channels: int) -> str:
    return f"{samples} samples at {rate} Hz in {channels} channel(s)"


def _is_path(thing: object) -> TypeGuard[StrPath]:
    return isinstance(thing, (str, os.PathLike))


def _count(info: audio_io.AudioInfo) -> int:
    """Count the samples of a file; a compressed file must be decoded for it."""
    if info.samples is not None and info.is_exact:
        return info.samples
    return sum(block.shape[1] for block in audio_io.stream_file(info.path))


def _read(info: audio_io.AudioInfo, start: int, stop: int) -> AudioArray:
    """Read a range. If the file cannot be sought exactly, decode and drop what lies before it."""
    check_length(info.path, stop - start, info.sample_rate, info.channels)
    if info.is_exact and info.channels <= 2:
        with closing(audio_io.SeekableRecording(info.path)) as recording:
            return recording.read(start, stop)
    parts = list(_range(audio_io.stream_file(info.path), start, stop))
    return np.concatenate(parts, axis=1)


def _range(blocks: Iterable[AudioArray], start: int, stop: int) -> Iterator[AudioArray]:
    position = 0
    for block in blocks:
        first, last = max(start - position, 0), min(stop - position, block.shape[1])
        if first < last:
            yield block[:, first:last]
        position += block.shape[1]
        if position >= stop:
            break


def _check_seconds(name: str, value: float, *, above: bool) -> float:
    return float(check_seconds(name, value, above=above, advice="Leave it out for the default."))


def _excerpt(
    total: int, rate: int, seconds: float | None, start_seconds: float | None
) -> tuple[int, int]:
    if not total:
        raise AudioError("the recording holds no samples. Choose another one.")
    length = total if seconds is None else min(max(samples_in(seconds, rate), 1), total)
    start = (total - length) // 2 if start_seconds is None else samples_in(start_seconds, rate)
    if start >= total:
        raise ParameterError(
            f"excerpt_start_seconds={start_seconds:g} lies behind the end of the recording, which "
            f"has {total / rate:.1f} s. Pass less."
        )
    return start, min(start + length, total)


def samples_digest(audio: AudioArray) -> str:
    """Return a digest of the shape and the samples of a recording."""
    digest = hashlib.sha256(f"{audio.shape}\n".encode())
    digest.update(np.ascontiguousarray(audio, "<f4").tobytes())
    return digest.hexdigest()
