"""``python -m stemlab``."""

from __future__ import annotations

import sys

from stemlab._isolation import leave_current_folder_out
from stemlab.cli import main

if __name__ == "__main__":
    leave_current_folder_out()
    sys.exit(main())
