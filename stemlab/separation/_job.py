"""One run of a model over one recording: the generator that does the work."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stemlab import audio as audio_io
from stemlab._checks import check_rate
from stemlab._typing import AudioArray
from stemlab.chunking import ChunkPlan, MixtureWindow, overlap_add
from stemlab.errors import AudioError, OutOfMemoryError, SeparationError, is_out_of_memory
from stemlab.networks.architectures import MemberSpec
from stemlab.networks.devices import free_cache
from stemlab.networks.model import Model
from stemlab.separation.events import SegmentDone, StemBlock
from stemlab.separation.planning import check_segment, make_plans
from stemlab.separation.settings import SeparationSettings

Progress = Callable[[SegmentDone], None]
_BLOCK_SAMPLES = 1 << 16
_BLOCKS_AHEAD = 8  # More than a usual segment has.
# Added to the standard deviation by Demucs, so that silence is not divided by zero.
_QUIET = 1e-8


@dataclass(frozen=True)
class Recording:
    """A recording that can be read more than once, in blocks of its own rate and channels."""

    blocks: Callable[[], Iterator[AudioArray]]
    sample_rate: int
    channels: int
    what: str


def recording_of_array(mixture: AudioArray, sample_rate: int) -> Recording:
    check_rate("sample_rate", sample_rate)

    def blocks() -> Iterator[AudioArray]:
        for start in range(0, mixture.shape[1], _BLOCK_SAMPLES):
            yield mixture[:, start : start + _BLOCK_SAMPLES]

    return Recording(blocks, sample_rate, mixture.shape[0], "the recording")


def recording_of_file(info: audio_io.AudioInfo, downmix: bool) -> Recording:
    return Recording(
        lambda: audio_io.stream_file(info.path, block_samples=_BLOCK_SAMPLES, downmix=downmix),
        info.sample_rate,
        min(info.channels, 2),
        repr(str(info.path)),
    )


class Job:
    """One run of a model over one recording."""

    def __init__(
        self,
        model: Model,
        settings: SeparationSettings,
        batch_size: int,
        progress: Progress | None = None,
    ) -> None:
        spec = model.spec
        self.sources = settings.pick_sources(spec.sources)
        check_segment(spec, settings.segment_seconds)
        self.changes: list[str] = []
        self.samples = 0
        self._level: list[np.float32] = []
        self.made_plans: tuple[ChunkPlan, ...] = ()
        self.model = model
        self.settings = settings
        self.batch_size = batch_size
        self._spec = spec
        self._progress = progress
        self._batch_limit = batch_size
        self._columns = [spec.sources.index(source) for source in self.sources]
        gains = np.array([member.gains for member in spec.members], np.float64)
        gains = (gains / gains.sum(axis=0))[:, self._columns]
        # A member without a share in what was asked for is not run.
        self.members = [index for index, row in enumerate(gains) if row.any()]
        self._gains = gains[self.members].astype(np.float32)

    def check_installed(self) -> None:
        """Refuse a model whose files are not there; see `Model.check_installed`."""
        self.model.check_installed(self.members)

    def load(self) -> None:
        """Load what the run needs, so that a refused model is known before the song is read."""
        for member in self.members:
            self.model.runner(member)
        for reason in self.model.slow_because:
            note = f"Ran with Demucs' own forward, which is slower: the network has {reason}."
            if note not in self.changes:
                self.changes.append(note)

    def run(self, recording: Recording) -> Generator[StemBlock]:
        """Yield finished blocks. The recording is read twice: for its level, then to separate."""
        self.prepare(recording)
        start = 0
        for stems in self.at_native_rate(self.separate(recording), recording):
            yield StemBlock(start, dict(zip(self.sources, stems, strict=True)))
            start += stems.shape[-1]

    def prepare(self, recording: Recording) -> None:
        """Load the model, and read the recording once: for its length and level."""
        self.load()
        self.samples, samples, *self._level = self._measure(recording)
        self.made_plans = make_plans(self._spec, samples, self.settings, self.members)
        self.changes.extend(dict.fromkeys(note for plan in self.made_plans for note in plan.notes))

    def separate(self, recording: Recording, begin: int = 0) -> Generator[AudioArray]:
        """Yield finished blocks at the model's rate, in the recording's channels."""
        samples, (mean, deviation) = self.made_plans[0].samples, self._level
        blocks = _read_ahead((block - mean) / deviation for block in self._at_model_rate(recording))
        window = MixtureWindow(exactly(blocks, samples, recording), self._spec.channels, samples)
        finished = overlap_add(
            window,
            self.made_plans,
            self._estimate,
            gains=self._gains,
            channels=self._spec.channels,
            batch_size=self.batch_size,
            begin=begin,
            on_calls=self._report(begin),
        )
        try:
            for _, block in finished:
                self._to_level(block, mean, deviation)
                yield block if recording.channels > 1 else block.mean(axis=1, keepdims=True)
        finally:
            blocks.close()
            for member in self.members:
                self.model.runner(member).release()

    def at_native_rate(
        self, blocks: Iterable[AudioArray], recording: Recording
    ) -> Generator[AudioArray]:
        """Bring what `separate` makes to the rate of the recording, and to its length."""
        stems, channels = len(self.sources), recording.channels
        resampler = audio_io.StreamResampler(
            self._spec.sample_rate, recording.sample_rate, stems * channels
        )
        flat = (block.reshape(stems * channels, -1) for block in blocks)
        left = self.samples
        for block in _resampled(flat, resampler):
            block = block[:, :left]
            left -= block.shape[1]
            yield block.reshape(stems, channels, -1)
        if left:  # Rates that do not divide: the last sample may be missing.
            yield np.zeros((stems, channels, left), np.float32)

    def _to_level(
        self, block: npt.NDArray[np.float32], mean: np.float32, deviation: np.float32
    ) -> None:
        """Undo the normalisation in place, and refuse what is no audio."""
        with np.errstate(over="ignore"):
            block *= deviation
            block += mean
        if not np.isfinite(block).all():
            raise SeparationError(
                f"{self._spec.name} gave values that are not finite. Check the level of the "
                "recording, or try another model or device='cpu'."
            )

    def _measure(self, recording: Recording) -> tuple[int, int, np.float32, np.float32]:
        """First pass: lengths, and the level by which Demucs normalises a whole file."""
        native = 0

        def counted() -> Iterator[AudioArray]:
            nonlocal native
            for block in recording.blocks():
                native += block.shape[1]
                yield block

        samples, total, squares = 0, 0.0, 0.0
        for block in self._at_model_rate(recording, counted()):
            mono = block.mean(axis=0, dtype=np.float64)
            samples += mono.size
            total += float(mono.sum())
            squares += float(mono @ mono)
        if not samples:
            raise AudioError(f"{recording.what} holds no samples. Choose another recording.")
        if not self._spec.normalises:
            return native, samples, np.float32(0), np.float32(1)
        mean = total / samples
        variance = max(squares - samples * mean**2, 0.0) / max(samples - 1, 1)
        return native, samples, np.float32(mean), np.float32(math.sqrt(variance) + _QUIET)

    def _at_model_rate(
        self, recording: Recording, blocks: Iterator[AudioArray] | None = None
    ) -> Iterator[AudioArray]:
        """Blocks as the network takes them: stereo (mono twice), at the model's rate."""
        resampler = audio_io.StreamResampler(
            recording.sample_rate, self._spec.sample_rate, recording.channels
        )
        for block in _resampled(blocks or recording.blocks(), resampler):
            yield np.broadcast_to(block, (self._spec.channels, block.shape[1]))

    def _estimate(self, position: int, inputs: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        member = self._spec.members[self.members[position]]
        runner = self.model.runner(self.members[position])
        padded_samples = self.made_plans[position].network_samples or 0
        estimates: list[npt.NDArray[np.float32]] = []
        done = 0
        while done < len(inputs):
            part = inputs[done : done + self._batch_limit]
            try:
                made = runner(part, padded_samples=padded_samples)
                # Picking them copies: only where some are left out.
                all_made = len(self._columns) == made.shape[1]
                estimates.append(made if all_made else made[:, self._columns])
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise SeparationError(
                        f"{self._spec.name} failed on {part.shape[-1]} samples: {error}. Try "
                        "another segment, or another model."
                    ) from error
                self._shrink_batch(len(part), member, error)
            else:
                done += len(part)
        return estimates[0] if len(estimates) == 1 else np.concatenate(estimates)

    def _shrink_batch(self, tried: int, member: MemberSpec, error: BaseException) -> None:
        """Fewer segments at once give the same output and take less memory."""
        device = self.model.device.torch_device
        free_cache(device)
        if tried == 1:
            raise OutOfMemoryError(self._what_would_fit(member)) from error
        self._batch_limit = tried // 2
        self.changes.append(
            f"Memory of {device} ran out with {tried} segments in one call: "
            f"continued with {self._batch_limit}."
        )

    def _what_would_fit(self, member: MemberSpec) -> str:
        device = str(self.model.device)
        asked = self.settings.segment_seconds or float(member.segment_seconds)
        shorter = "" if device == "cpu" else ", or --device cpu (same output)"
        free = not (member.pads and self.settings.pad_to_training_segment)
        flag = "" if free else " --no-pad"
        return (
            f"the memory of {device} does not hold one segment of {asked:g} s. What would take "
            f"less: --segment {asked / 2:.3g}{flag} (other output){shorter}."
        )

    def _report(self, begin: int) -> Callable[[int, int], None]:
        begun = time.perf_counter()
        total = sum(plan.calls for plan in self.made_plans)
        earlier = total - sum(plan.calls_from(begin, self.batch_size) for plan in self.made_plans)
        done = earlier

        def report(calls: int, finished: int) -> None:
            nonlocal done
            done += calls
            if self._progress is not None:
                mean = (time.perf_counter() - begun) / (done - earlier)
                seconds = finished / self._spec.sample_rate
                self._progress(SegmentDone(done, total, seconds, mean * (total - done)))

        return report


def exactly(
    blocks: Iterator[AudioArray], samples: int, recording: Recording
) -> Iterator[AudioArray]:
    """Refuse a recording that became shorter between its two passes."""
    seen = 0
    for block in blocks:
        seen += block.shape[1]
        yield block
    if seen < samples:
        raise AudioError(f"{recording.what} changed while it was read. Separate it again.")


def _read_ahead(blocks: Iterator[AudioArray]) -> Generator[AudioArray]:
    """Read some blocks before they are asked for, so that the model does not wait for them."""
    with ThreadPoolExecutor(1, "stemlab-reader") as reader:
        coming = deque(reader.submit(next, blocks, None) for _ in range(_BLOCKS_AHEAD))
        while (block := coming.popleft().result()) is not None:
            coming.append(reader.submit(next, blocks, None))
            yield block


def _resampled(
    blocks: Iterator[AudioArray], resampler: audio_io.StreamResampler
) -> Iterator[AudioArray]:
    for block in blocks:
        ready = resampler.push(block)
        if ready.shape[1]:
            yield ready
    rest = resampler.finish()
    if rest.shape[1]:
        yield rest
