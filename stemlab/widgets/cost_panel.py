"""Predict what a separation costs on this machine, and compare with a real run."""

from __future__ import annotations

from dataclasses import dataclass

import ipywidgets
import traitlets

from stemlab.cost import CostEstimate
from stemlab.errors import SeparationError
from stemlab.separation import AudioStemSeparator, SeparationSettings
from stemlab.sweeps import plan_sweep
from stemlab.widgets._choosers import demo_song
from stemlab.widgets._cost import CostedPanel
from stemlab.widgets._fields import button, dropdown, field, table

_LENGTHS = {
    **{"10 s": 10, "1 min": 60, "4 min": 240, "10 min": 600},
    **{"1 h": 3600, "3 h": 10_800, "8 h": 28_800},
}
_SEGMENT_SHARES = (1.0, 0.5, 0.25)
_OVERLAPS = (0.0, 0.1, 0.25, 0.5, 0.75)
_EXCERPT_SECONDS = 15.0


@dataclass(frozen=True)
class MeasuredCost:
    """Predicted and measured cost of a setting."""

    setting: str
    predicted: CostEstimate
    seconds: float
    peak_memory_bytes: int | None


class CostPanel(CostedPanel[MeasuredCost]):
    """Choose settings and a length, read the predicted cost, and compare with a real run.

    The real run separates 15 s of the demo song, in a process of its own.

    Attributes
    ----------
    model, device : str
    length_seconds : int
        Length of the recording, one of those that the panel offers.
    segment_share : {1.0, 0.5, 0.25}
        Of the model's default segment.
    overlap : {0.0, 0.1, 0.25, 0.5, 0.75}
    pad_to_training_segment : bool
        See `SeparationSettings`. Like those above, it can be set.
    cost : str
        The prediction in words.
    measured : tuple of MeasuredCost
        All measurements so far.
    state, message, error
        As in `SeparationPanel`.

    Examples
    --------
    >>> panel = CostPanel()
    >>> panel.length_seconds = 60
    >>> panel
    CostPanel(model='stemlab-mini', length_seconds=60, segment_share=1, overlap=0.25)
    """

    length_seconds = traitlets.Enum(list(_LENGTHS.values()), 240)
    segment_share = traitlets.Enum(_SEGMENT_SHARES, 1.0)
    overlap = traitlets.Enum(_OVERLAPS, 0.25)
    measured = traitlets.Tuple()

    _in_repr = ("model", "length_seconds", "segment_share", "overlap")

    def __init__(self) -> None:
        super().__init__("stemlab-mini")
        self.message = "Press Measure to compare this with a real run."
        self._segments = dropdown("Segment", self._offered_segments())
        length = field(
            ipywidgets.SelectionSlider, "Recording", options=list(_LENGTHS.items()), value=240
        )
        measure = f"Separate {_EXCERPT_SECONDS:g} s of the demo song with these settings"
        self.children = [
            self._models,
            self._devices,
            self._bind("length_seconds", length),
            self._bind("segment_share", self._segments),
            self._bind("overlap", dropdown("Overlap", _OVERLAPS)),
            self._padding,
            self._costs,
            self._controls(
                button("Measure", measure, self.measure, "primary"), cancel_tooltip="Stop the run"
            ),
            self._results,
        ]
        self.observe(self._rename_segments, "model")
        deciding = "model device length_seconds segment_share overlap pad_to_training_segment"
        self.observe(lambda _: self._tell_cost(measure=True), deciding.split())
        self._tell_cost(measure=True)

    def measure(self) -> None:
        """Start to measure what is chosen now, unless that is going on; does not wait.

        `wait` then returns a `MeasuredCost`.
        """
        separator = AudioStemSeparator(self.model, device=self.device)
        _, settings = self._chosen()
        self._start(lambda _: self._measure(separator, settings), "Calibrating.")

    def _chosen(self) -> tuple[tuple[int, int], SeparationSettings]:
        rate = self._models.manifest.sample_rate
        settings = SeparationSettings(
            segment_seconds=self._models.segment_seconds * self.segment_share,
            overlap=self.overlap,
            pad_to_training_segment=self.pad_to_training_segment,
        )
        return (self.length_seconds * rate, rate), settings

    def _measure(self, separator: AudioStemSeparator, settings: SeparationSettings) -> MeasuredCost:
        model = self._calibrated(separator)
        self._check_stop()
        assert settings.segment_seconds is not None
        sweep = plan_sweep(
            demo_song(),
            separator.resolved_request or separator.name,
            segments=[settings.segment_seconds],
            overlaps=[settings.overlap],
            padded=[settings.pad_to_training_segment],
            excerpt_seconds=_EXCERPT_SECONDS,
            memory=True,
            agreement=False,
            device=separator.device,
            store=False,
        )
        (setting,) = sweep.settings
        self.message = "Running this setting in a process of its own."
        row = sweep.run(progress=lambda event: self._report(event.share)).iloc[0]
        if row["error"]:
            raise SeparationError(f"the setting failed: {row['error']}")
        peak = row["peak_memory_bytes"]
        found = MeasuredCost(
            str(setting),
            model.estimate(sweep.plans(setting)),
            float(row["wall_seconds"]),
            None if peak != peak else int(peak),
        )
        self.measured = (*self.measured, found)
        self._show_results(
            table(
                f"{_EXCERPT_SECONDS:g} s of the demo song",
                [
                    *("setting", "predicted time", "measured time", "ratio"),
                    *("predicted memory", "measured memory", "ratio"),
                ],
                map(_cells, self.measured),
            )
        )
        self.message = "Measured."
        return found

    def _offered_segments(self) -> list[tuple[str, float]]:
        own = self._models.segment_seconds
        return [
            (f"{own * share:g} s" + (" (default)" if share == 1 else ""), share)
            for share in _SEGMENT_SHARES
        ]

    def _rename_segments(self, _: object) -> None:
        share = self.segment_share  # New options choose the first.
        self._segments.options = self._offered_segments()
        self.segment_share = share


def _cells(cost: MeasuredCost) -> list[str]:
    predicted, peak = cost.predicted.peak_memory_bytes, cost.peak_memory_bytes
    return [
        cost.setting,
        f"{cost.predicted.seconds:.2f} s",
        f"{cost.seconds:.2f} s",
        f"{cost.seconds / cost.predicted.seconds:.2f}",
        "unknown" if predicted is None else f"{predicted / 1e6:.0f} MB",
        "unknown" if peak is None else f"{peak / 1e6:.0f} MB",
        "–" if predicted is None or peak is None else f"{peak / predicted:.2f}",
    ]
