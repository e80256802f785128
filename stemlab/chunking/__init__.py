"""Cut a recording into overlapping segments and add the results together again.

No network is needed: every function takes and returns NumPy arrays. Positions are in samples at
the model's rate; ranges are half-open; position 0 is the first sample of the recording.
"""

from __future__ import annotations

from stemlab.chunking.overlap_add import MixtureWindow, overlap_add
from stemlab.chunking.plan import (
    Chunk,
    ChunkPlan,
    FloatArray,
    check_overlap,
    check_segment_seconds,
    samples_in,
    triangular_window,
)

__all__ = [
    "Chunk",
    "ChunkPlan",
    "FloatArray",
    "MixtureWindow",
    "check_overlap",
    "check_segment_seconds",
    "overlap_add",
    "samples_in",
    "triangular_window",
]
