"""Demucs' networks: HTDemucs, HDemucs, and the HDemucs of torchaudio."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from functools import partial
from importlib import import_module
from typing import Any, ClassVar

import torch
from demucs.transformer import create_sin_embedding
from torch import nn

from stemlab._text import brief
from stemlab.errors import MissingDependencyError, ModelRefusedError
from stemlab.networks.architectures.base import Architecture, FastForward, Forward, MemberSpec
from stemlab.networks.fast import FastHTDemucs
from stemlab.registry.manifests import ModelManifest, NetworkEntry, exact_seconds

_DEFAULT_STFT_SAMPLES = 4096
_MOST_STFT_SAMPLES = 1 << 20
# Large values of these make building a network slow, even without weights; those of the last two
# make running it slow.
_MOST = {"depth": 12, "t_layers": 64, "dconv_depth": 16, "sources": 64, "multi_freqs": 16}
_MOST |= {"wiener_iters": 16, "end_iters": 16}
# They take effect only while a network is made or trained, or together with others, which are
# compared: `multi_freqs`, `t_sparse_self_attn`, `t_sparse_cross_attn`.
_WITHOUT_EFFECT = frozenset(
    "dconv_init end_iters multi_freqs_depth rescale t_auto_sparsity t_cape_augment t_dropout "
    "t_global_window t_lr t_mask_random_seed t_mask_type t_sparse_attn_window t_sparsity "
    "t_weight_decay".split()
)


class _Demucs(Architecture):
    """What Demucs' networks have in common."""

    code_license = "MIT"
    cost_shape = "HDemucs"
    normalises = True
    takes_ready = True
    limits_segment: ClassVar[bool] = False  # To the one they were trained with.
    states_rate_and_segment: ClassVar[bool] = True  # Among their arguments.

    def network_class(self) -> type[nn.Module]:
        """Import the class of its networks."""
        module, _, name = str(self.class_name).rpartition(".")
        network_class: type[nn.Module] = getattr(import_module(module), name)
        return network_class

    def checked_arguments(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Refuse sizes that keep the machine busy, and read the segment as an exact number."""
        checked = dict(arguments)
        for name, most in _MOST.items():
            size = checked.get(name) or 0
            if (len(size) if isinstance(size, (list, tuple)) else abs(size)) > most:
                raise ValueError(f"{name} is larger than {most}")
        if "segment" in checked:
            # Read as a number, a text like "1e999999999" takes hours.
            if not isinstance(checked["segment"], (int, float)):
                raise ValueError("segment is not a number")
            checked["segment"] = exact_seconds(checked["segment"])
        return checked

    def describe(self, manifest: ModelManifest, entry: NetworkEntry) -> MemberSpec:
        """Describe a network from its manifest; refuse one that contradicts itself."""
        self._check_stated(manifest, entry.arguments)
        stft = entry.arguments.get("nfft", _DEFAULT_STFT_SAMPLES)
        if type(stft) is not int or not 4 <= stft <= _MOST_STFT_SAMPLES:
            raise ModelRefusedError(
                f"the manifest of {manifest.name!r} has nfft={brief(repr(stft))} for its "
                f"network: expected a whole number in [4, {_MOST_STFT_SAMPLES}]. Correct the "
                "manifest.",
                path=manifest.folder,
            )
        segment = exact_seconds(manifest.segment_seconds)
        if segment * manifest.sample_rate < stft // 4:
            raise ModelRefusedError(
                f"the manifest of {manifest.name!r} has a segment of {manifest.segment_seconds:g} "
                f"s, which is less than one hop of its network ({stft // 4} samples). Correct the "
                "manifest.",
                path=manifest.folder,
            )
        pads = self.limits_segment and bool(entry.arguments.get("use_train_segment", True))
        gains = entry.gains or (1.0,) * len(manifest.sources)
        longest = segment if self.limits_segment else None
        return MemberSpec(self, segment, stft // 4, longest, pads, gains)

    def describe_network(self, network: Any, gains: tuple[float, ...]) -> MemberSpec:
        """Describe a ready network by its attributes."""
        pads = self.limits_segment and bool(network.use_train_segment)
        longest = network.segment if self.limits_segment else None
        hop_samples = int(network.hop_length)
        return MemberSpec(self, network.segment, hop_samples, longest, pads, gains)

    def _check_stated(self, manifest: ModelManifest, arguments: Mapping[str, Any]) -> None:
        sources = arguments.get("sources", ())
        stated = {
            "sources": tuple(sources) if isinstance(sources, list) else sources,
            "audio_channels": arguments.get("audio_channels", 2),
        }
        expected = {"sources": manifest.sources, "audio_channels": manifest.channels}
        if self.states_rate_and_segment:
            stated |= {
                "samplerate": arguments.get("samplerate", 44_100),
                "segment": arguments.get("segment"),
            }
            expected |= {"samplerate": manifest.sample_rate, "segment": manifest.segment_seconds}
        if stated != expected:
            raise ModelRefusedError(
                f"the manifest of {manifest.name!r} contradicts itself: its network has "
                f"{brief(repr(stated))}, the model {expected}. Correct the manifest.",
                path=manifest.folder,
                expected=expected,
                actual=stated,
            )


class HTDemucs(_Demucs):
    """Demucs' hybrid network with a transformer, which takes at most the trained segment."""

    name = "HTDemucs"
    class_name = "demucs.htdemucs.HTDemucs"
    cost_shape = "HTDemucs"
    limits_segment = True
    fills_segment = True
    splits_batches = True
    arguments_without_effect = _WITHOUT_EFFECT

    def fast_forward(self, network: nn.Module, device: torch.device) -> FastForward | None:
        """Take the network apart on a CPU; elsewhere, its own forward is the only one."""
        return FastHTDemucs(network) if device.type == "cpu" else None

    def plain_forward(self, network: nn.Module) -> Forward:
        """Share the weights in an object that pads nothing and draws no random numbers."""
        view = _shallow(network)
        view.use_train_segment = False
        if view.crosstransformer is not None and view.crosstransformer.emb == "sin":
            transformer = _shallow(view.crosstransformer)
            transformer._get_pos_embedding = partial(_positions, transformer.max_period)
            view.crosstransformer = transformer
        forward: Forward = view
        return forward


class HDemucs(_Demucs):
    """Demucs' hybrid network without a transformer."""

    name = "HDemucs"
    class_name = "demucs.hdemucs.HDemucs"
    # Demucs' bags override the segment of their networks, which depend on it in nothing else.
    arguments_without_effect = _WITHOUT_EFFECT | {"segment"}


class TorchaudioHDemucs(_Demucs):
    """HDemucs in torchaudio's implementation, which is only loaded from its own files."""

    name = "torchaudio.HDemucs"
    code_license = "BSD-2-Clause"
    takes_ready = False
    states_rate_and_segment = False

    def network_class(self) -> type[nn.Module]:
        """Import torchaudio, whose wheels fail to load beside another build of PyTorch."""
        try:
            from torchaudio.models import HDemucs as TorchaudioNetwork
        except (ImportError, OSError) as error:
            raise MissingDependencyError(
                f"this model needs torchaudio, which cannot be imported ({error}). Install the "
                f"build that belongs to your PyTorch {torch.__version__}: for one without CUDA, "
                "`pip install --force-reinstall --no-deps torchaudio --index-url "
                "https://download.pytorch.org/whl/cpu`."
            ) from error
        network_class: type[nn.Module] = TorchaudioNetwork
        return network_class


def _shallow(module: Any) -> Any:
    twin = copy.copy(module)
    # Otherwise a module set on the twin would be set on the original as well.
    twin._modules = dict(module._modules)
    return twin


def _positions(
    max_period: float, length: int, batch: int, channels: int, device: torch.device
) -> torch.Tensor:
    """Embed positions as Demucs does, but without its random shift.

    Demucs draws the shift from Python's global generator in each call. In a trained network it is
    always zero, but the draw would still change the caller's random numbers.
    """
    embedding: torch.Tensor = create_sin_embedding(
        length, channels, device=str(device), max_period=max_period
    )
    return embedding
