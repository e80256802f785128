"""Separation against Demucs itself: real networks, its own `apply_model` as the reference."""

from __future__ import annotations

import copy
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from demucs import apply as demucs_apply
from demucs.apply import BagOfModels, apply_model
from demucs.htdemucs import HTDemucs

from stemlab import audio as audio_io
from stemlab.errors import (
    AudioError,
    AudioNotFoundError,
    ModelNotFoundError,
    ModelRefusedError,
    OutOfMemoryError,
    OutputError,
    ParameterError,
    SeparationError,
    is_out_of_memory,
)
from stemlab.results import BlockStore
from stemlab.separation import (
    AudioStemSeparator,
    OutputSettings,
    SegmentDone,
    SeparationSettings,
    replay,
)

RATE = 44_100
TOLERANCE = 1e-5


def demucs_reference(network, mixture, **options):
    """What ``demucs.api.Separator`` computes, without its loading of models by name."""
    tensor = torch.from_numpy(mixture)
    level = tensor.mean(0)
    mean, deviation = level.mean(), level.std() + 1e-8
    options.setdefault("shifts", 0)
    estimate = apply_model(network, ((tensor - mean) / deviation)[None], **options)[0]
    return dict(zip(network.sources, (estimate * deviation + mean).numpy(), strict=True))


def assert_same(stems, reference):
    assert list(stems) == list(reference)
    for name, expected in reference.items():
        assert stems[name].shape == expected.shape
        assert stems[name].dtype == np.float32
        np.testing.assert_allclose(stems[name], expected, atol=TOLERANCE, rtol=0, err_msg=name)


def noise(rng, samples, channels=2):
    return (0.3 * rng.standard_normal((channels, samples)) + 0.02).astype(np.float32)


def write(path, mixture, rate=RATE, subtype="FLOAT"):
    soundfile.write(path, mixture.T, rate, subtype=subtype)
    return path


@pytest.fixture(scope="module")
def one_hot_bag(tiny_htdemucs):
    networks = [copy.deepcopy(tiny_htdemucs) for _ in tiny_htdemucs.sources]
    for index, network in enumerate(networks):
        with torch.no_grad():
            network.decoder[-1].conv_tr.weight.mul_(1 + 0.1 * index)
    return BagOfModels(networks, weights=np.eye(4).tolist())


@pytest.fixture(scope="module")
def networks(tiny_htdemucs, tiny_hdemucs, tiny_bag, one_hot_bag):
    return {
        "htdemucs": tiny_htdemucs,
        "hdemucs": tiny_hdemucs,
        "bag": tiny_bag,
        "one-hot": one_hot_bag,
    }


# ---------------------------------------------------------------- numerically it is Demucs


@pytest.mark.parametrize("name", ["htdemucs", "hdemucs", "bag", "one-hot"])
@pytest.mark.parametrize("samples", [5, RATE, RATE + 1, 70_000])
@pytest.mark.parametrize(("segment", "overlap"), [(None, 0.25), (0.4, 0.0), (0.77, 0.6)])
def test_equals_demucs(networks, rng, name, samples, segment, overlap):
    mixture = noise(rng, samples)
    untouched = mixture.copy()
    stems = AudioStemSeparator(networks[name], device="cpu").separate_audio(
        mixture, RATE, segment_seconds=segment, overlap=overlap
    )
    expected = demucs_reference(networks[name], mixture, segment=segment, overlap=overlap)
    assert_same(stems, expected)
    np.testing.assert_array_equal(mixture, untouched)


@pytest.mark.parametrize("segment", [None, 0.3, 0.9])
@pytest.mark.parametrize("samples", [5, RATE // 2, 70_000])
def test_equals_demucs_without_padding(tiny_htdemucs, rng, segment, samples):
    free = copy.deepcopy(tiny_htdemucs)
    free.use_train_segment = False
    mixture = noise(rng, samples)
    stems = AudioStemSeparator(tiny_htdemucs).separate_audio(
        mixture, RATE, segment_seconds=segment, pad_to_training_segment=False
    )
    assert_same(stems, demucs_reference(free, mixture, segment=segment))
    assert tiny_htdemucs.use_train_segment, "the caller's network was changed"


@pytest.mark.parametrize("name", ["htdemucs", "bag"])
def test_equals_demucs_with_shifts(networks, rng, monkeypatch, name):
    # Demucs draws from Python's global generator; its networks draw from it too, in between. Give
    # its draws a generator of their own, which is what the seed of stemlab stands for.
    monkeypatch.setattr(demucs_apply, "random", random.Random(5))
    mixture = noise(rng, 2 * RATE)
    stems = AudioStemSeparator(networks[name]).separate_audio(mixture, RATE, shifts=2, seed=5)
    assert_same(stems, demucs_reference(networks[name], mixture, shifts=2))


def test_shifts_come_from_the_seed_alone(tiny_htdemucs, rng):
    mixture = noise(rng, RATE)
    separator = AudioStemSeparator(tiny_htdemucs)
    numpy_state = np.random.get_state()[1].tolist()  # noqa: NPY002 - the global one is the point
    states = random.getstate(), numpy_state, torch.get_rng_state()
    first = separator.separate_audio(mixture, RATE, shifts=2, seed=1)
    assert random.getstate() == states[0]
    assert np.random.get_state()[1].tolist() == states[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    random.seed(99)
    again = separator.separate_audio(mixture, RATE, shifts=2, seed=1)
    other = separator.separate_audio(mixture, RATE, shifts=2, seed=2)
    np.testing.assert_array_equal(first["bass"], again["bass"])
    assert np.abs(first["bass"] - other["bass"]).max() > 1e-4


@pytest.mark.parametrize("name", ["htdemucs", "hdemucs"])
@pytest.mark.parametrize("mixture", [np.full((2, 1), 0.5), np.zeros((2, 3000)), np.ones((2, 3000))])
def test_finite_where_there_is_nothing_to_hear(networks, name, mixture):
    for separator_input in (mixture, mixture[0]):
        stems = AudioStemSeparator(networks[name]).separate_audio(separator_input, RATE)
        for stem in stems.values():
            assert np.isfinite(stem).all()
            assert np.abs(stem).max() <= 1.001


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory", True),
        ("could not create a primitive", True),
        ("could not create a primitive descriptor for a convolution forward propagation", False),
        ("mat1 and mat2 shapes cannot be multiplied", False),
        ("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", True),
        ("cuDNN error: CUDNN_STATUS_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", True),
        ("cuFFT error: CUFFT_ALLOC_FAILED", True),
        ("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED", False),
    ],
)
def test_what_counts_as_out_of_memory(message, expected):
    assert is_out_of_memory(RuntimeError(message)) is expected
    assert not is_out_of_memory(ValueError(message))


def test_batches_give_the_same_output(tiny_htdemucs, rng):
    mixture = noise(rng, 4 * RATE)
    alone = AudioStemSeparator(tiny_htdemucs).separate_audio(mixture, RATE)
    together = AudioStemSeparator(tiny_htdemucs, batch_size=3).separate_audio(mixture, RATE)
    assert_same(together, alone)


def test_a_network_in_training_mode_is_left_alone(tiny_htdemucs, rng):
    network = copy.deepcopy(tiny_htdemucs).train()
    mixture = noise(rng, RATE // 2)
    stems = AudioStemSeparator(network).separate_audio(mixture, RATE)
    assert network.training
    assert float(network.segment) == 1.0
    assert_same(stems, demucs_reference(tiny_htdemucs, mixture))


# ---------------------------------------------------------------- audio formats


def test_one_hot_bag_runs_only_what_is_needed(one_hot_bag, rng):
    separator = AudioStemSeparator(one_hot_bag)
    mixture = noise(rng, RATE)
    everything = separator.separate_audio(mixture, RATE)
    events: list[SegmentDone] = []
    bass = separator.separate_audio(mixture, RATE, sources=["bass"], progress=events.append)
    np.testing.assert_array_equal(bass["bass"], everything["bass"])
    assert list(bass) == ["bass"]
    assert len(separator.plan(RATE)) == 4
    assert events[-1].total == sum(
        each.calls for each in separator.plan(RATE, SeparationSettings(sources=["bass"]))
    )


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("channels", [1, 2])
def test_length_rate_and_channels_of_the_input(tiny_htdemucs, rng, rate, channels):
    mixture = noise(rng, rate // 3 + 1, channels)
    stems = AudioStemSeparator(tiny_htdemucs).separate_audio(mixture, rate)
    for stem in stems.values():
        assert stem.shape == mixture.shape
        assert stem.any()


def test_mono_is_the_mean_of_a_doubled_mono(tiny_htdemucs, rng):
    mono = noise(rng, RATE, 1)
    separator = AudioStemSeparator(tiny_htdemucs)
    flat = separator.separate_audio(mono[0], RATE)
    doubled = separator.separate_audio(np.repeat(mono, 2, axis=0), RATE)
    for name, stem in flat.items():
        np.testing.assert_allclose(stem[0], doubled[name].mean(axis=0), atol=1e-6)


def test_progress_is_complete_and_in_order(tiny_htdemucs, rng):
    events: list[SegmentDone] = []
    AudioStemSeparator(tiny_htdemucs).separate_audio(
        noise(rng, 3 * RATE), RATE, progress=events.append
    )
    assert [each.done for each in events] == list(range(1, events[0].total + 1))
    assert events[-1].audio_seconds == 3.0
    assert events[-1].remaining_seconds == 0
    assert events[0].remaining_seconds > 0


# ---------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"overlap": 1}, "overlap=1 "),
        ({"segment_seconds": 2}, "segment_seconds=2 is longer than the 1 s of"),
        ({"segment_seconds": 0.001}, "segment_seconds=0.001 is shorter"),
        ({"segment_seconds": -1}, "segment_seconds=-1"),
        ({"segment_seconds": 1e305}, r"segment_seconds=1e\+305 .* at most 3,600"),
        ({"shifts": 101}, r"shifts=101 .*\[0, 100\]"),
        ({"shifts": 1.5}, "shifts=1.5"),
        ({"seed": -1}, "seed=-1"),
        ({"sources": ["piano"]}, "sources='piano' .*drums, bass, other, vocals"),
        ({"sources": []}, "empty"),
        ({"sources": "bass"}, "not a list of names"),
        ({"sources": ["bass", "bass"]}, "twice"),
    ],
)
def test_parameters_are_checked_before_anything_is_touched(
    tiny_htdemucs, tmp_path, settings, message
):
    separator = AudioStemSeparator(tiny_htdemucs)
    with pytest.raises(ParameterError, match=message):
        separator.separate_file(tmp_path / "missing.wav", tmp_path / "out", **settings)
    with pytest.raises(ParameterError, match=message):
        separator.separate_audio(np.zeros((2, 0)), RATE, **settings)
    assert not (tmp_path / "out").exists()


def test_settings_are_passed_as_one_object_or_as_keywords(tiny_htdemucs, rng):
    separator = AudioStemSeparator(tiny_htdemucs)
    options = {"overlap": 0.5, "shifts": 1, "sources": ["bass"]}
    settings = SeparationSettings(**options)
    assert separator.plan(10 * RATE, settings) == separator.plan(10 * RATE, **options)
    mixture = noise(rng, RATE)
    expected = separator.separate_audio(mixture, RATE, **options)
    assert_same(separator.separate_audio(mixture, RATE, settings=settings), expected)


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("plan", (RATE,)),
        ("check", ()),
        ("separate_audio", ([0.0], RATE)),
        ("stream_file", ("song.wav",)),
        ("separate_file", ("song.wav", "out")),
    ],
)
def test_unknown_settings_and_both_ways_at_once_are_refused(tiny_htdemucs, method, arguments):
    call = getattr(AudioStemSeparator(tiny_htdemucs), method)
    with pytest.raises(TypeError, match=r"overlaps is not a setting\. Choose among segment_sec"):
        call(*arguments, overlaps=0.5)
    with pytest.raises(ParameterError, match="settings and overlap were passed together"):
        call(*arguments, settings=SeparationSettings(), overlap=0.5)


def test_a_costly_segment_runs_and_says_so(tiny_htdemucs, tmp_path, rng):
    song = write(tmp_path / "song.wav", noise(rng, RATE))
    result = AudioStemSeparator(tiny_htdemucs).separate_file(song, tmp_path, segment_seconds=0.5)
    (note,) = result.manifest["changes"]
    assert "0.5 s is padded to 1 s" in note
    assert "2.0 times as many" in note


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        (np.zeros((2, 0)), "empty|no samples"),
        (np.full((2, 50), np.nan), "finite|NaN"),
        (np.zeros((3, 50)), "channels"),
    ],
)
def test_unusable_audio_is_refused(tiny_htdemucs, mixture, message):
    with pytest.raises(AudioError, match=message):
        AudioStemSeparator(tiny_htdemucs).separate_audio(mixture, RATE)


@pytest.mark.parametrize("sources", [["a/b", "c"], ["../x", "c"], ["a", "a"], ["A", "a"]])
def test_sources_that_cannot_name_files_are_refused(tiny_htdemucs, sources):
    network = copy.deepcopy(tiny_htdemucs)
    network.sources = sources
    with pytest.raises(ModelRefusedError, match="cannot name files"):
        AudioStemSeparator(network)


def test_other_networks_are_refused(tiny_htdemucs):
    with pytest.raises(ModelRefusedError, match="is a Linear"):
        AudioStemSeparator(torch.nn.Linear(2, 2))
    mono = HTDemucs(["a", "b"], audio_channels=1, channels=16, segment=1)
    with pytest.raises(ModelRefusedError, match="1 channels"):
        AudioStemSeparator(mono)
    with pytest.raises(ModelRefusedError, match="share in 'drums'"):
        AudioStemSeparator(BagOfModels([tiny_htdemucs], weights=[[0, 1, 1, 1]]))
    with pytest.raises(ParameterError, match="device='gpu'"):
        AudioStemSeparator(tiny_htdemucs, device="gpu")


def test_a_network_that_fails_is_not_a_success(tiny_htdemucs, rng):
    broken = copy.deepcopy(tiny_htdemucs)
    with torch.no_grad():
        broken.decoder[-1].conv_tr.bias.fill_(float("nan"))
    with pytest.raises(SeparationError, match="not finite"):
        AudioStemSeparator(broken).separate_audio(noise(rng, 1000), RATE)


# ---------------------------------------------------------------- memory


def _limited(network, most):
    """A network whose device holds at most `most` segments. The error is real, the cause is not:
    a device whose memory is too small cannot be had here."""

    def refuse(_, inputs):
        if inputs[0].shape[0] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    limited = copy.deepcopy(network)
    limited.register_forward_pre_hook(refuse)
    return limited


def test_out_of_memory_takes_fewer_segments_at_once(tiny_htdemucs, tmp_path, rng):
    song = write(tmp_path / "song.wav", noise(rng, 5 * RATE))
    separator = AudioStemSeparator(_limited(tiny_htdemucs, 1), batch_size=4)
    result = separator.separate_file(song, tmp_path / "limited")
    assert result.manifest["changes"] == [
        "Ran with Demucs' own forward, which is slower: the network has a hook in itself.",
        "Memory of cpu ran out with 4 segments in one call: continued with 2.",
        "Memory of cpu ran out with 2 segments in one call: continued with 1.",
    ]
    plain = AudioStemSeparator(tiny_htdemucs).separate_file(song, tmp_path / "plain")
    for name, path in result.stems.items():
        found, expected = soundfile.read(path)[0], soundfile.read(plain.stems[name])[0]
        np.testing.assert_allclose(found, expected, atol=TOLERANCE)


def test_out_of_memory_with_one_segment_names_what_would_fit(tiny_htdemucs, tmp_path, rng):
    song = write(tmp_path / "song.wav", noise(rng, RATE))
    separator = AudioStemSeparator(_limited(tiny_htdemucs, 0))
    with pytest.raises(OutOfMemoryError, match=r"--segment 0\.5 --no-pad"):
        separator.separate_file(song, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------- files


def test_a_file_gives_what_its_array_gives(tiny_htdemucs, tmp_path, rng):
    mixture = noise(rng, 2 * RATE + 123)
    song = write(tmp_path / "song.wav", mixture)
    separator = AudioStemSeparator(tiny_htdemucs)
    result = separator.separate_file(song, tmp_path / "out")
    expected = separator.separate_audio(mixture, RATE)
    assert result.manifest_path == tmp_path / "out" / "song" / "run.json"
    assert sorted(each.name for each in (tmp_path / "out" / "song").iterdir()) == sorted(
        ["run.json", *(f"{name}.wav" for name in separator.sources)]
    )
    for name, path in result.stems.items():
        stem, rate = soundfile.read(path, dtype="float32")
        assert rate == RATE
        np.testing.assert_array_equal(stem.T, expected[name])


def test_stream_file_yields_gapless_blocks(tiny_htdemucs, tmp_path, rng):
    mixture = noise(rng, 48_000 * 2, 1)
    song = write(tmp_path / "song.flac", mixture, 48_000, "PCM_16")
    position = 0
    for block in AudioStemSeparator(tiny_htdemucs).stream_file(song):
        assert block.start == position
        position += block.stems["bass"].shape[1]
        assert block.stems["bass"].shape[0] == 1
    assert position == mixture.shape[1]


def test_the_manifest_says_what_was_done(tiny_htdemucs, tmp_path, rng):
    song = write(tmp_path / "song.wav", noise(rng, RATE, 1), 48_000)
    result = AudioStemSeparator(tiny_htdemucs).separate_file(
        song, tmp_path / "out", overlap=0.5, shifts=1, seed=4
    )
    manifest = json.loads(result.manifest_path.read_text("utf-8"))
    assert manifest == result.manifest
    assert manifest["input"]["sha256"] == audio_io.file_digest(song)
    assert (manifest["input"]["sample_rate"], manifest["input"]["samples"]) == (48_000, RATE)
    assert (result.manifest_path.parent / manifest["input"]["path"]).resolve() == song.resolve()
    assert len(manifest["model"]["sha256"]) == 64
    assert manifest["parameters"]["overlap"] == 0.5
    assert manifest["parameters"]["seed"] == 4
    assert manifest["device"]["name"] == "cpu"
    assert manifest["device"]["reason"].startswith("auto")
    assert manifest["plan"][0]["calls"] > 1
    assert manifest["cost"]["rtf"] > 0
    assert manifest["versions"]["torch"].startswith("2.")
    for name, each in manifest["stems"].items():
        assert audio_io.file_digest(result.stems[name]) == each["sha256"]


@pytest.mark.parametrize("rate", [8_000, 44_100, 192_000])
@pytest.mark.parametrize("two_stems", [None, "bass"])
def test_the_disk_check_counts_what_is_written(
    tiny_htdemucs, tmp_path, rng, monkeypatch, rate, two_stems
):
    song = write(tmp_path / "song.wav", noise(rng, rate), rate)
    expected, written = [], []
    publish = BlockStore.publish

    def measure(store, *arguments):
        (work,) = (tmp_path / "out").glob(".stemlab-*.partial")
        written.append(sum(path.stat().st_size for path in work.iterdir()))
        publish(store, *arguments)

    monkeypatch.setattr(BlockStore, "publish", measure)
    monkeypatch.setattr(
        "stemlab.separation._files.check_capacity",
        lambda _folder, room, _song: expected.append(room),
    )
    output = OutputSettings(two_stems=two_stems)
    AudioStemSeparator(tiny_htdemucs).separate_file(song, tmp_path / "out", output=output)
    assert written == pytest.approx(expected, rel=0.05)


def test_two_stems_sum_to_the_mixture(one_hot_bag, tmp_path, rng):
    mixture = noise(rng, 48_000)
    song = write(tmp_path / "song.wav", mixture, 48_000)
    result = AudioStemSeparator(one_hot_bag).separate_file(
        song, tmp_path, output=OutputSettings(two_stems="bass")
    )
    assert list(result.stems) == ["bass", "no_bass"]
    assert len(result.manifest["plan"]) == 1, "only one network of the bag is needed"
    total = sum(soundfile.read(path)[0] for path in result.stems.values())
    np.testing.assert_allclose(total, mixture.T, atol=1e-6)


@pytest.mark.parametrize(("clip", "loudest"), [("rescale", None), ("clamp", 1.0)])
def test_loud_stems_in_an_integer_format(tiny_htdemucs, tmp_path, rng, clip, loudest):
    song = write(tmp_path / "song.wav", 20 * noise(rng, RATE))
    separator = AudioStemSeparator(tiny_htdemucs)
    output = OutputSettings(format="flac", bits=16, clip=clip)
    result = separator.separate_file(song, tmp_path / clip, output=output)
    exact = separator.separate_file(song, tmp_path / "float")
    (change,) = result.manifest["changes"]
    assert "above full scale" in change
    assert exact.manifest["changes"] == []
    peak = max(each["peak"] for each in exact.manifest["stems"].values())
    assert peak > 1
    for name, path in result.stems.items():
        stem = soundfile.read(path)[0]
        full = soundfile.read(exact.stems[name])[0]
        expected = full / peak if loudest is None else np.clip(full, -1, loudest)
        np.testing.assert_allclose(stem, expected, atol=1e-4)


@pytest.mark.parametrize("bits", [None, 32])
def test_float_wav_keeps_loud_stems_whatever_clip_says(tiny_htdemucs, tmp_path, rng, bits):
    song = write(tmp_path / "song.wav", 20 * noise(rng, 5000))
    separator = AudioStemSeparator(tiny_htdemucs)
    result = separator.separate_file(
        song, tmp_path / "out", output=OutputSettings(bits=bits, clip="clamp")
    )
    assert result.manifest["changes"] == []
    peaks = {name: each["peak"] for name, each in result.manifest["stems"].items()}
    assert max(peaks.values()) > 1
    for name, path in result.stems.items():
        assert np.abs(soundfile.read(path)[0]).max() == pytest.approx(peaks[name])


def test_songs_of_one_name_do_not_meet(tiny_htdemucs, tmp_path, rng):
    separator = AudioStemSeparator(tiny_htdemucs)
    results = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        song = write(tmp_path / folder / "song.wav", noise(rng, 5000))
        results.append(separator.separate_file(song, tmp_path / "out"))
    first, second = (each.manifest_path.parent for each in results)
    assert first.name == "song"
    assert second.name == f"song-{results[1].manifest['input']['sha256'][:8]}"


def test_an_earlier_result_is_kept_unless_forced(tiny_htdemucs, tmp_path, rng):
    separator = AudioStemSeparator(tiny_htdemucs)
    song = write(tmp_path / "song.wav", noise(rng, 5000))
    first = separator.separate_file(song, tmp_path / "out")
    before = {path: path.read_bytes() for path in first.stems.values()}
    with pytest.raises(OutputError, match=r"exists already.*--force"):
        separator.separate_file(song, tmp_path / "out", overlap=0.5)
    assert {path: path.read_bytes() for path in before} == before
    forced = separator.separate_file(
        song, tmp_path / "out", output=OutputSettings(force=True, two_stems="bass", format="flac")
    )
    assert sorted(each.name for each in forced.manifest_path.parent.iterdir()) == [
        "bass.flac",
        "no_bass.flac",
        "run.json",
    ]


class Cancelled(Exception):
    """What a test's progress callback raises."""


def test_cancelling_leaves_nothing(tiny_htdemucs, tmp_path, rng):
    song = write(tmp_path / "song.wav", noise(rng, 3 * RATE))

    def cancel(event):
        if event.done == 2:
            assert list(tmp_path.glob("out/.stemlab-*.partial/*.f32"))
            raise Cancelled

    with pytest.raises(Cancelled):
        AudioStemSeparator(tiny_htdemucs).separate_file(song, tmp_path / "out", progress=cancel)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("out", ["out", "folder/../out"])
def test_a_result_is_replaced_though_a_stem_was_deleted(tiny_htdemucs, tmp_path, rng, out):
    (tmp_path / "folder").mkdir()
    separator = AudioStemSeparator(tiny_htdemucs)
    song = write(tmp_path / "song.wav", noise(rng, 5000))
    first = separator.separate_file(song, tmp_path / out)
    first.stems["bass"].unlink()
    again = separator.separate_file(song, tmp_path / out, output=OutputSettings(force=True))
    assert again.stems == first.stems
    for name, path in again.stems.items():
        assert audio_io.file_digest(path) == again.manifest["stems"][name]["sha256"]


def test_replacing_reaches_stems_in_folders_of_their_own(tiny_htdemucs, tmp_path, rng):
    separator = AudioStemSeparator(tiny_htdemucs)
    song = write(tmp_path / "song.wav", noise(rng, 5000))
    for sources in (["bass", "drums"], ["drums"]):
        output = OutputSettings(filename="{source}/{song}.{ext}", force=True)
        separator.separate_file(song, tmp_path / "out", sources=sources, output=output)
    found = sorted(str(each.relative_to(tmp_path / "out")) for each in tmp_path.rglob("out/*/*"))
    assert found == [os.path.join("drums", "song.wav"), os.path.join("run", "song.json")]


def test_one_separator_serves_two_threads(tiny_htdemucs, rng):
    separator = AudioStemSeparator(tiny_htdemucs)
    mixture = noise(rng, 3 * RATE)

    def separate(pad):
        return separator.separate_audio(
            mixture, RATE, segment_seconds=0.5, pad_to_training_segment=pad
        )["bass"]

    expected = {pad: separate(pad) for pad in (True, False)}
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(separate, [True, False] * 4))
    for number, stem in enumerate(found):
        np.testing.assert_allclose(stem, expected[number % 2 == 0], atol=1e-6)


def test_a_recording_that_changes_is_refused(tiny_htdemucs, tmp_path, rng):
    song = write(tmp_path / "song.wav", noise(rng, 3 * RATE))

    def change(event):
        if event.done == 1:
            write(song, noise(rng, 3 * RATE))

    with pytest.raises(AudioError, match="changed|short|decod"):
        AudioStemSeparator(tiny_htdemucs).separate_file(song, tmp_path / "out", progress=change)
    assert not (tmp_path / "out").exists()


def test_missing_song(tiny_htdemucs, tmp_path):
    with pytest.raises(AudioNotFoundError, match="missing.wav"):
        AudioStemSeparator(tiny_htdemucs).separate_file(tmp_path / "missing.wav", tmp_path)


# ---------------------------------------------------------------- replay


def test_replay_of_a_ready_network_is_refused(tiny_htdemucs, tmp_path, rng):
    song = write(tmp_path / "song.wav", noise(rng, 5000))
    result = AudioStemSeparator(tiny_htdemucs).separate_file(song, tmp_path)
    with pytest.raises(ParameterError, match="ready network"):
        replay(result.manifest_path)
    with pytest.raises(ParameterError, match="cannot be read"):
        replay(tmp_path / "nothing.json")
    with pytest.raises(ParameterError, match="not a run manifest"):
        replay(song)


def test_a_relative_model_folder_survives_a_change_of_folder(
    tiny_model_folder, tmp_path, rng, monkeypatch
):
    song = write(tmp_path / "song.wav", noise(rng, 5000))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(Path(tiny_model_folder).parent)
    separator = AudioStemSeparator("./tiny", device="cpu")
    from_path = AudioStemSeparator(Path("tiny"), device="cpu")
    monkeypatch.chdir(tmp_path / "elsewhere")
    result = separator.separate_file(song, tmp_path / "out")
    assert from_path.separate_audio(noise(rng, 100), RATE)
    # It is recorded as it was typed, and replayed where that leads to it.
    assert result.manifest["model"]["request"] == separator.request == "./tiny"
    assert AudioStemSeparator(separator.resolved_request).model_sha256 == separator.model_sha256
    with pytest.raises(ModelNotFoundError, match="Change to the folder in which the run was"):
        replay(result.manifest_path)
    monkeypatch.chdir(Path(tiny_model_folder).parent)
    assert replay(result.manifest_path).equal


@pytest.mark.parametrize("result", ["result", "two-stems"])
def test_a_run_of_version_0_1_can_be_repeated(v0_1, result):
    report = replay(v0_1 / result / "song" / "run.json")
    # The last bits depend on the processor and on the versions of the libraries.
    assert all(difference < 1e-4 for difference in report.largest_difference.values())


# ---------------------------------------------------------------- memory does not grow


@pytest.mark.memory
@pytest.mark.skipif(sys.platform == "win32", reason="the system does not tell peak memory")
def test_peak_memory_does_not_grow_with_the_song(tmp_path, rng):
    """Fresh processes, a real network, 8 s against four times as much.

    glibc keeps freed blocks, up to some 50 MB more or less of them from run to run; told to give
    each large one back, it leaves what is really held, the same each time within 1 MB.
    """
    code = (
        "import sys, torch\n"
        "from demucs.htdemucs import HTDemucs\n"
        "from stemlab.separation import AudioStemSeparator\n"
        "torch.set_num_threads(1)\n"
        "network = HTDemucs(['a', 'b', 'c', 'd'], channels=8, t_layers=0, segment=2).eval()\n"
        "result = AudioStemSeparator(network).separate_file(*sys.argv[1:])\n"
        "print(result.manifest['cost']['peak_memory_bytes'])\n"
    )
    peaks = []
    for seconds in (8, 32):
        path = tmp_path / f"{seconds}.wav"
        with soundfile.SoundFile(path, "w", RATE, 2) as file:
            for _ in range(seconds):
                file.write(0.1 * rng.standard_normal((RATE, 2)))
        done = subprocess.run(
            [sys.executable, "-c", code, str(path), str(tmp_path / "out")],
            env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] < 1.02 * peaks[0]


def test_a_file_in_the_temporary_folder_stops_no_separation(tmp_path):
    """Of the name that PyTorch's compiler would give to the folder of its cache."""
    (tmp_path / "torchinductor_somebody").touch()
    code = (
        "import os, stemlab\n"
        "stemlab.AudioStemSeparator(device='cpu').separate_file(os.environ['SONG'], 'stems',\n"
        "    segment_seconds=1, overlap=0, pad_to_training_segment=False)\n"
        "print(os.environ.get('TORCHINDUCTOR_CACHE_DIR'))\n"
    )
    soundfile.write(tmp_path / "song.wav", np.zeros((4410, 2)), 44_100)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={
            **{name: value for name, value in os.environ.items() if "INDUCTOR" not in name},
            "SONG": str(tmp_path / "song.wav"),
            "TMPDIR": str(tmp_path),
            "LOGNAME": "somebody",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr
    # What the compiler was given instead is gone.
    found = {path.name for path in tmp_path.iterdir()}
    assert found == {"song.wav", "stems", "torchinductor_somebody"}
