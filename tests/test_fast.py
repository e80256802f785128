"""The fast path against Demucs' own forward: real networks, random weights with lively norms."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from demucs.htdemucs import HTDemucs
from demucs.transformer import LayerScale
from torch import nn

from stemlab.networks.architectures import ARCHITECTURES
from stemlab.networks.fast import FastHTDemucs, UnknownLayoutError, arithmetic
from stemlab.networks.fast.convolution import WinogradGate
from stemlab.networks.forward import NetworkRunner

SOURCES = ["drums", "bass", "other", "vocals"]
# In the ways in which published networks differ from each other, but narrower.
SHAPES = {
    "htdemucs": {"dconv_mode": 3, "bottom_channels": 64},
    "htdemucs_6s": {"dconv_mode": 3, "sources": [*SOURCES, "guitar", "piano"]},
    "stemlab-mini": {
        "dconv_mode": 1,
        "dconv_depth": 1,
        "dconv_comp": 4,
        "t_layers": 2,
        "t_hidden_scale": 2.0,
        "cac": False,
        "wiener_iters": -1,
        "end_iters": -1,
    },
    "no residual branches": {"dconv_mode": 0},
    "cross first, no positions of frequency": {"t_cross_first": True, "freq_emb": 0},
    "no layer scale, no gate context": {"t_layer_scale": False, "context": 0},
    "three levels": {"depth": 3, "growth": 3},
    "other branches": {"dconv_depth": 3, "dconv_comp": 3},
    "other transform": {"nfft": 2048, "t_weight_pos_embed": 0.5, "t_max_period": 500.0},
}


def lively(seed: int = 0, **settings) -> HTDemucs:
    """A network whose every layer matters: fresh ones scale their branches to next to nothing."""
    chosen = {"sources": SOURCES, "channels": 16, "t_heads": 4, "dconv_comp": 4, "segment": 1.0}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        network = HTDemucs(**{**chosen, "rescale": 0.1, **settings})
        for module in network.modules():
            if isinstance(module, LayerScale):
                module.scale.normal_(0.0, 0.3)
            elif isinstance(module, (nn.GroupNorm, nn.LayerNorm)):
                module.weight.add_(torch.randn_like(module.weight), alpha=0.2)
                module.bias.normal_(0.0, 0.2)
    return network.eval().requires_grad_(False)


def music(samples: int, seed: int = 0, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.2, (batch, 2, samples)).astype(np.float32)


def agreement_db(estimate: np.ndarray, reference: np.ndarray) -> float:
    """Of the source that agrees least."""
    error = np.square(estimate.astype(np.float64) - reference).sum((0, 2, 3))
    power = np.square(reference.astype(np.float64)).sum((0, 2, 3))
    return float(10 * np.log10(power / np.maximum(error, 1e-300)).min())


def demucs(network: HTDemucs, inputs: np.ndarray, *, padded: bool = False) -> np.ndarray:
    twin = copy.copy(network)
    twin.use_train_segment = padded
    with torch.inference_mode():
        return twin(torch.from_numpy(inputs)).numpy()


def on_the_cpu(network: HTDemucs) -> NetworkRunner:
    return NetworkRunner(network, ARCHITECTURES["HTDemucs"], torch.device("cpu"))


def fast(network: HTDemucs, inputs: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return FastHTDemucs(network)(torch.from_numpy(inputs)).numpy()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_fast_path_gives_what_demucs_gives(shape, seed):
    network, inputs = lively(seed, **SHAPES[shape]), music(44_100, seed)
    assert agreement_db(fast(network, inputs), demucs(network, inputs)) >= 120


@pytest.mark.parametrize("samples", [1, 255, 256, 1023, 1025, 4097, 10_007, 30_001, 44_099])
@pytest.mark.parametrize("shape", ["htdemucs", "stemlab-mini"])
def test_at_any_length(shape, samples):
    network, inputs = lively(3, **SHAPES[shape]), music(samples)
    assert agreement_db(fast(network, inputs), demucs(network, inputs)) >= 120


def test_in_silence():
    # Norms then divide by next to nothing; with one channel there is nothing else to compare with.
    for shape in ({"dconv_comp": 16}, {"dconv_mode": 3}):
        network, inputs = lively(**shape), music(44_100)
        inputs[..., 5:] = 0
        assert agreement_db(fast(network, inputs), demucs(network, inputs)) >= 115


def test_it_is_as_close_to_exact_arithmetic_as_demucs_is():
    network, inputs = lively(**SHAPES["htdemucs"]), music(44_100)
    exact = demucs(copy.deepcopy(network).double(), inputs.astype(np.float64))
    ours, theirs = (agreement_db(each(network, inputs), exact) for each in (fast, demucs))
    assert ours >= theirs - 2


@pytest.mark.parametrize("values", [1 << 10, 1 << 13, 1 << 24])
def test_the_size_of_blocks_does_not_change_the_output(monkeypatch, values):
    network, inputs = lively(**SHAPES["htdemucs"]), music(30_000)
    usual = fast(network, inputs)
    monkeypatch.setattr(arithmetic, "_BLOCK_VALUES", values)
    assert agreement_db(fast(network, inputs), usual) >= 120


def test_without_the_products_of_onednn(monkeypatch):
    # As with a PyTorch that was built without oneDNN, or a later one that names things anew.
    network, inputs = lively(**SHAPES["htdemucs"]), music(30_000)
    usual = fast(network, inputs)

    asked = []

    def missing(*_):
        asked.append("oneDNN")
        raise RuntimeError("no such operator")

    # On some processors both give the same samples, so only being asked tells that it was missed.
    monkeypatch.setattr(arithmetic, "_multiply", missing)
    assert agreement_db(fast(network, inputs), usual) >= 120
    assert asked


def test_the_examples_of_a_batch_do_not_know_of_each_other():
    network, inputs = lively(**SHAPES["stemlab-mini"]), music(20_000, batch=3)
    together = fast(network, inputs)
    assert together.shape == (3, 4, 2, 20_000)
    for each, alone in zip(inputs, together, strict=True):
        assert np.array_equal(fast(network, each[None])[0], alone)


@pytest.mark.parametrize("samples", [500, 20_000, 44_100])
def test_the_runner_pads_as_demucs_does(samples):
    network, inputs = lively(**SHAPES["htdemucs"]), music(samples)
    runner = on_the_cpu(network)
    assert runner.is_fast
    for padded in (True, False):
        estimates = runner(inputs, padded_samples=44_100 if padded else 0)
        assert agreement_db(estimates, demucs(network, inputs, padded=padded)) >= 120


def test_the_network_is_not_changed_and_its_large_weights_are_not_copied():
    network, inputs = lively(**SHAPES["htdemucs"]), music(20_000)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    estimates = fast(network, inputs)
    assert all(torch.equal(each, before[name]) for name, each in network.state_dict().items())
    layer = network.crosstransformer.layers[0].linear1
    ready = FastHTDemucs(network)
    layer.weight.fill_(0.0)
    with torch.inference_mode():
        assert not np.array_equal(ready(torch.from_numpy(inputs)).numpy(), estimates)


def _hook(network):
    network.encoder[1].register_forward_hook(lambda *_: None)


def _patch(network):
    network.decoder[0].forward = lambda *args: args


def _replace(network):
    class Louder(nn.GELU):
        def forward(self, x):
            return 2 * super().forward(x)

    network.encoder[0].dconv.layers[0][2] = Louder()


OTHER_LAYOUTS = {
    "no transformer": ({"t_layers": 0}, None),
    "'scaled' positions": ({"t_emb": "scaled"}, None),
    "another norm": ({"t_group_norm": True}, None),
    "another order of norms": ({"t_norm_first": False}, None),
    "another norm after a layer": ({"t_norm_out": False}, None),
    "another activation": ({"t_gelu": False}, None),
    "another norm before its layers": ({"t_norm_in": False}, None),
    "a Wiener filter": ({"cac": False}, None),
    "norms in an encoder": ({"norm_starts": 2}, None),
    "no gate in an encoder": ({"rewrite": False}, None),
    "context in an encoder's gate": ({"context_enc": 1}, None),
    "another kind of encoder": ({"multi_freqs": [0.5]}, None),
    "a hook in encoder.1": ({}, _hook),
    "a replaced method in decoder.0": ({}, _patch),
    "a layer of another package in encoder.0.dconv.layers.0.2": ({}, _replace),
}


@pytest.mark.parametrize("reason", OTHER_LAYOUTS)
def test_another_layout_runs_with_the_forward_of_demucs_and_says_why(reason):
    settings, change = OTHER_LAYOUTS[reason]
    network, inputs = lively(**settings), music(20_000)
    if change:
        change(network)
    runner = on_the_cpu(network)
    assert not runner.is_fast
    assert runner.slow_because == reason
    if change is not _patch:
        given = runner(inputs)
        assert np.array_equal(given, demucs(network, inputs))


def test_a_class_of_somebody_else_is_not_taken_for_htdemucs():
    class Other(HTDemucs):
        def forward(self, mix):
            return 2 * super().forward(mix)

    with pytest.raises(UnknownLayoutError, match="another class"):
        FastHTDemucs(Other(SOURCES, channels=8, bottom_channels=0, t_heads=2).eval())


@pytest.mark.parametrize(("rows", "steps"), [(1, 1), (2, 2), (5, 7), (8, 33)])
def test_fewer_multiplications_give_the_same_convolution(rows, steps):
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(12, 6, 3, 3, generator=generator), torch.arange(12.0)
    x = torch.randn(rows + 2, steps, 6, generator=generator)
    expected = nn.functional.conv2d(
        x.double().permute(2, 0, 1)[None], weight.double(), bias.double(), padding=(0, 1)
    )
    expected = nn.functional.glu(expected, dim=1)[0].permute(1, 2, 0)
    gated = WinogradGate(weight, bias)(x)
    assert gated.shape == expected.shape
    assert (gated - expected).norm() / expected.norm() < 1e-6


def test_norms_of_long_rows_are_exact():
    # What single precision loses in a plain sum: a level far above the deviation, many values.
    rows = 100 + torch.randn(2, 3_000_017, generator=torch.Generator().manual_seed(0))
    exact = rows.double()
    mean, variance = arithmetic.centre(rows)
    assert torch.allclose(rows.double(), exact - exact.mean(1, keepdim=True), atol=1e-5)
    assert torch.allclose(mean, exact.mean(1), rtol=1e-8, atol=0)
    assert torch.allclose(variance, exact.var(1, unbiased=False), rtol=1e-6, atol=0)
