"""Panels for notebooks: each one only calls the library and shows what it answers."""

from stemlab.widgets.mixer import StemMixer
from stemlab.widgets.separation_panel import SeparationPanel
from stemlab.widgets.upload import SongUpload

__all__ = ["SeparationPanel", "SongUpload", "StemMixer"]
