"""What a separation will cost, from its plan: calls, time and peak memory, without running it.

The time of a call depends on the length that the network computes, in a way that is a property of
the architecture; how fast this machine is follows from two short calls (`calibrate`). Memory is a
property of the architecture alone. Both were fitted to measurements, which are in
``assets/costs.json`` with the machine they come from and the error that was found on other
settings; ``benchmarks/costs.py`` makes that file.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stemlab.chunking import ChunkPlan, samples_in
from stemlab.errors import OutputError, ParameterError
from stemlab.files import Folder, cache_dir, parse_json, write_atomically
from stemlab.networks.identity import digest_of
from stemlab.separation import AudioStemSeparator, SeparationSettings

# A machine is calibrated with calls of two lengths: the network's own segment, at most this long,
# and a quarter of it.
_LONGEST_CALIBRATION_SECONDS = 8.0
# Short calls are measured several at a time.
_MOST_CALLS, _ENOUGH_SECONDS = 6, 2.0
# Bytes of a sample, and copies of a block that a sum of two holds for a moment.
_BYTES, _COPIES = 4, 2
_MOST_BYTES = 1_000_000  # Of the file of calibrations that is read.
_CALIBRATIONS = "calibrations.json"
_LONG_SECONDS = 600  # Longer than any segment: from there on, memory does not depend on it.


@dataclass(frozen=True)
class CostEstimate:
    """What a separation will cost.

    Parameters
    ----------
    calls : int
        Of the networks.
    seconds : float
        Processing time, with the model loaded; reading and writing files is not counted.
    rtf : float
        The same per second of audio.
    peak_memory_bytes : int or None
        Of a process that does nothing else, Python and PyTorch included. It does not depend on
        the length of the recording. None where it is not known: on other devices than the CPU.
    """

    calls: int
    seconds: float
    rtf: float
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class CostModel:
    """How the cost of one model on one machine follows from a plan.

    Parameters
    ----------
    model : str
    device : str
    batch_size : int
    sources : int
    shape : str
        Whose measurements were taken for the architecture.
    call : tuple of float
        Seconds of a call that computes x seconds of audio, where the shape was measured:
        a + b x + c x².
    lengths : tuple of float, in s
        At which this machine was calibrated.
    factors : tuple of float
        How many times as long a call took here, at these lengths.
    memory : tuple of float or None
        Bytes of a process that computes x seconds at a time: a + b x + c x². None where it is not
        known.
    together : bool
        Whether the segments of a call are computed side by side, not one after the other.
    time_error, memory_error : float
        Largest relative error that was found when the model was checked, on the machine of the
        measurements.
    """

    model: str
    device: str
    batch_size: int
    sources: int
    shape: str
    call: tuple[float, ...]
    lengths: tuple[float, ...]
    factors: tuple[float, ...]
    memory: tuple[float, ...] | None
    together: bool
    time_error: float
    memory_error: float

    def estimate(self, plans: Sequence[ChunkPlan]) -> CostEstimate:
        """Estimate what a separation will cost; takes no time itself.

        Parameters
        ----------
        plans : sequence of ChunkPlan
            Of one recording, one per network, as `AudioStemSeparator.plan` gives them.

        Returns
        -------
        estimate : CostEstimate

        Raises
        ------
        ParameterError
            If there are no plans.
        """
        if not plans:
            raise ParameterError("plans is empty. Pass what AudioStemSeparator.plan returned.")
        seconds = sum(self._seconds(plan) for plan in plans)
        return CostEstimate(
            calls=sum(plan.calls for plan in plans),
            seconds=seconds,
            rtf=seconds * plans[0].sample_rate / plans[0].samples,
            peak_memory_bytes=self._peak(plans),
        )

    def _seconds(self, plan: ChunkPlan) -> float:
        length, computed = call_seconds(plan), plan.computed_samples / plan.sample_rate
        fixed, linear, square = self.call
        factor = float(np.interp(length, self.lengths, self.factors))
        return factor * (fixed * plan.calls + (linear + square * length) * computed)

    def _peak(self, plans: Sequence[ChunkPlan]) -> int | None:
        if self.memory is None:
            return None
        fixed, linear, square = self.memory
        longest = max(map(call_seconds, plans))
        work = (self.batch_size if self.together else 1) * (linear + square * longest) * longest
        # Every pass holds about one segment of all stems; the first pass is part of the measured
        # memory. Where segments are computed one after another, each further one adds as much.
        segments = [plan.segment_samples for plan in plans for _ in plan.starts]
        others = sum(segments) - max(segments)
        if not self.together:
            others += (self.batch_size - 1) * max(segments)
        return round(fixed + work + others * self.sources * 2 * _BYTES * _COPIES)


def call_seconds(plan: ChunkPlan) -> float:
    """Return the seconds of audio that a call of a plan computes; the last may compute less."""
    length = plan.network_samples or plan.input_samples or min(plan.segment_samples, plan.samples)
    return length / plan.sample_rate


def duration(seconds: float) -> str:
    """Put a time into words."""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def calibrate(separator: AudioStemSeparator, *, fresh: bool = False) -> CostModel:
    """Find how fast a model is on this machine, from a few calls of its network.

    Takes a little longer than one segment does, once: the result is kept in the cache.

    Parameters
    ----------
    separator : AudioStemSeparator
    fresh : bool, default False
        Whether to measure again what is in the cache.

    Returns
    -------
    model : CostModel

    Raises
    ------
    ModelError, OutOfMemoryError
        If the model cannot be loaded.

    Notes
    -----
    The networks of a bag are taken to cost the same, and so are the segments of a batch. A network
    that nobody measured gets the shape of the one of its architecture that is nearest in size; its
    memory is scaled with the square root of the number of weights, as the width of the network is.
    """
    model = _uncalibrated(separator)
    return replace(model, factors=_calibration(separator, model, fresh=fresh))


def peak_bytes(separator: AudioStemSeparator, settings: SeparationSettings, batch_size: int) -> int:
    """Estimate the peak memory of a long separation on the CPU; nothing is loaded or run."""
    plans = separator.plan(_LONG_SECONDS * separator.sample_rate, settings)
    peak = replace(_uncalibrated(separator), batch_size=batch_size)._peak(plans)
    assert peak is not None
    return peak


def _uncalibrated(separator: AudioStemSeparator) -> CostModel:
    """Return the costs of a model on the machine of the measurements."""
    spec, on_cpu, error = separator.spec, separator.device == "cpu", _measured()["error"]
    size = spec.parameters / len(spec.members)
    # The network of the same shape that is nearest in size.
    shape, entry = min(
        (
            (name, entry)
            for name, entry in _measured()["shapes"].items()
            if entry["architecture"] == spec.members[0].architecture.cost_shape
        ),
        key=lambda shape: abs(math.log(shape[1]["parameters"]) - math.log(size)),
    )
    fixed, linear, square = map(float, entry["memory"])
    more_weights = _BYTES * (spec.parameters - entry["parameters"])
    width = math.sqrt(size / entry["parameters"])
    longest = min(spec.segment_seconds, _LONGEST_CALIBRATION_SECONDS)
    return CostModel(
        model=spec.name,
        device=separator.device,
        batch_size=separator.batch_size,
        sources=len(spec.sources),
        shape=shape,
        call=tuple(map(float, entry["call"])),
        lengths=(max(longest / 4, 2 * spec.min_segment_seconds), longest),
        factors=(1.0, 1.0),
        memory=(fixed + more_weights, linear * width, square * width) if on_cpu else None,
        together=not on_cpu
        or not all(member.architecture.splits_batches for member in spec.members),
        time_error=float(error["time"]["largest"]),
        memory_error=float(error["memory"]["largest"]),
    )


@cache
def _measured() -> dict[str, Any]:
    path = Path(__file__).resolve().parent / "assets" / "costs.json"
    return parse_json(path.read_bytes())


def _calibration(
    separator: AudioStemSeparator, model: CostModel, *, fresh: bool
) -> tuple[float, ...]:
    """Return how many times as long a call takes here, at each length."""
    identity, lengths = separator.identity, model.lengths
    machine = [platform.node(), platform.machine(), os.cpu_count()]
    key = digest_of({**identity, "machine": machine, "lengths": lengths})
    taken = None if fresh else _read_calibrations().get(key)
    if not (
        isinstance(taken, list)
        and len(taken) == len(lengths)
        and all(isinstance(seconds, float) and 0 < seconds < math.inf for seconds in taken)
    ):
        taken = _measure(separator, lengths)
        if identity["model"] is not None:
            _write_calibration(key, taken)
    fixed, linear, square = model.call
    return tuple(
        seconds / (fixed + linear * length + square * length**2)
        for seconds, length in zip(taken, lengths, strict=True)
    )


def _measure(separator: AudioStemSeparator, lengths: Sequence[float]) -> list[float]:
    """Return the seconds of one call at each length, the shortest first."""
    samples = samples_in(max(lengths), separator.sample_rate) * _MOST_CALLS
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, samples)).astype(np.float32)
    _time_calls(separator, noise, lengths[0], 1)  # Loads the weights, and warms up.
    times = []
    for length in lengths:
        taken = _time_calls(separator, noise, length, 1)
        # Several quick calls in one run, as every run has a fixed cost besides.
        calls = min(int(_ENOUGH_SECONDS / taken), _MOST_CALLS)
        if calls > 1:
            taken = min(taken, _time_calls(separator, noise, length, calls) / calls)
        # Each call ran all networks of a bag.
        times.append(taken / len(separator.spec.members))
    return times


def _time_calls(
    separator: AudioStemSeparator, noise: npt.NDArray[np.float32], length: float, calls: int
) -> float:
    audio = noise[:, : samples_in(length, separator.sample_rate) * calls]
    settings = SeparationSettings(length, overlap=0.0, pad_to_training_segment=False)
    started = time.perf_counter()
    separator.separate_audio(audio, separator.sample_rate, settings=settings)
    return time.perf_counter() - started


def _read_calibrations() -> dict[str, Any]:
    try:
        with Folder(cache_dir()) as folder:
            return parse_json(folder.read(_CALIBRATIONS, _MOST_BYTES))
    except (OSError, ValueError):
        return {}


def calibrations_bytes() -> int:
    """Return the size of what is stored about the speed of models on this machine."""
    with suppress(OSError), Folder(cache_dir()) as folder:
        facts = folder.stat(_CALIBRATIONS)
        if facts is not None and folder.owns(_CALIBRATIONS):
            return facts.st_size
    return 0


def clear_calibrations() -> None:
    """Forget how fast models are on this machine: they are calibrated anew."""
    if calibrations_bytes():
        with suppress(OSError), Folder(cache_dir()) as folder:
            folder.remove(_CALIBRATIONS)


def _write_calibration(key: str, taken: list[float]) -> None:
    content = json.dumps({**_read_calibrations(), key: taken}, indent=1).encode()
    with suppress(OSError, OutputError):  # If it cannot be stored, it is measured again.
        cache_dir().mkdir(parents=True, exist_ok=True)
        with Folder(cache_dir()) as folder:
            taken_by_another = folder.stat(_CALIBRATIONS) and not folder.owns(_CALIBRATIONS)
        if not taken_by_another:
            write_atomically(cache_dir() / _CALIBRATIONS, content, sync=False)
