"""The separator: what a caller uses; the work is done in `_job` and `_files`."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from stemlab import audio as audio_io
from stemlab._checks import check_count
from stemlab._typing import AudioArray, StrPath
from stemlab.chunking import ChunkPlan
from stemlab.networks.model import Model
from stemlab.networks.spec import ModelSpec
from stemlab.separation._files import run_to_files, settings_for_model
from stemlab.separation._identity import identity_of
from stemlab.separation._job import Job, Progress, recording_of_array, recording_of_file
from stemlab.separation.events import SeparationResult, StemBlock
from stemlab.separation.planning import make_plans
from stemlab.separation.settings import OutputSettings, SeparationSettings, make_settings


class AudioStemSeparator:
    """Separate recordings into stems with one model on one device.

    Parameters
    ----------
    model : str, path or Demucs network, default "stemlab-mini"
        A registered name, a folder with a model and its manifest, or a ready ``HTDemucs``,
        ``HDemucs`` or ``BagOfModels``, which the caller vouches for and which is not changed.
    device : str, default "auto"
        ``auto`` (CUDA, then MPS, then CPU), ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
    batch_size : int, in [1, 64], default 1
        Segments in one call of the network. More than one is slower on a CPU. Halved, and
        recorded, where the device's memory runs out.
    network_version : str, optional
        Vouches for the code of a ready network that is not of one of Demucs' own classes: results
        of an earlier run are taken over (``resume=True``) only if this, its weights and its
        settings are the same. Without it, nothing of such a network is taken over.

    Raises
    ------
    ModelNotFoundError, ModelRefusedError
        If there is no such model, or it failed a check.
    ParameterError
        If the device or batch size is not available.

    Notes
    -----
    The arithmetic is that of ``demucs.api.Separator`` with the same settings, to 1e-5 of full
    scale for a stereo recording at the model's rate and no shifts. Weights are loaded, and
    verified, at the first use. Those of a ready network are shared, not copied: one that is trained
    on needs a new separator.

    References
    ----------
    S. Rouard, F. Massa, A. Défossez, "Hybrid Transformers for Music Source Separation",
    ICASSP 2023, doi:10.1109/ICASSP49357.2023.10096956.

    Examples
    --------
    >>> import numpy as np
    >>> separator = AudioStemSeparator()
    >>> stems = separator.separate_audio(np.zeros((2, 44_100)), 44_100)
    >>> sorted(stems), stems["bass"].shape
    (['bass', 'drums', 'other', 'vocals'], (2, 44100))
    """

    def __init__(
        self,
        model: StrPath | nn.Module = "stemlab-mini",
        *,
        device: str = "auto",
        batch_size: int = 1,
        network_version: str | None = None,
    ) -> None:
        self._batch_size = check_count("batch_size", batch_size, 1, 64)
        self._model = Model(model, device, network_version)

    def __repr__(self) -> str:
        return f"AudioStemSeparator({self.name!r}, device={self.device!r})"

    @property
    def spec(self) -> ModelSpec:
        """What is known of the model without its weights: its networks and their segments."""
        return self._model.spec

    @property
    def name(self) -> str:
        """Name of the model."""
        return self._model.spec.name

    @property
    def request(self) -> str | None:
        """What the model was asked for, as it was typed: a registered name or a folder.

        None for a ready network.
        """
        return self._model.request

    @property
    def resolved_request(self) -> str | None:
        """What asks for the same model from any folder; a relative path is made absolute.

        None for a ready network.
        """
        return self._model.resolved_request

    @property
    def sources(self) -> tuple[str, ...]:
        """What the model separates, in its order."""
        return self._model.spec.sources

    @property
    def sample_rate(self) -> int:
        """Rate of the model in Hz; recordings of another rate are resampled to it and back."""
        return self._model.spec.sample_rate

    @property
    def model_sha256(self) -> str:
        """Digest that stands for the model in a run manifest."""
        return self._model.sha256

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the samples besides the recording and the settings; part of every key.

        ``model`` is None for a ready network whose code is unknown, without `network_version`.
        """
        return identity_of(self._model, self._batch_size)

    @property
    def batch_size(self) -> int:
        """Segments in one call of the network."""
        return self._batch_size

    @property
    def device(self) -> str:
        """Where the network runs."""
        return str(self._model.device)

    def plan(
        self, samples: int, settings: SeparationSettings | None = None, **options: Any
    ) -> tuple[ChunkPlan, ...]:
        """Say what a separation would compute; nothing is loaded or run.

        Parameters
        ----------
        samples : int, >= 1
            Length of the recording at `sample_rate`.
        settings : SeparationSettings, optional
        **options : optional
            Instead of `settings`: the parameters of `SeparationSettings` as keywords.

        Returns
        -------
        plans : tuple of ChunkPlan
            One per network that the chosen sources need.

        Raises
        ------
        ParameterError
            If the settings do not fit this model.
        """
        job = self._job(make_settings(settings, options))
        return make_plans(self.spec, samples, job.settings, job.members)

    def check(
        self,
        settings: SeparationSettings | None = None,
        output: OutputSettings | None = None,
        **options: Any,
    ) -> None:
        """Refuse what no recording can be separated with; nothing is loaded or opened.

        Parameters
        ----------
        settings : SeparationSettings, optional
        output : OutputSettings, optional
        **options : optional
            Instead of `settings`: the parameters of `SeparationSettings` as keywords.

        Raises
        ------
        ParameterError
            If a value does not fit this model.
        ModelNotFoundError
            If the model is not installed.
        """
        settings = make_settings(settings, options)
        job = self._job(settings_for_model(settings, output or OutputSettings(), self.sources))
        job.check_installed()

    def separate_audio(
        self,
        audio: npt.ArrayLike,
        sample_rate: int,
        *,
        settings: SeparationSettings | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> dict[str, AudioArray]:
        """Separate a recording that is in memory.

        Parameters
        ----------
        audio : array, shape (channels, samples) or (samples,)
            Nominal range [-1, 1], one or two channels. Not modified.
        sample_rate : int, in Hz, in [1000, 768000]
        settings : SeparationSettings, optional
        progress : callable, optional
            Called with a `SegmentDone` after each segment; raising an exception there cancels.
        **options : optional
            Instead of `settings`: the parameters of `SeparationSettings` as keywords, for instance
            ``overlap=0.5``.

        Returns
        -------
        stems : dict of str to ndarray, each shape (channels, samples), float32
            With the length, channels and rate of `audio`.

        Raises
        ------
        ParameterError
            If a value is outside its range.
        AudioError
            If the recording is empty, not finite or has more than two channels.
        OutOfMemoryError
            If the device's memory does not hold one segment.
        SeparationError
            If the network gives values that are not finite.
        """
        job = self._job(make_settings(settings, options), progress)
        mixture = audio_io.as_audio(audio)
        stems = {source: np.empty_like(mixture) for source in job.sources}
        for block in job.run(recording_of_array(mixture, sample_rate)):
            for source, samples in block.stems.items():
                stems[source][:, block.start : block.start + samples.shape[1]] = samples
        return stems

    def stream_file(
        self,
        path: StrPath,
        *,
        settings: SeparationSettings | None = None,
        downmix: bool = False,
        progress: Progress | None = None,
        **options: Any,
    ) -> Generator[StemBlock]:
        """Separate a file and yield finished blocks in order; closing the generator cancels.

        Parameters
        ----------
        path : path
        settings : SeparationSettings, optional
        downmix : bool, default False
            Mix more than two channels down to stereo instead of refusing them.
        progress : callable, optional
            Called with a `SegmentDone` after each segment.
        **options : optional
            Instead of `settings`: the parameters of `SeparationSettings` as keywords.

        Yields
        ------
        block : StemBlock
            Together as long as the recording, in its rate and channels.

        Raises
        ------
        AudioError
            If the file cannot be read.
        ParameterError, OutOfMemoryError, SeparationError
            As for `separate_audio`.
        """
        job = self._job(make_settings(settings, options), progress)
        return job.run(recording_of_file(audio_io.read_info(path), downmix))

    def separate_file(
        self,
        path: StrPath,
        out_dir: StrPath,
        *,
        settings: SeparationSettings | None = None,
        output: OutputSettings | None = None,
        progress: Progress | None = None,
        **options: Any,
    ) -> SeparationResult:
        """Separate a file into files, block by block: memory does not grow with the song.

        Parameters
        ----------
        path : path
            Any recording that `stemlab.audio` reads.
        out_dir : path
            Gets ``<song>/<source>.wav`` and ``<song>/run.json``. Made if missing.
        settings : SeparationSettings, optional
        output : OutputSettings, optional
            Format, names, what to do with loud samples and earlier results.
        progress : callable, optional
            Called with a `SegmentDone` after each segment; raising an exception there cancels.
        **options : optional
            Instead of `settings`: the parameters of `SeparationSettings` as keywords.

        Returns
        -------
        result : SeparationResult

        Raises
        ------
        ParameterError, OutOfMemoryError, SeparationError
            As for `separate_audio`.
        AudioError
            If the file cannot be read, or changes while it is.
        OutputError
            If there is a result already, or it cannot be written. Nothing is left half-written.
        """
        settings = make_settings(settings, options)
        output = output or OutputSettings()
        job = self._job(settings_for_model(settings, output, self.sources), progress)
        return run_to_files(job, settings, Path(path), Path(out_dir), output)

    def _job(self, settings: SeparationSettings, progress: Progress | None = None) -> Job:
        return Job(self._model, settings, self._batch_size, progress)
