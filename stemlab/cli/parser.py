"""What can be typed. Nothing heavy is imported here: ``stemlab --help`` must be quick.

An option that only passes a value on stores it under the name of the argument that gets it; see
`stemlab.cli._shared.passed`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any, NoReturn

from stemlab._defaults import DEFAULT_OVERLAP
from stemlab._threads import share_cores
from stemlab._version import __version__

_EXIT_CODES = (
    "Exit codes: 0 done, 1 a bug of ours, 2 bad usage or parameter, 3 unreadable audio, 4 model "
    "missing or refused, 5 out of memory, 6 cannot write, 130 interrupted."
)
# Modules whose commands run networks; importing them loads PyTorch.
_SEPARATING = ("analyze", "demo", "plan", "replay", "separate", "sweep")
_DEVICES = "auto (CUDA, then MPS, then CPU), cpu, cuda, cuda:1 or mps"

_Options = argparse._ActionsContainer  # Parsers and their groups; argparse has no public name.
_AddOptions = Callable[[_Options], None]
# In the order of the help; those of two words are actions of a group.
_COMMANDS: dict[str, tuple[str, _AddOptions | None]] = {}
_GROUPS = {
    "cache": "See and clear what sweeps and estimates have stored.",
    "models": "See, add, verify and remove models.",
}


class _Parser(argparse.ArgumentParser):
    """An argument parser that complains in one line."""

    def __init__(self, **options: Any) -> None:
        super().__init__(epilog=_EXIT_CODES, allow_abbrev=False, **options)
        self.color = False  # From Python 3.14 on, help would hold control characters.

    def error(self, message: str) -> NoReturn:
        print(f"stemlab: {message}. See `{self.prog} --help`.", file=sys.stderr)
        raise SystemExit(2)


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = _Parser(prog="stemlab", description="Take recorded music apart on your own machine.")
    parser.add_argument("--version", action="version", version=f"stemlab {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    places = {"": commands}
    for name, (summary, add_options) in _COMMANDS.items():
        group, _, last = name.rpartition(" ")
        if group not in places:
            about = _GROUPS[group]
            actions = commands.add_parser(group, help=about, description=about)
            places[group] = actions.add_subparsers(title="actions", metavar="ACTION", required=True)
        command = places[group].add_parser(last, help=summary, description=summary)
        command.add_argument("--json", action="store_true", help="print the result as JSON")
        command.add_argument("--debug", action="store_true", help="show the traceback of an error")
        loudness = command.add_mutually_exclusive_group()
        loudness.add_argument("-v", "--verbose", action="store_true", help="say more")
        loudness.add_argument("-q", "--quiet", action="store_true", help="say nothing but errors")
        if add_options is not None:
            add_options(command)
        run = _later(group or last, f"run_{last}" if group else "run")
        command.set_defaults(run=run)
    return parser


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """Import a command's module only when the command runs."""

    def run(options: argparse.Namespace) -> int:
        if module in _SEPARATING:
            share_cores()
        code: int = getattr(import_module(f"stemlab.cli.{module}"), function)(options)
        return code

    return run


def _command(name: str, summary: str) -> Callable[[_AddOptions], _AddOptions]:
    """Make a command of a function that adds its options."""

    def register(add_options: _AddOptions) -> _AddOptions:
        _COMMANDS[name] = (summary, add_options)
        return add_options

    return register


def _value(
    to: _Options, name: str, metavar: str, text: str, default: Any = None, **more: Any
) -> None:
    """Add an option that has a value, of the type of its default; the help ends with that."""
    if default is not None:
        more.setdefault("type", type(default))
        text += " (default: %(default)s)"
    to.add_argument(name, metavar=metavar, help=text, default=default, **more)


def _flag(to: _Options, name: str, text: str, *, turns_off: str | None = None) -> None:
    """Add an option without a value; `turns_off` names the argument that it makes False."""
    if turns_off is None:
        to.add_argument(name, action="store_true", help=text)
    else:
        to.add_argument(name, action="store_false", dest=turns_off, help=text)


# ---------------------------------------------------------------- options of several commands


def add_settings(to: _Options) -> None:
    """Add the options that decide how a song is separated."""
    _add_model(to)
    length = "seconds (default: the model's own)"
    _value(to, "--segment", "S", length, type=float, dest="segment_seconds")
    _value(to, "--overlap", "F", "in [0, 1)", DEFAULT_OVERLAP)
    _value(to, "--shifts", "N", "random time shifts averaged", 0)
    _value(to, "--seed", "N", "decides the shifts", 0)
    _flag(
        to,
        "--no-pad",
        "do not pad short segments to the model's training length: saves time and memory, changes "
        "the output",
        turns_off="pad_to_training_segment",
    )
    covered = "leave out a last segment that holds nothing new: changes the last moments"
    _flag(to, "--skip-covered-tail", covered)
    _add_where(to)


def _add_model(to: _Options) -> None:
    _value(to, "--model", "M", "name, or folder with a manifest", "stemlab-mini")


def _add_where(to: _Options) -> None:
    _value(to, "--batch-size", "N", "segments per call", 1)
    _add_device(to)
    _value(to, "--sources", "A,B", "only these stems, for instance vocals,drums", type=_names)


def _add_device(to: _Options) -> None:
    _value(to, "--device", "D", _DEVICES, "auto")


def _add_downmix(to: _Options) -> None:
    _flag(to, "--downmix", "mix more than two channels down to stereo")


# ---------------------------------------------------------------- options of each command


@_command("separate", "Separate songs into stems.")
def _separate(to: _Options) -> None:
    _value(to, "songs", "SONG_OR_FOLDER", "audio files, or folders of them", nargs="+")
    _value(to, "--out", "DIR", "target folder", "stems")
    add_settings(to)
    _value(to, "--two-stems", "STEM", "write this stem and no_STEM, the rest of the mixture")
    _value(to, "--format", "F", "wav, flac, mp3 or ogg", "wav")
    _value(to, "--bits", "N", "16, 24, or 32 for float WAV (the default)", type=int)
    beyond = "samples beyond full scale: rescale (one gain for all stems) or clamp"
    _value(to, "--clip", "HOW", beyond, "rescale")
    fields = "with {song}, {source}, {model}, {ext}"
    _value(to, "--filename", "TEMPLATE", fields, "{song}/{source}.{ext}")
    _add_downmix(to)
    _flag(to, "--force", "replace an earlier result of the same recording")
    _value(
        to,
        "--memory-limit",
        "SIZE",
        "for instance 900MB or 2GB: fewer segments per call where they do not fit; refused where "
        "not even one does, with what would (CPU only)",
    )
    _flag(to, "--resume", "go on where a run was cut off, and leave alone what has finished")


@_command("demo", "Separate the demo song and measure the result.")
def _demo(to: _Options) -> None:
    _value(to, "--out", "DIR", "target folder", "demo-output")
    _add_device(to)


@_command("replay", "Repeat a recorded run: are the samples equal (0) or not (1)?")
def _replay(to: _Options) -> None:
    _value(to, "manifest_path", "RUN_JSON", "run.json, or its folder")
    _value(to, "--input", "SONG", "the recording, if it was moved", dest="input_path")
    _value(to, "--device", "D", f"{_DEVICES} (default: the recorded one)")


@_command(
    "analyze",
    "Report loudness, tempo and spectrum of a song, as JSON and a picture; of its stems too.",
)
def _analyze(to: _Options) -> None:
    _value(to, "song", "SONG", "audio file")
    levels = "report on each stem too: its loudness, its share of the energy, when it plays"
    _flag(to, "--separate-stems", levels)
    files = "gets SONG/report.json and SONG/report.png, in place of earlier ones"
    _value(to, "--out", "DIR", files, "analysis")
    _add_downmix(to)
    add_settings(to.add_argument_group("how stems are made, only with --separate-stems"))


@_command("plan", "Say what a separation would compute and cost, without it.")
def _plan(to: _Options) -> None:
    _value(to, "song", "SONG", "audio file")
    add_settings(to)


@_command("sweep", "Measure what each setting costs and buys, and recommend one.")
def _sweep(to: _Options) -> None:
    _value(to, "song", "SONG", "audio file")
    _add_model(to)
    _value(to, "--models", "A,B", "several models, in place of --model", type=_names)
    lengths = "in seconds, for instance 1,2,4,7.8 (default: the model's own, 1/2 and 1/4 of it)"
    _value(to, "--segments", "S,S", lengths, type=_numbers(float))
    _value(to, "--overlaps", "F,F", "each in [0, 1)", "0,0.1,0.25,0.5", type=_numbers(float))
    _value(to, "--shifts", "N,N", "time shifts", "0", type=_numbers(int))
    _value(to, "--seed", "N", "decides the shifts", 0)
    pad = "pad short segments to the model's training length (default: as the model was made)"
    to.add_argument("--pad", choices=("yes", "no", "both"), help=pad)
    _value(to, "--references", "DIR", "folder of the true stems, named like the sources")
    used = "seconds of the song that are used, or 'all'"
    _value(to, "--excerpt", "S", used, "30", type=_seconds_or_all, dest="excerpt_seconds")
    begin = "where they begin (default: in the middle)"
    _value(to, "--start", "S", begin, type=float, dest="excerpt_start_seconds")
    _flag(to, "--memory", "measure each setting's peak memory: slower")
    _value(to, "--repeats", "N", "runs of each setting", 1)
    _flag(to, "--bsseval", "BSSEval v4 too: seconds per second of audio")
    _flag(to, "--no-agreement", "no long-context run to compare with", turns_off="agreement")
    _flag(to, "--keep-audio", "keep the stems of each setting for listening")
    _add_where(to)
    _value(to, "--scheduler", "ADDRESS", "run on a Dask cluster, such as tcp://host:8786")
    _value(to, "--out", "FILE", "write the table as .csv or .json")
    _value(to, "--figures", "DIR", "draw the results into this folder")
    _value(to, "--memory-limit", "SIZE", "recommend within this, such as 2GB")
    _value(to, "--max-rtf", "X", "recommend within this, s per second of audio", type=float)
    _value(to, "--tolerance", "DB", "SDR that may be given up for speed", 0.1, dest="tolerance_db")
    _flag(to, "--no-store", "neither use nor keep stored results", turns_off="store")
    _flag(to, "--yes", "do not ask before a long sweep")


@_command("figures", "Draw the results of a sweep from its file.")
def _figures(to: _Options) -> None:
    _value(to, "results", "RESULTS", "what `stemlab sweep --out` wrote")
    _value(to, "--out", "DIR", "target folder", "figures")


@_command("compare", "Draw spectrograms of recordings, and what sets them apart.")
def _compare(to: _Options) -> None:
    _value(to, "files", "FILE", "audio files", nargs="+")
    _value(to, "--reference", "FILE", "the one the others are compared with (the first)")
    _value(to, "--out", "PICTURE", ".png, .svg or .pdf", "comparison.png")
    scales = "of frequencies (default: log)"
    to.add_argument("--scale", choices=("log", "linear", "mel"), default="log", help=scales)
    _value(to, "--fft", "N", "samples in a frame", 2048)
    _value(to, "--time", "A,B", "only from A to B, in seconds", type=_numbers(float))
    _value(to, "--freq", "A,B", "only from A to B, in Hz", type=_numbers(float))
    _value(to, "--range", "DB", "darkest below loudest", "80", type=_decibels)
    _value(to, "--seams", "RUN_JSON", "mark where the segments of this separation meet")
    _flag(to, "--no-difference", "draw the spectrograms alone")


@_command("lab", "Copy the notebooks to a folder of yours and open JupyterLab there.")
def _lab(to: _Options) -> None:
    kept = "never overwritten: a notebook of yours stays as it is"
    _value(to, "folder", "FOLDER", kept, "stemlab-notebooks", nargs="?")
    _flag(to, "--voila", "show each notebook as a page without code (Voilà)")
    _flag(to, "--no-browser", "only print the address")
    _value(to, "--port", "N", "of the server (the first free one from 8888)", type=int)
    _flag(to, "--allow-root", "run as root, which Jupyter refuses otherwise")


_COMMANDS["cache show"] = ("Say what is stored, and where.", None)


@_command("cache clear", "Remove what is stored.")
def _cache_clear(to: _Options) -> None:
    only = to.add_mutually_exclusive_group()
    _flag(only, "--audio", "only the stems kept for listening")
    _flag(only, "--results", "only the figures")
    _flag(only, "--stale", "only figures that other versions of packages measured")
    _flag(only, "--calibrations", "only how fast models are: measured anew")


_COMMANDS["models list"] = ("List the registered models.", None)


@_command("models show", "Tell all that is recorded of a model.")
def _models_show(to: _Options) -> None:
    _value(to, "name", "NAME", "registered name, or folder with a manifest")


@_command("models verify", "Read the files of a model, or of all, and check them.")
def _models_verify(to: _Options) -> None:
    _value(to, "name", "NAME", "default: all that are installed", nargs="?")


@_command("models add", "Put a model into the models folder, verified.")
def _models_add(to: _Options) -> None:
    _value(to, "name", "NAME", "registered name; a new one for your own model")
    have = "what you have: .safetensors or .th files, or folders to search for them"
    to.add_argument(
        "--from", dest="paths", nargs="+", default=(), metavar="FILE_OR_FOLDER", help=have
    )
    _flag(to, "--download", "fetch the files from where they are published")
    to.add_argument(
        "--sha256",
        action="append",
        default=[],
        metavar="DIGEST",
        help="64 hex digits that you vouch for: needed for your own model, and where a digest is "
        "known from one source only; may be given more than once",
    )
    terms = "terms of the weights of your own model"
    _value(to, "--license", "TEXT", terms, dest="weight_license")


@_command("models remove", "Take a model out of the models folder.")
def _models_remove(to: _Options) -> None:
    _value(to, "name", "NAME", "registered name")


_COMMANDS["info"] = (
    "Print versions, devices, models and codecs: paste it into a bug report.",
    None,
)


def _names(text: str) -> list[str]:
    return text.split(",")


def _numbers(kind: type[float] | type[int]) -> Callable[[str], list[float]]:
    """Read numbers that are separated by commas."""

    def read(text: str) -> list[float]:
        try:
            return [kind(number) for number in text.split(",")]
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
