"""Plots: matplotlib Axes in and out, without pyplot and its global state.

`signals` draws waveforms, `spectrograms` how recordings differ over time and frequency,
`seams` how segments are put together, `report` the analysis of a recording. For sweeps,
`sweep_heatmaps` draws a figure for each setting, `sweep_quality` quality against time.
"""

from stemlab.plots.report import plot_report
from stemlab.plots.seams import plot_seam
from stemlab.plots.signals import plot_waveforms
from stemlab.plots.spectrograms import compare_spectrograms, draw_comparison
from stemlab.plots.sweep_heatmaps import plot_sweep_heatmap, plot_sweep_heatmaps
from stemlab.plots.sweep_quality import plot_sdr_against_rtf, plot_sweep_pareto

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
