"""Predict what a separation costs on this machine, and compare with a real run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import ipywidgets
import traitlets

from stemlab.cost import CostEstimate
from stemlab.errors import ParameterError, SeparationError
from stemlab.networks.devices import available_devices
from stemlab.separation import AudioStemSeparator, SeparationSettings
from stemlab.sweeps import SweepProgress, plan_sweep
from stemlab.widgets._choosers import ModelChooser, demo_song
from stemlab.widgets._cost import CostTeller
from stemlab.widgets._fields import button, checkbox, dropdown, field, table
from stemlab.widgets._work import WorkPanel

__all__ = ["CostPanel", "MeasuredCost"]

_LENGTHS = (
    ("10 s", 10),
    ("1 min", 60),
    ("4 min", 240),
    ("10 min", 600),
    ("1 h", 3600),
    ("3 h", 10_800),
    ("8 h", 28_800),
)
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


class CostPanel(WorkPanel):
    """Choose settings and a length, read the predicted cost, and compare with a real run.

    The real run separates 15 s of the demo song, in a process of its own.

    Attributes
    ----------
    model : str
        Can be set.
    device : str
        ``auto``, or one that this machine has; can be set.
    length_seconds : int
        Length of the recording, one of those that the panel offers; can be set.
    segment_share : {1.0, 0.5, 0.25}
        Of the model's default segment; can be set.
    overlap : {0.0, 0.1, 0.25, 0.5, 0.75}
        Can be set.
    pad_to_training_segment : bool
        See `SeparationSettings`; can be set.
    cost : str
        The prediction in words.
    measured : tuple of MeasuredCost
        All measurements so far.
    state : {"idle", "running", "done", "cancelled", "failed"}
    message : str
        Status in words.
    error : str
        Error message of the last run; empty if there was none.

    Examples
    --------
    >>> panel = CostPanel()
    >>> panel.length_seconds = 60
    >>> panel
    CostPanel(model='stemlab-mini', length_seconds=60, segment_share=1, overlap=0.25)
    """

    model = traitlets.Unicode()
    device = traitlets.Unicode("auto")
    length_seconds = traitlets.Enum([seconds for _, seconds in _LENGTHS], 240)
    segment_share = traitlets.Enum(list(_SEGMENT_SHARES), 1.0)
    overlap = traitlets.Enum(list(_OVERLAPS), 0.25)
    pad_to_training_segment = traitlets.Bool(True)
    cost = traitlets.Unicode()
    measured = traitlets.Tuple()

    _thread_name = "stemlab-cost"

    def __init__(self) -> None:
        super().__init__()
        self._models = ModelChooser("stemlab-mini")
        self._teller = CostTeller(self._tell)
        self.message = "Press Measure to compare this with a real run."
        self._build()

    def __repr__(self) -> str:
        return (
            f"CostPanel(model={self.model!r}, length_seconds={self.length_seconds}, "
            f"segment_share={self.segment_share:g}, overlap={self.overlap:g})"
        )

    def measure(self) -> None:
        """Start to measure what is chosen now, unless that is going on; does not wait.

        `wait` then returns a `MeasuredCost`.
        """
        separator, settings = self._separator(), self._settings()
        self._start(lambda: self._measure(separator, settings), "Calibrating.")

    def close(self) -> None:
        """Stop the work and take the panel off the page."""
        super().close()
        self._teller.close()

    # ------------------------------------------------------------ the work

    def _separator(self) -> AudioStemSeparator:
        return AudioStemSeparator(self.model, device=self.device)

    def _settings(self) -> SeparationSettings:
        return SeparationSettings(
            segment_seconds=self._models.segment_seconds * self.segment_share,
            overlap=self.overlap,
            pad_to_training_segment=self.pad_to_training_segment,
        )

    @traitlets.validate("device")
    def _check_device(self, proposal: traitlets.Bunch) -> str:
        AudioStemSeparator(self.model or "stemlab-mini", device=str(proposal.value))
        return str(proposal.value)

    def _measure(self, separator: AudioStemSeparator, settings: SeparationSettings) -> MeasuredCost:
        model = self._teller.calibrated(separator)
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

        def tell(event: SweepProgress) -> None:
            self._check_stop()
            self.progress = event.share

        row = sweep.run(progress=tell).iloc[0]
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
        self._show_results(_costs(self.measured))
        self.message = "Measured."
        return found

    # ------------------------------------------------------------ what is shown

    def _build(self) -> None:
        self._segments = dropdown("Segment", self._offered_segments())
        traitlets.link((self._models, "model"), (self, "model"))
        fields = {
            "device": dropdown("Device", ["auto", *available_devices()]),
            "length_seconds": field(
                ipywidgets.SelectionSlider, "Recording", options=_LENGTHS, value=240
            ),
            "segment_share": self._segments,
            "overlap": dropdown("Overlap", _OVERLAPS),
            "pad_to_training_segment": checkbox("Pad short segments to the training length"),
        }
        excerpt = f"Separate {_EXCERPT_SECONDS:g} s of the demo song"
        self.children = [
            self._models,
            *(self._bind(name, made) for name, made in fields.items()),
            self._caption("cost"),
            self._controls(
                button("Measure", f"{excerpt} with these settings", self.measure, "primary"),
                cancel_tooltip="Stop the run",
            ),
            self._status,
            self._results,
        ]
        self.observe(self._rename_segments, "model")
        self.observe(self._tell, ["model", *fields])
        self._tell()

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

    def _tell(self, _: object = None) -> None:
        try:
            separator = self._separator()
            length = self.length_seconds * separator.sample_rate, separator.sample_rate
            self.cost = self._teller.tell(separator, length, self._settings(), measure=True)
        except ParameterError as error:
            self.cost = str(error)


def _costs(measured: Sequence[MeasuredCost]) -> ipywidgets.HTML:
    heads = ["setting", "predicted time", "measured time", "ratio"]
    heads += ["predicted memory", "measured memory", "ratio"]
    rows = []
    for cost in measured:
        predicted, peak = cost.predicted.peak_memory_bytes, cost.peak_memory_bytes
        rows.append(
            [
                cost.setting,
                f"{cost.predicted.seconds:.2f} s",
                f"{cost.seconds:.2f} s",
                f"{cost.seconds / cost.predicted.seconds:.2f}",
                "unknown" if predicted is None else f"{predicted / 1e6:.0f} MB",
                "unknown" if peak is None else f"{peak / 1e6:.0f} MB",
                "–" if predicted is None or peak is None else f"{peak / predicted:.2f}",
            ]
        )
    return table(f"{_EXCERPT_SECONDS:g} s of the demo song", heads, rows)
