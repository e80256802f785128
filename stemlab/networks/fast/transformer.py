"""The transformer between encoders and decoders, where the branches see each other."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from demucs.transformer import (
    CrossTransformerEncoder,
    CrossTransformerEncoderLayer,
    LayerScale,
    MyGroupNorm,
    MyTransformerEncoderLayer,
    create_2d_sin_embedding,
    create_sin_embedding,
)
from torch import Tensor, nn
from torch.nn import functional

from stemlab.networks.fast.arithmetic import Product, blocks, gelu, normalise
from stemlab.networks.fast.layout import require


class CrossTransformer:
    """Layers that attend to their own branch, and layers that attend to the other, in turns."""

    def __init__(self, network: Any) -> None:
        transformer = network.crosstransformer
        require(type(transformer) is CrossTransformerEncoder, "no transformer")
        require(transformer.emb == "sin", f"{transformer.emb!r} positions")
        self._norms = (transformer.norm_in, transformer.norm_in_t)
        require(
            all(type(norm) is nn.LayerNorm for norm in self._norms),
            "another norm before its layers",
        )
        self._position_weight = float(transformer.weight_pos_embed)
        self._max_period = float(transformer.max_period)
        pairs = zip(transformer.layers, transformer.layers_t, strict=True)
        self._layers = [(_Layer(of_frequency), _Layer(of_time)) for of_frequency, of_time in pairs]
        self._widen: tuple[Callable[[Tensor], Tensor], ...] = (_same, _same)
        self._narrow: tuple[Callable[[Tensor], Tensor], ...] = (_same, _same)
        if network.bottom_channels:
            self._widen = tuple(
                map(_product, (network.channel_upsampler, network.channel_upsampler_t))
            )
            self._narrow = tuple(
                map(_product, (network.channel_downsampler, network.channel_downsampler_t))
            )

    def __call__(self, x: Tensor, xt: Tensor) -> tuple[Tensor, Tensor]:
        frequencies, frames, _ = x.shape
        # The tokens of a frame follow each other.
        x = x.transpose(0, 1).flatten(0, 1)
        x = self._placed(self._widen[0](x), self._norms[0], self._grid(frequencies, frames))
        xt = self._placed(self._widen[1](xt), self._norms[1], self._line(len(xt)))
        for of_frequency, of_time in self._layers:
            x, xt = of_frequency(x, xt), of_time(xt, x)
        x = self._narrow[0](x).reshape(frames, frequencies, -1).transpose(0, 1)
        return x.contiguous(), self._narrow[1](xt)

    def _grid(self, frequencies: int, frames: int) -> Tensor:
        channels = self._norms[0].normalized_shape[0]
        grid: Tensor = create_2d_sin_embedding(
            channels, frequencies, frames, max_period=self._max_period
        )
        return grid[0].permute(2, 1, 0).flatten(0, 1)

    def _line(self, steps: int) -> Tensor:
        channels = self._norms[1].normalized_shape[0]
        line: Tensor = create_sin_embedding(steps, channels, max_period=self._max_period)
        return line[:, 0]

    def _placed(self, x: Tensor, norm: Any, positions: Tensor) -> Tensor:
        placed: Tensor = norm(x)
        return placed.add_(positions, alpha=self._position_weight)


class _Layer:
    """Attention and a network for each token, both added to what comes in."""

    def __init__(self, layer: Any) -> None:
        self._crosses = type(layer) is CrossTransformerEncoderLayer
        require(self._crosses or type(layer) is MyTransformerEncoderLayer, "another layer")
        require(layer.norm_first, "another order of norms")
        require(not layer.sparse, "sparse attention")
        require(layer.activation is functional.gelu, "another activation")
        attention = layer.cross_attn if self._crosses else layer.self_attn
        require(type(attention) is nn.MultiheadAttention, "another attention")
        known = attention.in_proj_weight is not None and attention.in_proj_bias is not None
        require(known and attention.bias_k is None, "another attention")
        self._norms = [layer.norm1, layer.norm2, *([layer.norm3] if self._crosses else [])]
        require(all(type(norm) is nn.LayerNorm for norm in self._norms), "another norm")
        self._norm_out = layer.norm_out
        known = type(self._norm_out) is MyGroupNorm and self._norm_out.num_groups == 1
        require(known, "another norm after a layer")
        self._heads = attention.num_heads
        weight, bias, width = attention.in_proj_weight, attention.in_proj_bias, attention.embed_dim
        parts = zip(weight.split(width), bias.split(width), strict=True)
        self._query, self._key, self._value = (Product(*part) for part in parts)
        self._merge = Product(attention.out_proj.weight, attention.out_proj.bias)
        self._expand = Product(layer.linear1.weight, layer.linear1.bias)
        self._contract = Product(layer.linear2.weight, layer.linear2.bias)
        self._scales = [_scale(gamma, width) for gamma in (layer.gamma_1, layer.gamma_2)]

    def __call__(self, x: Tensor, other: Tensor) -> Tensor:
        """Transform the tokens of one branch, shape (tokens, channels); neither is changed."""
        x = torch.addcmul(x, self._merge(self._attended(x, other)), self._scales[0])
        for block in blocks(len(x), 4 * x.shape[1]):
            inner = gelu(self._expand(self._norms[-1](x[block])))
            x[block].addcmul_(self._contract(inner), self._scales[1])
        norm = self._norm_out
        return normalise(x[None], norm.weight, norm.bias, norm.eps)[0]

    def _attended(self, x: Tensor, other: Tensor) -> Tensor:
        x = self._norms[0](x)
        # Of a layer that crosses, queries come from one branch, keys and values from the other.
        source = self._norms[1](other) if self._crosses else x
        attended = functional.scaled_dot_product_attention(
            self._split(self._query(x)),
            self._split(self._key(source)),
            self._split(self._value(source)),
        )
        return attended[0].transpose(0, 1).flatten(1)

    def _split(self, x: Tensor) -> Tensor:
        """Tokens, shape (tokens, channels), by heads: (1, heads, tokens, channels / heads)."""
        # Laid out by heads as well, which attention takes more quickly.
        return x.reshape(1, len(x), self._heads, -1).transpose(1, 2).contiguous()


def _product(convolution: Any) -> Product:
    require(convolution.kernel_size == (1,), "another kernel beside its transformer")
    return Product(convolution.weight[:, :, 0], convolution.bias)


def _same(x: Tensor) -> Tensor:
    return x


def _scale(layer_scale: Any, width: int) -> Tensor:
    """What each channel is multiplied by before it is added."""
    if type(layer_scale) is nn.Identity:
        return torch.ones(width)
    require(type(layer_scale) is LayerScale and layer_scale.channel_last, "another layer scale")
    scale: Tensor = layer_scale.scale.detach()
    return scale
