"""Convert a pickle of weights to safetensors; a script that runs in a process of its own.

It reads the pickle, whose digest was checked, from standard input. To standard output it writes the
length of a JSON report (8 bytes, big-endian), the report, and the safetensors file. If it refuses
the pickle, it says why on standard error and exits with code 3. It writes no file.

The arguments are the classes of networks that the pickle may name. Nothing of stemlab or Demucs is
imported: an empty stand-in takes the place of each class, and not even objects of it can be made.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from fractions import Fraction
from typing import Any, NoReturn

REFUSED = 3
CPU_SECONDS = 120
# Memory beyond up to five copies of the file.
SPARE_BYTES = 1 << 29
# Everything but the numbers of the tensors; Demucs' networks take some 50 kB.
MOST_PROGRAM_BYTES = 1 << 20
MOST_REPORT_BYTES = 1 << 18
MOST_ARGUMENTS = 1000


class RefusedError(Exception):
    """The content is not what it should be."""


class _StandIn:
    def __new__(cls, *arguments: object, **options: object) -> NoReturn:
        raise pickle.UnpicklingError("it makes an object of a network's class")


def _small_fraction(*parts: object) -> Fraction:
    """Make a fraction, which older Pythons pickle as text and newer ones as two numbers."""
    text = "/".join(map(str, parts))
    if not re.fullmatch(r"\d{1,9}(/[1-9]\d{0,8})?", text):
        raise pickle.UnpicklingError("it holds a fraction that is not plain")
    return Fraction(text)


def main(class_names: Sequence[str]) -> int:
    """Convert the pickle on standard input."""
    stand_ins = {type(name, (_StandIn,), {}): name for name in class_names}
    content = sys.stdin.buffer.read()
    # Imported before the limits are set: it is trusted, and takes memory of its own.
    import torch
    from safetensors.torch import save

    torch.set_num_threads(1)
    _limit_process(5 * len(content) + SPARE_BYTES)
    warnings.simplefilter("ignore")
    try:
        loaded = _load(torch, content, stand_ins)
        report, state = _parts(loaded, stand_ins)
        weights = save(_tensors(torch, state, len(content)))
    except RefusedError as error:
        sys.stderr.write(str(error))
        return REFUSED
    except MemoryError:
        sys.stderr.write("it takes more memory than allowed")
        return REFUSED
    # Whatever happens, the content caused it.
    except Exception as error:  # noqa: BLE001
        sys.stderr.write(f"it is malformed ({type(error).__name__}: {_one_line(error)})")
        return REFUSED
    sys.stdout.buffer.write(struct.pack(">Q", len(report)) + report)
    sys.stdout.buffer.write(weights)
    sys.stdout.flush()
    return 0


def _limit_process(more_bytes: int) -> None:
    """Limit memory, processor time, files and processes, where the system can."""
    try:
        import resource
    except ImportError:  # Windows: the caller's clock is the only limit.
        return
    limits = {"RLIMIT_CPU": CPU_SECONDS, "RLIMIT_FSIZE": 0, "RLIMIT_CORE": 0, "RLIMIT_NPROC": 0}
    with suppress(OSError):
        with open("/proc/self/statm", encoding="ascii") as facts:
            pages = int(facts.read().split()[0])
        limits["RLIMIT_AS"] = pages * resource.getpagesize() + more_bytes
    for name, most in limits.items():
        with suppress(AttributeError, ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (most, most))


def _load(torch: Any, content: bytes, stand_ins: Mapping[type, str]) -> Any:
    try:
        if not content.startswith(b"PK\x03\x04"):  # Else torch would try its older formats.
            raise zipfile.BadZipFile
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            records = archive.infolist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, OverflowError) as error:
        raise RefusedError("it is not of the form that torch.save writes") from error
    claimed = sum(record.file_size for record in records)
    program = sum(record.file_size for record in records if "/data/" not in record.filename)
    if program > MOST_PROGRAM_BYTES:
        raise RefusedError(f"it has {program} bytes besides its tensors")
    if any(record.filename.endswith("/constants.pkl") for record in records):
        raise RefusedError("it is a program for TorchScript")
    if claimed > len(content):
        raise RefusedError(f"it claims {claimed} bytes in a file of {len(content)}")
    allowed = [*stand_ins.items(), (_small_fraction, "fractions.Fraction")]
    try:
        with torch.serialization.safe_globals(allowed):
            return torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        reason = f"it names {named[1]}, which is not allowed" if named else _one_line(error)
        raise RefusedError(f"its pickle is refused: {reason}") from error


def _one_line(error: Exception) -> str:
    """Get an error's message without PyTorch's advice to switch the checks off."""
    said = str(error).split("WeightsUnpickler error: ")[-1].strip().partition("\n")[0]
    return said[:200]


def _parts(loaded: Any, stand_ins: Mapping[type, str]) -> tuple[bytes, dict[Any, Any]]:
    """Split a checkpoint into a JSON report on its network and its tensors."""
    if not isinstance(loaded, dict):
        raise RefusedError(f"it holds a {type(loaded).__name__}, not a table of tensors")
    facts: dict[str, Any] = {}
    state: Any = loaded
    if "klass" in loaded or "state" in loaded:
        missing = {"klass", "args", "kwargs", "state"} - loaded.keys()
        if missing:
            raise RefusedError(f"it is a Demucs package without {', '.join(sorted(missing))}")
        klass = loaded["klass"]
        if not isinstance(klass, type) or klass not in stand_ins:
            raise RefusedError("its class is not a network that stemlab knows")
        facts = {
            "klass": stand_ins[klass],
            "args": _plain(loaded["args"], room := iter(range(MOST_ARGUMENTS))),
            "kwargs": _plain(loaded["kwargs"], room),
        }
        if not isinstance(facts["args"], list) or not isinstance(facts["kwargs"], dict):
            raise RefusedError("its arguments are not a list and a table")
        state = loaded["state"]
        if isinstance(state, dict) and "__quantized" in state:
            raise RefusedError("its weights are packed by DiffQ, which stemlab does not read")
    if not isinstance(state, dict) or not state:
        raise RefusedError("it does not hold a table of tensors")
    report = json.dumps(facts, allow_nan=False).encode()
    if len(report) > MOST_REPORT_BYTES:
        raise RefusedError(f"its arguments take {len(report)} bytes")
    return report, state


def _plain(value: Any, room: Iterator[int]) -> Any:
    """Copy plain values; lists that contain each other run out of room."""
    if next(room, None) is None:
        raise RefusedError(f"its arguments hold more than {MOST_ARGUMENTS} values")
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, Fraction):
        return float(value)
    if isinstance(value, (list, tuple)):
        return [_plain(item, room) for item in value]
    if isinstance(value, dict) and all(isinstance(item, str) for item in value):
        return {name: _plain(item, room) for name, item in dict.items(value)}
    raise RefusedError(f"its arguments hold a {type(value).__name__}")


def _tensors(torch: Any, state: dict[Any, Any], most_bytes: int) -> dict[str, Any]:
    floats = (torch.float16, torch.bfloat16, torch.float32)
    tensors, total = {}, 0
    # A pickle can replace methods of a table or tensor, such as `items` or `numel`. Those of the
    # class are called here, and `detach` returns a tensor without replacements.
    for name, value in dict.items(state):
        if not isinstance(name, str):
            raise RefusedError(f"{str(name)[:80]} is the name of a tensor, but not text")
        if type(value) not in (torch.Tensor, torch.nn.Parameter):
            raise RefusedError(f"{name[:80]!r} is a {type(value).__name__}, not a tensor")
        tensor = torch.Tensor.detach(value)
        if tensor.layout is not torch.strided or tensor.is_nested or tensor.device.type != "cpu":
            raise RefusedError(f"{name[:80]!r} is not a plain tensor")
        if tensor.dtype not in floats:
            raise RefusedError(f"{name[:80]!r} holds {tensor.dtype}, not 16- or 32-bit floats")
        total += tensor.numel() * tensor.element_size()
        if total > most_bytes:
            raise RefusedError(f"its tensors claim {total} bytes in a file of {most_bytes}")
        # A copy, because safetensors takes no tensors that share memory.
        tensors[name] = tensor.clone().contiguous()
    return tensors


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
