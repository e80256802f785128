"""``python -m stemlab``."""

from __future__ import annotations

import sys

from stemlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
