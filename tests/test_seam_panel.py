"""The seam panel: the real arithmetic, the real model, and the picture of both."""

from __future__ import annotations

from collections.abc import Iterator

import ipywidgets
import numpy as np
import pytest
from panels import find, shown

from stemlab.chunking import ChunkPlan
from stemlab.errors import ParameterError, SeparationError
from stemlab.plots import plot_seam
from stemlab.widgets import SeamPanel

SECONDS = 120
RATE = 8000


@pytest.fixture
def panel(threads_end: None) -> Iterator[SeamPanel]:
    made = SeamPanel()
    yield made
    made.close()


def test_the_click_is_there_without_overlap_and_goes_with_it(panel: SeamPanel) -> None:
    view = panel.wait(SECONDS)
    assert (view.plan.calls, view.work) == (8, 1)
    assert view.click_db > 12
    find(panel, ipywidgets.FloatSlider, "Overlap").value = 0.25
    view = panel.wait(SECONDS)
    assert view.overlap == 0.25
    assert view.click_db < 1.5
    assert 1.2 < view.work < 4 / 3
    assert f"{view.plan.calls} segments, {view.work:.2f} times the length" in shown(panel)
    assert shown(panel).count("<img") == 1


def test_segments_that_do_not_differ_leave_no_trace(panel: SeamPanel) -> None:
    panel.difference_db = 0
    assert panel.wait(SECONDS).click_db == pytest.approx(0, abs=0.01)
    panel.difference_db = 6
    assert panel.wait(SECONDS).click_db > 24


def test_the_model_clicks_too(panel: SeamPanel) -> None:
    find(panel, ipywidgets.Dropdown, "Signal").label = "the demo song"
    cut = panel.wait(SECONDS)
    assert panel.mixer is not None
    assert repr(panel.mixer).startswith("StemMixer('drums', 'bass', 'other', 'vocals'")
    panel.overlap = 0.25
    assert panel.wait(SECONDS).click_db < cut.click_db - 3
    panel.overlap = 0
    # Remembered: there is nothing to cancel.
    assert panel.wait(SECONDS) == cut


def test_what_is_chosen_last_is_shown_last(panel: SeamPanel) -> None:
    for overlap in np.linspace(0, 0.75, 40):
        panel.overlap = overlap
    assert panel.wait(SECONDS).overlap == 0.75
    assert repr(panel) == "SeamPanel(material='a sine wave', overlap=0.75)"
    panel.overlap = 3
    assert panel.overlap == 0.75
    panel.overlap = -1
    assert panel.wait(SECONDS).overlap == 0


def test_old_mixers_go(panel: SeamPanel) -> None:
    panel.wait(SECONDS)
    old = panel.mixer
    panel.overlap = 0.5
    panel.wait(SECONDS)
    assert old is not None
    assert old.comm is None


def test_a_separation_may_be_cancelled(panel: SeamPanel) -> None:
    panel.wait(SECONDS)

    def stop(change: object) -> None:
        panel.cancel()

    panel.observe(stop, "progress")
    panel.material = "the demo song"
    with pytest.raises(SeparationError, match="was cancelled"):
        panel.wait(SECONDS)
    panel.unobserve(stop, "progress")
    panel.material, panel.overlap = "a sine wave", 0.1
    assert panel.wait(SECONDS).overlap == 0.1


# --- the picture


@pytest.mark.parametrize("overlap", [0, 0.25, 0.6])
def test_shares_add_up_to_one(overlap: float) -> None:
    plan = ChunkPlan(3 * RATE, RATE, 1, overlap)
    sine = np.sin(np.arange(3 * RATE) / 5).astype(np.float32)
    above, below = plot_seam(plan, 2 * sine, sine)
    *shares, total = (np.asarray(each.get_ydata()) for each in above.lines)
    assert len(shares) == plan.calls
    assert np.allclose(total, 1)
    assert np.allclose(np.sum(shares, axis=0), 1)
    assert above.get_xlim() == (0, 3)
    drawn, right = (np.asarray(each.get_ydata()) for each in below.lines[:2])
    assert np.allclose(drawn, 2 * right)
    assert len(drawn) == 2 * 0.01 * RATE


def test_the_seam_nearest_to_a_moment_is_enlarged() -> None:
    plan = ChunkPlan(3 * RATE, RATE, 1, 0)
    sine = np.sin(np.arange(3 * RATE) / 5)
    _, below = plot_seam(plan, sine, sine, at_seconds=0.8)
    assert below.get_title(loc="left") == "around the seam at 1.00 s"


def test_signals_of_another_length_are_refused() -> None:
    plan = ChunkPlan(3 * RATE, RATE, 1, 0)
    with pytest.raises(ParameterError, match="'uncut' has 10 samples and the plan 24000"):
        plot_seam(plan, np.ones(3 * RATE), np.ones(10))
