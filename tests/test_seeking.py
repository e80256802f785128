"""stemlab.audio.seeking: any stretch is what a whole read has there, from any kind of recording."""

from __future__ import annotations

import os
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from stemlab.audio import SeekableRecording, read_file
from stemlab.errors import AudioError, AudioNotFoundError, OutputError, ParameterError

RATE = 44_100
# More than libsndfile and the streams read at once, and odd.
SAMPLES = 150_001
IN_PLACE = [
    ("WAV", "FLOAT"),
    ("WAV", "PCM_16"),
    ("WAVEX", "PCM_24"),
    ("RF64", "DOUBLE"),
    ("FLAC", "PCM_16"),
    ("FLAC", "PCM_24"),
    ("AIFF", "PCM_16"),
    ("AIFF", "FLOAT"),
    ("AU", "ULAW"),
]
# The last three look like files in place, but jumps fail in them or change what follows.
DECODED = [
    ("MP3", "MPEG_LAYER_III"),
    ("OGG", "VORBIS"),
    ("OGG", "OPUS"),
    ("WAV", "IMA_ADPCM"),
    ("WAV", "GSM610"),
    ("CAF", "ALAC_20"),
]
FULL = Path("/dev/full")


def noise(samples: int = SAMPLES, channels: int = 2, seed: int = 0) -> Any:
    generator = np.random.default_rng(seed)
    return generator.uniform(-0.5, 0.5, (channels, samples)).astype(np.float32)


def put(
    path: Path, audio: Any, rate: int = RATE, *, container: str = "WAV", subtype: str = "FLOAT"
) -> Path:
    with soundfile.SoundFile(
        path, "w", rate, len(audio), format=container, subtype=subtype
    ) as file:
        for start in range(0, audio.shape[1], 65_536):
            file.write(audio.T[start : start + 65_536])
    return path


def check(recording: SeekableRecording, whole: Any, rng: np.random.Generator) -> None:
    """Stretches in no order, at and over the end, and empty ones, against a whole read."""
    channels, samples = whole.shape
    assert (recording.channels, recording.samples) == (channels, samples)
    stretches = [(0, samples), (0, 0), (7, 7), (samples, samples), (samples - 1, samples + 1)]
    stretches += [(samples, samples + 5), (samples + 7, samples + 90), (samples + 7, samples + 7)]
    for start in rng.integers(0, samples, 12).tolist():
        stretches.append((start, min(samples + 100, start + int(rng.integers(0, 40_000)))))
    padded = np.pad(whole, ((0, 0), (0, 100)))
    for start, stop in stretches:
        found = recording.read(start, stop)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, padded[:, start:stop], f"[{start}, {stop})")


def held(folder: Path) -> list[str]:
    """Files in a folder, and those that are open there without a name."""
    found = [each.name for each in folder.iterdir()]
    descriptors = Path("/proc/self/fd")
    for each in descriptors.iterdir() if descriptors.is_dir() else ():
        try:
            link = os.readlink(each)
        except OSError:  # that of the listing itself
            continue
        if link.startswith(str(folder)):
            found.append(link)
    return found


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of temporary files."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


# --- arrays


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("samples", [1, 2, SAMPLES])
def test_an_array_is_kept_without_a_copy(
    channels: int, samples: int, rng: np.random.Generator
) -> None:
    array = noise(samples, channels)
    before = array.copy()
    recording = SeekableRecording(array, RATE)
    assert recording.sample_rate == RATE
    assert np.shares_memory(recording.read(0, samples), array)
    check(recording, before, rng)
    np.testing.assert_array_equal(array, before)


def test_a_flat_array_is_mono(rng: np.random.Generator) -> None:
    check(SeekableRecording(noise()[0], RATE), noise()[:1], rng)


def test_an_array_needs_its_rate() -> None:
    with pytest.raises(ParameterError, match="sample_rate is missing. Pass the rate"):
        SeekableRecording(noise(10))


@pytest.mark.parametrize("rate", [0, 999, 768_001, 44_100.0, True, "44100"])
def test_a_rate_out_of_range_is_refused(rate: Any) -> None:
    with pytest.raises(ParameterError, match="sample_rate=.*is not a sample rate"):
        SeekableRecording(noise(10), rate)


def test_a_rate_of_numpy_becomes_a_number() -> None:
    assert type(SeekableRecording(noise(10), np.int64(RATE)).sample_rate) is int  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (noise(10, 3), "has 3 channels"),
        (np.zeros((2, 0)), "is empty"),
        (np.full((2, 5), np.nan), "holds a NaN"),
        (np.zeros((2, 2, 2)), "has 3 dimensions"),
    ],
)
def test_arrays_that_are_no_recordings_are_refused(array: Any, said: str) -> None:
    with pytest.raises(AudioError, match=said):
        SeekableRecording(array, RATE)


# --- files


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(("container", "subtype"), IN_PLACE)
def test_files_with_a_place_for_each_sample_are_read_in_place(
    container: str,
    subtype: str,
    channels: int,
    tmp_path: Path,
    room: Path,
    rng: np.random.Generator,
) -> None:
    path = put(tmp_path / "song", noise(channels=channels), container=container, subtype=subtype)
    whole, _ = read_file(path)
    for rate in (None, RATE):
        recording = SeekableRecording(path, rate)
        assert held(room) == []
        check(recording, whole, rng)
        recording.close()


@pytest.mark.parametrize(("container", "subtype"), DECODED)
def test_others_are_decoded_once(
    container: str, subtype: str, tmp_path: Path, room: Path, rng: np.random.Generator
) -> None:
    rate, channels = (48_000, 2) if subtype == "OPUS" else (RATE, 1 if subtype == "GSM610" else 2)
    audio = noise(channels=channels)
    path = put(tmp_path / "song", audio, rate, container=container, subtype=subtype)
    whole, _ = read_file(path)
    recording = SeekableRecording(path)
    # Nothing is read from the file any more.
    path.unlink()
    assert recording.sample_rate == rate
    assert len(held(room)) == 1
    check(recording, whole, rng)
    recording.close()
    recording.close()
    assert held(room) == []
    with pytest.raises(AudioError, match="was closed. Open it again"):
        recording.read(0, 5)


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize(
    ("container", "subtype"), [("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")]
)
@pytest.mark.parametrize("rate", [22_050, 48_000])
def test_files_are_resampled(
    container: str,
    subtype: str,
    rate: int,
    channels: int,
    tmp_path: Path,
    room: Path,
    rng: np.random.Generator,
) -> None:
    path = put(tmp_path / "song", noise(channels=channels), container=container, subtype=subtype)
    recording = SeekableRecording(path, rate)
    assert recording.sample_rate == rate
    check(recording, read_file(path, sample_rate=rate)[0], rng)
    recording.close()
    assert held(room) == []


def test_the_shortest_file(tmp_path: Path, rng: np.random.Generator) -> None:
    path = put(tmp_path / "click.wav", noise(1))
    check(SeekableRecording(path), noise(1), rng)
    again = SeekableRecording(path, 8000)
    check(again, read_file(path, sample_rate=8000)[0], rng)
    again.close()


def test_another_working_folder_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "song.wav", noise(10))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    recording = SeekableRecording("song.wav")
    monkeypatch.chdir("elsewhere")
    np.testing.assert_array_equal(recording.read(0, 10), noise(10))


@pytest.mark.parametrize("kind", ["array", "file", "decoded"])
def test_threads_get_what_they_ask_for(kind: str, tmp_path: Path) -> None:
    whole: Any = noise()
    source: Any = whole
    if kind != "array":
        container, subtype = ("FLAC", "PCM_16") if kind == "file" else ("OGG", "VORBIS")
        source = put(tmp_path / "song", whole, container=container, subtype=subtype)
        whole, _ = read_file(source)
    recording = SeekableRecording(source, RATE)
    starts = np.random.default_rng(3).integers(0, SAMPLES - 500, 300).tolist()
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda start: recording.read(start, start + 500), starts))
    for start, each in zip(starts, found, strict=True):
        np.testing.assert_array_equal(each, whole[:, start : start + 500])
    recording.close()


# --- what goes wrong


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioNotFoundError, match="does not exist"):
        SeekableRecording(tmp_path / "nothing.wav")


@pytest.mark.parametrize("rate", [None, 22_050])
def test_more_than_two_channels_are_refused(rate: int | None, tmp_path: Path, room: Path) -> None:
    path = put(tmp_path / "surround.wav", noise(100, 6))
    with pytest.raises(AudioError, match="has 6 channels; stemlab separates 1 or 2"):
        SeekableRecording(path, rate)
    assert held(room) == []


@pytest.mark.parametrize("how", ["replaced", "grown", "written again"])
def test_another_file_in_its_place_is_refused(how: str, tmp_path: Path) -> None:
    path = put(tmp_path / "song.wav", noise())
    recording = SeekableRecording(path)
    if how == "replaced":
        os.replace(put(tmp_path / "other.wav", noise(seed=1)), path)
    elif how == "grown":
        with path.open("ab") as file:
            file.write(bytes(8))
    else:
        later = path.stat().st_mtime_ns + 1_000_000
        put(path, noise(seed=1))
        os.utime(path, ns=(later, later))
    with pytest.raises(AudioError, match="song.wav' has changed. Load it again") as info:
        recording.read(0, 10)
    assert info.value.path == path


def test_a_file_that_was_removed_is_told(tmp_path: Path) -> None:
    path = put(tmp_path / "song.wav", noise())
    recording = SeekableRecording(path)
    path.unlink()
    with pytest.raises(AudioError, match="song.wav' cannot be read any more: .*Load it again"):
        recording.read(0, 10)


def test_a_damaged_file_is_told_where_it_is_read(tmp_path: Path) -> None:
    path = put(tmp_path / "song.flac", noise(), container="FLAC", subtype="PCM_16")
    whole, _ = read_file(path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    recording = SeekableRecording(path)
    np.testing.assert_array_equal(recording.read(0, 1000), whole[:, :1000])
    for start, stop in ((0, SAMPLES), (SAMPLES - 10, SAMPLES)):
        with pytest.raises(AudioError, match="cannot be read any more"):
            recording.read(start, stop)


def test_a_header_that_states_too_much_is_found_out(tmp_path: Path) -> None:
    path = put(tmp_path / "song.flac", noise(), container="FLAC", subtype="PCM_16")
    content = bytearray(path.read_bytes())
    content[22:26] = (10 * SAMPLES).to_bytes(4, "big")
    path.write_bytes(content)
    recording = SeekableRecording(path)
    assert recording.samples == 10 * SAMPLES
    with pytest.raises(AudioError, match="ends after|cannot be read any more"):
        recording.read(0, 2 * SAMPLES)


def test_what_would_fill_the_disk_is_not_decoded(
    tmp_path: Path, room: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stemlab.audio.seeking._MOST_DECODED_BYTES", 8 * 2 * RATE)
    path = put(tmp_path / "song.flac", noise(), container="FLAC", subtype="PCM_16")
    SeekableRecording(path).read(0, 10)  # In place.
    with pytest.raises(AudioError, match=r"song.flac' is too long.*at most 1 s \(8 GiB\) are"):
        SeekableRecording(path, 48_000)
    assert held(room) == []


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_sample_that_is_no_number_is_refused(value: float, tmp_path: Path, room: Path) -> None:
    audio = noise()
    audio[1, 100_000] = value
    path = put(tmp_path / "song.wav", audio)
    recording = SeekableRecording(path)
    np.testing.assert_array_equal(recording.read(0, 100_000), audio[:, :100_000])
    with pytest.raises(AudioError, match="NaN or infinite sample at 2.268 s. Repair or re-export"):
        recording.read(99_000, 101_000)
    with pytest.raises(AudioError, match="holds a NaN or infinite sample at 2.268 s"):
        SeekableRecording(path, 48_000)
    assert held(room) == []


def test_a_temporary_folder_that_is_not_there_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "song.ogg", noise(), container="OGG", subtype="VORBIS")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(OutputError, match="the temporary folder '.*gone' cannot hold.*TMPDIR"):
        SeekableRecording(path)


def test_no_temporary_folder_at_all_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "song.ogg", noise(), container="OGG", subtype="VORBIS")
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "gone")])
    with pytest.raises(OutputError, match="the temporary folder cannot hold.*No usable"):
        SeekableRecording(path)


@pytest.mark.skipif(not FULL.exists(), reason="a device that is always full is one of Linux")
@pytest.mark.parametrize("samples", [1, SAMPLES])
def test_a_full_disk_is_told(samples: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when the little there is would only be written at closing."""
    path = put(tmp_path / "song.wav", noise(samples))
    files: list[Any] = []

    def on_the_full_device() -> Any:
        files.append(FULL.open("w+b"))
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", on_the_full_device)
    with pytest.raises(OutputError, match="cannot hold the decoded recording: No space left.*Free"):
        SeekableRecording(path, 48_000)
    assert [each.closed for each in files] == [True]


@pytest.mark.parametrize(("start", "stop"), [(-5, 5), (5, 2), (float("nan"), 2)])
def test_a_range_that_is_none_is_refused(tmp_path: Path, start: int, stop: int) -> None:
    path = put(tmp_path / "song.wav", noise())
    for recording in (SeekableRecording(path), SeekableRecording(noise(), RATE)):
        with pytest.raises(ParameterError, match=r"start=.*, stop=. is not a range of samples"):
            recording.read(start, stop)
