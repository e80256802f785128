"""From what the branch of frequencies estimates to samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stemlab.networks.fast.arithmetic import blocks
from stemlab.networks.fast.layout import require

# Hann windows that begin a quarter of their length apart, each applied twice, add up to this.
_OVERLAP = 1.5
_SMALL = 1e-8  # Added to magnitudes by Demucs.


class Spectrum:
    """Both transforms of an HTDemucs, and what lies between its layers and them."""

    def __init__(self, network: Any) -> None:
        require(network.hop_length * 4 == network.nfft, "another overlap of frames")
        require(network.cac or network.wiener_iters < 0, "a Wiener filter")
        self._complex = bool(network.cac)
        self.hop: int = network.hop_length
        self.delay = self.hop // 2 * 3
        self._window = torch.hann_window(network.nfft) / _OVERLAP
        # The settings and methods of the network without its layers.
        self._network = object.__new__(type(network))
        self._network.__dict__.update(network.__dict__, _modules={}, _parameters={})

    def forward(self, mixture: Tensor) -> tuple[Tensor, Tensor | None]:
        """Transform, as Demucs does."""
        spectrum = self._network._spec(mixture[None])
        values = self._network._magnitude(spectrum)[0].permute(1, 2, 0)
        if self._complex:
            return values, None
        spectrum = spectrum[0].permute(2, 0, 1).contiguous()
        return values, spectrum.div_(_SMALL + spectrum.abs())

    def add_inverse(self, samples: Tensor, values: Tensor, directions: Tensor | None) -> None:
        """Transform back: an inverse STFT of some frames at a time."""
        channels, hop = samples.shape[0], samples.shape[2]
        frequencies, frames, _ = values.shape
        bins = values.new_zeros(0)
        for block in blocks(frames, channels * 4 * hop):
            count = block.stop - block.start
            if len(bins) != count:  # The highest frequency, which Demucs leaves out, stays zero.
                bins = values.new_zeros(count, channels, frequencies + 1, dtype=torch.complex64)
            parts = values[:, block].reshape(frequencies, count, channels, -1).permute(1, 2, 0, 3)
            if directions is None:
                torch.view_as_real(bins)[:, :, :-1] = parts
            else:
                repeated = directions[block].repeat(1, channels // directions.shape[1], 1)
                torch.mul(parts[..., 0], repeated, out=bins[:, :, :-1])
            pieces = torch.fft.irfft(bins, norm="ortho").mul_(self._window)
            for number, piece in enumerate(pieces.transpose(0, 1).split(hop, dim=2)):
                samples[:, block.start + number : block.stop + number] += piece
