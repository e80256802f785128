"""The upload as a person meets it: JupyterLab in Chromium, and the page's side of the protocol."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import soundfile
from browsing import (
    BROWSER_ARGUMENTS,
    RUN_ALL,
    RUN_SECONDS,
    expect_status,
    find_browser,
    open_notebook,
    press,
    running_lab,
    within,
    write_notebook,
)

if TYPE_CHECKING:
    from playwright.sync_api import Page

SCRIPT = Path(__file__).resolve().parent.parent / "stemlab" / "widgets" / "static" / "upload.js"
CELL = """from stemlab.widgets.upload import SongUpload
SongUpload("songs")"""
# Not by events of Playwright, which tells only of sockets opened after the asking.
WATCH_FRAMES = """() => {
  const send = WebSocket.prototype.send;
  window.frames_sent = [];
  WebSocket.prototype.send = function (data) {
    window.frames_sent.push(typeof data === 'string' ? data.length : data.byteLength ?? data.size);
    return send.call(this, data);
  };
}"""
WATCH_PROGRESS = """() => {
  const bar = document.querySelector('.stemlab-upload progress');
  window.shares = [];
  new MutationObserver(() => window.shares.push(bar.value)).observe(bar, {attributes: true});
}"""

# A model without a kernel, shown twice; what the page says is kept, and tests answer it.
SHOW = """async source => {
  const listeners = new Map(), state = {
    state: 'idle', progress: 0, message: 'Choose.', error: '', _upload_id: ''};
  const said = window.said = [];
  const model = {
    get: name => state[name],
    on: (name, f) => listeners.set(name, [...(listeners.get(name) ?? []), f]),
    off: (name, f) => listeners.set(name, listeners.get(name).filter(each => each !== f)),
    send: (content, callbacks, buffers) => said.push(
      {...content, ...(buffers ? {bytes: buffers[0].byteLength} : {})}),
  };
  const tell = (name, ...rest) => (listeners.get(name) ?? []).forEach(f => f(...rest));
  window.answer = content => tell('msg:custom', content, []);
  window.change = changes => {
    Object.assign(state, changes);
    Object.keys(changes).forEach(name => tell('change:' + name));
  };
  window.left = () => [...listeners.values()].flat().length;
  const address = URL.createObjectURL(new Blob([source], {type: 'text/javascript'}));
  const widget = (await import(address)).default();
  window.cleaners = [widget.initialize({model})];
  for (const id of ['first', 'second'])
    window.cleaners.unshift(widget.render({model, el: document.getElementById(id)}));
}"""
DROP = """count => {
  const transfer = new DataTransfer();
  for (let i = 0; i < count; i++) transfer.items.add(new File(['abc'], `dropped ${i}.wav`));
  document.querySelector('.stemlab-upload').dispatchEvent(
    new DragEvent('drop', {dataTransfer: transfer, bubbles: true, cancelable: true}));
}"""
PIECE = 2 * 1024 * 1024


class Kernel:
    """Answers a page by hand."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.taken = 0

    def hear(self) -> dict[str, Any]:
        """Wait for the next message of the page."""
        self.page.wait_for_function("count => window.said.length > count", arg=self.taken)
        self.taken += 1
        said: dict[str, Any] = self.page.evaluate("i => window.said[i]", self.taken - 1)
        return said

    def is_silent(self) -> bool:
        self.page.evaluate("() => new Blob(['x']).arrayBuffer()")
        count: int = self.page.evaluate("() => window.said.length")
        return count == self.taken

    def answer(self, id_: str, kind: str = "ack", **more: object) -> None:
        self.page.evaluate("content => window.answer(content)", {"kind": kind, "id": id_, **more})

    def change(self, **traits: object) -> None:
        self.page.evaluate("changes => window.change(changes)", traits)


@pytest.fixture(scope="module")
def bare_page() -> Iterator[Page]:
    executable = find_browser()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=BROWSER_ARGUMENTS)
        page = browser.new_page()
        page.set_default_timeout(20_000)
        page.clock.install()
        yield page
        browser.close()


@pytest.fixture
def kernel(bare_page: Page) -> Kernel:
    bare_page.goto("about:blank")
    bare_page.set_content('<div id="first"></div><div id="second"></div>')
    bare_page.evaluate(SHOW, SCRIPT.read_text("utf-8"))
    return Kernel(bare_page)


def first(kernel: Kernel, role: Any, name: str | None = None) -> Any:
    return kernel.page.locator("#first").get_by_role(role, name=name)


def begin(kernel: Kernel, folder: Path, size: int = 2 * PIECE + 5) -> str:
    file = folder / "hum.wav"
    file.write_bytes(bytes(size))
    kernel.page.locator("#first input").set_input_files(file)
    started = kernel.hear()
    id_: str = started.pop("id")
    assert started == {"kind": "start", "name": "hum.wav", "size": size}
    assert len(id_) == 32
    kernel.change(state="uploading", _upload_id=id_)
    return id_


def write_noise(path: Path, megabytes: int, seed: int) -> Path:
    samples = np.random.default_rng(seed).integers(-20_000, 20_000, megabytes * 500_000, np.int16)
    soundfile.write(path, samples.reshape(-1, 2), 44100, subtype="PCM_16")
    return path


def choose(page: Page, file: Path) -> None:
    with page.expect_file_chooser() as chooser:
        press(page, "Upload a song…")
    chooser.value.set_files(file)


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.browser
def test_large_song_in_jupyterlab(tmp_path: Path) -> None:
    executable = find_browser()
    large = write_noise(tmp_path / "large.wav", 60, 1)
    assert large.stat().st_size > 60_000_000
    with running_lab(tmp_path) as lab:
        write_notebook(lab, "upload.ipynb", CELL)
        songs = lab.folder / "songs"
        with open_notebook(lab, "upload.ipynb", executable) as visit:
            page = visit.page
            page.evaluate(WATCH_FRAMES)
            within(page, RUN_SECONDS, RUN_ALL)
            expect_status(page, "Choose a song, or drop one here.")
            page.evaluate(WATCH_PROGRESS)
            begun = time.monotonic()
            choose(page, large)
            expect_status(page, "Uploaded 'large.wav' to 'songs'.")
            seconds = time.monotonic() - begun
            assert [each.name for each in songs.iterdir()] == ["large.wav"]
            assert digest(songs / "large.wav") == digest(large)
            shares = page.evaluate("() => window.shares")
            frames = page.evaluate("() => window.frames_sent")
            print(f"{seconds:.1f} s, largest frame {max(frames)} bytes, {len(shares)} shares")
            assert 0 < shares[len(shares) // 2] < 1
            assert 2_000_000 < max(frames) < 4_000_000

            choose(page, write_noise(tmp_path / "second.wav", 60, 2))
            page.wait_for_function(
                "() => document.querySelector('.stemlab-upload progress').value > 0.1"
            )
            press(page, "Cancel")
            expect_status(page, "Cancelled. Nothing was kept.")
            assert [each.name for each in songs.iterdir()] == ["large.wav"]
            assert page.get_by_role("button", name="Upload a song…").is_enabled()

            (tmp_path / "notes.wav").write_text("no recording <b>at all</b>")
            choose(page, tmp_path / "notes.wav")
            page.get_by_role("alert").filter(has_text="is not audio, or is damaged").wait_for()
            assert [each.name for each in songs.iterdir()] == ["large.wav"]
            assert visit.complaints() == []


# --- the page's side of the protocol


@pytest.mark.browser
def test_the_next_piece_waits_for_the_kernel(kernel: Kernel, tmp_path: Path) -> None:
    id_ = begin(kernel, tmp_path)
    assert kernel.is_silent()
    kernel.answer("other", offset=0)
    assert kernel.is_silent()
    kernel.answer(id_, offset=0)
    assert kernel.hear() == {"kind": "piece", "id": id_, "offset": 0, "bytes": PIECE}
    for offset in (0, PIECE - 1, 2 * PIECE):
        kernel.answer(id_, offset=offset)
    assert kernel.is_silent()
    kernel.answer(id_, offset=PIECE)
    kernel.answer(id_, offset=PIECE)
    assert kernel.hear() == {"kind": "piece", "id": id_, "offset": PIECE, "bytes": PIECE}
    kernel.answer(id_, offset=2 * PIECE)
    assert kernel.hear() == {"kind": "piece", "id": id_, "offset": 2 * PIECE, "bytes": 5}
    kernel.answer(id_, offset=2 * PIECE + 5)
    kernel.page.clock.run_for(40_000)
    assert kernel.is_silent()
    assert first(kernel, "button", "Upload a song…").is_disabled()
    kernel.change(state="done", message="Done.")
    kernel.answer(id_, "end", state="done")
    assert first(kernel, "button", "Upload a song…").is_enabled()
    assert first(kernel, "button", "Cancel").count() == 0


@pytest.mark.browser
def test_a_kernel_that_does_not_answer_is_waited_for(kernel: Kernel, tmp_path: Path) -> None:
    id_ = begin(kernel, tmp_path)
    kernel.page.clock.run_for(31_000)
    status = first(kernel, "status")
    assert status.text_content().startswith("The kernel has not answered for 30 seconds")
    assert kernel.is_silent()
    kernel.answer(id_, offset=0)
    piece = kernel.hear()
    assert status.text_content() == "Choose."
    kernel.page.clock.run_for(31_000)
    assert status.text_content().startswith("The kernel has not answered for 30 seconds")
    assert kernel.hear() == {"kind": "where", "id": id_, "offset": 0}
    # It was only busy, and answers both.
    kernel.answer(id_, offset=PIECE)
    assert kernel.hear()["offset"] == PIECE
    kernel.answer(id_, offset=PIECE, asked=0)
    assert kernel.is_silent()
    # This one was lost.
    kernel.page.clock.run_for(31_000)
    assert kernel.hear() == {"kind": "where", "id": id_, "offset": PIECE}
    kernel.answer(id_, offset=PIECE, asked=PIECE)
    assert kernel.hear() == {**piece, "offset": PIECE}
    # A new kernel.
    kernel.answer(id_, "end", state="unknown")
    assert "does not know this upload" in first(kernel, "alert").text_content()


@pytest.mark.browser
def test_cancelling_while_the_kernel_is_busy(kernel: Kernel, tmp_path: Path) -> None:
    id_ = begin(kernel, tmp_path)
    kernel.answer(id_, offset=0)
    kernel.hear()
    first(kernel, "button", "Cancel").click()
    assert kernel.hear() == {"kind": "cancel", "id": id_}
    assert first(kernel, "status").text_content().startswith("Cancelling")
    kernel.answer(id_, offset=PIECE)
    assert kernel.hear() == {"kind": "cancel", "id": id_}
    kernel.change(state="cancelled", message="Cancelled.")
    kernel.answer(id_, "end", state="cancelled")
    assert first(kernel, "status").text_content() == "Cancelled."
    kernel.page.clock.run_for(40_000)
    assert kernel.is_silent()
    assert first(kernel, "button", "Upload a song…").is_enabled()


@pytest.mark.browser
def test_a_page_that_does_not_send_shows_and_cancels(kernel: Kernel) -> None:
    kernel.change(state="uploading", _upload_id="elsewhere", progress=0.256, message="<b>1</b>")
    status = first(kernel, "status").text_content()
    assert status == "<b>1</b> Another page sends it; if that page is closed, cancel."
    assert first(kernel, "button", "Upload a song…").is_disabled()
    bar = first(kernel, "progressbar", "Share of the song that has arrived")
    assert bar.evaluate("bar => bar.value") == 0.256
    assert kernel.page.locator("#second").get_by_text("25 %").is_visible()
    kernel.answer("elsewhere", offset=PIECE)
    assert kernel.is_silent()
    first(kernel, "button", "Cancel").click()
    assert kernel.hear() == {"kind": "cancel", "id": "elsewhere"}


@pytest.mark.browser
def test_dropping_files(kernel: Kernel) -> None:
    page = kernel.page
    page.evaluate(DROP, 2)
    assert first(kernel, "alert").text_content() == "Error: One file at a time, please."
    page.evaluate(DROP, 1)
    started = kernel.hear()
    assert (started["name"], started["size"]) == ("dropped 0.wav", 3)
    page.evaluate(DROP, 1)
    assert "A file is being uploaded" in first(kernel, "alert").text_content()
    kernel.answer(started["id"], "refused", message="<i>No.</i>")
    assert first(kernel, "alert").text_content() == "Error: <i>No.</i>"
    assert kernel.is_silent()


@pytest.mark.browser
def test_a_file_that_is_changed_meanwhile(kernel: Kernel, tmp_path: Path) -> None:
    id_ = begin(kernel, tmp_path)
    (tmp_path / "hum.wav").unlink()
    kernel.answer(id_, offset=0)
    assert kernel.hear() == {"kind": "unreadable", "id": id_}


@pytest.mark.browser
def test_the_keyboard_stays_in_the_widget_and_nothing_is_left_of_it(
    kernel: Kernel, tmp_path: Path
) -> None:
    page = kernel.page
    focused = "() => document.activeElement.textContent"
    first(kernel, "button", "Upload a song…").focus()
    begin(kernel, tmp_path)
    assert page.evaluate(focused) == "Cancel"
    page.keyboard.press("Enter")
    kernel.change(state="cancelled")
    assert page.evaluate(focused) == "Upload a song…"
    root = page.locator("#first .stemlab-upload")
    assert root.get_attribute("data-lm-suppress-shortcuts") == "true"
    page.evaluate("() => window.cleaners.forEach(clean => clean())")
    assert page.evaluate("() => window.left()") == 0
    assert root.count() == 0
