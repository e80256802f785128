"""Pictures: matplotlib Axes in and out, without pyplot and its global state.

`signals` draws recordings.
"""

from stemlab.plots.signals import plot_spectrograms, plot_waveforms

__all__ = ["plot_spectrograms", "plot_waveforms"]
