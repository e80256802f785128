from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stemlab.chunking import (
    ChunkPlan,
    MixtureWindow,
    check_segment_seconds,
    overlap_add,
    triangular_window,
)
from stemlab.errors import ParameterError

RATE = 1000


def in_blocks(signal, size):
    return (signal[:, start : start + size] for start in range(0, signal.shape[1], size))


def run_identity(signal, plans, *, block=37, batch_size=1, on_calls=None):
    """Overlap-add with a model that gives its input back, once per source."""
    gains = np.full((len(plans), 2), 1 / len(plans), np.float32)
    window = MixtureWindow(in_blocks(signal, block), 2, signal.shape[1])
    blocks = list(
        overlap_add(
            window,
            plans,
            lambda _, inputs: np.stack([inputs, -inputs], axis=1),
            gains=gains,
            channels=2,
            batch_size=batch_size,
            on_calls=on_calls,
        )
    )
    return blocks, np.concatenate([each for _, each in blocks], axis=-1)


@settings(max_examples=150, deadline=None)
@given(
    samples=st.integers(1, 700),
    segment=st.integers(1, 300),
    overlap=st.floats(0, 0.95),
    context=st.integers(0, 50) | st.none(),
    padding=st.integers(0, 50),
    starts=st.lists(st.integers(-200, 0), min_size=1, max_size=3),
    members=st.integers(1, 2),
    batch_size=st.integers(1, 4),
    block=st.integers(1, 400),
)
def test_identity_gives_the_mixture(
    samples, segment, overlap, context, padding, starts, members, batch_size, block
):
    signal = np.random.default_rng(samples).standard_normal((2, samples)).astype(np.float32)
    if int((1 - overlap) * segment) < 1:
        overlap = 0.0
    plan = ChunkPlan(
        samples=samples,
        sample_rate=RATE,
        segment_seconds=segment / RATE,
        overlap=overlap,
        input_samples=None if context is None else segment + context,
        network_samples=None if context is None else segment + context + padding,
        starts=tuple(starts),
    )
    calls = []
    blocks, result = run_identity(
        signal,
        [plan] * members,
        block=block,
        batch_size=batch_size,
        on_calls=lambda count, _: calls.append(count),
    )
    np.testing.assert_allclose(result, np.stack([signal, -signal]), atol=5e-6)
    assert [start for start, _ in blocks] == list(
        np.cumsum([0, *(each.shape[-1] for _, each in blocks)])[:-1]
    )
    assert all(each.shape[-1] for _, each in blocks), "a block is empty"
    assert sum(calls) == members * plan.calls


def test_without_options_a_plan_is_that_of_demucs():
    """Whose last chunk may lie wholly in the one before it."""
    plan = ChunkPlan(85, RATE, 0.05, 0.25)
    assert [(each.start, each.stop) for each in plan.chunks(0)] == [(0, 50), (37, 85), (74, 85)]
    assert plan.starts == (0,)
    assert plan.shifts == 0
    assert ChunkPlan(85, RATE, 0.05, 0.25, starts=(-3,)).shifts == 1
    assert ChunkPlan(85, RATE, 0.05, 0.25, starts=(-3, 0)).shifts == 2


@settings(max_examples=100, deadline=None)
@given(
    samples=st.integers(1, 2000),
    segment=st.integers(1, 500),
    overlap=st.floats(0, 0.99),
    start=st.integers(-400, 0),
)
def test_counts_of_a_plan_are_those_of_its_chunks(samples, segment, overlap, start):
    if int((1 - overlap) * segment) < 1:
        overlap = 0.0
    plan = ChunkPlan(samples, RATE, segment / RATE, overlap, starts=(start,))
    chunks = list(plan.chunks(start))
    assert plan.calls == len(chunks)
    assert plan.covered_samples == sum(each.samples for each in chunks)
    assert plan.computed_samples == sum(each.input_stop - each.input_start for each in chunks)
    useful = samples / plan.computed_samples
    assert plan.wasted_share == pytest.approx(1 - useful)
    assert 0 <= plan.wasted_share < 1
    assert chunks[0].start == start
    assert chunks[-1].stop == samples


@settings(deadline=None)
@given(
    samples=st.integers(1, 3000),
    segment=st.integers(1, 400),
    overlap=st.floats(0, 0.9),
    starts=st.lists(st.integers(-200, 0), min_size=1, max_size=3),
)
def test_boundaries_are_where_chunks_begin_and_end(samples, segment, overlap, starts):
    if int((1 - overlap) * segment) < 1:
        overlap = 0.0
    plan = ChunkPlan(samples, RATE, segment / RATE, overlap, starts=tuple(starts))
    edges = {e for start in starts for each in plan.chunks(start) for e in (each.start, each.stop)}
    assert plan.boundaries.tolist() == sorted(e for e in edges if 0 < e < samples)


def test_shares_of_a_padded_plan():
    # Ten segments of 2 s without overlap, each padded to 8 s: three quarters are padding.
    plan = ChunkPlan(20 * RATE, RATE, 2, 0.0, input_samples=2 * RATE, network_samples=8 * RATE)
    assert (plan.calls, plan.computed_samples) == (10, 80 * RATE)
    assert (plan.overlap_share, plan.padding_share) == (0.0, 0.75)


def test_last_chunk_looks_back_at_real_samples():
    plan = ChunkPlan(
        samples=110, sample_rate=RATE, segment_seconds=0.1, overlap=0, input_samples=100
    )
    last = list(plan.chunks())[-1]
    assert (last.start, last.stop) == (100, 110)
    assert (last.input_start, last.input_stop) == (55, 155)
    signal = np.arange(1, 111, dtype=np.float32)[None]
    window = MixtureWindow(in_blocks(signal, 7), 1, 110)
    window.read(0, 110)
    seen = window.read(last.input_start, last.input_stop)
    np.testing.assert_array_equal(seen[0, :55], signal[0, 55:])
    assert not seen[0, 55:].any()


def test_memory_does_not_grow_with_the_recording():
    held = []

    def most_held(samples):
        signal = np.zeros((2, samples), np.float32)
        window = MixtureWindow(in_blocks(signal, 50), 2, samples)
        plan = ChunkPlan(samples, RATE, 0.2, 0.25, input_samples=200)
        held.clear()
        for _ in overlap_add(
            window,
            [plan],
            lambda _, inputs: inputs[:, None],
            gains=np.ones((1, 1), np.float32),
            channels=2,
            on_calls=lambda *_: held.append(window._timeline._data.shape[-1]),
        ):
            pass
        return max(held)

    assert most_held(100_000) == most_held(10_000)


def test_nothing_runs_ahead_and_closing_stops():
    calls = []

    def estimate(_, inputs):
        calls.append(1)
        return inputs[:, None]

    signal = np.zeros((1, 1000), np.float32)
    stream = overlap_add(
        MixtureWindow(in_blocks(signal, 100), 1, 1000),
        [ChunkPlan(1000, RATE, 0.1, 0.0)],
        estimate,
        gains=np.ones((1, 1), np.float32),
        channels=1,
    )
    next(stream)
    stream.close()
    assert len(calls) == 1


def test_a_call_gets_as_many_chunks_of_one_length_as_fit():
    sizes, told = [], []

    def estimate(_, inputs):
        sizes.append(inputs.shape)
        return inputs[:, None]

    # Seven whole chunks, and half of one.
    for _ in overlap_add(
        MixtureWindow(in_blocks(np.zeros((2, 750), np.float32), 37), 2, 750),
        [ChunkPlan(750, RATE, 0.1, 0.0)],
        estimate,
        gains=np.ones((1, 1), np.float32),
        channels=2,
        batch_size=3,
        on_calls=lambda *each: told.append(each),
    ):
        pass
    assert sizes == [(3, 2, 100), (3, 2, 100), (1, 2, 100), (1, 2, 50)]
    assert told == [(3, 300), (3, 600), (1, 700), (1, 750)]


def test_each_member_of_a_bag_has_its_share_in_each_source():
    signal = np.random.default_rng(0).standard_normal((2, 500)).astype(np.float32)
    gains = np.array([[0.25, 1.0], [0.75, 0.0]], np.float32)
    plans = [ChunkPlan(500, RATE, 0.1, 0.5), ChunkPlan(500, RATE, 0.07, 0.25, starts=(0, -30))]
    blocks = overlap_add(
        MixtureWindow(in_blocks(signal, 37), 2, 500),
        plans,
        lambda member, inputs: np.stack([inputs, -inputs], axis=1) * np.float32(1 + 10 * member),
        gains=gains,
        channels=2,
    )
    result = np.concatenate([each for _, each in blocks], axis=-1)
    shares = (gains * [[1], [11]]).sum(0)
    np.testing.assert_allclose(result, [shares[0] * signal, -shares[1] * signal], atol=3e-5)


@pytest.mark.parametrize("samples", [1, 2, 3, 8, 9, 344])
def test_window_rises_in_equal_steps_to_one_and_falls_again(samples):
    window = triangular_window(samples)
    assert window.shape == (samples,)
    assert window.dtype == np.float32
    assert window.min() > 0
    assert window.max() == 1
    steps = np.minimum(np.arange(1, samples + 1), np.arange(samples, 0, -1))
    np.testing.assert_allclose(window, steps / steps.max(), rtol=1e-6)


def test_a_segment_is_a_positive_number_up_to_an_hour():
    for good in (1, 0.5, Fraction(39, 5), np.float32(2), np.float16(8), np.int8(8), 3600):
        assert check_segment_seconds(good) == good
        assert type(check_segment_seconds(good)) in (float, Fraction)
    huge = (3600.1, 1e305, 10**400, Fraction(10**400), np.float64(1e305), np.longdouble(1e305))
    for bad in (0, -1.0, True, "1", np.inf, np.nan, 1j, np.complex64(1), [1.0], None, *huge):
        with pytest.raises(
            ParameterError, match=r"not a number of seconds above 0 and at most 3,600\. Leave it"
        ):
            check_segment_seconds(bad)


@pytest.mark.parametrize("kind", [np.float16, np.int8, np.float32])
def test_small_types_of_numpy_do_not_overflow_in_a_plan(kind):
    plan = ChunkPlan(samples=10**6, sample_rate=44_100, segment_seconds=kind(8))
    assert plan.segment_samples == 8 * 44_100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"overlap": 1.0}, r"overlap=1\.0 .*\[0, 1\)"),
        ({"overlap": -0.1}, r"overlap=-0\.1"),
        ({"overlap": float("nan")}, "overlap=nan"),
        ({"overlap": True}, "overlap=True"),
        ({"overlap": 0.9999}, "hop of no sample"),
        ({"segment_seconds": 0}, "segment_seconds=0"),
        ({"segment_seconds": float("inf")}, "segment_seconds=inf"),
        ({"segment_seconds": 1e305}, r"segment_seconds=1e\+305"),
        ({"segment_seconds": 1e-4}, "shorter than one sample"),
        ({"samples": 0}, "samples=0"),
    ],
)
def test_impossible_plans_are_refused(change, message):
    arguments = {"samples": 100, "sample_rate": RATE, "segment_seconds": 0.1, **change}
    with pytest.raises(ParameterError, match=message):
        ChunkPlan(**arguments)


@settings(max_examples=80, deadline=None)
@given(
    samples=st.integers(1, 700),
    segment=st.integers(2, 300),
    overlap=st.floats(0, 0.9),
    context=st.integers(0, 50) | st.none(),
    starts=st.lists(st.integers(-200, 0), min_size=1, max_size=3),
    members=st.integers(1, 2),
    place=st.floats(0, 1),
    batch_size=st.integers(1, 4),
)
def test_a_run_can_begin_where_another_one_ended(
    samples, segment, overlap, context, starts, members, place, batch_size
):
    """To the last bit, though sums of single precision depend on their order."""
    if int((1 - overlap) * segment) < 1:
        overlap = 0.0
    plan = ChunkPlan(
        samples,
        RATE,
        segment / RATE,
        overlap,
        input_samples=None if context is None else segment + context,
        starts=tuple(starts),
    )
    signal = np.random.default_rng(samples).standard_normal((2, samples)).astype(np.float32)

    calls = []

    def run(begin):
        calls.clear()
        return overlap_add(
            MixtureWindow(in_blocks(signal, 37), 2, samples),
            [plan] * members,
            # Depends on where the chunk lies, and on what else is in the call.
            lambda member, inputs: (
                (np.cumsum(inputs, axis=-1) + inputs.sum(axis=0))[:, None] + np.float32(member / 3)
            ),
            gains=np.full((members, 1), 1 / members, np.float32),
            channels=2,
            batch_size=batch_size,
            begin=begin,
            on_calls=lambda count, _: calls.append(count),
        )

    blocks = [*run(0)]
    whole = np.concatenate([each for _, each in blocks], axis=-1)
    begin = blocks[int(place * (len(blocks) - 1))][0]
    rest = [*run(begin)]
    assert rest[0][0] == begin
    assert sum(calls) == members * plan.calls_from(begin, batch_size)
    chunks = [each for start in starts for each in plan.chunks(start)]
    needed = sum(each.stop > begin for each in chunks) if begin else plan.calls
    assert plan.calls_from(begin) == needed
    assert plan.calls_from(begin, batch_size) - needed < batch_size * len(starts)
    if begin:
        wanted = [chunk for chunk in plan.chunks(starts[0]) if chunk.stop > begin]
        assert [*plan.chunks(starts[0], begin)] == wanted
    np.testing.assert_array_equal(
        np.concatenate([each for _, each in rest], axis=-1), whole[..., begin:]
    )
    assert [*run(samples)] == []


def test_a_resumed_run_makes_the_calls_of_one_run():
    """With three chunks in a call, from every sample on, to the last bit."""
    samples = 230
    plan = ChunkPlan(samples, RATE, 0.05, 0.5, starts=(0, -17))
    signal = np.random.default_rng(0).standard_normal((2, samples)).astype(np.float32)

    def run(begin):
        made = []

        def estimate(_, inputs):
            made.append(inputs.tobytes())
            return (inputs + inputs.sum(axis=0))[:, None]

        blocks = overlap_add(
            MixtureWindow(in_blocks(signal, 37), 2, samples),
            [plan],
            estimate,
            gains=np.ones((1, 1), np.float32),
            channels=2,
            batch_size=3,
            begin=begin,
        )
        return np.concatenate([each for _, each in blocks], axis=-1), made

    whole, calls = run(0)
    for begin in range(samples):
        rest, made = run(begin)
        np.testing.assert_array_equal(rest, whole[..., begin:])
        assert set(made) <= set(calls)


@settings(max_examples=100, deadline=None)
@given(
    samples=st.integers(1, 700),
    segment=st.integers(2, 300),
    overlap=st.floats(0, 0.9),
    start=st.integers(-200, 0),
)
def test_a_tail_that_is_covered_can_be_skipped(samples, segment, overlap, start):
    if int((1 - overlap) * segment) < 1:
        overlap = 0.0
    asked = {"samples": samples, "sample_rate": RATE, "segment_seconds": segment / RATE}
    whole = [*ChunkPlan(**asked, overlap=overlap, starts=(start,)).chunks(start)]
    plan = ChunkPlan(**asked, overlap=overlap, starts=(start,), skip_covered_tail=True)
    kept = [*plan.chunks(start)]
    assert kept == whole[: len(kept)]
    assert plan.calls == len(kept)
    assert [each.stop for each in kept].index(samples) == len(kept) - 1
    assert plan.covered_samples == sum(each.samples for each in kept)
