"""What the layers of the fast path share: memory, products, blocks and norms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

# Values of one block: two megabytes, so that it and its results stay in a cache. Half of it gives
# operations too little to do; twice as much only takes more memory.
_BLOCK_VALUES = 1 << 19
# Sums in single precision are exact to 7 digits up to about this many terms; the sums of longer
# rows are added in double precision.
_TERMS = 128


class Arena:
    """Memory for large results that every call uses again.

    Fresh memory is expensive: the system takes a tenth of a call's time to provide it in pieces,
    and malloc keeps as much unused memory between the pieces as they take themselves.
    """

    def __init__(self) -> None:
        self._memory = torch.empty(0)
        self._used = 0

    def start(self, values: int) -> None:
        """Begin a call, which overwrites the results of the last one."""
        self._used = 0
        if values > len(self._memory):
            self._memory = torch.empty(0)  # Before there is more.
            self._memory = torch.empty(values)

    def buffer(self, *shape: int) -> Tensor:
        """Take the next piece."""
        first = self._used
        self._used += math.prod(shape)
        return self._memory[first : self._used].view(shape)

    @property
    def mark(self) -> int:
        """Where the next piece begins."""
        return self._used

    def release(self, mark: int) -> None:
        """Take back all pieces from a mark on."""
        self._used = mark


class Product:
    """``rows @ weight.T + bias``, by the library that is quickest at it."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight, self._bias = weight.detach(), bias.detach()
        self._multiply: Callable[[Tensor, Tensor, Tensor], Tensor] = _multiply
        try:
            self(weight.new_zeros(2, weight.shape[1]))
        except (AttributeError, RuntimeError, TypeError):  # This PyTorch has no such thing.
            self._multiply = functional.linear

    def __call__(self, rows: Tensor) -> Tensor:
        return self._multiply(rows, self._weight, self._bias)


class Gate:
    """A product of which one half opens and closes the other (GLU).

    Each half is a product of its own: PyTorch's GLU of values that lie side by side takes as long
    as the product.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        halves = zip(weight.chunk(2), bias.chunk(2), strict=True)
        self._values, self._opening = (Product(*half) for half in halves)

    def __call__(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self._values(rows), self._opening(rows).sigmoid_()


def _multiply(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # torch.compile uses the same operator for linear layers: oneDNN, on AMD a sixth faster than
    # MKL, which `functional.linear` uses.
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], "")
    return product


def blocks(count: int, values_each: int) -> Iterator[slice]:
    """Cut a range into blocks that fit the cache."""
    size = max(_BLOCK_VALUES // values_each, 1)
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def centre(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Take the mean off each row, in place.

    Notes
    -----
    `torch.var_mean` takes 40 times as long on a CPU.
    """
    # Twice, so that equal values become exactly zero: in silence, norms divide the rest by almost
    # zero.
    mean = rows.mean(1)
    rows -= mean[:, None]
    rest = rows.mean(1)
    rows -= rest[:, None]
    whole = rows.shape[1] // _TERMS * _TERMS
    stretches = rows[:, :whole].reshape(len(rows), -1, _TERMS)
    lengths = torch.linalg.vector_norm(stretches, dim=2).double().square().sum(1)
    others = torch.linalg.vector_norm(rows[:, whole:], dim=1).double()
    return mean.double() + rest, (lengths + others.square()) / rows.shape[1]


def gelu(x: Tensor) -> Tensor:
    """Gaussian error linear unit, in place."""
    torch.ops.aten.gelu_(x)
    return x


def normalise(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group normalisation with one group, in place."""
    _, variance = centre(x.view(len(x), -1))
    scale = (weight / (variance + eps).sqrt()[:, None]).float()[:, None]
    for block in blocks(x.shape[1], x.shape[0] * x.shape[2]):
        x[:, block].mul_(scale).add_(bias)
    return x
