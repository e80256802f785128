"""Spectra: spectrograms reduced to what a screen can show, octave bands, distances.

All powers are relative to a sine of full scale, which adds up to 1 (0 dB) over all frequencies.
"""

from __future__ import annotations

from stemlab.spectra.comparison import SpectralComparison, compare_spectra
from stemlab.spectra.grid import FREQUENCY_SCALES, SpectralGrid

__all__ = ["FREQUENCY_SCALES", "SpectralComparison", "SpectralGrid", "compare_spectra"]
