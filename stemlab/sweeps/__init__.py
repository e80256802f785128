"""Sweeps: what every setting of the separation costs, and what it buys.

A sweep takes five steps, each a module: `grid` (the settings to try), `plan` (the computations
that they come to), `run` (a loop over these, on any executor), `table` (the results) and
`recommendation` (the answer). Callers begin with `request`, which makes a `session`: a plan and
what is measured of it so far; `store` keeps that.

Behind them, `_models` and `_excerpt` load what the settings are tried on, `_measure` carries out a
computation, in this process or another, and `_records` has its figures.

Importing this loads no pandas: the process that measures the memory of a setting must hold no more
than a separation does.
"""

from stemlab.metrics.figures import SETTING_COLUMNS
from stemlab.sweeps.grid import SweepSetting
from stemlab.sweeps.recommendation import Recommendation, recommend
from stemlab.sweeps.request import plan_sweep, sweep
from stemlab.sweeps.run import SweepProgress
from stemlab.sweeps.session import Sweep, SweepEstimate
from stemlab.sweeps.store import SweepStore
from stemlab.sweeps.table import COLUMNS, read_sweep, write_sweep

__all__ = [
    "COLUMNS",
    "SETTING_COLUMNS",
    "Recommendation",
    "Sweep",
    "SweepEstimate",
    "SweepProgress",
    "SweepSetting",
    "SweepStore",
    "plan_sweep",
    "read_sweep",
    "recommend",
    "sweep",
    "write_sweep",
]
