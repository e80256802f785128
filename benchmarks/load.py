"""Measure stemlab under load: many songs, many runs at once, hours of audio, a thousand settings.

    python benchmarks/load.py benchmarks/load

Each case is a command, watched from outside: its memory, open files and threads after a quarter of
what it has to do and at their highest after that. What only grows would show. A case that is in
FOLDER/load.csv already is not repeated; temporary files (26 GB for the three hours) go to the disk
of FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import speed
from safetensors.torch import save_file

from stemlab import demo_song_dir
from stemlab.audio import file_digest
from stemlab.provisioning import add_model

STEMLAB = [sys.executable, "-m", "stemlab"]
LOOK_SECONDS = 0.1
SONGS = 200
HOURS = 3
HIGH_RATE = 96_000
SETTINGS = 1000
# What libgomp does where nobody tells it otherwise.
SPINNING = {"GOMP_SPINCOUNT": "300000"}


def look(process: int) -> dict[str, int]:
    """What a process uses now."""
    folder = Path(f"/proc/{process}")
    lines = (folder / "status").read_text("ascii").splitlines()
    status = dict(each.split(":", 1) for each in lines)
    return {
        "memory_bytes": 1024 * int(status["VmRSS"].split()[0]),
        "files": len(list((folder / "fd").iterdir())),
        "threads": len(list((folder / "task").iterdir())),
    }


def watch(command: Sequence[object], done: Callable[[], float]) -> dict[str, float]:
    """Run a command, and look at it until a quarter of its work is `done` and from then on."""
    started = time.perf_counter()
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    looks = []
    while process.poll() is None:
        with suppress(OSError, KeyError):  # It may end at any time.
            looks.append({"late": done() > 0.25, **look(process.pid)})
        time.sleep(LOOK_SECONDS)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise SystemExit(f"{command} ended with code {process.returncode}")
    table = pd.DataFrame(looks)
    highest = table.groupby("late").max()
    figures = {
        f"{name}_{when}": int(highest.loc[late, name])
        for late, when in ((False, "early"), (True, "late"))
        for name in highest
    }
    return {"seconds": round(seconds, 1), **figures}


def many_songs(folder: Path) -> dict[str, float]:
    """Many songs in one command, with the model that comes with stemlab."""
    (folder / "songs").mkdir()
    rng = np.random.default_rng(0)
    for number in range(SONGS):
        noise = rng.uniform(-0.3, 0.3, (3 * speed.RATE, 2)).astype(np.float32)
        soundfile.write(folder / "songs" / f"{number:03}.wav", noise, speed.RATE)
    out = folder / "stems"
    command = [*STEMLAB, "separate", folder / "songs", "-q", "--out", out]
    figures = watch(command, lambda: len(list(out.glob("*/run.json"))) / SONGS)
    return {"amount": SONGS, **figures}


def at_once(runs: int, **environment: str) -> Callable[[Path], dict[str, float]]:
    """Separate the demo song several times at once."""

    def case(folder: Path) -> dict[str, float]:
        command = [*STEMLAB, "separate", str(demo_song_dir() / "mixture.flac"), "-q", "--out"]
        started = time.perf_counter()
        processes = [
            subprocess.Popen([*command, str(folder / str(each))], env={**os.environ, **environment})
            for each in range(runs)
        ]
        if any(each.wait() for each in processes):
            raise SystemExit("a run failed")
        return {"amount": runs, "seconds": round(time.perf_counter() - started, 1)}

    return case


def add_narrow_model(folder: Path) -> None:
    """Add a narrow HTDemucs with random weights, in a models folder of its own."""
    os.environ["STEMLAB_MODELS"] = str(folder / "models")
    network = speed.make_network("narrow")
    args, kwargs = network._init_args_kwargs
    file = folder / "narrow.safetensors"
    stated = {"klass": "demucs.htdemucs.HTDemucs", "args": json.dumps(args)}
    save_file(network.state_dict(), file, {**stated, "kwargs": json.dumps(kwargs)})
    add_model("narrow", file, sha256=file_digest(file))


def hours(folder: Path) -> dict[str, float]:
    """Hours at a high rate, in a file beyond 4 GB, one stem of a narrow network."""
    add_narrow_model(folder)
    song, out = folder / "hours.rf64", folder / "stems"
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(song, "w", HIGH_RATE, 2, "PCM_16", format="RF64") as file:
        for _ in range(int(HOURS * 360)):
            file.write(rng.uniform(-0.3, 0.3, (10 * HIGH_RATE, 2)).astype(np.float32))
    model_bytes = HOURS * 3600 * speed.RATE * 2 * 4

    def done() -> float:
        written = sum(each.stat().st_size for each in out.glob(".*/vocals*") if each.exists())
        return written / (3.5 * model_bytes)

    command = [*STEMLAB, "separate", song, "--model", "narrow", "--sources", "vocals", "-q"]
    return {"amount": HOURS, **watch([*command, "--bits", "16", "--out", out], done)}


def many_settings(folder: Path) -> dict[str, float]:
    """A sweep of a thousand settings of a narrow network over a second of the demo song."""
    add_narrow_model(folder)
    segments = ",".join(f"{0.2 + each / 100:.2f}" for each in range(40))
    overlaps = ",".join(f"{each / 50:.2f}" for each in range(25))
    os.environ["STEMLAB_CACHE"] = str(folder / "cache")
    command = [*STEMLAB, "sweep", demo_song_dir() / "mixture.flac", "--model", "narrow", "-q"]
    command += ["--segments", segments, "--overlaps", overlaps, "--pad", "no", "--excerpt", 1]
    command += ["--yes", "--out", folder / "settings.csv"]
    stored = folder / "cache"
    figures = watch(command, lambda: len(list(stored.rglob("*.json"))) / SETTINGS)
    if len(pd.read_csv(folder / "settings.csv", comment="#")) != 4 * SETTINGS:
        raise SystemExit("some settings are missing")
    return {"amount": SETTINGS, **figures}


CASES: dict[str, Callable[[Path], dict[str, float]]] = {
    f"{SONGS} songs of 3 s in one command": many_songs,
    "1 run": at_once(1),
    "8 runs at once": at_once(8),
    "8 runs at once, threads spinning": at_once(8, **SPINNING),
    f"{HOURS} hours at {HIGH_RATE // 1000} kHz (RF64), one stem, narrow network": hours,
    f"a sweep of {SETTINGS} settings, 1 s, narrow network": many_settings,
}


def main() -> None:
    """Run what is missing and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "load.csv"
    table = pd.read_csv(file) if file.exists() else pd.DataFrame({"case": []})
    for name, case in CASES.items():
        if name in set(table["case"]):
            continue
        with tempfile.TemporaryDirectory(dir=folder, prefix="load-") as temporary:
            row = {"case": name, **case(Path(temporary))}
        table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
        table.to_csv(file, index=False)
        print(row, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
