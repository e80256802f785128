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
    """Describes what settings cost, and measures the speed of this machine in the background."""

    def __init__(self, changed: Callable[[], None]) -> None:
        self._changed = changed
        self._models: dict[tuple[str | None, str], CostModel | None] = {}
        self._calibrating = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False

    def tell(
        self,
        separator: AudioStemSeparator,
        length: tuple[int, int],  # samples and sample rate
        settings: SeparationSettings,
        *,
        measure: bool,
    ) -> str:
        """Describe the plan of a separation and its cost."""
        samples, rate = length
        plans = separator.plan(resampled_length(samples, rate, separator.sample_rate), settings)
        parts = [_describe(plans, samples / rate)]
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
            parts.append("Measuring the speed of this machine…")
            self._measure(separator)
        return " ".join([*parts, *dict.fromkeys(note for plan in plans for note in plan.notes)])

    def calibrated(self, separator: AudioStemSeparator) -> CostModel:
        """Calibrate the model here, or wait if that is going on: two at once disturb each other."""
        key = _key(separator)
        with self._calibrating:
            model = self._models.get(key)
            if model is None:
                model = self._models[key] = calibrate(separator)
        return model

    def close(self) -> None:
        """Wait for the measurement to end."""
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
                pass  # The run itself will report what is wrong with the model.
            except RuntimeError:
                if threading.main_thread().is_alive():
                    raise
                return  # Python is shutting down and starts no more threads.
            self._models.setdefault(_key(separator), None)
            if not self._closed:
                self._changed()

        # Not a daemon: it takes a call or two of the network, for which Python can wait at exit.
        self._thread = threading.Thread(target=work, name="stemlab-calibration")
        self._thread.start()


def _key(separator: AudioStemSeparator) -> tuple[str | None, str]:
    return separator.resolved_request, separator.device


def _describe(plans: Sequence[ChunkPlan], seconds: float) -> str:
    calls = sum(plan.calls for plan in plans)
    computed = sum(plan.computed_samples / plan.sample_rate for plan in plans)
    shares = [f"{max(plan.overlap_share for plan in plans):.0%} of that is overlap"]
    padding = max(plan.padding_share for plan in plans)
    if padding >= 0.005:
        shares.append(f"{padding:.0%} is padding and context")
    return (
        f"The network runs {calls} time{'s' * (calls != 1)} and processes {computed / seconds:.2g} "
        f"times the length of the song; {', '.join(shares)}."
    )
