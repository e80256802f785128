"""Pictures: matplotlib Axes in and out, without pyplot and its global state.

`signals` draws recordings, `sweeps` what a sweep over separation settings found.
"""

from stemlab.plots.signals import plot_spectrograms, plot_waveforms
from stemlab.plots.sweeps import (
    plot_sdr_against_rtf,
    plot_sweep_heatmap,
    plot_sweep_heatmaps,
    plot_sweep_pareto,
)

__all__ = [
    "plot_sdr_against_rtf",
    "plot_spectrograms",
    "plot_sweep_heatmap",
    "plot_sweep_heatmaps",
    "plot_sweep_pareto",
    "plot_waveforms",
]
