"""The cost model: what must hold exactly, and a real calibration within very loose bounds."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import planted
import pytest

from stemlab import SeparationSettings, cost
from stemlab._assets import demo_song_dir
from stemlab.cost import CostModel, calibrate
from stemlab.errors import ParameterError
from stemlab.memory import fit_memory
from stemlab.separation import AudioStemSeparator

RATE = 44_100


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("STEMLAB_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def mini():
    return AudioStemSeparator("stemlab-mini", device="cpu")


@pytest.fixture
def model():
    """A model of invented figures: a call of x s takes 0.1 + 0.2 x + 0.01 x² s."""
    return CostModel(
        model="stemlab-mini",
        device="cpu",
        batch_size=1,
        sources=4,
        shape="stemlab-mini",
        call=(0.1, 0.2, 0.01),
        lengths=(1.95, 7.8),
        factors=(1.0, 1.0),
        memory=(3e8, 5e7, 0.0),
        together=False,
        time_error=0.2,
        memory_error=0.1,
    )


def estimate(model, separator, seconds=78, **settings):
    plans = separator.plan(int(seconds * RATE), SeparationSettings(**settings))
    return model.estimate(plans), plans


def test_the_arithmetic_is_that_of_the_plan(model, mini):
    found, plans = estimate(model, mini, overlap=0.0)
    assert found.calls == plans[0].calls == 10
    assert found.seconds == pytest.approx(10 * (0.1 + 0.2 * 7.8 + 0.01 * 7.8**2))
    assert found.rtf == pytest.approx(found.seconds / 78)
    assert found.peak_memory_bytes == pytest.approx(3e8 + 5e7 * 7.8, rel=1e-6)


def test_a_machine_half_as_fast_takes_twice_as_long(model, mini):
    slow = dataclasses.replace(model, factors=(2.0, 2.0))
    once, _ = estimate(model, mini)
    twice, _ = estimate(slow, mini)
    assert twice.seconds == pytest.approx(2 * once.seconds)
    assert twice.peak_memory_bytes == once.peak_memory_bytes


def test_padding_costs_as_much_per_call_and_saves_no_memory(model, mini):
    padded, _ = estimate(model, mini, segment_seconds=1.95, overlap=0.0)
    whole, _ = estimate(model, mini, overlap=0.0)
    free, _ = estimate(
        model, mini, segment_seconds=1.95, overlap=0.0, pad_to_training_segment=False
    )
    assert padded.seconds == pytest.approx(4 * whole.seconds)
    assert padded.peak_memory_bytes == whole.peak_memory_bytes
    assert free.seconds < 1.5 * whole.seconds
    assert free.peak_memory_bytes < whole.peak_memory_bytes


def test_overlap_and_shifts_multiply(model, mini):
    none, _ = estimate(model, mini, seconds=780, overlap=0.0)
    half, _ = estimate(model, mini, seconds=780, overlap=0.5)
    assert half.seconds == pytest.approx(2 * none.seconds, rel=0.01)
    shifted, _ = estimate(model, mini, seconds=780, overlap=0.0, shifts=3)
    assert shifted.seconds == pytest.approx(3 * none.seconds, rel=0.02)
    assert shifted.peak_memory_bytes > none.peak_memory_bytes


def test_memory_does_not_depend_on_the_length_and_grows_with_the_batch(model, mini):
    short, _ = estimate(model, mini, seconds=60)
    long, _ = estimate(model, mini, seconds=7200)
    assert short.peak_memory_bytes == long.peak_memory_bytes
    batched, _ = estimate(dataclasses.replace(model, batch_size=4, together=True), mini)
    assert batched.peak_memory_bytes == pytest.approx(3e8 + 4 * 5e7 * 7.8, rel=1e-6)


def test_what_is_not_known_is_not_estimated(model, mini):
    other = dataclasses.replace(model, device="cuda:0", memory=None)
    assert estimate(other, mini)[0].peak_memory_bytes is None
    with pytest.raises(ParameterError, match="plans is empty"):
        model.estimate(())


def test_each_network_of_a_bag_counts(model, tiny_bag):
    """Only those that the chosen sources need are run."""
    separator = AudioStemSeparator(tiny_bag)
    both, plans = estimate(model, separator)
    assert len(plans) == 2
    one = model.estimate(plans[:1])
    assert both.seconds == pytest.approx(2 * one.seconds)
    assert both.calls == 2 * one.calls


# ---------------------------------------------------------------- calibration


def test_a_calibration_is_kept_and_found_again(cache, monkeypatch):
    separator = AudioStemSeparator(planted.tiny(), device="cpu")
    first = calibrate(separator)
    assert len(json.loads((cache / "calibrations.json").read_bytes())) == 1
    monkeypatch.setattr(cost, "_time_calls", None)  # Must not be called.
    assert calibrate(separator) == first
    # Other weights, though as fast, are another model.
    other = planted.tiny()
    other.decoder[-1].conv_tr.bias.data += 1
    with pytest.raises(TypeError):
        calibrate(AudioStemSeparator(other, device="cpu"))
    with pytest.raises(TypeError):
        calibrate(separator, fresh=True)


@pytest.mark.parametrize("content", ["no JSON", "[1]", '{"%s": [-1.0, 2.0]}', '{"%s": "fast"}'])
def test_a_damaged_cache_is_measured_anew(cache, content):
    separator = AudioStemSeparator(planted.tiny(), device="cpu")
    calibrate(separator)
    file = cache / "calibrations.json"
    (key,) = json.loads(file.read_bytes())
    text = content.replace("%s", key.replace('"', '\\"'))
    file.write_text(text)
    found = calibrate(separator)
    assert all(each > 0 for each in found.factors)
    assert len(json.loads(file.read_bytes())[key]) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders there")
@pytest.mark.parametrize("kind", ["pipe", "endless", "long", "deep", "folder"])
def test_a_planted_cache_neither_hangs_nor_fills_memory(cache, kind):
    file = cache / "calibrations.json"
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "endless":
        file.symlink_to("/dev/zero")
    elif kind == "long":
        with file.open("wb") as handle:
            handle.truncate(10**10)
    elif kind == "deep":
        file.write_text("[" * 500_000)
    else:
        file.mkdir()
    assert calibrate(AudioStemSeparator(planted.tiny(), device="cpu")).factors
    if kind in ("long", "deep"):
        assert len(json.loads(file.read_bytes())) == 1
    else:  # It is not a file of stemlab's, and stays.
        assert not file.is_file() or file.is_symlink()


@pytest.mark.skipif(sys.platform == "win32", reason="links of Unix")
def test_calibrations_that_are_a_link_are_neither_read_nor_replaced(cache, tmp_path_factory):
    theirs = tmp_path_factory.mktemp("theirs") / "calibrations.json"
    (cache / "calibrations.json").symlink_to(theirs)
    calibrate(AudioStemSeparator(planted.tiny(), device="cpu"))
    assert not theirs.exists()
    assert (cache / "calibrations.json").is_symlink()


def test_calibrations_of_another_network_or_of_unknown_code_are_not_used(cache, monkeypatch):
    calibrate(AudioStemSeparator(planted.Planted(), device="cpu"))
    assert not (cache / "calibrations.json").exists()
    calibrate(AudioStemSeparator(planted.tiny(), device="cpu"))
    other = planted.tiny()
    other.use_train_segment = False
    monkeypatch.setattr(cost, "_time_calls", None)  # Must not be called.
    with pytest.raises(TypeError):
        calibrate(AudioStemSeparator(other, device="cpu"))


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("STEMLAB_CACHE", str(tmp_path / "file"))
    assert calibrate(AudioStemSeparator(planted.tiny(), device="cpu")).factors


def test_an_unknown_network_gets_the_shape_nearest_in_size(cache, tiny_hdemucs, tiny_htdemucs):
    assert calibrate(AudioStemSeparator(tiny_htdemucs)).shape == "stemlab-mini"
    assert calibrate(AudioStemSeparator(tiny_hdemucs)).shape == "hdemucs_mmi"


def test_an_estimate_is_of_the_order_of_the_truth(cache, mini):
    """Timing is no matter of tests: a factor of five either way is a wrong unit, not noise."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 16 * RATE)).astype(np.float32)
    found, _ = estimate(calibrate(mini), mini, seconds=16)
    mini.separate_audio(noise[:, :RATE], RATE)
    started = time.perf_counter()
    mini.separate_audio(noise, RATE)
    taken = time.perf_counter() - started
    assert found.seconds / 5 < taken < 5 * found.seconds


@pytest.mark.skipif(sys.platform != "linux", reason="the figures were measured on Linux")
def test_peak_memory_is_within_what_is_stated(cache, mini, tmp_path):
    """A fresh process separates the demo song to files; a quarter more error is allowed."""
    model = calibrate(mini)
    found, _ = estimate(model, mini, seconds=24, segment_seconds=2.5, pad_to_training_segment=False)
    code = (
        "import sys, stemlab\n"
        "from stemlab.results import peak_memory_bytes\n"
        "stemlab.AudioStemSeparator(device='cpu').separate_file(sys.argv[1], sys.argv[2],\n"
        "    segment_seconds=2.5, pad_to_training_segment=False)\n"
        "print(peak_memory_bytes())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(demo_song_dir() / "mixture.flac"), str(tmp_path / "o")],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.peak_memory_bytes == pytest.approx(int(done.stdout), rel=model.memory_error + 0.25)


def test_the_stated_error_is_that_of_the_checks():
    """`benchmarks/costs.py` wrote both."""
    fields = cost._measured()
    for key in ("time", "memory"):
        errors = [abs(each[f"{key}_error"]) for each in fields["checked"]]
        assert fields["error"][key]["largest"] == pytest.approx(max(errors), abs=1e-3)
        assert fields["error"][key]["median"] == pytest.approx(np.median(errors), abs=1e-3)
    fitted = {
        (name, each["segment_seconds"])
        for name, shape in fields["shapes"].items()
        for each in shape["measured"]
    }
    free = [each for each in fields["checked"] if not each["padded"] and not each["shifts"]]
    assert not {(each["model"], each["segment_seconds"]) for each in free} & fitted


def test_a_memory_limit_takes_fewer_segments_in_one_call_before_it_refuses(tiny_hdemucs):
    separator = AudioStemSeparator(tiny_hdemucs, device="cpu", batch_size=16)
    settings = SeparationSettings()
    assert fit_memory(separator, settings, 100 * 10**9) == 16
    least = next(
        each for each in range(300, 900) if _fits(separator, settings, each * 10**6) is not None
    )
    taken = [fit_memory(separator, settings, (least + more) * 10**6) for more in (0, 20, 400)]
    assert 1 <= taken[0] < taken[1] < taken[2] == 16


def _fits(separator, settings, limit):
    try:
        return fit_memory(separator, settings, limit)
    except ParameterError:
        return None


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (
            500_000_000,
            r"takes about 0\.\d\d GB .* limit of 0\.50 GB\. --segment [\d.]+ --no-pad takes",
        ),
        (1_000_000, r"limit of 0\.00 GB\. No setting fits; the least is about 0\.\d\d GB"),
    ],
)
def test_a_memory_limit_that_cannot_be_kept_names_what_would_fit(mini, limit, words):
    with pytest.raises(ParameterError, match=words):
        fit_memory(mini, SeparationSettings(), limit)


@pytest.mark.parametrize("shifts", [0, 1, 20, 100])
def test_what_a_limit_advises_is_accepted(mini, shifts):
    """With the shifts that were asked for, as long as any segment fits with them."""
    shortest = SeparationSettings(
        segment_seconds=7.8 / 32, shifts=shifts, pad_to_training_segment=False
    )
    limit = 500_000_000 if shifts < 100 else cost.peak_bytes(mini, shortest, 1) - 1
    with pytest.raises(ParameterError) as refused:
        fit_memory(mini, SeparationSettings(shifts=shifts), limit)
    advice = str(refused.value).rpartition("GB. ")[2]
    assert ("--shifts 0" in advice) == (shifts == 100)
    advised = SeparationSettings(
        segment_seconds=float(re.search(r"--segment ([\d.]+)", advice)[1]),
        shifts=0 if "--shifts 0" in advice else shifts,
        pad_to_training_segment=False,
    )
    assert fit_memory(mini, advised, limit) == 1


def test_calibrations_are_cleared(cache):
    separator = AudioStemSeparator(planted.tiny(), device="cpu")
    calibrate(separator)
    assert cost.calibrations_bytes() > 0
    cost.clear_calibrations()
    assert not (cache / "calibrations.json").exists()
    cost.clear_calibrations()  # There is nothing left to clear.


def test_the_key_of_a_calibration_has_the_name_of_the_hardware(cache, monkeypatch):
    separator = AudioStemSeparator(planted.tiny(), device="cpu")
    calibrate(separator)
    identity = separator.identity
    assert identity["arithmetic"]["hardware"]
    identity["arithmetic"]["hardware"] = "another GPU"
    monkeypatch.setattr(AudioStemSeparator, "identity", identity)
    calibrate(separator)
    assert len(json.loads((cache / "calibrations.json").read_bytes())) == 2


def test_calibrations_of_version_0_1_are_used_or_ignored(v0_1):
    file = v0_1 / "cache" / "calibrations.json"
    found = calibrate(AudioStemSeparator("tiny", device="cpu"))
    assert all(factor > 0 for factor in found.factors)
    assert calibrate(AudioStemSeparator("tiny", device="cpu")) == found
    assert json.loads(file.read_bytes())
