"""Say what a separation will cost here, and hold it against what it does cost."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import ipywidgets
import traitlets

from stemlab.cost import CostEstimate
from stemlab.errors import ParameterError, SeparationError
from stemlab.networks.devices import available_devices
from stemlab.separation import AudioStemSeparator, SeparationSettings
from stemlab.sweeps import SweepProgress, plan_sweep
from stemlab.widgets._choosers import ModelChooser, demo_song
from stemlab.widgets._cost import CostTeller
from stemlab.widgets._work import LABELS, WIDE, WorkPanel, indented

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
    """What a setting was said to cost, and what it cost."""

    setting: str
    predicted: CostEstimate
    seconds: float
    peak_memory_bytes: int | None


class CostPanel(WorkPanel):
    """Choose settings and a length, read what they cost here, and measure whether it is true.

    What is measured is 15 s of the demo song, in a fresh process.

    Attributes
    ----------
    model : str
        Can be set.
    device : str
        ``auto``, or one that is here; can be set.
    length_seconds : int
        Of the recording that the cost is told for; one of those that the panel offers; can be set.
    segment_share : {1.0, 0.5, 0.25}
        Of the model's own segment; can be set.
    overlap : {0.0, 0.1, 0.25, 0.5, 0.75}
        Can be set.
    pad_to_training_segment : bool
        See `SeparationSettings`; can be set.
    cost : str
        What is told.
    measured : tuple of MeasuredCost
        All that was measured.
    state : {"idle", "running", "done", "cancelled", "failed"}
    message : str
        What the panel says about the state.
    error : str
        What went wrong in the last run; empty otherwise.

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
        self.message = "Press Measure here to hold this against a real run."
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
        own = float(self._models.manifest.segment_seconds)
        return SeparationSettings(
            segment_seconds=own * self.segment_share,
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
        self.message = "Running the setting in a process of its own."

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
        self._show_results(ipywidgets.HTML(_table(self.measured)))
        self.message = "Measured."
        return found

    # ------------------------------------------------------------ what is shown

    def _build(self) -> None:
        def choice(description: str, options: Any) -> ipywidgets.Dropdown:
            return ipywidgets.Dropdown(
                options=options, description=description, layout=WIDE, style=LABELS
            )

        self._segments = choice("Segment", self._offered_segments())
        pad = ipywidgets.Checkbox(
            description="pad shorter segments to the length of its training",
            indent=False,
            layout=ipywidgets.Layout(width="30em"),
        )
        length = ipywidgets.SelectionSlider(
            options=_LENGTHS, value=240, description="Recording", layout=WIDE, style=LABELS
        )
        self._cost_text = ipywidgets.HTML()
        widgets = {
            "device": choice("Device", ["auto", *available_devices()]),
            "length_seconds": length,
            "segment_share": self._segments,
            "overlap": choice("Overlap", _OVERLAPS),
            "pad_to_training_segment": pad,
        }
        traitlets.link((self._models, "model"), (self, "model"))
        for name, widget in widgets.items():
            traitlets.link((self, name), (widget, "value"))
        self.observe(self._rename_segments, "model")
        self.observe(self._tell, ["model", *widgets])
        start = ipywidgets.Button(
            description="Measure here",
            button_style="primary",
            tooltip=f"Separate {_EXCERPT_SECONDS:g} s of the demo song with these settings",
        )
        start.on_click(lambda _: self.measure())
        self._tell()
        self._show_status()
        self.children = [
            self._models,
            *(widgets[name] for name in ("device", "length_seconds", "segment_share", "overlap")),
            indented(pad),
            indented(self._cost_text),
            self._buttons(start, cancel_tooltip="Stop the run"),
            self._status,
            self._results,
        ]

    def _offered_segments(self) -> list[tuple[str, float]]:
        own = float(self._models.manifest.segment_seconds)
        return [
            (f"{own * share:g} s" + (", its own" if share == 1 else ""), share)
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
        self._cost_text.value = f"<small>{escape(self.cost)}</small>"


def _table(measured: tuple[MeasuredCost, ...]) -> str:
    def cells(tag: str, values: list[str]) -> str:
        return "".join(f"<{tag} style='padding: 0 8px'>{escape(each)}</{tag}>" for each in values)

    heads = ["setting", "time said", "measured", "ratio", "memory said", "measured", "ratio"]
    rows = [f"<tr>{cells('th', heads)}</tr>"]
    for each in measured:
        said, peak = each.predicted.peak_memory_bytes, each.peak_memory_bytes
        shown = [
            each.setting,
            f"{each.predicted.seconds:.2f} s",
            f"{each.seconds:.2f} s",
            f"{each.seconds / each.predicted.seconds:.2f}",
            "not known" if said is None else f"{said / 1e6:.0f} MB",
            "not known" if peak is None else f"{peak / 1e6:.0f} MB",
            "–" if said is None or peak is None else f"{peak / said:.2f}",
        ]
        rows.append(f"<tr>{cells('td', shown)}</tr>")
    return f"<small>{_EXCERPT_SECONDS:g} s of the demo song<table>{''.join(rows)}</table></small>"
