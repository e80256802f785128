"""The base of the panels that say what a separation costs while its settings change."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from html import escape

import ipywidgets
import traitlets

from stemlab._typing import StrPath
from stemlab.audio import resampled_length
from stemlab.chunking import ChunkPlan
from stemlab.cost import CostModel, calibrate, duration
from stemlab.errors import AudioError, StemlabError
from stemlab.networks.devices import available_devices
from stemlab.separation import AudioStemSeparator, SeparationSettings
from stemlab.widgets._choosers import ModelChooser
from stemlab.widgets._fields import checkbox, dropdown, indented
from stemlab.widgets._work import Result, WorkPanel

_CLOSING_SECONDS = 60.0


class CostedPanel(WorkPanel[Result]):
    """A panel with a model, a device and the cost of a separation with them.

    The speed of this machine is measured once, in the background.
    """

    model = traitlets.Unicode()
    device = traitlets.Unicode("auto")
    pad_to_training_segment = traitlets.Bool(True)
    cost = traitlets.Unicode()

    def __init__(self, model: StrPath) -> None:
        super().__init__()
        # None for a model that cannot be calibrated.
        self._cost_models: dict[tuple[str | None, str], CostModel | None] = {}
        self._calibrating = threading.Lock()
        self._calibration: threading.Thread | None = None
        self._models = ModelChooser(model)
        traitlets.link((self._models, "model"), (self, "model"))
        devices = dropdown("Device", ["auto", *available_devices()])
        padding = checkbox("Pad short segments to the training length")
        self._devices = self._bind("device", devices)
        self._padding = self._bind("pad_to_training_segment", padding)
        self._costs = indented(ipywidgets.HTML())
        traitlets.dlink(
            (self, "cost"),
            (self._costs, "value"),
            lambda cost: f'<small role="status">{escape(cost)}</small>',
        )

    def close(self) -> None:
        """Stop the work, wait for a calibration to end, and take the panel off the page."""
        super().close()
        if self._calibration is not None:
            self._calibration.join(_CLOSING_SECONDS)

    def _chosen(self) -> tuple[tuple[int, int], SeparationSettings]:
        """Samples and sample rate of the recording, and the settings."""
        raise NotImplementedError

    @traitlets.validate("device")
    def _check_device(self, proposal: traitlets.Bunch) -> str:
        AudioStemSeparator(self.model, device=str(proposal.value))
        return str(proposal.value)

    def _tell_cost(self, *, measure: bool = False) -> None:
        try:
            # Not during a run: each would slow the other down.
            self.cost = self._describe_cost(measure and self.state != "running")
        except StemlabError as error:
            # The run reports a song that cannot be opened. While a path is typed, that is usual.
            self.cost = "" if isinstance(error, AudioError) else str(error)

    def _describe_cost(self, measure: bool) -> str:
        separator = AudioStemSeparator(self.model, device=self.device)
        (samples, rate), settings = self._chosen()
        plans = separator.plan(resampled_length(samples, rate, separator.sample_rate), settings)
        parts = [_describe(plans, samples / rate)]
        key = _key(separator)
        model = self._cost_models.get(key)
        if model is not None:
            cost = model.estimate(plans)
            memory = cost.peak_memory_bytes
            parts.append(
                f"About {duration(cost.seconds)} (RTF {cost.rtf:.2g})"
                + ("." if memory is None else f", {memory / 1e6:.0f} MB of memory.")
            )
        elif measure and key not in self._cost_models:
            parts.append("Measuring the speed of this machine…")
            self._calibrate_in_background(separator)
        return " ".join([*parts, *dict.fromkeys(note for plan in plans for note in plan.notes)])

    def _calibrated(self, separator: AudioStemSeparator) -> CostModel:
        """Calibrate the model here, or wait if that is going on: two at once disturb each other."""
        key = _key(separator)
        with self._calibrating:
            model = self._cost_models.get(key)
            if model is None:
                model = self._cost_models[key] = calibrate(separator)
        return model

    def _calibrate_in_background(self, separator: AudioStemSeparator) -> None:
        if self._calibration is not None and self._calibration.is_alive():
            return

        def work() -> None:
            try:
                self._calibrated(separator)
            except StemlabError:
                pass  # The run itself will report what is wrong with the model.
            except RuntimeError:
                if threading.main_thread().is_alive():
                    raise
                return  # Python is shutting down and starts no more threads.
            self._cost_models.setdefault(_key(separator), None)
            if not self._closed:
                self._tell_cost()

        # Not a daemon: it takes a call or two of the network, for which Python can wait at exit.
        self._calibration = threading.Thread(target=work, name="stemlab-calibration")
        self._calibration.start()


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
