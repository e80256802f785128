"""Panels for notebooks, which call the library and show its results.

`mixer` plays stems together and `upload` brings songs to the kernel; the panels use both.
"""

from stemlab.widgets.compare_panel import ComparePanel
from stemlab.widgets.cost_panel import CostPanel
from stemlab.widgets.mixer import StemMixer
from stemlab.widgets.seam_panel import SeamPanel
from stemlab.widgets.separation_panel import SeparationPanel
from stemlab.widgets.sweep_panel import SweepPanel
from stemlab.widgets.tamper_panel import TamperPanel
from stemlab.widgets.upload import SongUpload

__all__ = [
    "ComparePanel",
    "CostPanel",
    "SeamPanel",
    "SeparationPanel",
    "SongUpload",
    "StemMixer",
    "SweepPanel",
    "TamperPanel",
]
