"""Progress bars on a terminal."""

from __future__ import annotations

from typing import Any

from tqdm import tqdm

__all__ = ["terminal_bar"]


def terminal_bar(*, hidden: bool, **options: Any) -> tqdm[Any]:
    """Make a progress bar that is shown on a terminal only, and goes when it is done.

    Parameters
    ----------
    hidden : bool
        Whether it is not shown there either.
    **options
        For `tqdm`.

    Returns
    -------
    bar : tqdm
    """
    # No thread that looks after bars that hang: where none can be started, tqdm warns of that.
    tqdm.monitor_interval = 0
    # `None` hides the bar where standard error is no terminal.
    return tqdm(leave=False, disable=True if hidden else None, **options)
