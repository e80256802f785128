"""Pictures: matplotlib Axes in and out, without pyplot and its global state.

`signals` draws waveforms, `spectrograms` what sets recordings apart over time and frequency,
`seams` how segments are put together, `sweeps` what a sweep over separation settings found,
`report` a report of a recording.
"""

from stemlab.plots.report import plot_report
from stemlab.plots.seams import plot_seam
from stemlab.plots.signals import plot_waveforms
from stemlab.plots.spectrograms import compare_spectrograms, draw_comparison
from stemlab.plots.sweeps import (
    plot_sdr_against_rtf,
    plot_sweep_heatmap,
    plot_sweep_heatmaps,
    plot_sweep_pareto,
)

__all__ = [
    "compare_spectrograms",
    "draw_comparison",
    "plot_report",
    "plot_sdr_against_rtf",
    "plot_seam",
    "plot_sweep_heatmap",
    "plot_sweep_heatmaps",
    "plot_sweep_pareto",
    "plot_waveforms",
]
