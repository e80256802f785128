"""Stemlab beside Demucs: the same weights, the same plan, fresh processes, one after the other.

    python benchmarks/speed.py benchmarks/speed

Writes ``speed.csv``, a row for each pair of runs, ``speed.png``, and ``length.csv``: the memory of
stemlab alone from a minute to two hours. Each run reads a WAV file and
writes four float WAV files; loading the network is not counted in the time, but in the memory. The
weights are random, with norms of a network that works: time and memory do not depend on them, and
errors would show. A run that was cut off goes on with the pairs that are missing.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import soundfile

RATE = 44_100
SOURCES = ("drums", "bass", "other", "vocals")


@dataclass(frozen=True)
class Case:
    """A network, how much audio, how many threads, and how many pairs of runs."""

    network: str
    seconds: int
    threads: int
    pairs: int


CASES = (
    Case("htdemucs", 24, 1, 5),
    Case("htdemucs", 24, 2, 5),
    Case("htdemucs", 300, 2, 3),
    Case("hdemucs_mmi", 24, 2, 3),
    Case("hdemucs_mmi", 300, 2, 1),
    Case("stemlab-mini", 24, 1, 3),
    Case("stemlab-mini", 24, 2, 3),
    Case("stemlab-mini", 300, 2, 1),
    Case("narrow", 3600, 2, 1),
)
LENGTHS = (60, 600, 7200)
TITLES = {
    "htdemucs": "HTDemucs as released",
    "hdemucs_mmi": "HDemucs as released",
    "stemlab-mini": "stemlab-mini",
    "narrow": "a narrow HTDemucs",
}


def make_network(name: str) -> Any:
    """Build a network, the same in every process."""
    import released
    import torch
    from demucs.htdemucs import HTDemucs

    from stemlab.networks.loading import load_network
    from stemlab.registry import find_model

    if name == "stemlab-mini":
        manifest = find_model(name)
        return load_network(manifest, manifest.networks[0])[0]
    if name == "narrow":
        torch.manual_seed(0)
        network = HTDemucs(
            list(SOURCES), channels=8, bottom_channels=32, t_layers=1, t_heads=4, segment=7.8
        )
        return network.eval().requires_grad_(False)
    make: Callable[[], Any] = getattr(released, name)
    return make()


def run_stemlab(network: Any, song: Path, out: Path) -> float:
    """Separate with stemlab; the time that it takes."""
    from stemlab import AudioStemSeparator, OutputSettings

    separator = AudioStemSeparator(network, device="cpu")
    started = time.perf_counter()
    separator.separate_file(song, out, output=OutputSettings(force=True))
    taken = time.perf_counter() - started
    for each in (out / song.stem).glob("*.wav"):
        each.rename(out / each.name)
    return taken


def run_demucs(network: Any, song: Path, out: Path) -> float:
    """Separate with Demucs' own interface; the time that it takes."""
    from demucs.api import Separator

    class Ready(Separator):
        def _load_model(self) -> None:
            self._model = network
            self._audio_channels = network.audio_channels
            self._samplerate = network.samplerate

    separator = Ready(device="cpu", shifts=0, overlap=0.25)
    started = time.perf_counter()
    _, stems = separator.separate_audio_file(song)
    for name, each in stems.items():
        soundfile.write(out / f"{name}.wav", each.numpy().T, RATE, subtype="FLOAT")
    return time.perf_counter() - started


def child(who: str, network: str, song: Path, out: Path) -> None:
    """One run in a process of its own; prints what it took."""
    from stemlab.results import peak_memory_bytes

    run = {"stemlab": run_stemlab, "demucs": run_demucs}[who]
    seconds = run(make_network(network), song, out)
    print(json.dumps({"seconds": seconds, "peak_bytes": peak_memory_bytes()}))


def measure(who: str, case: Case, song: Path, out: Path) -> dict[str, float]:
    """Run a child."""
    out.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(case.threads)}
    done = subprocess.run(
        [sys.executable, __file__, "--child", who, case.network, str(song), str(out)],
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def write_song(path: Path, seconds: int) -> None:
    """Noise with beats and pauses, so that there is something to normalise."""
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", RATE, 2, "FLOAT") as file:
        for second in range(seconds):
            decay = np.exp(-4 * np.arange(RATE) / RATE)[:, None]
            level = 0.0 if second % 10 == 9 else 0.2
            file.write(level * decay * rng.standard_normal((RATE, 2)))


def agreement_db(ours: Path, theirs: Path) -> float:
    """Of the stem that agrees least."""
    found = []
    for name in SOURCES:
        power = error = 0.0
        pairs = zip(_blocks(ours / f"{name}.wav"), _blocks(theirs / f"{name}.wav"), strict=True)
        for mine, reference in pairs:
            power += float(np.square(reference).sum())
            error += float(np.square(mine - reference).sum())
        found.append(10 * math.log10(power / error) if error else math.inf)
    return min(found)


def _blocks(path: Path) -> Iterator[Any]:
    return soundfile.blocks(path, 1 << 20, dtype="float64")


def pairs(case: Case, done: int) -> Iterator[dict[str, Any]]:
    """The pairs of a case that are missing; who is first changes from pair to pair."""
    with tempfile.TemporaryDirectory(prefix="stemlab-speed-") as scratch:
        folder = Path(scratch)
        song = folder / "song.wav"
        if done < case.pairs:
            write_song(song, case.seconds)
        for number in range(done, case.pairs):
            order = ("stemlab", "demucs") if number % 2 else ("demucs", "stemlab")
            found = {who: measure(who, case, song, folder / who) for who in order}
            ours, theirs = found["stemlab"], found["demucs"]
            yield {
                "network": case.network,
                "seconds": case.seconds,
                "threads": case.threads,
                "pair": number + 1,
                "stemlab_seconds": round(ours["seconds"], 2),
                "demucs_seconds": round(theirs["seconds"], 2),
                "ratio": round(theirs["seconds"] / ours["seconds"], 3),
                "stemlab_peak_mb": round(ours["peak_bytes"] / 1e6),
                "demucs_peak_mb": round(theirs["peak_bytes"] / 1e6),
                "agreement_db": round(agreement_db(folder / "stemlab", folder / "demucs"), 1),
                **_where(),
            }


def lengths(file: Path) -> pd.DataFrame:
    """Peak memory of stemlab alone, whatever the length: a narrow network, not to take a day."""
    if file.exists():
        return pd.read_csv(file)
    rows = []
    for seconds in LENGTHS:
        with tempfile.TemporaryDirectory(prefix="stemlab-length-") as scratch:
            song = Path(scratch) / "song.wav"
            write_song(song, seconds)
            case = Case("narrow", seconds, 2, 1)
            found = measure("stemlab", case, song, Path(scratch) / "stems")
        peak = round(found["peak_bytes"] / 1e6)
        rows.append({"seconds": seconds, "peak_mb": peak, **_where()})
    table = pd.DataFrame(rows)
    table.to_csv(file, index=False)
    return table


def _where() -> dict[str, str]:
    from stemlab.results import package_versions

    versions = package_versions()
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        cpu = next((each.split(":")[1].strip() for each in lines if "model name" in each), cpu)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{cpu}, {os.cpu_count()} cores",
        "torch": versions["torch"],
        "demucs": versions["demucs"],
    }


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A line for each case: medians, and the smallest and largest ratio."""
    groups = table.groupby(["network", "seconds", "threads"], sort=False)
    return groups.agg(
        pairs=("pair", "count"),
        stemlab_seconds=("stemlab_seconds", "median"),
        demucs_seconds=("demucs_seconds", "median"),
        ratio=("ratio", "median"),
        least=("ratio", "min"),
        most=("ratio", "max"),
        stemlab_peak_mb=("stemlab_peak_mb", "max"),
        demucs_peak_mb=("demucs_peak_mb", "max"),
        agreement_db=("agreement_db", "min"),
    ).reset_index()


def plot(table: pd.DataFrame, path: Path) -> None:
    """Time and memory of both, side by side."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = summary(table)
    names = [
        f"{TITLES[row.network]}\n{row.seconds} s, {row.threads} thread{'s' * (row.threads > 1)}"
        for row in rows.itertuples()
    ]
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 0.62 * len(rows) + 1.2), sharey=True)
    places = np.arange(len(rows))
    for offset, who, color in ((-0.2, "demucs", "#999999"), (0.2, "stemlab", "#0072B2")):
        rtf = rows[f"{who}_seconds"] / rows["seconds"]
        axes[0].barh(places + offset, rtf, 0.38, color=color, label=who.capitalize())
        axes[1].barh(places + offset, rows[f"{who}_peak_mb"], 0.38, color=color)
    for place, row in zip(places, rows.itertuples(), strict=True):
        own = row.stemlab_seconds / row.seconds
        axes[0].annotate(f" {row.ratio:.2f}×", (own, place + 0.2), va="center", fontsize=8)
    axes[0].set(xlabel="real-time factor (less is faster)", yticks=places, yticklabels=names)
    axes[1].set(xlabel="peak memory in MB", xscale="log")
    axes[0].invert_yaxis()
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    """Run what is missing, write the table and the plot."""
    if sys.argv[1:2] == ["--child"]:
        who, network, song, out = sys.argv[2:]
        child(who, network, Path(song), Path(out))
        return
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "speed.csv"
    table = pd.read_csv(file) if file.exists() else pd.DataFrame()
    for case in CASES:
        same = pd.Series(dtype=bool)
        if len(table):
            same = (
                (table["network"] == case.network)
                & (table["seconds"] == case.seconds)
                & (table["threads"] == case.threads)
            )
        for row in pairs(case, int(same.sum())):
            table = pd.concat([table, pd.DataFrame([row])], ignore_index=True)
            table.to_csv(file, index=False)
            print(row, file=sys.stderr, flush=True)
    plot(table, folder / "speed.png")
    print(summary(table).to_string(index=False))
    print(lengths(folder / "length.csv").to_string(index=False))


if __name__ == "__main__":
    main()
