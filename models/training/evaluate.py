"""Measure a model; write evaluation.json, spectrograms.png and the card into its folder.

Usage::

    python evaluate.py FOLDER

The held-out songs are synthesised into FOLDER unless they are there.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from evaluation import tasks
from evaluation.card import check_card, into_card
from evaluation.material import (
    SONG_SECONDS,
    Track,
    demo_song,
    synthesised,
)
from evaluation.picture import draw_stems
from evaluation.scores import quartiles
from machine import processor
from places import MODELS
from songs import fingerprint
from synth import SAMPLE_RATE

# Training takes the seeds below 1,000,000, and its validation, by which settings may be chosen,
# those from there on: these are for nothing but the evaluation.
FIRST_SEED = 1_500_000
SEGMENTS = (7.8, 6.0, 4.0, 3.0, 2.0, 1.0)
OVERLAPS = (0.0, 0.1, 0.25, 0.5)
SPEED_RUNS = 3
SCHEMA = 1
PACKAGES = ("stemlab", "torch", "demucs", "numpy", "librosa", "museval")
_log = logging.getLogger("evaluate")


@dataclass(frozen=True)
class Size:
    """How many songs each measurement takes."""

    unseen: int
    known: int
    bss: int = 6
    settings: int = 4


@dataclass(frozen=True)
class Job:
    """A measurement of one song; those of one section and row are taken together."""

    section: str
    row: str
    task: Callable[..., Any]
    arguments: tuple[Any, ...]


def jobs(unseen: list[Track], known: list[Track], size: Size) -> Iterator[Job]:
    """Everything to measure, what takes longest first."""
    real = [Track("real"), Track("real, released")]
    for track in [*unseen[: size.bss], real[1]]:
        yield Job("bss_eval", track.material, tasks.bss, (track,))
    for track in unseen[: size.settings]:
        for seconds in SEGMENTS:
            for section, pad in (("segments, padded", True), ("segments, free", False)):
                settings = {"segment_seconds": seconds, "pad_to_training_segment": pad}
                yield Job(section, f"{seconds:g}", tasks.with_settings, (track, settings))
        for overlap in OVERLAPS:
            yield Job(
                "overlaps", f"{overlap:g}", tasks.with_settings, (track, {"overlap": overlap})
            )
    for track in [*unseen, *known, Track("demo"), *real]:
        yield Job("accuracy", track.material, tasks.accuracy, (track,))
    for track in [*unseen, real[1]]:
        yield Job("absent", track.material, tasks.absent, (track,))
    for track in [unseen[0], real[1]]:
        yield Job("robustness", track.material, tasks.robustness, (track,))


def in_order(pool: Executor, work: list[tuple[Callable[..., Any], tuple[Any, ...]]]) -> list[Any]:
    """The results of calls that run side by side, in the order of the calls."""
    futures = [pool.submit(function, *arguments) for function, arguments in work]
    try:
        for done, future in enumerate(as_completed(futures), 1):
            future.result()
            _log.info("%d of %d", done, len(futures))
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    return [future.result() for future in futures]


def measure(pool: Executor, songs: Path, size: Size) -> dict[str, Any]:
    """Sections of rows of trees of lower quartile, median and upper quartile over songs."""
    wanted = [("unseen", "unseen", FIRST_SEED + n) for n in range(size.unseen)]
    wanted += [("known", "training", FIRST_SEED + n) for n in range(size.known)]
    _log.info("%d songs", len(wanted))
    tracks = in_order(pool, [(synthesised, (songs, *each)) for each in wanted])
    todo = list(jobs(tracks[: size.unseen], tracks[size.unseen :], size))
    _log.info("%d measurements", len(todo))
    results = in_order(pool, [(job.task, job.arguments) for job in todo])
    collected: dict[str, dict[str, list[Any]]] = {}
    for job, result in zip(todo, results, strict=True):
        collected.setdefault(job.section, {}).setdefault(job.row, []).append(result)
    return {
        section: {row: quartiles(trees) for row, trees in rows.items()}
        for section, rows in collected.items()
    }


def speed(model: Path, picture: Path) -> dict[str, Any]:
    """Time on one thread over the duration of the demo song, with nothing beside it.

    The result is drawn to `picture`.
    """
    tasks.start(model)
    stems = demo_song()
    mixture = stems.sum(axis=0)
    seconds = []
    for _ in range(SPEED_RUNS):
        started = time.perf_counter()
        estimates = tasks.separate(mixture)
        seconds.append(time.perf_counter() - started)
    draw_stems(stems, estimates, picture)
    return {
        "rtf": statistics.median(seconds) / (mixture.shape[1] / SAMPLE_RATE),
        "runs": SPEED_RUNS,
    }


def provenance(model: Path, size: Size) -> dict[str, Any]:
    """Of which weights the figures are, and what they were made with."""
    manifest = json.loads((model / "manifest.json").read_bytes())
    (network,) = manifest["networks"]
    seconds = float(os.environ.get("SOURCE_DATE_EPOCH", time.time()))

    def songs(count: int) -> dict[str, Any]:
        return {"count": count, "first_seed": FIRST_SEED, "seconds": SONG_SECONDS}

    return {
        "schema": SCHEMA,
        "model": {
            "name": manifest["name"],
            "sha256": network["files"][0]["sha256"],
            "bytes": network["files"][0]["bytes"],
            "parameters": manifest["parameters"],
        },
        "made": {
            "date": datetime.fromtimestamp(seconds, UTC).date().isoformat(),
            "versions": {package: version(package) for package in PACKAGES},
            "python": platform.python_version(),
            "cpu": processor(),
            "synthesiser": fingerprint(),
        },
        "songs": {
            "unseen": songs(size.unseen),
            "known": songs(size.known),
            "bss_eval": songs(min(size.bss, size.unseen)),
            "settings": songs(min(size.settings, size.unseen)),
        },
    }


def rounded(tree: Any) -> Any:
    """The same with every number rounded to three places: more means nothing."""
    if isinstance(tree, dict):
        return {name: rounded(branch) for name, branch in tree.items()}
    if isinstance(tree, list):
        return [rounded(branch) for branch in tree]
    return round(tree, 3) if isinstance(tree, float) else tree


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("songs", type=Path, help="folder of held-out songs")
    parser.add_argument("--model", type=Path, default=MODELS / "stemlab-mini")
    parser.add_argument("--out", type=Path, help="where the figures go (default: the model)")
    parser.add_argument("--unseen", type=int, default=24, help="songs with unseen sounds")
    parser.add_argument("--known", type=int, default=8, help="songs with the training's sounds")
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    started = time.perf_counter()
    out = options.out or options.model
    out.mkdir(parents=True, exist_ok=True)
    card = (options.model / "README.md").read_text(encoding="utf-8")
    check_card(card)
    size = Size(options.unseen, options.known)
    # Forked processes would share the state of torch's threads.
    with ProcessPoolExecutor(
        options.processes, get_context("spawn"), tasks.start, (options.model,)
    ) as pool:
        figures = measure(pool, options.songs, size)
    figures = rounded(
        {
            **provenance(options.model, size),
            "speed": speed(options.model, out / "spectrograms.png"),
            **figures,
        }
    )
    (out / "evaluation.json").write_text(as_json(figures), encoding="utf-8")
    (out / "README.md").write_text(into_card(card, figures), encoding="utf-8")
    _log.info("%s, %.0f s", out / "evaluation.json", time.perf_counter() - started)


def as_json(tree: Any, indent: str = "") -> str:
    """JSON in which a list takes one line."""
    if not isinstance(tree, dict):
        return json.dumps(tree, allow_nan=False)
    deeper = indent + " "
    lines = [f"{deeper}{json.dumps(k)}: {as_json(v, deeper)}" for k, v in tree.items()]
    return "{\n" + ",\n".join(lines) + f"\n{indent}}}" + ("" if indent else "\n")


if __name__ == "__main__":
    main()
