"""``stemlab compare``: spectrograms of recordings, and what sets them apart."""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

from stemlab._text import printable
from stemlab.audio import SeekableRecording, read_info
from stemlab.cli._shared import aligned, save, show
from stemlab.errors import AudioError, ParameterError
from stemlab.files import write_atomically
from stemlab.plots import draw_comparison
from stemlab.plots._panels import band_name
from stemlab.results import RunManifest
from stemlab.spectra import SpectralComparison, SpectralGrid, compare_spectra

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Without the date: the same recordings give the same bytes.
_METADATA: dict[str, dict[str, Any]] = {
    "png": {},
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
}


def run(options: argparse.Namespace) -> int:
    """Compare recordings, draw them, print a table."""
    picture = Path(options.out)
    kind = picture.suffix.lower().removeprefix(".")
    if kind not in _METADATA:
        raise ParameterError(
            f"--out {options.out!r} is not a known kind of picture. End it in .png, .svg or .pdf."
        )
    grid = SpectralGrid(options.fft, options.scale, options.time, options.freq)
    paths = [Path(file) for file in options.files]
    for path in paths:
        if os.path.isdir(path):
            raise AudioError(
                f"{str(path)!r} is a folder. Name the files in it that are to be compared.", path
            )
    reference = _reference(paths, options.reference)
    seams = [] if options.seams is None else _seams_seconds(options.seams)
    names = _names(paths)
    rate = read_info(paths[reference]).sample_rate
    with ExitStack() as opened:
        signals = {}
        for name, path in zip(names, paths, strict=True):
            signals[name] = _open(path, rate, options.quiet)
            opened.callback(signals[name].close)
        comparison = compare_spectra(signals, rate, reference=names[reference], grid=grid)
    axes = draw_comparison(
        comparison,
        difference=not options.no_difference,
        max_db_range=options.range,
        seams_seconds=seams,
    )
    content = _picture(axes.ravel()[0].figure, kind)
    write_atomically(picture, content, advice=", or choose another with --out")
    facts = _facts(comparison, dict(zip(names, map(str, paths), strict=True)))
    facts |= {"sample_rate": rate, "seams_seconds": seams, "picture": str(picture)}
    show(options, facts, [*_table(comparison), f"\nPicture: {picture}"])
    return 0


def _reference(paths: Sequence[Path], asked: str | None) -> int:
    if asked is None:
        return 0
    for number, path in enumerate(paths):
        if os.path.abspath(path) == os.path.abspath(asked):
            return number
    raise ParameterError(
        f"--reference {asked!r} is not one of the files. Choose one of "
        f"{', '.join(map(str, paths))}."
    )


def _names(paths: Sequence[Path]) -> list[str]:
    """Name files by their stems, with as many of their folders as tell them apart."""
    parts = [_as_text(path.absolute().with_suffix("")).split("/") for path in paths]
    names: list[str] = []
    for path, own in zip(paths, parts, strict=True):
        for depth in range(1, len(own) + 1):
            if sum(other[-depth:] == own[-depth:] for other in parts) == 1:
                name = "/".join(own[-depth:])
                break
        else:  # Another file differs in its suffix alone, or is the same.
            name = _as_text(Path(path.name))
        copies = (f"{name} ({number})" for number in itertools.count(2))
        names.append(next(free for free in itertools.chain([name], copies) if free not in names))
    return names


def _as_text(path: Path) -> str:
    return path.as_posix().encode("utf-8", "replace").decode()  # Not every name is valid text.


def _open(path: Path, sample_rate: int, quiet: bool) -> SeekableRecording:
    own = read_info(path).sample_rate
    if own != sample_rate and not quiet:
        print(
            f"note: {str(path)!r} has {own} Hz and is compared at {sample_rate} Hz, the "
            "reference's rate",
            file=sys.stderr,
        )
    return SeekableRecording(path, sample_rate)


def _seams_seconds(run_json: str) -> list[float]:
    """Where segments begin and end in the run of a ``run.json``, of all its networks."""
    run = RunManifest.read(run_json)
    try:
        plans = run.plans
    except ValueError as error:
        raise ParameterError(
            f"{run_json!r} was changed: {error}. Pass the run.json that `stemlab separate` wrote."
        ) from error
    return sorted({float(edge) / plan.sample_rate for plan in plans for edge in plan.boundaries})


def _picture(figure: Figure, kind: str) -> bytes:
    # Text that can be searched and edited, not outlines of letters.
    text = matplotlib.rc_context(
        {"svg.hashsalt": "stemlab", "svg.fonttype": "none", "pdf.fonttype": 42}
    )
    with text, warnings.catch_warnings():
        # Names in scripts that the font lacks are drawn as boxes; the table shows them.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        return save(figure, kind, metadata=_METADATA[kind])


def _facts(comparison: SpectralComparison, files: dict[str, str]) -> dict[str, Any]:
    def numbers(values: Iterable[float]) -> list[float | None]:
        # JSON has no NaN.
        return [None if math.isnan(value) else float(value) for value in values]

    signals: dict[str, dict[str, Any]] = {}
    for name, file in files.items():
        signals[name] = {"file": file, "band_levels_db": numbers(comparison.band_levels_db[name])}
        if name != comparison.reference:
            (distance,) = numbers([comparison.log_spectral_distance_db[name]])
            signals[name] |= {
                "log_spectral_distance_db": distance,
                "band_differences_db": numbers(comparison.band_differences_db[name]),
            }
    return {
        "reference": comparison.reference,
        "time_range_seconds": [float(comparison.seconds[0]), float(comparison.seconds[-1])],
        "band_hz": list(comparison.band_hz),
        "signals": signals,
    }


def _table(comparison: SpectralComparison) -> list[str]:
    reference = comparison.reference
    rows = [
        ["", "distance", *map(band_name, comparison.band_hz)],
        [printable(reference), "", *map(_number, comparison.band_levels_db[reference])],
    ]
    for name, distance in comparison.log_spectral_distance_db.items():
        differences = map(_number, comparison.band_differences_db[name])
        rows.append([printable(name), _number(distance), *differences])
    shown = printable(reference)
    title = f"In dB. Octave bands in Hz: the level of {shown}, and what the others have more."
    return [title, "", *aligned(rows)]


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:z.1f}"
