"""Plan how a network goes through a recording: segments, hop, window and passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

import numpy as np
import numpy.typing as npt

from stemlab._checks import check_seconds, is_number
from stemlab._defaults import DEFAULT_OVERLAP
from stemlab.errors import ParameterError

FloatArray = npt.NDArray[np.float32]

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
    """Refuse a segment of no length, or of more than an hour."""
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
    """Make the crossfade weights of overlap-add: a triangle that rises to 1, as in Demucs."""
    half = samples // 2
    rise = np.arange(1, half + 1, dtype=np.float32)
    fall = np.arange(samples - half, 0, -1, dtype=np.float32)
    window: FloatArray = np.divide(np.concatenate([rise, fall]), samples - half, dtype=np.float32)
    return window


@dataclass(frozen=True)
class Chunk:
    """What the network estimates and reads in one call: half-open ranges of samples."""

    start: int  # Negative where a time shift begins before the recording.
    stop: int
    # What is read: the segment and its context. It may reach beyond the recording.
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
