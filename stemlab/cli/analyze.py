"""``stemlab analyze``: what is in a recording, as JSON and as a picture."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stemlab._text import printable
from stemlab.analysis import SignalLevels, SongReport, analyze
from stemlab.audio import read_file
from stemlab.cli._shared import aligned, progress_bar, save, show
from stemlab.cli.parser import add_settings
from stemlab.cli.separate import checked_separator
from stemlab.errors import OutputError, ParameterError
from stemlab.files import Folder, check_writable, parse_json
from stemlab.plots import plot_report
from stemlab.results import file_safe
from stemlab.separation import AudioStemSeparator, SeparationSettings

_REPORT, _PICTURE = "report.json", "report.png"
_MOST_BYTES = 16_000_000
_ADVICE = "Choose another --out."
_CONTAINS = (
    "Figures of the recording and of its stems, and the file name of the recording. No audio, no "
    "folders. The picture beside it shows levels and spectra."
)


def run(options: argparse.Namespace) -> int:
    """Analyse a song, with its stems if asked, and write the report and its picture."""
    # Everything that can be refused without the song is refused before it is opened.
    separator, settings = _separator(options)
    song = Path(options.song)
    if not options.song:
        raise ParameterError("SONG is empty. Name an audio file.")
    out, name = Path(options.out), file_safe(song.stem)
    folder = out / name
    files = {"report": folder / _REPORT, "picture": folder / _PICTURE}
    for path in files.values():
        check_writable(path, _ADVICE)
    if os.path.lexists(folder):
        with _report_folder(out, name):
            pass  # It refuses what may not be replaced.
    audio, sample_rate = read_file(song, downmix=options.downmix)
    with progress_bar(options, song.name) as bar:
        report = analyze(audio, sample_rate, separator=separator, settings=settings, progress=bar)
    picture = save(plot_report(report)[0, 0].figure)
    facts = {
        "contains": _CONTAINS,
        "song": song.name,
        "picture_sha256": hashlib.sha256(picture).hexdigest(),
        **report.as_dict(),
    }
    with _report_folder(out, name) as place:
        # In this order, an existing picture is always the one that the report names.
        with suppress(FileNotFoundError):
            place.remove(_PICTURE)
        place.put(_REPORT, (json.dumps(facts, indent=2) + "\n").encode())
        place.put(_PICTURE, picture)
    written = {name: str(path) for name, path in files.items()}
    names = f"{folder}{os.sep}{{{_REPORT},{_PICTURE}}}"
    show(options, {**facts, "files": written}, [*_lines(printable(song.name), report), names])
    return 0


@contextmanager
def _report_folder(out: Path, name: str) -> Iterator[Folder]:
    """Open or make the folder of a song's report; refuse a link, and files of others in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with Folder(out) as inside, inside.subfolder(name, make=True) as folder:
            _refuse_foreign(folder)
            yield folder
    except OutputError:
        raise
    except OSError as error:
        raise OutputError(
            f"a report cannot be written to {str(out / name)!r}: {error.strerror or error}. "
            f"{_ADVICE}",
            out / name,
        ) from error


def _refuse_foreign(folder: Folder) -> None:
    """Refuse to replace files that an earlier report does not account for."""
    facts: dict[str, Any] = {}
    with suppress(OSError, ValueError):
        facts = parse_json(folder.read(_REPORT, _MOST_BYTES))
    ours = {
        _REPORT: folder.owns(_REPORT) and facts.get("contains") == _CONTAINS,
        _PICTURE: folder.owns(_PICTURE) and folder.digest(_PICTURE) == facts.get("picture_sha256"),
    }
    for name, is_ours in ours.items():
        if folder.stat(name) is not None and not is_ours:
            raise OutputError(
                f"{str(folder.path / name)!r} exists and was not written by stemlab. Move it "
                f"away. {_ADVICE}",
                folder.path / name,
            )


def _separator(
    options: argparse.Namespace,
) -> tuple[AudioStemSeparator | None, SeparationSettings | None]:
    if options.separate_stems:
        return checked_separator(options)
    # These options would have no effect.
    parser = argparse.ArgumentParser()
    add_settings(parser)
    for action in parser._actions[1:]:  # Without --help.
        if getattr(options, action.dest) != action.default:
            typed = action.option_strings[0]
            raise ParameterError(
                f"{typed} decides how stems are made, and none are asked for. "
                f"Add --separate-stems, or leave {typed} out."
            )
    return None, None


def _lines(song: str, report: SongReport) -> list[str]:
    channels = {1: "mono", 2: "stereo"}[report.channels]
    tempo = "none found" if report.tempo_bpm is None else f"{report.tempo_bpm:.1f} bpm"
    head = f"{song}: {report.duration_seconds:.1f} s, {report.sample_rate} Hz, {channels}"
    if report.separation is not None:
        head += f"; stems by {report.separation['model']} on {report.separation['device']}"
    rows = [["", "LUFS", "RMS dBFS", "peak dBFS"], ["mixture", *_levels(report.levels)]]
    if report.stems:
        rows[0] += ["energy", "active"]
    for name, stem in report.stems.items():
        energy = "–" if stem.energy_share is None else f"{stem.energy_share:.0%}"
        rows.append([name, *_levels(stem.levels), energy, f"{stem.active_share:.0%}"])
    notes = [f"note: {note}" for note in report.notes]
    return [head, f"tempo {tempo}", "", *aligned(rows), "", *notes]


def _levels(levels: SignalLevels) -> list[str]:
    shown = (levels.loudness_lufs, levels.rms_dbfs, levels.peak_dbfs)
    return ["–" if level is None else f"{level:z.1f}" for level in shown]
