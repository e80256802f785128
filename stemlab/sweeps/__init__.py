"""Sweeps: what every setting of the separation costs, and what it buys.

`planned` is what a caller uses. `settings` makes the grid, `models` and `recordings` take what it
is tried on, `running` goes through it, `measuring` runs one setting (`alone` in a process of its
own), `grading` turns its stems into figures, `store` keeps these, `table` puts them into a
DataFrame and `recommending` draws the conclusion.

Names are loaded when they are first used: the process that measures the memory of a setting must
hold no more than a separation does, and pandas is no part of that.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stemlab.sweeps.planned import Sweep as Sweep
    from stemlab.sweeps.planned import SweepEstimate as SweepEstimate
    from stemlab.sweeps.planned import plan_sweep as plan_sweep
    from stemlab.sweeps.planned import sweep as sweep
    from stemlab.sweeps.recommending import Recommendation as Recommendation
    from stemlab.sweeps.recommending import pareto_front as pareto_front
    from stemlab.sweeps.recommending import recommend as recommend
    from stemlab.sweeps.running import SweepProgress as SweepProgress
    from stemlab.sweeps.settings import Measures as Measures
    from stemlab.sweeps.settings import SweepGrid as SweepGrid
    from stemlab.sweeps.settings import SweepSetting as SweepSetting
    from stemlab.sweeps.store import StoreUsage as StoreUsage
    from stemlab.sweeps.store import SweepStore as SweepStore
    from stemlab.sweeps.table import COLUMNS as COLUMNS
    from stemlab.sweeps.table import SETTING_COLUMNS as SETTING_COLUMNS
    from stemlab.sweeps.table import read_sweep as read_sweep
    from stemlab.sweeps.table import write_sweep as write_sweep

_NAMES = {
    "planned": ("Sweep", "SweepEstimate", "plan_sweep", "sweep"),
    "recommending": ("Recommendation", "pareto_front", "recommend"),
    "running": ("SweepProgress",),
    "settings": ("Measures", "SweepGrid", "SweepSetting"),
    "store": ("StoreUsage", "SweepStore"),
    "table": ("COLUMNS", "SETTING_COLUMNS", "read_sweep", "write_sweep"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = [*sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stemlab.sweeps' has no attribute {name!r}")
    return getattr(import_module(f"stemlab.sweeps.{_HOME[name]}"), name)
