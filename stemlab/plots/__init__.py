"""Pictures: matplotlib Axes in and out, without pyplot and its global state.

`signals` draws waveforms, `spectrograms` what sets recordings apart over time and frequency,
`seams` how segments are put together, `report` a report of a recording. Of a sweep,
`sweep_heatmaps` draws a figure of every setting, `sweep_quality` the quality against the time.
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
