"""Run a network over the chunks of a plan, and add its estimates together.

The arithmetic is that of ``demucs.apply.apply_model``: a triangular window, a hop that is a
fraction of the segment, and a sum that is divided by the summed window. Here it runs block by
block, so that memory depends on the segment and not on the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence

import numpy as np

from stemlab._typing import AudioArray
from stemlab.chunking.plan import Chunk, ChunkPlan, FloatArray


class MixtureWindow:
    """The part of the recording that chunks still need, read from a stream of blocks."""

    def __init__(self, blocks: Iterable[AudioArray], channels: int, samples: int) -> None:
        self._blocks = iter(blocks)
        self._timeline = _Timeline((channels,), 0)
        self._samples = samples

    def read(self, start: int, stop: int) -> AudioArray:
        """Copy a range, with zeros outside the recording."""
        inside = range(*(min(max(edge, 0), self._samples) for edge in (start, stop)))
        while self._timeline.stop < inside.stop:
            block = next(self._blocks)
            self._timeline.add(self._timeline.stop, block)
        audio = np.zeros((self._timeline.shape[0], stop - start), np.float32)
        audio[:, inside.start - start : inside.stop - start] = self._timeline.peek(inside)
        return audio

    def forget(self, position: int) -> None:
        """Free what lies before a position."""
        self._timeline.forget(min(max(position, self._timeline.start), self._timeline.stop))

    def skip(self, position: int) -> None:
        """Read up to a position without keeping what comes before."""
        while self._timeline.stop < min(position, self._samples):
            self._timeline.add(self._timeline.stop, next(self._blocks))
            self.forget(position)


class _Timeline:
    """A stretch of samples that grows at its end and is taken from its beginning."""

    def __init__(self, shape: tuple[int, ...], start: int) -> None:
        self.shape = shape
        self.start = start
        self._data = np.zeros((*shape, 0), np.float32)

    @property
    def stop(self) -> int:
        return self.start + int(self._data.shape[-1])

    def add(self, start: int, block: FloatArray) -> None:
        offset = start - self.start
        known = min(self.stop - start, block.shape[-1])
        self._data[..., offset : offset + known] += block[..., :known]
        if known < block.shape[-1]:
            self._data = np.concatenate([self._data, block[..., known:]], axis=-1)

    def peek(self, positions: range) -> FloatArray:
        return self._data[..., positions.start - self.start : positions.stop - self.start]

    def take(self, stop: int) -> FloatArray:
        taken = self.peek(range(self.start, stop)).copy()
        self.forget(stop)
        return taken

    def forget(self, stop: int) -> None:
        # A copy, which does not keep the memory of what is forgotten alive.
        self._data = self._data[..., stop - self.start :].copy()
        self.start = stop


class _Pass:
    """One pass of one network over the recording: what it still has to do and has finished."""

    def __init__(
        self,
        plan: ChunkPlan,
        member: int,
        start: int,
        shape: tuple[int, ...],
        begin: int,
        batch_size: int,
    ) -> None:
        self.plan = plan
        self.member = member
        self._batch_size = batch_size
        self._todo = plan.chunks(start, begin, batch_size)
        self.next: Chunk | None = next(self._todo, None)
        self.finished = plan.samples if self.next is None else self.next.start
        self._sum = _Timeline(shape, self.finished)
        self._weight = _Timeline((), self.finished)

    def take_batch(self) -> list[Chunk]:
        """Take the chunks of the next call of the network: at most a batch, all of one length."""
        batch: list[Chunk] = []
        while self.next is not None and len(batch) < self._batch_size:
            length = self.next.input_stop - self.next.input_start
            if batch and length != batch[0].input_stop - batch[0].input_start:
                break
            batch.append(self.next)
            self.next = next(self._todo, None)
        return batch

    def add(self, chunk: Chunk, estimate: FloatArray) -> None:
        offset = chunk.start - chunk.input_start
        weight = self.plan.window[: chunk.samples]
        self._sum.add(chunk.start, estimate[..., offset : offset + chunk.samples] * weight)
        self._weight.add(chunk.start, weight)

    def take_finished(self) -> tuple[int, FloatArray]:
        """Hand out the samples that no later chunk of this pass reaches."""
        start = self.finished
        self.finished = self.plan.samples if self.next is None else self.next.start
        ready = range(start, self.finished)
        finished = self._sum.peek(ready) / self._weight.peek(ready)
        self._sum.forget(self.finished)
        self._weight.forget(self.finished)
        return start, finished


def overlap_add(
    mixture: MixtureWindow,
    plans: Sequence[ChunkPlan],
    estimate: Callable[[int, FloatArray], FloatArray],
    *,
    gains: FloatArray,
    channels: int,
    batch_size: int = 1,
    begin: int = 0,
    on_calls: Callable[[int, int], None] | None = None,
) -> Generator[tuple[int, FloatArray]]:
    """Run the plans of all members of a bag side by side and yield the finished samples in order.

    Members and time shifts advance together, so that only about a segment of each is held.
    Closing the generator cancels: nothing runs ahead of what was asked for.
    """
    shape = (gains.shape[1], channels)
    passes = [
        _Pass(plan, member, start, shape, begin, batch_size)
        for member, plan in enumerate(plans)
        for start in plan.starts
    ]
    result = _Timeline(shape, begin)
    mixture.skip(_needed_from(passes))
    while waiting := [running for running in passes if running.next is not None]:
        # The pass that is furthest behind decides how much can be handed out.
        behind = min(waiting, key=lambda running: running.finished)
        batch = behind.take_batch()
        inputs = np.stack([mixture.read(chunk.input_start, chunk.input_stop) for chunk in batch])
        for chunk, stems in zip(batch, estimate(behind.member, inputs), strict=True):
            behind.add(chunk, stems)
        del inputs, stems
        start, finished = behind.take_finished()
        start, finished = max(start, begin), finished[..., max(begin - start, 0) :]
        mixture.forget(_needed_from(passes))
        done = min(running.finished for running in passes)
        if on_calls is not None:
            on_calls(len(batch), max(done, begin))
        if len(passes) > 1:
            finished *= (gains[behind.member] / np.float32(len(behind.plan.starts)))[:, None, None]
            result.add(start, finished)
            start, finished = result.start, result.take(max(done, result.start))
        if finished.shape[-1]:
            yield start, finished
        del finished  # Nothing large lives on while the next call runs.


def _needed_from(passes: Sequence[_Pass]) -> int:
    """Position before which no chunk reads the mixture any more."""
    # The last chunk of a pass is centred in its input: it may look back almost one input.
    return min(
        (
            running.next.start - (running.plan.input_samples or 0)
            for running in passes
            if running.next is not None
        ),
        default=0,
    )
