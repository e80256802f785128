"""The forward of HTDemucs, taken apart and put together again: see the figure of the package."""

from __future__ import annotations

from typing import Any

import torch
from demucs.htdemucs import HTDemucs
from torch import Tensor

from stemlab._models.fast.arithmetic import moments
from stemlab._models.fast.branches import (
    FrequencyDecoder,
    FrequencyEncoder,
    TimeDecoder,
    TimeEncoder,
)
from stemlab._models.fast.layout import require, require_plain
from stemlab._models.fast.transformer import CrossTransformer

__all__ = ["FastHTDemucs"]

_QUIET = 1e-5  # Added to standard deviations by Demucs.


class FastHTDemucs:
    """An HTDemucs in evaluation mode on the CPU, ready to be called.

    Parameters
    ----------
    network : HTDemucs
        Float32, on the CPU. Most of its weights are copied; it can be given up afterwards.

    Raises
    ------
    UnknownLayoutError
        If the network computes something that is not known here.
    """

    def __init__(self, network: Any) -> None:
        require(type(network) is HTDemucs, "another class")
        require_plain(network)
        require(network.cac or network.wiener_iters < 0, "a Wiener filter")
        frequencies = network.nfft // 2
        require(frequencies % network.stride**network.depth == 0, "an odd number of frequencies")
        levels = len(network.encoder)
        branches = (network.decoder, network.tencoder, network.tdecoder)
        require(all(len(each) == levels for each in branches), "branches of different depth")
        self._encoders = [FrequencyEncoder(each) for each in network.encoder]
        self._time_encoders = [TimeEncoder(each) for each in network.tencoder]
        self._transformer = CrossTransformer(network)
        self._decoders = [FrequencyDecoder(each) for each in network.decoder]
        self._time_decoders = [TimeDecoder(each) for each in network.tdecoder]
        self._embedding: Tensor | None = None
        if network.freq_emb is not None:
            self._embedding = network.freq_emb.weight.clone() * network.freq_emb_scale
        # For the transforms at both ends, which need none of its weights.
        self._transforms = _without_layers(network)
        self._sources = len(network.sources)

    def __call__(self, mixtures: Tensor) -> Tensor:
        """Estimate the sources of some mixtures, one after the other.

        Parameters
        ----------
        mixtures : Tensor, shape (batch, channels, samples), float32

        Returns
        -------
        estimates : Tensor, shape (batch, sources, channels, samples), float32
            Those of ``use_train_segment=False``: nothing is padded.
        """
        first, *others = mixtures
        if not others:
            return self._estimate(first)[None]
        return torch.stack([self._estimate(each) for each in mixtures])

    def _estimate(self, mixture: Tensor) -> Tensor:
        channels, samples = mixture.shape
        spectrum = self._transforms._spec(mixture[None])
        x, level, spread = _standardised(self._transforms._magnitude(spectrum)[0].permute(1, 2, 0))
        xt, level_t, spread_t = _standardised(mixture.t())
        if self._transforms.cac:
            spectrum = None  # The layers estimate all of it, not only how much belongs to whom.
        lengths: list[int] = []
        skips: list[Tensor] = []
        skips_t: list[Tensor] = []
        embedding = self._embedding
        for encoder, time_encoder in zip(self._encoders, self._time_encoders, strict=True):
            lengths.append(len(xt))
            x, xt = encoder(x, embedding), time_encoder(xt)
            embedding = None
            skips.append(x)
            skips_t.append(xt)
        x, xt = self._transformer(x, xt)
        # One branch after the other: what the first held is free when the second needs most.
        for time_decoder in self._time_decoders:
            xt = time_decoder(xt, skips_t, lengths.pop())
        estimates = xt.mul_(spread_t).add_(level_t).t().reshape(self._sources, channels, samples)
        del xt
        for decoder in self._decoders:
            x = decoder(x, skips)
        x = x.mul_(spread).add_(level).permute(2, 0, 1)
        for source, values in zip(estimates, x.chunk(self._sources), strict=True):
            masked = self._transforms._mask(spectrum, values.contiguous()[None, None])
            source += self._transforms._ispec(masked, samples)[0, 0]
        return estimates


def _standardised(x: Tensor) -> tuple[Tensor, float, float]:
    """Copy of x with mean 0 and deviation 1, and what they were."""
    x = x.contiguous()
    (mean,), (variance,) = moments(x.view(1, -1))
    deviation = (variance * x.numel() / (x.numel() - 1)).sqrt()
    return (x - mean.float()).div_(_QUIET + deviation.float()), float(mean), float(deviation)


def _without_layers(network: Any) -> Any:
    """The settings and transforms of a network, but none of its weights."""
    empty = object.__new__(type(network))
    empty.__dict__.update(network.__dict__, _modules={}, _parameters={})
    return empty
