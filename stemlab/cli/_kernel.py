"""The kernel of the notebooks that ``stemlab lab`` serves: ``python -m stemlab.cli._kernel``."""

from __future__ import annotations

from stemlab._isolation import ignore_settings_here
from stemlab._threads import share_cores


def _main() -> None:
    ignore_settings_here()
    share_cores()
    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    _main()
