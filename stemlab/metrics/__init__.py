"""How good a stem is, in dB: beside the true source, beside another run, at its seams.

`ratios` compares whole recordings, `boundaries` looks where segments meet, `bsseval` asks museval,
`spectra` compares over time and frequency.
"""

from stemlab.metrics.boundaries import Seam, SeamReport, seams
from stemlab.metrics.bsseval import BssEval, bss_eval
from stemlab.metrics.ratios import consistency, sdr, si_sdr
from stemlab.metrics.spectra import SpectralComparison, SpectralGrid, compare_spectra

__all__ = [
    "BssEval",
    "Seam",
    "SeamReport",
    "SpectralComparison",
    "SpectralGrid",
    "bss_eval",
    "compare_spectra",
    "consistency",
    "sdr",
    "seams",
    "si_sdr",
]
