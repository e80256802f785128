"""Panels for notebooks: each one only calls the library and shows what it answers."""

from stemlab.widgets.separation_panel import SeparationPanel

__all__ = ["SeparationPanel"]
