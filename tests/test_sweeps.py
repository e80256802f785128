"""Sweeps: planted networks with a known answer, real ones, real processes, a real Dask cluster."""

from __future__ import annotations

import copy
import csv
import io
import json
import math
import multiprocessing
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import planted
import pytest
import soundfile
import torch
from demucs.apply import BagOfModels
from hostile import cases

from stemlab import audio
from stemlab._assets import demo_song_dir
from stemlab.errors import AudioError, ModelRefusedError, OutputError, ParameterError
from stemlab.files import WorkFolder
from stemlab.metrics import sdr
from stemlab.networks.identity import code_is_known, network_digest
from stemlab.separation import AudioStemSeparator, SeparationSettings
from stemlab.sweeps import (
    COLUMNS,
    SETTING_COLUMNS,
    SweepStore,
    plan_sweep,
    read_sweep,
    recommend,
    sweep,
    write_sweep,
)
from stemlab.sweeps import _records as records
from stemlab.sweeps._excerpt import Excerpt, load_audio

RATE = 44_100
SOURCES = planted.SOURCES
ONE = {"sample_rate": RATE, "segments": [1.0], "overlaps": [0.0]}  # A single setting.


@pytest.fixture
def song(rng):
    """Three seconds of noise whose level moves."""
    level = 0.1 * (1.2 + np.sin(np.arange(3 * RATE) / 9000))
    audio = level * rng.standard_normal((2, 3 * RATE))
    return (audio - audio.mean()).astype(np.float32)


@pytest.fixture
def store(tmp_path):
    return SweepStore(tmp_path / "store")


def by_setting(results, column):
    """Mean over the sources, by segment and overlap."""
    means = results.groupby(["segment_seconds", "overlap"])[column].mean()
    return means.to_dict()


def settings(results):
    return results.drop_duplicates([*SETTING_COLUMNS])


# ---------------------------------------------------------------- planted cases


def test_a_gain_model_has_the_figures_of_its_gain(song):
    """Stems are shares of the mixture; the true stems are others."""
    truth = dict.fromkeys(SOURCES, 0.25 * song)
    results = sweep(
        song,
        planted.Planted(),
        sample_rate=RATE,
        segments=[0.5, 1.0],
        overlaps=[0, 0.5],
        references=truth,
        store=False,
    )
    assert list(results.columns) == list(COLUMNS)
    assert len(results) == 4 * 4
    for name, share in zip(SOURCES, planted.SHARES, strict=True):
        rows = results[results["source"] == name]
        expected = 20 * math.log10(0.25 / abs(0.25 - share))
        assert rows["sdr_db"].to_numpy() == pytest.approx(expected, abs=1e-3)
        gain = expected - 20 * math.log10(0.25 / 0.75)
        assert rows["sdr_gain_db"].to_numpy() == pytest.approx(gain, abs=1e-3)
        assert (rows["si_sdr_db"] > 80).all()
    assert (results["agreement_db"] > 100).all()
    assert results["seam_db"].abs().max() < 1
    assert (results["consistency_db"] < -100).all()


def test_consistency_and_gain_of_a_model_that_loses_a_tenth(song):
    network = planted.Planted(shares=(0.1, 0.2, 0.3, 0.3))
    results = sweep(song, network, **ONE, agreement=False, store=False)
    assert results["consistency_db"].to_numpy() == pytest.approx(-20, abs=1e-3)
    assert results["agreement_db"].isna().all()
    some = sweep(song, network, **ONE, sources=["bass", "drums"], agreement=False, store=False)
    assert some["source"].tolist() == ["drums", "bass"]
    assert some["consistency_db"].isna().all()


def test_planted_clicks_are_seams_and_overlap_hides_them(song):
    results = sweep(
        song,
        planted.Clicking(),
        sample_rate=RATE,
        segments=[0.25, 0.5],
        overlaps=[0, 0.25, 0.5, 0.9],
        padded=[False],
        store=False,
    )
    seams = by_setting(results, "seam_db")
    for (segment, overlap), mean_db in seams.items():
        if overlap == 0:
            assert mean_db > 20, segment
        else:
            assert mean_db < 6, (segment, overlap)
    hard = results[(results["overlap"] == 0) & (results["segment_seconds"] == 0.5)]
    # The worst ones lie on the grid of the segments.
    assert (hard["worst_seam_seconds"] * 2 % 1).to_numpy() == pytest.approx(0, abs=1e-6)
    assert (hard["seams"] == 5).all()


def test_a_model_that_ignores_context_gains_nothing_from_any_setting(song):
    results = sweep(
        song,
        planted.Pointwise(),
        sample_rate=RATE,
        segments=[0.2, 1.0],
        overlaps=[0, 0.5],
        shifts=[0, 2],
        padded=[True, False],
        store=False,
    )
    assert len(settings(results)) == 2 * 2 * 2 * 2
    assert (results["agreement_db"] > 90).all()
    assert results["seam_db"].abs().max() < 1


def test_a_setting_is_the_separation_that_its_command_makes(tiny_htdemucs, song):
    """The figures are those of stems that `separate_audio` makes with the same settings."""
    truth = {"bass": 0.5 * song, "vocals": 0.1 * song}
    results = sweep(
        song,
        tiny_htdemucs,
        sample_rate=RATE,
        segments=[0.4],
        overlaps=[0.25],
        shifts=[2],
        padded=[False],
        references=truth,
        seed=5,
        store=False,
    )
    stems = AudioStemSeparator(tiny_htdemucs).separate_audio(
        song,
        RATE,
        segment_seconds=0.4,
        overlap=0.25,
        shifts=2,
        seed=5,
        pad_to_training_segment=False,
    )
    found = results.set_index("source")["sdr_db"]
    assert found["bass"] == pytest.approx(sdr(truth["bass"], stems["bass"]), abs=1e-6)
    assert math.isnan(found["drums"])
    assert results["rtf"].to_numpy() == pytest.approx(results["wall_seconds"] / 3)


def test_a_silent_reference_is_no_number_and_no_crash(song):
    truth = {"bass": np.zeros_like(song), "drums": song}
    results = sweep(
        song, planted.Planted(), **ONE, references=truth, bsseval=True, store=False
    ).set_index("source")
    assert results.loc["bass", ["sdr_db", "si_sdr_db", "sdr_gain_db", "bss_sdr_db"]].isna().all()
    assert results.loc["drums", ["sdr_db", "si_sdr_db", "bss_sdr_db"]].notna().all()
    assert results.loc["vocals", ["sdr_db", "bss_sdr_db"]].isna().all()


def test_interference_is_measured_with_all_true_stems_or_not_at_all(song, monkeypatch):
    """Also where one stem is made: the true stems of the others are there. See `test_metrics`."""
    seen = []

    def bss_eval(references, estimates, _, *, others):
        seen.append((set(references), set(estimates), None if others is None else set(others)))
        return {}

    monkeypatch.setattr(records, "bss_eval", bss_eval)
    audio = Excerpt("song", song, RATE, 0, song.shape[1], dict.fromkeys(SOURCES, song))
    plans = AudioStemSeparator(planted.Planted()).plan(song.shape[1])
    options = {"long_run": {}, "offered": SOURCES, "bsseval": True}
    records.grade(audio, {"bass": song}, plans, **options)
    del audio.references["vocals"]
    records.grade(audio, {"bass": song}, plans, **options)
    records.grade(audio, {"bass": song, "vocals": song}, plans, **options)
    assert seen == [
        ({"bass"}, {"bass"}, {"drums", "other", "vocals"}),
        ({"bass"}, {"bass"}, None),
        ({"bass"}, {"bass", "vocals"}, None),
    ]


# ---------------------------------------------------------------- the truth about parameters


def test_settings_that_come_to_the_same_are_run_once(tiny_hdemucs, tiny_htdemucs, song):
    """At its own segment an HTDemucs has nothing to pad, and an HDemucs never pads."""
    runs = []

    def count(event):
        runs.append(event.total)

    planned = plan_sweep(
        song,
        models={"transformer": tiny_htdemucs, "plain": tiny_hdemucs},
        sample_rate=RATE,
        segments=[0.5, 1.0],
        overlaps=[0.25],
        padded=[True, False],
        agreement=False,
        store=False,
    )
    results = settings(planned.run(progress=count))
    # The plain one has no padded settings at all.
    assert len(planned.settings) == 4 + 2
    assert results["computation"].nunique() == 3 + 2
    assert set(runs) == {5}
    own = results[(results["model"] == "transformer") & (results["segment_seconds"] == 1.0)]
    assert own["computation"].nunique() == 1
    assert own["padded"].tolist() == [True, False]


def test_equal_computations_of_a_network_of_ones_own_class_are_run_once(song):
    planned = plan_sweep(
        song,
        planted.Planted(),
        sample_rate=RATE,
        segments=[1.0],
        overlaps=[0.25],
        padded=[True, False],
        store=False,
    )
    assert planned.estimate().computations == 1
    results = planned.run()
    assert len(results) == 2 * 4
    assert results["wall_seconds"].nunique() == 1


def test_a_class_derived_from_htdemucs_is_planned_as_one(song):
    """It pads and takes context as the class it comes from."""
    separator = AudioStemSeparator(planted.Planted())
    assert separator.spec.members[0].architecture.name == "HTDemucs"
    (plan,) = separator.plan(RATE, SeparationSettings(segment_seconds=0.5))
    assert (plan.input_samples, plan.network_samples) == (RATE // 2, RATE)


def test_a_short_padded_segment_is_shown_to_cost_as_much_and_save_nothing(tiny_htdemucs, song):
    results = sweep(
        song,
        tiny_htdemucs,
        sample_rate=RATE,
        segments=[0.25, 1.0],
        overlaps=[0],
        padded=[True, False],
        agreement=False,
        store=False,
    )
    rows = settings(results).set_index(["segment_seconds", "padded"])
    assert (
        rows.loc[(0.25, True), "network_seconds"] == rows.loc[(1.0, True), "network_seconds"] == 1
    )
    assert rows.loc[(0.25, True), "calls"] == 4 * rows.loc[(1.0, True), "calls"]
    assert rows.loc[(0.25, True), "wasted_share"] == pytest.approx(0.75)
    assert "no memory is saved" in rows.loc[(0.25, True), "note"]
    assert rows.loc[(0.25, False), "network_seconds"] == pytest.approx(0.25)
    assert rows.loc[(0.25, False), "wasted_share"] == 0


def test_an_impossible_segment_is_a_row_beside_others_and_refused_alone(
    tiny_htdemucs, tiny_hdemucs, song
):
    options = {"sample_rate": RATE, "overlaps": [0.0], "agreement": False, "store": False}
    with pytest.raises(ParameterError, match=r"no setting .* longer than the 1 s"):
        plan_sweep(song, tiny_htdemucs, segments=[2.0, 3.0], **options)
    models = {"transformer": tiny_htdemucs, "plain": tiny_hdemucs}
    results = sweep(song, models=models, segments=[1.0, 2.0], **options)
    failed = results[results["error"] != ""]
    assert failed[["model", "segment_seconds"]].to_numpy().tolist() == [["transformer", 2.0]]
    assert failed["source"].tolist() == [None]
    assert "longer than the 1 s" in failed["error"].iloc[0]
    assert results[results["model"] == "plain"]["rtf"].notna().all()


def test_a_failed_setting_is_a_row_and_the_others_go_on(song, store):
    options = {
        "sample_rate": RATE,
        "segments": [0.25, 1.0],
        "overlaps": [0.0],
        "padded": [False],
        "network_version": "1",
        "store": store,
    }
    results = sweep(song, planted.Failing(), **options)
    assert results.groupby("segment_seconds")["error"].first().str.len().gt(0).to_dict() == {
        0.25: True,
        1.0: False,
    }
    assert "planted failure" in results["error"].iloc[0]
    assert store.usage().results == 1, "a failure was stored"


# ---------------------------------------------------------------- requests that are refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"overlaps": [1.0]}, r"overlap=1.0 is not a fraction in \[0, 1\)"),
        ({"overlaps": []}, "overlaps is empty"),
        ({"overlaps": [0.1, 0.1]}, "names a value twice"),
        ({"overlaps": 0.5}, "overlaps=0.5 is not a list"),
        ({"segments": [0]}, "segment_seconds=0 is not a number of seconds above 0"),
        ({"segments": [1e305]}, r"segment_seconds=1e\+305 .* at most 3,600. Leave it out"),
        ({"segments": ["long"]}, "segment_seconds='long'"),
        ({"segments": [None]}, "segment_seconds=None is not a number of seconds"),
        ({"shifts": [-1]}, "shifts=-1"),
        ({"padded": ["no"]}, "padded='no' is neither"),
        ({"repeats": 0}, "repeats=0"),
        ({"bsseval": True}, "needs true stems"),
        ({"sources": ["guitar"]}, "sources='guitar' is not made"),
        ({"sources": "vocals"}, "is not a list of names"),
        ({"device": "tpu"}, "device='tpu'"),
        ({"sample_rate": None}, "sample_rate is missing"),
        ({"sample_rate": 10}, "sample_rate=10"),
        ({"excerpt_seconds": 0}, "excerpt_seconds=0 is not a number of seconds above 0"),
        ({"excerpt_seconds": math.nan}, "excerpt_seconds=nan"),
        ({"excerpt_seconds": 1e305}, r"excerpt_seconds=1e\+305 .* at most 10,000,000. Leave it"),
        ({"excerpt_seconds": 10**400}, "excerpt_seconds=1000.* at most 10,000,000"),
        ({"excerpt_seconds": np.complex64(1)}, "excerpt_seconds=.*is not a number of seconds"),
        ({"excerpt_start_seconds": 1e305}, r"excerpt_start_seconds=1e\+305"),
        ({"excerpt_start_seconds": -1}, "excerpt_start_seconds=-1"),
        ({"excerpt_start_seconds": 5, "excerpt_seconds": 1}, "behind the end"),
        ({"references": {"guitar": [0.0]}}, "references has guitar, and the models make drums"),
        ({"references": "no-such-folder"}, "is not a folder"),
        ({"models": []}, "models=.* is empty"),
        ({"memory": True}, "a network in the memory of this process"),
        ({"batch_size": 0}, "batch_size=0"),
    ],
)
def test_bad_requests_are_refused_before_any_work(song, options, message):
    network = planted.Failing()  # Would complain of being run.
    asked = {"sample_rate": RATE, "store": False, **options}
    model = {} if "models" in options else {"model": network}
    with pytest.raises(ParameterError, match=message):
        plan_sweep(song, **model, **asked)


@pytest.mark.parametrize(
    ("truth", "message"),
    [(np.zeros((2, 100)), "100 samples"), (np.zeros((1, 3 * RATE)), r"1 channel\(s\)")],
)
def test_references_that_do_not_fit_are_refused(song, truth, message):
    with pytest.raises(AudioError, match=message):
        plan_sweep(song, planted.Planted(), sample_rate=RATE, references={"bass": truth})


def test_a_store_that_cannot_be_written_is_said_before_the_work(song, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    planned = plan_sweep(song, planted.Failing(), sample_rate=RATE, store=SweepStore(blocked / "x"))
    with pytest.raises(OutputError, match="STEMLAB_CACHE"):
        planned.run()


def test_a_grid_may_hold_numbers_of_numpy(song, store, tmp_path):
    results = sweep(
        song,
        planted.Planted(),
        sample_rate=np.int64(RATE),
        segments=np.array([1.0], np.float32),
        overlaps=np.array([0.0, 0.5]),
        shifts=np.arange(1),
        padded=np.array([False]),
        seed=np.int64(3),
        batch_size=np.int8(1),
        network_version="1",
        store=store,
    )
    assert not results["error"].any()
    write_sweep(results, tmp_path / "results.json")
    assert read_sweep(tmp_path / "results.json").attrs["manifest"]["grid"] == {
        "segments": [1.0],
        "overlaps": [0.0, 0.5],
        "shifts": [0],
        "padded": [False],
        "seed": 3,
    }


def test_settings_hold_what_all_settings_of_a_sweep_share(song):
    options = {"sample_rate": RATE, "segments": [1.0], "overlaps": [0.5], "store": False}
    network = planted.Planted()
    common = SeparationSettings(sources=["bass"], seed=3, skip_covered_tail=True, overlap=0.1)
    planned = plan_sweep(song, network, settings=common, **options)
    plain = plan_sweep(song, network, sources=["bass"], seed=3, **options)
    (calls,), (plain_calls,) = (
        [sum(plan.calls for plan in sweep.plans(setting)) for setting in sweep.settings]
        for sweep in (planned, plain)
    )
    assert calls == plain_calls - 1
    results = planned.run()
    assert results["source"].tolist() == ["bass"]
    assert results["overlap"].tolist() == [0.5]
    assert results.attrs["manifest"]["grid"]["seed"] == 3
    assert results["computation"].tolist() != plain.run()["computation"].tolist()
    with pytest.raises(ParameterError, match="Put these into settings"):
        plan_sweep(song, network, settings=common, seed=3, **options)


def test_impossible_settings_are_not_counted_as_repeats(tiny_htdemucs, song):
    planned = plan_sweep(
        song,
        tiny_htdemucs,
        sample_rate=RATE,
        segments=[1.0, 2.0],
        overlaps=[0.0, 0.25],
        padded=[True, False],
        agreement=False,
        store=False,
    )
    estimate = planned.estimate()
    assert (estimate.settings, estimate.impossible, estimate.computations) == (8, 4, 2)
    words = estimate.in_words("cpu")
    assert "(2 repeat the computation of others, 4 are not possible)" in words


# ---------------------------------------------------------------- recordings


def test_excerpt_and_references_are_cut_alike(tmp_path, song):
    for name in ("mixture", *SOURCES):
        soundfile.write(tmp_path / f"{name}.wav", song.T, RATE, subtype="FLOAT")
    results = sweep(
        tmp_path / "mixture.wav",
        planted.Planted(shares=(1.0, 1.0, 1.0, 1.0)),
        references=tmp_path,
        segments=[1.0],
        overlaps=[0],
        excerpt_seconds=1.0,
        store=False,
    )
    assert (results["sdr_db"] > 100).all()
    manifest = results.attrs["manifest"]
    assert (manifest["start_seconds"], manifest["seconds"]) == (1.0, 1.0)
    assert manifest["recording_seconds"] == 3.0
    assert manifest["song"] == "mixture.wav"
    whole = plan_sweep(
        tmp_path / "mixture.wav", planted.Planted(), excerpt_seconds=None, store=False
    )
    assert whole.table().attrs["manifest"]["seconds"] == 3.0


def test_the_callers_array_is_neither_changed_nor_needed_later(song):
    untouched = song.copy()
    planned = plan_sweep(song, planted.Planted(), **ONE, store=False)
    song[:] = 0
    results = planned.run()
    assert (results["consistency_db"] < -100).all()
    assert results.attrs["manifest"]["seconds"] == untouched.shape[1] / RATE


# ---------------------------------------------------------------- stored results


def test_a_second_run_is_instant_and_separates_nothing(tiny_htdemucs, song, store, monkeypatch):
    options = {"sample_rate": RATE, "segments": [0.5, 1.0], "overlaps": [0, 0.5], "store": store}
    first = sweep(song, tiny_htdemucs, **options)
    monkeypatch.setattr(AudioStemSeparator, "separate_audio", None)  # Must not be called.
    again = plan_sweep(song, tiny_htdemucs, **options)
    assert again.estimate().seconds == 0
    assert again.estimate().stored == 4
    pd.testing.assert_frame_equal(again.run(), first)


def test_a_larger_grid_measures_only_what_is_new(tiny_htdemucs, song, store):
    options = {"sample_rate": RATE, "overlaps": [0.0], "store": store}
    sweep(song, tiny_htdemucs, segments=[1.0], **options)
    larger = plan_sweep(song, tiny_htdemucs, segments=[1.0, 0.5], **options)
    assert len(larger.table()) == 4
    assert len(larger.run()) == 8
    assert store.usage().results == 2


@pytest.mark.parametrize("change", ["audio", "weights", "references", "measures", "sources"])
def test_what_figures_depend_on_is_part_of_their_key(song, store, change):
    options = {**ONE, "store": store}
    network = planted.tiny()
    sweep(song, network, **options)
    if change == "audio":
        song = song.copy()
        song[0, 0] += 1e-3
    elif change == "weights":
        network.decoder[-1].conv_tr.bias.data += 1e-3
    elif change == "references":
        options["references"] = {"bass": song}
    elif change == "measures":
        options["repeats"] = 2
    else:
        options["sources"] = ["bass"]
    assert plan_sweep(song, network, **options).table().empty


def test_what_a_network_computes_has_one_digest(tiny_hdemucs):
    """The same in another object, which has other places in memory; another with other settings."""
    for network in (tiny_hdemucs, planted.tiny(), BagOfModels([planted.tiny(), planted.tiny()])):
        digest = network_digest(network)
        assert code_is_known(network)
        assert digest == network_digest(copy.deepcopy(network))
        other = copy.deepcopy(network)
        next(each for each in other.modules() if hasattr(each, "kernel_size")).stride = 3
        assert network_digest(other) != digest
    weighted = BagOfModels([planted.tiny(), planted.tiny()], weights=[[1, 0, 0, 0], [0, 1, 1, 1]])
    assert network_digest(weighted) != digest
    patched = planted.tiny()
    patched.forward = lambda mix: mix
    assert not code_is_known(patched)
    hooked = planted.tiny()
    hooked.register_forward_hook(lambda *_: None)
    assert not code_is_known(hooked)
    bent = planted.tiny()
    bent.crosstransformer.layers[0].activation = torch.relu
    assert network_digest(bent) != network_digest(planted.tiny())
    bent.crosstransformer.layers[0].activation = lambda value: value
    assert not code_is_known(bent)
    assert not code_is_known(planted.Planted())


def test_a_network_of_ones_own_class_is_found_again_only_with_a_version(song, store, caplog):
    options = {**ONE, "store": store}
    sweep(song, planted.Planted(), **options)
    assert "results of Planted are not stored" in caplog.text
    assert store.usage().results == 0
    sweep(song, planted.Planted(), network_version="a", **options)
    assert store.usage().results == 1
    same = plan_sweep(song, planted.Planted(), network_version="a", **options)
    other = plan_sweep(song, planted.Planted(), network_version="b", **options)
    assert (len(same.table()), len(other.table())) == (4, 0)


def test_drafts_go_unless_their_process_works(store):
    store.folder.mkdir(parents=True)
    working = WorkFolder(store.folder, "sweep")
    abandoned = store.folder / ".stemlab-sweep-1.partial"
    abandoned.mkdir(0o700)
    for name in ("lock", "bass.wav"):
        (abandoned / name).touch()
    store.check_writable()
    assert (working.path.exists(), abandoned.exists()) == (True, False)
    working.close()
    store.clear()
    assert [*store.folder.iterdir()] == []


def test_a_sweep_that_is_stored_already_removes_the_drafts_of_a_killed_one(copied):
    store, _, _, song, options, expected = copied
    abandoned = store.folder / ".stemlab-sweep-1.partial"
    abandoned.mkdir(0o700)
    (abandoned / "lock").touch()
    pd.testing.assert_frame_equal(_plan(song, store, options).run(), expected)
    assert not abandoned.exists()


def test_digests_of_kept_stems_are_compared_once(copied, monkeypatch):
    """Until a file changes; see below."""
    store, _, folder, song, options, _ = copied
    read = []

    def read_file(path):
        read.append(path.parent.name)
        return audio.read_file(path)

    monkeypatch.setattr("stemlab.sweeps.store.read_file", read_file)
    planned = _plan(song, store, options)
    planned.estimate()
    planned.run()
    for _ in range(2):
        assert [planned.kept_stems(setting) for setting in planned.settings] != [{}]
    assert read == 4 * [folder.name]
    os.utime(folder / "bass.wav")
    assert planned.kept_stems(planned.settings[0])
    assert read == 8 * [folder.name]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """A store with one measured setting, its stems and those of its long-context run."""
    store = SweepStore(tmp_path_factory.mktemp("measured"))
    song = np.random.default_rng(1).uniform(-0.1, 0.1, (2, RATE // 2)).astype(np.float32)
    options = {
        "sample_rate": RATE,
        "segments": [1.0],
        "overlaps": [0.0],
        "references": {"bass": song},
        "network_version": "1",
        "keep_audio": True,
    }
    expected = sweep(song, planted.Planted(), **options, store=store)
    return store, song, options, expected


@pytest.fixture
def copied(measured, tmp_path):
    """The same in a store of its own, with the record and the folder of the setting's stems."""
    original, song, options, expected = measured
    shutil.copytree(original.folder, tmp_path / "store")
    store = SweepStore(tmp_path / "store")
    (record,) = store.folder.glob("results/*/*.json")
    return store, record, store.folder / "audio" / record.stem, song, options, expected


def _plan(song, store, options):
    return plan_sweep(song, planted.Planted(), **options, store=store)


def _set(record, *path_and_value):
    *path, value = path_and_value
    fields = json.loads(record.read_bytes())
    table = fields
    for name in path[:-1]:
        table = table[name]
    if value is None:
        del table[path[-1]]
    else:
        table[path[-1]] = value
    record.write_text(json.dumps(fields))


IMPOSSIBLE = [
    ("wall_seconds", None),
    ("wall_seconds", []),
    ("wall_seconds", [0.0]),
    ("wall_seconds", ["1"]),
    ("wall_seconds", [True]),
    ("wall_seconds", [1e300]),
    ("wall_seconds", [math.nan]),
    ("wall_seconds", [1.0, 1.0]),
    ("sources", None),
    ("sources", []),
    ("sources", "bass", None),
    ("sources", "\x1b[31m", {}),
    ("sources", "bass", "sdr_db", None),
    ("sources", "bass", "sdr_db", "=1+1"),
    ("sources", "bass", "sdr_db", 1e9),
    ("sources", "drums", "sdr_db", 1.0),
    ("sources", "bass", "worst_seams", [[1.0]]),
    ("sources", "bass", "worst_seams", [[9.0, 1.0]]),
    ("sources", "bass", "worst_seams", {}),
    ("seams", -1),
    ("seams", 1.5),
    ("seconds", 0),
    ("device", "cuda:7"),
    ("timed_alone", 1),
    ("peak_memory_bytes", 5),
    ("settings", [1]),
    ("model", 1),
    ("surplus", 1),
    ("key", "0" * 64),
    ("consistency_db", {"a": 1}),
]


def test_a_record_that_cannot_be_one_is_measured_again(copied):
    store, record, _, song, options, _ = copied
    planned, content = _plan(song, store, options), record.read_bytes()
    assert planned.estimate().stored == 1
    for change in IMPOSSIBLE:
        record.write_bytes(content)
        _set(record, *change)
        planned._records.clear()
        planned._find_stored()
        assert not planned._records, change


@pytest.mark.parametrize("content", [b"{", b"[1]", b"\xff", b"[" * 100_000, b" " * 2_000_000])
def test_a_damaged_record_is_measured_again(copied, content):
    store, record, _, song, options, expected = copied
    record.write_bytes(content)
    results = _plan(song, store, options).run()
    quality = ["source", "sdr_db", "agreement_db", "seam_db"]
    pd.testing.assert_frame_equal(results[quality], expected[quality])
    assert _plan(song, store, options).estimate().stored == 1


def _cut(path):
    path.write_bytes(path.read_bytes()[:1000])


def _forge(path):
    soundfile.write(path, np.full((5, 2), 0.5), RATE, subtype="FLOAT")


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-2000] ^= 1
    path.write_bytes(content)


def _other_rate(path):
    samples, _ = soundfile.read(path, dtype="float32")
    soundfile.write(path, samples, 48_000, subtype="FLOAT")


def _mono(path):
    samples, _ = soundfile.read(path, dtype="float32")
    soundfile.write(path, samples.reshape(-1, 1), RATE, subtype="FLOAT")


def _not_finite(path):
    samples, _ = soundfile.read(path, dtype="float32")
    samples[0, 0] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")


def _pipe(path):
    path.unlink()
    os.mkfifo(path)


DAMAGE = [Path.unlink, _cut, _forge, _flip, _other_rate, _mono, _not_finite]
DAMAGE += [] if sys.platform == "win32" else [_pipe]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_kept_long_run_that_was_changed_is_made_again(copied, damage):
    store, record, own, song, options, expected = copied
    (folder,) = (each for each in (store.folder / "audio").iterdir() if each != own)
    record.unlink()
    damage(folder / "bass.wav")
    if damage is _pipe:  # Something that stemlab did not make: it stays, and nothing waits for it.
        results = _plan(song, store, options).run()
        assert stat.S_ISFIFO((folder / "bass.wav").stat().st_mode)
    else:
        results = _plan(song, store, options).run()
        again = _plan(song, store, options)
        assert again._kept_long_run("Planted")
    quality = ["source", "sdr_db", "agreement_db", "seam_db"]
    pd.testing.assert_frame_equal(results[quality], expected[quality])


@pytest.mark.parametrize("damage", DAMAGE)
def test_kept_stems_that_were_changed_are_made_again(copied, damage):
    """But nothing is measured for them: the figures stay."""
    store, record, folder, song, options, expected = copied
    setting = _plan(song, store, options).settings[0]
    assert _plan(song, store, options).kept_stems(setting)
    damage(folder / "vocals.wav")
    planned, content = _plan(song, store, options), record.read_bytes()
    assert not planned.kept_stems(setting)
    assert planned.estimate().stored == 1
    assert planned.estimate().seconds > 0
    pd.testing.assert_frame_equal(planned.run(), expected)
    assert record.read_bytes() == content
    assert bool(planned.kept_stems(setting)) == (damage is not _pipe)
    assert _plan(song, store, {**options, "keep_audio": False}).estimate().seconds == 0


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes of Unix")
def test_clear_removes_only_what_is_of_the_store(copied, tmp_path):
    store, record, folder, *_ = copied
    theirs = tmp_path / "theirs"
    (theirs / ("ab" * 32)).mkdir(parents=True)
    kept = [theirs / "song.wav", theirs / ("ab" * 32) / "bass.wav", theirs / f"{'ab' * 32}.json"]
    for path in kept:
        path.write_bytes(b"theirs")
    foreign = [folder / "notes.txt", record.with_name("notes.json"), store.folder / "mine.wav"]
    foreign += [record.parent.parent / "zz" / f"{'ab' * 32}.json", store.folder / "audio" / "x.wav"]
    foreign[3].parent.mkdir()
    for path in foreign:
        path.write_bytes(b"foreign")
    linked = [folder / "drums.wav", folder / "linked.wav", record.with_name(f"{'cd' * 32}.json")]
    linked[0].unlink()
    linked[0].symlink_to(theirs / "song.wav")
    os.link(theirs / "song.wav", linked[1])
    linked[2].symlink_to(kept[2])
    (store.folder / "audio" / ("ef" * 32)).symlink_to(theirs / ("ab" * 32))
    (store.folder / "results" / "ab").symlink_to(theirs)
    os.mkfifo(folder / "pipe.wav")
    assert store.usage().results == 1
    store.clear()
    assert all(path.read_bytes() == b"theirs" for path in kept)
    assert all(path.read_bytes() == b"foreign" for path in foreign)
    assert linked[0].is_symlink()
    assert linked[1].exists()
    assert not record.exists()
    assert not (folder / "bass.wav").exists()
    assert (store.usage().results, store.usage().result_bytes) == (0, 0)


@pytest.mark.skipif(sys.platform == "win32", reason="links of Unix")
@pytest.mark.parametrize("name", ["", "sweeps", "sweeps/results", "sweeps/audio"])
def test_a_linked_folder_of_the_cache_is_not_written_to(song, tmp_path, monkeypatch, name):
    """But the cache itself, which the user names, may be a link."""
    cache, theirs = tmp_path / "cache", tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "song.wav").write_bytes(b"theirs")
    (cache / name).parent.mkdir(parents=True, exist_ok=True)
    (cache / name).symlink_to(theirs)
    monkeypatch.setenv("STEMLAB_CACHE", str(cache))
    planned = plan_sweep(song, planted.Failing(), sample_rate=RATE, network_version="1")
    if name:
        with pytest.raises(OutputError, match="it is a link, or not a folder"):
            planned._store.check_writable()
        with nullcontext() if "/" in name else pytest.raises(OutputError, match="it is a link"):
            planned._store.clear()
        assert [path.name for path in theirs.iterdir()] == ["song.wav"]
    else:
        planned._store.check_writable()
        planned._store.clear()
        assert sorted(path.name for path in theirs.iterdir()) == ["song.wav", "sweeps"]


@pytest.mark.skipif(sys.platform == "win32", reason="links of Unix")
def test_what_is_planted_in_the_cache_of_sweeps_is_not_obeyed(copied, tmp_path):
    """A journal of moves as version 0.1 had it, a linked working folder, taken names."""
    store, record, folder, song, options, expected = copied
    victim, docs = tmp_path / "victim", tmp_path / "docs"
    victim.write_text("mine")
    docs.mkdir()
    (docs / "lock").touch()
    (docs / "letter.wav").write_text("mine")
    planted_folder = store.folder / ".stemlab-sweep-x.partial"
    planted_folder.mkdir(mode=0o700)
    (planted_folder / "lock").touch()
    (planted_folder / "evil.wav").write_text("evil")
    moves = [{"draft": "evil.wav", "final": str(victim), "earlier": None}]
    moves += [{"draft": "gone", "final": str(docs / "letter.wav"), "earlier": None}]
    (planted_folder / "moves.json").write_text(json.dumps(moves))
    (store.folder / ".stemlab-sweep.partial").symlink_to(docs)
    record.unlink()
    record.symlink_to(victim)
    (folder / "bass.wav").unlink()
    (folder / "bass.wav").symlink_to(victim)
    results = _plan(song, store, options).run()
    quality = ["source", "sdr_db", "agreement_db", "seam_db"]
    pd.testing.assert_frame_equal(results[quality], expected[quality])
    store.clear()
    assert victim.read_text() == "mine"
    assert (docs / "letter.wav").read_text() == "mine"
    assert sorted(path.name for path in docs.iterdir()) == ["letter.wav", "lock"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="gives files away")
def test_files_of_another_user_stay(copied):
    store, record, folder, *_ = copied
    theirs = [folder / "bass.wav", record]
    for path in theirs:
        os.chown(path, 12_345, 12_345)
    store.clear()
    assert all(path.exists() for path in theirs)
    assert not (folder / "drums.wav").exists()
    os.chown(store.folder / "results", 12_345, 12_345)
    with pytest.raises(OutputError, match="belongs to another user"):
        store.check_writable()


def test_cancelling_keeps_what_is_done(tiny_htdemucs, song, store):
    class Enough(Exception):
        pass

    def stop(event):
        if event.done == 2:
            raise Enough

    planned = plan_sweep(
        song, tiny_htdemucs, sample_rate=RATE, segments=[0.5, 1.0], overlaps=[0, 0.5], store=store
    )
    with pytest.raises(Enough):
        planned.run(progress=stop)
    assert planned.table()["computation"].nunique() == 2
    seen = []
    results = planned.run(progress=lambda event: seen.append(event.done))
    assert min(seen) == 2
    assert results["computation"].nunique() == 4


def test_a_disturbed_time_is_taken_once_more(song):
    """What else the machine does must not decide what is recommended."""
    network = planted.Dozing()
    results = sweep(
        song,
        network,
        sample_rate=RATE,
        segments=[0.8, 0.25, 0.3, 0.5, 0.6],  # The first has most to compute, and comes last.
        overlaps=[0.0],
        padded=[False],
        agreement=False,
        store=False,
    )
    assert network.dozed
    assert settings(results).set_index("segment_seconds").loc[0.8, "wall_seconds"] < 1.5


def test_progress_ends_at_all_of_it(song):
    seen = []
    sweep(
        song,
        planted.Planted(),
        sample_rate=RATE,
        segments=[0.5, 1.0],
        overlaps=[0],
        store=False,
        progress=seen.append,
    )
    assert (seen[-1].done, seen[-1].total, seen[-1].share) == (2, 2, 1.0)
    assert [each.share for each in seen] == sorted(each.share for each in seen)
    assert "long-context" in seen[0].running


@pytest.mark.parametrize("memory", [False, True])
def test_progress_with_repeats_goes_up_once(song, memory):
    seen = []
    sweep(
        song,
        planted.tiny,
        sample_rate=RATE,
        segments=[0.5],
        overlaps=[0],
        agreement=False,
        repeats=3,
        memory=memory,
        device="cpu",
        store=False,
        progress=seen.append,
    )
    shares = [event.share for event in seen]
    assert shares == sorted(shares)
    # Each segment of each repeat is a step of its own.
    assert len(set(shares)) >= 3 * 6


def test_stems_beyond_the_limit_settle_and_are_made_again_on_request(
    tiny_htdemucs, song, tmp_path, monkeypatch
):
    store = SweepStore(tmp_path, audio_limit_bytes=3 * 4 * song.nbytes + 100_000)
    options = {"segments": [0.5, 1.0], "overlaps": [0, 0.5], "keep_audio": True, "store": store}
    first = sweep(song, tiny_htdemucs, sample_rate=RATE, **options)
    again = plan_sweep(song, tiny_htdemucs, sample_rate=RATE, **options)
    assert again.estimate().stored == 4
    assert again.estimate().seconds == 0
    pd.testing.assert_frame_equal(again.run(), first)
    gone = next(setting for setting in again.settings if not again.kept_stems(setting))
    events = []
    stems = again.make_stems(gone, progress=events.append)
    assert events[-1].share == 1
    assert list(stems) == sorted(SOURCES)
    expected = AudioStemSeparator(tiny_htdemucs).separate_audio(
        song, RATE, segment_seconds=gone.segment_seconds, overlap=gone.overlap
    )
    found, _ = soundfile.read(stems["bass"], dtype="float32")
    np.testing.assert_array_equal(found.T, expected["bass"])
    pd.testing.assert_frame_equal(again.table(), first)
    without = plan_sweep(
        song, tiny_htdemucs, sample_rate=RATE, **{**options, "keep_audio": False, "store": False}
    )
    with pytest.raises(OutputError, match="cannot be kept"):
        without.make_stems(gone)


def test_stems_that_were_not_asked_for_at_first_are_made_without_measuring(
    tiny_htdemucs, song, store
):
    options = {"sample_rate": RATE, "segments": [0.5, 1.0], "overlaps": [0], "store": store}
    first = sweep(song, tiny_htdemucs, **options)
    planned = plan_sweep(song, tiny_htdemucs, keep_audio=True, **options)
    assert (planned.estimate().stored, planned.estimate().seconds > 0) == (2, True)
    pd.testing.assert_frame_equal(planned.run(), first)
    assert all(planned.kept_stems(setting) for setting in planned.settings)


def test_results_of_other_versions_are_counted_as_stale_and_removed(copied):
    store, record, folder, song, options, _ = copied
    assert store.usage().stale == 0
    _set(record, "versions", "torch", "1.0")
    (folder.parent / ("ab" * 32)).mkdir()
    usage = store.usage()
    assert (usage.results, usage.stale) == (1, 1)
    store.clear_stale()
    assert (store.usage().results, store.usage().stale) == (0, 0)
    assert not folder.exists()
    assert store.usage().kept >= 1, "the long-context run has gone, too"
    assert _plan(song, store, options).estimate().stored == 0


def test_kept_stems_are_those_of_the_setting_and_bounded(tiny_htdemucs, song, tmp_path):
    size = song.nbytes * 4
    store = SweepStore(tmp_path, audio_limit_bytes=3 * size + 10_000)
    planned = plan_sweep(
        song,
        tiny_htdemucs,
        sample_rate=RATE,
        segments=[0.5, 1.0],
        overlaps=[0, 0.5],
        keep_audio=True,
        store=store,
    )
    planned.run()
    kept = {each: planned.kept_stems(each) for each in planned.settings}
    assert 1 <= sum(map(bool, kept.values())) <= 3
    assert store.usage().kept_bytes <= 3 * size + 10_000
    setting = next(each for each, files in kept.items() if files)
    assert list(kept[setting]) == sorted(SOURCES)
    expected = AudioStemSeparator(tiny_htdemucs).separate_audio(
        song, RATE, segment_seconds=setting.segment_seconds, overlap=setting.overlap
    )
    found, _ = soundfile.read(kept[setting]["bass"], dtype="float32")
    np.testing.assert_array_equal(found.T, expected["bass"])
    store.clear(results=False)
    assert (store.usage().kept, store.usage().results) == (0, 4)
    store.clear()
    assert store.usage().results == 0


def test_stems_beyond_the_limit_are_not_kept(tmp_path, song, caplog):
    store = SweepStore(tmp_path, audio_limit_bytes=1000)
    store.keep("0" * 64, {"bass": song}, RATE)
    assert "are not kept" in caplog.text
    assert store.usage().kept == 0


# ---------------------------------------------------------------- other processes

FREE = {"segments": [0.25, 1.0], "overlaps": [0.0], "padded": [False], "agreement": False}


@pytest.mark.memory
@pytest.mark.skipif(sys.platform == "win32", reason="the system does not tell peak memory")
def test_peak_memory_is_that_of_each_setting_in_a_fresh_process(tmp_path):
    """Beside the figure of a process of our own that separates the same file to files."""
    ballast = np.ones(150_000_000)  # This process is larger than any of the settings.
    mixture, rate = soundfile.read(demo_song_dir() / "mixture.flac", frames=8 * RATE)
    soundfile.write(tmp_path / "song.wav", mixture, rate)
    results = sweep(
        tmp_path / "song.wav",
        segments=[0.25, 7.8],
        overlaps=[0.0],
        padded=[False],
        excerpt_seconds=None,
        agreement=False,
        memory=True,
        device="cpu",
        store=False,
    )
    assert not results["error"].any(), results["error"].iloc[0]
    peaks = results.groupby("segment_seconds")["peak_memory_bytes"].first()
    assert peaks[7.8] > 1.3 * peaks[0.25]
    code = (
        "import sys, stemlab\n"
        "from stemlab.results import peak_memory_bytes\n"
        "separator = stemlab.AudioStemSeparator(device='cpu')\n"
        "separator.separate_file(sys.argv[1], sys.argv[2], segment_seconds=7.8, overlap=0,\n"
        "    pad_to_training_segment=False)\n"
        "print(peak_memory_bytes())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "song.wav", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert peaks[7.8] == pytest.approx(int(done.stdout), rel=0.1)
    assert peaks[7.8] < ballast.nbytes


def test_a_fresh_process_imports_nothing_planted(tmp_path, song, monkeypatch):
    """But the caller's own factory, which may lie in the current folder as well."""
    for name in ("stemlab", "torch", "json"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('planted')")
    shutil.copy(planted.__file__, tmp_path / "networks_here.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep + str(tmp_path))
    factory = import_module("networks_here").tiny
    options = {**FREE, "segments": [1.0], "device": "cpu", "store": False}
    results = sweep(song, factory, sample_rate=RATE, memory=True, **options)
    assert not results["error"].any(), results["error"].iloc[0]


def test_figures_do_not_depend_on_where_a_setting_runs(song):
    """Here, alone in a fresh process, in threads and in processes: the same figures."""
    options = {
        "sample_rate": RATE,
        "segments": [0.25, 1.0],
        "overlaps": [0.5],
        "padded": [False],
        "references": {"bass": 0.3 * song},
        "store": False,
    }
    spawn = multiprocessing.get_context("spawn")
    here = sweep(song, planted.tiny, **options)
    alone = sweep(song, planted.tiny, memory=True, device="cpu", **options)
    with ThreadPoolExecutor(2) as threads:
        threaded = sweep(song, planted.tiny(), executor=threads, **options)
    with ProcessPoolExecutor(1, mp_context=spawn) as processes:
        apart = sweep(song, planted.tiny, executor=processes, **options)
    quality = ["sdr_db", "si_sdr_db", "agreement_db", "seam_db", "consistency_db"]
    for other in (alone, threaded, apart):
        assert not other["error"].any(), other["error"].iloc[0]
        np.testing.assert_allclose(other[quality], here[quality], atol=1e-3)
    assert here["timed_alone"].all()
    assert alone["timed_alone"].all()
    assert not threaded["timed_alone"].any()
    assert not apart["timed_alone"].any()


def test_a_function_that_makes_another_network_each_time_is_refused_there(song):
    results = sweep(
        song, planted.unseeded, sample_rate=RATE, memory=True, device="cpu", store=False, **FREE
    )
    assert results["error"].str.contains("seed its random numbers").all()


def test_a_network_in_memory_does_not_reach_other_processes(song):
    options = {"sample_rate": RATE, "store": False, **FREE}
    spawn = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=spawn) as executor,
        pytest.raises(ParameterError, match="ProcessPoolExecutor works in others"),
    ):
        plan_sweep(song, planted.Planted(), executor=executor, **options)
    with pytest.raises(ParameterError, match="a module that can be imported"):
        plan_sweep(song, lambda: planted.Planted(), memory=True, **options)


@pytest.mark.skipif(sys.platform != "linux", reason="only there processes are forked")
def test_a_forking_pool_is_refused(song):
    fork = multiprocessing.get_context("fork")
    with (
        ProcessPoolExecutor(1, mp_context=fork) as executor,
        pytest.raises(ParameterError, match="spawn"),
    ):
        plan_sweep(song, planted.shares, sample_rate=RATE, executor=executor, store=False)


def test_times_of_an_executor_are_not_taken_for_those_of_this_machine(song, store):
    options = {"sample_rate": RATE, "store": store, **FREE}
    with ThreadPoolExecutor(2) as threads:
        first = sweep(song, planted.tiny(), executor=threads, **options)
        again = plan_sweep(song, planted.tiny(), executor=threads, **options)
        assert again.estimate().stored == 2
    assert not first["timed_alone"].any()
    here = plan_sweep(song, planted.tiny(), **options)
    assert here.table().empty
    assert here.run()["timed_alone"].all()


def test_a_dead_process_is_an_error_of_its_setting(song):
    """Killed as the system does where memory ran out."""
    planned = plan_sweep(
        song, planted.tiny, sample_rate=RATE, memory=True, device="cpu", store=False, **FREE
    )
    killed = threading.Event()

    def kill_first():
        deadline = time.monotonic() + 60
        while not killed.is_set() and time.monotonic() < deadline:
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    line = (process / "cmdline").read_bytes()
                    parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
                except OSError:
                    continue
                if b"stemlab.sweeps._measure" in line and int(parent) == os.getpid():
                    os.kill(int(process.name), signal.SIGKILL)
                    killed.set()
                    return
            time.sleep(0.05)

    if sys.platform != "linux":
        pytest.skip("finds the process in /proc")
    thread = threading.Thread(target=kill_first)
    thread.start()
    results = planned.run()
    thread.join()
    assert killed.is_set()
    errors = settings(results)["error"].tolist()
    assert sum(map(bool, errors)) == 1
    assert "most likely because memory ran out" in "".join(errors)


def test_dask_gives_the_same_figures_and_survives_a_dead_worker(song):
    """A real cluster of two processes, one of which is killed while it works."""
    from distributed import Client, LocalCluster

    options = {
        "sample_rate": RATE,
        "segments": [0.2, 0.5, 1.0],
        "overlaps": [0.0, 0.5],
        "padded": [False],
        "references": {"bass": 0.3 * song},
        "store": False,
    }
    here = sweep(song, planted.tiny, **options)
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster) as client,
    ):
        victims = []

        def kill_one(event):
            if event.done == 2 and not victims:
                pids = client.run(os.getpid)
                victims.append(next(iter(pids.values())))
                os.kill(victims[0], signal.SIGKILL)

        there = sweep(
            song, planted.tiny, executor=client.get_executor(), progress=kill_one, **options
        )
    assert victims
    assert not there["error"].any(), there["error"].unique()
    quality = ["sdr_db", "si_sdr_db", "agreement_db", "seam_db", "consistency_db"]
    np.testing.assert_allclose(there[quality], here[quality], atol=1e-3)
    assert there["computation"].tolist() == here["computation"].tolist()


def test_a_worker_with_another_model_refuses_it(song, tmp_path, monkeypatch):
    """The digest that the sweep expects travels along."""
    from stemlab.sweeps._measure import Inputs, do_elsewhere
    from stemlab.sweeps._models import model_sources
    from stemlab.sweeps.plan import Computation

    (source,) = model_sources("stemlab-mini")
    object.__setattr__(source, "sha256", "0" * 64)
    excerpt = load_audio(song, RATE, excerpt_seconds=None, excerpt_start_seconds=None)
    settings = SeparationSettings()
    computation = Computation("", "", source, settings, (), "cpu", 1, measures=None)
    with pytest.raises(ModelRefusedError, match="expected SHA-256 0000"):
        do_elsewhere(computation, "key", tmp_path / "missing.npz", Inputs("key", excerpt, {}))


@pytest.mark.parametrize("container", ["FLAC", "OGG"])
def test_only_the_excerpt_of_a_long_recording_is_held(song, tmp_path, monkeypatch, container):
    path, subtype = tmp_path / "song", {"FLAC": "PCM_16", "OGG": "VORBIS"}[container]
    soundfile.write(path, song.T, RATE, format=container, subtype=subtype)
    monkeypatch.setattr("stemlab.audio.reading._MOST_BYTES", 8 * RATE)
    found = load_audio(
        path, None, excerpt_seconds=np.int8(1), excerpt_start_seconds=np.float16(1.5)
    )
    assert (found.start, found.total, found.seconds) == (1.5 * RATE, song.shape[1], 1)
    whole = soundfile.read(path, dtype="float32")[0].T
    np.testing.assert_array_equal(found.mixture, whole[:, found.start :][:, :RATE])
    with pytest.raises(AudioError, match="song' is too long to be held in memory: 3 s or more"):
        load_audio(path, None, excerpt_seconds=None, excerpt_start_seconds=None)


# ---------------------------------------------------------------- many settings


def test_hundreds_of_settings_of_a_trivial_model(song, store):
    """Thousands in `make test-long`."""
    overlaps = cases(quick=50, long=500)
    network = planted.Planted(segment=0.2)
    options = {
        "sample_rate": RATE,
        "segments": [0.05, 0.1, 0.15, 0.2],
        "overlaps": [0.8 * number / overlaps for number in range(overlaps)],
        "padded": [False],
        "network_version": "1",
        "store": store,
    }
    short = song[:, : RATE // 2]
    results = sweep(short, network, **options)
    assert len(settings(results)) == 4 * overlaps
    assert not results["error"].any()
    assert store.usage().results == settings(results)["computation"].nunique()
    again = plan_sweep(short, network, **options)
    assert again.estimate().stored == again.estimate().computations
    pd.testing.assert_frame_equal(again.table(), results)


@pytest.mark.memory
@pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is looked up in /proc")
def test_memory_that_a_setting_freed_does_not_pile_up():
    """300 MB of small pieces, all but every fiftieth freed: glibc alone gives none of it back."""
    code = (
        "import numpy as np, planted\n"
        "from pathlib import Path\n"
        "from stemlab.sweeps import sweep\n"
        "def resident():\n"
        "    status = Path('/proc/self/status').read_text()\n"
        "    return int(status.split('VmRSS:')[1].split()[0]) / 1024\n"
        "network = planted.Planted()\n"
        "song = 0.1 * np.random.default_rng(0).standard_normal((2, 44_100))\n"
        "def measure(overlap):\n"
        "    sweep(song, network, sample_rate=44_100, segments=[1.0], overlaps=[overlap],\n"
        "          padded=[False], store=False)\n"
        "measure(0.0)\n"
        "pieces = [b'x' * 60_000 for _ in range(5000)]\n"
        "kept = pieces[::50]\n"
        "del pieces\n"
        "before = resident()\n"
        "measure(0.25)\n"
        "print(before - resident())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(Path(planted.__file__).parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert float(done.stdout) > 200


# ---------------------------------------------------------------- the table as a file


@pytest.mark.parametrize("name", ["results.csv", "results.json"])
def test_a_table_is_read_as_it_was_written(tmp_path, song, name):
    results = sweep(
        song,
        models={"a#b, c": planted.Planted(), "d": planted.Failing()},
        sample_rate=RATE,
        segments=[0.25, 1.0],
        overlaps=[0.0],
        padded=[False],
        references={"bass": np.zeros_like(song)},
        store=False,
    )
    write_sweep(results, tmp_path / name)
    again = read_sweep(tmp_path / name)
    pd.testing.assert_frame_equal(again, results)
    assert again.attrs["manifest"] == results.attrs["manifest"]
    if name.endswith(".csv"):
        plain = pd.read_csv(tmp_path / name, comment="#")
        assert list(plain.columns) == list(COLUMNS)
        assert len(plain) == len(results)
        assert set(plain["model"]) == {"a#b, c", "d"}
    else:
        text = (tmp_path / name).read_text("utf-8")
        json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(ParameterError, match=r"does not end in \.csv or \.json"):
        write_sweep(pd.DataFrame(), tmp_path / "results.txt")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ParameterError, match="is not the table of a sweep"):
        read_sweep(tmp_path / "other.csv")
    with pytest.raises(ParameterError, match="cannot be read"):
        read_sweep(tmp_path / "missing.json")


FORMULAS = [
    "=1+1",
    "+1",
    "-1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''=1",
    " =1",
    "'quoted'",
    "2024",
]


def test_no_cell_of_a_table_is_a_formula(tmp_path, v0_1):
    results = pd.concat([read_sweep(v0_1 / "sweep.csv").iloc[:1]] * len(FORMULAS))
    results = results.reset_index(drop=True)
    results["model"] = pd.Series(FORMULAS, dtype=object)
    results["note"] = pd.Series([f"{text}, {text}" for text in FORMULAS], dtype=object)
    manifest = {"song": "a,=cmd|' /C calc'!A0;+b", "models": {"=1": "-2"}, "depth": -1}
    results.attrs["manifest"] = manifest
    write_sweep(results, tmp_path / "results.csv")
    again = read_sweep(tmp_path / "results.csv")
    pd.testing.assert_frame_equal(again, results)
    assert again.attrs["manifest"] == manifest
    first, table = (tmp_path / "results.csv").read_text("utf-8").split("\n", 1)
    cells = [cell for row in csv.reader(io.StringIO(table, newline="")) for cell in row]
    cells += re.split("[,;]", first)
    texts = [cell.strip() for cell in cells if not re.fullmatch(r"\s*[-+.e\d]+", cell)]
    assert not [cell for cell in texts if cell.startswith(tuple("=+-@"))]


def test_models_with_numbers_for_names_stay_texts(tmp_path, v0_1):
    results = pd.concat([read_sweep(v0_1 / "sweep.csv").iloc[:1]] * 2, ignore_index=True)
    for names in (["1", "2"], ["1.0", "nan"], ["true", "1e3"]):
        results["model"] = pd.Series(names, dtype=object)
        for name in ("results.csv", "results.json"):
            write_sweep(results, tmp_path / name)
            again = read_sweep(tmp_path / name)
            pd.testing.assert_frame_equal(again, results)
            assert list(again["model"]) == names
        # Pandas alone keeps them apart from numbers, too.
        assert recommend(read_sweep(tmp_path / "results.csv").iloc[:1]).setting.model == names[0]


def odd_tables(content):
    """Tables with one thing wrong, and the word that the error has for it."""
    first, header, row, *_ = content.splitlines()
    cells = row.split(",")

    def with_cell(index, value):
        return "\n".join([first, header, ",".join([*cells[:index], value, *cells[index + 1 :]])])

    yield "wide", "\n".join([first, ",".join(map(str, range(300_000)))]), "columns are others"
    yield "none", "", "not JSON"
    yield "deep", "# " + "[" * 200_000, "nested too deeply"
    yield "list", "\n".join(["# [1]", header, row]), "not a JSON object"
    yield "nan", "\n".join(['# {"a": NaN}', header, row]), "NaN is not a number"
    yield "rows", "\n".join([first, header, *(5_001 * [row])]), "5001 rows, more than 5000"
    yield "longer", "\n".join([first, header, row + ",1"]), "is not the table"
    yield "segment", with_cell(1, "-1"), "'segment_seconds' holds '-1.0'"
    yield "overlap", with_cell(2, "inf"), "'overlap' holds 'inf'"
    yield "shifts", with_cell(3, "1e400"), "is not the table"
    yield "flag", with_cell(4, "maybe"), "is not the table"
    yield "text", with_cell(6, "many"), "is not the table"
    yield "rtf", with_cell(13, ""), "'rtf' holds 'nan'"
    yield "model", with_cell(0, ""), "'model' holds"


def test_an_odd_table_is_one_clear_error(tmp_path, v0_1):
    content = (v0_1 / "sweep.csv").read_text("utf-8")
    for name, text, words in odd_tables(content):
        (tmp_path / f"{name}.csv").write_text(text, "utf-8")
        with pytest.raises(ParameterError, match=words):
            read_sweep(tmp_path / f"{name}.csv")
    write_sweep(read_sweep(v0_1 / "sweep.csv"), tmp_path / "results.json")
    fields = json.loads((tmp_path / "results.json").read_bytes())
    for name, value in (("model", 3), ("padded", "no"), ("calls", [1]), ("shifts", 10**400)):
        changed = {**fields, "rows": [{**fields["rows"][0], name: value}]}
        (tmp_path / "odd.json").write_text(json.dumps(changed))
        with pytest.raises(ParameterError, match="is not the table of a sweep"):
            read_sweep(tmp_path / "odd.json")


@pytest.mark.skipif(sys.platform == "win32", reason="no pipes in folders there")
def test_a_table_that_is_a_pipe_or_endless_is_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "endless.json").symlink_to("/dev/zero")
    with (tmp_path / "long.csv").open("wb") as file:
        file.truncate(10**10)
    for name in ("pipe.csv", "endless.json", "long.csv"):
        with pytest.raises(ParameterError, match="not a regular file|longer than"):
            read_sweep(tmp_path / name)


def test_every_column_is_explained():
    assert all(COLUMNS.values())
    assert set(SETTING_COLUMNS) <= set(COLUMNS)


def test_a_sweep_store_of_version_0_1_is_used_or_ignored(v0_1):
    usage = SweepStore().usage()
    assert (usage.results, usage.kept) == (1, 2)
    results = sweep(
        v0_1 / "song.wav",
        "tiny",
        segments=[0.125],
        overlaps=[0.25],
        padded=[False],
        excerpt_seconds=0.375,
        device="cpu",
    )
    before = read_sweep(v0_1 / "sweep.csv")
    assert (results["error"] == "").all()
    assert list(results["source"]) == list(before["source"])
    assert list(results["agreement_db"]) == pytest.approx(list(before["agreement_db"]), abs=0.1)
