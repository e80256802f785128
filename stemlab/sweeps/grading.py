"""From the stems of one setting to figures: against true stems, a longer run, and the mixture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stemlab._typing import AudioArray
from stemlab.chunking import ChunkPlan
from stemlab.metrics import SeamReport, bss_eval, consistency, sdr, seams, si_sdr
from stemlab.sweeps.recordings import SweepAudio

__all__ = ["grade"]

_NAN = float("nan")


def grade(
    audio: SweepAudio,
    stems: Mapping[str, AudioArray],
    plans: Sequence[ChunkPlan],
    *,
    long_run: Mapping[str, AudioArray],
    offered: Sequence[str],
    bsseval: bool,
) -> dict[str, Any]:
    """Measure the stems of one setting."""
    edges = _boundaries(plans, audio.sample_rate)
    references = {name: audio.references[name] for name in stems if name in audio.references}
    # Interference is what comes from the other true sources, of which none may be missing.
    known = all(name in audio.references for name in offered)
    others = {name: audio.references[name] for name in offered if known and name not in stems}
    bss = {}
    if bsseval and references:
        bss = bss_eval(references, stems, audio.sample_rate, others=others if known else None)
    sources: dict[str, dict[str, Any]] = {}
    for name, stem in stems.items():
        true, long = references.get(name), long_run.get(name)
        # A long run shows what cutting does and nothing else; true stems are the next best.
        ideal = true if long is None else long
        report = (
            SeamReport(_NAN, len(edges), ())
            if ideal is None
            else seams(ideal, stem, edges, audio.sample_rate)
        )
        sources[name] = {
            **(_against_truth(true, stem, audio.mixture) if true is not None else {}),
            **(
                {f"bss_{key}": each for key, each in vars(bss[name]).items()} if name in bss else {}
            ),
            "agreement_db": _NAN if long is None else sdr(long, stem),
            "seam_db": report.mean_db,
            "worst_seams": [[each.seconds, each.excess_db] for each in report.worst],
        }
    return {
        "sources": sources,
        "seams": len(edges),
        "consistency_db": (
            consistency(audio.mixture, stems.values()) if len(stems) == len(offered) else _NAN
        ),
    }


def _against_truth(true: AudioArray, stem: AudioArray, mixture: AudioArray) -> dict[str, float]:
    found, found_si = sdr(true, stem), si_sdr(true, stem)
    return {
        "sdr_db": found,
        "sdr_gain_db": found - sdr(true, mixture),
        "si_sdr_db": found_si,
        "si_sdr_gain_db": found_si - si_sdr(true, mixture),
    }


def _boundaries(plans: Sequence[ChunkPlan], sample_rate: int) -> np.ndarray[Any, Any]:
    """Of all networks together, at the rate of the recording."""
    edges = np.unique(np.concatenate([each.boundaries for each in plans]))
    return np.rint(edges * (sample_rate / plans[0].sample_rate)).astype(np.int64)
