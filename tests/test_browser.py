"""The notebooks as a person meets them: JupyterLab in Chromium, run and clicked through."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from browsing import (
    NOTEBOOK,
    Lab,
    Visit,
    end_kernels,
    expect_status,
    find_browser,
    open_notebook,
    press,
    run_all,
    running_lab,
    within,
    write_notebook,
)

from stemlab import audio, demo_song_dir
from stemlab.audio import file_digest

SAVE = "() => window.jupyterapp.commands.execute('docmanager:save')"
# As from the menu, with a Yes to what JupyterLab asks.
RESTART = """async () => {
  const restarted = window.jupyterapp.commands.execute('notebook:restart-run-all');
  let yes;
  while (!(yes = document.querySelector('.jp-Dialog .jp-mod-accept'))) {
    await new Promise(resolve => setTimeout(resolve, 50));
  }
  yes.click();
  await restarted;
}"""
NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


@pytest.mark.browser
def test_panel_in_jupyterlab(tmp_path: Path) -> None:
    executable = find_browser()
    song = tmp_path / "hum.wav"
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 2 * 44_100)).astype(np.float32)
    audio.write_file(song, [noise], 44_100, 2)
    with running_lab(tmp_path) as lab:
        shutil.copy(NOTEBOOKS / "01_separate.ipynb", lab.folder)
        with open_notebook(lab, "01_separate.ipynb", executable) as visit:
            page = visit.page
            run_all(page)
            expect_status(page, "Done in")
            press(page, "Save")
            expect_status(page, "Saved 4 stems to stems/mixture.")

            notebook = page.evaluate(NOTEBOOK)
            page.locator(".widget-hslider", has_text="Overlap").get_by_role("slider").click()
            for _ in range(5):
                page.keyboard.press("ArrowRight")
            page.get_by_text("The network runs 7 times").wait_for()
            page.keyboard.press("x")
            # Beside the controls, and on one that is disabled.
            page.locator(".widget-hslider .widget-label", has_text="Overlap").click()
            page.keyboard.press("x")
            page.get_by_role("button", name="Cancel", exact=True).click(force=True)
            page.keyboard.press("x")
            assert page.evaluate(NOTEBOOK) == notebook

            # Ten presses at once are one run.
            press(page, "Separate", times=10)
            expect_status(page, re.compile(r"Segment \d of"))  # The page may miss the first.
            press(page, "Cancel")
            expect_status(page, "Cancelled. Nothing was written.")

            press(page, "Separate")
            expect_status(page, "Done in")
            page.get_by_role("button", name="Hear overlap 0.25").click()
            press(page, "Play")
            page.wait_for_function(
                "() => document.querySelector('.stemlab-mixer').mixer.seconds > 1"
            )
            press(page, "Pause")
            press(page, "Save")
            page.get_by_role("alert").filter(
                has_text="already holds a result of this song"
            ).wait_for()
            press(page, "Replace")
            expect_status(page, "The earlier result was replaced.")

            page.locator(".stemlab-upload input[type=file]").set_input_files(song)
            expect_status(page, "Uploaded 'hum.wav' to 'work'.")
            chosen = page.get_by_label("Song", exact=True).locator("option:checked")
            chosen.filter(has_text="hum.wav").wait_for(state="attached")
            press(page, "Separate")
            expect_status(page, "Done in")
            assert page.get_by_role("button", name="Hear true").count() == 0

            page.get_by_label("Song", exact=True).select_option(label="Other file (type its path)")
            page.get_by_label("Path", exact=True).fill("missing.wav")
            page.keyboard.press("Enter")
            press(page, "Separate")
            page.get_by_role("alert").filter(has_text="missing.wav").wait_for()
            assert visit.complaints() == []
        assert lab.ask("api/kernels") != []
    left = {each.name for each in (tmp_path / "work" / "stems" / "mixture").iterdir()}
    assert left == {"run.json", "drums.wav", "bass.wav", "other.wav", "vocals.wav"}
    assert [each.name for each in (tmp_path / "work" / "stems").iterdir()] == ["mixture"]


@pytest.mark.browser
def test_a_closed_tab_and_a_restarted_kernel(tmp_path: Path) -> None:
    executable = find_browser()
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    # Enough calls of the network to close a tab and to restart a kernel between them.
    cell = f"""
        import tempfile
        from stemlab.widgets import SeparationPanel
        tempfile.tempdir = {str(scratch)!r}
        panel = SeparationPanel()
        panel.overlap = 0.8
        panel
    """
    with running_lab(tmp_path) as lab:
        write_notebook(lab, "panel.ipynb", textwrap.dedent(cell))
        with open_notebook(lab, "panel.ipynb", executable) as visit:
            run_all(visit.page)
            within(visit.page, 60, SAVE)
            press(visit.page, "Separate")
            expect_status(visit.page, re.compile(r"Segment \d+ of"))
        with open_notebook(lab, "panel.ipynb", executable) as visit:
            # The run went on, and what it makes answers to the page that is open now.
            expect_status(visit.page, "Done in")
            press(visit.page, "Play")
            visit.page.wait_for_function(
                "() => document.querySelector('.stemlab-mixer').mixer.seconds > 1"
            )
            press(visit.page, "Save")
            expect_status(visit.page, "Saved 4 stems to stems/mixture.")
            saved = {each: file_digest(each) for each in stems_in(lab.folder)}

            press(visit.page, "Separate")
            expect_status(visit.page, re.compile(r"Segment \d+ of"))
            before = set(scratch.glob("stemlab-*"))
            assert before
            within(visit.page, 60, RESTART)
            expect_status(visit.page, "Choose a song and press Separate.")
            press(visit.page, "Separate")
            expect_status(visit.page, "Done in")
            assert before.isdisjoint(scratch.glob("stemlab-*"))
            assert {each: file_digest(each) for each in stems_in(lab.folder)} == saved
            press(visit.page, "Save")
            press(visit.page, "Replace")
            expect_status(visit.page, "The earlier result was replaced.")
            assert stems_in(lab.folder) == list(saved)
            assert visit.complaints() == []
    assert list(scratch.glob("stemlab-*")) == []


def stems_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.wav"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One server for the tests below, whose kernels share a cache."""
    find_browser()
    folder = tmp_path_factory.mktemp("lab")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STEMLAB_CACHE", str(folder / "cache"))
        with running_lab(folder) as running:
            yield running


@contextmanager
def visited(lab: Lab, name: str) -> Iterator[Visit]:
    """A notebook, all of whose cells were run; nothing may complain until the end."""
    shutil.copy(NOTEBOOKS / name, lab.folder)
    try:
        with open_notebook(lab, name, find_browser()) as visit:
            run_all(visit.page)
            yield visit
            assert visit.complaints() == []
    finally:
        end_kernels(lab)


@pytest.mark.browser
def test_chunk_sweep(lab: Lab) -> None:
    with visited(lab, "02_chunk_sweep.ipynb") as visit:
        page = visit.page
        expect_status(page, "Recommended: stemlab-mini")
        cells = page.locator(".widget-gridbox button")
        assert cells.count() == 9
        page.get_by_role("button", name=re.compile(r"^★ \d")).wait_for()
        cells.filter(has_not_text="★").first.dblclick()
        notebook = page.evaluate(NOTEBOOK)
        page.keyboard.press("x")  # Before the mixer is there, and when it is.
        page.get_by_role("button", name=re.compile("Hear recommended: ")).wait_for()
        page.wait_for_function("() => document.activeElement.matches('.stemlab-mixer')")
        page.keyboard.press("x")
        page.wait_for_function(
            "() => document.activeElement.mixer.model.get('heard').startsWith('recommended')"
        )
        page.get_by_label("Cells show").click()
        for control in ("Estimate", "small grid"):
            press(page, control)
            for key in ("m", "a", "ArrowDown", "d", "d", "x"):
                page.keyboard.press(key)
        assert page.evaluate(NOTEBOOK) == notebook
        page.get_by_label("Cells show").select_option(label="Network calls")
        cells.first.filter(has_text=re.compile(r"^(★ )?\d+$")).wait_for()
        press(page, "medium grid")
        press(page, "Estimate")
        expect_status(page, "15 settings on")
        press(page, "small grid")
        press(page, "Run")
        expect_status(page, "Recommended: stemlab-mini")


@pytest.mark.browser
def test_trust_your_models(lab: Lab) -> None:
    with visited(lab, "06_trust_your_models.ipynb") as visit:
        page = visit.page
        page.get_by_label("Tampering", exact=True).select_option(label="flip one bit")
        page.locator(".widget-hslider", has_text="Byte").get_by_role("slider").press("Home")
        press(page, "Tamper and load")
        expect_status(page, "Refused.")
        page.get_by_text("is not the recorded file, or was damaged").first.wait_for()
        page.get_by_label("Tampering", exact=True).select_option(
            label="put other weights in its place"
        )
        page.get_by_label("Change the manifest to match").check()
        press(page, "Tamper and load")
        expect_status(page, "Loaded.")
        page.get_by_label("Load by").select_option(label="its name")
        press(page, "Tamper and load")
        page.get_by_text("'copy/manifest.json' is not the recorded file").first.wait_for()


@pytest.mark.browser
def test_how_chunking_works(lab: Lab) -> None:
    with visited(lab, "04_how_chunking_works.ipynb") as visit:
        page = visit.page
        overlap = page.locator(".widget-hslider", has_text="Overlap").first.get_by_role("slider")
        overlap.press("Home")
        page.get_by_role("img", name=re.compile("8 segments, .* stand out by 17 dB")).wait_for()
        overlap.press("ArrowRight")
        page.get_by_role("img", name=re.compile("9 segments, .* stand out by 1 dB")).wait_for()
        page.get_by_role("button", name="Hear in one piece").first.click()
        page.get_by_role("button", name="Play", exact=True).first.click()
        page.wait_for_function("() => document.querySelector('.stemlab-mixer').mixer.seconds > 1")


@pytest.mark.browser
def test_memory_and_devices(lab: Lab) -> None:
    with visited(lab, "05_memory_and_devices.ipynb") as visit:
        page = visit.page
        rows = page.locator("table tr", has_text="stemlab-mini")
        assert rows.count() == 1
        page.get_by_label("Segment", exact=True).select_option(label="1.95 s")
        page.get_by_label("Overlap", exact=True).select_option(label="0.5")
        page.get_by_text(re.compile(r"processes 8 times the length")).wait_for()
        press(page, "Measure")
        rows.nth(1).wait_for()
        expect_status(page, "Measured.")


@pytest.mark.browser
def test_compare_spectrograms(lab: Lab) -> None:
    with visited(lab, "03_compare_spectrograms.ipynb") as visit:
        page = visit.page
        first = page.locator(".jp-CodeCell").nth(1)
        picture = first.get_by_role("img", name=re.compile("Spectrograms of true vocals"))
        assert picture.evaluate("image => image.naturalWidth") > 500
        before = picture.get_attribute("src")
        first.get_by_label("Frame").select_option(label="512 samples, 12 ms")
        first.get_by_role("button", name="Compare", exact=True).click()
        page.wait_for_function(
            "before => document.querySelector('.jp-CodeCell img[alt]').src != before", arg=before
        )
        first.get_by_role("button", name="Hear true vocals").click()
        expect_status(page, "nothing to compare here yet")
        own = page.locator(".jp-CodeCell", has=page.get_by_label("Folder", exact=True))
        own.get_by_label("Path", exact=True).fill(str(demo_song_dir()))
        page.keyboard.press("Enter")
        own.locator("option", has_text="mixture").first.wait_for(state="attached")
        own.get_by_role("button", name="Compare", exact=True).click()
        own.get_by_role("img", name=re.compile("Spectrograms of mixture, bass")).wait_for()
