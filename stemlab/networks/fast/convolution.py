"""Gated convolutions of 3 by 3 with fewer multiplications (Winograd's)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from stemlab.networks.fast.arithmetic import Product

# Turns a kernel of 3 into the factors of the 4 products that give 2 values.
_KERNEL = ((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))


class WinogradGate:
    """Convolution of 3 by 3 and gate: 16 products for 4 values instead of 36.

    Of four neighbours d in a line, the products of ``d0 - d2``, ``d1 + d2``, ``d2 - d1`` and
    ``d1 - d3`` with a transformed kernel are m0 to m3; then ``m0 + m1 + m2`` and ``m1 - m2 - m3``
    are what the kernel gives at two neighbours. Here that is done along both axes.

    References
    ----------
    A. Lavin, S. Gray, "Fast Algorithms for Convolutional Neural Networks", CVPR 2016,
    doi:10.1109/CVPR.2016.435: F(2x2, 3x3).
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        kernel = torch.tensor(_KERNEL)
        factors = torch.einsum("ir,js,ocrs->ijco", kernel, kernel, weight)
        nothing = torch.zeros_like(bias)
        # The product in the middle is part of all four values, and brings them the bias.
        self._products = [
            [
                Product(weights.t(), bias if i == j == 1 else nothing)
                for j, weights in enumerate(line)
            ]
            for i, line in enumerate(factors)
        ]

    def __call__(self, x: Tensor) -> Tensor:
        rows, steps = x.shape[0] - 2, x.shape[1]
        x = functional.pad(x, (0, 0, 1, 1 + steps % 2, 0, rows % 2))
        x0, x1, x2, x3 = x[:-2:2], x[1:-1:2], x[2::2], x[3::2]
        upper = self._across(0, x0 - x2)
        middle = self._across(1, x1 + x2)
        upper += middle
        lower = middle
        middle = self._across(2, x2 - x1)
        upper += middle
        lower -= middle
        lower -= self._across(3, x1 - x3)
        # (rows / 2, steps / 2) of each of the four neighbours.
        gated = x.new_empty(rows + rows % 2, steps + steps % 2, upper.shape[-1] // 2)
        for row, pair in enumerate((upper, lower)):
            for step, values in enumerate(pair):
                target = gated[row::2, step::2]
                target.copy_(functional.glu(values, dim=-1).view(target.shape))
        return gated[:rows, :steps].contiguous()

    def _across(self, number: int, line: Tensor) -> Tensor:
        """Two neighbouring steps of the products of one line, shape (2, tiles, 2 * channels)."""
        d0, d1, d2, d3 = line[:, :-2:2], line[:, 1:-1:2], line[:, 2::2], line[:, 3::2]
        parts = (d0 - d2, d1 + d2, d2 - d1, d1 - d3)
        products = zip(self._products[number], parts, strict=True)
        m0, m1, m2, m3 = (product(part.flatten(0, 1)) for product, part in products)
        return torch.stack([m0.add_(m1).add_(m2), m1.sub_(m2).sub_(m3)])
