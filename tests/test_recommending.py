"""Recommendations on tables whose right answer is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from stemlab.errors import ParameterError
from stemlab.registry import find_model
from stemlab.sweeps import COLUMNS, SweepSetting, recommend

NAN = float("nan")


def table(*rows, **shared):
    """A sweep's table; each row is (segment, overlap, rtf, memory in MB, quality in dB, seams)."""
    names = ("segment_seconds", "overlap", "rtf", "peak_memory_bytes", "sdr_db", "seam_db")
    records = [
        {
            **dict.fromkeys(COLUMNS, NAN),
            "model": "m",
            "shifts": 0,
            "padded": False,
            "error": "",
            "source": source,
            **dict(zip(names, row, strict=True)),
            "peak_memory_bytes": row[3] * 1e6,
            "sdr_db": row[4] + delta,
            **shared,
        }
        for row in rows
        for source, delta in (("bass", -1.0), ("vocals", 1.0))
    ]
    return pd.DataFrame(records)


def without_truth(results):
    """The same with agreement in place of true stems."""
    return results.assign(agreement_db=results["sdr_db"], sdr_db=NAN)


def setting(segment, overlap):
    return SweepSetting("m", segment, overlap, 0, False)


FAST_POOR = (1.0, 0.1, 0.05, 400, 4.0, 0.0)
GOOD = (8.0, 0.1, 0.10, 800, 5.0, 0.0)
SLOW = (8.0, 0.5, 0.20, 810, 5.05, 0.0)
WORSE = (4.0, 0.5, 0.15, 900, 4.9, 0.0)


def test_a_slower_setting_that_gains_next_to_nothing_is_not_taken():
    found = recommend(table(FAST_POOR, GOOD, SLOW, WORSE))
    assert found.setting == setting(8.0, 0.1)
    assert found.command == "stemlab separate SONG --model m --segment 8 --overlap 0.1 --no-pad"
    assert "0.05 dB of SDR below the best, which takes 2.0 times as long" in found.reason
    assert found.front == (setting(1.0, 0.1), setting(8.0, 0.1), setting(8.0, 0.5))


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        ("htdemucs", "--model htdemucs "),
        ("stemlab-mini", ""),
        (None, None),
        ("./planted", None),
        (["htdemucs"], None),
    ],
)
def test_the_command_names_the_model_that_was_asked_for(request_, expected):
    """Whatever the table calls it; a table from a file names no folder."""
    results = table(GOOD)
    results.attrs["manifest"] = {"models": {"m": "0" * 64}, "requests": {"m": request_}}
    command = recommend(results).command
    if expected is None:
        assert command is None
    else:
        assert command == f"stemlab separate SONG {expected}--segment 8 --overlap 0.1 --no-pad"


def test_a_table_of_version_0_1_names_a_registered_model_by_its_digest():
    results = table(GOOD, model="stemlab-mini")
    digest = find_model("stemlab-mini").sha256
    results.attrs["manifest"] = {"models": {"stemlab-mini": digest}}
    assert recommend(results).command.startswith("stemlab separate SONG --segment")
    results.attrs["manifest"] = {"models": {"stemlab-mini": "0" * 64}}
    assert recommend(results).command is None


def test_the_command_has_the_segment_to_the_last_digit():
    results = table((1.23456789, 0.1, 0.1, 800, 5.0, 0.0))
    assert "--segment 1.23456789 " in recommend(results).command
    mixed = {"models": {"m": ""}, "requests": {"m": "bag"}, "mixed_segments": {"m": 1.23456789}}
    results.attrs["manifest"] = mixed
    assert "--segment" not in recommend(results).command


def test_tolerance_decides():
    results = table(FAST_POOR, GOOD, SLOW, WORSE)
    assert recommend(results, tolerance_db=0).setting == setting(8.0, 0.5)
    assert recommend(results, tolerance_db=1.1).setting == setting(1.0, 0.1)


def test_limits_decide():
    results = table(FAST_POOR, GOOD, SLOW, WORSE)
    small = recommend(results, memory_limit="500MB")
    assert small.setting == setting(1.0, 0.1)
    assert "the best within 500 MB" in small.reason
    assert recommend(results, memory_limit=800e6).setting == setting(8.0, 0.1)
    assert recommend(results, max_rtf=0.07).setting == setting(1.0, 0.1)
    with pytest.raises(ParameterError, match=r"the smallest takes 400 MB \(m, segment 1 s"):
        recommend(results, memory_limit="0.3 GB")
    with pytest.raises(ParameterError, match=r"max_rtf=0.01 .* fastest takes 0.05"):
        recommend(results, max_rtf=0.01)
    with pytest.raises(ParameterError, match="needs measured memory"):
        recommend(results.assign(peak_memory_bytes=NAN), memory_limit="1GB")


def test_clicks_cost_a_setting_its_place_unless_all_click():
    clicking = (8.0, 0.0, 0.08, 790, 5.05, 9.0)
    found = recommend(table(clicking, GOOD))
    assert found.setting == setting(8.0, 0.1)
    assert "Left out: 1 whose error stands out" in found.reason
    alone = recommend(table(clicking, (4.0, 0.0, 0.05, 500, 4.0, 7.0)))
    assert alone.setting == setting(8.0, 0.0)
    assert "more overlap would hide them" in alone.reason
    assert recommend(table(clicking, GOOD), max_seam_db=20).setting == setting(8.0, 0.0)


def test_without_true_stems_agreement_stands_for_quality():
    """30 dB of agreement is as good as 45; 12 dB is not."""
    results = without_truth(
        table(
            (1.0, 0.1, 0.05, 400, 12.0, 0.0),
            (8.0, 0.1, 0.10, 800, 30.0, 0.0),
            (8.0, 0.9, 0.90, 800, 45.0, 0.0),
        )
    )
    found = recommend(results)
    assert found.setting == setting(8.0, 0.1)
    assert "30.0 dB of agreement with a long-context run" in found.reason
    assert "(estimated)" in found.reason
    two = pd.concat([results, results.assign(model="n")])
    with pytest.raises(ParameterError, match="2 models and no true stems"):
        recommend(two)


def test_equal_results_are_told_apart_by_time_alone():
    """Agreement and SDR may be infinite."""
    results = without_truth(
        table((1.0, 0.0, 0.05, 400, math.inf, 0.0), (1.0, 0.5, 0.10, 400, math.inf, 0.0))
    )
    assert recommend(results).setting == setting(1.0, 0.0)
    exact = table((1.0, 0.0, 0.05, 400, math.inf, 0.0), (1.0, 0.5, 0.10, 400, math.inf, 0.0))
    assert recommend(exact).setting == setting(1.0, 0.0)
    assert recommend(exact).front == (setting(1.0, 0.0),)


def test_a_silent_source_and_failed_settings_are_left_out():
    results = table(GOOD, SLOW)
    results.loc[results["source"] == "bass", "sdr_db"] = NAN
    failed = table(FAST_POOR).head(1).assign(source=None, rtf=NAN, sdr_db=NAN, error="broke")
    found = recommend(pd.concat([failed, results]))
    assert found.setting == setting(8.0, 0.1)
    assert "SDR of 6.00 dB" in found.reason
    with pytest.raises(ParameterError, match="no setting that succeeded"):
        recommend(failed)


def test_times_taken_beside_others_are_said_to_be_rough():
    results = table(FAST_POOR, GOOD)
    assert "compare only roughly" not in recommend(results.assign(timed_alone=True)).reason
    assert "compare only roughly" in recommend(results.assign(timed_alone=False)).reason


def test_times_within_the_noise_are_taken_for_equal():
    found = recommend(table((8.0, 0.1, 0.100, 800, 5.0, 0.0), (8.0, 0.2, 0.102, 800, 5.06, 0.0)))
    assert found.setting == setting(8.0, 0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"memory_limit": "much"}, "memory_limit='much' is no amount"),
        ({"memory_limit": "0GB"}, "memory_limit='0GB'"),
        ({"memory_limit": True}, "memory_limit=True"),
        ({"max_rtf": 0}, "max_rtf=0 is not a number above 0"),
        ({"max_rtf": NAN}, "max_rtf=nan"),
        ({"tolerance_db": -1}, "tolerance_db=-1"),
        ({"max_seam_db": "3"}, "max_seam_db='3'"),
    ],
)
def test_limits_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ParameterError, match=message):
        recommend(table(GOOD), **options)


def test_tables_that_lack_what_is_needed_are_refused():
    with pytest.raises(ParameterError, match="lacks the column 'model'"):
        recommend(pd.DataFrame({"a": [1]}))
    with pytest.raises(ParameterError, match="no quality"):
        recommend(table(GOOD).assign(sdr_db=np.nan))
