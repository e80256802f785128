"""What can be typed. Nothing heavy is imported here: ``stemlab --help`` must be quick."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

from stemlab._threads import share_cores
from stemlab._version import __version__

__all__ = ["add_settings", "make_parser"]

_EXIT_CODES = (
    "Exit codes: 0 done, 1 a bug of ours, 2 bad usage or parameter, 3 unreadable audio, 4 model "
    "missing or refused, 5 out of memory, 6 cannot write, 130 interrupted."
)


# Modules whose commands run networks; importing them loads PyTorch.
_SEPARATING = ("analyze", "demo", "plan", "replay", "separate", "sweep")


class _Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.color = False  # From Python 3.14 on, help would hold control characters.

    def error(self, message: str) -> NoReturn:
        print(f"stemlab: {message}. See `{self.prog} --help`.", file=sys.stderr)
        raise SystemExit(2)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = _Parser(
        prog="stemlab",
        description="Take recorded music apart on your own machine.",
        epilog=_EXIT_CODES,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"stemlab {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_separate,
        _add_demo,
        _add_replay,
        _add_analyze,
        _add_plan,
        _add_sweep,
        _add_figures,
        _add_compare,
        _add_lab,
        _add_cache,
        _add_models,
        _add_info,
    ):
        add(commands)
    return parser


_Commands = argparse._SubParsersAction  # argparse has no public name for it
_Options = argparse._ActionsContainer  # nor for what parsers and their groups have in common


def _command(
    commands: _Commands[_Parser], name: str, module: str, summary: str, function: str = "run"
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name, help=summary, description=summary, epilog=_EXIT_CODES, allow_abbrev=False
    )
    parser.add_argument("--json", action="store_true", help="print the result as JSON")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    loudness = parser.add_mutually_exclusive_group()
    loudness.add_argument("-v", "--verbose", action="store_true", help="say more")
    loudness.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
    parser.set_defaults(run=_later(module, function))
    return parser


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """Import a command's module only when the command runs."""

    def run(options: argparse.Namespace) -> int:
        if module in _SEPARATING:
            share_cores()
        code: int = getattr(import_module(f"stemlab.cli.{module}"), function)(options)
        return code

    return run


def _add_device(parser: _Options, default: str | None) -> None:
    parser.add_argument(
        "--device",
        default=default,
        metavar="D",
        help="auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:1 or mps "
        f"(default: {default or 'the recorded one'})",
    )


def add_settings(parser: _Options) -> None:
    """Add the options that decide how a song is separated."""
    add = parser.add_argument
    _add_model(parser)
    add("--segment", type=float, metavar="S", help="seconds (default: the model's own)")
    add("--overlap", type=float, metavar="F", help="in [0, 1) (default: 0.25)")
    add("--shifts", type=int, metavar="N", help="random time shifts averaged (0)")
    add("--seed", type=int, metavar="N", help="decides the shifts (0)")
    add(
        "--no-pad",
        action="store_true",
        help="do not pad short segments to the model's training length: saves time and memory, "
        "changes the output",
    )
    add(
        "--skip-covered-tail",
        action="store_true",
        help="leave out a last segment that holds nothing new: changes the last moments",
    )
    _add_where(parser)


def _add_model(parser: _Options) -> None:
    parser.add_argument(
        "--model", default="stemlab-mini", metavar="M", help="name, or folder with a manifest"
    )


def _add_where(parser: _Options) -> None:
    parser.add_argument(
        "--batch-size", type=int, default=1, metavar="N", help="segments per call (1)"
    )
    _add_device(parser, "auto")
    parser.add_argument(
        "--sources", metavar="A,B", help="only these stems, for instance vocals,drums"
    )


def _add_separate(commands: _Commands[_Parser]) -> None:
    parser = _command(commands, "separate", "separate", "Separate songs into stems.")
    add = parser.add_argument
    add("songs", nargs="+", metavar="SONG_OR_FOLDER", help="audio files, or folders of them")
    add("--out", default="stems", metavar="DIR", help="target folder (default: stems)")
    add_settings(parser)
    add("--two-stems", metavar="STEM", help="write this stem and no_STEM, the rest of the mixture")
    add("--format", default="wav", metavar="F", help="wav, flac, mp3 or ogg (default: wav)")
    add("--bits", type=int, metavar="N", help="16, 24, or 32 for float WAV (the default)")
    add(
        "--clip",
        default="rescale",
        metavar="HOW",
        help="samples beyond full scale: rescale (one gain for all stems) or clamp",
    )
    add(
        "--filename",
        default="{song}/{source}.{ext}",
        metavar="TEMPLATE",
        help="with {song}, {source}, {model}, {ext} (default: {song}/{source}.{ext})",
    )
    add("--downmix", action="store_true", help="mix more than two channels down to stereo")
    add("--force", action="store_true", help="replace an earlier result of the same recording")
    add(
        "--memory-limit",
        metavar="SIZE",
        help="for instance 900MB or 2GB: fewer segments per call where they do not fit; refused "
        "where not even one does, with what would (CPU only)",
    )
    add(
        "--resume",
        action="store_true",
        help="go on where a run was cut off, and leave alone what has finished",
    )


def _add_demo(commands: _Commands[_Parser]) -> None:
    parser = _command(commands, "demo", "demo", "Separate the demo song and measure the result.")
    parser.add_argument(
        "--out", default="demo-output", metavar="DIR", help="target folder (default: demo-output)"
    )
    _add_device(parser, "auto")


def _add_replay(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands, "replay", "replay", "Repeat a recorded run: are the samples equal (0) or not (1)?"
    )
    parser.add_argument("manifest", metavar="RUN_JSON", help="run.json, or its folder")
    parser.add_argument("--input", metavar="SONG", help="the recording, if it was moved")
    _add_device(parser, None)


def _add_analyze(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands,
        "analyze",
        "analyze",
        "Report loudness, tempo and spectrum of a song, as JSON and a picture; of its stems too.",
    )
    add = parser.add_argument
    add("song", metavar="SONG", help="audio file")
    add(
        "--separate-stems",
        action="store_true",
        help="report on each stem too: its loudness, its share of the energy, when it plays",
    )
    add(
        "--out",
        default="analysis",
        metavar="DIR",
        help="gets SONG/report.json and SONG/report.png, in place of earlier ones "
        "(default: analysis)",
    )
    add("--downmix", action="store_true", help="mix more than two channels down to stereo")
    add_settings(parser.add_argument_group("how stems are made, only with --separate-stems"))


def _add_plan(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands, "plan", "plan", "Say what a separation would compute and cost, without it."
    )
    parser.add_argument("song", metavar="SONG", help="audio file")
    add_settings(parser)


def _add_sweep(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands, "sweep", "sweep", "Measure what each setting costs and buys, and recommend one."
    )
    add = parser.add_argument
    add("song", metavar="SONG", help="audio file")
    _add_model(parser)
    add("--models", metavar="A,B", help="several models, in place of --model")
    add(
        "--segments",
        type=_numbers(float),
        metavar="S,S",
        help="in seconds, for instance 1,2,4,7.8 (default: the model's own, 1/2 and 1/4 of it)",
    )
    add(
        "--overlaps",
        type=_numbers(float),
        default=[0.0, 0.1, 0.25, 0.5],
        metavar="F,F",
        help="each in [0, 1) (default: 0,0.1,0.25,0.5)",
    )
    add("--shifts", type=_numbers(int), default=[0], metavar="N,N", help="time shifts (0)")
    add("--seed", type=int, default=0, metavar="N", help="decides the shifts (0)")
    add(
        "--pad",
        choices=("yes", "no", "both"),
        help="pad short segments to the model's training length (default: as the model was made)",
    )
    add("--references", metavar="DIR", help="folder of the true stems, named like the sources")
    add(
        "--excerpt",
        type=_seconds_or_all,
        default=30.0,
        metavar="S",
        help="seconds of the song that are used, or 'all' (30)",
    )
    add("--start", type=float, metavar="S", help="where they begin (default: in the middle)")
    add("--memory", action="store_true", help="measure each setting's peak memory: slower")
    add("--repeats", type=int, default=1, metavar="N", help="runs of each setting (1)")
    add("--bsseval", action="store_true", help="BSSEval v4 too: seconds per second of audio")
    add("--no-agreement", action="store_true", help="no long-context run to compare with")
    add("--keep-audio", action="store_true", help="keep the stems of each setting for listening")
    _add_where(parser)
    add("--scheduler", metavar="ADDRESS", help="run on a Dask cluster, such as tcp://host:8786")
    add("--out", metavar="FILE", help="write the table as .csv or .json")
    add("--figures", metavar="DIR", help="draw the results into this folder")
    add("--memory-limit", metavar="SIZE", help="recommend within this, such as 2GB")
    add("--max-rtf", type=float, metavar="X", help="recommend within this, s per second of audio")
    add(
        "--tolerance",
        type=float,
        default=0.1,
        metavar="DB",
        help="SDR that may be given up for speed (0.1)",
    )
    add("--no-store", action="store_true", help="neither use nor keep stored results")
    add("--yes", action="store_true", help="do not ask before a long sweep")


def _add_figures(commands: _Commands[_Parser]) -> None:
    parser = _command(commands, "figures", "figures", "Draw the results of a sweep from its file.")
    parser.add_argument("results", metavar="RESULTS", help="what `stemlab sweep --out` wrote")
    parser.add_argument(
        "--out", default="figures", metavar="DIR", help="target folder (default: figures)"
    )


def _add_compare(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands, "compare", "compare", "Draw spectrograms of recordings, and what sets them apart."
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="audio files")
    add("--reference", metavar="FILE", help="the one the others are compared with (the first)")
    add(
        "--out",
        default="comparison.png",
        metavar="PICTURE",
        help=".png, .svg or .pdf (default: comparison.png)",
    )
    add("--scale", choices=("log", "linear", "mel"), default="log", help="of frequencies (log)")
    add("--fft", type=int, default=2048, metavar="N", help="samples in a frame (2048)")
    add("--time", type=_numbers(float), metavar="A,B", help="only from A to B, in seconds")
    add("--freq", type=_numbers(float), metavar="A,B", help="only from A to B, in Hz")
    add("--range", type=_decibels, default=80.0, metavar="DB", help="darkest below loudest (80)")
    add("--seams", metavar="RUN_JSON", help="mark where the segments of this separation meet")
    add("--no-difference", action="store_true", help="draw the spectrograms alone")


def _add_lab(commands: _Commands[_Parser]) -> None:
    parser = _command(
        commands, "lab", "lab", "Copy the notebooks to a folder of yours and open JupyterLab there."
    )
    add = parser.add_argument
    add(
        "folder",
        nargs="?",
        default="stemlab-notebooks",
        metavar="FOLDER",
        help="never overwritten: a notebook of yours stays as it is (default: stemlab-notebooks)",
    )
    add("--voila", action="store_true", help="show each notebook as a page without code (Voilà)")
    add("--no-browser", action="store_true", help="only print the address")
    add("--port", type=int, metavar="N", help="of the server (the first free one from 8888)")
    add("--allow-root", action="store_true", help="run as root, which Jupyter refuses otherwise")


def _add_cache(commands: _Commands[_Parser]) -> None:
    summary = "See and clear what sweeps and estimates have stored."
    parser = commands.add_parser(
        "cache", help=summary, description=summary, epilog=_EXIT_CODES, allow_abbrev=False
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    _command(actions, "show", "cache", "Say what is stored, and where.", function="run_show")
    clear = _command(actions, "clear", "cache", "Remove what is stored.", function="run_clear")
    only = clear.add_mutually_exclusive_group()
    only.add_argument("--audio", action="store_true", help="only the stems kept for listening")
    only.add_argument("--results", action="store_true", help="only the figures")
    only.add_argument(
        "--stale", action="store_true", help="only figures that other versions of packages measured"
    )
    only.add_argument(
        "--calibrations", action="store_true", help="only how fast models are: measured anew"
    )


def _numbers(kind: type[float] | type[int]) -> Callable[[str], list[float]]:
    """Read numbers that are separated by commas."""

    def read(text: str) -> list[float]:
        try:
            return [kind(each) for each in text.split(",")]
        except ValueError:
            what = "whole numbers" if kind is int else "numbers"
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a list of {what} separated by commas"
            ) from None

    return read


def _decibels(text: str) -> float:
    try:
        level = float(text)
    except ValueError:
        level = float("nan")
    if not 0 < level < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of dB above 0")
    return level


def _seconds_or_all(text: str) -> float | None:
    if text == "all":
        return None
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither seconds nor 'all'") from None


def _add_models(commands: _Commands[_Parser]) -> None:
    summary = "See, add, verify and remove models."
    parser = commands.add_parser(
        "models", help=summary, description=summary, epilog=_EXIT_CODES, allow_abbrev=False
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        return _command(actions, name, "models", summary, function=f"run_{name}")

    action("list", "List the registered models.")
    show = action("show", "Tell all that is recorded of a model.")
    show.add_argument("name", metavar="NAME", help="registered name, or folder with a manifest")
    verify = action("verify", "Read the files of a model, or of all, and check them.")
    verify.add_argument("name", metavar="NAME", nargs="?", help="default: all that are installed")
    add = action("add", "Put a model into the models folder, verified.")
    add.add_argument("name", metavar="NAME", help="registered name; a new one for your own model")
    add.add_argument(
        "--from",
        dest="paths",
        nargs="+",
        metavar="FILE_OR_FOLDER",
        help="what you have: .safetensors or .th files, or folders to search for them",
    )
    add.add_argument(
        "--download", action="store_true", help="fetch the files from where they are published"
    )
    add.add_argument(
        "--sha256",
        action="append",
        metavar="DIGEST",
        help="64 hex digits that you vouch for: needed for your own model, and where a digest is "
        "known from one source only; may be given more than once",
    )
    add.add_argument("--license", metavar="TEXT", help="terms of the weights of your own model")
    remove = action("remove", "Take a model out of the models folder.")
    remove.add_argument("name", metavar="NAME", help="registered name")


def _add_info(commands: _Commands[_Parser]) -> None:
    _command(
        commands,
        "info",
        "info",
        "Print versions, devices, models and codecs: paste it into a bug report.",
    )
