"""What a separation would cost, in words, while settings change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from stemlab.audio import resampled_length
from stemlab.chunking import ChunkPlan
from stemlab.cost import CostModel, calibrate, duration
from stemlab.errors import StemlabError
from stemlab.separation import AudioStemSeparator, SeparationSettings

__all__ = ["CostTeller"]

_CLOSING_SECONDS = 60.0


class CostTeller:
    """Tells what settings cost; how fast this machine is, it finds out in the background, once."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._models: dict[tuple[str | None, str], CostModel | None] = {}
        self._calibrating = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def tell(
        self,
        separator: AudioStemSeparator,
        length: tuple[int, int],
        settings: SeparationSettings,
        *,
        measure: bool,
    ) -> str:
        """Put the plan of a separation and its cost into words."""
        samples, rate = length
        plans = separator.plan(resampled_length(samples, rate, separator.sample_rate), settings)
        parts = [_work(plans, samples / rate)]
        key = _key(separator)
        model = self._models.get(key)
        if model is not None:
            cost = model.estimate(plans)
            memory = cost.peak_memory_bytes
            parts.append(
                f"About {duration(cost.seconds)} (RTF {cost.rtf:.2g})"
                + ("" if memory is None else f", {memory / 1e6:.0f} MB of memory")
                + "."
            )
        elif measure and key not in self._models:
            parts.append("Finding out how fast this machine is…")
            self._measure(separator)
        return " ".join([*parts, *dict.fromkeys(note for each in plans for note in each.notes)])

    def calibrated(self, separator: AudioStemSeparator) -> CostModel:
        """Find out how fast this machine is, or wait for it if that is going on: two would disturb
        each other.
        """
        key = _key(separator)
        with self._calibrating:
            model = self._models.get(key)
            if model is None:
                model = self._models[key] = calibrate(separator)
        return model

    def close(self) -> None:
        """Wait for what is being measured."""
        self._closed = True
        if self._thread is not None:
            self._thread.join(_CLOSING_SECONDS)

    def _measure(self, separator: AudioStemSeparator) -> None:
        if self._thread is not None and self._thread.is_alive():
            return

        def work() -> None:
            try:
                self.calibrated(separator)
            except StemlabError:
                pass  # The run itself will say what is wrong with the model.
            except RuntimeError:
                if threading.main_thread().is_alive():
                    raise
                return  # Python ends, and lends no threads any more.
            self._models.setdefault(_key(separator), None)
            if not self._closed:
                self._changed()

        # Takes a call or two of the network: Python may wait for it at its end.
        self._thread = threading.Thread(target=work, name="stemlab-calibration")
        self._thread.start()


def _key(separator: AudioStemSeparator) -> tuple[str | None, str]:
    return separator.resolved_request, separator.device


def _work(plans: Sequence[ChunkPlan], seconds: float) -> str:
    calls = sum(each.calls for each in plans)
    computed = sum(each.computed_samples / each.sample_rate for each in plans)
    shares = [f"{max(each.overlap_share for each in plans):.0%} of it overlap"]
    padding = max(each.padding_share for each in plans)
    if padding >= 0.005:
        shares.append(f"{padding:.0%} padding and context")
    return (
        f"{calls} call{'s' * (calls != 1)} of the network, which compute "
        f"{computed / seconds:.2g} times the song: {', '.join(shares)}."
    )
