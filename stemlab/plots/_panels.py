"""What plots of recordings share: panels, the time axis and line colours."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text

from stemlab._text import printable
from stemlab.errors import ParameterError

__all__ = ["COLORS", "panels", "share_time", "short", "show_plainly"]

# Okabe and Ito's colours without the yellow, which is too pale for a line on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#000000", "#CC79A7", "#E69F00", "#56B4E9")
# Longer lines do not fit and take time to draw.
_LONGEST_LINE = 80


def panels(
    axes: Axes | npt.ArrayLike | None,
    signals: int,
    *,
    columns: int = 1,
    height_inches: float,
) -> npt.NDArray[np.object_]:
    """Make a row of axes for each signal, or check those of the caller."""
    if axes is None:
        alone = columns == 1
        figure = Figure(
            figsize=(9 if alone else 14, 0.6 + height_inches * signals), layout="constrained"
        )
        made: npt.NDArray[np.object_] = figure.subplots(
            signals, columns, sharex=alone, sharey=alone, squeeze=False
        )
        return made
    given = np.asarray(axes, dtype=object)
    fits = given.size == signals if columns == 1 else given.shape == (signals, columns)
    if not fits or not all(isinstance(panel, Axes) for panel in given.flat):
        shape = (signals,) if columns == 1 else (signals, columns)
        raise ParameterError(
            f"axes holds {given.size} objects for {signals} signals. Pass matplotlib Axes of shape "
            f"{shape}, or leave axes out."
        )
    return given.reshape(signals, columns)


def share_time(lanes: npt.NDArray[np.object_], start_seconds: float, stop_seconds: float) -> None:
    """Give all lanes the same time range; label the last."""
    for lane in lanes:
        lane.set_xlim(start_seconds, stop_seconds)
    lanes[-1].set_xlabel("Time (s)")


def short(name: str, longest: int) -> str:
    """Leave out the middle of a long name."""
    if len(name) <= longest:
        return name
    half = (longest - 1) // 2
    return f"{name[:half]}…{name[-half:]}"


def show_plainly(texts: Iterable[Text]) -> None:
    """Show texts without interpreting formulas or control characters; shorten long ones."""
    for text in texts:
        lines = [printable(short(line, _LONGEST_LINE)) for line in text.get_text().split("\n")]
        text.set_parse_math(False)
        text.set_text("\n".join(lines))
