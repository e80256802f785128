"""Types shared by every layer."""

from __future__ import annotations

from os import PathLike
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

AudioArray: TypeAlias = npt.NDArray[np.float32]
"""Audio, shape (channels, samples), float32, nominally in [-1, 1]."""

StrPath: TypeAlias = str | PathLike[str]
