"""Pages made from notebooks: whole, alone in an offline browser, and refused where a cell fails."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nbformat
import pytest
from browsing import BROWSER_ARGUMENTS, browser_without_network
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

if TYPE_CHECKING:
    from playwright.sync_api import ConsoleMessage, Request

ROOT = Path(__file__).resolve().parent.parent
RATE = 44_100
MIXER = "document.querySelector('.stemlab-mixer').mixer"
SIGNALS = f"""
import numpy as np
from IPython.display import Audio
from stemlab.widgets import ComparePanel, StemMixer

time = np.arange(3 * {RATE}) / {RATE}
tones = {{"low": 0.3 * np.sin(440 * time), "high": 0.1 * np.sin(8800 * time)}}
mixer = StemMixer(tones, {RATE}, mixture=sum(tones.values()))
mixer
"""
COMPARE = f"""
panel = ComparePanel(tones, {RATE})
panel.compare()
panel.wait(60)
panel
"""
PLOT = """
%matplotlib inline
import matplotlib.pyplot as plt
figure, axes = plt.subplots(figsize=(2, 1))
axes.plot(time[:100], tones["low"][:100])
figure
"""
DOT = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360"
    "606060000000050001a5f645400000000049454e44ae426082"
)


def write(folder: Path, name: str, *cells: Any, kernel: str = "python3") -> Path:
    folder.mkdir(exist_ok=True)
    spec = {"name": kernel, "display_name": "Python", "language": "python"}
    path = folder / f"{name}.ipynb"
    nbformat.write(new_notebook(cells=list(cells), metadata={"kernelspec": spec}), path)
    return path


def make_report(source: Path, out_dir: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "docs" / "report.py", source, out_dir],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of two notebooks, one of them with all that a page can hold."""
    folder, out_dir = (tmp_path_factory.mktemp("report") / each for each in ("books", "pages"))
    write(
        folder,
        "sound & vision",
        new_markdown_cell("# Sound <and> vision\n\n**Does it play?** It takes seconds."),
        new_code_cell(SIGNALS),
        new_markdown_cell("![a dot](dot.png) Then [the other](other.ipynb)."),
        new_code_cell(COMPARE),
        new_code_cell(PLOT),
        new_code_cell(f"open('left behind', 'w').close()\nAudio(tones['low'][:99], rate={RATE})"),
        new_markdown_cell("<details><summary>Answers</summary>\n\n1. Hidden.\n\n</details>"),
    )
    write(folder, "other", new_code_cell("print(6 * 7)"))
    (folder / "dot.png").write_bytes(DOT)
    before = sorted(folder.iterdir())
    result = make_report(folder, out_dir)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    for line, name in zip(
        result.stdout.splitlines(), ("other", "sound & vision", "index"), strict=True
    ):
        assert re.fullmatch(rf".*{name}.html  \d+\.\d MB", line)
    # Nothing is written beside the notebooks, and nothing half-done beside the pages.
    assert sorted(folder.iterdir()) == before
    assert len(list(out_dir.iterdir())) == 3
    return out_dir


def test_a_page_holds_everything(pages: Path) -> None:
    html = (pages / "sound & vision.html").read_text("utf-8")
    assert html.startswith('<!DOCTYPE html>\n\n<html lang="en">')
    assert "<title>Sound &lt;and&gt; vision – stemlab</title>" in html
    assert html.count("This page was made from") == 1
    assert "<code>sound &amp; vision.ipynb</code>" in html
    shown = html.partition("<script>")[0]
    addresses = re.findall(r'<[^<>]*?\b(?:src|href)="([^"]*)"', shown)
    assert {each for each in addresses if not each.startswith("data:")} == {
        "index.html",
        "other.html",
    }
    for kind in ("image/png", "audio/wav"):
        assert f'src="data:{kind};base64,' in html
    assert 'alt="a dot"' in html
    assert re.search(r"</summary>.*Hidden\..*</details>", html, re.DOTALL)
    # What the script adds to the notebook is not shown, and the scripts come with their licences.
    assert "get_manager_state" not in shown
    for holder in ("Project Jupyter Contributors", "jQuery Foundation", "Trevor Manz"):
        assert holder in html
    index = (pages / "index.html").read_text("utf-8")
    assert '<a href="sound%20%26%20vision.html">Sound &lt;and&gt; vision</a>' in index
    assert "Does it play?" in index
    assert '<a href="other.html">other</a>' in index


@pytest.mark.browser
def test_a_page_plays_without_a_network(pages: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    faults: list[str] = []
    page_url = (pages / "sound & vision.html").as_uri()

    def note_request(request: Request) -> None:
        if request.url != page_url and not request.url.startswith(("data:", "blob:")):
            faults.append(f"asked for {request.url}")

    def note_message(message: ConsoleMessage) -> None:
        if message.type == "error":
            faults.append(f"console: {message.text}")

    executable = browser_without_network(tmp_path)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER_ARGUMENTS)
        context = browser.new_context(viewport={"width": 1200, "height": 900})
        context.set_offline(True)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("request", note_request)
        page.on("console", note_message)
        page.on("pageerror", lambda error: faults.append(f"page: {error}"))
        page.goto(page_url)

        page.wait_for_function("() => document.querySelectorAll('.stemlab-mixer').length === 2")
        page.get_by_role("img", name=re.compile("Spectrograms of low, high")).wait_for()
        assert page.get_by_label("Reference", exact=True).input_value() == "low"
        assert not page.get_by_text("Hidden.").is_visible()

        page.get_by_role("button", name="Play", exact=True).first.click()
        page.wait_for_function(f"() => {MIXER}.seconds > 1")
        level = f"""name => {{
          const {{ meter }} = {MIXER}.deck.rows.get(name), wave = new Float32Array(meter.fftSize);
          meter.getFloatTimeDomainData(wave);
          return Math.max(...wave.map(Math.abs));
        }}"""
        assert page.evaluate(level, "low") == pytest.approx(0.3, abs=0.03)
        assert page.evaluate(level, "high") == pytest.approx(0.1, abs=0.02)
        assert page.evaluate(level, "mixture") == 0
        page.get_by_role("button", name="Mute low").click()
        page.wait_for_timeout(300)
        assert page.evaluate(level, "low") < 1e-4
        assert page.evaluate(level, "high") > 0.08
        assert page.evaluate(f"() => {MIXER}.model.get('message')") == ""
        page.get_by_role("button", name="Spectrogram").first.click()
        page.wait_for_function(f"() => {MIXER}.pictures.every(Boolean)")
        assert page.evaluate(f"() => {MIXER}.pictures.length") == 3

        # Whatever else a page wants, the browser refuses by its own policy.
        assert faults == []
        image = "() => new Promise(done => Object.assign(new Image(), { onerror: done, src: URL }))"
        page.evaluate(image.replace("URL", "'https://example.org/dot.png'"))
        assert any("Content Security Policy" in each for each in faults)
        browser.close()


CALLBACK = """
import ipywidgets
button = ipywidgets.Button()
button.on_click(lambda _: 1 / 0)
button.click()
"""
# Its cell is done long before.
THREAD = "import threading, time\nthreading.Timer(1, lambda: 1 / 0).start()"


def test_what_fails_is_told_in_one_line_and_changes_nothing(tmp_path: Path) -> None:
    folder, out_dir = tmp_path / "books", tmp_path / "pages"
    write(folder, "callback", new_code_cell("'fine'"), new_code_cell(CALLBACK))
    write(folder, "cell", new_code_cell("raise ValueError('two\\nlines')"))
    (folder / "damaged.ipynb").write_text("{")
    write(folder, "kernel", new_code_cell("1"), kernel="no-such-kernel")
    write(folder, "picture", new_markdown_cell("![gone](gone.png)"))
    write(folder, "thread", new_code_cell(THREAD), new_code_cell("time.sleep(2)"))
    write(folder, "warning", new_code_cell("import warnings; warnings.warn('careful')"))
    out_dir.mkdir()
    for path in folder.iterdir():
        (out_dir / f"{path.stem}.html").write_text("of before")
    result = make_report(folder, out_dir)
    assert result.returncode == 1
    said = {
        Path(line.partition(".ipynb: ")[0]).name: line.partition(".ipynb: ")[2]
        for line in result.stderr.splitlines()
    }
    expected = {
        "callback": r"In \[2\].*ZeroDivisionError: division by zero",
        "cell": r"In \[1\]: ValueError: two lines",
        "damaged": "is not a notebook that can be read: ",
        "kernel": "its kernel does not start: .*no-such-kernel",
        "picture": "needs 'gone.png', which cannot be put into a page",
        "thread": r"In \[2\], or earlier in the background: ZeroDivisionError: division by zero",
        "warning": r"In \[1\].*UserWarning: careful",
    }
    assert said.keys() == expected.keys(), result.stderr
    for name, pattern in expected.items():
        assert re.match(pattern, said[name]), said[name]
        assert (out_dir / f"{name}.html").read_text() == "of before"
    assert len(list(out_dir.iterdir())) == len(expected) + 1
    assert result.stdout.splitlines() == [f"{out_dir / 'index.html'}  0.0 MB"]


def test_a_single_notebook_gets_one_page(tmp_path: Path) -> None:
    path = write(tmp_path / "books", "one", new_code_cell("print('a' + 'b')"))
    result = make_report(path, tmp_path / "pages")
    assert result.returncode == 0, result.stderr
    assert [each.name for each in (tmp_path / "pages").iterdir()] == ["one.html"]
    html = (tmp_path / "pages" / "one.html").read_text("utf-8")
    assert ">ab\n</pre>" in html
    assert "index.html" not in html


def test_a_folder_without_notebooks_is_refused(tmp_path: Path) -> None:
    result = make_report(tmp_path, tmp_path / "pages")
    assert result.returncode == 1
    assert result.stderr == f"{tmp_path}: there are no notebooks in this folder\n"
    assert list(tmp_path.iterdir()) == []
