"""How good a stem is, in dB: beside the true source, beside another run, at its seams.

`ratios` compares whole recordings, `boundaries` and `click_detection` look where segments meet,
`bsseval` asks museval. `figures` says how every figure of a sweep is named and shown.
"""

from stemlab.metrics.boundaries import Seam, SeamReport, seams
from stemlab.metrics.bsseval import BssEval, bss_eval
from stemlab.metrics.click_detection import Click, ClickReport, clicks
from stemlab.metrics.figures import FIGURES, QUALITIES, Figure, pareto_front
from stemlab.metrics.ratios import consistency, sdr, si_sdr

__all__ = [
    "FIGURES",
    "QUALITIES",
    "BssEval",
    "Click",
    "ClickReport",
    "Figure",
    "Seam",
    "SeamReport",
    "bss_eval",
    "clicks",
    "consistency",
    "pareto_front",
    "sdr",
    "seams",
    "si_sdr",
]
