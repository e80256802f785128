"""The forward of HTDemucs, taken apart and put together again: see the figure of the package."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import torch
from demucs.htdemucs import HTDemucs
from torch import Tensor

from stemlab.networks.fast.arithmetic import Arena, centre
from stemlab.networks.fast.branches import (
    FrequencyDecoder,
    FrequencyEncoder,
    TimeDecoder,
    TimeEncoder,
)
from stemlab.networks.fast.layout import require, require_plain
from stemlab.networks.fast.spectrum import Spectrum
from stemlab.networks.fast.transformer import CrossTransformer

_QUIET = 1e-5  # Added to standard deviations by Demucs.


class FastHTDemucs:
    """An HTDemucs in evaluation mode on the CPU, ready to be called."""

    def __init__(self, network: Any) -> None:
        require(type(network) is HTDemucs, "another class")
        require_plain(network)
        frequencies = network.nfft // 2
        require(frequencies % network.stride**network.depth == 0, "an odd number of frequencies")
        levels = len(network.encoder)
        branches = (network.decoder, network.tencoder, network.tdecoder)
        require(all(len(branch) == levels for branch in branches), "branches of different depth")
        embeddings: list[Tensor | None] = [None] * levels
        if network.freq_emb is not None:
            embeddings[0] = network.freq_emb.weight * network.freq_emb_scale
        self._encoders = [*map(FrequencyEncoder, network.encoder, embeddings)]
        self._time_encoders = [*map(TimeEncoder, network.tencoder)]
        self._transformer = CrossTransformer(network)
        self._decoders = [*map(FrequencyDecoder, network.decoder)]
        self._time_decoders = [*map(TimeDecoder, network.tdecoder)]
        self._spectrum = Spectrum(network)
        self._sources = len(network.sources)
        self._arena = Arena()
        self._alone = threading.Lock()

    def __call__(self, mixtures: Tensor) -> Tensor:
        """Estimate the sources of some mixtures, one after the other."""
        with self._alone:
            estimates = [self._estimate(mixture) for mixture in mixtures]
        return torch.stack(estimates) if len(estimates) > 1 else estimates[0][None]

    def release(self) -> None:
        """Give up the memory that is kept for the next call."""
        with self._alone:
            self._arena = Arena()

    def _estimate(self, mixture: Tensor) -> Tensor:
        samples = mixture.shape[1]
        x, directions = self._spectrum.forward(mixture)
        x, level, spread = _standardised(x)
        xt, level_t, spread_t = _standardised(mixture.t())
        frequencies, frames, _ = x.shape
        arena = self._arena
        arena.start(self._largest(frequencies, frames, samples))
        skips = _encoded(x, self._encoders, arena)
        mark = arena.mark
        target = arena.buffer(samples, self._time_decoders[-1].channels)
        skips_t = _encoded(xt, self._time_encoders, arena)
        x, xt = self._transformer(skips[-1], skips_t[-1])
        xt = _decoded(xt, skips_t, self._time_decoders, target)
        # In hops, to which the branch of frequencies adds; the estimates are a part of them.
        hops = xt.new_zeros(xt.shape[1], frames + 3, self._spectrum.hop)
        estimates = hops.flatten(1).narrow(1, self._spectrum.delay, samples)
        estimates.copy_(xt.mul_(spread_t).add_(level_t).t())
        arena.release(mark)  # That was the branch of time; the other one ends in its place.
        target = arena.buffer(frequencies, frames, self._decoders[-1].channels)
        x = _decoded(x, skips, self._decoders, target)
        self._spectrum.add_inverse(hops, x.mul_(spread).add_(level), directions)
        return estimates.reshape(self._sources, -1, samples)

    def _largest(self, frequencies: int, frames: int, samples: int) -> int:
        """Count the values that are kept at a time: skips, and outputs of the last layers."""
        rows, steps = frequencies, samples
        skips = skips_t = 0
        for encoder, time_encoder in zip(self._encoders, self._time_encoders, strict=True):
            rows, steps = rows // encoder.stride, -(-steps // time_encoder.stride)
            skips += rows * frames * encoder.channels
            skips_t += steps * time_encoder.channels
        last, last_t = self._decoders[-1].channels, self._time_decoders[-1].channels
        return skips + max(skips_t + samples * last_t, frequencies * frames * last)


def _encoded(
    x: Tensor, encoders: Sequence[FrequencyEncoder | TimeEncoder], arena: Arena
) -> list[Tensor]:
    """Outputs of all layers of a branch, each the input of the next."""
    made = []
    for encoder in encoders:
        x = encoder(x, arena)
        made.append(x)
    return made


def _decoded(
    x: Tensor,
    skips: list[Tensor],
    decoders: Sequence[FrequencyDecoder | TimeDecoder],
    target: Tensor,
) -> Tensor:
    """Decode a branch from the inside out: each layer adds to the output of the next encoder."""
    skips[-1] += x
    targets = [target.zero_(), *skips[:-1]]
    for decoder, skip in zip(decoders, reversed(skips), strict=True):
        decoder.add_to(targets.pop(), skip)
    return target


def _standardised(x: Tensor) -> tuple[Tensor, float, float]:
    """Copy of x with mean 0 and deviation 1, and what they were."""
    x = x.clone(memory_format=torch.contiguous_format)
    (mean,), (variance,) = centre(x.view(1, -1))
    deviation = (variance * x.numel() / (x.numel() - 1)).sqrt()
    return x.div_(_QUIET + deviation.float()), float(mean), float(deviation)
