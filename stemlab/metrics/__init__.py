"""How good a stem is, in dB: beside the true source, beside another run, at its seams.

`ratios` compares whole recordings, `boundaries` looks where segments meet, `bsseval` asks museval.
"""

from stemlab.metrics.boundaries import Seam, SeamReport, seams
from stemlab.metrics.bsseval import BssEval, bss_eval
from stemlab.metrics.ratios import consistency, sdr, si_sdr

__all__ = [
    "BssEval",
    "Seam",
    "SeamReport",
    "bss_eval",
    "consistency",
    "sdr",
    "seams",
    "si_sdr",
]
