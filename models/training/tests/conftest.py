"""One thread of PyTorch: networks this small spend most of their time waiting with more."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
