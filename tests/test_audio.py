"""stemlab.audio: real files in every format, and every way in which a file can be wrong."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import logging
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from recordings import RATE, noise, put, put_av, tone

from stemlab import audio
from stemlab.audio._headers import scan_mp3, scan_ogg, stated_data_bytes
from stemlab.audio._libsndfile import ForwardFile
from stemlab.audio.arrays import downmix_matrix, wave_layout
from stemlab.audio.writing import _container
from stemlab.errors import (
    AudioError,
    AudioNotFoundError,
    MissingDependencyError,
    OutputError,
    ParameterError,
    StemlabError,
)


def decoded_by_av(path: Path) -> int:
    av = pytest.importorskip("av")
    with av.open(str(path)) as container:
        return sum(frame.samples for frame in container.decode(audio=0))


def joined(path: Path, **options: object) -> np.ndarray:
    return np.concatenate(list(audio.stream_file(path, **options)), axis=1)


def snr_db(reference: np.ndarray, estimate: np.ndarray) -> float:
    error = np.sum((reference - estimate).astype(np.float64) ** 2)
    return float(10 * np.log10(np.sum(reference.astype(np.float64) ** 2) / error))


def open_files() -> set[str]:
    """Targets of this process's open descriptors."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(os.readlink(f"/proc/self/fd/{name}"))
        except OSError:
            continue
    return found


# Arrays


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0.5, -0.25], np.float32), [0.5, -0.25]),
        (np.array([0.5, -0.25], np.float64), [0.5, -0.25]),
        (np.array([0.5, -0.25], np.float16), [0.5, -0.25]),
        (np.array([0.5, -0.25], ">f4"), [0.5, -0.25]),
        (np.array([-(2**15), 2**14], np.int16), [-1.0, 0.5]),
        (np.array([-(2**31), 2**30], np.int32), [-1.0, 0.5]),
        (np.array([0, 128, 192], np.uint8), [-1.0, 0.0, 0.5]),
        ([0.5, -0.25], [0.5, -0.25]),
    ],
)
def test_as_audio_converts_each_sample_type(values: object, expected: list[float]) -> None:
    before = np.array(values)
    result = audio.as_audio(values)
    assert result.dtype == np.float32
    assert result.dtype.isnative
    np.testing.assert_array_equal(result, [expected])
    np.testing.assert_array_equal(values, before)


def test_as_audio_keeps_channels_first() -> None:
    values = noise(5)
    np.testing.assert_array_equal(audio.as_audio(values), values)
    assert audio.as_audio(values[0]).shape == (1, 5)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros((1, 2, 3)), r"music has 3 dimensions, shape \(1, 2, 3\)"),
        (np.float32(1), "music has 0 dimensions"),
        (np.zeros((2, 0)), r"music is empty, shape \(2, 0\)"),
        (np.zeros((0, 9)), "music is empty"),
        (np.zeros((44_100, 2)), r"44100 channels.*did you pass \(samples, channels\)\? transpose"),
        (np.zeros((44_100, 1)), "transpose it"),
        (np.zeros((6, 44_100)), "6 channels.*fold it down"),
        (np.zeros(4, bool), "dtype bool. Pass float32"),
        (np.zeros(4, complex), "dtype complex128"),
        (np.zeros(4, np.int64), "dtype int64"),
        (np.array(["a"], object), "dtype object"),
        ([[1.0], [1.0, 2.0]], "music is not an array"),
        ([0.0, float("nan")], "NaN or infinite sample at index 1"),
        ([[0.0, 0.0], [float("inf"), 0.0]], "NaN or infinite sample at index 0"),
        (np.array([1e300]), "NaN or infinite"),
    ],
)
def test_as_audio_refuses(values: object, message: str) -> None:
    with pytest.raises(AudioError, match=message) as caught:
        audio.as_audio(values, name="music")
    assert "\n" not in str(caught.value)


# Reading

SAVED = [
    ("WAV", "PCM_16", RATE, 80),
    ("WAV", "PCM_24", RATE, 120),
    ("WAV", "FLOAT", RATE, None),
    ("WAV", "DOUBLE", RATE, None),
    ("WAV", "PCM_U8", RATE, 30),
    ("WAVEX", "PCM_24", RATE, 120),
    ("RF64", "FLOAT", RATE, None),
    ("AIFF", "PCM_16", RATE, 80),
    ("CAF", "FLOAT", RATE, None),
    ("FLAC", "PCM_16", RATE, 80),
    ("FLAC", "PCM_24", 96_000, 120),
    ("OGG", "VORBIS", RATE, 15),
    ("OGG", "OPUS", 48_000, 15),
    ("MP3", "MPEG_LAYER_III", RATE, 15),
]


@pytest.mark.parametrize(("container", "subtype", "rate", "floor_db"), SAVED)
@pytest.mark.parametrize("channels", [1, 2])
def test_every_libsndfile_format_reads_back(
    tmp_path: Path, container: str, subtype: str, rate: int, floor_db: float | None, channels: int
) -> None:
    samples = tone(40_001, channels, rate)
    path = put(tmp_path / "song", samples, rate, container=container, subtype=subtype)
    info = audio.read_info(path)
    assert (info.sample_rate, info.channels, info.samples) == (rate, channels, 40_001)
    assert (info.path, info.container, info.codec) == (path, container, subtype)
    assert info.reader == "soundfile"
    result, result_rate = audio.read_file(path)
    assert result.dtype == np.float32
    assert result.flags.c_contiguous
    assert result.shape == samples.shape
    assert result_rate == rate
    if floor_db is None:
        np.testing.assert_array_equal(result, samples)
    else:
        assert snr_db(samples, result) > floor_db


@pytest.mark.parametrize("samples", [1, 999, 1000, 1001])
def test_block_lengths(tmp_path: Path, samples: int) -> None:
    path = put(tmp_path / "song.wav", noise(samples))
    lengths = [block.shape[1] for block in audio.stream_file(path, block_samples=1000)]
    assert all(length == 1000 for length in lengths[:-1])
    assert 1 <= lengths[-1] <= 1000
    assert sum(lengths) == samples


@pytest.mark.parametrize(
    ("container", "subtype", "rate", "quality"),
    [
        ("WAV", "PCM_16", RATE, {}),
        ("FLAC", "PCM_16", RATE, {}),
        ("OGG", "VORBIS", RATE, {}),
        # These two change with the block size as soon as soundfile seeks between blocks.
        ("OGG", "OPUS", 48_000, {}),
        ("MP3", "MPEG_LAYER_III", RATE, {"compression_level": 0.0, "bitrate_mode": "VARIABLE"}),
    ],
)
def test_samples_do_not_depend_on_the_block_size(
    tmp_path: Path, container: str, subtype: str, rate: int, quality: dict[str, object]
) -> None:
    path = put(
        tmp_path / "song", noise(100_003), rate, container=container, subtype=subtype, **quality
    )
    whole = joined(path, block_samples=1_000_000)
    assert whole.shape == (2, 100_003)
    for size in (1000, 4097, 65_536):
        np.testing.assert_array_equal(joined(path, block_samples=size), whole)


@pytest.mark.parametrize(("name", "video"), [("song.m4a", False), ("film.mp4", True)])
def test_aac_reads_through_pyav(tmp_path: Path, name: str, video: bool) -> None:
    samples = tone(50_000)
    path = put_av(tmp_path / name, samples, video=video)
    info = audio.read_info(path)
    assert (info.sample_rate, info.channels, info.samples) == (RATE, 2, None)
    assert (info.reader, info.codec) == ("pyav", "aac")
    result = joined(path, block_samples=3000)
    assert result.shape[1] == decoded_by_av(path)
    assert snr_db(samples, result[:, :50_000]) > 15  # in place: no delay left
    np.testing.assert_array_equal(joined(path, block_samples=777), result)


def test_packed_samples_of_pyav_are_unpacked(tmp_path: Path) -> None:
    samples = tone(5000)
    path = put_av(tmp_path / "film.mkv", samples, "pcm_s16le")
    result, _ = audio.read_file(path)
    assert audio.read_info(path).reader == "pyav"
    np.testing.assert_allclose(result, samples, atol=1 / 32_000)


def test_first_of_several_audio_streams(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("pcm_s16le", rate=RATE, layout="mono") for _ in range(2)]
        for value, stream in zip((8192, 16_384), streams, strict=True):
            frame = av.AudioFrame.from_ndarray(
                np.full((1, 1000), value, np.int16), format="s16", layout="mono"
            )
            frame.sample_rate = RATE
            for packet in [*stream.encode(frame), *stream.encode(None)]:
                container.mux(packet)
    result, _ = audio.read_file(path)
    np.testing.assert_array_equal(result, np.full((1, 1000), 0.25, np.float32))


def test_mp3_whose_length_libsndfile_guesses_too_short_is_read_whole(tmp_path: Path) -> None:
    # Loud first and without a length header: the guess from the first bit rates is far too low.
    samples = noise(400_000)
    samples[:, 200_000:] = 0
    path = put_av(tmp_path / "vbr.mp3", samples, "libmp3lame", options={"write_xing": "0"})
    with ForwardFile(path) as file:
        assert file.frames < 200_000  # else this file tests nothing
    result, _ = audio.read_file(path)
    assert result.shape[1] == decoded_by_av(path) >= 400_000


def test_mp3_whose_length_is_guessed_too_short_needs_pyav(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = noise(400_000)
    samples[:, 200_000:] = 0
    path = put_av(tmp_path / "vbr.mp3", samples, "libmp3lame", options={"write_xing": "0"})
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"stop after \d+ of \d+ samples"):
        audio.read_file(path)


def test_mp3_whose_length_is_guessed_too_long_has_the_true_count(tmp_path: Path) -> None:
    samples = noise(400_000)
    samples[:, :200_000] = 0
    path = put_av(tmp_path / "vbr.mp3", samples, "libmp3lame", options={"write_xing": "0"})
    with ForwardFile(path) as file:
        assert file.frames > 500_000
    result, _ = audio.read_file(path)
    assert result.shape[1] == decoded_by_av(path)


def test_mp3_frames_are_counted_past_tags_and_rubbish(tmp_path: Path) -> None:
    path = put(tmp_path / "a.mp3", tone(5000), container="MP3", subtype="MPEG_LAYER_III")
    plain = scan_mp3(path)
    assert plain is not None
    assert plain.states_length
    assert plain.frame_samples == 1152
    assert 5000 <= plain.samples <= 5000 + 3 * 1152
    tag = b"ID3\x04\0\0" + bytes([0, 0, 1, 0]) + b"\xff" * 128
    path.write_bytes(tag + path.read_bytes() + b"TAG" + bytes(125))
    assert scan_mp3(path) == plain
    path.write_bytes(b"\xff" * 50)
    assert scan_mp3(path) is None


def test_chained_ogg_is_read_whole(tmp_path: Path) -> None:
    one = put(tmp_path / "one.ogg", tone(30_000), container="OGG", subtype="VORBIS")
    two = put(tmp_path / "two.ogg", tone(30_000), container="OGG", subtype="VORBIS")
    path = tmp_path / "both.ogg"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    assert not scan_ogg(one).chained
    assert scan_ogg(path).chained
    pytest.importorskip("av")
    assert audio.read_file(path)[0].shape[1] >= 60_000


def test_flac_without_a_stated_length(tmp_path: Path) -> None:
    path = put(tmp_path / "pipe.flac", noise(30_001), container="FLAC", subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    path.write_bytes(data)
    assert audio.read_info(path).samples is None
    assert audio.read_file(path)[0].shape == (2, 30_001)


@pytest.mark.parametrize("stated", [0x7FFFF000, 0x7FFFFFFF, 0xFFFFFFFF])
def test_wav_from_a_pipe_has_an_open_length(tmp_path: Path, stated: int) -> None:
    path = put(tmp_path / "pipe.wav", noise(1001), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", stated)
    path.write_bytes(data)
    assert audio.read_file(path)[0].shape == (2, 1001)


def test_read_file_resamples(tmp_path: Path) -> None:
    samples = noise(100_001)
    path = put(tmp_path / "song.wav", samples)
    result, rate = audio.read_file(path, sample_rate=48_000)
    assert rate == 48_000
    np.testing.assert_array_equal(result, audio.resample(samples, RATE, 48_000))


@pytest.mark.parametrize(
    ("name", "container", "subtype"),
    [("song.flac", "FLAC", "PCM_16"), ("song.ogg", "OGG", "VORBIS"), ("song.wav", "WAV", "FLOAT")],
)
def test_what_takes_too_much_memory_is_not_read_whole(
    tmp_path: Path, name: str, container: str, subtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / name, noise(3 * RATE), container=container, subtype=subtype)
    allowed = audio.read_file(path)[0].shape[1]
    monkeypatch.setattr("stemlab.audio.reading._MOST_BYTES", 8 * allowed)
    assert audio.read_file(path)[0].shape[1] == allowed
    message = rf"{name}' is too long.*s or more. At .* at most \d s .*Cut out a part.*stream_file"
    with pytest.raises(AudioError, match=message):
        audio.read_file(path, sample_rate=48_000)
    monkeypatch.setattr("stemlab.audio.reading._MOST_BYTES", 8 * allowed - 1)
    with pytest.raises(AudioError, match=message):
        audio.read_file(path)
    assert joined(path).shape[1] == allowed  # In blocks, any length is.


def test_a_recording_of_days_is_refused_before_it_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "song.flac", noise(1000), container="FLAC", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[22:26] = (40 * 3600 * 8000).to_bytes(4, "big")
    path.write_bytes(content)
    monkeypatch.setattr("stemlab.audio.reading.stream_file", None)
    with pytest.raises(AudioError, match=r"26122 s or more. At 44100 Hz .* 2 channel.*3043 s"):
        audio.read_file(path)


def test_headerless_name_is_no_hint(tmp_path: Path) -> None:
    samples = noise(100)
    path = put(tmp_path / "song.tmp", samples)
    for name in ("song.raw", "song.au", "song.mp3", "song"):
        np.testing.assert_array_equal(audio.read_file(path.rename(tmp_path / name))[0], samples)
        path = tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        b"-song.wav",
        b"--",
        b"two\nlines.wav",
        "Žluťoučký 🎵.wav".encode(),
        b"bad\xff\xfe.wav",
        b"a:b",
    ],
)
def test_odd_file_names(tmp_path: Path, name: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    samples = noise(100)
    path = os.fsdecode(name)
    assert audio.write_file(path, [samples], RATE, 2) == 100
    np.testing.assert_array_equal(audio.read_file(path)[0], samples)
    assert len(audio.file_digest(path)) == 64
    put_av(tmp_path / "song.m4a", tone(5000)).rename(path)
    assert audio.read_info(path).reader == "pyav"
    Path(path).write_bytes(b"no audio")
    with pytest.raises(AudioError) as caught:
        audio.read_info(path)
    assert str(caught.value).isprintable()
    assert repr(path) in str(caught.value)


# Refusals


def make_fifo(folder: Path) -> Path:
    os.mkfifo(folder / "x")
    return folder / "x"


def make_loop(folder: Path) -> Path:
    (folder / "x").symlink_to(folder / "x")
    return folder / "x"


def make_bytes(data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / "x").write_bytes(data)
        return folder / "x"

    return make


def make_sound(channels: int, rate: int = RATE, samples: int = 10) -> Callable[[Path], Path]:
    return lambda folder: put(folder / "x", np.zeros((channels, samples)), rate)


def make_nan(folder: Path) -> Path:
    samples = noise(RATE)
    samples[1, RATE // 2] = np.nan
    return put(folder / "x", samples)


def make_silent_film(folder: Path) -> Path:
    av = pytest.importorskip("av")
    path = folder / "x.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
        for packet in [*stream.encode(image), *stream.encode(None)]:
            container.mux(packet)
    return path


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda folder: folder / "x", AudioNotFoundError, "does not exist. Check the path"),
        (lambda folder: folder / "a\0b", AudioError, "cannot be opened: .*null"),
        (lambda folder: folder / ("x" * 300), AudioError, "file name too long"),
        (lambda folder: folder, AudioError, "is a directory. Pass an audio file"),
        (lambda folder: Path(os.devnull), AudioError, "is a device"),
        (make_fifo, AudioError, "is a named pipe"),
        (make_loop, AudioError, "symbolic links run in a circle"),
        (make_bytes(b""), AudioError, r"is empty \(0 bytes\)"),
        (make_bytes(b"hello\n" * 500), AudioError, "not audio|no audio stream"),
        (make_bytes(b"RIFF\x24\0\0\0WAVE"), AudioError, "not audio, or is damaged"),
        (make_bytes(b"fLaC" + bytes(60)), AudioError, r"is damaged \(libsndfile: "),
        (make_sound(2, samples=0), AudioError, "holds no samples"),
        (make_sound(9), AudioError, "9 channels; stemlab reads 1 to 8"),
        (make_sound(6), AudioError, "6 channels.*pass --downmix"),
        (make_sound(7), AudioError, "7 channels.*mix it down to stereo first"),
        (make_sound(1, rate=999), AudioError, "sample rate of 999 Hz; stemlab reads 1000 to"),
        (make_sound(1, rate=768_001), AudioError, "sample rate of 768001 Hz"),
        (make_nan, AudioError, r"NaN or infinite sample at 0\.500 s"),
        (make_silent_film, AudioError, "has no audio stream"),
    ],
)
def test_refusals(
    tmp_path: Path, make: Callable[[Path], Path], error: type[StemlabError], message: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(error, match=message) as caught:
        audio.read_file(path)
    assert str(caught.value).startswith(repr(str(path)))
    assert "\n" not in str(caught.value)
    assert caught.value.path == path


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may read everything")
def test_permission_denied(tmp_path: Path) -> None:
    path = put(tmp_path / "song.wav", noise(10))
    path.chmod(0)
    with pytest.raises(AudioError, match="permission denied"):
        audio.read_file(path)


@pytest.mark.parametrize("rate", [1000, 768_000])
def test_extreme_sample_rates_are_read(tmp_path: Path, rate: int) -> None:
    path = put(tmp_path / "song.wav", noise(10), rate)
    assert audio.read_file(path)[1] == rate


def test_downmix_does_not_hide_seven_channels(tmp_path: Path) -> None:
    path = put(tmp_path / "song.wav", noise(10, 7))
    with pytest.raises(AudioError, match="7 channels.*does not know the loudspeakers.*mix it down"):
        audio.read_file(path, downmix=True)


def test_playlists_open_no_other_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # FFmpeg looks for their entries here
    put_av(tmp_path / "song.aac", tone(20_000))
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nsong.aac\n#EXT-X-ENDLIST\n")
    with pytest.raises(AudioError, match="not audio, or is damaged"):
        audio.read_file(path)
    path.write_text("ffconcat version 1.0\nfile song.aac\n")
    with pytest.raises(AudioError, match="not audio, or is damaged"):
        audio.read_file(path)


@pytest.mark.parametrize("size", [0, -1, 1.5, "9", None, True, np.inf, 2**26 + 1, 10**30])
def test_block_samples_is_checked_at_the_call(tmp_path: Path, size: object) -> None:
    message = r"block_samples=.* is not a whole number in \[1, 67108864\]\. Leave it out"
    with pytest.raises(ParameterError, match=message):
        audio.stream_file(tmp_path / "song.wav", block_samples=size)


def test_without_pyav_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put_av(tmp_path / "song.m4a", tone(5000))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingDependencyError, match=r"song\.m4a.*pip install 'stemlab\[av\]'"):
        audio.read_file(path)
    wav = put(tmp_path / "song.wav", noise(10))
    assert audio.read_file(wav)[0].shape == (2, 10)


@pytest.mark.parametrize(
    ("container", "subtype"),
    [
        ("WAV", "PCM_16"),
        ("WAV", "FLOAT"),
        ("WAVEX", "PCM_24"),
        ("RF64", "PCM_16"),
        ("AIFF", "PCM_16"),
    ],
)
def test_truncated_pcm_is_refused_at_once(tmp_path: Path, container: str, subtype: str) -> None:
    path = put(tmp_path / "song", noise(RATE), container=container, subtype=subtype)
    data = path.read_bytes()
    assert stated_data_bytes(path) is not None
    path.write_bytes(data[: len(data) // 2])
    message = r"truncated: 0\.\d+ s of 1\.000 s are there\. Get a whole copy"
    with pytest.raises(AudioError, match=message):
        audio.read_info(path)
    path.write_bytes(data[:-1])  # one byte less is one sample less
    with pytest.raises(AudioError, match=r"truncated: 1\.000 s of 1\.000 s"):
        audio.read_info(path)


def test_padding_that_was_only_counted_is_no_truncation(tmp_path: Path) -> None:
    path = put(tmp_path / "song.wav", noise(1001), subtype="PCM_16")
    data = bytearray(path.read_bytes())
    data[40:44] = struct.pack("<I", 1001 * 4 + 1)
    path.write_bytes(data)
    assert audio.read_file(path)[0].shape == (2, 1001)


def test_truncated_flac_says_where(tmp_path: Path) -> None:
    path = put(tmp_path / "song", noise(2 * RATE), container="FLAC", subtype="PCM_16")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"decoded after (0\.[5-9]|1\.0)\d+ s of 2\.000 s.*cut"):
        audio.read_file(path)


def test_damage_in_the_middle_of_flac(tmp_path: Path) -> None:
    path = put(tmp_path / "song", noise(2 * RATE), container="FLAC", subtype="PCM_16")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 400] = bytes(400)
    path.write_bytes(data)
    with pytest.raises(AudioError, match="it is damaged or cut short"):
        audio.read_file(path)


def test_damage_in_the_middle_of_ogg(tmp_path: Path) -> None:
    path = put(tmp_path / "song", noise(4 * RATE), container="OGG", subtype="VORBIS")
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 9000] = bytes(9000)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"its header states 4\.000 s: it is damaged"):
        audio.read_file(path)


@pytest.mark.parametrize(
    ("container", "subtype", "message"),
    [("MP3", "MPEG_LAYER_III", "its header states"), ("OGG", "VORBIS", "lacks its last Ogg page")],
)
def test_truncated_lossy_files_are_read_with_a_warning(
    tmp_path: Path,
    container: str,
    subtype: str,
    message: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = put(tmp_path / "song", noise(4 * RATE), container=container, subtype=subtype)
    with caplog.at_level(logging.WARNING):
        assert joined(path).shape[1] == 4 * RATE
    assert not caplog.records
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with caplog.at_level(logging.WARNING):
        assert RATE < joined(path).shape[1] < 3 * RATE
    assert message in caplog.text
    assert str(tmp_path) not in caplog.text, "logs name no folders"


def test_damaged_aac_says_where(tmp_path: Path) -> None:
    path = put_av(tmp_path / "song.m4a", noise(100_000))
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 8000
    data[start : start + 3000] = np.random.default_rng(1).bytes(3000)
    path.write_bytes(data)
    with pytest.raises(AudioError, match=r"cannot be decoded after \d\.\d+ s .*damaged"):
        audio.read_file(path)


def test_change_of_rate_in_mid_file(tmp_path: Path) -> None:
    one = put_av(tmp_path / "one.aac", tone(20_000))
    two = put_av(tmp_path / "two.aac", tone(20_000, rate=22_050), rate=22_050)
    path = tmp_path / "both.aac"
    path.write_bytes(one.read_bytes() + two.read_bytes())
    with pytest.raises(AudioError, match=r"changes after 0\.\d+ s from 44100 Hz, 2 channels to 2"):
        audio.read_file(path)


# Handles


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
@pytest.mark.parametrize("name", ["song.wav", "song.m4a"])
def test_closing_the_generator_closes_the_file(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name.endswith("wav"):
        put(path, noise(5000))
    else:
        put_av(path, noise(50_000))
    threads = threading.active_count()
    stream = audio.stream_file(path, block_samples=1000)
    assert next(stream).shape == (2, 1000)
    assert str(path) in open_files()
    stream.close()
    assert str(path) not in open_files()
    assert threading.active_count() == threads


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks into /proc")
def test_no_handle_is_left_after_an_error(tmp_path: Path) -> None:
    before = open_files()
    for data in (b"junk" * 500, b"RIFF\x24\0\0\0WAVE"):
        path = tmp_path / "x"
        path.write_bytes(data)
        for _ in range(3):
            with pytest.raises(AudioError):
                audio.read_file(path)
    assert open_files() == before


# Downmix


def folded(names: Sequence[str]) -> np.ndarray:
    """The weights of BS.775 for these loudspeakers, the sum of a side being 1."""
    half = np.sqrt(0.5)
    weights = {"FL": (1, 0), "FR": (0, 1), "FC": (half, half), "LFE": (0, 0), "BC": (0.5, 0.5)}
    weights |= {"BL": (half, 0), "BR": (0, half), "SL": (half, 0), "SR": (0, half)}
    expected = np.array([weights[name] for name in names]).T
    return expected / expected.sum(axis=1, keepdims=True)


def impulses(channels: int) -> np.ndarray:
    """One impulse per channel: folded down, they are the weights."""
    return 0.5 * np.eye(channels, 2000, dtype=np.float32)


def ogg_checksum(page: bytes) -> int:
    register = 0
    for byte in page:
        register ^= byte << 24
        for _ in range(8):
            register = (register << 1 ^ (0x04C11DB7 if register >> 31 else 0)) & 0xFFFFFFFF
    return register


def masked(path: Path, mask: int, channels: int) -> Path:
    """Write impulses into a WAVE_FORMAT_EXTENSIBLE file with a channel mask."""
    put(path, impulses(channels), container="WAVEX")
    data = bytearray(path.read_bytes())
    at = data.index(b"fmt ") + 8
    assert data[at : at + 2] == b"\xfe\xff"
    struct.pack_into("<I", data, at + 20, mask)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("mask", "names"),
    [
        pytest.param(0x00B, "FL FR LFE", id="2.1"),
        pytest.param(0x007, "FL FR FC", id="3.0"),
        pytest.param(0x103, "FL FR BC", id="3.0 back"),
        pytest.param(0x00F, "FL FR FC LFE", id="3.1"),
        pytest.param(0x033, "FL FR BL BR", id="quad"),
        pytest.param(0x107, "FL FR FC BC", id="4.0"),
        pytest.param(0x10F, "FL FR FC LFE BC", id="4.1"),
        pytest.param(0x60F, "FL FR FC LFE SL SR", id="5.1 side"),
        pytest.param(0x03F, "FL FR FC LFE BL BR", id="5.1"),
        pytest.param(0x70F, "FL FR FC LFE BC SL SR", id="6.1"),
        pytest.param(0x63F, "FL FR FC LFE BL BR SL SR", id="7.1"),
        pytest.param(0, "FL FR FC", id="none, of 3"),
        pytest.param(0, "FL FR FC LFE BL BR", id="none, of 6"),
    ],
)
def test_downmix_follows_the_channel_mask(tmp_path: Path, mask: int, names: str) -> None:
    expected = folded(names.split())
    channels = expected.shape[1]
    path = masked(tmp_path / "song.wav", mask, channels)
    assert audio.read_info(path).channels == channels
    result, _ = audio.read_file(path, downmix=True)
    np.testing.assert_allclose(result[:, :channels], 0.5 * expected, atol=1e-6)


@pytest.mark.parametrize(
    ("mask", "channels"),
    [
        pytest.param(0x0FF, 8, id="7.1 wide: loudspeakers without weights"),
        pytest.param(0x003, 6, id="fewer bits than channels"),
        pytest.param(0x63F, 6, id="more bits than channels"),
        pytest.param(0x80000007, 4, id="an unknown bit"),
        pytest.param(0x008, 3, id="low frequencies alone"),
    ],
)
def test_masks_that_say_nothing_usable_are_refused(
    tmp_path: Path, mask: int, channels: int
) -> None:
    path = masked(tmp_path / "song.wav", mask, channels)
    with pytest.raises(AudioError, match=f"{channels} channels.*not know the loudspeakers"):
        audio.read_file(path, downmix=True)
    with pytest.raises(AudioError, match="1 or 2: mix it down to stereo first"):
        audio.read_file(path)


def test_flac_keeps_the_mask_in_a_tag(tmp_path: Path) -> None:
    path = put(tmp_path / "song.flac", impulses(3), container="FLAC", subtype="PCM_16")
    data = path.read_bytes()
    tag = b"waveformatextensible_channel_mask=0x000B"
    tags = struct.pack("<II I", 0, 1, len(tag)) + tag
    block = bytes([4]) + len(tags).to_bytes(3, "big") + tags
    path.write_bytes(data[:42] + block + data[42:])  # Behind STREAMINFO.
    result, _ = audio.read_file(path, downmix=True)
    np.testing.assert_allclose(result[:, :3], 0.5 * folded(["FL", "FR", "LFE"]), atol=1e-4)


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("2.1", "FL FR LFE"),
        ("3.0", "FL FR FC"),
        ("3.1", "FL FR FC LFE"),
        ("quad", "FL FR BL BR"),
        ("4.0", "FL FR FC BC"),
        ("5.1(side)", "FL FR FC LFE SL SR"),
    ],
)
@pytest.mark.parametrize("name", ["song.wav", "song.w64", "song.caf", "song.aiff", "song.flac"])
def test_layouts_as_ffmpeg_writes_them(tmp_path: Path, name: str, layout: str, names: str) -> None:
    expected = folded(names.split())
    codec = {"song.flac": "flac", "song.aiff": "pcm_s16be"}.get(name, "pcm_s16le")
    path = put_av(tmp_path / name, impulses(expected.shape[1]), codec, layout=layout)
    result, _ = audio.read_file(path, downmix=True)
    np.testing.assert_allclose(result[:, : expected.shape[1]], 0.5 * expected, atol=1e-4)


def test_channels_of_unknown_loudspeakers_are_not_guessed(tmp_path: Path) -> None:
    path = put_av(tmp_path / "song.mov", impulses(6), "pcm_s16le", layout="3.1.2")
    with pytest.raises(AudioError, match="6 channels.*not know the loudspeakers"):
        audio.read_file(path, downmix=True)


def test_opus_of_another_mapping_has_no_loudspeakers(tmp_path: Path) -> None:
    path = put(tmp_path / "song.opus", noise(48_000, 6), 48_000, container="OGG", subtype="OPUS")
    data = bytearray(path.read_bytes())
    data[data.index(b"OpusHead") + 18] = 255
    data[22:26] = bytes(4)
    end = 27 + data[26] + sum(data[27 : 27 + data[26]])
    data[22:26] = struct.pack("<I", ogg_checksum(data[:end]))
    path.write_bytes(data)
    with pytest.raises(AudioError, match="6 channels.*not know the loudspeakers"):
        audio.read_file(path, downmix=True)


@pytest.mark.parametrize(
    ("tag", "mask", "labels", "names"),
    [
        (124 << 16 | 6, 0, [], "FC FL FR BL BR LFE"),
        (0x10000, 0x10F, [], "FL FR FC LFE BC"),
        (0, 0, [3, 1, 2], "FC FL FR"),
    ],
)
@pytest.mark.parametrize("container", ["CAF", "AIFF"])
def test_layouts_of_apple(
    tmp_path: Path, container: str, tag: int, mask: int, labels: list[int], names: str
) -> None:
    channels = len(names.split())
    path = put(tmp_path / "song", impulses(channels), container=container, subtype="PCM_16")
    data = path.read_bytes()
    body = struct.pack(">III", tag, mask, len(labels))
    body += b"".join(struct.pack(">II3f", label, 0, 0, 0, 0) for label in labels)
    if container == "CAF":
        at, chunk = data.index(b"desc") + 12 + 32, b"chan" + struct.pack(">q", len(body)) + body
    else:
        at, chunk = 12, b"CHAN" + struct.pack(">I", len(body)) + body
        data = data[:4] + struct.pack(">I", len(data) - 8 + len(chunk)) + data[8:]
    path.write_bytes(data[:at] + chunk + data[at:])
    result, _ = audio.read_file(path, downmix=True)
    np.testing.assert_allclose(result[:, :channels], 0.5 * folded(names.split()), atol=1e-4)


@pytest.mark.parametrize("channels", [3, 4, 5, 6, 8])
def test_downmix_cannot_clip_and_leaves_out_low_frequencies(tmp_path: Path, channels: int) -> None:
    layout = wave_layout(channels)
    assert layout is not None
    samples = np.eye(channels, dtype=np.float32)  # one impulse per channel
    path = put(tmp_path / "song.wav", np.concatenate([samples, np.ones((channels, 1))], axis=1))
    result, _ = audio.read_file(path, downmix=True)
    np.testing.assert_allclose(result[:, :channels], folded(layout), atol=1e-6)
    np.testing.assert_allclose(result[:, channels], [1, 1], atol=1e-6)


def test_downmix_leaves_mono_and_stereo_alone(tmp_path: Path) -> None:
    for channels in (1, 2):
        samples = noise(100, channels)
        path = put(tmp_path / "song.wav", samples)
        np.testing.assert_array_equal(audio.read_file(path, downmix=True)[0], samples)


@pytest.mark.parametrize(("subtype", "rate"), [("VORBIS", RATE), ("OPUS", 48_000)])
def test_ogg_has_its_own_order_of_channels(tmp_path: Path, subtype: str, rate: int) -> None:
    # Vorbis: left, centre, right, back left, back right, low. Only right sounds.
    samples = np.zeros((6, rate), np.float32)
    samples[2] = tone(rate, 1, rate)[0]
    path = put(tmp_path / "song.ogg", samples, rate, container="OGG", subtype=subtype)
    result, _ = audio.read_file(path, downmix=True)
    level = np.sqrt((result**2).mean(axis=1))
    assert level[1] > 20 * level[0]


def test_pyav_names_its_channels(tmp_path: Path) -> None:
    # 4.0 has one rear channel, which goes to both sides, where WAVE would have two.
    samples = np.zeros((4, 20_000), np.float32)
    samples[3] = tone(20_000, 1)[0]
    path = put_av(tmp_path / "song.mov", samples, "pcm_s16le", layout="4.0")
    result, _ = audio.read_file(path, downmix=True)
    np.testing.assert_allclose(result[0], result[1], atol=1e-4)
    assert np.abs(result).max() == pytest.approx(0.5 * 0.5 / (1 + np.sqrt(0.5) + 0.5), rel=1e-2)


def test_unknown_loudspeakers_have_no_matrix() -> None:
    assert downmix_matrix(("FL", "FR", "TFL")) is None
    assert downmix_matrix(("LFE",)) is None


# Resampling

RATES = st.sampled_from([1000, 8000, 11_025, 16_000, 22_050, 44_100, 44_101, 48_000, 96_000])


@settings(max_examples=60, deadline=None)
@given(
    from_rate=RATES,
    to_rate=RATES,
    samples=st.integers(1, 3000),
    cuts=st.lists(st.integers(0, 3000), max_size=4),
    channels=st.integers(1, 2),
)
@example(from_rate=44_100, to_rate=22_050, samples=1, cuts=[], channels=2)
@example(from_rate=44_100, to_rate=22_050, samples=5, cuts=[], channels=2)  # 2.5 gives 3
@example(from_rate=96_000, to_rate=1000, samples=1, cuts=[], channels=1)
@example(from_rate=1000, to_rate=96_000, samples=3000, cuts=[1], channels=2)
def test_streamed_resampling_equals_one_go(
    from_rate: int, to_rate: int, samples: int, cuts: list[int], channels: int
) -> None:
    signal = noise(samples, channels, seed=samples)
    edges = [0, *sorted(min(cut, samples) for cut in cuts), samples]
    stream = audio.StreamResampler(from_rate, to_rate, channels)
    blocks = [stream.push(signal[:, a:b]) for a, b in pairwise(edges)]
    blocks.append(stream.finish())
    result = np.concatenate(blocks, axis=1)
    expected = max(1, int(np.floor(samples * to_rate / from_rate + 0.5)))
    assert result.shape == (channels, expected)
    assert audio.resampled_length(samples, from_rate, to_rate) == expected
    np.testing.assert_array_equal(audio.resample(signal, from_rate, to_rate), result)
    direct = signal.T if from_rate == to_rate else soxr.resample(signal.T, from_rate, to_rate)
    common = min(len(direct), expected)
    assert common >= expected - 1
    np.testing.assert_allclose(result[:, :common], direct.T[:, :common], atol=1e-6)


@pytest.mark.parametrize(("from_rate", "to_rate"), [(48_000, 44_100), (22_050, 44_100)])
def test_resampling_does_not_move_the_signal(from_rate: int, to_rate: int) -> None:
    source = tone(from_rate, 2, from_rate)
    wanted = tone(to_rate, 2, to_rate)
    result = audio.resample(source, from_rate, to_rate)
    inside = slice(to_rate // 10, -to_rate // 10)
    assert snr_db(wanted[:, inside], result[:, inside]) > 90


def test_equal_rates_pass_through() -> None:
    signal = noise(1000)
    np.testing.assert_array_equal(audio.resample(signal, RATE, RATE), signal)
    stream = audio.StreamResampler(RATE, RATE, 2)
    np.testing.assert_array_equal(stream.push(signal), signal)
    assert stream.finish().shape == (2, 0)


def test_an_empty_stream_resamples_to_nothing() -> None:
    assert audio.StreamResampler(48_000, RATE, 2).finish().shape == (2, 0)
    assert audio.resampled_length(0, 48_000, RATE) == 0


@pytest.mark.parametrize("rate", [0, -1, 999, 768_001, 44_100.0, True, "44100"])
def test_bad_rates_are_refused(rate: object) -> None:
    with pytest.raises(ParameterError, match=r"to_rate=.* is not a sample rate. Pass a whole"):
        audio.resample(noise(10), RATE, rate)


def test_resampler_checks_its_use() -> None:
    with pytest.raises(ParameterError, match="channels=0"):
        audio.StreamResampler(RATE, 48_000, 0)
    stream = audio.StreamResampler(RATE, 48_000, 2)
    with pytest.raises(ParameterError, match=r"shape \(1, 5\); this resampler takes \(2, n\)"):
        stream.push(noise(5, 1))
    stream.finish()
    with pytest.raises(ParameterError, match="finished"):
        stream.push(noise(5))
    with pytest.raises(ParameterError, match="finished"):
        stream.finish()


# Writing


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [1, 1151, 70_001])
@pytest.mark.parametrize(
    ("format", "bits", "subtype"),
    [
        ("wav", None, "FLOAT"),
        ("wav", 32, "FLOAT"),
        ("wav", 24, "PCM_24"),
        ("wav", 16, "PCM_16"),
        ("flac", None, "PCM_24"),
        ("flac", 16, "PCM_16"),
        ("mp3", None, "MPEG_LAYER_III"),
        ("ogg", None, "VORBIS"),
    ],
)
def test_written_files_read_back(
    tmp_path: Path, format: str, bits: int | None, subtype: str, samples: int, channels: int
) -> None:
    signal = tone(samples, channels)
    path = tmp_path / "song"
    blocks = [signal[:, :100], signal[:, 100:]]
    assert audio.write_file(path, blocks, RATE, channels, format=format, bits=bits) == samples
    info = audio.read_info(path)
    assert (info.codec, info.samples, info.channels) == (subtype, samples, channels)
    result, _ = audio.read_file(path)
    assert result.shape == signal.shape
    step = {"FLOAT": 0.0, "PCM_24": 2.0**-24, "PCM_16": 2.0**-16}.get(subtype)
    if step is not None:
        assert np.abs(result.astype(np.float64) - signal).max() <= step * 1.001
    elif samples > 70_000:
        assert snr_db(signal, result) > 30
    assert [p.name for p in tmp_path.iterdir()] == ["song"]


@pytest.mark.parametrize("format", ["wav", "flac"])
@pytest.mark.parametrize("bits", [16, 24])
def test_integers_round_and_saturate(tmp_path: Path, format: str, bits: int) -> None:
    full = 2 ** (bits - 1)
    values = np.array([1.0, -1.0, 1.5, -1.5, 0.6 / full, -0.6 / full, 0.4 / full, -0.4 / full])
    path = tmp_path / "song"
    audio.write_file(
        path, [values[np.newaxis].astype(np.float32)], RATE, 1, format=format, bits=bits
    )
    stored = soundfile.read(path, dtype="int32")[0] >> (32 - bits)
    np.testing.assert_array_equal(stored, [full - 1, -full, full - 1, -full, 1, -1, 0, 0])


def test_gain_and_clamp(tmp_path: Path) -> None:
    signal = np.array([[0.25, -0.5, 0.75, -1.0]], np.float32)
    before = signal.copy()
    path = tmp_path / "song.wav"
    audio.write_file(path, [signal], RATE, 1, gain=2.0)
    np.testing.assert_array_equal(audio.read_file(path)[0], [[0.5, -1.0, 1.5, -2.0]])
    audio.write_file(path, [signal], RATE, 1, gain=2.0, clamp=True)
    np.testing.assert_array_equal(audio.read_file(path)[0], [[0.5, -1.0, 1.0, -1.0]])
    np.testing.assert_array_equal(signal, before)


def test_numbers_of_numpy_are_taken(tmp_path: Path) -> None:
    plain, other = tmp_path / "plain.wav", tmp_path / "other.wav"
    audio.write_file(plain, [noise(9)], RATE, 2, bits=16, gain=0.5, samples=9)
    audio.write_file(
        other,
        [noise(9)],
        np.int64(RATE),
        np.int64(2),
        bits=np.int64(16),
        gain=np.float16(0.5),
        samples=np.int64(9),
    )
    assert other.read_bytes() == plain.read_bytes()


@pytest.mark.parametrize("format", ["wav", "flac", "mp3"])
def test_equal_audio_gives_equal_bytes(
    tmp_path: Path, format: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "song"
    audio.write_file(path, [tone(3000)], RATE, 2, format=format)
    first = path.read_bytes()
    if format == "wav":
        at = first.index(b"PEAK")
        assert first[at + 12 : at + 16] == bytes(4)  # libsndfile puts the time here
    audio.write_file(path, [tone(3000)[:, :7], tone(3000)[:, 7:]], RATE, 2, format=format)
    assert path.read_bytes() == first


def test_rf64_follows_from_the_expected_length() -> None:
    limit = 2**32 // (2 * 4)
    assert _container("wav", 32, 2, limit) == "RF64"
    assert _container("wav", 32, 2, limit - 100_000) == "WAV"
    assert _container("wav", 16, 2, limit) == "WAV"
    assert _container("wav", 32, 2, None) == "WAV"
    assert _container("flac", 24, 2, limit) == "FLAC"


def test_rf64_is_written_and_read(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    audio.write_file(path, [noise(1000)], RATE, 2, samples=2**30)
    assert path.read_bytes()[:4] == b"RF64"
    np.testing.assert_array_equal(audio.read_file(path)[0], noise(1000))


def test_wav_past_its_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stemlab.audio.writing._WAV_DATA_BYTES", 8000)
    with pytest.raises(OutputError, match="past 4 gib needs samples="):
        audio.write_file(tmp_path / "song.wav", [noise(1001)], RATE, 2)
    assert audio.write_file(tmp_path / "song.wav", [noise(1000)], RATE, 2) == 1000


@pytest.mark.parametrize(
    ("format", "bits", "rate", "message"),
    [
        ("aiff", None, RATE, "format='aiff' is unknown. Choose one of wav, flac, mp3, ogg"),
        ("wav", 8, RATE, "bits=8 does not go with format='wav'; it takes 16 or 24 or 32"),
        ("flac", 32, RATE, "it takes 16 or 24"),
        ("mp3", 16, RATE, "it has no bits per sample: leave bits out"),
        ("ogg", 24, RATE, "leave bits out"),
        ("mp3", None, 96_000, "sample_rate=96000 .*takes 8000, 11025, .*48000 Hz. Resample"),
        ("mp3", None, 44_101, "sample_rate=44101"),
        ("ogg", None, 200_001, "takes 1000 to 200000 Hz"),
        ("flac", None, 655_351, "takes 1000 to 65535, 65540 to 655350 in steps of 10 Hz"),
        ("flac", None, 65_536, "sample_rate=65536 does not go with format='flac'"),
        ("flac", 16, 88_201, "sample_rate=88201"),
        ("wav", None, 10, "not a sample rate"),
    ],
)
def test_output_formats_are_checked_first(
    tmp_path: Path, format: str, bits: int | None, rate: int, message: str
) -> None:
    def never() -> Iterator[np.ndarray]:
        pytest.fail("blocks were asked for")
        yield noise(1)

    with pytest.raises(ParameterError, match=message):
        audio.check_output_format(format, bits, rate)
    with pytest.raises(ParameterError, match=message):
        audio.write_file(tmp_path / "x", never(), rate, 2, format=format, bits=bits)
    assert not list(tmp_path.iterdir())


def test_every_stated_limit_can_be_written(tmp_path: Path) -> None:
    for name, known in audio.FORMATS.items():
        assert audio.check_output_format(name) == known.default_bits
        limits = {rate for rates in known.sample_rates for rate in (rates[0], rates[-1])}
        for bits in known.bits or (None,):
            for rate in limits:
                path = tmp_path / f"song.{known.extension}"
                assert audio.write_file(path, [noise(500)], rate, 2, format=name, bits=bits) == 500
                assert audio.read_info(path).sample_rate == rate


@pytest.mark.parametrize(
    ("blocks", "channels", "options", "message"),
    [
        ([], 2, {}, "there are no samples"),
        ([np.zeros((2, 0), np.float32)], 2, {}, "there are no samples"),
        ([noise(5), noise(5, 1)], 2, {}, r"shape \(1, 5\), not \(2, n\)"),
        ([noise(RATE), np.full((2, 3), np.nan, np.float32)], 2, {}, r"NaN.*at 1\.000 s"),
        ([noise(5)], 2, {"gain": float("inf")}, "gain=inf"),
        ([noise(5, 3)], 3, {}, "channels=3 must be 1 or 2"),
        ([noise(5)], "2", {}, "channels='2' must be 1 or 2"),
        ([noise(5)], 2, {"gain": 1e39}, r"gain=1e\+39"),
        ([noise(5)], 2, {"gain": "1"}, "gain='1'"),
        ([noise(5)], 2, {"samples": "5"}, "samples='5'"),
        ([noise(5)], 2, {"samples": -1}, "samples=-1"),
        ([noise(5)], 2, {"format": ["wav"]}, r"format=\['wav'\] is unknown"),
        ([noise(5).astype(np.int16)], 2, {}, "one is int16, not an array of float32"),
        ([noise(5).astype(np.complex64)], 2, {}, "one is complex64"),
        ([noise(5).tolist()], 2, {}, "one is list, not an array"),
        ([1e300 * noise(5).astype(np.float64)], 2, {}, "NaN or infinite after the gain"),
    ],
)
def test_bad_blocks_leave_no_file(
    tmp_path: Path, blocks: list[np.ndarray], channels: int, options: dict[str, float], message: str
) -> None:
    path = tmp_path / "song.wav"
    path.write_bytes(b"earlier")
    with pytest.raises(ParameterError, match=message):
        audio.write_file(path, blocks, RATE, channels, **options)
    assert [p.name for p in tmp_path.iterdir()] == ["song.wav"]
    assert path.read_bytes() == b"earlier"


def test_errors_of_the_blocks_pass_through(tmp_path: Path) -> None:
    def broken() -> Iterator[np.ndarray]:
        yield noise(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audio.write_file(tmp_path / "song.wav", broken(), RATE, 2)
    assert not list(tmp_path.iterdir())


def test_unwritable_places(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"none/song\.wav' cannot be written: no such file"):
        audio.write_file(tmp_path / "none" / "song.wav", [noise(5)], RATE, 2)
    with pytest.raises(OutputError, match="is not a regular file") as caught:
        audio.write_file(tmp_path, [noise(5)], RATE, 2)
    assert caught.value.path == tmp_path
    with pytest.raises(OutputError, match="is not a regular file"):
        audio.write_file(os.devnull, [noise(5)], RATE, 2)
    with pytest.raises(OutputError, match="file name too long"):
        audio.write_file(tmp_path / ("x" * 300), [noise(5)], RATE, 2)
    with pytest.raises(OutputError, match="null"):
        audio.write_file(tmp_path / "a\0b", [noise(5)], RATE, 2)


FULL_DISK = """
import resource, signal, sys
import numpy as np
from stemlab import audio
from stemlab.errors import OutputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
noise = np.random.default_rng(0).standard_normal((2, 300_000)).astype("f4") * 0.1
for format in audio.FORMATS:
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        audio.write_file(sys.argv[1] + "/song", [noise], 44_100, 2, format=format)
    except OutputError as error:
        print(format, error)
"""


@pytest.mark.skipif(os.name == "nt", reason="needs a file size limit")
def test_full_disk_is_an_output_error_and_leaves_nothing(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(audio.__file__).parents[2],
        timeout=60,
    )
    lines = done.stdout.splitlines()
    assert [line.split()[0] for line in lines] == list(audio.FORMATS), done.stdout + done.stderr
    assert all("song' cannot be written: file too large" in line for line in lines), lines
    assert not list(tmp_path.iterdir())


def test_an_encoder_that_drops_samples_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Forgetful(ForwardFile):
        def write(self, data: np.ndarray) -> None:
            super().write(data[:-1])

    monkeypatch.setattr("stemlab.audio.writing.ForwardFile", Forgetful)
    for name in audio.FORMATS:
        with pytest.raises(OutputError, match="holds 999 of 1000 samples"):
            audio.write_file(tmp_path / "song", [noise(1000)], RATE, 2, format=name)
    assert not list(tmp_path.iterdir())


def test_written_files_respect_the_umask(tmp_path: Path) -> None:
    path = tmp_path / "song.wav"
    before = os.umask(0o027)
    try:
        audio.write_file(path, [noise(5)], RATE, 2)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


# The rest


def test_file_digest(tmp_path: Path) -> None:
    data = np.random.default_rng(0).bytes(3_000_001)
    path = tmp_path / "x"
    path.write_bytes(data)
    assert audio.file_digest(path) == hashlib.sha256(data).hexdigest()
    with pytest.raises(AudioNotFoundError, match="does not exist"):
        audio.file_digest(tmp_path / "none")


def test_info_is_frozen(tmp_path: Path) -> None:
    info = audio.read_info(put(tmp_path / "x.wav", noise(5)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        info.channels = 1


def test_missing_file_is_also_the_builtin_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        audio.read_file(tmp_path / "none.wav")


def test_no_byte_of_an_intact_recording_goes_to_stderr(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for container, subtype in [("MP3", "MPEG_LAYER_III"), ("OGG", "VORBIS"), ("FLAC", "PCM_16")]:
        audio.read_file(put(tmp_path / "x", noise(50_000), container=container, subtype=subtype))
    audio.read_file(put_av(tmp_path / "x.m4a", noise(5000)))
    assert capfd.readouterr() == ("", "")


def test_big_blocks_of_vorbis_do_not_crash(tmp_path: Path) -> None:
    # One write of this length overflows the stack of libvorbis.
    path = tmp_path / "x.ogg"
    assert audio.write_file(path, [noise(3_000_000, 1)], RATE, 1, format="ogg") == 3_000_000
    assert soundfile.info(io.BytesIO(path.read_bytes())).frames == 3_000_000
