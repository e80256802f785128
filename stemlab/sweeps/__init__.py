"""Sweeps: what every setting of the separation costs, and what it buys.

A sweep takes five steps, each a module: `grid` (the settings to try), `plan` (the computations
that they come to), `run` (a loop over these, on any executor), `table` (the results) and
`recommendation` (the answer). Callers begin with `request`, which makes a `session`: a plan and
what is measured of it so far; `store` keeps that.

Behind them, `_models` and `_excerpt` load what the settings are tried on, `_measure` carries out a
computation, in this process or another, `_timing` takes its time and memory, and `_records` has
its figures.

Names are loaded when they are first used: the process that measures the memory of a setting must
hold no more than a separation does, and pandas is no part of that.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stemlab.sweeps.grid import Measures as Measures
    from stemlab.sweeps.grid import SweepGrid as SweepGrid
    from stemlab.sweeps.grid import SweepSetting as SweepSetting
    from stemlab.sweeps.recommendation import Recommendation as Recommendation
    from stemlab.sweeps.recommendation import recommend as recommend
    from stemlab.sweeps.request import plan_sweep as plan_sweep
    from stemlab.sweeps.request import sweep as sweep
    from stemlab.sweeps.run import SweepProgress as SweepProgress
    from stemlab.sweeps.session import Sweep as Sweep
    from stemlab.sweeps.session import SweepEstimate as SweepEstimate
    from stemlab.sweeps.store import StoreUsage as StoreUsage
    from stemlab.sweeps.store import SweepStore as SweepStore
    from stemlab.sweeps.table import COLUMNS as COLUMNS
    from stemlab.sweeps.table import SETTING_COLUMNS as SETTING_COLUMNS
    from stemlab.sweeps.table import read_sweep as read_sweep
    from stemlab.sweeps.table import write_sweep as write_sweep

_NAMES = {
    "grid": ("Measures", "SweepGrid", "SweepSetting"),
    "recommendation": ("Recommendation", "recommend"),
    "request": ("plan_sweep", "sweep"),
    "run": ("SweepProgress",),
    "session": ("Sweep", "SweepEstimate"),
    "store": ("StoreUsage", "SweepStore"),
    "table": ("COLUMNS", "SETTING_COLUMNS", "read_sweep", "write_sweep"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stemlab.sweeps' has no attribute {name!r}")
    return getattr(import_module(f"stemlab.sweeps.{_HOME[name]}"), name)
