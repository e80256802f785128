"""Sweeps: what every setting of the separation costs, and what it buys.

`planned` is what a caller uses. `settings` makes the grid, `models` and `recordings` take what it
is tried on, `running` goes through it, `measuring` runs one setting (`alone` in a process of its
own), `grading` turns its stems into figures, `store` keeps these, `table` puts them into a
DataFrame and `recommending` draws the conclusion.
"""

from stemlab.sweeps.planned import Sweep, SweepEstimate, plan_sweep, sweep
from stemlab.sweeps.recommending import Recommendation, pareto_front, recommend
from stemlab.sweeps.running import SweepProgress
from stemlab.sweeps.settings import Measures, SweepGrid, SweepSetting
from stemlab.sweeps.store import StoreUsage, SweepStore
from stemlab.sweeps.table import COLUMNS, SETTING_COLUMNS, read_sweep, write_sweep

__all__ = [
    "COLUMNS",
    "SETTING_COLUMNS",
    "Measures",
    "Recommendation",
    "StoreUsage",
    "Sweep",
    "SweepEstimate",
    "SweepGrid",
    "SweepProgress",
    "SweepSetting",
    "SweepStore",
    "pareto_front",
    "plan_sweep",
    "read_sweep",
    "recommend",
    "sweep",
    "write_sweep",
]
