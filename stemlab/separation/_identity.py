"""What decides the samples of a run: from here come the keys of all that is found again."""

from __future__ import annotations

from typing import Any

import torch

from stemlab.networks.devices import arithmetic_of
from stemlab.networks.model import Model
from stemlab.results import package_versions


def identity_of(model: Model, batch_size: int) -> dict[str, Any]:
    """Collect what decides the samples besides the recording and the settings.

    A key of anything that is found again is `digest_of` these facts and those of its own kind. If
    ``model`` is None, nothing tells what the model computes, and nothing may be found again.
    """
    return {
        "model": model.identity,
        "device": str(model.device),
        "arithmetic": arithmetic_of(model.device.torch_device),
        # The order of sums depends on both.
        "batch_size": batch_size,
        "threads": torch.get_num_threads(),
        "versions": package_versions(),
    }
