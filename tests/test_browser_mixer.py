"""The stem mixer as a person hears it: what comes out of the page is compared with the stems."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import (
    CELLS,
    NOTEBOOK,
    RUN_ALL,
    Lab,
    Visit,
    find_browser,
    open_notebook,
    running_lab,
    within,
    write_notebook,
)

pytestmark = pytest.mark.browser

RATE = 44100
SECONDS = 12
STEP = 1 / 2**15
CELL = f"""
import numpy as np
from stemlab.widgets import StemMixer

def noise(seed):
    return np.random.default_rng(seed).uniform(-0.2, 0.2, (2, {SECONDS} * {RATE})).astype("float32")

names = ["drums", "bass", "other", "vocals"]
first = dict(zip(names, map(noise, range(4))))
second = dict(zip(names, map(noise, range(4, 8))))
mixer = StemMixer(
    first, {RATE}, mixture=sum(first.values()), other=second, labels=("model", "truth")
)
mixer
"""
READY = """async () => {
  for (;;) {
    const root = document.querySelector('.stemlab-mixer');
    if (root?.mixer.overview && root.mixer.pieces.known.size) return;
    await new Promise(resolve => setTimeout(resolve, 50));
  }
}"""
MIXER = "document.querySelector('.stemlab-mixer').mixer"
ENCODE = """const encode = array => {
    const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
    let text = '';
    for (let i = 0; i < bytes.length; i += 8192) {
      text += String.fromCharCode(...bytes.subarray(i, i + 8192));
    }
    return btoa(text);
  };"""
# Every row and the sum of all, from one node: what it gets at once was heard at once.
RECORD = """async () => {
  const { context, deck } = MIXER, rows = [...deck.rows.values()].map(row => row.gain);
  if (!context.recorder) {
    const code = `registerProcessor('recorder', class extends AudioWorkletProcessor {
      process(inputs) {
        const silence = new Float32Array(128);
        this.port.postMessage([currentFrame, inputs.map(each => (each[0] ?? silence).slice())]);
        return true;
      }
    })`;
    const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
    await context.audioWorklet.addModule(url);
    const options = { numberOfInputs: rows.length + 1 };
    context.recorder = new AudioWorkletNode(context, 'recorder', options);
    [...rows, deck.master].forEach((node, i) => node.connect(context.recorder, 0, i));
    context.recorder.connect(context.destination);
  }
  const blocks = [], begin = Math.round(context.currentTime * context.sampleRate);
  context.recorder.port.onmessage = ({ data }) => { if (data[0] >= begin) blocks.push(data); };
  DURING
  const spans = [];
  const note = () => MIXER.spans.forEach(
    ({ frame, sample, length }) => spans.push({ frame, sample, length }));
  for (note(); blocks.length < BLOCKS; note()) await new Promise(go => setTimeout(go, 20));
  context.recorder.port.onmessage = null;
  ENCODE
  const join = i => {
    const joined = new Float32Array(128 * BLOCKS);
    blocks.slice(0, BLOCKS).forEach((block, k) => joined.set(block[1][i], 128 * k));
    return encode(joined);
  };
  return { frame: blocks[0][0], spans, rows: [...rows, null].map((_, i) => join(i)) };
}"""
EXECUTE = """code => {
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  return kernel.requestExecute({ code }).done.then(reply => reply.content.status);
}"""
RENDER = """async () => {
  const buffer = await MIXER.renderOffline(SAMPLE, LENGTH);
  ENCODE
  return [0, 1].map(channel => encode(buffer.getChannelData(channel)));
}"""


def noise(seed: int) -> Any:
    samples = np.random.default_rng(seed).uniform(-0.2, 0.2, (2, SECONDS * RATE))
    return samples.astype(np.float32)


FIRST = [noise(each) for each in range(4)]
SECOND = [noise(each) for each in range(4, 8)]
PEAK = max(1.0, float(np.abs(sum(FIRST)).max()))


def decode(text: str) -> Any:
    return np.frombuffer(base64.b64decode(text), np.float32)


def record(visit: Visit, *, blocks: int = 400, during: str = "") -> tuple[Any, Any]:
    """What each row plays, shape (rows + 1, samples), and which sample of the song it is."""
    script = RECORD.replace("BLOCKS", str(blocks)).replace("DURING", during)
    found = within(visit.page, 30, script.replace("ENCODE", ENCODE).replace("MIXER", MIXER))
    frames = found["frame"] + np.arange(128 * blocks)
    positions = np.full(len(frames), -1)
    for span in found["spans"]:
        inside = (frames >= span["frame"]) & (frames < span["frame"] + span["length"])
        positions[inside] = span["sample"] + frames[inside] - span["frame"]
    return np.stack([decode(each) for each in found["rows"]]), positions


def get(visit: Visit, trait: str) -> Any:
    return visit.page.evaluate(f"() => {MIXER}.model.get({json.dumps(trait)})")


def until(visit: Visit, condition: str) -> None:
    visit.page.wait_for_function(f"() => {{ const m = {MIXER}, t = m.model; return {condition}; }}")


def button(visit: Visit, name: str) -> Any:
    return visit.page.get_by_role("button", name=name, exact=True)


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    find_browser()
    with running_lab(tmp_path_factory.mktemp("lab")) as running:
        write_notebook(running, "mixer.ipynb", CELL)
        yield running


@pytest.fixture(scope="module")
def visit(lab: Lab) -> Iterator[Visit]:
    with open_notebook(lab, "mixer.ipynb", find_browser()) as opened:
        within(opened.page, 120, RUN_ALL)
        assert [each["outputs"][0]["output_type"] for each in opened.page.evaluate(CELLS)] == [
            "execute_result"
        ]
        within(opened.page, 60, READY)
        yield opened
        assert opened.complaints() == []


@pytest.fixture(autouse=True)
def afresh(visit: Visit) -> None:
    visit.page.evaluate(
        f"""async () => {{
          const m = {MIXER};
          m.pause();
          Object.entries({{ muted: ["mixture"], soloed: [], gains_db: {{}}, loop_seconds: [],
                           heard: "model", lanes: "waveform" }})
            .forEach(([name, value]) => m.model.set(name, value));
          m.model.save_changes();
          m.seek(0);
          // A busy machine may be late with what comes next: that is not what is tested.
          for (let number = 0; number < m.pieces.count; number++) await m.pieces.fetch(number);
        }}"""
    )


def test_all_stems_play_on_one_clock_to_the_sample(visit: Visit) -> None:
    button(visit, "Play").click()
    # Over the edge of the first piece, which is at 2.97 s.
    until(visit, "m.seconds > 2.2")
    rows, positions = record(visit, blocks=500)
    assert positions.min() < 1 << 17 < positions.max()
    assert (np.diff(positions) == 1).all()
    np.testing.assert_array_equal(rows[0], 0)  # The mixture is muted at first.
    for row, stem in zip(rows[1:5], FIRST, strict=True):
        np.testing.assert_allclose(row, stem[0, positions] / PEAK, atol=STEP)
    np.testing.assert_allclose(rows[5], sum(rows[1:5]), atol=1e-6)


def test_many_presses_at_once_play_once(visit: Visit) -> None:
    button(visit, "Play").evaluate("each => { for (let i = 0; i < 11; i++) each.click(); }")
    until(visit, "m.running && m.seconds > 0.3")
    rows, positions = record(visit, blocks=50)
    np.testing.assert_allclose(rows[1], FIRST[0][0, positions] / PEAK, atol=STEP)


def test_solo_removes_the_others_and_mute_the_one(visit: Visit) -> None:
    button(visit, "Play").click()
    until(visit, "m.seconds > 0.1")
    button(visit, "Solo bass").click()
    visit.page.wait_for_timeout(300)
    rows, positions = record(visit, blocks=50)
    np.testing.assert_allclose(rows[2], FIRST[1][0, positions] / PEAK, atol=STEP)
    assert np.abs(rows[[0, 1, 3, 4]]).max() < 1e-5
    button(visit, "Solo bass").click()
    button(visit, "Mute bass").click()
    visit.page.wait_for_timeout(300)
    rows, positions = record(visit, blocks=50)
    assert np.abs(rows[[0, 2]]).max() < 1e-5
    np.testing.assert_allclose(rows[4], FIRST[3][0, positions] / PEAK, atol=STEP)
    assert get(visit, "muted") == ["mixture", "bass"]


def test_switching_the_result_leaves_no_gap(visit: Visit) -> None:
    button(visit, "Play").click()
    until(visit, "m.seconds > 0.3")
    press = "setTimeout(() => document.querySelectorAll('button.result')[1].click(), 300);"
    rows, positions = record(visit, blocks=400, during=press)
    assert (np.diff(positions) == 1).all()
    for row, before, after in zip(rows[1:5], FIRST, SECOND, strict=True):
        old, new = before[0, positions] / PEAK, after[0, positions] / PEAK
        np.testing.assert_allclose(row[:5000], old[:5000], atol=STEP)
        np.testing.assert_allclose(row[-5000:], new[-5000:], atol=1e-4)
        # In between each sample is a blend of the two: the weights add up to 1.
        assert (np.abs(row) <= np.maximum(np.abs(old), np.abs(new)) + 1e-3).all()
    assert get(visit, "heard") == "truth"


def test_a_loop_repeats_to_the_sample(visit: Visit) -> None:
    lane = visit.page.locator(".lane").nth(1)
    box = lane.bounding_box()
    assert box
    y = box["y"] + box["height"] / 2
    visit.page.mouse.move(box["x"] + 0.40 * box["width"], y)
    visit.page.mouse.down()
    visit.page.mouse.move(box["x"] + 0.43 * box["width"], y, steps=4)
    visit.page.mouse.move(box["x"] + 0.45 * box["width"], y, steps=4)
    visit.page.mouse.up()
    start, stop = get(visit, "loop_seconds")
    assert (start, stop) == pytest.approx((0.40 * SECONDS, 0.45 * SECONDS), abs=0.05)
    button(visit, "Play").click()
    until(visit, f"m.running && m.seconds > {start + 0.1}")
    rows, positions = record(visit, blocks=500)
    first, last = round(start * RATE), round(stop * RATE)
    assert first <= positions.min()
    assert positions.max() == last - 1
    wraps = np.flatnonzero(np.diff(positions) != 1)
    assert len(wraps) >= 1
    assert (positions[wraps] == last - 1).all()
    assert (positions[wraps + 1] == first).all()
    np.testing.assert_allclose(rows[3], FIRST[2][0, positions] / PEAK, atol=STEP)


def test_clicking_a_lane_jumps_there(visit: Visit) -> None:
    lane = visit.page.locator(".lane").nth(2)
    box = lane.bounding_box()
    assert box
    button(visit, "Play").click()
    until(visit, "m.seconds > 0.1")
    lane.click(position={"x": box["width"] * 0.75, "y": 10})
    until(visit, f"m.running && m.seconds > {0.75 * SECONDS + 0.3}")
    assert get(visit, "position_seconds") < 0.75 * SECONDS + 2
    rows, positions = record(visit, blocks=100)
    np.testing.assert_allclose(rows[1], FIRST[0][0, positions] / PEAK, atol=STEP)


def test_what_is_rendered_is_the_mix(visit: Visit) -> None:
    visit.page.evaluate(
        f"""() => {{ const t = {MIXER}.model;
             t.set("gains_db", {{ bass: -6 }}); t.set("muted", ["mixture", "other"]); }}"""
    )
    sample, length = 100_000, 300_000
    script = RENDER.replace("SAMPLE", str(sample)).replace("LENGTH", str(length))
    script = script.replace("ENCODE", ENCODE).replace("MIXER", MIXER)
    left, right = map(decode, within(visit.page, 60, script))
    for channel, found in enumerate((left, right)):
        drums, bass, _, vocals = (each[channel, sample : sample + length] for each in FIRST)
        expected = (drums + 10 ** (-6 / 20) * bass + vocals) / PEAK
        np.testing.assert_allclose(found, expected, atol=3 * STEP)


def test_the_end_of_the_song_stops_at_the_start(visit: Visit) -> None:
    visit.page.evaluate(f"() => {MIXER}.seek({(SECONDS - 1) * RATE})")
    button(visit, "Play").click()
    until(visit, "m.running")
    until(visit, "!m.running && m.seconds === 0")
    assert get(visit, "playing") is False


def test_keyboard_alone_is_enough(visit: Visit) -> None:
    page = visit.page
    page.locator(".stemlab-mixer").focus()
    page.keyboard.press("Space")
    until(visit, "m.running && m.seconds > 0.2")
    page.keyboard.press("Space")
    until(visit, "!m.running")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    until(visit, "Math.abs(m.seconds - 5) < 0.01")
    page.keyboard.press("[")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("]")
    until(visit, "t.get('loop_seconds').length === 2 && t.get('loop_seconds')[1] > 9")
    page.keyboard.press("l")
    until(visit, "t.get('loop_seconds').length === 0")
    page.keyboard.press("x")
    until(visit, "t.get('heard') === 'truth'")
    page.keyboard.press("2")
    page.keyboard.press("Shift+Digit3")
    until(visit, "t.get('soloed')[0] === 'drums' && t.get('muted').includes('bass')")
    # Every control is reached with the tab key, and has a name.
    names = set()
    for _ in range(40):
        page.keyboard.press("Tab")
        names.add(
            page.evaluate(
                """() => {
                  const at = document.activeElement;
                  if (!at?.closest('.stemlab-mixer')) return 'outside';
                  return at.getAttribute('aria-label') ?? at.textContent;
                }"""
            )
        )
    rows = ["mixture", "drums", "bass", "other", "vocals"]
    expected = {"Play", "Position", "Loop", "Spectrogram", "Hear model", "Hear truth", "Keys"}
    expected |= {f"{kind} {row}" for kind in ("Mute", "Solo") for row in rows}
    expected |= {f"Gain of {row} in dB" for row in rows}
    assert expected <= names


# Shortcuts of JupyterLab, which cut, copy, paste, undo, insert, delete, and merge cells, make them
# another kind, or go to another one.
SHORTCUTS = (
    "x m r y a b c v z d d j k 1 ArrowDown ArrowUp Shift+M Shift+A Control+Backspace".split()
)


@pytest.mark.parametrize("control", ["button", "gain", "position", "summary", "lane"])
def test_keys_after_a_click_are_not_the_notebook_s(visit: Visit, control: str) -> None:
    page = visit.page
    before = page.evaluate(NOTEBOOK)
    {
        "button": button(visit, "Mute drums"),
        "gain": page.get_by_label("Gain of drums in dB"),
        "position": page.get_by_label("Position"),
        "summary": page.locator(".stemlab-mixer summary"),
        "lane": page.locator(".lane").first,
    }[control].click()
    for key in [*SHORTCUTS, "Control+Enter", "Alt+Enter"]:
        page.keyboard.press(key)
        assert page.evaluate(NOTEBOOK) == before, key
    page.keyboard.press("x")  # That was for the mixer, all the same: once above, once here.
    until(visit, "t.get('heard') === 'model'")
    page.keyboard.press("x")
    until(visit, "t.get('heard') === 'truth'")


def test_arrow_keys_move_a_clicked_slider(visit: Visit) -> None:
    page = visit.page
    page.get_by_label("Gain of bass in dB").click()
    start = get(visit, "gains_db")["bass"]
    for _ in range(3):
        page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    until(visit, f"t.get('gains_db').bass === {start + 1}")
    page.get_by_label("Position").click()
    start = page.evaluate(f"() => {MIXER}.seconds")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    until(visit, f"Math.abs(m.seconds - {start} + 0.02) < 1e-3")


def run(visit: Visit, code: str) -> None:
    """Run code in the kernel."""
    assert visit.page.evaluate(EXECUTE, code) == "ok"


@contextmanager
def added_mixer(visit: Visit, code: str) -> Iterator[Any]:
    """A cell below, which shows another mixer; it is `window.added` in the page."""
    before = len(visit.page.evaluate(NOTEBOOK))
    visit.page.evaluate(
        """async code => {
          const { commands, shell } = window.jupyterapp, { content } = shell.currentWidget;
          content.activeCellIndex = content.widgets.length - 1;
          await commands.execute('notebook:insert-cell-below');
          content.activeCell.model.sharedModel.setSource(code);
          await commands.execute('notebook:run-cell');
          while (document.querySelectorAll('.stemlab-mixer').length < 2)
            await new Promise(resolve => setTimeout(resolve, 20));
          window.added = [...document.querySelectorAll('.stemlab-mixer')].at(-1).mixer;
        }""",
        code,
    )
    yield visit.page.locator(".stemlab-mixer").last
    visit.page.evaluate(
        f"""() => {{
          const {{ content }} = window.jupyterapp.shell.currentWidget;
          content.activeCellIndex = content.widgets.length - 1;
          if (content.widgets.length >= {before})
            return window.jupyterapp.commands.execute('notebook:delete-cell');
        }}"""
    )
    run(visit, "added.close()")


ADDED = f"added = StemMixer({{'drums': noise(9)}}, {RATE})\n"


@pytest.mark.parametrize("way", ["cleared", "deleted", "taken out", "closed"])
def test_without_a_view_there_is_no_sound(visit: Visit, way: str) -> None:
    show = "added.loop_seconds = (0, 1)\nimport ipywidgets\nbox = ipywidgets.VBox([added])\nbox"
    with added_mixer(visit, ADDED + show) as added:
        added.get_by_role("button", name="Play").click()
        visit.page.wait_for_function("() => window.added.running && window.added.seconds > 0.1")
        if way == "taken out":
            run(visit, "box.children = ()")
        elif way == "closed":
            run(visit, "added.close()")
        else:
            command = {"cleared": "clear-cell-output", "deleted": "delete-cell"}[way]
            visit.page.evaluate(
                "name => window.jupyterapp.commands.execute(name)", f"notebook:{command}"
            )
        visit.page.wait_for_function("() => !window.added.running")
        assert visit.page.evaluate(
            "() => window.added.context.state === 'closed' || !window.added.spans.length"
        )
        if way == "taken out":
            run(visit, "assert not added.playing; box.children = (added,)")
            visit.page.wait_for_function("() => document.querySelectorAll('.stemlab-mixer')[1]")
            assert not visit.page.evaluate("() => window.added.running")


def test_x_in_a_mixer_with_one_result_does_nothing(visit: Visit) -> None:
    with added_mixer(visit, ADDED + "added") as added:
        before = visit.page.evaluate(NOTEBOOK)
        added.get_by_role("button", name="Solo drums").click()
        visit.page.keyboard.press("x")
        assert visit.page.evaluate(NOTEBOOK) == before


@pytest.mark.parametrize(
    ("spoil", "repair", "said"),
    [
        (
            "kept = open('added.wav', 'rb').read(); os.unlink('added.wav')",
            "added._recordings[0]._status = None; open('added.wav', 'wb').write(kept); "
            "from stemlab.audio import seeking; "
            "added._recordings[0]._status = seeking._status(added._recordings[0]._path)",
            "added.wav' cannot be read any more",
        ),
        (
            "import sys; module = sys.modules['stemlab.widgets.mixer']; kept = module._encode; "
            "module._encode = lambda *_: b'no sound'",
            "module._encode = kept",
            "This browser cannot decode the audio",
        ),
    ],
    ids=["gone", "not decoded"],
)
def test_what_failed_is_not_asked_for_again(
    visit: Visit, spoil: str, repair: str, said: str
) -> None:
    page = visit.page
    file = (
        "import os, soundfile\n"
        f"soundfile.write('added.wav', noise(9).T, {RATE})\n"
        "added = StemMixer({'drums': 'added.wav'})\nadded"
    )
    with added_mixer(visit, file) as added:
        page.wait_for_function("() => window.added.pieces.known.size")
        run(visit, spoil)
        page.evaluate(
            """() => {
              const { added } = window, send = added.model.send;
              window.asked = 0;
              added.model.send = function (content, ...rest) {
                window.asked += content.kind === 'piece';
                return send.call(this, content, ...rest);
              };
              added.pieces.known.clear();
              added.seek(0);
            }"""
        )
        note = added.get_by_role("status")
        note.filter(has_text=said).wait_for()
        asked = page.evaluate("() => window.asked")
        assert asked <= 2
        page.evaluate(
            """() => {
              const now = performance.now;
              for (let second = 0; second < 60; second++) {
                performance.now = () => now.call(performance) + 1000 * second;
                window.added.pump();
              }
              performance.now = now;
            }"""
        )
        assert page.evaluate("() => window.asked") == asked
        assert said in note.inner_text()
        # Whoever presses Play asks again.
        run(visit, repair)
        added.get_by_role("button", name="Play").click()
        page.wait_for_function("() => window.added.running && window.added.seconds > 0.1")
        assert note.inner_text() == ""


def test_spectrograms_come_when_asked_for(visit: Visit) -> None:
    button(visit, "Spectrogram").click()
    until(visit, "m.pictures.length === 9 && m.pictures.every(Boolean)")
    drawn = visit.page.locator(".lane").nth(1)
    assert drawn.get_attribute("aria-label") == "Spectrogram of drums"
    colours = drawn.evaluate(
        """lane => new Set(new Uint32Array(
             lane.getContext('2d').getImageData(0, 0, lane.width, lane.height).data.buffer)).size"""
    )
    assert colours > 50


def test_python_sets_and_sees_what_the_page_does(visit: Visit) -> None:
    page = visit.page
    run(visit, "mixer.position_seconds, mixer.playing = 6.0, True")
    until(visit, "m.running && m.seconds > 6.3")
    run(visit, "mixer.position_seconds = 6.0")  # A short jump, while it plays.
    until(visit, "m.running && m.seconds < 6.3")
    # The kernel works, and the music goes on: eight seconds are more than is put on the clock.
    page.evaluate(f"code => {{ window.busy = ({EXECUTE})(code); }}", "import time; time.sleep(4)")
    before = page.evaluate(f"() => {MIXER}.seconds")
    page.wait_for_timeout(3000)
    assert page.evaluate(f"() => {MIXER}.seconds") - before == pytest.approx(3, abs=0.7)
    page.evaluate("() => window.busy")
    # The page sends no message while another waits for its answer; this one is answered later.
    run(visit, "pass")
    check = "assert mixer.playing and mixer.position_seconds > 8, mixer.position_seconds"
    run(visit, check)
    run(visit, "mixer.playing = False")
    until(visit, "!m.running")


def test_the_saved_notebook_does_not_grow(visit: Visit, lab: Lab) -> None:
    visit.page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save')")
    path = Path(lab.folder) / "mixer.ipynb"
    assert path.stat().st_size < 100_000


def test_decoded_audio_is_forgotten(visit: Visit) -> None:
    most = visit.page.evaluate(
        f"""async () => {{
          const {{ pieces }} = {MIXER}, capacity = pieces.capacity;
          pieces.capacity = 2;
          pieces.known.clear();
          for (let number = 0; number < pieces.count; number++) await pieces.fetch(number);
          pieces.capacity = capacity;
          return pieces.known.size;
        }}"""
    )
    assert most == 2


def test_a_kernel_that_does_not_answer_is_told_of(visit: Visit) -> None:
    visit.page.evaluate(
        f"""() => {{
          const m = {MIXER};
          m.pieces.known.clear();
          const gone = {{ send() {{ throw new Error('Cannot send'); }} }};
          m.pieces.model = gone;
        }}"""
    )
    button(visit, "Play").click()
    note = visit.page.locator(".stemlab-mixer").get_by_role("status")
    note.filter(has_text="No answer from the kernel").wait_for(timeout=30_000)
    # It is there again, and the music begins.
    visit.page.evaluate(f"() => {{ {MIXER}.pieces.model = {MIXER}.model; }}")
    until(visit, "m.running && m.seconds > 0.2 && t.get('message') === ''")


@pytest.mark.parametrize("missing", ["throws", "stands still"])
def test_without_an_audio_device_there_is_a_sentence(visit: Visit, missing: str) -> None:
    """A browser without one cannot be had: its two ways to fail are put in its place."""
    visit.page.evaluate(
        f"""missing => {{
          const m = {MIXER}, Real = window.RealAudioContext ??= window.AudioContext;
          m.context = m.deck = undefined;
          window.AudioContext = function (options) {{
            if (missing === 'throws') throw new DOMException('no device', 'NotSupportedError');
            const context = new Real(options);
            context.suspend();
            context.resume = () => new Promise(() => {{}});
            return context;
          }};
        }}""",
        missing,
    )
    button(visit, "Play").click()
    note = visit.page.locator(".stemlab-mixer").get_by_role("status")
    note.filter(has_text="no audio device").wait_for(timeout=10_000)
    assert get(visit, "playing") is False
