"""The sweep panel with a real network, a real store and real stems."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest
from panels import find, parts, shown

from stemlab import audio
from stemlab._assets import demo_song_dir
from stemlab.errors import ModelNotFoundError, ParameterError, SeparationError
from stemlab.sweeps import SweepEstimate, SweepSetting, plan_sweep, sweep
from stemlab.widgets import SweepPanel

RATE = 44100
SECONDS = 120


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("songs") / "hum.wav"
    noise = np.random.default_rng(7).uniform(-0.3, 0.3, (2, 2 * RATE)).astype(np.float32)
    audio.write_file(path, [noise], RATE, 2)
    return path


@pytest.fixture(scope="module")
def measured(song: Path, tiny_model_folder: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with all that the panel below measures."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEMLAB_CACHE", str(cache))
        plan_sweep(
            song, tiny_model_folder, segments=[0.5, 1], overlaps=[0, 0.5], keep_audio=True
        ).run()
    return cache


@pytest.fixture
def panel(
    threads_end: None,
    song: Path,
    tiny_model_folder: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[SweepPanel]:
    monkeypatch.setenv("STEMLAB_CACHE", str(tmp_path / "cache"))
    made = SweepPanel(song.parent, song=song, model=tiny_model_folder)
    made.segments, made.overlaps = "0.5, 1", "0, 0.5"
    yield made
    made.close()


@pytest.fixture
def measured_panel(panel: SweepPanel, measured: Path, tmp_path: Path) -> SweepPanel:
    """A panel that has run, and found all measurements in the cache."""
    shutil.copytree(measured, tmp_path / "cache")
    panel.run()
    panel.wait(SECONDS)
    return panel


def cells(panel: SweepPanel) -> list[Any]:
    grids = [each for each in parts(panel) if isinstance(each, ipywidgets.GridBox)]
    return [each for grid in grids for each in grid.children if isinstance(each, ipywidgets.Button)]


def test_starts_with_the_demo_song_and_its_true_stems(tmp_path: Path) -> None:
    made = SweepPanel(tmp_path)
    assert made.references == str(demo_song_dir())
    field = find(made, ipywidgets.Text, "True stems")
    assert field.value == "those of the demo song"
    made.song = "other.wav"
    assert made.references == field.value == ""
    field.value = "those of the demo song"
    assert made.references == str(demo_song_dir())
    field.value = "mine"
    assert made.references == "mine"
    assert repr(made) == "SweepPanel(song='other.wav', model='stemlab-mini', state='idle')"
    made.close()
    with pytest.raises(ModelNotFoundError):
        SweepPanel(tmp_path, model="other")
    with pytest.raises(ParameterError, match="is not a folder"):
        SweepPanel(tmp_path / "missing")


def test_grids_fill_the_fields_and_own_values_are_named_so(panel: SweepPanel) -> None:
    assert panel.grid == "own values"
    grids = next(each for each in parts(panel) if isinstance(each, ipywidgets.ToggleButtons))
    grids.value = "large"
    assert (panel.segments, panel.shifts, panel.excerpt_seconds) == ("", "0, 1, 2", 60)
    panel.overlaps = "0.3"
    assert panel.grid == grids.value == "own values"
    assert (panel.overlaps, panel.shifts) == ("0.3", "0, 1, 2")
    panel.grid = "small"
    assert (panel.overlaps, panel.shifts, panel.excerpt_seconds) == ("0, 0.25, 0.5", "0", 10)
    panel.overlaps = "0, 0.1, 0.25, 0.5, 0.75"
    panel.excerpt_seconds = 30.0
    assert grids.value == "medium"


def test_memory_is_measured_and_limited(panel: SweepPanel) -> None:
    panel.segments, panel.overlaps, panel.memory = "1", "0", True
    panel.memory_limit = "64 GB"
    panel.run()
    results = panel.wait(SECONDS)
    assert panel.error == ""
    assert panel.recommendation is not None
    assert f"Command: {panel.recommendation.command}" in shown(panel)
    panel.figure = "peak_memory_bytes"
    (cell,) = cells(panel)
    (peak,) = results["peak_memory_bytes"].unique()
    assert float(cell.description.removeprefix("★ ")) == round(peak / 1e6)
    panel.memory_limit = "1 MB"
    panel.run()
    panel.wait(SECONDS)
    assert panel.recommendation is None
    assert "nothing can be recommended" in panel.message


def test_a_chosen_figure_stays(measured_panel: SweepPanel) -> None:
    panel = measured_panel
    assert panel.figure == "agreement_db"
    panel.figure = "rtf"
    panel.run()
    panel.wait(SECONDS)
    assert panel.figure == "rtf"


def test_estimating_measures_nothing(panel: SweepPanel) -> None:
    find(panel, ipywidgets.Button, "Estimate").click()
    estimate = panel.wait(SECONDS)
    assert isinstance(estimate, SweepEstimate)
    assert (estimate.settings, estimate.stored) == (4, 0)
    assert re.search(r"4 settings on cpu\. About .* s and \d+ MB\.", shown(panel))
    assert [each.description for each in cells(panel)] == ["…"] * 4
    assert all(each.disabled for each in cells(panel))


def test_a_run_fills_the_cells_and_loads_the_recommended(panel: SweepPanel, song: Path) -> None:
    progress: list[float] = []
    panel.observe(lambda change: progress.append(change.new), "progress")
    find(panel, ipywidgets.Button, "Run").click()
    results = panel.wait(SECONDS)
    assert panel.state == "done"
    assert panel.error == ""
    assert progress == sorted(progress)
    assert panel.recommendation is not None
    assert panel.selected == panel.recommendation.setting
    assert f"Recommended: {panel.selected}. {panel.recommendation.reason}" in shown(panel)
    assert results.equals(panel.results)

    means = results.groupby(["segment_seconds", "overlap"], sort=True)["agreement_db"].mean()
    marks = [each.description.removeprefix("★ ") for each in cells(panel)]
    assert marks == [f"{each:.1f}" for each in means]
    starred = [each for each in cells(panel) if each.description.startswith("★ ")]
    assert [each.tooltip.partition(":")[0] for each in starred] == [str(panel.selected)]
    panel.figure = "calls"
    calls = results.groupby(["segment_seconds", "overlap"], sort=True)["calls"].first()
    marks = [each.description.removeprefix("★ ") for each in cells(panel)]
    assert marks == [f"{each:.0f}" for each in calls]
    colours = [each.style.button_color for each in cells(panel)]
    assert len(set(colours)) == len(set(marks))

    assert panel.mixer is not None
    assert repr(panel.mixer).startswith("StemMixer('mixture', 'drums', 'bass', 'other', 'vocals'")


def test_pressing_a_cell_plays_it_beside_the_recommended(measured_panel: SweepPanel) -> None:
    panel = measured_panel
    assert panel.recommendation is not None
    assert panel.sweep is not None
    first = next(each for each in panel.sweep.settings if each != panel.recommendation.setting)
    button = next(each for each in cells(panel) if each.tooltip.startswith(f"{first}:"))
    old = panel.mixer
    button.click()
    assert panel.selected == first
    assert panel.mixer is not None
    assert panel.mixer is not old
    assert panel.mixer.heard == f"{first.segment_seconds:g} s, overlap {first.overlap:g}, padded"
    best = panel.recommendation.setting
    panel.mixer.heard = f"recommended: {best.segment_seconds:g} s, overlap {best.overlap:g}, padded"
    assert old is not None
    assert old.comm is None


def test_a_cancelled_sweep_goes_on_where_it_was(panel: SweepPanel) -> None:
    def stop(change: Any) -> None:
        if change.new.startswith("1 of 4"):
            panel.cancel()

    panel.observe(stop, "message")
    panel.run()
    with pytest.raises(SeparationError, match="was cancelled"):
        panel.wait(SECONDS)
    assert panel.state == "cancelled"
    assert "Measurements so far are kept; press Resume to continue." in shown(panel)
    done = panel.results["computation"].nunique()
    assert 1 <= done < 4
    assert sum(not each.disabled for each in cells(panel)) == done
    panel.unobserve_all("message")
    find(panel, ipywidgets.Button, "Resume").click()
    assert panel.wait(SECONDS)["computation"].nunique() == 4
    assert find(panel, ipywidgets.Button, "Run")


def test_many_presses_start_one_sweep(panel: SweepPanel) -> None:
    panel.segments, panel.overlaps = "1", "0"
    for _ in range(10):
        panel.run()
    names = [each.name for each in threading.enumerate()]
    assert names.count("stemlab-SweepPanel") == 1
    assert len(panel.wait(SECONDS)) == 4


def test_the_table_is_that_of_the_library(
    measured_panel: SweepPanel, song: Path, tiny_model_folder: str
) -> None:
    found = measured_panel.results
    expected = sweep(song, tiny_model_folder, segments=[0.5, 1], overlaps=[0, 0.5])
    columns = ["segment_seconds", "overlap", "source", "calls", "agreement_db", "computation"]
    assert found[columns].equals(expected[columns])


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("segments", "a", "segments=&#x27;a&#x27; is not a list of numbers separated by commas"),
        ("shifts", "0.5", "is not a list of whole numbers"),
        ("overlaps", "1.5", "overlap=1.5"),
        ("song", "missing.wav", "does not exist"),
        ("references", "missing", "missing"),
        ("memory_limit", "2 GB", "needs measured memory"),
        ("memory_limit", "lots", "memory_limit=&#x27;lots&#x27;"),
    ],
)
def test_what_is_wrong_is_said_in_words(
    panel: SweepPanel, name: str, value: str, message: str
) -> None:
    setattr(panel, name, value)
    panel.run()
    with pytest.raises(Exception, match=r".+"):
        panel.wait(SECONDS)
    assert panel.state == "failed"
    assert message in shown(panel)
    assert '<div role="alert"' in shown(panel)
    assert "bug" not in shown(panel)


def test_what_is_chosen_after_run_was_pressed_is_for_the_next(panel: SweepPanel) -> None:
    panel.memory_limit = "2 GB"
    panel.observe(lambda _: setattr(panel, "memory", True), "state")
    panel.run()
    with pytest.raises(ParameterError, match="needs measured memory"):
        panel.wait(SECONDS)


def test_a_setting_that_is_impossible_says_why(measured_panel: SweepPanel) -> None:
    panel = measured_panel
    panel.segments = "1, 2"
    panel.run()
    results = panel.wait(SECONDS)
    assert (results["error"] != "").sum() == 2
    failed = [each for each in cells(panel) if each.description == "failed"]
    assert len(failed) == 2
    assert all("is longer than the 1 s" in each.tooltip and each.disabled for each in failed)


def test_stems_that_are_gone_are_made_again(measured_panel: SweepPanel) -> None:
    panel, results = measured_panel, measured_panel.results
    assert panel.sweep is not None
    setting: SweepSetting = panel.sweep.settings[0]
    for path in panel.sweep.kept_stems(setting).values():
        path.unlink()
    panel.selected = None
    panel.selected = setting
    panel.wait(SECONDS)
    assert panel.error == ""
    assert "were made again" in shown(panel)
    assert panel.sweep.kept_stems(setting)
    assert panel.mixer is not None
    assert panel.results.equals(results)


def test_nothing_was_measured_yet(panel: SweepPanel) -> None:
    with pytest.raises(SeparationError, match="nothing was measured yet"):
        _ = panel.results
