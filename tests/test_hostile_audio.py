"""Files that nobody should trust: each is separated, or refused in one clear line, and that is all.

They go through the whole of a separation with a small real network, in a process of its own
(`hostile`): a crash, a hang or a gigabyte of memory is found out, and so is a file left behind.
`make test-long` tries many more of them.
"""

from __future__ import annotations

import os
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hostile import Outcome, Victim, cases
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recordings import RATE, noise, put, put_av, tone

pytestmark = pytest.mark.skipif(
    sys.platform != "linux", reason="limits and counts of a process as Linux has them"
)


@pytest.fixture(scope="module")
def victim(tiny_model_folder: str) -> Iterator[Victim]:
    with Victim(tiny_model_folder) as victim:
        yield victim


def check(outcome: Outcome, out: Path, what: str) -> None:
    """Whole results or none, and no trace of the work."""
    assert outcome.kind in ("success", "refused"), f"{what}: {outcome.error}"
    assert outcome.grown_bytes < 400_000_000, what
    if outcome.kind == "refused":
        assert outcome.message.isprintable(), what
        assert not out.exists(), what
        return
    names = sorted(each.name for each in out.rglob("*") if each.is_file())
    assert names == ["bass.wav", "drums.wav", "other.wav", "run.json", "vocals.wav"], what
    assert [each for each in out.iterdir() if each.name.startswith(".")] == [], what


# ---------------------------------------------------------------- damaged files

SOUND = tone(20_000) + noise(20_000, level=0.05)
WRITERS: dict[str, Callable[[Path], Path]] = {
    "wav": lambda path: put(path, SOUND, subtype="PCM_16"),
    "float": lambda path: put(path, SOUND),
    "rf64": lambda path: put(path, SOUND, container="RF64", subtype="PCM_24"),
    "aiff": lambda path: put(path, SOUND, container="AIFF", subtype="PCM_16"),
    "flac": lambda path: put(path, SOUND, container="FLAC", subtype="PCM_16"),
    "ogg": lambda path: put(path, SOUND, container="OGG", subtype="VORBIS"),
    "opus": lambda path: put(path, SOUND, 48_000, container="OGG", subtype="OPUS"),
    "mp3": lambda path: put(path, SOUND, container="MP3", subtype="MPEG_LAYER_III"),
    "m4a": lambda path: put_av(path.with_suffix(".m4a"), SOUND),
    "aac": lambda path: put_av(path.with_suffix(".aac"), SOUND),
    "mkv": lambda path: put_av(path.with_suffix(".mkv"), SOUND, "libopus", 48_000),
}
EXTREMES = [0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF]


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("intact")
    return {name: write(folder / name).read_bytes() for name, write in WRITERS.items()}


def damaged(content: bytes, other: bytes, seed: int) -> bytes:
    """The file with one to three kinds of damage; headers are hit as often as all the rest."""
    rng = np.random.default_rng(seed)
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        size = max(len(data), 8)
        at = int(rng.integers(0, min(size, 256) if rng.random() < 0.5 else size))
        length = int(rng.integers(1, 1 + min(4096, size)))
        kind = rng.integers(8)
        if kind == 0:  # Single bits.
            for each in rng.integers(at, min(at + 512, size), rng.integers(1, 30)):
                if each < len(data):
                    data[each] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            del data[at : at + length]
        elif kind == 3:
            data[at:at] = data[at : at + length]
        elif kind == 4:
            data[at:at] = rng.bytes(length)
        elif kind == 5:
            data[at : at + length] = bytes(length)
        elif kind == 6:  # What a length, a rate or a count may be.
            order = ">I" if rng.random() < 0.5 else "<I"
            data[at : at + 4] = struct.pack(order, EXTREMES[rng.integers(len(EXTREMES))])
        else:  # It goes on as another file.
            data[at:] = other[at:]
    return bytes(data)


@pytest.mark.parametrize("name", WRITERS)
def test_damaged_files(name: str, intact: dict[str, bytes], victim: Victim, tmp_path: Path) -> None:
    kinds, outcomes = list(intact), set()
    for seed in range(cases(quick=40, long=1000)):
        other = intact[kinds[(seed + kinds.index(name)) % len(kinds)]]
        song, out = tmp_path / f"song.{name}", tmp_path / "out"
        song.write_bytes(damaged(intact[name], other, seed))
        outcome = victim.separate(song, out, downmix=bool(seed % 2))
        check(outcome, out, f"{name}, seed {seed}")
        shutil.rmtree(out, ignore_errors=True)
        outcomes.add(outcome.kind)
    assert "refused" in outcomes, "no damage was found"


# Found by the test above: PyAV raised UnicodeDecodeError.
@pytest.mark.parametrize("name", ["m4a", "mkv"])
def test_tags_that_are_no_text(
    name: str, intact: dict[str, bytes], victim: Victim, tmp_path: Path
) -> None:
    assert b"Lavf" in intact[name]
    song, out = tmp_path / f"song.{name}", tmp_path / "out"
    song.write_bytes(intact[name].replace(b"Lavf", b"\xff\xfe\xff\xfe"))
    outcome = victim.separate(song, out)
    check(outcome, out, name)
    assert outcome.kind == "success", outcome.message


def test_every_file_is_read_while_it_is_intact(
    intact: dict[str, bytes], victim: Victim, tmp_path: Path
) -> None:
    for name, content in intact.items():
        song, out = tmp_path / f"song.{name}", tmp_path / "out"
        song.write_bytes(content)
        outcome = victim.separate(song, out)
        assert outcome.kind == "success", f"{name}: {outcome.message}"
        shutil.rmtree(out, ignore_errors=True)


def test_cut_off_anywhere(intact: dict[str, bytes], victim: Victim, tmp_path: Path) -> None:
    song, out = tmp_path / "song", tmp_path / "out"
    for name, content in intact.items():
        step = max(len(content) // cases(quick=6, long=200), 1)
        for size in (*range(0, len(content), step), len(content) - 1):
            song.write_bytes(content[:size])
            check(victim.separate(song, out), out, f"{name}, {size} of {len(content)} bytes")
            shutil.rmtree(out, ignore_errors=True)


# ---------------------------------------------------------------- headers that lie

counts = st.sampled_from([*EXTREMES, 2, 6, 8, 64, 999, 1000, RATE, 768_000, 768_001, 2**32 - 2])
sizes = st.one_of(st.integers(0, 64), counts)


@st.composite
def chunks(draw: st.DrawFn, order: str) -> bytes:
    """A chunk whose stated size need not be that of what follows."""
    name = draw(st.sampled_from([b"fmt ", b"data", b"ds64", b"fact", b"LIST", b"junk", b"COMM"]))
    if name == b"fmt ":
        tag = draw(st.sampled_from([0, 1, 2, 3, 6, 7, 17, 49, 85, 0xFFFE, 0xFFFF]))
        channels = draw(counts) & 0xFFFF
        bits = draw(st.sampled_from([0, 1, 8, 12, 16, 24, 32, 64, 0xFFFF]))
        fields = (tag, channels, draw(counts), draw(counts), draw(counts) & 0xFFFF, bits)
        body = struct.pack(order + "HHIIHH", *fields) + draw(st.binary(max_size=24))
    elif name == b"ds64":
        lengths = st.sampled_from([0, 1, 4000, 2**32, 2**40, 2**42, 2**63, 2**64 - 1])
        body = struct.pack("<QQQI", draw(lengths), draw(lengths), draw(lengths), draw(counts))
    else:
        body = draw(st.binary(max_size=64)) * draw(st.sampled_from([1, 1, 100]))
    size = len(body) if draw(st.booleans()) else draw(sizes)
    return name + struct.pack(order + "I", size & 0xFFFFFFFF) + body


@st.composite
def waves(draw: st.DrawFn) -> bytes:
    """WAV, RF64, RIFX or AIFF, of chunks in any order."""
    family, kind, order = draw(
        st.sampled_from(
            [
                (b"RIFF", b"WAVE", "<"),
                (b"RF64", b"WAVE", "<"),
                (b"RIFX", b"WAVE", ">"),
                (b"FORM", b"AIFF", ">"),
                (b"FORM", b"AIFC", ">"),
            ]
        )
    )
    usable = struct.pack(order + "4sIHHIIHH", b"fmt ", 16, 1, 2, RATE, 4 * RATE, 4, 16)
    first = usable if draw(st.booleans()) else b""
    body = first + b"".join(draw(st.lists(chunks(order), max_size=5)))
    if draw(st.booleans()):
        content = bytes(4 * draw(st.integers(1, 2000)))
        body += b"data" + struct.pack(order + "I", draw(st.just(len(content)) | counts)) + content
    size = draw(st.just(len(body) + 4) | counts)
    return family + struct.pack(order + "I", size & 0xFFFFFFFF) + kind + body


@settings(
    max_examples=cases(quick=150, long=5000),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(content=waves(), downmix=st.booleans())
def test_headers_of_any_content(
    content: bytes, downmix: bool, victim: Victim, tmp_path: Path
) -> None:
    song, out = tmp_path / "song.wav", tmp_path / "out"
    song.write_bytes(content)
    outcome = victim.separate(song, out, downmix=downmix)
    try:
        check(outcome, out, content[:200].hex())
    finally:
        shutil.rmtree(out, ignore_errors=True)


# ---------------------------------------------------------------- what is no usual recording


def flat(value: float, samples: int = 3000) -> Callable[[Path], Path]:
    return lambda folder: put(folder / "song.wav", np.full((2, samples), value, np.float32))


def planted(value: float) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        samples = noise(3000)
        samples[0, 1234] = value
        return put(folder / "song.wav", samples)

    return make


def vast(folder: Path) -> Path:
    """2^40 samples, of which the header tells and the file system agrees: a hole in a disk."""
    path, size = folder / "song.wav", 2**42
    head = struct.pack("<4sI4s4sIQQQI", b"RF64", 2**32 - 1, b"WAVE", b"ds64", 28, 0, size, 2**40, 0)
    head += struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 2, RATE, 4 * RATE, 4, 16)
    head += struct.pack("<4sI", b"data", 2**32 - 1)
    path.write_bytes(head)
    try:
        os.truncate(path, len(head) + size)
    except OSError:
        pytest.skip("this file system holds no file of that size")
    return path


def claimed(folder: Path) -> Path:
    """A FLAC file of a second that claims 2^36 - 1 samples."""
    path = put(folder / "song.flac", noise(RATE), container="FLAC", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[21] |= 0x0F
    content[22:26] = b"\xff" * 4
    path.write_bytes(content)
    return path


def linked(folder: Path) -> Path:
    (folder / "a").symlink_to(folder / "b")
    (folder / "b").symlink_to(folder / "a")
    return folder / "a"


def piped(folder: Path) -> Path:
    os.mkfifo(folder / "song.wav")
    return folder / "song.wav"


def nothing(folder: Path) -> Path:
    (folder / "song.wav").touch()
    return folder / "song.wav"


def at(channels: int, rate: int, samples: int = 100) -> Callable[[Path], Path]:
    return lambda folder: put(folder / "song.wav", noise(samples, channels), rate)


def named(path: str) -> Callable[[Path], Path]:
    return lambda folder: folder / path


ODD = {
    "silence": (flat(0.0), "success"),
    "a constant": (flat(0.7), "success"),
    "one sample": (flat(0.5, samples=1), "success"),
    "NaN": (planted(np.nan), "refused"),
    "infinite": (planted(np.inf), "refused"),
    "minus infinite": (planted(-np.inf), "refused"),
    "a subnormal": (planted(1e-40), "success"),
    "far too loud": (planted(1e30), "success"),
    "64 channels": (at(64, RATE), "refused"),
    "1 Hz": (at(2, 1), "refused"),
    "1 kHz": (at(2, 1000), "success"),
    "768 kHz": (at(2, 768_000, 100_000), "success"),
    "2 GHz": (at(2, 2**31 - 1), "refused"),
    "2^40 samples": (vast, "refused"),
    "2^36 samples claimed": (claimed, "refused"),
    "links in a circle": (linked, "refused"),
    "a pipe": (piped, "refused"),
    "nothing": (nothing, "refused"),
    "a folder": (named("."), "refused"),
    "an endless device": (named("/dev/zero"), "refused"),
    "standard input": (named("/dev/stdin"), "refused"),
    "the memory": (named("/proc/self/mem"), "refused"),
    "a text of the system": (named("/proc/version"), "refused"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_recordings(name: str, victim: Victim, tmp_path: Path) -> None:
    make, kind = ODD[name]
    song, out = make(tmp_path), tmp_path / "out"
    outcome = victim.separate(song, out)
    check(outcome, out, name)
    assert outcome.kind == kind, outcome.message
    if kind == "refused":
        assert repr(str(song)) in outcome.message or repr(str(out)) in outcome.message


NAMES = [
    " song .wav",
    'it\'s "one".wav',
    "two\nlines.wav",
    "--force",
    "-rf.wav",
    "$(reboot);`reboot`.wav",
    "%s%n{song}{0}.wav",
    "CON.wav",
    "Žluťoučký 🎵 יום שני.wav",
    "e\u0301 combining \u202e right to left.wav",
    "bad \udcff\udcfe.wav",
    "\x1b[31mred\x07.wav",
    "x" * 251 + ".wav",
    "界" * 84 + ".w",
    ".hidden",
    "...",
    "run.json",
]


@pytest.mark.parametrize("name", NAMES)
def test_odd_names(name: str, victim: Victim, tmp_path: Path) -> None:
    song, out = tmp_path / name, tmp_path / "out"
    os.rename(put(tmp_path / "plain", noise(3000)), song)  # soundfile takes no odd names itself.
    outcome = victim.separate(song, out)
    check(outcome, out, repr(name))
    assert outcome.kind == "success", outcome.message
    assert all(each.name.isprintable() for each in out.iterdir())


@pytest.mark.parametrize("name", ["x" * 256, "x" * 5000, "a/" * 3000, "nul\0l"])
def test_names_that_no_system_has(name: str, victim: Victim, tmp_path: Path) -> None:
    outcome = victim.separate(tmp_path / name, tmp_path / "out")
    check(outcome, tmp_path / "out", name[:20])
    assert outcome.kind == "refused"


def test_nothing_stays_open_after_many_files(
    intact: dict[str, bytes], victim: Victim, tmp_path: Path
) -> None:
    song, out = tmp_path / "song", tmp_path / "out"
    counts = []
    for round_ in range(3):
        for number, content in enumerate(intact.values()):
            song.write_bytes(damaged(content, content, number) if round_ % 2 else content)
            outcome = victim.separate(song, out)
            shutil.rmtree(out, ignore_errors=True)
        counts.append((outcome.files, outcome.threads))
    assert len(set(counts)) == 1, counts
