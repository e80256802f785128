"""Repeat a recorded run and compare its samples with the recorded ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from stemlab._typing import StrPath
from stemlab.audio import file_digest, stream_file
from stemlab.errors import AudioError, ModelNotFoundError, ModelRefusedError, ParameterError
from stemlab.files import ScratchFolder
from stemlab.registry import is_folder
from stemlab.results import ModelRecord, RunManifest
from stemlab.separation.events import SegmentDone
from stemlab.separation.separator import AudioStemSeparator
from stemlab.separation.settings import unpack_parameters


@dataclass(frozen=True)
class ReplayReport:
    """Whether a repeated run gave the same samples.

    Parameters
    ----------
    equal : bool
        Whether every sample of every stem is equal to the recorded run's.
    largest_difference : mapping of str to float or None
        Per stem, the largest difference from the stored file as a share of full scale; None
        where that file is gone or was changed since.
    circumstances : tuple of str
        What is known to decide how numbers are rounded and is not as it was in the recorded run:
        device, threads, versions and so on.
    """

    equal: bool
    largest_difference: Mapping[str, float | None]
    circumstances: tuple[str, ...]


def replay(
    manifest_path: StrPath,
    *,
    input_path: StrPath | None = None,
    device: str | None = None,
    progress: Callable[[SegmentDone], None] | None = None,
) -> ReplayReport:
    """Repeat the run of a ``run.json`` in a temporary folder and compare.

    Parameters
    ----------
    manifest_path : path
        A ``run.json``, or the folder that holds it. Nothing there is changed.
    input_path : path, optional
        The recording, where it is no longer at the recorded place.
    device : str, optional
        Default: the recorded device.
    progress : callable, optional
        Called with a `SegmentDone` after each segment.

    Returns
    -------
    report : ReplayReport
        Samples are compared before they are encoded, by their recorded digests. They are equal bit
        for bit only where the same versions ran on the same kind of device, with as many threads.

    Raises
    ------
    ParameterError
        If the manifest cannot be read, or was made with a network that has no name.
    AudioError
        If the recording is missing or is another one.
    ModelRefusedError
        If the model of that name is no longer the recorded one.
    """
    run = RunManifest.read(manifest_path)
    folder = Path(manifest_path) if os.path.isdir(manifest_path) else Path(manifest_path).parent
    try:
        settings, output, batch_size = unpack_parameters(run.parameters)
        song = folder / run.input.path if input_path is None else Path(input_path)
        separator = _same_model(run.model, device or run.device.name, batch_size)
    except (KeyError, TypeError, AttributeError) as error:
        raise ParameterError(
            f"{str(manifest_path)!r} is incomplete or was changed: {error}. Pass the run.json "
            "that `stemlab separate` wrote."
        ) from error
    if file_digest(song) != run.input.sha256:
        raise AudioError(
            f"{str(song)!r} is not the recording of that run: its SHA-256 differs from "
            f"{run.input.sha256}. Pass the right one with --input.",
            song,
        )
    with ScratchFolder() as scratch:
        again = separator.separate_file(
            song, scratch, settings=settings, output=output, progress=progress
        )
        repeated = again.run.stems
        return ReplayReport(
            equal=all(
                name in repeated and repeated[name].samples_sha256 == record.samples_sha256
                for name, record in run.stems.items()
            ),
            largest_difference={
                name: _difference(folder / record.file, record.sha256, again.stems.get(name))
                for name, record in run.stems.items()
            },
            circumstances=tuple(_changed(run.circumstances(), again.run.circumstances())),
        )


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """Say which circumstances have changed."""
    for name, value in after.items():
        if name not in before:
            yield f"{name}: not recorded, now {value}"
        elif before[name] != value:
            # A manifest may hold anything.
            yield f"{name}: {before[name]!r:.80} in the recorded run, now {value!r}"


def _same_model(model: ModelRecord, device: str, batch_size: int) -> AudioStemSeparator:
    if model.request is None:
        raise ParameterError(
            f"the run was made with a ready network ({model.name}), which a manifest cannot "
            "name. Repeat it from Python with the same network."
        )
    try:
        separator = AudioStemSeparator(model.request, device=device, batch_size=batch_size)
    except ModelNotFoundError as error:
        if not is_folder(model.request) or os.path.isabs(model.request):
            raise
        raise ModelNotFoundError(
            f"the run was made with the model folder {model.request!r}, which is not in the "
            "current folder. Change to the folder in which the run was started, and try again."
        ) from error
    if separator.model_sha256 != model.sha256:
        raise ModelRefusedError(
            f"model {model.name!r} is not the one of that run: its digest is "
            f"{separator.model_sha256}, recorded was {model.sha256}. Install the recorded one.",
            expected=model.sha256,
            actual=separator.model_sha256,
        )
    return separator


def _difference(stored: Path, sha256: str, repeated: Path | None) -> float | None:
    try:
        if repeated is None or file_digest(stored) != sha256:
            return None
        pairs = zip(stream_file(stored), stream_file(repeated), strict=True)
        return max(float(np.abs(before - after).max()) for before, after in pairs)
    except AudioError:
        return None
