"""The residual branches of an encoder or decoder (Demucs' ``DConv``)."""

from __future__ import annotations

from typing import Any

import torch
from demucs.transformer import LayerScale
from torch import Tensor, nn
from torch.nn import functional

from stemlab._models.fast.arithmetic import Product, blocks, gram, normalise
from stemlab._models.fast.layout import require

__all__ = ["Residual"]


class Residual:
    """Some branches that each add to their input what they see along the steps of a row.

    Parameters
    ----------
    dconv : DConv

    Raises
    ------
    UnknownLayoutError
        If a branch holds something else than the two convolutions of an HTDemucs.
    """

    def __init__(self, dconv: Any) -> None:
        self._branches = [_Branch(each) for each in dconv.layers]

    def add_to(self, x: Tensor) -> None:
        """Apply all branches in place.

        Parameters
        ----------
        x : Tensor, shape (rows, steps, channels), float32, contiguous
            Rows do not know of each other.
        """
        for branch in self._branches:
            branch.add_to(x)


class _Branch:
    """Dilated convolution to few channels, norm, GELU; product to twice the channels, norm, gate.

    The second norm needs the mean and the variance of what the product gives, before it can be
    applied to it. Both follow from how the *few* channels go together (`gram`), so the product is
    made only once, of weights that hold the norm and the layer scale already.
    """

    def __init__(self, layers: Any) -> None:
        kinds = [nn.Conv1d, nn.GroupNorm, nn.GELU, nn.Conv1d, nn.GroupNorm, nn.GLU, LayerScale]
        require([type(each) for each in layers] == kinds, "another kind of residual branch")
        narrow, self._norm, _, wide, norm, _, scale = layers
        hidden, channels, taps = narrow.weight.shape
        self._dilation = narrow.dilation[0]
        known = taps == 3 and narrow.padding == narrow.dilation and wide.weight.shape[2] == 1
        require(known, "another kernel in a residual branch")
        require(self._norm.num_groups == norm.num_groups == 1, "groups in a residual branch")
        # All three taps in one product of narrow outputs: (tap, hidden) x channels.
        self._narrow = Product(
            narrow.weight.permute(2, 0, 1).reshape(taps * hidden, channels),
            torch.cat([torch.zeros(hidden), narrow.bias, torch.zeros(hidden)]),
        )
        # The last input is 1: its weights are the bias.
        self._wide = torch.cat([wide.weight[:, :, 0], wide.bias[:, None]], dim=1).t().contiguous()
        exact = self._wide[:-1].double()
        self._wide_pairs = exact @ exact.t()
        scales = torch.cat([scale.scale, torch.ones(channels)])
        self._gain, self._shift, self._eps = norm.weight * scales, norm.bias * scales, norm.eps

    def add_to(self, x: Tensor) -> None:
        """Apply the branch in place; x has shape (rows, steps, channels)."""
        rows, steps, channels = x.shape
        hidden = self._hidden(x)
        weights = self._normalised_weights(hidden)
        for block in blocks(steps, rows * channels):
            x[:, block] += functional.glu(torch.bmm(hidden[:, block], weights), dim=-1)

    def _hidden(self, x: Tensor) -> Tensor:
        """What lies between the convolutions, and a channel of ones."""
        rows, steps, channels = x.shape
        parts = [self._narrow(x[:, block]) for block in blocks(steps, rows * channels)]
        before, here, after = torch.cat(parts, dim=1).chunk(3, dim=2)
        far = self._dilation
        hidden = x.new_ones(rows, steps, here.shape[2] + 1)
        sums = here.clone()
        sums[:, far:] += before[:, :-far]
        sums[:, :-far] += after[:, far:]
        if sums.numel() == 1:
            raise ValueError("a single value cannot be normalised")  # As PyTorch says it.
        norm = self._norm
        hidden[..., :-1] = functional.gelu(normalise(sums, norm.weight, norm.bias, norm.eps))
        return hidden

    def _normalised_weights(self, hidden: Tensor) -> Tensor:
        """Weights of the wide product that include its norm; one set for each row."""
        steps = hidden.shape[1]
        # The channel of ones stays as it is: its products with the others are their sums.
        level = hidden.mean(1)
        level[:, -1] = 0
        pairs = gram(hidden - level[:, None]) / steps
        rest = pairs[:, -1, :-1]
        within = pairs[:, :-1, :-1] - rest[:, :, None] * rest[:, None]
        level = level.double()
        level[:, :-1] += rest
        level[:, -1] = 1
        # What the product gives varies between its channels, and within each along the steps.
        levels = level @ self._wide.double()
        variance = (within * self._wide_pairs).sum((1, 2)) / levels.shape[1]
        mean, variance = levels.mean(1), variance + levels.var(1, correction=0)
        scale = (variance + self._eps).rsqrt()
        weights: Tensor = self._wide * (scale.float()[:, None] * self._gain)[:, None]
        weights[:, -1] += self._shift - (mean * scale).float()[:, None] * self._gain
        return weights
