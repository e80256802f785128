"""What the stem mixer takes in a browser: memory of the page, and how soon there is sound.

    python benchmarks/mixer.py

Plays a song of ten minutes with two sets of four stems and the mixture in JupyterLab, in Chromium
without a window: looks at the spectrograms, jumps to 20 places and plays 2 s at each, then 30 s at
a stretch while it switches between the two sets. Takes two minutes; the machine should have
nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nbformat
import psutil

sys.path.append(str(Path(__file__).resolve().parent.parent / "tests"))
from browsing import BROWSERS, Lab, Visit, open_notebook, press, running_lab, within

LIMIT_SECONDS = 600
RATE = 44_100
JUMPS, PLAYED_SECONDS, STRETCH_SECONDS = 20, 2, 30
ALLOWED_BYTES = 500e6

# Noise that swells and fades, which FLAC hardly compresses. The recordings are nine views of one
# array, a second apart: what is measured is the mixer, not the song.
SONG = """
import time
import numpy as np
from stemlab.widgets import StemMixer

def song(seconds):
    generator = np.random.default_rng(1)
    audio = np.empty((2, (seconds + 9) * RATE), np.float32)
    for second in range(seconds + 9):
        piece = audio[:, second * RATE : (second + 1) * RATE]
        generator.standard_normal(dtype=np.float32, out=(noise := np.empty_like(piece)))
        piece[:] = noise * np.float32(0.05 + 0.03 * np.sin(second))
    return [audio[:, at * RATE : (at + seconds) * RATE] for at in range(9)]

names = ["drums", "bass", "other", "vocals"]
mixture, *stems = song(SECONDS)
"""
MAKE = """
started = time.perf_counter()
mixer = StemMixer(
    dict(zip(names, stems[:4])), RATE, mixture=mixture, other=dict(zip(names, stems[4:]))
)
print(time.perf_counter() - started)
"""
SHOW = "mixer"

RUN = """async index => {
  const { content, context, sessionContext } = window.jupyterapp.shell.currentWidget;
  content.activeCellIndex = INDEX;
  await window.jupyterapp.commands.execute('notebook:run-cell');
  const { outputs } = content.widgets[INDEX].model.sharedModel.toJSON();
  return outputs.map(each => each.text ?? each.evalue ?? '').join('');
}"""
MIXER = "document.querySelector('.stemlab-mixer').mixer"
# Two frames later, what was drawn is on the screen.
SHOWN = """async () => {
  while (!document.querySelector('.stemlab-mixer')?.mixer.overview) {
    await new Promise(go => setTimeout(go, 5));
  }
  await new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)));
}"""
SPECTROGRAMS = """async () => {
  const m = MIXER;
  while (!m.pictures.length || !m.pictures.every(Boolean)) {
    await new Promise(go => setTimeout(go, 20));
  }
  await new Promise(go => requestAnimationFrame(() => requestAnimationFrame(go)));
}"""
PLAY = """async () => {
  const m = MIXER, started = performance.now();
  document.querySelector('.stemlab-mixer button.play').click();
  const ear = m.context.createAnalyser(), heard = new Float32Array(ear.fftSize = 256);
  m.deck.master.connect(ear);
  do {
    await new Promise(go => setTimeout(go, 2));
    ear.getFloatTimeDomainData(heard);
  } while (!heard.some(Boolean));
  m.deck.master.disconnect(ear);
  return (performance.now() - started) / 1e3;
}"""
# Tells on the clock of the audio when sound starts and stops: noise is never silent by itself.
LISTEN = """async () => {
  const { context, deck } = MIXER, changes = window.changes = [];
  const code = `registerProcessor('ear', class extends AudioWorkletProcessor {
    process([input]) {
      const sounds = input.some(channel => channel.some(Boolean));
      if (sounds !== this.sounds) this.port.postMessage([currentTime, this.sounds = sounds]);
      return true;
    }
  })`;
  const url = URL.createObjectURL(new Blob([code], { type: 'text/javascript' }));
  await context.audioWorklet.addModule(url);
  const ear = new AudioWorkletNode(context, 'ear');
  ear.port.onmessage = ({ data }) => changes.push(data);
  deck.master.connect(ear).connect(context.destination);
}"""
JUMP = """async () => {
  const m = MIXER, asked = m.context.currentTime;
  window.changes.length = 0;
  m.seek(Math.round(PLACE * m.samples));
  let found;
  while (!(found = window.changes.find(([when, sounds]) => sounds && when > asked))) {
    await new Promise(go => setTimeout(go, 5));
  }
  return found[0] - asked;
}"""
STATE = """() => {
  const { pieces, model, seconds, running } = MIXER;
  return { held: pieces.known.size, megabytes: pieces.tracks * pieces.size * 8 / 1e6,
           message: model.get('message'), seconds, running };
}"""
STALLS = "() => window.changes.filter(([, sounds]) => !sounds).length"
SAVE = "() => window.jupyterapp.commands.execute('docmanager:save')"


class Memory:
    """The memory of everything that this process started, looked at twice a second."""

    def __init__(self) -> None:
        self.now: dict[str, int] = {}
        self.peaks: dict[str, int] = defaultdict(int)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @contextmanager
    def watched(self) -> Iterator[Memory]:
        self._thread.start()
        try:
            yield self
        finally:
            self._done.set()
            self._thread.join()

    def settled(self) -> dict[str, int]:
        """Forget the peaks, and tell what is there after a pause."""
        time.sleep(3)
        self._look()
        self.peaks.clear()
        return dict(self.now)

    def _watch(self) -> None:
        while not self._done.wait(0.5):
            self._look()

    def _look(self) -> None:
        now: dict[str, int] = defaultdict(int)
        for process in psutil.Process().children(recursive=True):
            try:
                command = " ".join(process.cmdline())
                kind = command.partition("--type=")[2].split(" ")[0]
                if "ipykernel" in command:
                    kind = "kernel"
                elif kind == "utility":
                    kind = command.partition("--utility-sub-type=")[2].split(" ")[0]
                if kind:
                    now[kind] += memory_bytes(process)
            except (psutil.Error, OSError):
                continue
        self.now = dict(now)
        for kind, each in now.items():
            self.peaks[kind] = max(self.peaks[kind], each)


def memory_bytes(process: psutil.Process) -> int:
    """What a process holds, its share of what it has in common with others included.

    Without programs and libraries, which are files in memory: how much of them counts for a process
    changes with every other browser that is started or ended.
    """
    if sys.platform != "linux":
        return int(process.memory_full_info().uss)
    text = Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii")
    return sum(
        1024 * int(each) for each in re.findall(r"^Pss_(?:Anon|Shmem): +(\d+) kB", text, re.M)
    )


def give_up() -> None:
    """End what was started and this process, whatever they are waiting for."""
    print(f"not done after {LIMIT_SECONDS} s: given up", file=sys.stderr, flush=True)
    for process in psutil.Process().children(recursive=True):
        process.kill()
    os._exit(1)


def script(text: str, **values: object) -> str:
    for name, value in values.items():
        text = text.replace(name, repr(value))
    return text.replace("MIXER", MIXER)


def run_cell(visit: Visit, index: int) -> str:
    return str(within(visit.page, 120, script(RUN, INDEX=index)))


def use(visit: Visit, lab: Lab, memory: Memory) -> None:
    """Do with the mixer what a person does, and print what it took."""
    page = visit.page
    run_cell(visit, 0)
    made = float(run_cell(visit, 1))
    before = memory.settled()

    started = time.perf_counter()
    run_cell(visit, 2)
    within(page, 60, script(SHOWN))
    shown = time.perf_counter() - started

    started = time.perf_counter()
    press(page, "Spectrogram")
    within(page, 120, script(SPECTROGRAMS))
    painted = time.perf_counter() - started
    press(page, "Spectrogram")

    first = within(page, 30, script(PLAY))
    within(page, 10, script(LISTEN))
    jumps = []
    for number in range(1, JUMPS + 1):
        # The golden ratio never comes near to where it was.
        jumps.append(within(page, 30, script(JUMP, PLACE=0.95 * (number * 0.618034 % 1))))
        page.wait_for_timeout(PLAYED_SECONDS * 1e3)

    within(page, 30, script(JUMP, PLACE=0.25))
    page.evaluate("() => { window.changes.length = 0; }")
    for number in range(STRETCH_SECONDS):
        press(page, "Hear A" if number % 2 else "Hear B")
        page.wait_for_timeout(1e3)
    stalls = page.evaluate(STALLS)
    state: dict[str, Any] = page.evaluate(script(STATE))
    within(page, 30, SAVE)
    peaks = dict(memory.peaks)

    saved = (lab.folder / "mixer.ipynb").stat().st_size
    print(f"overview: {made:.1f} s to make the mixer, {shown:.2f} s more until it is shown")
    print(f"spectrograms of 9 recordings: {painted:.1f} s")
    print(f"from Play to the first sound: {first:.2f} s")
    print(
        f"from a jump to sound again: median {statistics.median(jumps):.2f} s of {len(jumps)}, "
        f"{min(jumps):.2f} to {max(jumps):.2f} s"
    )
    print(f"stalls in {STRETCH_SECONDS} s: {stalls}")
    print(
        f"decoded audio that the page holds in the end: {state['held']} pieces of "
        f"{state['megabytes']:.1f} MB"
    )
    kind = "PSS without files" if sys.platform == "linux" else "USS"
    print(f"memory ({kind}) before the mixer is shown, and at most after that:")
    for name in sorted(peaks, key=lambda each: -peaks[each]):
        old, new = before.get(name, 0) / 1e6, peaks[name] / 1e6
        print(f"  {name}: {old:.0f} MB, {new:.0f} MB: {new - old:+.0f} MB")
    browser = sum(peaks[each] - before.get(each, 0) for each in peaks if each != "kernel")
    verdict = "within" if browser <= ALLOWED_BYTES else "MORE THAN"
    print(f"the browser in all: {browser / 1e6:+.0f} MB, {verdict} {ALLOWED_BYTES / 1e6:.0f} MB")
    print(f"the saved notebook: {saved / 1e3:.0f} kB")
    for each in [*visit.complaints(), state["message"]]:
        if each:
            print(f"complaint: {each}")


def main() -> None:
    """Start JupyterLab and Chromium, and use the mixer in them."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=int, default=600, help="length of the song (600)")
    options = parser.parse_args()
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        parser.error(f"none of {', '.join(BROWSERS)} is on the PATH")
    limit = threading.Timer(LIMIT_SECONDS, give_up)
    limit.daemon = True
    limit.start()
    numbers = {"SECONDS": str(options.seconds), "RATE": str(RATE)}
    cells = []
    for text in (SONG, MAKE, SHOW):
        for name, value in numbers.items():
            text = text.replace(name, value)
        cells.append(nbformat.v4.new_code_cell(text.strip()))
    kernel = {"name": "python3", "display_name": "Python", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    with tempfile.TemporaryDirectory() as folder, running_lab(Path(folder) / "lab") as lab:
        nbformat.write(notebook, lab.folder / "mixer.ipynb")
        with open_notebook(lab, "mixer.ipynb", browser) as visit, Memory().watched() as memory:
            use(visit, lab, memory)


if __name__ == "__main__":
    main()
