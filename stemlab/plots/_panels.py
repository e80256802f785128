"""What plots share: their axes, time and octave bands on these, and line colours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import EngFormatter, NullLocator

from stemlab._text import printable
from stemlab.errors import ParameterError

Panels = npt.NDArray[np.object_]

# Okabe and Ito's colours without the yellow, which is too pale for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9")
# Longer lines do not fit and take time to draw.
_LONGEST_LINE = 80


def panels(
    axes: Axes | npt.ArrayLike | None,
    rows: int,
    columns: int = 1,
    *,
    inches: tuple[float, float],
    things: str = "signals",
    **layout: Any,
) -> Panels:
    """Make axes, shape (rows, columns), or check those of the caller."""
    if axes is None:
        figure = Figure(figsize=inches, layout="constrained")
        made: Panels = figure.subplots(rows, columns, squeeze=False, **layout)
        return made
    given = np.asarray(axes, dtype=object)
    shape = (rows, columns) if min(rows, columns) > 1 else (max(rows, columns),)
    fits = given.shape == shape if len(shape) > 1 else given.size == shape[0]
    if not fits or not all(isinstance(panel, Axes) for panel in given.flat):
        found = f"holds {given.size} objects for {shape[0]} {things}"
        if not given.ndim and not isinstance(axes, Axes):
            found = f"is of type {type(axes).__name__}"
        wanted = "one matplotlib Axes" if shape == (1,) else f"matplotlib Axes of shape {shape}"
        raise ParameterError(f"axes {found}. Pass {wanted}, or leave axes out.")
    return given.reshape(rows, columns)


def share_time(lanes: Panels, start_seconds: float, stop_seconds: float) -> None:
    """Give all lanes the same time range; label the last."""
    for lane in lanes:
        lane.set_xlim(start_seconds, stop_seconds)
    lanes[-1].set_xlabel("Time (s)")


def name_bands(axis: Axis, band_hz: Sequence[float], *, first: int) -> None:
    """Give all octave bands a tick, every other one a name: more would touch each other."""
    axis.set_minor_locator(NullLocator())
    names = [band_name(hz) if at % 2 == first else "" for at, hz in enumerate(band_hz)]
    axis.set_ticks(band_hz, labels=names)


def band_name(centre_hz: float) -> str:
    """Name an octave band by its usual rounded centre: 31.25 Hz is "31.5", 4000 Hz is "4k"."""
    usual = {31.25: "31.5", 62.5: "63"}
    return usual.get(centre_hz) or EngFormatter(sep="")(centre_hz)


def short(name: str, longest: int) -> str:
    """Leave out the middle of a long name."""
    if len(name) <= longest:
        return name
    half = (longest - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def show_plainly(*texts: Text) -> None:
    """Show texts without interpreting formulas or control characters; shorten long ones."""
    for text in texts:
        lines = [printable(short(line, _LONGEST_LINE)) for line in text.get_text().split("\n")]
        text.set_parse_math(False)
        text.set_text("\n".join(lines))
