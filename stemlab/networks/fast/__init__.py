"""HTDemucs on a CPU: the numbers of Demucs' own forward, sooner and in less memory.

::

    mixture (channels, samples)
       |------------------------------------------.
       | Spectrum: STFT, complex values           |
       | or magnitudes                            |
       v                                          v
    (frequencies, frames, channels)            (1, steps, channels)
       |                                          |
    FrequencyEncoder x depth --- skips ---.    TimeEncoder x depth --- skips ---.
       | a quarter of the frequencies,    |       | a quarter of the steps,     |
       | twice the channels               |       | twice the channels          |
       v                                  |       v                             |
    .------------------ CrossTransformer ------------------.                    |
    |  tokens of frequency  <- attention ->  tokens of time |                   |
    '------------------------------------------------------'                    |
       v                                  |       v                             |
    FrequencyDecoder x depth <------------'    TimeDecoder x depth <------------'
       |                                          |
       | Spectrum: inverse STFT                   |
       '--------------------- + ------------------'
                              v
              estimates (sources, channels, samples)

Each encoder is: strided convolution, GELU, residual branch (`residual`), gated 1x1 convolution.
Each decoder is: skip added, gated convolution, residual branch, transposed convolution.

What makes it quick, and small:

- Channels come last, so that every 1x1 and transposed convolution is one product of matrices, and
  the others are of the kind for which PyTorch has its best kernels. Nothing is moved between.
- Layers run in blocks that fit a processor's cache, as far as they can: convolution, activation,
  residual branch and gate of some frequencies before the next are looked at. No intermediate
  result is ever whole.
- The norms of residual branches are folded into the product that follows.
- Products are made by the library that is quickest at them (`arithmetic.Product`), with fewer
  multiplications where that pays (`convolution`).

`FastHTDemucs` takes a network apart when it is made. Every layer checks that it has the layout it
knows, and refuses another with `UnknownLayoutError`: then Demucs' own forward is used.
"""

from stemlab.networks.fast.layout import UnknownLayoutError
from stemlab.networks.fast.network import FastHTDemucs

__all__ = ["FastHTDemucs", "UnknownLayoutError"]
