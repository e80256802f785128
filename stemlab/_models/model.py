"""A model on a device: described at once, loaded and verified at its first use."""

from __future__ import annotations

import os

from torch import nn

from stemlab._models.devices import Device, is_out_of_memory
from stemlab._models.forward import NetworkRunner
from stemlab._models.loading import load_networks, spec_of_network, state_digest
from stemlab._models.spec import spec_of_manifest
from stemlab._typing import StrPath
from stemlab.errors import ModelRefusedError, OutOfMemoryError, ParameterError
from stemlab.registry import find_model

__all__ = ["Model"]


class Model:
    """A registered model, one in a folder, or a ready network.

    Parameters
    ----------
    model : str, path or nn.Module
    device : Device

    Attributes
    ----------
    spec : ModelSpec
    device : Device
    request : str or None
        What was asked for; None for a ready network, which has no name to ask for it again.

    Raises
    ------
    ModelNotFoundError, ModelRefusedError
        If there is no such model, or it failed a check.
    """

    def __init__(self, model: StrPath | nn.Module, device: Device) -> None:
        self.device = device
        self.request: str | None = None
        self._networks: list[nn.Module] | None = None
        self._runners: dict[int, NetworkRunner] = {}
        if isinstance(model, nn.Module):
            self.spec, self._networks = spec_of_network(model)
            self._network = model
        else:
            if not isinstance(model, (str, os.PathLike)):
                raise ParameterError(
                    f"model={model!r} is not a name, a folder or a Demucs network."
                )
            name = os.fspath(model)
            self._manifest = find_model(name)
            # A folder is found again from anywhere, a registered name is not a place.
            self.request = name if self._manifest.name == name else os.path.abspath(name)
            self.spec = spec_of_manifest(self._manifest)
        if self.spec.channels != 2:
            raise ModelRefusedError(
                f"{self.spec.name} takes {self.spec.channels} channels; stemlab works with "
                "networks that take 2."
            )

    @property
    def sha256(self) -> str:
        """Digest that stands for the weights in a run manifest.

        Of the manifest, which pins its files; of a ready network its state as it is now.
        """
        return state_digest(self._network) if self.request is None else self._manifest.sha256

    def runner(self, member: int) -> NetworkRunner:
        """Put one network on the device, once.

        Parameters
        ----------
        member : int
            Its number in `spec`.

        Returns
        -------
        runner : NetworkRunner

        Raises
        ------
        ModelNotFoundError, ModelRefusedError
            If the weights are missing or failed a check.
        OutOfMemoryError
            If the network does not fit.
        """
        if member not in self._runners:
            try:
                if self._networks is None:
                    self._networks = load_networks(self._manifest)
                self._runners[member] = NetworkRunner(
                    self._networks[member], self.device.torch_device
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise OutOfMemoryError(
                    f"{self.spec.name} does not fit into the memory of {self.device}. Choose "
                    "another device, or close what else uses its memory."
                ) from error
        return self._runners[member]
