"""Cut a recording into overlapping segments and add the results together again.

The arithmetic is that of ``demucs.apply.apply_model``: a triangular window, a hop that is a
fraction of the segment, and a sum that is divided by the summed window. Here it runs block by
block, so that memory depends on the segment and not on the recording. No network is needed:
every function takes and returns NumPy arrays.

Positions are in samples at the model's rate; ranges are half-open; position 0 is the first
sample of the recording.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from stemlab._checks import check_seconds, is_number
from stemlab._typing import AudioArray
from stemlab.errors import ParameterError

__all__ = [
    "DEFAULT_OVERLAP",
    "Chunk",
    "ChunkPlan",
    "MixtureWindow",
    "check_overlap",
    "check_segment_seconds",
    "overlap_add",
    "samples_in",
    "triangular_window",
]

FloatArray = npt.NDArray[np.float32]

DEFAULT_OVERLAP = 0.25
# No network takes nearly as much at once; the crossfade of such a segment fits into memory.
_LONGEST_SEGMENT_SECONDS = 3600


def check_overlap(overlap: float) -> None:
    """Refuse an overlap outside [0, 1)."""
    if not is_number(overlap) or not 0 <= overlap < 1:
        raise ParameterError(
            f"overlap={overlap!r} is not a fraction in [0, 1). Pass 0 for no overlap, or for "
            f"instance {DEFAULT_OVERLAP}, the default; a run takes 1 / (1 - overlap) times as long "
            "as without."
        )


def check_segment_seconds(segment_seconds: float | Fraction) -> float | Fraction:
    """Refuse a segment that is not longer than nothing, or longer than an hour."""
    return check_seconds(
        "segment_seconds",
        segment_seconds,
        above=True,
        most=_LONGEST_SEGMENT_SECONDS,
        advice="Leave it out for the model's own segment.",
    )


def samples_in(seconds: float | Fraction, sample_rate: int) -> int:
    """Convert a duration to whole samples, rounded down as Demucs does."""
    return int(sample_rate * seconds)


def triangular_window(samples: int) -> FloatArray:
    """Make the crossfade weights of overlap-add.

    References
    ----------
    A. Défossez, "Hybrid Spectrogram and Waveform Source Separation", 2021,
    doi:10.48550/arXiv.2111.03600: the window that its software, Demucs, applies.

    Examples
    --------
    >>> triangular_window(5).tolist()
    [0.3333333432674408, 0.6666666865348816, 1.0, 0.6666666865348816, 0.3333333432674408]
    """
    half = samples // 2
    rise = np.arange(1, half + 1, dtype=np.float32)
    fall = np.arange(samples - half, 0, -1, dtype=np.float32)
    window: FloatArray = np.divide(np.concatenate([rise, fall]), samples - half, dtype=np.float32)
    return window


@dataclass(frozen=True)
class Chunk:
    """One call of the network."""

    start: int
    stop: int
    input_start: int
    input_stop: int

    @property
    def samples(self) -> int:
        """Number of samples estimated."""
        return self.stop - self.start


@dataclass(frozen=True)
class ChunkPlan:
    """How one network goes through one recording; made and looked at without running it.

    Parameters
    ----------
    samples : int, >= 1
        Length of the recording at `sample_rate`.
    sample_rate : int, in Hz
        Rate of the model.
    segment_seconds : float or Fraction, in (0, 3600]
        Length of a segment.
    overlap : float, in [0, 1)
        Fraction of a segment shared with the next.
    input_samples : int or None
        Every chunk is extended to this length by its real neighbours, centred; None gives each
        chunk as it is. At least a segment.
    network_samples : int or None
        Zeros are added on the right up to this length before the network computes (the training
        length of an HTDemucs); None adds none. At least `input_samples`.
    starts : tuple of int, each <= 0
        Where the first chunk starts, one per pass over the recording. Without time shifts there
        is one pass from 0; each random shift is a pass from an earlier start.
    skip_covered_tail : bool
        Leave out chunks at the end whose samples the one before them estimates, too. That changes
        the last moments a little, and saves a call.
    name : str
        Which network of a bag the plan is for; empty for a single network.
    notes : tuple of str
        What the user should know of this plan, in sentences.

    Raises
    ------
    ParameterError
        If a value is outside its range, or the hop would be under one sample.

    Examples
    --------
    >>> plan = ChunkPlan(samples=20 * 44_100, sample_rate=44_100, segment_seconds=8, overlap=0.25)
    >>> plan.segment_samples, plan.hop_samples, plan.calls
    (352800, 264600, 4)
    >>> f"{plan.wasted_share:.2f}"
    '0.23'
    """

    samples: int
    sample_rate: int
    segment_seconds: float | Fraction
    overlap: float = DEFAULT_OVERLAP
    input_samples: int | None = None
    network_samples: int | None = None
    starts: tuple[int, ...] = (0,)
    skip_covered_tail: bool = False
    name: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ParameterError(
                f"samples={self.samples} is empty. A plan needs at least 1 sample."
            )
        segment_seconds = check_segment_seconds(self.segment_seconds)
        object.__setattr__(self, "segment_seconds", segment_seconds)
        check_overlap(self.overlap)
        object.__setattr__(self, "overlap", float(self.overlap))
        if self.segment_samples < 1:
            raise ParameterError(
                f"segment_seconds={float(self.segment_seconds):g} is shorter than one sample at "
                f"{self.sample_rate} Hz. Pass a longer segment."
            )
        if self.hop_samples < 1:
            raise ParameterError(
                f"overlap={self.overlap!r} leaves a hop of no sample between segments of "
                f"{self.segment_samples} samples. Pass a smaller overlap or a longer segment."
            )
        assert self.input_samples is None or self.input_samples >= self.segment_samples
        assert self.network_samples is None or (
            self.network_samples >= (self.input_samples or self.segment_samples)
        )
        assert self.starts and all(start <= 0 for start in self.starts)

    @property
    def segment_samples(self) -> int:
        """Length of a segment in samples."""
        return samples_in(self.segment_seconds, self.sample_rate)

    @property
    def hop_samples(self) -> int:
        """Samples between the starts of two segments."""
        return int((1 - self.overlap) * self.segment_samples)

    @cached_property
    def window(self) -> FloatArray:
        """Crossfade weights, shape (segment_samples,), float32, in (0, 1]."""
        return triangular_window(self.segment_samples)

    @property
    def shifts(self) -> int:
        """Number of random time shifts averaged; 0 without."""
        return 0 if self.starts == (0,) else len(self.starts)

    @property
    def calls(self) -> int:
        """How often the network runs, over all passes."""
        return sum(self._chunk_count(start) for start in self.starts)

    def calls_from(self, begin: int, batch_size: int = 1) -> int:
        """How often the network runs for the samples from some position on.

        Parameters
        ----------
        begin : int, >= 0
        batch_size : int, >= 1, default 1
            See `chunks`.

        Returns
        -------
        calls : int
            `calls` for 0.
        """
        counts = ((start, self._chunk_count(start)) for start in self.starts)
        return sum(count - self._first(start, begin, batch_size) for start, count in counts)

    @property
    def covered_samples(self) -> int:
        """Samples in all chunks together, overlaps counted as often as they are computed."""
        return sum(self._covered(start) for start in self.starts)

    @property
    def computed_samples(self) -> int:
        """Samples that the network computes in all its calls, padding and context included."""
        length = self.network_samples or self.input_samples
        return self.covered_samples if length is None else self.calls * length

    @property
    def overlap_share(self) -> float:
        """Share of `computed_samples` that an earlier chunk of the same pass estimated too."""
        passed = sum(self.samples - start for start in self.starts)
        return (self.covered_samples - passed) / self.computed_samples

    @property
    def padding_share(self) -> float:
        """Share of `computed_samples` that is cropped: context, zeros, room for time shifts."""
        shifted = sum(-start for start in self.starts)
        return (self.computed_samples - self.covered_samples + shifted) / self.computed_samples

    @property
    def wasted_share(self) -> float:
        """`overlap_share` plus `padding_share`: in [0, 1), 0 if each sample is computed once."""
        return self.overlap_share + self.padding_share

    def chunks(self, start: int = 0, begin: int = 0, batch_size: int = 1) -> Iterator[Chunk]:
        """List the chunks of the pass that begins at `start`, in order.

        Parameters
        ----------
        start : int, <= 0
            One of `starts`.
        begin : int, >= 0, default 0
            Position before which nothing is wanted: chunks that end there are left out.
        batch_size : int, >= 1, default 1
            Whole batches are kept, counted from the start of the pass: the first chunk is one with
            which a batch begins in a run from 0, too.

        Yields
        ------
        chunk : Chunk
        """
        for number in range(self._first(start, begin, batch_size), self._chunk_count(start)):
            position = start + number * self.hop_samples
            stop = min(position + self.segment_samples, self.samples)
            missing = max((self.input_samples or 0) - (stop - position), 0)
            input_start = position - missing // 2
            yield Chunk(position, stop, input_start, input_start + missing + stop - position)

    @cached_property
    def boundaries(self) -> npt.NDArray[np.int64]:
        """Where chunks begin and end inside the recording, shape (boundaries,), in order.

        Of all passes, each position once; empty where one chunk holds the whole recording.
        """
        edges = [edge for start in self.starts for edge in self._edges(start)]
        found = np.unique(np.array(edges, np.int64))
        return found[(found > 0) & (found < self.samples)]

    def _edges(self, start: int) -> Iterator[int]:
        for chunk in self.chunks(start):
            yield chunk.start
            yield chunk.stop

    def _chunk_count(self, start: int) -> int:
        length = self.samples - start
        if self.skip_covered_tail:  # The first chunk that reaches the end is the last.
            return 1 - (-max(length - self.segment_samples, 0) // self.hop_samples)
        return -(-length // self.hop_samples)

    def _first(self, start: int, begin: int, batch_size: int) -> int:
        """Number of the first chunk that is needed for the samples from `begin` on."""
        if begin >= self.samples:
            return self._chunk_count(start)
        ended = (begin - self.segment_samples - start) // self.hop_samples + 1 if begin else 0
        return max(ended, 0) // batch_size * batch_size

    def _covered(self, start: int) -> int:
        # All chunks are whole but those that reach over the end.
        count = self._chunk_count(start)
        first_cut = max(-(-(self.samples - self.segment_samples - start) // self.hop_samples), 0)
        cut = range(min(first_cut, count), count)
        starts_of_cut = len(cut) * start + self.hop_samples * sum(cut)
        return len(cut) * self.samples - starts_of_cut + (count - len(cut)) * self.segment_samples


class MixtureWindow:
    """The part of the recording that chunks still need, read from a stream of blocks."""

    def __init__(self, blocks: Iterable[AudioArray], channels: int, samples: int) -> None:
        self._blocks = iter(blocks)
        self._timeline = _Timeline((channels,), 0)
        self._samples = samples

    def read(self, start: int, stop: int) -> AudioArray:
        """Copy a range, with zeros outside the recording."""
        first, last = (min(max(each, 0), self._samples) for each in (start, stop))
        inside = range(first, last)
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
    """A growing stretch of samples that is added to at one end and taken from at the other."""

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
        """Remove the next chunks from what is to do: as many as fit one call of the network."""
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
    while waiting := [each for each in passes if each.next is not None]:
        # The pass that is furthest behind decides how much can be handed out.
        behind = min(waiting, key=lambda each: each.finished)
        batch = behind.take_batch()
        inputs = np.stack([mixture.read(each.input_start, each.input_stop) for each in batch])
        for chunk, stems in zip(batch, estimate(behind.member, inputs), strict=True):
            behind.add(chunk, stems)
        del inputs, stems
        start, finished = behind.take_finished()
        start, finished = max(start, begin), finished[..., max(begin - start, 0) :]
        mixture.forget(_needed_from(passes))
        done = min(each.finished for each in passes)
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
    """Sample of the mixture before which no chunk looks any more."""
    # The last chunk of a pass is centred in its input: it may look back almost one input.
    return min(
        (
            each.next.start - (each.plan.input_samples or 0)
            for each in passes
            if each.next is not None
        ),
        default=0,
    )
