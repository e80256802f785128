"""Take a recording apart: one generator of finished blocks, and what wraps it.

`separator` is what a caller uses. `settings` checks what was asked for, `planning` turns it into
chunk plans, `_job` runs them, `_files` writes what comes out, `events` is what a caller sees on the
way and at the end, `saving` copies a result elsewhere, `replaying` repeats a recorded run.
"""

from stemlab.separation.events import SegmentDone, SeparationResult, StemBlock
from stemlab.separation.replaying import ReplayReport, replay
from stemlab.separation.saving import save_result
from stemlab.separation.separator import AudioStemSeparator
from stemlab.separation.settings import OutputSettings, SeparationSettings, make_settings

__all__ = [
    "AudioStemSeparator",
    "OutputSettings",
    "ReplayReport",
    "SegmentDone",
    "SeparationResult",
    "SeparationSettings",
    "StemBlock",
    "make_settings",
    "replay",
    "save_result",
]
