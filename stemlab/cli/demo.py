"""``stemlab demo``: the whole way on the bundled song, with figures."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from stemlab._assets import DEMO_SOURCES, demo_song_dir
from stemlab.audio import read_file
from stemlab.cli._shared import aligned, progress_bar, save, show
from stemlab.errors import OutputError
from stemlab.files import Folder
from stemlab.metrics import sdr, si_sdr
from stemlab.plots import compare_spectrograms
from stemlab.results import RunCost
from stemlab.separation import AudioStemSeparator, OutputSettings

_PICTURE = "spectrograms.png"


def run(options: argparse.Namespace) -> int:
    """Separate the demo song, compare its stems with the true ones, draw them, print a table."""
    folder, out_dir = demo_song_dir(), Path(options.out)
    output = OutputSettings(filename="{source}.{ext}", force=True)
    with progress_bar(options, "demo song") as bar:
        result = AudioStemSeparator(device=options.device).separate_file(
            folder / "mixture.flac", out_dir, output=output, progress=bar
        )
    mixture, sample_rate = read_file(folder / "mixture.flac")
    stems = {name: read_file(path)[0] for name, path in result.stems.items()}
    figures = {}
    for name in DEMO_SOURCES:
        reference, _ = read_file(folder / f"{name}.flac")
        figures[name] = {
            "stem_sdr_db": sdr(reference, stems[name]),
            "mixture_sdr_db": sdr(reference, mixture),
            "stem_si_sdr_db": si_sdr(reference, stems[name]),
            "mixture_si_sdr_db": si_sdr(reference, mixture),
        }
    axes = compare_spectrograms({"mixture": mixture, **stems}, sample_rate, difference=False)
    picture = _put_picture(out_dir, save(axes[0].figure, dpi=100))
    cost = result.run.cost
    show(
        options,
        {"figures": figures, "cost": asdict(cost), "picture": str(picture)},
        [
            *_table(figures, cost, mixture.shape[1] / sample_rate),
            f"\nStems and picture: {out_dir}/ ({_PICTURE})",
            "Next: `make lab` opens the notebooks, `stemlab separate SONG` takes your own song.",
        ],
    )
    return 0


def _put_picture(out_dir: Path, content: bytes) -> Path:
    """Write the picture beside the stems, in place of an earlier one but not of a link."""
    picture = out_dir / _PICTURE
    with Folder(out_dir) as folder:
        if folder.stat(_PICTURE) is not None and not folder.owns(_PICTURE):
            raise OutputError(
                f"{str(picture)!r} is a link, not a regular file, or belongs to another user. Move "
                "it away, or choose another --out.",
                picture,
            )
        folder.put(_PICTURE, content)
    return picture


def _table(figures: dict[str, dict[str, float]], cost: RunCost, seconds: float) -> Iterator[str]:
    yield "In dB, higher is better; 'mixture' is the mixture taken for the stem.\n"
    rows = [
        [name, *(f"{value:.2f}" for value in figure.values())] for name, figure in figures.items()
    ]
    yield from aligned([["", "SDR", "mixture", "SI-SDR", "mixture"], *rows])
    peak = cost.peak_memory_bytes
    memory = "" if peak is None else f", peak memory {peak / 1e6:.0f} MB"
    yield (
        f"\n{seconds:.0f} s of audio in {cost.wall_seconds:.1f} s: RTF {cost.rtf:.2f} "
        f"(processing time / duration){memory}"
    )
