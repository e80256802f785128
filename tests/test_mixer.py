"""The stem mixer without a page: what it answers to messages, and what may be set."""

from __future__ import annotations

import gc
import json
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import traitlets

from stemlab.audio import read_file
from stemlab.errors import AudioError, AudioNotFoundError, ParameterError
from stemlab.widgets import StemMixer, _lanes, mixer

RATE = 8000
PIECE = mixer._PIECE_SAMPLES
STEP = 2.0**-15
SECONDS = 60

Message = tuple[dict[str, Any], list[bytes]]
Make = Callable[..., StemMixer]


def noise(samples: int = RATE, channels: int = 2, seed: int = 0, level: float = 0.5) -> Any:
    generator = np.random.default_rng(seed)
    return (level * generator.uniform(-1, 1, (channels, samples))).astype(np.float32)


def put(path: Path, audio: Any, rate: int = RATE, **options: Any) -> Path:
    soundfile.write(path, audio.T, rate, **options)
    return path


def song(*names: str) -> dict[str, Any]:
    return {name: noise(seed=seed) for seed, name in enumerate(names)}


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Message]:
    """What the mixers told their pages."""
    messages: list[Message] = []
    monkeypatch.setattr(
        StemMixer,
        "send",
        lambda _, content, buffers=None: messages.append((content, list(buffers or ()))),
    )
    return messages


@pytest.fixture
def make(threads_end: None, sent: list[Message]) -> Iterator[Make]:
    made: list[StemMixer] = []

    def create(*arguments: Any, **options: Any) -> StemMixer:
        made.append(StemMixer(*arguments, **options))
        return made[-1]

    yield create
    for each in made:
        each.close()


def ask(asked: StemMixer, **content: Any) -> None:
    asked._on_message(asked, content, [])


def painted(asked: StemMixer) -> None:
    """Wait until the spectrograms are there, or were given up."""
    painter = asked._painter._thread
    assert painter is not None
    painter.join(SECONDS)
    assert not painter.is_alive()


def pieces(asked: StemMixer, sent: list[Message]) -> list[Any]:
    """What a page plays: all pieces of each track, joined."""
    sent.clear()
    number = 0
    while len(sent) == number:
        ask(asked, kind="piece", piece=number)
        number += 1
    assert [content for content, _ in sent] == [
        {"kind": "piece", "piece": each} for each in range(len(sent))
    ]
    tracks = []
    for parts in zip(*(buffers for _, buffers in sent), strict=True):
        decoded = []
        for part in parts:
            with soundfile.SoundFile(BytesIO(part)) as file:
                assert (file.format, file.subtype) == ("FLAC", "PCM_16")
                assert file.samplerate == asked._sample_rate
                decoded.append(file.read(dtype="float32", always_2d=True).T)
        # None is so short that a browser may refuse it, and all but the last start where the
        # page expects the next.
        assert [each.shape[1] for each in decoded[:-1]] == [PIECE] * (len(decoded) - 1)
        assert asked._samples < PIECE or decoded[-1].shape[1] >= PIECE
        tracks.append(np.concatenate(decoded, axis=1))
    sent.clear()
    return tracks


# --- pieces


@pytest.mark.parametrize("samples", [1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE + 5])
def test_joined_pieces_are_the_recordings(samples: int, make: Make, sent: list[Message]) -> None:
    stems = {"drums": noise(samples), "bass": noise(samples, 1, seed=1)}
    mixture = noise(samples, seed=2)
    tracks = pieces(make(stems, RATE, mixture=mixture), sent)
    assert len(tracks) == 3
    for found, expected in zip(tracks, [mixture, *stems.values()], strict=True):
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=0, atol=STEP)


@pytest.mark.parametrize("number", [-1, 2, 3, 10**9])
def test_pieces_that_are_not_there_are_ignored(
    number: int, make: Make, sent: list[Message]
) -> None:
    made = make({"drums": noise(2 * PIECE + 5)}, RATE)
    ask(made, kind="piece", piece=number)
    ask(made, kind="something else")
    ask(made)
    assert sent == []


def test_messages_of_a_page_arrive(make: Make, sent: list[Message]) -> None:
    made = make(song("drums"), RATE)
    made._handle_custom_msg({"kind": "piece", "piece": 0}, [])
    assert [content["kind"] for content, _ in sent] == ["piece"]


def test_the_loudest_scales_all_alike(make: Make, sent: list[Message]) -> None:
    loud, soft = noise(level=3.0), noise(seed=1, level=0.1)
    loud[0, 77] = -3.5
    made = make({"loud": loud}, RATE, other={"soft": soft})
    for found, expected in zip(pieces(made, sent), (loud, soft), strict=True):
        np.testing.assert_allclose(found, expected / 3.5, rtol=0, atol=STEP)


def test_full_scale_is_not_clipped(make: Make, sent: list[Message]) -> None:
    square = np.where(np.arange(RATE) % 100 < 50, 1.0, -1.0).astype(np.float32)
    (found,) = pieces(make({"square": square}, RATE), sent)
    np.testing.assert_allclose(found[0], square, rtol=0, atol=STEP)


def test_recordings_of_different_lengths_end_in_silence(
    make: Make, sent: list[Message], tmp_path: Path
) -> None:
    """Files and arrays alike, over more than is scanned at once."""
    long = noise(2 * _lanes._SCAN_SAMPLES + 99, 1)
    short = noise(1000, seed=1)
    middle = noise(PIECE + 9, 1, seed=2)
    file = put(tmp_path / "short.wav", short, subtype="FLOAT")
    made = make({"file": file, "array": middle, "long": long}, RATE)
    assert made.duration_seconds == long.shape[1] / RATE
    for found, expected in zip(pieces(made, sent), (short, middle, long), strict=True):
        silence = long.shape[1] - expected.shape[1]
        padded = np.pad(expected, ((0, 0), (0, silence)))
        np.testing.assert_allclose(found, padded, rtol=0, atol=STEP)


def test_files_of_another_rate_are_resampled(
    make: Make, sent: list[Message], tmp_path: Path
) -> None:
    first = put(tmp_path / "first.wav", noise(), RATE)
    second = put(tmp_path / "second.flac", noise(30_000, seed=1), 22_050)
    made = make({"a": first, "b": second})
    assert made._sample_rate == RATE
    found = pieces(made, sent)
    expected = read_file(second, sample_rate=RATE)[0]
    assert made._samples == expected.shape[1]
    np.testing.assert_allclose(found[0][:, :RATE], read_file(first)[0], rtol=0, atol=STEP)
    np.testing.assert_allclose(found[1], expected, rtol=0, atol=STEP)
    assert pieces(make({"a": first, "b": second}, 11_025), sent)[1].shape[1] == 15_000


# --- overviews


@pytest.mark.parametrize("samples", [1, 1199, 1200, 1201, _lanes._SCAN_SAMPLES + 4321])
def test_the_overview_holds_each_column_s_extremes(
    samples: int, make: Make, sent: list[Message]
) -> None:
    stems = {"drums": noise(samples), "bass": noise(samples, 1, seed=1, level=0.1)}
    peak = max(float(np.abs(each).max()) for each in stems.values())
    ask(make(stems, RATE), kind="overview")
    ((content, buffers),) = sent
    width = -(-samples // 1200)
    assert content == {"kind": "overview", "width": width}
    columns = -(-samples // width)
    assert columns <= 1200
    for buffer, audio in zip(buffers, stems.values(), strict=True):
        found = np.frombuffer(buffer, np.int8).reshape(2, columns)
        for column in range(columns):
            part = audio[:, column * width : (column + 1) * width]
            expected = np.round(127 / peak * np.array([part.min(), part.max()]))
            assert np.abs(found[:, column] - expected).max() <= 1
    assert max(np.abs(np.frombuffer(each, np.int8)).max() for each in buffers) == 127


def test_silence_has_an_overview(make: Make, sent: list[Message]) -> None:
    made = make({"silence": np.zeros((2, 5000))}, RATE)
    ask(made, kind="overview")
    assert not np.frombuffer(sent[0][1][0], np.int8).any()
    assert not pieces(made, sent)[0].any()
    ask(made, kind="spectrograms")
    painted(made)
    assert not np.frombuffer(sent[0][1][0], np.uint8).any()


# --- spectrograms


def test_each_track_has_a_spectrogram(make: Make, sent: list[Message]) -> None:
    """A tone is a line, at the height that the logarithmic axis has for it."""
    time = np.arange(4 * RATE) / RATE
    tone = (0.5 * np.sin(2 * np.pi * 400 * time)).astype(np.float32)
    made = make({"tone": tone, "short": tone[:RATE]}, RATE, mixture=tone)
    ask(made, kind="spectrograms")
    painted(made)
    assert [content["track"] for content, _ in sent] == [0, 1, 2]
    for content, (levels, colours) in sent:
        assert content["kind"] == "spectrogram"
        assert len(colours) == 4 * 256
        picture = np.frombuffer(levels, np.uint8).reshape(content["rows"], content["columns"])
        assert content["rows"] == 96
        assert 10 < content["columns"] <= 1200
        # The first row is the highest frequency.
        height = np.log(400 / 40) / np.log(RATE / 2 / 40)
        assert abs(int(picture[:, 5].argmax()) - 96 * (1 - height)) < 3
        if content["track"] < 2:
            assert picture.max() == 255
        else:
            # It ends after a quarter, and its picture is as wide as the others. Frames overlap.
            quarter = content["columns"] // 4
            assert content["columns"] == sent[0][0]["columns"]
            assert picture[:, : quarter - 4].max() == 255
            assert picture[:, quarter + 4 :].max() == 0


@pytest.mark.parametrize(("samples", "rate"), [(1, RATE), (700, 1000), (5000, 192_000)])
def test_spectrograms_of_the_shortest(
    samples: int, rate: int, make: Make, sent: list[Message]
) -> None:
    made = make({"long": noise(20 * samples), "short": noise(samples)}, rate)
    ask(made, kind="spectrograms")
    painted(made)
    assert [content["kind"] for content, _ in sent] == ["spectrogram"] * 2
    for content, (levels, _) in sent:
        assert len(levels) == content["rows"] * content["columns"]


def test_a_spectrogram_is_computed_in_blocks(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A track of hours must not be loaded at once."""
    lengths, read = [], mixer.SeekableRecording.read

    def measured(recording: Any, start: int, stop: int) -> Any:
        lengths.append(stop - start)
        return read(recording, start, stop)

    samples = 1_000_000
    made = make({"long": put(tmp_path / "long.wav", noise(samples, 1))}, RATE)
    monkeypatch.setattr(mixer.SeekableRecording, "read", measured)
    ask(made, kind="spectrograms")
    painted(made)
    assert sum(lengths) >= samples
    assert max(lengths) < samples / 5


def test_another_page_gets_all_spectrograms(
    make: Make, sent: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is opened while they are computed, and one that comes later."""
    computed, go_on = [], threading.Event()
    compute = _lanes._spectrogram

    def slow(*arguments: Any) -> Any:
        computed.append(arguments)
        if len(computed) == 2:
            assert go_on.wait(SECONDS)
        return compute(*arguments)

    monkeypatch.setattr(_lanes, "_spectrogram", slow)
    made = make(song("drums", "bass", "vocals"), RATE)
    ask(made, kind="spectrograms")
    while not sent:
        assert made._painter._thread is not None
        made._painter._thread.join(0.01)
    ask(made, kind="spectrograms")
    go_on.set()
    painted(made)
    assert [content["track"] for content, _ in sent] == [0, 0, 1, 2]
    ask(made, kind="spectrograms")
    assert [content["track"] for content, _ in sent[4:]] == [0, 1, 2]
    assert len(computed) == 3


# --- what goes wrong


def test_a_file_that_is_gone_is_told_the_page(
    make: Make, sent: list[Message], tmp_path: Path
) -> None:
    path = put(tmp_path / "drums.wav", noise())
    made = make({"drums": path})
    path.unlink()
    ask(made, kind="piece", piece=0)
    ask(made, kind="spectrograms")
    painted(made)
    assert len(sent) == 2
    for content, buffers in sent:
        assert content["kind"] == "failed"
        assert "drums.wav' cannot be read any more" in content["message"]
        assert buffers == []
    put(path, noise())  # another file of that name
    ask(made, kind="piece", piece=0)
    assert "has changed. Load it again" in sent[-1][0]["message"]
    # What is known already still comes.
    ask(made, kind="overview")
    assert sent[-1][0]["kind"] == "overview"


def test_a_page_hears_of_failures_of_every_kind(
    make: Make, sent: list[Message], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without an answer it would ask again."""

    def fail(*_: object) -> None:
        raise OSError("no room")

    monkeypatch.setattr(mixer, "_encode", fail)
    monkeypatch.setattr(_lanes, "_spectrogram", fail)
    made = make(song("drums"), RATE)
    ask(made, kind="piece", piece=0)
    ask(made, kind="spectrograms")
    painted(made)
    said = "This is a bug of stemlab, please report it. OSError: no room"
    assert sent == [({"kind": "failed", "message": said}, [])] * 2


@pytest.mark.filterwarnings("error")
def test_an_interrupt_while_sound_is_encoded_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    class Interrupting(BytesIO):
        def write(self, content: Any) -> int:
            signal.raise_signal(signal.SIGINT)
            return super().write(content)

    monkeypatch.setattr(mixer, "BytesIO", Interrupting)
    with pytest.raises(KeyboardInterrupt):
        mixer._encode(noise(), RATE, "flac")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (({}, RATE), "there are no stems. Pass a mapping"),
        (([noise()], RATE), "there are no stems. Pass a mapping"),
        (("song.wav", RATE), "there are no stems. Pass a mapping"),
        (({"mixture": noise()}, RATE), "a stem is called 'mixture'. Pass it as mixture="),
        (({"drums": noise()},), "sample_rate is missing"),
        (({"drums": noise()}, 12.5), "sample_rate=12.5 is not a sample rate"),
        (({"drums": noise()}, 700_000), "does not go with format='flac'"),
    ],
)
def test_what_cannot_be_mixed_is_refused(arguments: Any, said: str) -> None:
    with pytest.raises(ParameterError, match=said):
        StemMixer(*arguments)
    # What was begun is closed as well, without complaints (which fail a test).
    gc.collect()


@pytest.mark.parametrize("other", [{}, {"mixture": noise()}, [noise()]])
def test_a_second_result_that_cannot_be_mixed_is_refused(other: Any) -> None:
    with pytest.raises(ParameterError, match="there are no stems|a stem is called 'mixture'"):
        StemMixer(song("drums"), RATE, other=other)


@pytest.mark.parametrize(
    "labels", [("A",), ("A", "A"), ("A", ""), ("A", 1), "AB", None, ("A",) * 3]
)
def test_labels_that_are_not_two_are_refused(labels: Any) -> None:
    with pytest.raises(ParameterError, match="labels=.* are not two different names. Pass"):
        StemMixer(song("drums"), RATE, labels=labels)
    gc.collect()


def test_recordings_that_cannot_be_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those before them, which can, are let go."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    decoded = put(tmp_path / "song.ogg", noise())
    closed = []
    close = mixer.SeekableRecording.close
    monkeypatch.setattr(
        mixer.SeekableRecording, "close", lambda each: (closed.append(each), close(each))
    )
    with pytest.raises(AudioNotFoundError, match="does not exist"):
        StemMixer({"drums": decoded, "bass": tmp_path / "gone.wav"})
    assert len(set(closed)) == 1
    assert closed[0]._decoded.closed
    with pytest.raises(AudioError, match="has 3 channels"):
        StemMixer({"drums": noise(RATE, 3)}, RATE)
    gc.collect()


# --- what may be set

WRONG = [
    ("position_seconds", -0.1, "position_seconds=-0.1 is not in \\[0, 1.000\\]"),
    ("position_seconds", float("nan"), "position_seconds=nan"),
    ("position_seconds", float("inf"), "position_seconds=inf"),
    ("loop_seconds", (0.5,), "loop_seconds=\\(0.5,\\) is not a range of at least 0.1 s"),
    ("loop_seconds", (0.1, 0.2, 0.3), "is not a range"),
    ("loop_seconds", (0.5, 0.2), "is not a range"),
    ("loop_seconds", (0.5, 0.55), "is not a range"),
    ("loop_seconds", (-0.1, 0.5), "is not a range"),
    ("loop_seconds", (0.5, 1.1), "in \\[0, 1.000\\]. Pass \\(start, stop\\)"),
    ("loop_seconds", (0.0, float("nan")), "is not a range"),
    ("loop_seconds", ("a", "b"), "is not a range"),
    ("loop_seconds", (None, 0.5), "is not a range"),
    ("muted", ("guitar",), "muted: 'guitar' is not a row here. Pass some of 'mixture', 'drums'"),
    ("muted", (1,), "muted: 1 is not a row"),
    ("soloed", ("drums", "guitar"), "soloed: 'guitar' is not a row"),
    ("gains_db", {"guitar": 1.0}, "gains_db: 'guitar' is not a row"),
    ("gains_db", {"drums": 12.1}, "gains_db\\['drums'\\]=12.1 is not in \\[-40, 12\\]"),
    ("gains_db", {"drums": -41}, "Mute the row to silence it"),
    ("gains_db", {"drums": float("nan")}, "gains_db\\['drums'\\]=nan"),
    ("gains_db", {"drums": "loud"}, "gains_db\\['drums'\\]='loud'"),
    ("gains_db", {"drums": None}, "gains_db\\['drums'\\]=None"),
    ("heard", "C", "heard='C' is not one of 'A', 'B'"),
    ("heard", "", "heard='' is not one of"),
]


@pytest.mark.parametrize(("trait", "value", "said"), WRONG)
def test_wrong_values_are_refused(trait: str, value: Any, said: str, make: Make) -> None:
    """From Python in words, from a page without any, and what was there stays."""
    made = make(song("drums", "bass"), RATE, mixture=noise(), other=song("drums", "bass"))
    before = made.get_state([trait])
    with pytest.raises(ParameterError, match=said):
        setattr(made, trait, value)
    assert made.get_state([trait]) == before
    made.set_state({trait: value})
    assert made.get_state([trait]) == before


PRIVATE = {
    "_samples": 10**12,
    "_piece_samples": 1,
    "_sample_rate": 10**9,
    "_rows": ["guitar"],
    "_labels": ["C"],
    "_tracks": [{"row": "guitar", "label": "C"}] * 1000,
    "_answers": {"piece": []},
    "_esm": "export default { render() { alert(1); } }",
    "_css": "body { display: none }",
    "_model_module": "elsewhere",
    "_view_name": "Other",
    "layout": "IPY_MODEL_0",
    "tooltip": "x",
    "_dom_classes": ["x"],
    "comm": 1,
    "no such trait": 1,
}


@pytest.mark.parametrize("name", PRIVATE)
def test_a_page_cannot_set_what_is_not_its_own(name: str, make: Make) -> None:
    made = make(song("drums"), RATE, other=song("drums"))
    before = made.get_state()
    state = {name: PRIVATE[name], "heard": "B"}
    made._handle_msg({"content": {"data": {"method": "update", "state": state}}, "buffers": []})
    assert made.heard == "B"
    assert {**made.get_state(), "heard": "A"} == before


NESTED: Any = "x"
for _ in range(900):
    NESTED = [NESTED]


@pytest.mark.parametrize(
    "data",
    [
        *(
            {"method": "update", "state": {name: value}}
            for name in (
                "position_seconds",
                "gains_db",
                "loop_seconds",
                "muted",
                "heard",
                "lanes",
                "playing",
                "message",
                "_player",
            )
            for value in (None, 10**400, NESTED, {"drums": 10**400}, [10**400, 1], "x" * 10**6)
            if (name, value) not in (("gains_db", None), ("loop_seconds", None))
        ),
        {"method": "update", "state": [1]},
        {"method": "update"},
        {"method": "update", "state": {}, "buffer_paths": [["a", 1], 7]},
        {"method": "custom", "content": ["piece"]},
        {"method": "custom", "content": {"kind": ["piece"], "piece": 0}},
        *(
            {"method": "custom", "content": {"kind": "piece", "piece": number}}
            for number in (10**400, -1, "0", None, 0.0, float("nan"), [0], {}, NESTED)
        ),
        {"method": "custom", "content": {"kind": "piece"}},
        {"method": "custom"},
        {"method": 1},
        {},
        [],
        None,
    ],
    ids=lambda data: repr(data)[:80],
)
def test_odd_messages_are_ignored(
    data: Any, make: Make, sent: list[Message], caplog: pytest.LogCaptureFixture
) -> None:
    made = make(song("drums"), RATE)
    before = made.get_state()
    made._handle_msg({"content": {"data": data}, "buffers": []})
    assert made.get_state() == before
    assert sent == []
    assert "Exception" not in caplog.text
    assert len(caplog.records) <= 1


@pytest.mark.parametrize(
    ("trait", "value"),
    [
        ("position_seconds", "1"),
        ("loop_seconds", 1.0),
        ("muted", "drums"),
        ("gains_db", [1.0]),
        ("heard", None),
        ("lanes", "notes"),
        ("playing", "yes"),
    ],
)
def test_values_of_another_type_are_refused(trait: str, value: Any, make: Make) -> None:
    made = make(song("drums"), RATE)
    with pytest.raises(traitlets.TraitError, match=f"The '{trait}' trait of a StemMixer"):
        setattr(made, trait, value)


def test_what_is_set_is_brought_into_form(make: Make) -> None:
    made = make(song("drums", "bass", "vocals"), RATE, mixture=noise())
    assert (made.muted, made.soloed, made.heard) == (("mixture",), (), "A")
    made.position_seconds = 99
    assert made.position_seconds == 1.0
    made.loop_seconds = [np.float32(0.5), 1 + 1e-10]
    assert made.loop_seconds == (0.5, 1.0)
    made.loop_seconds = ()
    assert made.loop_seconds == ()
    made.muted = ["vocals", "drums", "vocals"]
    assert made.muted == ("drums", "vocals")
    made.gains_db = {"bass": np.float32(-6), "drums": 12}
    assert made.gains_db == {"bass": -6.0, "drums": 12.0}
    json.dumps(made.get_state(["loop_seconds", "gains_db", "position_seconds"]))


def test_a_song_shorter_than_the_shortest_loop_loops_as_a_whole(make: Make) -> None:
    made = make({"click": noise(40)}, RATE)
    made.loop_seconds = (0, 0.005)
    assert made.loop_seconds == (0, 0.005)
    with pytest.raises(ParameterError, match="at least 0.005 s"):
        made.loop_seconds = (0, 0.004)


def test_two_results_may_have_different_stems(make: Make, sent: list[Message]) -> None:
    first, second = song("drums", "bass", 7), song("vocals", "drums")  # type: ignore[arg-type]
    made = make(first, RATE, mixture=noise(), other=second, labels=("model", "truth"))
    assert made._rows == ["mixture", "drums", "bass", "7", "vocals"]
    assert made._labels == ["model", "truth"]
    assert made._tracks == [
        {"row": "mixture", "label": ""},
        {"row": "drums", "label": "model"},
        {"row": "bass", "label": "model"},
        {"row": "7", "label": "model"},
        {"row": "vocals", "label": "truth"},
        {"row": "drums", "label": "truth"},
    ]
    assert len(pieces(made, sent)) == 6
    made.heard, made.soloed = "truth", ("vocals", "7")
    assert made.soloed == ("7", "vocals")


def test_what_is_saved_holds_no_audio(make: Make) -> None:
    stem = noise(15 * 44_100)
    stems = dict.fromkeys(["drums", "bass", "other", "vocals"], stem)
    made = make(stems, 44_100, mixture=stem, other=stems)
    state = made.get_state()
    written = {name: each for name, each in state.items() if name not in ("_esm", "_css")}
    assert len(json.dumps(written)) < 5000
    assert written["_answers"] == {}
    # Nor after a page asked for things.
    ask(made, kind="overview")
    ask(made, kind="piece", piece=3)
    assert made.get_state() == state


# --- for pages without a kernel


def delay(found: Any, expected: Any) -> int:
    """By how many samples one signal is later than another, which it resembles."""
    samples = 2 * max(len(found), len(expected))
    spectra = np.fft.rfft(found, samples) * np.conj(np.fft.rfft(expected, samples))
    lag = int(np.fft.irfft(spectra, samples).argmax())
    return lag if lag < samples // 2 else lag - samples


def test_what_is_embedded_answers_all_that_a_page_asks(make: Make, sent: list[Message]) -> None:
    samples = 2 * PIECE + 5
    stems = {"drums": noise(samples), "bass": noise(samples // 2, 1, seed=1, level=2.0)}
    made = make(stems, 44_100, mixture=noise(samples, seed=2))
    ask(made, kind="overview")
    ask(made, kind="spectrograms")
    painted(made)
    told = [{"content": content, "buffers": buffers} for content, buffers in sent]
    made.embed()
    answers = made._answers
    assert answers.keys() == {"overview", "piece", "spectrograms"}
    assert [*answers["overview"], *answers["spectrograms"]] == told
    # One piece, which the page takes for the whole song.
    (piece,) = answers["piece"]
    assert piece["content"] == {"kind": "piece", "piece": 0}
    assert made._piece_samples == samples
    recordings = [noise(samples, seed=2), *stems.values()]
    for part, recording in zip(piece["buffers"], recordings, strict=True):
        with soundfile.SoundFile(BytesIO(part)) as file:
            assert (file.format, file.samplerate) == ("MP3", 44_100)
            found = file.read(dtype="float32", always_2d=True).T
        assert found.shape == (len(recording), samples)
        # All together, and as loud as they are to each other; the loudest sample was 2.
        assert delay(found[0], recording[0]) == 0
        level = np.sqrt(np.mean(found**2) * samples / recording.shape[1])
        assert level == pytest.approx(np.sqrt(np.mean(recording**2)) / 2, rel=0.1)
    # A page that was opened before goes on to ask, and is answered as before.
    sent.clear()
    ask(made, kind="piece", piece=1)
    ((content, buffers),) = sent
    assert content == {"kind": "piece", "piece": 1}
    with soundfile.SoundFile(BytesIO(buffers[0])) as file:
        assert (file.format, file.frames) == ("FLAC", PIECE + 5)


@pytest.mark.parametrize("samples", [1, 700])
def test_the_shortest_are_embedded(samples: int, make: Make) -> None:
    made = make({"click": noise(samples)}, RATE)
    made.embed()
    assert made._piece_samples == samples
    assert len(made._answers["piece"][0]["buffers"][0]) > 0


def test_what_cannot_be_embedded_is_told(make: Make, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="sample_rate=96000 does not go with format='mp3'"):
        make(song("drums"), 96_000).embed()
    path = put(tmp_path / "drums.wav", noise())
    made = make({"drums": path})
    path.unlink()
    with pytest.raises(AudioError, match="drums.wav' cannot be read any more"):
        made.embed()
    assert made._answers == {}


def test_code_makes_a_page_jump_by_any_distance(make: Make, sent: list[Message]) -> None:
    """A page that plays reports its position all the time, and must not take that for a jump."""
    made = make(song("drums"), RATE)
    made.set_state({"position_seconds": 0.5})
    assert sent == []
    made.position_seconds = 0.4
    made.position_seconds = 0.5
    made.set_state({"position_seconds": 0.6, "playing": True})
    made.set_state({"playing": False})
    made.position_seconds = 0
    jumps = [{"kind": "jump", "seconds": seconds} for seconds in (0.4, 0.5, 0)]
    assert [content for content, _ in sent] == jumps


def test_repr_is_the_same_each_time(make: Make) -> None:
    made = make(song("drums", "bass"), RATE, mixture=noise(12_345))
    assert repr(made) == "StemMixer('mixture', 'drums', 'bass', seconds=1.5)"
    made.playing, made.position_seconds = True, 0.5
    assert repr(made) == "StemMixer('mixture', 'drums', 'bass', seconds=1.5)"


# --- the end


def test_close_lets_everything_go(
    make: Make, sent: list[Message], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While spectrograms are computed, too."""
    started, compute = threading.Event(), _lanes._spectrogram

    def begin(*arguments: Any) -> Any:
        started.set()
        return compute(*arguments)

    monkeypatch.setattr(_lanes, "_spectrogram", begin)
    long = put(tmp_path / "long.ogg", noise(20 * RATE))
    made = make({"long": long, "array": noise()})
    decoded = made._recordings[0]._decoded
    assert decoded is not None
    ask(made, kind="spectrograms")
    assert started.wait(SECONDS)
    made.close()
    assert made._painter._thread is not None
    assert not made._painter._thread.is_alive()
    assert decoded.closed
    sent.clear()
    for kind in ("overview", "spectrograms", "piece"):
        ask(made, kind=kind, piece=0)
    made.close()
    assert sent == []


def test_a_message_that_closing_overtakes_is_told_in_words(
    make: Make, sent: list[Message], tmp_path: Path
) -> None:
    made = make({"drums": put(tmp_path / "drums.ogg", noise())})
    made._close_recordings()
    ask(made, kind="piece", piece=0)
    assert sent == [({"kind": "failed", "message": "the recording was closed. Open it again."}, [])]
