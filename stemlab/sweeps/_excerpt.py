"""The recording of a sweep and its true stems, cut to the excerpt that is used."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial
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
    seconds = _seconds("excerpt_seconds", excerpt_seconds, above=True)
    start_seconds = _seconds("excerpt_start_seconds", excerpt_start_seconds, above=False)
    if _is_path(audio) and sample_rate is not None:
        raise ParameterError(
            f"sample_rate={sample_rate!r} goes with an array. A file states its own; leave it out."
        )
    if not _is_path(audio) and sample_rate is None:
        raise ParameterError("sample_rate is missing. Pass the rate of the array in Hz.")
    rate, total, read = _open(audio, sample_rate, "audio")
    if not total:
        raise AudioError("the recording holds no samples. Choose another one.")
    length = total if seconds is None else min(max(samples_in(seconds, rate), 1), total)
    start = (total - length) // 2 if start_seconds is None else samples_in(start_seconds, rate)
    if start >= total:
        raise ParameterError(
            f"excerpt_start_seconds={start_seconds:g} lies behind the end of the recording, which "
            f"has {total / rate:.1f} s. Pass less."
        )
    name = Path(audio).name if _is_path(audio) else "array"
    return Excerpt(name, read(start, min(start + length, total)), rate, start, total)


def load_references(
    references: References, audio: Excerpt, sources: Sequence[str]
) -> dict[str, AudioArray]:
    """Load the true stems of the excerpt."""
    if isinstance(references, Mapping):
        given: dict[str, Any] = {name: references[name] for name in sources if name in references}
        where = f"references has {', '.join(map(str, references)) or 'nothing'}"
    elif not os.path.isdir(references):
        raise ParameterError(
            f"references={str(references)!r} is not a folder. Pass the folder of the true stems, "
            "or a mapping of source to file."
        )
    else:
        # The first file of a name wins: a folder may hold the same stem in two formats.
        found = audio_io.find_recordings(Path(references))
        files = {path.stem.casefold(): path for path in reversed(found)}
        given = {name: files[name.casefold()] for name in sources if name.casefold() in files}
        where = f"{str(references)!r} holds {', '.join(sorted(files)) or 'no audio file'}"
    if not given:
        raise ParameterError(
            f"{where}, and the models make {', '.join(sources)}. Name the true stems like these, "
            f"for instance {sources[0]}.wav."
        )
    return {name: _reference(name, stem, audio) for name, stem in given.items()}


def _reference(name: str, reference: Any, audio: Excerpt) -> AudioArray:
    channels, length = audio.mixture.shape
    rate, total, read = _open(reference, audio.sample_rate, f"references[{name!r}]")
    excerpt = np.zeros((0, 0), np.float32)
    if audio.start < total:
        excerpt = read(audio.start, min(audio.start + length, total))
    found = (rate, total, len(excerpt))
    expected = (audio.sample_rate, audio.total, channels)
    if found != expected:
        shown, wanted = (
            f"{samples} samples at {hz} Hz in {count} channel(s)"
            for hz, samples, count in (found, expected)
        )
        file = f", {str(reference)!r}," if _is_path(reference) else ""
        raise AudioError(
            f"the true stem of {name!r}{file} does not fit the recording: it has {shown}, the "
            f"recording {wanted}. Export both alike; a lossy format may change the length."
        )
    return excerpt


def _open(
    recording: Any, sample_rate: int | None, name: str
) -> tuple[int, int, Callable[[int, int], AudioArray]]:
    """Return the rate and the length of a recording, and a function that reads a range of it."""
    if not _is_path(recording):
        whole = audio_io.as_audio(recording, name=name)
        # A copy, as the caller may change the array while settings run.
        return (
            check_rate("sample_rate", sample_rate),
            whole.shape[1],
            lambda start, stop: whole[:, start:stop].copy(),
        )
    info = audio_io.read_info(recording)
    if info.channels > 2:
        raise AudioError(
            f"{str(recording)!r} has {info.channels} channels. Mix it down to stereo first.",
            info.path,
        )
    samples = info.samples if info.is_exact else None
    if samples is None:  # A compressed file must be decoded for it.
        samples = sum(block.shape[1] for block in audio_io.stream_file(info.path))
    return info.sample_rate, samples, partial(_read, info)


def _read(info: audio_io.AudioInfo, start: int, stop: int) -> AudioArray:
    """Read a range. If the file cannot be sought exactly, decode and drop what lies before it."""
    check_length(info.path, stop - start, info.sample_rate, info.channels)
    if info.is_exact:
        with closing(audio_io.SeekableRecording(info.path)) as recording:
            return recording.read(start, stop)
    parts, position = [], 0
    for block in audio_io.stream_file(info.path):
        # A copy, as a view would hold the whole block.
        parts.append(block[:, max(start - position, 0) : max(stop - position, 0)].copy())
        position += block.shape[1]
        if position >= stop:
            break
    return np.concatenate(parts, axis=1)


def _is_path(thing: object) -> TypeGuard[StrPath]:
    return isinstance(thing, (str, os.PathLike))


def _seconds(name: str, value: float | None, *, above: bool) -> float | None:
    if value is None:
        return None
    return float(check_seconds(name, value, above=above, advice="Leave it out for the default."))


def samples_digest(audio: AudioArray) -> str:
    """Return a digest of the shape and the samples of a recording."""
    digest = hashlib.sha256(f"{audio.shape}\n".encode())
    digest.update(np.ascontiguousarray(audio, "<f4").tobytes())
    return digest.hexdigest()
