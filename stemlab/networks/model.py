"""A model on a device: described at once, verified and loaded at its first use."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from stemlab._typing import StrPath
from stemlab.errors import ModelNotFoundError, OutOfMemoryError, is_out_of_memory
from stemlab.networks.devices import resolve_device
from stemlab.networks.forward import NetworkRunner
from stemlab.networks.identity import code_is_known, digest_of, network_digest
from stemlab.networks.loading import load_network
from stemlab.networks.spec import spec_of_manifest, spec_of_network
from stemlab.registry.lookup import asked_for, find_model
from stemlab.registry.store import installed_file


class Model:
    """A registered model, one in a folder, or a ready network."""

    def __init__(
        self, model: StrPath | nn.Module, device: str, network_version: str | None = None
    ) -> None:
        self._network_version = network_version
        self.request: str | None = None
        self.resolved_request: str | None = None
        self._ready: list[nn.Module] = []
        self._runners: dict[int, NetworkRunner] = {}
        self._weights_sha256: dict[int, str] = {}
        self._network_sha256: str | None = None
        if isinstance(model, nn.Module):
            self.spec, self._ready = spec_of_network(model)
            self._network = model
        else:
            self.request = asked_for(model)
            self._manifest = find_model(self.request)
            self.resolved_request = (
                str(self._manifest.folder) if self._manifest.kind == "folder" else self.request
            )
            self.spec = spec_of_manifest(self._manifest)
        self.device = resolve_device(device, self.spec.device_types)

    @property
    def sha256(self) -> str:
        """Digest that stands for the model in a run manifest.

        Of the manifest of its files; of a ready network, its weights and settings at its first use.
        """
        if self.request is not None:
            return self._manifest.sha256
        if self._network_sha256 is None:
            facts = {"spec": repr(self.spec), "network": network_digest(self._network)}
            self._network_sha256 = digest_of(facts)
        return self._network_sha256

    @property
    def identity(self) -> str | None:
        """Digest of all that decides what the model computes: part of every key.

        None for a ready network whose code is unknown, unless `network_version` vouches for it.
        Nothing may then be reused from an earlier run.
        """
        if self.request is not None:
            weights = [self._file_sha256(member) for member in range(len(self.spec.members))]
            return digest_of({"manifest": self.sha256, "weights": weights})
        if code_is_known(self._network):
            return self.sha256
        if self._network_version is None:
            return None
        return digest_of({"network": self.sha256, "version": self._network_version})

    def _file_sha256(self, member: int) -> str | None:
        """Digest of the file of one network; None if it is not installed."""
        if member not in self._weights_sha256:
            try:
                return installed_file(self._manifest, self._manifest.networks[member]).sha256
            except ModelNotFoundError:
                return None
        return self._weights_sha256[member]

    @property
    def weights_sha256(self) -> list[str]:
        """Digests of the files that were loaded so far, in the order of the networks.

        Empty for a ready network, whose digest is `sha256`.
        """
        return [digest for _, digest in sorted(self._weights_sha256.items())]

    def check_installed(self, members: Sequence[int]) -> None:
        """Refuse networks whose files are not there, before any work is begun."""
        for member in members:
            if not self._ready and member not in self._runners:
                installed_file(self._manifest, self._manifest.networks[member])

    def runner(self, member: int) -> NetworkRunner:
        """Get one network on the device; it is loaded at the first call."""
        if member not in self._runners:
            try:
                # No reference to what is loaded is kept: the runner copies the weights it uses.
                if self._ready:
                    self._network_sha256 = self.sha256  # Of what the runner uses.
                    network = self._ready[member]
                else:
                    network, file = load_network(self._manifest, self._manifest.networks[member])
                    self._weights_sha256[member] = file.sha256
                architecture = self.spec.members[member].architecture
                self._runners[member] = NetworkRunner(
                    network, architecture, self.device.torch_device
                )
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                raise OutOfMemoryError(
                    f"{self.spec.name} does not fit into the memory of {self.device}. Choose "
                    "another device, or close what else uses its memory."
                ) from error
        return self._runners[member]

    @property
    def slow_because(self) -> list[str]:
        """Why loaded networks do not take the fast path of their architecture, each reason once.

        As in "the network has {reason}".
        """
        reasons = (runner.slow_because for runner in self._runners.values())
        return list(dict.fromkeys(reason for reason in reasons if reason))

    @property
    def is_fast(self) -> bool:
        """Whether all networks that were loaded so far run on a fast path."""
        return all(runner.is_fast for runner in self._runners.values())
