"""Records of measured settings, as the store keeps them, and the check of what is read back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from stemlab.sweeps.grid import Measures

__all__ = ["RecordFacts", "checked_record", "plain_record"]

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


@dataclass(frozen=True)
class RecordFacts:
    """What the record of a setting must say to be used by a sweep."""

    sources: tuple[str, ...]
    references: frozenset[str]
    measures: Measures
    seconds: float
    device: str
    versions: Mapping[str, str]

    @property
    def stated(self) -> dict[str, Any]:
        """Return the fields of the record that follow from these facts."""
        return {
            "seconds": self.seconds,
            "device": self.device,
            "versions": dict(self.versions),
            "measures": asdict(replace(self.measures, keep_audio=False)),
        }


def plain_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Replace what standard JSON cannot hold: infinite numbers and NaN become texts."""
    plain: dict[str, Any] = _plain(record)
    return plain


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value


def checked_record(fields: Mapping[str, Any], facts: RecordFacts) -> dict[str, Any]:
    """Undo `plain_record`; raise ValueError if this cannot be the record of the setting."""
    if set(fields) != _FIELDS:
        raise ValueError(f"fields are missing or unknown: {sorted(_FIELDS ^ set(fields))!r:.200}")
    for name, value in facts.stated.items():
        if fields[name] != value:
            raise ValueError(f"{name!r} is that of another setting")
    # Not compared: other settings may come to the same computation.
    if not isinstance(fields["settings"], dict):
        raise ValueError("'settings' is not a JSON object")
    for name in ("model", "created"):
        if not isinstance(fields[name], str):
            raise ValueError(f"{name!r} is not a text")
    if type(fields["timed_alone"]) is not bool:
        raise ValueError("'timed_alone' is neither true nor false")
    walls = fields["wall_seconds"]
    if not isinstance(walls, list) or len(walls) != facts.measures.repeats:
        raise ValueError("'wall_seconds' is not a list of all repeats")
    for wall in walls:
        _check_number("wall_seconds", wall, math.nextafter(0, 1), _MOST_SECONDS)
    peak = fields["peak_memory_bytes"]
    if peak is not None:
        _check_number("peak_memory_bytes", peak, 1, _MOST_BYTES if facts.measures.memory else 0)
    if type(fields["seams"]) is not int or fields["seams"] < 0:
        raise ValueError("'seams' is not a count")
    sources = fields["sources"]
    if not isinstance(sources, dict) or set(sources) != set(facts.sources):
        raise ValueError("'sources' are not those of the setting")
    return {
        **fields,
        "consistency_db": _decibels("consistency_db", fields["consistency_db"]),
        "sources": {name: _source(name, sources[name], facts) for name in facts.sources},
    }


def _source(name: str, figures: Any, facts: RecordFacts) -> dict[str, Any]:
    """Check the figures of one stem."""
    expected = {"agreement_db", "seam_db", "worst_seams"}
    if name in facts.references:
        expected |= {*_TRUTH, *(_BSS if facts.measures.bsseval else ())}
    if not isinstance(figures, dict) or set(figures) != expected:
        raise ValueError(f"the figures of {name!r} are not those that were asked for")
    worst = figures["worst_seams"]
    if not isinstance(worst, list) or not all(
        isinstance(seam, list) and len(seam) == 2 for seam in worst
    ):
        raise ValueError("'worst_seams' is not a list of pairs")
    for seconds, _ in worst:
        _check_number("worst_seams", seconds, 0, facts.seconds)
    if not facts.measures.agreement and figures["agreement_db"] != "nan":
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
