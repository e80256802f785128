"""The notebook as a person meets it: JupyterLab in Chromium, run and clicked through."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from browsing import (
    CELLS,
    RUN_ALL,
    RUN_SECONDS,
    expect_status,
    find_browser,
    open_notebook,
    press,
    running_lab,
    within,
)

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
PLAYERS = """async () => {
  const players = [...document.querySelectorAll('audio')];
  for (const each of players) { each.muted = true; await each.play(); }
  await new Promise(resolve => setTimeout(resolve, 500));
  return players.map(each => ({
    name: each.previousSibling.textContent, seconds: each.duration, position: each.currentTime}));
}"""


@pytest.mark.browser
def test_panel_in_jupyterlab(tmp_path: Path) -> None:
    executable = find_browser()
    with running_lab(tmp_path) as lab:
        shutil.copy(NOTEBOOKS / "01_separate.ipynb", lab.folder)
        with open_notebook(lab, "01_separate.ipynb", executable) as visit:
            page = visit.page
            within(page, RUN_SECONDS, RUN_ALL)
            for cell in page.evaluate(CELLS):
                assert cell["count"] is not None, cell
                kinds = [(each["output_type"], each.get("name")) for each in cell["outputs"]]
                assert ("error", None) not in kinds, cell
                assert ("stream", "stderr") not in kinds, cell
            expect_status(page, "Done: 4 stems are in stems/mixture.")

            press(page, "Separate")
            press(page, "Cancel")
            expect_status(page, "Cancelled. Nothing was written.")
            assert page.locator("audio").count() == 0

            press(page, "Separate")
            expect_status(page, "They replaced an earlier result of this song.")
            page.locator("audio").nth(4).wait_for()
            players = page.evaluate(PLAYERS)
            assert [each["name"] for each in players] == [
                *("mixture", "drums", "bass", "other", "vocals")
            ]
            for each in players:
                assert each["seconds"] == pytest.approx(24, abs=6), each
                assert each["position"] > 0, each
            picture = page.get_by_role("img", name=re.compile("Waveforms. Peaks"))
            assert picture.evaluate("image => image.naturalWidth") > 500

            page.get_by_label("Song").select_option(label="Another file: type its path")
            page.get_by_label("Path").fill("missing.wav")
            page.keyboard.press("Enter")
            press(page, "Separate")
            page.get_by_role("alert").filter(has_text="missing.wav").wait_for()
            assert visit.complaints() == []
        assert lab.ask("api/kernels") != []
    left = {each.name for each in (tmp_path / "work" / "stems" / "mixture").iterdir()}
    assert left == {"run.json", "drums.wav", "bass.wav", "other.wav", "vocals.wav"}
    assert [each.name for each in (tmp_path / "work" / "stems").iterdir()] == ["mixture"]
