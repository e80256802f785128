"""``stemlab separate``."""

from __future__ import annotations

import argparse
import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from stemlab._text import printable
from stemlab.audio import find_recordings
from stemlab.cli._shared import passed, progress_bar
from stemlab.cli.main import tell
from stemlab.errors import AudioError, ParameterError
from stemlab.memory import fit_memory, parse_memory
from stemlab.separation import (
    AudioStemSeparator,
    OutputSettings,
    SeparationResult,
    SeparationSettings,
)


def run(options: argparse.Namespace) -> int:
    """Separate each song; the exit code is that of the first that failed."""
    # Everything that concerns all songs is refused before the first is touched.
    output = OutputSettings(**passed(OutputSettings, options))
    separator, settings = checked_separator(options, output)
    if options.memory_limit is not None:
        fitting = fit_memory(separator, settings, int(parse_memory(options.memory_limit)))
        if fitting != separator.batch_size:
            if not options.quiet:
                print(
                    f"stemlab: note: to keep the memory limit, {fitting} segments are taken in one "
                    f"call instead of {separator.batch_size} (same output).",
                    file=sys.stderr,
                )
            separator = AudioStemSeparator(options.model, device=options.device, batch_size=fitting)
    if not all(options.songs):
        raise ParameterError("SONG_OR_FOLDER is empty. Name a file or a folder; '.' is this one.")
    reports = [
        _separate(separator, path, options, settings, output)
        for song in options.songs
        for path in _expand(song)
    ]
    if options.json:
        print(json.dumps({"songs": reports}, indent=2))
    return next((report["exit_code"] for report in reports if report["exit_code"]), 0)


def checked_separator(
    options: argparse.Namespace, output: OutputSettings | None = None
) -> tuple[AudioStemSeparator, SeparationSettings]:
    """Make the separator and the settings that were asked for, and check them."""
    settings = SeparationSettings(**passed(SeparationSettings, options))
    separator = AudioStemSeparator(**passed(AudioStemSeparator, options))
    separator.check(settings, output)
    return separator, settings


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
) -> dict[str, Any]:
    """Separate a song and report on it; the other songs have their turn if it fails."""
    try:
        if os.path.isdir(path):
            find_recordings(path)  # It says so itself where the folder cannot be listed.
            raise AudioError(
                f"{str(path)!r} is a folder without audio files. Name a file, or another folder.",
                path,
            )
        with progress_bar(options, path.name) as bar:
            result = separator.separate_file(
                path, options.out, settings=settings, output=output, progress=bar
            )
    except Exception as error:  # noqa: BLE001
        return {"input": str(path), **tell(error, options)}
    if not options.quiet:
        _print(result, options)
    return {
        "input": str(path),
        "stems": {name: str(stem) for name, stem in result.stems.items()},
        "manifest": str(result.manifest_path),
        "exit_code": 0,
        "run": result.manifest,
    }


def _print(result: SeparationResult, options: argparse.Namespace) -> None:
    for change in result.run.changes:
        print(f"stemlab: note: {printable(change)}", file=sys.stderr)
    if options.json:
        return
    paths = [*result.stems.values()]
    names = " ".join(map(str, paths))
    if len(paths) > 1 and len({path.parent for path in paths}) == 1:
        names = f"{paths[0].parent}{os.sep}{{{','.join(path.name for path in paths)}}}"
    cost = result.run.cost
    speed = "" if cost.rtf is None else f", RTF {cost.rtf:.2f}"
    done = "finished already" if result.was_cached else f"{cost.wall_seconds:.1f} s{speed}"
    print(f"{printable(names)}  {done}")
