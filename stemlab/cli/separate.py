"""``stemlab separate``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stemlab._text import printable
from stemlab.audio import find_recordings
from stemlab.cli._bars import terminal_bar
from stemlab.cli.main import describe, exit_code
from stemlab.errors import AudioError, ParameterError
from stemlab.memory import fit_memory, parse_memory
from stemlab.separation import (
    AudioStemSeparator,
    OutputSettings,
    SegmentDone,
    SeparationResult,
    SeparationSettings,
)

__all__ = ["progress_bar", "run", "settings_of"]


def run(options: argparse.Namespace) -> int:
    """Separate each song; the exit code is that of the first that failed."""
    # Everything that concerns all songs is refused before the first is touched.
    settings = settings_of(options)
    output = OutputSettings(
        format=options.format,
        bits=options.bits,
        clip=options.clip,
        filename=options.filename,
        two_stems=options.two_stems,
        force=options.force,
        downmix=options.downmix,
        resume=options.resume,
    )
    separator = AudioStemSeparator(
        options.model, device=options.device, batch_size=options.batch_size
    )
    separator.check(settings, output)
    if options.memory_limit is not None:
        separator = _within(options.memory_limit, separator, settings, options)
    if not all(options.songs):
        raise ParameterError("SONG_OR_FOLDER is empty. Name a file or a folder; '.' is this one.")
    reports, first_code = [], 0
    for song in options.songs:
        for path in _expand(song):
            report, code = _separate(separator, path, options, settings, output)
            reports.append(report)
            first_code = first_code or code
    if options.json:
        print(json.dumps({"songs": reports}, indent=2))
    return first_code


def _within(
    limit: str,
    separator: AudioStemSeparator,
    settings: SeparationSettings,
    options: argparse.Namespace,
) -> AudioStemSeparator:
    fitting = fit_memory(separator, settings, int(parse_memory(limit)))
    if fitting == separator.batch_size:
        return separator
    if not options.quiet:
        print(
            f"stemlab: note: to keep the memory limit, {fitting} segments are taken in one call "
            f"instead of {separator.batch_size} (same output).",
            file=sys.stderr,
        )
    return AudioStemSeparator(options.model, device=options.device, batch_size=fitting)


def settings_of(options: argparse.Namespace) -> SeparationSettings:
    """Take the settings that were typed; the others have the defaults of `SeparationSettings`."""
    typed = {
        "segment_seconds": options.segment,
        "overlap": options.overlap,
        "shifts": options.shifts,
        "seed": options.seed,
        "sources": None if options.sources is None else options.sources.split(","),
        "pad_to_training_segment": not options.no_pad,
        "skip_covered_tail": options.skip_covered_tail,
    }
    return SeparationSettings(**{name: value for name, value in typed.items() if value is not None})


def _expand(song: str) -> list[Path]:
    """A folder stands for the recordings in it; one without any is refused when its turn comes."""
    path = Path(song)
    if os.path.isdir(path):
        with suppress(AudioError):
            return find_recordings(path) or [path]
    return [path]


def _separate(
    separator: AudioStemSeparator,
    path: Path,
    options: argparse.Namespace,
    settings: SeparationSettings,
    output: OutputSettings,
) -> tuple[dict[str, Any], int]:
    try:
        if os.path.isdir(path):
            find_recordings(path)  # It says so itself where the folder cannot be listed.
            raise AudioError(
                f"{str(path)!r} is a folder without audio files. Name a file, or another folder.",
                path,
            )
        with progress_bar(path.name, hidden=options.quiet or options.json) as bar:
            result = separator.separate_file(
                path, options.out, settings=settings, output=output, progress=bar
            )
    except Exception as error:  # noqa: BLE001 - the other songs still have their turn
        if options.debug:
            traceback.print_exc()
        print(f"stemlab: {describe(error)}", file=sys.stderr)
        code = exit_code(error)
        return {"input": str(path), "error": describe(error), "exit_code": code}, code
    if not options.quiet:
        _tell(result, silent=options.json)
    return {
        "input": str(path),
        "stems": {name: str(each) for name, each in result.stems.items()},
        "manifest": str(result.manifest_path),
        "exit_code": 0,
        "run": result.manifest,
    }, 0


def _tell(result: SeparationResult, *, silent: bool) -> None:
    for change in result.run.changes:
        print(f"stemlab: note: {printable(change)}", file=sys.stderr)
    if silent:
        return
    names = printable(_together([*result.stems.values()]))
    if result.was_cached:
        print(f"{names}  finished already")
        return
    cost = result.run.cost
    speed = "" if cost.rtf is None else f", RTF {cost.rtf:.2f}"
    print(f"{names}  {cost.wall_seconds:.1f} s{speed}")


def _together(paths: Sequence[Path]) -> str:
    """Paths of one folder in a short form."""
    folders = {each.parent for each in paths}
    if len(folders) > 1 or len(paths) == 1:
        return " ".join(map(str, paths))
    return f"{folders.pop()}{os.sep}{{{','.join(each.name for each in paths)}}}"


class _Bar:
    """A progress callback that moves a bar."""

    def __init__(self, bar: tqdm[Any]) -> None:
        self._bar = bar

    def __call__(self, event: SegmentDone) -> None:
        self._bar.total = event.total
        self._bar.update(event.done - self._bar.n)


@contextmanager
def progress_bar(title: str, *, hidden: bool) -> Iterator[_Bar]:
    """Show a bar on a terminal while a song is separated."""
    with terminal_bar(hidden=hidden, desc=title, unit="segment") as bar:
        yield _Bar(bar)
