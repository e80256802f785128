"""Score a model on held-out songs, on the demo song and on stempeg's example song.

Usage::

    python evaluate.py --model ../stemlab-mini --songs HELDOUT_FOLDER [--json FIGURES.json]

stempeg's song is used only here: it is neither trained on nor shipped. Figures are means
over songs in dB, leaving out sources below -30 dB of their mixture.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from places import DEMO, MODELS
from songs import as_float, load_song, song_paths
from synth import SAMPLE_RATE, SOURCES

from stemlab import AudioStemSeparator, sdr, si_sdr

Separate = Callable[[np.ndarray], np.ndarray]


def separation(separator: AudioStemSeparator, **settings: Any) -> Separate:
    """A function from a mixture (2, samples) to its stems (sources, 2, samples)."""

    def separate(mixture: np.ndarray) -> np.ndarray:
        stems = separator.separate_audio(mixture, SAMPLE_RATE, **settings)
        return np.stack([stems[source] for source in SOURCES])

    return separate


def residual_db(mixture: np.ndarray, stems: np.ndarray) -> float:
    """Level of what the stems leave over of the mixture, relative to the mixture."""
    left = mixture.astype(np.float64) - stems.sum(axis=0)
    return float(10 * np.log10((np.sum(left**2) + 1e-20) / (np.sum(mixture**2) + 1e-20)))


def score(separate: Separate, stems: np.ndarray, mixture: np.ndarray | None = None) -> dict:
    """Figures of one song; stems (sources, 2, samples), `mixture` their sum unless given."""
    mixture = stems.sum(axis=0) if mixture is None else mixture
    estimates = separate(mixture)
    figures: dict = {"residual": residual_db(mixture, estimates)}
    for source, reference, estimate in zip(SOURCES, stems, estimates, strict=True):
        if np.mean(reference**2) < 1e-3 * np.mean(mixture**2):
            continue
        figures[source] = {
            "sdr": sdr(reference, estimate),
            "si_sdr": si_sdr(reference, estimate),
            "mixture_sdr": sdr(reference, mixture),
            "mixture_si_sdr": si_sdr(reference, mixture),
        }
    return figures


def average(songs: Iterable[dict]) -> dict:
    """Mean figures over songs."""
    songs = list(songs)
    means: dict = {"residual": float(np.mean([song["residual"] for song in songs]))}
    for source in SOURCES:
        scored = [song[source] for song in songs if source in song]
        if scored:
            means[source] = {key: float(np.mean([s[key] for s in scored])) for key in scored[0]}
    return means


def mean_sdr(figures: dict) -> float:
    """Mean SDR over the sources."""
    return float(np.mean([figures[s]["sdr"] for s in SOURCES if s in figures]))


def heldout_songs(folder: Path, seconds: float | None = None) -> Iterator[np.ndarray]:
    """Stems of the songs of a folder, the first seconds of each."""
    samples = None if seconds is None else int(seconds * SAMPLE_RATE)
    for path in song_paths(folder):
        yield as_float(load_song(path)[:, :, :samples])


def demo_song() -> np.ndarray:
    """Stems of the demo song."""
    stems = [soundfile.read(DEMO / f"{s}.flac", dtype="float32")[0].T for s in SOURCES]
    return np.stack(stems)


def real_song() -> tuple[np.ndarray, np.ndarray] | None:
    """stempeg's example as (stems, released mixture), or None where stempeg is missing."""
    try:
        import stempeg
    except ImportError:
        return None
    tracks, rate = stempeg.read_stems(stempeg.example_stem_path())
    if rate != SAMPLE_RATE:
        raise ValueError(f"stempeg's example is at {rate} Hz, expected {SAMPLE_RATE}")
    tracks = tracks.transpose(0, 2, 1).astype(np.float32)
    return tracks[1:], tracks[0]


def unlike_training(mixture: np.ndarray) -> dict[str, np.ndarray]:
    """The same music made unlike the training songs, to see whether the stems still add up."""
    loud = mixture / (np.abs(mixture).max() + 1e-9)
    noise = np.random.default_rng(0).standard_normal(mixture.shape)
    return {
        "mono": np.repeat(mixture.mean(axis=0, keepdims=True), 2, axis=0),
        "limited": np.tanh(8 * loud),
        "clipped": np.clip(4 * loud, -1, 1),
        "left only": mixture * np.array([[1.0], [0.0]]),
        "side only": mixture * np.array([[1.0], [-0.9]]),
        "-50 dB": loud * 10**-2.5,
        "+40 dB": loud * 100,
        "noise": 0.1 * noise,
    }


def robustness(separate: Separate, mixture: np.ndarray) -> dict[str, float]:
    """Residual in dB on altered music; raises if any stem is not finite or silence is not kept."""
    residuals = {}
    for name, altered in unlike_training(mixture).items():
        altered = altered.astype(np.float32)
        stems = separate(altered)
        if not np.isfinite(stems).all():
            raise ValueError(f"the stems of {name!r} are not finite")
        residuals[name] = residual_db(altered, stems)
    if np.abs(separate(np.zeros_like(mixture))).max() > 1e-6:
        raise ValueError("silence does not stay silent")
    return residuals


def table(title: str, figures: dict) -> str:
    """Figures as text: SDR, SI-SDR and their gain over the mixture as estimate."""
    lines = [f"{title}: (mixture - sum of stems) at {figures['residual']:.1f} dB"]
    for source in SOURCES:
        if source in figures:
            f = figures[source]
            lines.append(
                f"  {source:7s} SDR {f['sdr']:5.2f} (mixture {f['mixture_sdr']:6.2f})   "
                f"SI-SDR {f['si_sdr']:5.2f} (mixture {f['mixture_si_sdr']:6.2f}, "
                f"gain {f['si_sdr'] - f['mixture_si_sdr']:5.2f})"
            )
    return "\n".join([*lines, f"  mean SDR {mean_sdr(figures):.2f}"])


def evaluate(separate: Separate, songs: Path | None) -> dict:
    """All figures of a model."""
    figures = {}
    if songs is not None:
        figures["held-out songs"] = average(score(separate, each) for each in heldout_songs(songs))
    if DEMO.joinpath("mixture.flac").exists():
        figures["demo song"] = score(separate, demo_song())
    if (real := real_song()) is not None:
        stems, released = real
        figures["real song, sum of stems"] = score(separate, stems)
        figures["real song, released mixture"] = score(separate, stems, released)
        figures["altered real song, residuals"] = robustness(separate, released)
    return figures


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODELS / "stemlab-mini")
    parser.add_argument("--songs", type=Path, help="folder of held-out songs")
    parser.add_argument("--segment-seconds", type=float, help="default: the model's")
    parser.add_argument("--no-pad", action="store_true", help="do not pad shorter segments")
    parser.add_argument("--json", type=Path, help="write the figures to a file as well")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    separate = separation(
        AudioStemSeparator(options.model, device="cpu"),
        segment_seconds=options.segment_seconds,
        pad_to_training_segment=not options.no_pad,
    )
    figures = evaluate(separate, options.songs)
    for title, values in figures.items():
        if "residual" in values:
            print(table(title, values))
        else:
            print(title + ":", ", ".join(f"{name} {db:.1f}" for name, db in values.items()))
    print(f"{time.perf_counter() - started:.0f} s")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
