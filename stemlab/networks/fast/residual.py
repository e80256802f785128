"""The residual branches of an encoder or decoder (Demucs' ``DConv``)."""

from __future__ import annotations

from typing import Any

import torch
from demucs.demucs import DConv
from demucs.transformer import LayerScale
from torch import Tensor, nn
from torch.nn import functional

from stemlab.networks.fast.arithmetic import Gate, Product, blocks, gelu, normalise
from stemlab.networks.fast.layout import require


class Residual:
    """Some branches that each add to their input what they see along the steps of a row."""

    def __init__(self, dconv: Any) -> None:
        require(dconv is None or type(dconv) is DConv, "another kind of residual branch")
        self._branches = [] if dconv is None else [_Branch(layer) for layer in dconv.layers]

    def add_to(self, x: Tensor) -> None:
        """Apply all branches in place."""
        for branch in self._branches:
            branch.add_to(x)


class _Branch:
    """Dilated convolution to few channels, norm, GELU; product to twice the channels, norm, gate.

    The second norm needs the mean and the variance of the product before it can be applied. Both
    follow from the correlations of the *few* channels. The norm is therefore applied to these
    channels, its gain is part of the weights, and the product is computed only once.
    """

    def __init__(self, layers: Any) -> None:
        kinds = [nn.Conv1d, nn.GroupNorm, nn.GELU, nn.Conv1d, nn.GroupNorm, nn.GLU, LayerScale]
        require([type(layer) for layer in layers] == kinds, "another kind of residual branch")
        narrow, self._norm, _, wide, norm, _, scale = layers
        channels, taps = narrow.weight.shape[1:]
        self._dilation = narrow.dilation[0]
        known = taps == 3 and narrow.padding == narrow.dilation and wide.weight.shape[2] == 1
        require(known, "another kernel in a residual branch")
        require(self._norm.num_groups == norm.num_groups == 1, "groups in a residual branch")
        # All three taps in one product of narrow outputs: (tap, hidden) x channels.
        self._narrow = Product(
            narrow.weight.permute(1, 2, 0).flatten(1).t(),
            functional.pad(narrow.bias, (len(narrow.bias), len(narrow.bias))),
        )
        # With the bias as the weight of one more input, which is always 1.
        weight = torch.cat([wide.weight[:, :, 0], wide.bias[:, None]], dim=1)
        self._mean = weight.double().mean(0)
        self._power = weight.double().t() @ weight.double() / len(weight)
        # The layer scale belongs to the half that is gated, not to the gate.
        scales = torch.cat([scale.scale, torch.ones(channels)])
        gain, shift, self._eps = norm.weight * scales, norm.bias * scales, norm.eps
        inputs = torch.cat([weight, torch.ones(len(weight), 1)], dim=1)
        self._gate = Gate(gain[:, None] * inputs, shift)

    def add_to(self, x: Tensor) -> None:
        """Apply the branch in place; x has shape (rows, steps, channels)."""
        inputs = self._normalised(self._hidden(x)).flatten(0, 1)
        steps = x.view(-1, x.shape[2])
        for block in blocks(*steps.shape):
            steps[block].addcmul_(*self._gate(inputs[block]))

    def _hidden(self, x: Tensor) -> Tensor:
        """What lies between the convolutions, shape (rows, steps, hidden)."""
        steps = x.view(-1, x.shape[2])
        parts = [self._narrow(steps[block]) for block in blocks(*steps.shape)]
        narrow = torch.cat(parts) if len(parts) > 1 else parts[0]
        before, here, after = narrow.view(*x.shape[:2], -1).chunk(3, dim=2)
        far = self._dilation
        sums = here.clone(memory_format=torch.contiguous_format)
        sums[:, far:] += before[:, :-far]
        sums[:, :-far] += after[:, far:]
        if sums.numel() == 1:
            raise ValueError("a single value cannot be normalised")  # As PyTorch says it.
        norm = self._norm
        return gelu(normalise(sums, norm.weight, norm.bias, norm.eps))

    def _normalised(self, hidden: Tensor) -> Tensor:
        """Inputs of the gate with which its product is normalised.

        Divided by the deviation, these are the hidden channels, 1 (the input for the bias of the
        product), and the negative mean.
        """
        # So few values that double precision costs nothing, and no difference is too small for it.
        known = functional.pad(hidden, (0, 1), value=1.0).double()
        moments = known.transpose(1, 2) @ known / hidden.shape[1]
        mean = moments[:, -1] @ self._mean
        variance = (moments * self._power).sum((1, 2)) - mean.square()
        scale = (variance + self._eps).rsqrt()
        inputs = hidden.new_empty(*hidden.shape[:2], hidden.shape[2] + 2)
        torch.mul(known, scale[:, None, None], out=inputs[..., :-1])
        inputs[..., -1] = -(mean * scale)[:, None]
        return inputs
