"""Encoders and decoders of the two branches.

In the branch of frequencies everything but the convolutions along frequency treats each frequency
by itself, so they work on a block of frequencies at a time. The branch of time is one row, whose
residual branches are normalised over all its steps: it is cut into blocks of steps between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar

import torch
from demucs.hdemucs import HDecLayer, HEncLayer
from torch import Tensor
from torch.nn import functional

from stemlab.networks.fast.arithmetic import Arena, Gate, Product, blocks, gelu
from stemlab.networks.fast.convolution import WinogradGate
from stemlab.networks.fast.layout import require
from stemlab.networks.fast.residual import Residual

# From this number of channels on, fewer multiplications save more time than the extra additions
# take.
_ENOUGH_CHANNELS = 64


class _Encoder:
    """What encoders of both branches share: their parts, and the layout they know."""

    along_frequency: ClassVar[bool]

    def __init__(self, layer: Any) -> None:
        require(type(layer) is HEncLayer, "another kind of encoder")
        _check_layout(layer, self.along_frequency, "an encoder")
        require(layer.rewrite is not None, "no gate in an encoder")
        require(layer.rewrite.weight[0, 0].numel() == 1, "context in an encoder's gate")
        self.stride: int = layer.stride
        self.channels: int = layer.conv.out_channels
        self._kernel = _kernel(layer.conv.weight)
        self._bias = layer.conv.bias
        self._residual = Residual(layer.dconv)
        self._gate = Gate(layer.rewrite.weight.flatten(1), layer.rewrite.bias)

    def _gated(self, x: Tensor, out: Tensor) -> None:
        torch.mul(*self._gate(x), out=out)


class FrequencyEncoder(_Encoder):
    """Fewer frequencies, more channels."""

    along_frequency = True

    def __init__(self, layer: Any, embedding: Tensor | None = None) -> None:
        super().__init__(layer)
        self._embedding = embedding

    def __call__(self, x: Tensor, arena: Arena) -> Tensor:
        stride, frames = self.stride, x.shape[1]
        encoded = arena.buffer(len(x) // stride, frames, self.channels)
        for block in blocks(len(encoded), frames * self.channels):
            # The kernel reaches half a stride beyond on both sides.
            rows = _rows(x, stride * block.start - stride // 2, stride * block.stop + stride // 2)
            y = _convolve(rows, self._kernel, self._bias, stride=(stride, 1))
            y = gelu(y)
            self._residual.add_to(y)
            self._gated(y, encoded[block])
            if self._embedding is not None:
                encoded[block] += self._embedding[block, None]
        return encoded


class TimeEncoder(_Encoder):
    """Fewer steps, more channels."""

    along_frequency = False

    def __call__(self, x: Tensor, arena: Arena) -> Tensor:
        stride = self.stride
        encoded = arena.buffer(-(-len(x) // stride), self.channels)
        for block in blocks(*encoded.shape):
            part = _rows(x, stride * block.start - stride // 2, stride * block.stop + stride // 2)
            y = _convolve(part[None], self._kernel, self._bias, stride=(1, stride))[0]
            encoded[block] = gelu(y)
        self._residual.add_to(encoded[None])
        for block in blocks(*encoded.shape):
            self._gated(encoded[block], encoded[block])
        return encoded


class _Decoder:
    """What decoders of both branches share: their parts, and the layout they know."""

    along_frequency: ClassVar[bool]

    def __init__(self, layer: Any) -> None:
        require(type(layer) is HDecLayer, "another kind of decoder")
        _check_layout(layer, self.along_frequency, "a decoder")
        require(layer.rewrite is not None and layer.context_freq, "no full gate in a decoder")
        taps = layer.rewrite.kernel_size[-1]
        known = taps % 2 == 1 and set(layer.rewrite.kernel_size) == {taps}
        require(known and set(layer.rewrite.padding) == {taps // 2}, "another gate in a decoder")
        self.stride: int = layer.stride
        self._context = taps // 2
        self._gate = _gate(layer.rewrite)
        self._residual = Residual(layer.dconv)
        # A row makes two strides of output: the later one is added to the next row's early one.
        kernel = layer.conv_tr.weight.flatten(2)  # (channels in, channels out, taps)
        self.channels: int = kernel.shape[1]
        self._spread_channels = kernel[0].numel()
        bias = layer.conv_tr.bias.repeat(layer.stride)
        self._spread = Product(
            kernel.transpose(1, 2).flatten(1).t(), torch.cat([bias, torch.zeros_like(bias)])
        )
        self._spread_bias = layer.conv_tr.bias
        self._last = bool(layer.last)

    def _activated(self, x: Tensor) -> Tensor:
        return x if self._last else gelu(x)

    def _add_upsampled(self, target: Tensor, parts: Iterable[Tensor]) -> None:
        """Add the transposed convolution of rows that come in parts, each (rows, ..., channels)."""
        place, late = -(self.stride // 2), torch.zeros(())
        for part in parts:
            for block in blocks(len(part), part[0, ..., 0].numel() * self._spread_channels):
                spread = self._spread(part[block])
                spread = spread.view(*spread.shape[:-1], 2, self.stride, self.channels)
                early, later = spread.unbind(-3)
                early[0] += late
                early[1:] += later[:-1]
                late = later[-1].clone()  # A view would keep all of it in memory.
                ready = self._activated(early.movedim(-2, 1)).flatten(0, 1)
                _add(target, ready, place)
                place += len(ready)
        _add(target, self._activated(late + self._spread_bias).movedim(-2, 0), place)


class FrequencyDecoder(_Decoder):
    """More frequencies, fewer channels."""

    along_frequency = True

    def add_to(self, target: Tensor, x: Tensor) -> None:
        """Decode."""
        self._add_upsampled(target, self._gated(x))

    def _gated(self, x: Tensor) -> Iterator[Tensor]:
        for block in blocks(len(x), x[0].numel()):
            y = self._gate(_rows(x, block.start - self._context, block.stop + self._context))
            self._residual.add_to(y)
            yield y


class TimeDecoder(_Decoder):
    """More steps, fewer channels."""

    along_frequency = False

    def add_to(self, target: Tensor, x: Tensor) -> None:
        """Decode."""
        context = self._context
        before = x.new_zeros(context, x.shape[1])
        for block in blocks(*x.shape):
            part = torch.cat([before, _rows(x, block.start, block.stop + context)])
            count = block.stop - block.start
            before = part[count : count + context]  # What the next block needs of this one.
            x[block] = self._gate(part[None])[0]
        self._residual.add_to(x[None])
        self._add_upsampled(target, (x[block] for block in blocks(*x.shape)))


def _check_layout(layer: Any, along_frequency: bool, what: str) -> None:
    """Refuse a layer that lacks what encoders and decoders have in common."""
    require(layer.freq == along_frequency and not layer.empty, "branches that meet")
    require(layer.kernel_size == 2 * layer.stride, f"another kernel in {what}")
    require(layer.stride % 2 == 0 and layer.pad == layer.stride // 2, "another stride")
    require(not layer.norm, f"norms in {what}")


def _gate(convolution: Any) -> Callable[[Tensor], Tensor]:
    """Convolution and gate of rows that have their context at both ends already."""
    weight, bias = convolution.weight, convolution.bias
    if weight.shape[2:] == (3, 3) and weight.shape[1] >= _ENOUGH_CHANNELS:
        return WinogradGate(weight, bias)
    # Rows of the branch of frequencies run along the second axis, of time along the first.
    padding = (0, weight.shape[3] // 2) if weight.dim() == 4 else (0, 0)
    kernel = _kernel(weight)
    return lambda rows: functional.glu(_convolve(rows, kernel, bias, padding=padding), dim=-1)


def _kernel(weight: Tensor) -> Tensor:
    """The kernel of a convolution along one axis or two, as one along two, channels last."""
    if weight.dim() == 3:
        weight = weight[:, :, None]
    return weight.contiguous(memory_format=torch.channels_last)


def _convolve(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor,
    *,
    stride: tuple[int, int] = (1, 1),
    padding: tuple[int, int] = (0, 0),
) -> Tensor:
    """Convolve x of shape (rows, steps, channels), which stays so."""
    # PyTorch's order of axes, in which the channels still lie next to each other in memory.
    y: Tensor = functional.conv2d(x.permute(2, 0, 1)[None], kernel, bias, stride, padding)
    return y[0].permute(1, 2, 0).contiguous()


def _rows(x: Tensor, start: int, stop: int) -> Tensor:
    """Rows of x, with zeros before the first and after the last."""
    inside = x[max(start, 0) : min(stop, len(x))]
    before, after = max(-start, 0), max(stop - len(x), 0)
    if not before and not after:
        return inside
    return functional.pad(inside, (0, 0) * (x.dim() - 1) + (before, after))


def _add(target: Tensor, rows: Tensor, start: int) -> None:
    """Add rows to the target from some place on; what lies outside of it is dropped."""
    first = max(start, 0)
    stop = max(min(start + len(rows), len(target)), first)
    target[first:stop] += rows[first - start : stop - start]
