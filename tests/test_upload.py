"""The upload as its pages speak to it; the browser test clicks it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
import soundfile

from stemlab import audio
from stemlab._isolation import SERVED_FOLDER
from stemlab.errors import AudioError, OutputError, ParameterError
from stemlab.widgets import SongUpload, _arriving
from stemlab.widgets._arriving import _audio_name, _safe_name

PIECE = 10_000


def wave(rng: np.random.Generator, samples: int = 20_000) -> bytes:
    file = BytesIO()
    soundfile.write(file, rng.uniform(-0.5, 0.5, samples), 44100, format="WAV", subtype="PCM_16")
    return file.getvalue()


class Browser:
    """A page: cuts a file as upload.js does, and hears what the kernel answers."""

    def __init__(self, upload: SongUpload) -> None:
        self.upload = upload
        self.heard: list[dict[str, Any]] = []
        upload.send = self.hear

    def hear(self, content: dict[str, Any], buffers: object = None) -> None:
        assert buffers is None
        self.heard.append(content)

    def say(self, content: dict[str, Any], *buffers: bytes) -> dict[str, Any]:
        """Send a message the way ipywidgets passes it on; give the first answer, if any."""
        before = len(self.heard)
        self.upload._handle_custom_msg(content, [memoryview(each) for each in buffers])
        return (self.heard[before:] or [{}])[0]

    def start(self, name: str, size: int, id_: str = "a") -> dict[str, Any]:
        return self.say({"kind": "start", "id": id_, "name": name, "size": size})

    def piece(self, offset: int, content: bytes, id_: str = "a") -> dict[str, Any]:
        return self.say({"kind": "piece", "id": id_, "offset": offset}, content)

    def send_file(self, name: str, content: bytes, id_: str = "a") -> None:
        answer = self.start(name, len(content), id_)
        while answer.get("kind") == "ack" and answer["offset"] < len(content):
            offset = answer["offset"]
            answer = self.piece(offset, content[offset : offset + PIECE], id_)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "songs"


@pytest.fixture
def upload(folder: Path) -> Iterator[SongUpload]:
    made = SongUpload(folder)
    yield made
    made.close()


@pytest.fixture
def browser(upload: SongUpload) -> Browser:
    return Browser(upload)


@pytest.fixture
def song(rng: np.random.Generator) -> bytes:
    return wave(rng)


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []


# --- the whole way


def test_a_song_arrives_byte_for_byte(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    shares: list[float] = []
    states: list[str] = []
    hidden: list[list[str]] = []
    upload.observe(lambda change: states.append(change.new), "state")
    upload.observe(lambda change: shares.append(change.new), "progress")
    upload.observe(lambda _: hidden.append(names(folder)), "progress")
    assert (upload.state, upload.path) == ("idle", "")
    browser.send_file("hum.wav", song)
    assert (folder / "hum.wav").read_bytes() == song
    assert names(folder) == ["hum.wav"]
    assert upload.wait(0) == folder / "hum.wav"
    assert upload.path == str(folder / "hum.wav")
    assert states == ["uploading", "done"]
    assert len(shares) == 5
    assert shares == sorted(shares)
    assert shares[-1] == 1
    for (name,) in hidden:
        assert name.startswith(".stemlab-")
        assert name.endswith(".partial")
    assert (upload.error, upload.message) == ("", "Uploaded 'hum.wav' to 'songs'.")
    assert browser.heard[-1] == {"kind": "end", "id": "a", "state": "done"}


def test_content_is_in_no_state_and_the_path_is_not_shown(
    upload: SongUpload, browser: Browser, song: bytes
) -> None:
    browser.send_file("hum.wav", song)
    state = upload.get_state()
    assert "path" not in state
    assert not [key for key, value in state.items() if isinstance(value, bytes | memoryview)]
    assert {"state", "progress", "message", "error", "_esm", "_css"} <= state.keys()
    assert repr(upload) == "SongUpload(folder='songs', state='done')"


def test_another_song_of_the_same_name_gets_a_number(
    upload: SongUpload, browser: Browser, folder: Path, rng: np.random.Generator
) -> None:
    songs = [wave(rng) for _ in range(3)]
    for number, content in enumerate(songs):
        browser.send_file("hum.wav", content, str(number))
    assert names(folder) == ["hum (2).wav", "hum (3).wav", "hum.wav"]
    assert (folder / "hum.wav").read_bytes() == songs[0]
    assert upload.wait(0) == folder / "hum (3).wav"
    assert upload.wait(0).read_bytes() == songs[2]
    browser.send_file("hum.wav", songs[1], "again")
    assert upload.wait(0) == folder / "hum (2).wav"
    assert "with the same content" in upload.message
    assert len(names(folder)) == 3


def test_folders_in_the_way_are_stepped_over(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    (folder / "hum.wav").mkdir(parents=True)
    browser.send_file("hum.wav", song)
    assert upload.wait(0) == folder / "hum (2).wav"


# --- what is left in the folder


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ("stemlab.py", "stemlab.py.wav"),
        ("hum", "hum.wav"),
        ("hum.ipynb", "hum.ipynb.wav"),
        ("hum.flac.exe", "hum.flac.exe.wav"),
        ("hum.WAV", "hum.WAV"),
        ("hum.mp3", "hum.mp3"),
    ],
)
def test_every_song_is_named_like_a_recording(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes, name: str, stored: str
) -> None:
    browser.send_file(name, song)
    assert names(folder) == [stored]
    assert upload.wait(0).read_bytes() == song


def test_endings_are_those_of_the_format(rng: np.random.Generator, tmp_path: Path) -> None:
    for container, suffix in (
        ("FLAC", ".flac"),
        ("OGG", ".ogg"),
        ("WAVEX", ".wav"),
        ("VOC", ".voc"),
    ):
        soundfile.write(tmp_path / "x", rng.uniform(-0.5, 0.5, 9000), 44100, format=container)
        assert _audio_name("x.py", audio.read_info(tmp_path / "x")) == f"x.py{suffix}"


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL")
def test_what_a_killed_upload_left_is_removed_by_the_next(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    code = (
        "import os, signal, sys\n"
        "from stemlab.widgets import SongUpload\n"
        "upload = SongUpload(sys.argv[1])\n"
        "for content, buffers in (\n"
        "    ({'kind': 'start', 'id': 'a', 'name': 'hum.wav', 'size': 9}, []),\n"
        "    ({'kind': 'piece', 'id': 'a', 'offset': 0}, [memoryview(b'RIFF')]),\n"
        "):\n"
        "    upload._handle_custom_msg(content, buffers)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", code, folder], check=False)
    (left_behind,) = names(folder)
    assert (folder / left_behind / "song.upload").read_bytes() == b"RIFF"
    browser.send_file("hum.wav", song)
    assert names(folder) == ["hum.wav"]


# --- messages that do not fit


def test_pieces_out_of_turn_are_not_taken(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    assert browser.start("hum.wav", len(song)) == {"kind": "ack", "id": "a", "offset": 0}
    assert browser.start("hum.wav", len(song)) == {"kind": "ack", "id": "a", "offset": 0}
    first, second = song[:PIECE], song[PIECE : 2 * PIECE]
    assert browser.piece(PIECE, second)["offset"] == 0
    assert browser.piece(0, first)["offset"] == PIECE
    assert browser.piece(0, first)["offset"] == PIECE
    assert browser.piece(3 * PIECE, second)["offset"] == PIECE
    assert browser.piece(-5, second)["offset"] == PIECE
    assert browser.piece(PIECE, second)["offset"] == 2 * PIECE
    asked = browser.say({"kind": "where", "id": "a", "offset": PIECE})
    assert asked == {"kind": "ack", "id": "a", "offset": 2 * PIECE, "asked": PIECE}
    browser.piece(2 * PIECE, song[2 * PIECE :])
    assert upload.wait(0).read_bytes() == song
    assert names(folder) == ["hum.wav"]
    # Of an upload that is over, its end is said again.
    for answer in (browser.piece(0, first), browser.start("hum.wav", 5)):
        assert answer == {"kind": "end", "id": "a", "state": "done"}


def test_other_uploads_do_not_disturb(upload: SongUpload, browser: Browser, song: bytes) -> None:
    browser.start("hum.wav", len(song))
    browser.piece(0, song[:PIECE])
    unknown = {"kind": "end", "id": "b", "state": "unknown"}
    assert browser.piece(PIECE, b"x" * PIECE, "b") == unknown
    for kind in ("where", "cancel", "unreadable"):
        assert browser.say({"kind": kind, "id": "b", "offset": 0}) == unknown
    refusal = browser.start("other.wav", 100, "b")
    assert (refusal["kind"], refusal["id"]) == ("refused", "b")
    assert refusal["message"].startswith("'hum.wav' is being uploaded.")
    assert upload.state == "uploading"
    browser.piece(PIECE, song[PIECE:])
    assert upload.wait(0).read_bytes() == song


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"kind": "other"},
        {"kind": "start", "id": "b", "name": "x.wav", "size": "9"},
        {"kind": "start", "id": "b", "size": 9},
        {"kind": "piece", "id": "a", "offset": "0"},
        {"kind": "piece", "id": "a", "offset": 0},
        {"kind": "piece", "id": None, "offset": 0},
        "text",
    ],
)
def test_malformed_messages_are_ignored(
    upload: SongUpload, browser: Browser, song: bytes, content: Any
) -> None:
    browser.start("hum.wav", len(song))
    assert browser.say(content) == {}
    browser.piece(0, song)
    assert upload.wait(0).read_bytes() == song


def test_a_page_sets_no_trait(upload: SongUpload) -> None:
    before = upload.get_state()
    state = {"state": "done", "path": "x.wav", "message": "x", "_upload_id": "x", "_esm": "x"}
    upload._handle_msg({"content": {"data": {"method": "update", "state": state}}})
    assert upload.get_state() == before
    assert upload.path == ""


@pytest.mark.parametrize("size", [-1, 0, -(10**400)])
def test_empty_files_are_refused(
    upload: SongUpload, browser: Browser, folder: Path, size: int
) -> None:
    browser.start("hum.wav", size)
    with pytest.raises(AudioError, match=r"'hum.wav' is empty \(0 bytes\)"):
        upload.wait(0)
    assert upload.state == "failed"
    assert names(folder) == []


@pytest.mark.parametrize("sent", [b"", b"x" * 101])
def test_sizes_must_agree(upload: SongUpload, browser: Browser, folder: Path, sent: bytes) -> None:
    browser.start("hum.wav", 100)
    browser.piece(0, sent)
    with pytest.raises(
        AudioError, match=f"sent {len(sent)} bytes of 'hum.wav' where 100 were left"
    ):
        upload.wait(0)
    assert names(folder) == []


def test_a_file_that_the_browser_cannot_read_any_more(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    browser.start("hum.wav", len(song))
    browser.piece(0, song[:PIECE])
    browser.say({"kind": "unreadable", "id": "a"})
    with pytest.raises(AudioError, match="the browser can no longer read 'hum.wav'"):
        upload.wait(0)
    assert names(folder) == []


def test_two_threads_that_send_the_same_pieces(
    upload: SongUpload, browser: Browser, folder: Path, rng: np.random.Generator
) -> None:
    song = wave(rng, 500_000)
    offsets = range(0, len(song), PIECE)
    browser.start("hum.wav", len(song))
    together = threading.Barrier(2)

    def send() -> None:
        together.wait()
        for offset in offsets:
            browser.piece(offset, song[offset : offset + PIECE])

    threads = [threading.Thread(target=send) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(60)
    assert upload.wait(0).read_bytes() == song
    assert names(folder) == ["hum.wav"]


# --- ending early


def test_cancelling_leaves_nothing(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    browser.start("hum.wav", len(song))
    browser.piece(0, song[:PIECE])
    assert len(names(folder)) == 1
    upload.cancel()
    assert names(folder) == []
    assert (upload.state, upload.error) == ("cancelled", "")
    assert upload.message == "Cancelled. Nothing was kept."
    ended = {"kind": "end", "id": "a", "state": "cancelled"}
    assert browser.heard[-1] == ended
    assert browser.piece(PIECE, song[PIECE:]) == ended
    assert names(folder) == []
    with pytest.raises(AudioError, match="'hum.wav' was cancelled"):
        upload.wait()
    upload.cancel()

    browser.start("hum.wav", len(song), "b")
    browser.piece(0, song[:PIECE], "b")
    browser.say({"kind": "cancel", "id": "b"})
    assert upload.state == "cancelled"
    assert names(folder) == []

    browser.send_file("hum.wav", song, "c")
    assert upload.wait(0).read_bytes() == song


@pytest.mark.parametrize("trait", ["state", "progress", "message"])
def test_observers_may_cancel(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes, trait: str
) -> None:
    upload.observe(lambda _: upload.cancel(), trait)
    browser.send_file("hum.wav", song)
    assert upload.state == "cancelled"
    assert names(folder) == []


def test_observers_that_fail_end_the_upload(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    def fail(_: object) -> None:
        raise RuntimeError("of the observer")

    upload.observe(fail, "progress")
    browser.send_file("hum.wav", song)
    assert upload.state == "failed"
    assert "RuntimeError: of the observer" in upload.error
    assert names(folder) == []


def test_observers_of_the_end_cannot_undo_it(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    def fail(change: Any) -> None:
        if change.new != "uploading":
            raise AudioError("of the observer")

    upload.observe(fail, "state")
    browser.send_file("hum.wav", song)
    assert upload.state == "done"
    assert upload.wait(0).read_bytes() == song
    assert browser.heard[-1]["kind"] == "end"


def test_an_interrupted_piece_ends_the_upload(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    upload.observe(interrupt, "progress")
    browser.start("hum.wav", len(song))
    with pytest.raises(KeyboardInterrupt):
        browser.piece(0, song[:PIECE])
    assert upload.state == "cancelled"
    assert names(folder) == []


def test_closing_leaves_nothing(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    browser.start("hum.wav", len(song))
    browser.piece(0, song[:PIECE])
    upload.close()
    assert names(folder) == []
    assert browser.piece(PIECE, song[PIECE:]) == {}
    assert browser.start("hum.wav", len(song), "b") == {}
    assert names(folder) == []
    with pytest.raises(AudioError, match="was cancelled"):
        upload.wait()


def test_waiting(upload: SongUpload, browser: Browser, folder: Path, song: bytes) -> None:
    with pytest.raises(AudioError, match="no song was uploaded yet"):
        upload.wait()
    browser.start("hum.wav", 2 * PIECE)
    browser.piece(0, song[:PIECE])
    with pytest.raises(TimeoutError, match=r"timeout=0.01 s \(50%\)"):
        upload.wait(0.01)
    assert upload.state == "uploading"
    upload.cancel()
    browser.start("hum.wav", len(song), "b")
    sender = threading.Timer(0.05, lambda: browser.piece(0, song, "b"))
    sender.start()
    assert upload.wait(60) == folder / "hum.wav"
    sender.join()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no interrupt to one process")
def test_interrupting_a_waiting_cell_cancels(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    browser.start("hum.wav", len(song))
    interrupt = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        upload.wait(60)
    assert upload.state == "cancelled"
    assert names(folder) == []


# --- what is refused


@pytest.mark.parametrize("content", [b"no recording at all\n" * 1000, b"RIFF"])
def test_what_is_no_recording_is_removed(
    upload: SongUpload, browser: Browser, folder: Path, content: bytes
) -> None:
    browser.send_file("notes.wav", content)
    with pytest.raises(AudioError, match=r"notes\.wav' is not audio, or is damaged"):
        upload.wait(0)
    assert (upload.state, upload.path) == ("failed", "")
    assert "notes.wav' is not audio, or is damaged" in upload.error
    assert "Traceback" not in upload.error
    assert names(folder) == []


def test_a_file_that_was_there_is_not_removed(
    upload: SongUpload, browser: Browser, folder: Path
) -> None:
    folder.mkdir()
    (folder / "notes.txt").write_bytes(b"mine" * 100)
    browser.send_file("notes.txt", b"mine" * 100)
    assert upload.state == "failed"
    assert names(folder) == ["notes.txt"]


def test_a_size_beyond_all_numbers_is_refused(upload: SongUpload, browser: Browser) -> None:
    browser.start("song.wav", 10**400)
    assert "MB. Choose a smaller file" in upload.error


def test_too_large_files_are_refused_at_once(folder: Path) -> None:
    upload = SongUpload(folder, max_bytes=1_000_000)
    answer = Browser(upload).start("hum.wav", 1_000_001)
    with pytest.raises(AudioError, match="'hum.wav' has 1.0 MB; the limit is 1.0 MB"):
        upload.wait(0)
    assert answer == {"kind": "end", "id": "a", "state": "failed"}
    assert names(folder) == []
    upload.close()


def test_visitors_cannot_fill_the_disk(
    folder: Path, song: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVED_FOLDER, str(folder))
    monkeypatch.setattr(_arriving, "_SERVED_BYTES", 2 * len(song))
    first, second, third = (SongUpload(folder) for _ in range(3))
    browsers = [Browser(upload) for upload in (first, second, third)]
    browsers[0].send_file("hum.wav", song)
    # There is room for one more, not for two at once.
    for browser in browsers[1:]:
        assert browser.start("other.wav", len(song))["kind"] == "ack"
    for browser in browsers[1:]:
        browser.piece(0, song[:PIECE])
    assert third.state == "failed"
    with pytest.raises(OutputError, match="the folder has no room for it: it may hold"):
        third.wait(0)
    browsers[1].piece(PIECE, song[PIECE:])
    assert second.state == "done"
    for upload in (first, second, third):
        upload.close()


def test_visitors_upload_into_the_folder_that_is_served_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SERVED_FOLDER, str(tmp_path / "served"))
    SongUpload(tmp_path / "served" / "songs").close()
    with pytest.raises(ParameterError, match="is outside the folder that is served here"):
        SongUpload(tmp_path / "elsewhere")


def test_too_little_space_is_told_at_once(
    upload: SongUpload, browser: Browser, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1_500_000))
    browser.start("hum.wav", 2_000_000)
    with pytest.raises(OutputError, match=r"has 2.0 MB, and '.*songs' has 1.5 MB of free space"):
        upload.wait(0)
    assert names(folder) == []


class FullDisk:
    """A file on a disk that has room for one piece."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.written = 0

    def write(self, content: memoryview) -> int:
        self.written += 1
        if self.written > 1:
            raise OSError(28, "No space left on device")
        return self.file.write(content)

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


def test_a_full_disk_is_told_in_words(
    upload: SongUpload, browser: Browser, folder: Path, song: bytes
) -> None:
    browser.start("hum.wav", len(song))
    assert upload._current is not None
    song_file = upload._current._file
    assert song_file is not None
    upload._current._file = FullDisk(song_file)  # type: ignore[assignment]
    browser.piece(0, song[:PIECE])
    answer = browser.piece(PIECE, song[PIECE:])
    assert answer == {"kind": "end", "id": "a", "state": "failed"}
    with pytest.raises(
        OutputError, match="cannot be written to .*: No space left on device. Check"
    ):
        upload.wait(0)
    assert "No space left on device" in upload.error
    assert names(folder) == []
    browser.send_file("hum.wav", song, "b")
    assert upload.wait(0).read_bytes() == song
    assert upload.error == ""


def test_a_file_that_cannot_be_renamed_leaves_nothing(
    upload: SongUpload,
    browser: Browser,
    folder: Path,
    song: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    for name in ("link", "rename", "replace"):
        monkeypatch.setattr(os, name, refuse)
    browser.send_file("hum.wav", song)
    with pytest.raises(OutputError, match="Permission denied"):
        upload.wait(0)
    assert names(folder) == []


def test_a_folder_that_is_none(tmp_path: Path, song: bytes) -> None:
    file = tmp_path / "file"
    upload = SongUpload(file / "inside")
    file.write_bytes(b"")
    with pytest.raises(ParameterError, match="is not a folder"):
        SongUpload(file)
    with pytest.raises(ParameterError, match="max_bytes=0 must be 1 or more"):
        SongUpload(tmp_path, max_bytes=0)
    Browser(upload).send_file("hum.wav", song)
    with pytest.raises(OutputError, match="cannot be written to"):
        upload.wait(0)
    upload.close()


# --- names


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("hum.wav", "hum.wav"),
        ("Ágætis byrjun 01.flac", "Ágætis byrjun 01.flac"),
        ("../../x.wav", "x.wav"),
        ("C:\\x.wav", "x.wav"),
        ("C:x.wav", "C_x.wav"),
        ("/etc/passwd", "passwd"),
        ("a/", "song"),
        ("..", "song"),
        ("", "song"),
        ("\x00", "song"),
        ("a\x00b\nc.wav", "ab c.wav"),
        (".wav", "song.wav"),
        (".hidden.wav", "hidden.wav"),
        ("...x.wav", "x.wav"),
        ("x.wav. .", "x.wav"),
        ("CON.wav", "_CON.wav"),
        ("com1.tar.wav", "_com1.tar.wav"),
        ("nul", "_nul"),
        ("Console.wav", "Console.wav"),
        ("x" * 300 + ".wav", "x" * 120 + ".wav"),
        ("日" * 300 + ".mp3", "日" * 40 + ".mp3"),
        ("song\u202evaw.exe", "songvaw.exe"),
        ("\u200f\u2066hum\u2069.wav", "hum.wav"),
        ("e\u0301.wav", "é.wav"),
        ("lone \ud800.wav", "lone.wav"),
        ('<img src="x">.mp3', "_img src=_x__.mp3"),
        ("no. 1 of many words", "no. 1 of many words"),
    ],
)
def test_names_are_made_safe(name: str, safe: str) -> None:
    assert _safe_name(name) == safe
    assert len(os.fsencode(safe)) < 200


@pytest.mark.parametrize("name", ["../../x.wav", "C:\\x.wav", "\x00.wav", "CON.wav", "\u202e.wav"])
def test_no_name_leaves_the_folder(
    upload: SongUpload, browser: Browser, tmp_path: Path, folder: Path, song: bytes, name: str
) -> None:
    browser.send_file(name, song)
    assert upload.state == "done"
    assert names(tmp_path) == ["songs"]
    assert names(folder) == [_safe_name(name)]
    assert upload.wait(0).read_bytes() == song
