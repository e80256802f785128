"""``stemlab sweep``: measure settings and recommend one."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stemlab._text import printable
from stemlab.cli._shared import aligned, passed, terminal_bar
from stemlab.cli.figures import draw
from stemlab.cost import duration
from stemlab.errors import MissingDependencyError, OutputError, ParameterError, SeparationError
from stemlab.metrics import FIGURES
from stemlab.metrics.figures import by_setting
from stemlab.sweeps import (
    SETTING_COLUMNS,
    Recommendation,
    Sweep,
    SweepEstimate,
    SweepProgress,
    SweepSetting,
    plan_sweep,
    recommend,
    write_sweep,
)
from stemlab.sweeps.recommendation import check_limits
from stemlab.sweeps.table import check_table_path, plain_rows

if TYPE_CHECKING:
    import pandas as pd

# A longer sweep asks before it starts.
_LONG_SECONDS = 600
_CONNECT_SECONDS = 10
_MEMORY = "peak_memory_bytes"
# Figures in the table. The optional ones are left out if none was measured.
_SHOWN = ("calls", "wasted_share", "rtf", _MEMORY, "sdr_db", "agreement_db", "seam_db")
_OPTIONAL = (_MEMORY, "sdr_db", "agreement_db")
_PADDED = {"yes": [True], "no": [False], "both": [True, False]}


def run(options: argparse.Namespace) -> int:
    """Sweep, print the table and the recommendation, write files."""
    # Whatever is wrong is refused before anything is measured.
    check_limits(**passed(check_limits, options))
    if options.memory_limit is not None and not options.memory:
        raise ParameterError(
            f"--memory-limit {options.memory_limit} needs measured memory. Add --memory."
        )
    if options.out is not None:
        check_table_path(options.out)
    if options.figures is not None and os.path.isfile(options.figures):
        raise OutputError(f"{options.figures!r} is a file. Name a folder for the figures.")
    with _executor(options.scheduler) as executor:
        sweep = plan_sweep(
            options.song,
            **passed(plan_sweep, options),
            padded=_PADDED.get(options.pad),
            executor=executor,
        )
        estimate = sweep.estimate()
        if not (options.quiet or options.json):
            print(f"{printable(Path(options.song).name)}: {estimate.in_words(sweep.device)}")
        _confirm(estimate, options)
        try:
            with _bar(options) as progress:
                results = sweep.run(progress=progress)
        except KeyboardInterrupt:
            measured = sweep.table()["computation"].nunique()
            if options.store and measured:
                print(
                    f"stemlab: {measured} measured settings are kept; the same command goes on "
                    "from there.",
                    file=sys.stderr,
                )
            raise
        folders = _kept_folders(sweep) if options.keep_audio else []
    return _report(results, folders, options)


@contextmanager
def _executor(scheduler: str | None) -> Iterator[Executor | None]:
    if scheduler is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise MissingDependencyError(
            "--scheduler needs Dask, which is not installed. `pip install 'stemlab[distributed]'`."
        ) from error
    try:
        client: Any = Client(scheduler, timeout=_CONNECT_SECONDS)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ParameterError(
            f"--scheduler {scheduler} cannot be reached: {error}. Start one with `dask scheduler`, "
            "and workers with `dask worker ADDRESS`."
        ) from error
    with client:
        yield client.get_executor()


def _confirm(estimate: SweepEstimate, options: argparse.Namespace) -> None:
    if options.yes or estimate.seconds <= _LONG_SECONDS:
        return
    long = f"this sweep takes about {duration(estimate.seconds)}"
    if not sys.stdin.isatty():
        raise ParameterError(
            f"{long}. Pass --yes if it may, or fewer values, or a shorter --excerpt."
        )
    print(f"stemlab: {long}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise ParameterError("nothing was measured. Pass fewer values, or a shorter --excerpt.")


def _report(
    results: pd.DataFrame,
    folders: list[tuple[SweepSetting, str | None]],
    options: argparse.Namespace,
) -> int:
    failed = results[results["error"] != ""]
    for row in failed.to_dict(orient="records"):
        print(
            f"stemlab: segment {row['segment_seconds']:g}, overlap {row['overlap']:g}, shifts "
            f"{row['shifts']} of {printable(row['model'])}: {printable(row['error'])}",
            file=sys.stderr,
        )
    answer, refusal = None, None
    try:
        answer = recommend(results, **passed(recommend, options))
    except ParameterError as error:
        refusal = error
    if not (options.json or options.quiet):
        print(_table(results, answer))
        if answer is not None:
            print(f"\nRecommended: {printable(str(answer.setting))}.\n{answer.reason}")
            command = _command(answer, options)
            print(f"  {printable(command)}" if command else "No command can name this model.")
    written = []
    if options.out is not None:
        write_sweep(results, options.out)
        written.append(options.out)
    if options.figures is not None and (results["error"] == "").any():
        written += draw(results, Path(options.figures), answer)
    if options.json:
        recommendation = answer and {
            "setting": asdict(answer.setting),
            "reason": answer.reason,
            "command": _command(answer, options),
            "pareto": [asdict(setting) for setting in answer.front],
        }
        facts = {
            "recommendation": recommendation,
            "written": written,
            "manifest": results.attrs["manifest"],
            "rows": plain_rows(results),
        }
        if options.keep_audio:
            facts["stems"] = [{"setting": asdict(used), "folder": path} for used, path in folders]
        print(json.dumps(facts, indent=2))
    elif not options.quiet:
        for setting, folder in folders:
            place = folder or "not kept, as the cache has no room for them"
            print(f"Stems of {printable(str(setting))}: {place}")
        for path in written:
            print(f"Written: {path}")
    # Settings that ran and failed; an impossible one never ran.
    broken = failed[failed["computation"] != ""]
    if len(broken):
        raise SeparationError(
            f"{len(broken)} of {len(results.drop_duplicates([*SETTING_COLUMNS]))} settings failed, "
            "see above; the others are complete. The same command tries them again."
        )
    if refusal is not None and (options.memory_limit or options.max_rtf):
        raise refusal
    if refusal is not None and not options.quiet:
        print(f"stemlab: note: nothing is recommended: {refusal}", file=sys.stderr)
    return 0


def _command(answer: Recommendation, options: argparse.Namespace) -> str | None:
    """Return the command of the recommendation, with the options of this one that it needs."""
    if answer.command is None:
        return None
    more = ["--seed", str(options.seed)] if answer.setting.shifts and options.seed else []
    more += ["--sources", ",".join(options.sources)] if options.sources is not None else []
    more += ["--device", options.device] if options.device != "auto" else []
    more += ["--batch-size", str(options.batch_size)] if options.batch_size != 1 else []
    # A name that begins with a hyphen would be taken for an option.
    song = os.path.join(os.curdir, options.song) if options.song[:1] == "-" else options.song
    command = answer.command.replace("SONG", shlex.quote(song), 1)
    return " ".join([command, *map(shlex.quote, more)])


def _table(results: pd.DataFrame, answer: Recommendation | None) -> str:
    """Write one line for each setting: costs, and means over the sources."""
    settings = by_setting(results)
    shown = [name for name in _SHOWN if name not in _OPTIONAL or settings[name].notna().any()]
    several = settings["model"].nunique() > 1
    titles = ["model"] * several + ["segment", "overlap", "shifts", "padded"]
    rows = [titles + [FIGURES[name].heading or FIGURES[name].label for name in shown]]
    marks = [""]
    for row in settings.to_dict(orient="records"):
        setting = SweepSetting.of_row(row)
        cells = [printable(setting.model)] * several
        cells += [f"{setting.segment_seconds:g} s", f"{setting.overlap:g}", f"{setting.shifts}"]
        cells += ["yes" if setting.padded else "no"]
        if row["error"]:
            cells.append("failed")
        else:
            cells += [
                "none" if isnan(row[name]) else FIGURES[name].text(row[name]) for name in shown
            ]
        rows.append(cells)
        recommended = answer is not None and setting == answer.setting
        fronts = answer is not None and setting in answer.front
        marks.append("  <- recommended" if recommended else "  *" * fronts)
    table = "\n".join(f"{row}{mark}" for row, mark in zip(aligned(rows), marks, strict=True))
    better = "as fast, as small and as good" if _MEMORY in shown else "as fast and as good"
    return f"{table}\n* no other is {better} (SDR, agreement and seams are means over the stems)"


def _kept_folders(sweep: Sweep) -> list[tuple[SweepSetting, str | None]]:
    """Return the folder of the stems of each setting; None where they are not kept."""
    folders = []
    for setting in sweep.settings:
        stems = sweep.kept_stems(setting)
        folders.append((setting, str(next(iter(stems.values())).parent) if stems else None))
    return folders


@contextmanager
def _bar(options: argparse.Namespace) -> Iterator[Callable[[SweepProgress], None]]:
    """Show a bar that moves by the work that is done."""
    bar_format = "{percentage:3.0f} % |{bar:20}| {desc}"
    with terminal_bar(options, total=100, bar_format=bar_format) as bar:

        def move(event: SweepProgress) -> None:
            seconds = event.remaining_seconds
            left = "" if seconds is None else f", {duration(seconds)} left"
            bar.set_description_str(f"{event.done}/{event.total} {event.running}{left}")
            bar.update(max(100 * event.share - bar.n, 0))

        yield move
