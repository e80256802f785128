"""The record of a computation: its figures, made from the stems and checked when they are read."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from stemlab._typing import AudioArray
from stemlab.chunking import ChunkPlan
from stemlab.metrics import SeamReport, bss_eval, consistency, sdr, seams, si_sdr
from stemlab.sweeps._excerpt import Excerpt
from stemlab.sweeps.plan import SweepPlan

_FIELDS = frozenset(
    "sources seams consistency_db wall_seconds peak_memory_bytes seconds timed_alone device "
    "settings model created measures versions".split()
)
_TRUTH = ("sdr_db", "sdr_gain_db", "si_sdr_db", "si_sdr_gain_db")
_BSS = ("bss_sdr_db", "bss_isr_db", "bss_sir_db", "bss_sar_db")
_INFINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}
# The range of float32 is about 1,500 dB; a ratio of energies in float64 can have twice that.
_MOST_DB = 10_000.0
_MOST_SECONDS = 1e9
_MOST_BYTES = 2**60


def grade(
    excerpt: Excerpt,
    stems: Mapping[str, AudioArray],
    plans: Sequence[ChunkPlan],
    *,
    long_run: Mapping[str, AudioArray],
    offered: Sequence[str],
    bsseval: bool,
) -> dict[str, Any]:
    """Compare stems with the true ones, with those of the long-context run, and the mixture."""
    # Segment boundaries of all networks, in samples at the rate of the recording.
    edges = np.unique(np.concatenate([plan.boundaries for plan in plans]))
    edges = np.rint(edges * (excerpt.sample_rate / plans[0].sample_rate)).astype(np.int64)
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
            sdr_db, si_sdr_db = sdr(true, stem), si_sdr(true, stem)
            figures |= {
                "sdr_db": sdr_db,
                "sdr_gain_db": sdr_db - sdr(true, excerpt.mixture),
                "si_sdr_db": si_sdr_db,
                "si_sdr_gain_db": si_sdr_db - si_sdr(true, excerpt.mixture),
            }
        if name in bss:
            figures |= {f"bss_{ratio}": level for ratio, level in vars(bss[name]).items()}
        sources[name] = figures
    has_all = len(stems) == len(offered)
    return {
        "sources": sources,
        "seams": len(edges),
        "consistency_db": consistency(excerpt.mixture, stems.values()) if has_all else math.nan,
    }


def plain_record(value: Any) -> Any:
    """Replace what standard JSON cannot hold: infinite numbers and NaN become texts."""
    if isinstance(value, Mapping):
        return {str(name): plain_record(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_record(inner) for inner in value]
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value


def checked_record(
    fields: Mapping[str, Any], stems: Sequence[str], plan: SweepPlan
) -> dict[str, Any]:
    """Undo `plain_record`; raise ValueError if this cannot be the record of these stems."""
    measures = plan.measures
    if set(fields) != _FIELDS:
        raise ValueError(f"fields are missing or unknown: {sorted(_FIELDS ^ set(fields))!r:.200}")
    for name, value in plan.stated.items():
        if fields[name] != value:
            raise ValueError(f"{name!r} is that of another setting")
    # The settings are not compared: others may come to the same computation.
    for name, kind in {"settings": dict, "model": str, "created": str, "timed_alone": bool}.items():
        if type(fields[name]) is not kind:
            raise ValueError(f"{name!r} is not of type {kind.__name__}")
    walls = fields["wall_seconds"]
    if not isinstance(walls, list) or len(walls) != measures.repeats:
        raise ValueError("'wall_seconds' is not a list of all repeats")
    for wall in walls:
        _check_number("wall_seconds", wall, math.nextafter(0, 1), _MOST_SECONDS)
    peak = fields["peak_memory_bytes"]
    if peak is not None:
        _check_number("peak_memory_bytes", peak, 1, _MOST_BYTES if measures.memory else 0)
    if type(fields["seams"]) is not int or fields["seams"] < 0:
        raise ValueError("'seams' is not a count")
    sources = fields["sources"]
    if not isinstance(sources, dict) or set(sources) != set(stems):
        raise ValueError("'sources' are not those of the setting")
    return {
        **fields,
        "consistency_db": _decibels("consistency_db", fields["consistency_db"]),
        "sources": {name: _source(name, sources[name], plan) for name in stems},
    }


def _source(name: str, figures: Any, plan: SweepPlan) -> dict[str, Any]:
    """Check the figures of one stem."""
    expected = {"agreement_db", "seam_db", "worst_seams"}
    if name in plan.excerpt.references:
        expected |= {*_TRUTH, *(_BSS if plan.measures.bsseval else ())}
    if not isinstance(figures, dict) or set(figures) != expected:
        raise ValueError(f"the figures of {name!r} are not those that were asked for")
    worst = figures["worst_seams"]
    if not isinstance(worst, list) or not all(
        isinstance(seam, list) and len(seam) == 2 for seam in worst
    ):
        raise ValueError("'worst_seams' is not a list of pairs")
    for seconds, _ in worst:
        _check_number("worst_seams", seconds, 0, plan.excerpt.seconds)
    if not plan.measures.agreement and figures["agreement_db"] != "nan":
        raise ValueError("'agreement_db' was not asked for")
    return {
        **{key: _decibels(key, figures[key]) for key in expected - {"worst_seams"}},
        "worst_seams": [[seconds, _decibels("worst_seams", excess)] for seconds, excess in worst],
    }


def _decibels(name: str, value: Any) -> float:
    if isinstance(value, str) and value in _INFINITE:
        return _INFINITE[value]
    _check_number(name, value, -_MOST_DB, _MOST_DB)
    return float(value)


def _check_number(name: str, value: Any, low: float, high: float) -> None:
    if type(value) not in (int, float) or not low <= value <= high:
        raise ValueError(f"{name!r} is not a number in [{low:g}, {high:g}]")
