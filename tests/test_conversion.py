"""Hostile pickles and safetensors: whatever they try, they are refused, in bounded memory and time.

Every pickle is run through the real converter, in a process with its real limits; one parent
imports PyTorch and forks a child for each, or this file would take minutes.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from collections import OrderedDict
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from demucs.apply import apply_model
from demucs.hdemucs import HDemucs
from demucs.htdemucs import HTDemucs
from hostile import cases
from model_files import hub_file, package, recorded
from safetensors.torch import load as load_safetensors
from safetensors.torch import save

from stemlab.cli import main
from stemlab.errors import ModelRefusedError
from stemlab.networks.loading import build_network, parse_network
from stemlab.provisioning import _pickles, _unpickle, add_model
from stemlab.provisioning._declared import declaration_of_package, declaration_of_safetensors
from stemlab.provisioning._pickles import convert
from stemlab.registry import NetworkEntry
from stemlab.separation import AudioStemSeparator

MOST_BYTES = 1_500_000_000
TENSOR = torch.arange(4.0)

_PARENT = """
import base64, io, json, os, sys, torch
from types import SimpleNamespace
from stemlab.provisioning import _unpickle

CLASS_NAMES = ["demucs.htdemucs.HTDemucs", "demucs.hdemucs.HDemucs"]
ACTS = ("os.exec", "os.fork", "os.posix_spawn", "os.remove", "os.rename", "os.system", "shutil",
        "socket", "subprocess")

def watch(event, arguments):
    if event.startswith(ACTS) or (event == "open" and set(str(arguments[1])) & set("wax+")):
        os.write(2, f"it acts: {event}".encode())
        os._exit(98)

for line in sys.stdin:
    name, content, _unpickle.CPU_SECONDS = json.loads(line)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            os.dup2(writer, 2)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            sys.stdin = SimpleNamespace(buffer=io.BytesIO(base64.b64decode(content)))
            sys.addaudithook(watch)
            code = _unpickle.main(CLASS_NAMES)
            sys.stderr.flush()
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader, "rb") as said:
        words = said.read().decode("utf-8", "replace")
    _, status, usage = os.wait4(child, 0)
    code = os.waitstatus_to_exitcode(status)
    print(json.dumps([name, code, words, usage.ru_maxrss * 1024, usage.ru_utime]), flush=True)
"""


class Call:
    """Pickled, it becomes a call when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


class State(Call):
    """Pickled, it becomes an object whose state is set when it is read."""

    def __reduce__(self) -> Any:
        return (*self.call, {"forward": "changed", "__class__": "x"})


def archive(program: bytes, **records: bytes) -> bytes:
    """What torch.save writes, around a pickle of our own."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in {"data.pkl": program, "version": b"3\n", **records}.items():
            file.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def pickled(value: Any) -> bytes:
    return archive(pickle.dumps(value, protocol=2))


def saved(value: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(value, buffer)
    return buffer.getvalue()


def demucs_package(**changes: Any) -> bytes:
    fields = {"klass": HTDemucs, "args": (), "kwargs": {}, "state": {"x": TENSOR}}
    return saved({**fields, **changes})


def named(module: str, name: str, *arguments: Any) -> bytes:
    """A call of something that need not exist here."""
    program = b"\x80\x02c" + f"{module}\n{name}\n".encode()
    return archive(program + pickle.dumps(arguments, protocol=2)[2:-1] + b"R.")


def tensor_program(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> bytes:
    """A tensor of four numbers that claims another shape."""
    honest = saved({"x": torch.arange(4.0)})
    with zipfile.ZipFile(io.BytesIO(honest)) as file:
        records = {each.partition("/")[2]: file.read(each) for each in file.namelist()}
    storage = ("storage", torch.FloatStorage, "0", "cpu", 4)

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing: Any) -> Any:
            return storage if thing is storage_mark else None

    storage_mark = object()
    rebuilt = Call(
        torch._utils._rebuild_tensor_v2, storage_mark, offset, size, stride, False, OrderedDict()
    )
    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({"x": rebuilt})
    records["data.pkl"] = buffer.getvalue()
    return archive(records.pop("data.pkl"), **records)


def nested(depth: int) -> bytes:
    return archive(b"\x80\x02" + b"]" * depth + b"a" * (depth - 1) + b".")


def laughs() -> bytes:
    """Lists of lists of lists, ten times each: ten thousand million at the end."""
    program = b"\x80\x02]q\x00"
    for level in range(1, 11):
        program += b"]q" + bytes([level]) + b"(" + (b"h" + bytes([level - 1])) * 10 + b"e"
    return archive(program + b".")


def laughing_arguments() -> bytes:
    """The same, where the lists have to be written out."""
    program = b"(]q\x00"
    for level in range(1, 31):
        program += b"]q" + bytes([level]) + b"(" + (b"h" + bytes([level - 1])) * 10 + b"e"
    return package_program(program + b"t")


def package_program(arguments: bytes) -> bytes:
    """A Demucs package whose keyword is what a program leaves behind."""

    def text(word: str) -> bytes:
        return b"X" + struct.pack("<I", len(word)) + word.encode()

    program = b"\x80\x02}(" + text("klass") + b"cdemucs.htdemucs\nHTDemucs\n" + text("args") + b")"
    program += text("kwargs") + b"}" + text("x") + arguments + b"s" + text("state") + b"}u."
    return archive(program)


def legacy(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def nested_tensor() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return saved({"x": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])})


def quantized_tensor() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return saved({"x": torch.quantize_per_tensor(TENSOR, 0.1, 0, torch.qint8)})


def with_record(content: bytes, name: str, value: bytes) -> bytes:
    """The archive with one record more, or another one."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        records = {each.partition("/")[2]: file.read(each) for each in file.namelist()}
    return archive(**{"program": records.pop("data.pkl"), **records, name: value})


def endless_size(content: bytes) -> bytes:
    """Say of the first record, as an archive beyond 4 GB does, that it holds 2 ** 62 bytes."""
    start = content.find(b"PK\x01\x02")
    end = content.find(b"PK\x05\x06")
    name, extra = struct.unpack_from("<HH", content, start + 28)
    cut = start + 46 + name
    field = struct.pack("<HHQ", 1, 8, 1 << 62)
    entry = bytearray(content[start:cut] + field + content[cut + extra :])
    entry[24:28] = b"\xff" * 4
    entry[30:32] = struct.pack("<H", len(field))
    grown = len(field) - extra
    ending = end - start + grown
    (directory,) = struct.unpack_from("<I", content, end + 12)
    entry[ending + 12 : ending + 16] = struct.pack("<I", directory + grown)
    return content[:start] + bytes(entry)


def deflated() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        file.writestr("archive/version", "3\n")
        file.writestr("archive/data/0", bytes(400_000_000))
    return buffer.getvalue()


def renamed(content: bytes, old: bytes, new: bytes) -> bytes:
    return content.replace(old, new)


def encrypted(content: bytes) -> bytes:
    """Say of every record that it is encrypted."""
    changed = bytearray(content)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        position = -1
        while (position := content.find(mark, position + 1)) >= 0:
            changed[position + offset] |= 1
    return bytes(changed)


def stretched() -> bytes:
    return saved({"x": torch.zeros(1).expand(10**9)})


def hostile(canary: str) -> dict[str, bytes]:
    """The attacks, by name; those that act would make the canary."""
    touch = f"touch {canary}"
    write = f"open({canary!r}, 'w')"
    opener = Call(open, canary, "w")
    good = demucs_package()
    attacks = {
        "os.system": pickled(Call(os.system, touch)),
        "posix.system": named("posix", "system", touch),
        "nt.system": named("nt", "system", touch),
        "Popen": pickled(Call(subprocess.Popen, ["touch", canary])),
        "eval": pickled(Call(eval, write)),
        "exec": pickled(Call(exec, write)),
        "open": pickled(opener),
        "getattr": pickled(Call(getattr, HTDemucs, "forward")),
        "import_module": pickled(Call(importlib.import_module, "antigravity")),
        "__import__": pickled(Call(__import__, "antigravity")),
        "torch.load": pickled(Call(torch.load, canary)),
        "torch.hub.load": named("torch.hub", "load", "a/b", "c"),
        "socket": named("socket", "create_connection", ("127.0.0.1", 9)),
        "numpy": named("numpy.core.multiarray", "_reconstruct", 1),
        "in a call": pickled(Call(Fraction, Call(os.system, touch))),
        "in a list": pickled([[[Call(os.system, touch)]]]),
        "in the arguments": demucs_package(args=(Call(os.system, touch),)),
        "in the keywords": demucs_package(kwargs={"channels": Call(eval, write)}),
        "in what nobody reads": demucs_package(training_args={"x": [opener]}),
        "in the state": demucs_package(state={"x": Call(eval, write)}),
        "as the class": demucs_package(klass=Call(eval, write)),
        "an object of the class": pickled(Call(HTDemucs, ["a"])),
        "a new object of the class": archive(b"\x80\x02cdemucs.htdemucs\nHTDemucs\n)\x81."),
        "a class with another state": archive(
            b"\x80\x02cdemucs.htdemucs\nHTDemucs\n}U\x01xU\x01ysb."
        ),
        "a state of an object": pickled(State(Fraction, 1, 2)),
        "another class of the module": archive(b"\x80\x02cdemucs.htdemucs\nnn\n."),
        "a dotted name": archive(b"\x80\x04\x8c\x10demucs.htdemucs\x8c\x0bHTDemucs.xx\x93."),
        "the stand-in itself": archive(b"\x80\x02cstemlab.provisioning._unpickle\nmain\n)R."),
        "an extension": archive(b"\x80\x02\x82\x01."),
        "a huge fraction": named("fractions", "Fraction", "1e999999999"),
        "a fraction of zero": named("fractions", "Fraction", 1, 0),
        "a long fraction": named("fractions", "Fraction", "9" * 5000),
        "a fraction of a list": named("fractions", "Fraction", [1]),
        "a persistent id": archive(b"\x80\x02X\x0b\x00\x00\x00/etc/passwdQ."),
        "an unknown record": archive(
            b"\x80\x02(X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x06\x00\x00\x00../../"
            b"X\x03\x00\x00\x00cpuK\x04tQ."
        ),
        "laughs": laughs(),
        "deep": nested(200_000),
        "a huge number": archive(b"\x80\x02\x8b\xff\xff\xff\x7f" + b"\x01" * 100),
        "a huge text": archive(b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"x."),
        "a huge list of bytes": archive(b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b"x."),
        "cut off": archive(pickle.dumps({"x": 1}, protocol=2)[:-3]),
        "nothing in it": archive(b""),
        "no pickle": archive(b"not a pickle at all"),
        "protocol 0": archive(f"cos\nsystem\n(S'{touch}'\ntR.".encode()),
        "protocol 5": archive(pickle.dumps(Call(os.system, touch), protocol=5)),
        "outside an archive": pickle.dumps(Call(os.system, touch)),
        "a deflated bomb": deflated(),
        "a path upwards": renamed(good, b"archive/", b"../etcx/"),
        "an absolute path": renamed(good, b"archive/", b"/archiv/"),
        "encrypted": encrypted(good),
        "half an archive": good[: len(good) // 2],
        "an empty file": b"",
        "only an ending": b"PK\x05\x06" + bytes(18),
        "beyond its storage": tensor_program((1000, 1000), (1000, 1)),
        "before its storage": tensor_program((2,), (1,), offset=-1000),
        "far beyond": tensor_program((4,), (1,), offset=1 << 60),
        "negative steps": tensor_program((4,), (-1,)),
        "negative sizes": tensor_program((-4,), (1,)),
        "sizes that overflow": tensor_program((1 << 40, 1 << 40), (0, 0)),
        "stretched": stretched(),
        "gigabytes of nothing": tensor_program((1 << 34,), (0,)),
        "a sparse tensor": saved({"x": torch.eye(3).to_sparse()}),
        "complex numbers": saved({"x": torch.zeros(3, dtype=torch.complex64)}),
        "whole numbers": saved({"x": torch.zeros(3, dtype=torch.int64)}),
        "double precision": saved({"x": torch.zeros(3, dtype=torch.float64)}),
        "a tensor on no device": saved({"x": torch.zeros(3, device="meta")}),
        "a list": saved([TENSOR]),
        "a number": saved(5),
        "nothing": saved({}),
        "numbers as names": saved({1: TENSOR}),
        "texts as tensors": saved({"x": "y"}),
        "tables in tables": saved({"x": {"y": TENSOR}}),
        "an empty state": demucs_package(state={}),
        "no state": saved({"klass": HTDemucs, "args": (), "kwargs": {}}),
        "no class": saved({"args": (), "kwargs": {}, "state": {"x": TENSOR}}),
        "a text as class": demucs_package(klass="HTDemucs"),
        "a fraction as class": demucs_package(klass=Fraction),
        "a tensor as class": demucs_package(klass=TENSOR),
        "packed by DiffQ": demucs_package(state={"__quantized": True, "x": TENSOR}),
        "a tensor as argument": demucs_package(kwargs={"channels": TENSOR}),
        "a class as argument": demucs_package(kwargs={"channels": HTDemucs}),
        "a megabyte of arguments": demucs_package(kwargs={"sources": ["x" * 1_000_000]}),
        "numbers as keywords": demucs_package(kwargs={"x": {1: 2}}),
        "no table of keywords": demucs_package(kwargs=7),
        "no list of arguments": demucs_package(args=7),
        "a text of arguments": demucs_package(args="abc"),
        "a set of arguments": demucs_package(args={1, 2}),
        "pairs of keywords": demucs_package(kwargs=[("channels", 8)]),
        "laughing arguments": laughing_arguments(),
        "arguments that hold themselves": package_program(b"]q\x00h\x00a"),
        "deep arguments": package_program(b"]" * 100_000 + b"a" * 99_999),
        "a nested tensor": nested_tensor(),
        "a quantized tensor": quantized_tensor(),
        "100,000 tensors": saved(dict.fromkeys(map(str, range(100_000)), TENSOR)),
        "a gigabyte in one piece": named("builtins", "bytearray", 1 << 30),
        "a terabyte of numbers": named("torch", "Tensor", 1 << 38),
        "more memory in pieces": demucs_package(
            training_args=[Call(bytearray, 100_000_000) for _ in range(20)]
        ),
        # What PyTorch does with a long name in its error takes as long as its length squared.
        "a long name": named("x" * 2_000_000, "y"),
        "a name that moves the cursor": named("a\x1b[2Jb", "y\x07"),
        "the older format": legacy({"x": TENSOR}),
        "the older format, acting": legacy(Call(os.system, touch)),
        "a program for TorchScript": with_record(good, "constants.pkl", b"."),
        "another order of bytes": with_record(good, "byteorder", b"middle"),
        "another version": with_record(good, "version", b"999999\n"),
        "a longer record": with_record(good, "data/0", bytes(20)),
        "a shorter record": with_record(good, "data/0", bytes(12)),
        "a size beyond 4 GB": endless_size(pickled({})),
        "something before it": b"x" + good,
    }
    rng = np.random.default_rng(11)
    for index in range(60):
        damaged = bytearray(good)
        for position in rng.integers(0, len(good), size=3):
            damaged[position] ^= int(rng.integers(1, 256))
        attacks[f"damage {index}"] = bytes(damaged)
    return attacks


# Chinese takes `punycode` minutes, and nothing forbids a pickle to ask for it.
BUSY = named("_codecs", "encode", "".join(map(chr, range(0x4E00, 0x9E00))), "punycode")


def convert_each(attacks: dict[str, bytes]) -> dict[str, tuple[int, str, int, float]]:
    """Exit code, words, memory in bytes and seconds of the converter, for each."""
    lines = [
        json.dumps([name, base64.b64encode(each).decode(), 1 if each is BUSY else 20])
        for name, each in attacks.items()
    ]
    done = subprocess.run(
        [sys.executable, "-c", _PARENT],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
        # They may write nothing; to count the lines they run would need a file.
        env={name: each for name, each in os.environ.items() if not name.startswith("COVERAGE")},
    )
    return {name: tuple(rest) for name, *rest in map(json.loads, done.stdout.splitlines())}


@pytest.fixture(scope="module")
def canary(tmp_path_factory):
    return tmp_path_factory.mktemp("canary") / "sang"


@pytest.fixture(scope="module")
def outcomes(canary):
    if not hasattr(os, "fork"):
        pytest.skip("no processes are forked here")
    return convert_each({**hostile(str(canary)), "busy": BUSY})


ATTACKS = [name for name in hostile("nowhere") if not name.startswith("damage")]


@pytest.mark.parametrize("name", ATTACKS)
def test_hostile_pickles_are_refused_in_words(outcomes, canary, refused, name):
    code, said, memory, seconds = outcomes[name]
    assert code == 3, said
    assert 10 < len(said) < 300
    assert "\n" not in said
    assert memory < MOST_BYTES
    assert seconds < 20
    assert not canary.exists()
    refused("pickle", name, said)


def test_damaged_packages_are_refused_or_harmless(outcomes, canary):
    damaged = {name: each for name, each in outcomes.items() if name.startswith("damage")}
    codes = [each[0] for each in damaged.values()]
    assert set(codes) <= {0, 3}, damaged
    assert codes.count(3) > 10
    assert not canary.exists()


def test_a_busy_pickle_comes_to_the_limit_of_its_time(outcomes, refused):
    code, said, _, seconds = outcomes["busy"]
    assert code < 0, said
    assert 0.5 < seconds < 3
    refused("pickle", "work without an end", "ended at its limit of time")


def test_what_a_pickle_hangs_on_its_tensors_is_not_called():
    """PyTorch sets whatever attributes a pickle names, on tensors and on tables."""

    def never(*_: object) -> None:
        pytest.fail("it was called")

    tensor, state = TENSOR.clone(), OrderedDict()
    for name in ("clone", "contiguous", "detach", "numel", "element_size"):
        setattr(tensor, name, never)
    state["x"] = tensor
    for name in ("items", "keys", "values"):
        setattr(state, name, never)
    made = _unpickle._tensors(torch, state, 16)
    assert torch.equal(made["x"], TENSOR)
    assert vars(made["x"]) == {}


def test_a_refusal_names_what_was_tried(outcomes):
    assert "posix.system, which is not allowed" in outcomes["os.system"][1]
    # What PyTorch advises is how to switch the check off.
    assert not any("weights_only" in each[1] for each in outcomes.values())


# --- the process of the converter


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such limits")
def test_the_limits_act(tmp_path):
    """On the very process, once it has limited itself."""
    program = """
import resource, signal, sys, time
from stemlab.provisioning import _unpickle
_unpickle.CPU_SECONDS = int(time.process_time()) + 2  # The imports count as well.
kept = bytearray(50_000_000)
_unpickle._limit_process(200_000_000)
try:
    with open(sys.argv[1], "w") as file:
        file.write("x")
except OSError as error:
    print("file:", type(error).__name__)
try:
    bytearray(400_000_000)
    print("memory was given")
except MemoryError:
    print("memory: refused")
bytearray(50_000_000)
sys.stdout.flush()
while True:
    pass
"""
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "file")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    expected = ["file: OSError"]
    if sys.platform == "linux":  # Elsewhere the size of a process is not known beforehand.
        expected.append("memory: refused")
    assert [each for each in done.stdout.splitlines() if each in expected] == expected
    assert done.returncode < 0
    assert (tmp_path / "file").read_text("utf-8") == ""


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", "at one of its limits"),
        ("import time; time.sleep(60)", "took longer than 0.5 s"),
        ("raise SystemExit('no module named torch')", "no module named torch"),
    ],
    ids=["killed", "too long", "broken"],
)
def test_a_process_that_does_not_come_back_is_a_refusal(tmp_path, monkeypatch, program, message):
    """A stand-in for the converter, because the real one does not fail at will."""
    script = tmp_path / "script.py"
    script.write_text(program, "utf-8")
    monkeypatch.setattr(_pickles._unpickle, "__file__", str(script))
    monkeypatch.setattr(_pickles, "TIMEOUT_SECONDS", 0.5 if "sleep" in program else 60)
    with pytest.raises(ModelRefusedError, match=rf"abc\.th.*{message}.*Nothing was added"):
        convert(b"x", "abc.th")


def test_what_the_process_says_cannot_move_the_cursor_or_fill_the_screen(tmp_path, monkeypatch):
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit('\\x1b[2J\\x9b' + 'x' * 1_000_000)", "utf-8")
    monkeypatch.setattr(_pickles._unpickle, "__file__", str(script))
    with pytest.raises(ModelRefusedError, match=r"\\x1b\[2J\\x9bxxx") as refusal:
        convert(b"x", "abc.th")
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 600


@pytest.mark.skipif(sys.platform != "linux", reason="the limits of other processes are not told")
def test_a_process_that_is_killed_at_its_work_is_a_refusal(tmp_path, monkeypatch):
    import resource
    import signal

    monkeypatch.setenv("STEMLAB_MODELS", str(tmp_path / "store"))
    path = tmp_path / "busy.th"
    path.write_bytes(BUSY)
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    def kill_at_work() -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            # It limits itself once it has all it needs, just before it opens the file.
            if started and resource.prlimit(started[0].pid, resource.RLIMIT_FSIZE) == (0, 0):
                os.kill(started[0].pid, signal.SIGKILL)
                return
            time.sleep(0.05)

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    killer = threading.Thread(target=kill_at_work)
    killer.start()
    with pytest.raises(ModelRefusedError, match="ended with code -9, at one of its limits"):
        add_model("busy", [path], sha256=[recorded("", BUSY)["sha256"]])
    killer.join()
    assert {each.name for each in (tmp_path / "store").rglob("*")} == {".lock"}


def test_the_command_refuses_a_hostile_pickle_in_one_line(tmp_path, monkeypatch, capsys):
    store, canary = tmp_path / "store", tmp_path / "sang"
    monkeypatch.setenv("STEMLAB_MODELS", str(store))
    path = tmp_path / "evil.th"
    path.write_bytes(demucs_package(kwargs={"x": Call(os.system, f"touch {canary}")}))
    digest = recorded("", path.read_bytes())["sha256"]
    assert main(["models", "add", "evil", "--from", str(path), "--sha256", digest]) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "posix.system" in said
    assert not canary.exists()
    assert {each.name for each in store.rglob("*")} == {".lock"}


def test_a_hostile_pickle_is_not_even_read_with_another_digest(tmp_path, monkeypatch, refused):
    monkeypatch.setenv("STEMLAB_MODELS", str(tmp_path / "store"))
    path = tmp_path / "evil.th"
    path.write_bytes(pickled(Call(os.system, "true")))

    def never(*_: object) -> None:
        pytest.fail("the file was opened")

    monkeypatch.setattr("stemlab.provisioning._declared.convert", never)
    with pytest.raises(ModelRefusedError, match="expected SHA-256") as refusal:
        add_model("evil", [path], sha256=["0" * 64])
    refused("pickle", "another digest than the one typed", refusal.value)


# --- what is converted


@pytest.mark.parametrize(
    ("name", "half"),
    [("tiny_htdemucs", True), ("tiny_htdemucs", False), ("tiny_hdemucs", True)],
    ids=["HTDemucs in half", "HTDemucs in full", "HDemucs in half"],
)
def test_weights_are_not_changed(request, name, half):
    network = request.getfixturevalue(name)
    state = {
        name: each.half() if half else each.clone() for name, each in network.state_dict().items()
    }
    content = package(network, state=state)
    weights, facts = convert(content, "abc.th")
    converted = load_safetensors(weights)
    assert converted.keys() == state.keys()
    assert all(torch.equal(converted[name], each) for name, each in state.items())
    assert all(converted[name].dtype == each.dtype for name, each in state.items())
    assert facts["klass"] == f"{type(network).__module__}.{type(network).__qualname__}"


def test_a_pickle_is_always_converted_to_the_same_bytes(tiny_htdemucs):
    content = package(tiny_htdemucs)
    assert convert(content, "abc.th") == convert(content, "abc.th")


@pytest.mark.parametrize(
    "fraction", [Call(Fraction, "39/5"), Call(Fraction, 39, 5)], ids=["text", "numbers"]
)
def test_fractions_are_read_as_any_python_writes_them(fraction):
    _, facts = convert(demucs_package(kwargs={"segment": fraction}), "abc.th")
    assert facts["kwargs"] == {"segment": 7.8}


def test_a_package_of_an_older_demucs_separates_as_the_network_it_was_made_of(
    tmp_path, monkeypatch, tiny_hdemucs, rng
):
    """In full precision, with arguments by position, an exact segment and one no longer known."""
    monkeypatch.setenv("STEMLAB_MODELS", str(tmp_path / "store"))
    (sources,), options = tiny_hdemucs._init_args_kwargs
    kwargs = {**options, "segment": Fraction(1), "num_subbands": 1}
    state = {name: each.clone() for name, each in tiny_hdemucs.state_dict().items()}
    content = package(tiny_hdemucs, args=(sources, 2), kwargs=kwargs, state=state)
    path = tmp_path / "old.th"
    path.write_bytes(content)
    manifest = add_model("old", [path], sha256=[recorded("", content)["sha256"]])
    assert "num_subbands" in manifest.disputes[0]
    mixture = rng.uniform(-0.3, 0.3, (2, 70_000)).astype(np.float32)
    level = torch.from_numpy(mixture).mean(0)
    mean, deviation = level.mean(), level.std() + 1e-8
    normalised = (torch.from_numpy(mixture) - mean) / deviation
    expected = apply_model(tiny_hdemucs, normalised[None], shifts=0)[0] * deviation + mean
    stems = AudioStemSeparator("old", device="cpu").separate_audio(mixture, 44_100)
    for name, each in zip(sources, expected.numpy(), strict=True):
        np.testing.assert_allclose(stems[name], each, atol=1e-5, rtol=0)
        assert np.abs(stems[name]).max() > 0.01


def test_a_plain_state_is_converted():
    shared = torch.arange(6.0)
    state = OrderedDict(a=shared[:3], b=shared[3:], c=shared.reshape(2, 3).T)
    weights, facts = convert(saved(state), "abc.pt")
    assert facts == {}
    for name, each in load_safetensors(weights).items():
        assert torch.equal(each, state[name])


# --- what a file says of its network


@pytest.mark.parametrize(
    ("network", "klass"), [(HTDemucs, "htdemucs.HTDemucs"), (HDemucs, "hdemucs.HDemucs")]
)
def test_arguments_are_understood_as_demucs_does(network, klass):
    """By position or by name; those that an older Demucs knew are left out, as it does itself."""
    facts = {"klass": f"demucs.{klass}", "args": [["a", "b"], 2], "kwargs": {"old": 1, "depth": 3}}
    declaration = declaration_of_package(facts, "abc.th")
    assert declaration.architecture.name == network.__name__
    assert declaration.arguments == {"sources": ["a", "b"], "audio_channels": 2, "depth": 3}
    assert declaration.dropped == ("old",)
    assert declaration.effective("samplerate") == 44_100


def test_too_many_arguments_are_refused():
    facts = {"klass": "demucs.htdemucs.HTDemucs", "args": [1] * 200, "kwargs": {}}
    with pytest.raises(ModelRefusedError, match="more arguments"):
        declaration_of_package(facts, "abc.th")


def deep_list(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


STATED = {
    "a segment that takes hours to read": {"segment": "1e999999999"},
    "a segment as text": {"segment": "1/3"},
    "a segment of many digits": {"segment": 10**400},
    "a segment that is no number": {"segment": float("nan")},
    "many bands": {"multi_freqs": [each / 100_000 for each in range(1, 20_001)]},
    "a list in a list": {"multi_freqs": [[0.5]]},
    "lists beyond what can be shown": {"multi_freqs": deep_list(100_000)},
    "a table": {"channels": {"a": 1}},
    "a long text": {"t_emb": "x" * 100_000},
    "a text that moves the cursor": {"t_emb": "\x1b[2J"},
    "endless channels": {"channels": 10**300},
    "endless growth": {"growth": 1e300},
    "no learning rate": {"t_lr": float("inf")},
    "sources in a text": {"sources": "ab"},
    "sources in a table": {"sources": {"a": 1}},
    "sources that are paths": {"sources": ["../drums", "bass"]},
    "no sources": {"sources": []},
    "a name that moves the cursor": {"x\x1b[2J": 1},
    "a name of two lines": {"x\ny": 1},
    "a long name": {"x" * 100_000: 1},
    "an empty name": {"": 1},
    "half a character": {"x\ud800": 1},
    "many names": {f"x{each}": 1 for each in range(10_000)},
}


@pytest.mark.parametrize("name", STATED)
def test_arguments_that_no_network_has_are_refused_at_once_and_in_few_words(refused, name):
    facts = {"klass": "demucs.htdemucs.HTDemucs", "args": [], "kwargs": STATED[name]}
    before = time.process_time()
    with pytest.raises(ModelRefusedError) as refusal:
        declaration_of_package(facts, "abc.th")
    assert time.process_time() - before < 1
    assert len(str(refusal.value)) < 300
    assert str(refusal.value).isprintable()
    refused("what a file states", f"argument: {name}", refusal.value)


def test_an_argument_is_not_said_twice():
    facts = {"klass": "demucs.htdemucs.HTDemucs", "args": [["a"]], "kwargs": {"sources": ["b"]}}
    with pytest.raises(ModelRefusedError, match="says twice what sources is"):
        declaration_of_package(facts, "abc.th")


def entry(architecture="HTDemucs", **arguments):
    return NetworkEntry(architecture, {"sources": ["a"], **arguments}, (), None)


@pytest.mark.parametrize(
    ("stated", "record", "refused"),
    [
        ({}, {}, None),
        ({"segment": 7.8}, {"segment": 7.8}, None),
        ({"multi_freqs": [], "multi_freqs_depth": 9}, {}, None),
        ({"t_dropout": 0.02, "rescale": 0.1, "dconv_init": 0.5}, {}, None),
        ({"segment": 7.8}, {"segment": 10.0}, "segment=7.8"),
        ({"channels": 64}, {}, "channels=64"),
        ({"t_norm_first": False}, {}, "t_norm_first=False"),
        ({"cac": False}, {"cac": True}, "cac=False"),
        ({"sources": ["b"]}, {}, "sources="),
    ],
)
def test_a_file_that_contradicts_the_record_is_refused(stated, record, refused):
    facts = {"klass": "demucs.htdemucs.HTDemucs", "args": [["a"]], "kwargs": stated}
    declaration = declaration_of_package(
        {**facts, "args": []} if "sources" in stated else facts, "f"
    )
    if refused is None:
        declaration.check(entry(**record), "f")
    else:
        with pytest.raises(ModelRefusedError, match=refused):
            declaration.check(entry(**record), "f")


def test_another_architecture_than_recorded_is_refused():
    facts = {"klass": "demucs.hdemucs.HDemucs", "args": [["a"]], "kwargs": {"segment": 44}}
    declaration = declaration_of_package(facts, "f")
    declaration.check(entry("HDemucs", segment=40.0), "f")
    with pytest.raises(ModelRefusedError, match="architecture='HDemucs'"):
        declaration.check(entry(), "f")


# --- safetensors


def with_header(
    header: bytes | dict[str, Any], data: bytes = b"", length: int | None = None
) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def tensor_entry(shape: Any = (2,), begin: int = 0, end: int = 8, dtype: str = "F32") -> Any:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


HEADERS = {
    "empty": b"",
    "seven bytes": b"\0" * 7,
    "only a length": struct.pack("<Q", 100),
    "length of nothing": struct.pack("<Q", 0),
    "length beyond the file": with_header({}, length=10_000),
    "length beyond everything": with_header({}, length=(1 << 64) - 1),
    "no JSON": with_header(b"xxxx"),
    "a list": with_header(b"[]"),
    "deep": with_header(b'{"a":' * 100_000),
    "no text": with_header(b"\xff\xfe{}"),
    "too short": with_header({"x": tensor_entry()}, bytes(4)),
    "too long": with_header({"x": tensor_entry()}, bytes(12)),
    "overlapping": with_header({"x": tensor_entry(), "y": tensor_entry()}, bytes(8)),
    "a gap": with_header({"x": tensor_entry(), "y": tensor_entry(begin=12, end=20)}, bytes(20)),
    "backwards": with_header({"x": tensor_entry(begin=8, end=0)}, bytes(8)),
    "a shape that overflows": with_header({"x": tensor_entry([1 << 40, 1 << 40])}, bytes(8)),
    "a shape beyond 64 bits": with_header({"x": tensor_entry([0, (1 << 64) - 1], end=0)}),
    "a name that moves the cursor": with_header(
        {"\x1b[2J": tensor_entry(begin=8, end=0)}, bytes(8)
    ),
    "a long name": with_header({"x" * 1_000_000: tensor_entry()}, bytes(8)),
    "a negative shape": with_header({"x": tensor_entry([-2])}, bytes(8)),
    "a shape of texts": with_header({"x": tensor_entry(["a"])}, bytes(8)),
    "an unknown type": with_header({"x": tensor_entry(dtype="F1")}, bytes(8)),
    "whole numbers": with_header({"x": tensor_entry(dtype="I32")}, bytes(8)),
    "another name": with_header({"x": tensor_entry()}, bytes(8)),
    "metadata of numbers": with_header({"__metadata__": {"a": 1}}),
    "nothing in it": with_header({}),
}


@pytest.fixture(scope="module")
def tiny_entry(tiny_htdemucs):
    (sources,), options = tiny_htdemucs._init_args_kwargs
    return NetworkEntry("HTDemucs", {"sources": sources, **options}, (), None)


@pytest.mark.parametrize("name", HEADERS)
def test_malformed_safetensors_are_refused(tiny_entry, refused, name):
    with pytest.raises(ModelRefusedError, match="not a valid safetensors|does not fit") as refusal:
        parse_network(tiny_entry, HEADERS[name], "abc.safetensors")
    assert str(refusal.value).isprintable()
    assert len(str(refusal.value)) < 600
    refused("safetensors", name, refusal.value)


@pytest.mark.parametrize(
    "arguments",
    [
        {"segment": "1e999999999"},
        {"segment": "1.0"},
        {"multi_freqs": [each / 100_000 for each in range(1, 20_001)]},
        {"dconv_depth": -1_000_000_000},
    ],
    ids=["a segment that takes hours to read", "a segment as text", "many bands", "depth"],
)
def test_arguments_of_a_manifest_that_would_take_hours_are_refused(arguments):
    with pytest.raises(ModelRefusedError, match="arguments that HTDemucs does not take"):
        build_network(entry(**arguments), "abc.safetensors")


@pytest.mark.parametrize("name", HEADERS)
def test_malformed_safetensors_are_not_added(tmp_path, monkeypatch, name):
    monkeypatch.setenv("STEMLAB_MODELS", str(tmp_path / "store"))
    path = tmp_path / "abc.safetensors"
    path.write_bytes(HEADERS[name])
    with pytest.raises(ModelRefusedError):
        add_model("mine", path, sha256=recorded("", HEADERS[name])["sha256"])
    assert {each.name for each in (tmp_path / "store").rglob("*")} == {".lock"}


def test_damage_to_safetensors_is_refused_or_harmless(tiny_entry, tiny_htdemucs, rng):
    """As if the digest were right: what the parser itself makes of it."""
    good = save({name: each.half() for name, each in tiny_htdemucs.state_dict().items()})
    (header,) = struct.unpack_from("<Q", good)
    refused = 0
    count = cases(quick=100, long=3000)
    for _ in range(count):
        damaged = bytearray(good)
        # Mostly in the header, where there is something to break.
        end = len(good) if rng.random() < 0.1 else 8 + header
        for position in rng.integers(0, end, size=2):
            damaged[position] ^= int(rng.integers(1, 256))
        try:
            network = parse_network(tiny_entry, bytes(damaged), "abc.safetensors")
        except ModelRefusedError:
            refused += 1
        else:
            assert all(bool(each.isfinite().all()) for each in network.parameters())
    assert refused > 2 * count // 3


def segment(value: Any) -> dict[str, str]:
    return {"kwargs": json.dumps({"segment": value})}


METADATA = {
    "another class": {"klass": "os.system"},
    "no class": {"klass": "HTDemucs"},
    "no JSON": {"kwargs": "{"},
    "a list": {"kwargs": "[]" * 2},
    "numbers": {"args": "5"},
    "a fraction of zero": segment({"_type": "fraction", "numerator": 1, "denominator": 0}),
    "half a fraction": segment({"_type": "fraction"}),
    "deep": {"args": "[" * 100_000},
    "channels": {"kwargs": '{"channels": 1000000000}'},
    "depth": {"kwargs": '{"depth": 1000000}'},
    "layers": {"kwargs": '{"t_layers": 1000000000}'},
    "stft": {"kwargs": '{"nfft": 1000000000000}'},
    "sources": {"args": json.dumps([[f"s{index}" for index in range(100_000)]])},
    "paths": {"args": '[["../drums", "bass", "other", "vocals"]]'},
    "no sources": {"args": "[[]]"},
    "number of sources": {"args": "[4]"},
    "no rate": {"kwargs": '{"samplerate": 0}'},
    "negative rate": {"kwargs": '{"samplerate": -44100}'},
    "half a rate": {"kwargs": '{"samplerate": 44100.5}'},
    "text as rate": {"kwargs": '{"samplerate": "fast"}'},
    "no segment": segment(0),
    "negative segment": segment(-1),
    "no number as segment": segment(float("nan")),
    "endless segment": segment(float("inf")),
    "huge segment": segment(1e308),
    "list as segment": segment([1]),
    "mono": {"kwargs": '{"audio_channels": 1}'},
    "no heads": {"kwargs": '{"t_heads": 0}'},
}


@pytest.mark.parametrize("name", METADATA)
def test_files_that_say_nonsense_of_their_network_are_refused(
    tmp_path, monkeypatch, tiny_htdemucs, refused, name
):
    monkeypatch.setenv("STEMLAB_MODELS", str(tmp_path / "store"))
    changes = dict(METADATA[name])
    if "kwargs" in changes and changes["kwargs"].startswith('{"'):
        options = tiny_htdemucs._init_args_kwargs[1]
        changes["kwargs"] = json.dumps({**options, **json.loads(changes["kwargs"])})
    content = hub_file(tiny_htdemucs, **changes)
    path = tmp_path / "abc.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelRefusedError) as refusal:
        add_model("mine", [path], sha256=[recorded("", content)["sha256"]])
    assert {each.name for each in (tmp_path / "store").rglob("*")} == {".lock"}
    refused("what a file states", name, refusal.value)


HUB = {"klass": "demucs.htdemucs.HTDemucs", "args": "[]", "kwargs": "{}"}
MALFORMED = {
    "no table": with_header(b"[1]"),
    "a text": with_header(b'"klass"'),
    "metadata in a list": with_header({"__metadata__": ["klass"]}),
    "metadata in a text": with_header({"__metadata__": "klass"}),
    "metadata of nothing": with_header({"__metadata__": None}),
    "a list as class": with_header({"__metadata__": {**HUB, "klass": ["x"]}}),
    "a table as class": with_header({"__metadata__": {**HUB, "klass": {"x": 1}}}),
    "a long class": with_header({"__metadata__": {**HUB, "klass": "x" * 1_000_000}}),
    "a class that moves the cursor": with_header({"__metadata__": {**HUB, "klass": "\x1b[2J"}}),
    "no arguments": with_header({"__metadata__": {**HUB, "args": "null"}}),
    "arguments in a table": with_header({"__metadata__": {**HUB, "args": '{"sources": 1}'}}),
    "arguments in a text": with_header({"__metadata__": {**HUB, "args": '"abc"'}}),
    "keywords in pairs": with_header({"__metadata__": {**HUB, "kwargs": '[["depth", 3]]'}}),
    **{
        f"tables, {depth} deep": with_header(
            {"__metadata__": {**HUB, "kwargs": '{"sources":' * depth + "1" + "}" * depth}}
        )
        for depth in (100, 480, 600, 900, 990, 100_000)
    },
    "a long fraction": with_header(
        {
            "__metadata__": {
                **HUB,
                "kwargs": json.dumps(
                    {"segment": {"_type": "fraction", "numerator": 10**4000, "denominator": 7}}
                ),
            }
        }
    ),
    "millions of lists": with_header(b'{"a":[' + b"[]," * 3_000_000 + b"[]]}"),
    "a header of eight exabytes": with_header(HUB, length=1 << 63),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_metadata_is_refused_at_once_and_in_few_words(refused, name):
    before = time.process_time()
    with pytest.raises(ModelRefusedError) as refusal:
        declaration_of_safetensors(MALFORMED[name], "abc.safetensors")
    assert time.process_time() - before < 1
    assert len(str(refusal.value)) < 300
    assert str(refusal.value).isprintable()
    refused("what a file states", f"metadata: {name}", refusal.value)


def test_the_table_of_attacks_names_those_that_are_tried(attack_table):
    tried = {
        test_hostile_pickles_are_refused_in_words: ATTACKS,
        test_malformed_safetensors_are_refused: HEADERS,
        test_files_that_say_nonsense_of_their_network_are_refused: METADATA,
        test_arguments_that_no_network_has_are_refused_at_once_and_in_few_words: STATED,
        test_malformed_metadata_is_refused_at_once_and_in_few_words: MALFORMED,
    }
    for test, names in tried.items():
        assert len(attack_table.attacks(f"test_conversion.py: {test.__name__}")) == len(names)


@pytest.mark.parametrize("form", ["th", "safetensors"])
def test_the_command_refuses_a_segment_that_takes_hours_to_read(
    tmp_path, monkeypatch, capsys, tiny_htdemucs, form
):
    monkeypatch.setenv("STEMLAB_MODELS", str(tmp_path / "store"))
    kwargs = {**tiny_htdemucs._init_args_kwargs[1], "segment": "1e999999999"}
    content = package(tiny_htdemucs, kwargs=kwargs)
    if form == "safetensors":
        content = hub_file(tiny_htdemucs, kwargs=json.dumps(kwargs))
    path = tmp_path / f"abc.{form}"
    path.write_bytes(content)
    digest = recorded("", content)["sha256"]
    assert main(["models", "add", "mine", "--from", str(path), "--sha256", digest]) == 4
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "expected a number of seconds" in said
    assert {each.name for each in (tmp_path / "store").rglob("*")} == {".lock"}


def test_the_hubs_fractions_are_read(tiny_htdemucs):
    fraction = {"_type": "fraction", "numerator": 39, "denominator": 5}
    content = hub_file(tiny_htdemucs, kwargs=json.dumps({"segment": fraction}))
    assert declaration_of_safetensors(content, "f").arguments["segment"] == 7.8


def test_a_bare_file_says_nothing():
    assert declaration_of_safetensors(save({"x": TENSOR}), "f") is None
    assert build_network(entry(segment=1.0), "f") is not None
