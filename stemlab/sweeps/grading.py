"""Grade the stems of one setting: against true stems, a long-context run, and the mixture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stemlab._typing import AudioArray
from stemlab.chunking import ChunkPlan
from stemlab.metrics import SeamReport, bss_eval, consistency, sdr, seams, si_sdr
from stemlab.sweeps.excerpt import Excerpt

__all__ = ["grade"]


def grade(
    excerpt: Excerpt,
    stems: Mapping[str, AudioArray],
    plans: Sequence[ChunkPlan],
    *,
    long_run: Mapping[str, AudioArray],
    offered: Sequence[str],
    bsseval: bool,
) -> dict[str, Any]:
    """Return the figures of one setting that follow from its stems."""
    edges = _boundaries(plans, excerpt.sample_rate)
    references = {name: excerpt.references[name] for name in stems if name in excerpt.references}
    bss = {}
    if bsseval and references:
        # Interference comes from the other true sources, so none of these may be missing.
        others = None
        if all(name in excerpt.references for name in offered):
            others = {name: excerpt.references[name] for name in offered if name not in stems}
        bss = bss_eval(references, stems, excerpt.sample_rate, others=others)
    sources = {}
    for name, stem in stems.items():
        true, long = references.get(name), long_run.get(name)
        # A long run shows what cutting does and nothing else; true stems are the next best.
        ideal = true if long is None else long
        report = SeamReport(math.nan, len(edges), ())
        if ideal is not None:
            report = seams(ideal, stem, edges, excerpt.sample_rate)
        figures: dict[str, Any] = {
            "agreement_db": math.nan if long is None else sdr(long, stem),
            "seam_db": report.mean_db,
            "worst_seams": [[seam.seconds, seam.excess_db] for seam in report.worst],
        }
        if true is not None:
            figures |= _against_truth(true, stem, excerpt.mixture)
        if name in bss:
            figures |= {f"bss_{ratio}": level for ratio, level in vars(bss[name]).items()}
        sources[name] = figures
    has_all = len(stems) == len(offered)
    return {
        "sources": sources,
        "seams": len(edges),
        "consistency_db": consistency(excerpt.mixture, stems.values()) if has_all else math.nan,
    }


def _against_truth(true: AudioArray, stem: AudioArray, mixture: AudioArray) -> dict[str, float]:
    sdr_db, si_sdr_db = sdr(true, stem), si_sdr(true, stem)
    return {
        "sdr_db": sdr_db,
        "sdr_gain_db": sdr_db - sdr(true, mixture),
        "si_sdr_db": si_sdr_db,
        "si_sdr_gain_db": si_sdr_db - si_sdr(true, mixture),
    }


def _boundaries(plans: Sequence[ChunkPlan], sample_rate: int) -> np.ndarray[Any, Any]:
    """Segment boundaries of all networks, in samples at the rate of the recording."""
    edges = np.unique(np.concatenate([plan.boundaries for plan in plans]))
    return np.rint(edges * (sample_rate / plans[0].sample_rate)).astype(np.int64)
