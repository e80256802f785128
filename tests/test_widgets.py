"""The separation panel with a real network and real files; the browser test clicks it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest
from panels import find, parts, shown

from stemlab import audio, demo_song_dir
from stemlab.errors import (
    AudioError,
    AudioNotFoundError,
    ModelNotFoundError,
    OutputError,
    ParameterError,
    SeparationError,
)
from stemlab.registry import list_models
from stemlab.results import RunManifest
from stemlab.separation import AudioStemSeparator, SeparationSettings, replay
from stemlab.widgets import SeparationPanel, SongUpload, StemMixer, separation_panel

RATE = 44100
SECONDS = 120


def threads_named(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


@pytest.fixture
def song(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "songs" / "hum.wav"
    path.parent.mkdir()
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(2 * RATE) / RATE)
    mixture = (tone + rng.uniform(-0.1, 0.1, (2, 2 * RATE))).astype(np.float32)
    audio.write_file(path, [mixture], RATE, 2, bits=16)
    return path


@pytest.fixture
def scratch(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where stems lie until they are saved."""
    folder = tmp_path_factory.mktemp("scratch")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def panel(
    threads_end: None, song: Path, tiny_model_folder: str, tmp_path: Path, scratch: Path
) -> Iterator[SeparationPanel]:
    made = SeparationPanel(
        song.parent, song=song, model=tiny_model_folder, out_dir=tmp_path / "stems"
    )
    yield made
    made.close()
    assert list(scratch.glob("stemlab-*")) == []


@pytest.fixture
def model(tiny_model_folder: str) -> str:
    return tiny_model_folder


def on_first_segment(panel: SeparationPanel, do: Any) -> None:
    """Call `do` in the thread of the run, which waits for it."""

    def react(change: Any) -> None:
        if change.old == 0:
            do()

    panel.observe(react, "progress")


def files_below(folder: Path) -> list[str]:
    return sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*"))


# --- choosing


def test_starts_with_the_demo_song_and_the_default_model() -> None:
    panel = SeparationPanel()
    assert Path(panel.song).is_file()
    assert find(panel, ipywidgets.Dropdown, "Song").label.startswith("Demo song")
    assert find(panel, ipywidgets.Dropdown, "Model").value == panel.model == "stemlab-mini"
    assert panel.out_dir == "stems"
    assert repr(panel) == "SeparationPanel(song='mixture.flac', model='stemlab-mini', state='idle')"


def test_offers_the_audio_files_of_the_folder(tmp_path: Path) -> None:
    for name in ("b.mp3", "a.FLAC", "notes.txt", ".wav"):
        (tmp_path / name).touch()
    songs = find(SeparationPanel(tmp_path), ipywidgets.Dropdown, "Song")
    assert [label for label, _ in songs.options][1:-1] == ["a.FLAC", "b.mp3"]
    assert dict(songs.options)["a.FLAC"] == str(tmp_path / "a.FLAC")


def test_lists_and_traits_follow_each_other(panel: SeparationPanel, song: Path) -> None:
    songs = find(panel, ipywidgets.Dropdown, "Song")
    typed = find(panel, ipywidgets.Text, "Path")
    assert songs.label == "hum.wav"
    assert typed.layout.display == "none"

    songs.label = "Other file (type its path)"
    assert (panel.song, typed.layout.display) == ("", "")
    typed.value = "elsewhere.ogg"
    assert panel.song == "elsewhere.ogg"
    assert songs.value == ""

    panel.song = str(song)
    assert (songs.label, typed.value) == ("hum.wav", "")
    panel.song = "third.wav"
    assert (songs.value, typed.value, panel.song) == ("", "third.wav", "third.wav")

    find(panel, ipywidgets.Text, "Save to").value = "there"
    assert panel.out_dir == "there"


def test_an_uploaded_song_is_chosen(panel: SeparationPanel, song: Path) -> None:
    uploaded = shutil.copy(song, song.with_name("new.wav"))
    (upload,) = (each for each in parts(panel) if isinstance(each, SongUpload))
    assert upload.folder == song.parent
    seen: list[str] = []
    panel.observe(lambda change: seen.append(change.new), "song")
    upload.path, upload.state = str(uploaded), "done"
    assert seen == [panel.song] == [str(uploaded)]
    assert find(panel, ipywidgets.Dropdown, "Song").label == "new.wav"
    # The same once more, after another was chosen.
    panel.song, upload.state = str(song), "uploading"
    assert panel.song == str(song)
    upload.state = "done"
    assert panel.song == str(uploaded)


def test_closing_the_panel_ends_an_upload(panel: SeparationPanel, song: Path) -> None:
    (upload,) = (part for part in parts(panel) if isinstance(part, SongUpload))
    upload._handle_custom_msg({"kind": "start", "id": "a", "name": "new.wav", "size": 9}, [])
    assert upload.state == "uploading"
    panel.close()
    assert upload.state == "cancelled"
    assert files_below(song.parent) == ["hum.wav"]


def test_says_what_the_model_is_and_under_which_licence(panel: SeparationPanel) -> None:
    assert "tiny &lt;of the tests&gt;. Sources: drums, bass, other, vocals." in shown(panel)
    assert "Default segment: 1 s. Shorter ones are padded to this length" in shown(panel)
    assert "Weights: CC0-1.0, random numbers." in shown(panel)
    registered = list_models()[0]
    find(panel, ipywidgets.Dropdown, "Model").value = registered.name
    assert panel.model == registered.name
    assert f"Weights: {registered.weight_license}," in shown(panel)


def test_offers_the_models_that_are_installed(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is not, or is damaged, would only fail later."""
    monkeypatch.setenv("STEMLAB_MODELS", str(tmp_path))
    (tmp_path / "htdemucs").symlink_to(model)
    made = SeparationPanel(tmp_path, model=model)
    assert list(find(made, ipywidgets.Dropdown, "Model").options) == ["stemlab-mini", model]
    made.close()


def test_wrong_choices_are_refused_at_once(panel: SeparationPanel, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="model='other' is not offered here"):
        panel.model = "other"
    with pytest.raises(ModelNotFoundError, match="model='other'"):
        SeparationPanel(model="other")
    with pytest.raises(ParameterError, match="is not a folder"):
        SeparationPanel(tmp_path / "missing")


# --- running


def test_a_run_returns_the_stems_and_plays_them(
    panel: SeparationPanel, song: Path, model: str, tmp_path: Path
) -> None:
    seen: list[tuple[str, float]] = []
    panel.observe(lambda change: seen.append((panel.state, change.new)), "progress")
    find(panel, ipywidgets.Button, "Separate").click()
    result = panel.wait(SECONDS)

    assert panel.state == "done"
    assert panel.error == ""
    assert [state for state, _ in seen] == ["running"] * len(seen)
    progress = [value for _, value in seen]
    assert len(progress) >= 3
    assert progress == sorted(progress)
    assert progress[-1] == panel.progress == 1
    assert re.search(r"Done in \d+\.\d s: 4 stems\.", shown(panel))

    mixture, _ = audio.read_file(song)
    expected = AudioStemSeparator(model).separate_audio(mixture, RATE)
    for source, path in result.stems.items():
        stem, rate = audio.read_file(path)
        assert rate == RATE
        np.testing.assert_allclose(stem, expected[source], atol=1e-5)
    assert panel.mixer in parts(panel)
    assert repr(panel.mixer) == (
        "StemMixer('mixture', 'drums', 'bass', 'other', 'vocals', seconds=2.0)"
    )
    # Nothing is saved before that is asked for.
    assert files_below(tmp_path) == ["songs", "songs/hum.wav"]


def test_saving_puts_the_files_where_a_command_would(
    panel: SeparationPanel, song: Path, tmp_path: Path
) -> None:
    save = find(panel, ipywidgets.Button, "Save")
    assert save.disabled
    with pytest.raises(SeparationError, match="no stems to save yet"):
        panel.save()
    panel.separate()
    made = panel.wait(SECONDS)
    assert not save.disabled
    save.click()
    saved = panel.wait(SECONDS)
    folder = tmp_path / "stems" / "hum"
    assert saved.manifest_path == folder / "run.json"
    assert f"Saved 4 stems to {folder}." in shown(panel)
    assert "replaced" not in shown(panel)
    for source, path in made.stems.items():
        assert saved.stems[source] == folder / f"{source}.wav"
        assert saved.stems[source].read_bytes() == path.read_bytes()
    manifest = RunManifest.read(folder)
    assert (folder / manifest.input.path).resolve() == song.resolve()
    assert replay(folder).equal


def test_an_earlier_result_is_replaced_only_at_a_second_press(
    panel: SeparationPanel, tmp_path: Path
) -> None:
    save = find(panel, ipywidgets.Button, "Save")
    force = find(panel, ipywidgets.Button, "Replace")
    panel.separate()
    panel.wait(SECONDS)
    save.click()
    first = panel.wait(SECONDS)
    assert force.layout.display == "none"
    panel.overlap = 0.5
    panel.separate()
    panel.wait(SECONDS)
    before = {path: path.read_bytes() for path in first.stems.values()}
    save.click()
    with pytest.raises(OutputError, match="already holds a result of this song. Press Replace"):
        panel.wait(SECONDS)
    assert {path: path.read_bytes() for path in first.stems.values()} == before
    assert force.layout.display == ""
    assert "already holds a result of this song" in shown(panel)
    # Not in a folder that nobody was asked about.
    panel.out_dir = str(tmp_path / "elsewhere")
    assert force.layout.display == "none"
    panel.out_dir = str(tmp_path / "stems")
    save.click()
    with pytest.raises(OutputError, match="Press Replace"):
        panel.wait(SECONDS)
    force.click()
    saved = panel.wait(SECONDS)
    assert RunManifest.read(saved.manifest_path).parameters["overlap"] == 0.5
    assert "The earlier result was replaced." in shown(panel)
    assert force.layout.display == "none"


def test_files_of_others_are_not_replaced(panel: SeparationPanel, tmp_path: Path) -> None:
    foreign = tmp_path / "stems" / "hum" / "vocals.wav"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    panel.separate()
    panel.wait(SECONDS)
    panel.save()
    with pytest.raises(OutputError, match="was not written by stemlab"):
        panel.wait(SECONDS)
    assert panel.state == "failed"
    assert "was not written by stemlab" in panel.error
    assert foreign.read_text() == "mine"
    assert find(panel, ipywidgets.Button, "Replace").layout.display == "none"
    assert files_below(tmp_path / "stems") == ["hum", "hum/vocals.wav"]
    # The stems are still there to be saved elsewhere.
    panel.out_dir = str(tmp_path / "elsewhere")
    panel.save()
    assert len(panel.wait(SECONDS).stems) == 4
    assert panel.error == ""


def test_a_stem_that_was_changed_is_not_saved(panel: SeparationPanel, tmp_path: Path) -> None:
    panel.separate()
    stems = panel.wait(SECONDS).stems
    with stems["bass"].open("ab") as file:
        file.write(b"x")
    panel.save()
    with pytest.raises(AudioError, match=r"bass\.wav' is not what the run wrote"):
        panel.wait(SECONDS)
    assert not (tmp_path / "stems").exists()


def test_other_settings_play_beside_the_run_before(panel: SeparationPanel, scratch: Path) -> None:
    panel.separate()
    first = panel.wait(SECONDS)
    old = panel.mixer
    panel.overlap, panel.shifts = 0.5, 1
    panel.separate()
    second = panel.wait(SECONDS)
    assert second.manifest["parameters"]["overlap"] == 0.5
    assert second.manifest["parameters"]["shifts"] == 1
    assert panel.mixer is not None
    assert panel.mixer.heard == "overlap 0.5, shifts 1"
    panel.mixer.heard = "overlap 0.25, shifts 0"
    # A closed widget has no connection to the page.
    assert old is not None
    assert old.comm is None
    assert all(each.is_file() for each in (*first.stems.values(), *second.stems.values()))

    panel.shifts = 0
    panel.separate()
    third = panel.wait(SECONDS)
    assert panel.mixer.heard == "shifts 0"
    assert not any(each.exists() for each in first.stems.values())
    assert all(each.is_file() for each in third.stems.values())
    assert len(list(scratch.glob("stemlab-*"))) == 2


@pytest.mark.parametrize("second", ["the same settings", "another song"])
def test_the_mixer_plays_what_is_still_there(
    panel: SeparationPanel, song: Path, second: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run before the last goes, and no mixer may need it."""
    other = shutil.copy(song, song.with_name("other.wav"))
    with other.open("ab") as file:
        file.write(b"x")  # Another recording, of the same sound.
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(StemMixer, "send", lambda _, content, buffers=None: sent.append(content))
    runs = [(song, 0.25), (other if second == "another song" else song, 0.5), (song, 0.5)]
    for path, overlap in runs:
        panel.song, panel.overlap = str(path), overlap
        panel.separate()
        panel.wait(SECONDS)
    assert panel.mixer is not None
    panel.mixer._handle_custom_msg({"kind": "piece", "piece": 0}, [])
    assert sent == [{"kind": "piece", "piece": 0}]


def test_stems_that_no_mixer_plays_can_be_saved(
    panel: SeparationPanel, song: Path, tmp_path: Path
) -> None:
    panel.separate()
    panel.wait(SECONDS)
    fast = song.with_name("fast.wav")
    audio.write_file(fast, [np.full((1, RATE), 0.1, np.float32)], 768_000, 1)
    panel.song = str(fast)
    panel.separate()
    result = panel.wait(SECONDS)
    assert (panel.state, panel.error, panel.mixer) == ("done", "", None)
    assert "but not played here: sample_rate=768000" in shown(panel)
    find(panel, ipywidgets.Button, "Save").click()
    saved = panel.wait(SECONDS)
    assert saved.stems.keys() == result.stems.keys()
    assert saved.manifest_path == tmp_path / "stems" / "fast" / "run.json"


def test_a_full_temporary_folder_costs_only_the_mixer(
    panel: SeparationPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(separation_panel, "StemMixer", fail)
    panel.separate()
    panel.wait(SECONDS)
    assert "No space left on device" in shown(panel)
    panel.save()
    assert len(panel.wait(SECONDS).stems) == 4


def test_the_demo_song_plays_beside_its_true_stems(
    panel: SeparationPanel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Its first second, which separates sooner.
    for path in demo_song_dir().glob("*.flac"):
        sound, rate = audio.read_file(path)
        audio.write_file(tmp_path / path.name, [sound[:, :rate]], rate, len(sound), format="flac")
    monkeypatch.setattr(separation_panel, "demo_song_dir", lambda: tmp_path)
    panel.song = str(tmp_path / "mixture.flac")
    panel.separate()
    panel.wait(SECONDS)
    assert panel.mixer is not None
    assert panel.mixer.heard == "estimated"
    panel.mixer.heard = "true"


# --- settings and what they cost


def test_sliders_and_traits_follow_each_other(panel: SeparationPanel) -> None:
    segment = find(panel, ipywidgets.FloatSlider, "Segment (s)")
    overlap = find(panel, ipywidgets.FloatSlider, "Overlap")
    shifts = find(panel, ipywidgets.IntSlider, "Shifts")
    assert (segment.value, segment.max, overlap.value, shifts.value) == (1.0, 1.0, 0.25, 0)
    assert panel.segment_seconds is None
    segment.value, overlap.value, shifts.value = 0.5, 0.5, 2
    assert (panel.segment_seconds, panel.overlap, panel.shifts) == (0.5, 0.5, 2)
    segment.value = 1.0
    assert panel.segment_seconds is None
    # Code may set what the sliders do not offer.
    panel.overlap, panel.shifts = 0.95, 12
    assert (overlap.value, shifts.value) == (0.95, 12)


def test_a_refused_value_is_shown_and_the_field_goes_back(panel: SeparationPanel) -> None:
    field = find(panel, ipywidgets.FloatSlider, "Overlap")
    field.max = 1
    field.value = 1
    assert field.value == panel.overlap == 0.25
    assert "overlap=1" in panel.error
    panel.overlap = 0.97
    assert (field.value, field.max) == (0.97, 1)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("segment_seconds", 2.0, "segment_seconds=2 is longer than the 1 s"),
        ("segment_seconds", -1.0, "segment_seconds=-1"),
        ("overlap", 1.0, "overlap=1"),
        ("shifts", 101, "shifts=101"),
        ("device", "cuda:7", "device='cuda:7' is not available"),
    ],
)
def test_wrong_settings_are_refused_at_once(
    panel: SeparationPanel, name: str, value: Any, message: str
) -> None:
    before = getattr(panel, name)
    with pytest.raises(ParameterError, match=message):
        setattr(panel, name, value)
    assert getattr(panel, name) == before


def test_the_cost_follows_the_sliders(panel: SeparationPanel, model: str) -> None:
    assert panel.cost.startswith(
        "The network runs 3 times and processes 1.5 times the length of the song; "
    )
    assert "About" not in panel.cost
    assert not threads_named("stemlab-calibration")
    told = threading.Event()
    panel.observe(lambda change: "About" in change.new and told.set(), "cost")
    find(panel, ipywidgets.FloatSlider, "Overlap").value = 0.5
    plans = AudioStemSeparator(model).plan(2 * RATE, SeparationSettings(overlap=0.5))
    assert panel.cost.startswith(f"The network runs {sum(each.calls for each in plans)} times")
    # How fast this machine is, is found out once, in the background.
    assert told.wait(SECONDS)
    assert re.search(r"About .* s \(RTF [\d.e-]+\), \d+ MB of memory\.", panel.cost)
    find(panel, ipywidgets.FloatSlider, "Segment (s)").value = 0.5
    assert "A segment of 0.5 s is padded to 1 s by tiny" in panel.cost
    panel.song = "missing.wav"
    assert panel.cost == ""


def test_pressing_twice_starts_one_run(panel: SeparationPanel) -> None:
    go_on = threading.Event()
    on_first_segment(panel, lambda: go_on.wait(SECONDS))
    panel.separate()
    running = threads_named("stemlab-SeparationPanel")
    try:
        assert panel.state == "running"
        assert find(panel, ipywidgets.Button, "Separate").disabled
        assert not find(panel, ipywidgets.Button, "Cancel").disabled
        panel.separate()
        find(panel, ipywidgets.Button, "Separate").click()
        now = threads_named("stemlab-SeparationPanel")
        assert now == running
        assert len(now) == 1
        with pytest.raises(TimeoutError, match=r"timeout=0.01 s"):
            panel.wait(0.01)
    finally:
        go_on.set()
    panel.wait(SECONDS)
    assert panel.state == "done"
    assert find(panel, ipywidgets.Button, "Cancel").disabled


def test_what_is_chosen_during_a_run_is_for_the_next(panel: SeparationPanel, song: Path) -> None:
    on_first_segment(panel, lambda: setattr(panel, "song", "missing.wav"))
    panel.separate()
    result = panel.wait(SECONDS)
    assert result.manifest["input"]["sha256"] == audio.file_digest(song)
    assert panel.song == "missing.wav"


# --- ending early


def test_cancelling_midway_leaves_no_files(panel: SeparationPanel, tmp_path: Path) -> None:
    on_first_segment(panel, find(panel, ipywidgets.Button, "Cancel").click)
    panel.separate()
    with pytest.raises(SeparationError, match="was cancelled"):
        panel.wait(SECONDS)
    assert panel.state == "cancelled"
    assert 0 < panel.progress < 1
    assert panel.error == ""
    assert "Cancelled. Nothing was written." in shown(panel)
    assert files_below(tmp_path) == ["songs", "songs/hum.wav"]

    panel.unobserve_all("progress")
    panel.separate()
    assert len(panel.wait(SECONDS).stems) == 4


def test_cancelling_keeps_an_earlier_result(panel: SeparationPanel, scratch: Path) -> None:
    panel.separate()
    panel.wait(SECONDS)
    kept, mixer = files_below(scratch), panel.mixer
    on_first_segment(panel, panel.cancel)
    panel.separate()
    with pytest.raises(SeparationError, match="was cancelled"):
        panel.wait(SECONDS)
    assert files_below(scratch) == kept
    assert panel.mixer is mixer
    panel.save()
    assert len(panel.wait(SECONDS).stems) == 4


def test_cancelling_nothing_does_nothing(panel: SeparationPanel) -> None:
    panel.cancel()
    assert panel.state == "idle"
    with pytest.raises(SeparationError, match="nothing was started yet"):
        panel.wait(0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no interrupt to one process")
def test_interrupting_a_waiting_cell_cancels(song: Path, model: str, tmp_path: Path) -> None:
    """In a process of its own: what else this one has loaded may take the interrupt."""
    code = f"""
        import threading
        from stemlab.errors import SeparationError
        from stemlab.widgets import SeparationPanel
        stopping = threading.Event()

        def tell(change):
            if change.old == 0:
                print("working", flush=True)
                # Or the run might end before the main thread has seen the interrupt.
                assert stopping.wait({SECONDS})

        panel = SeparationPanel(song={str(song)!r}, model={model!r}, out_dir="stems")
        panel.observe(tell, "progress")
        panel.observe(lambda change: change.new == "Stopping." and stopping.set(), "message")
        try:
            panel.separate()
            panel.wait({SECONDS})
        except KeyboardInterrupt:
            try:
                panel.wait({SECONDS})
            except SeparationError as error:
                print(error)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
        stdout=subprocess.PIPE,
        text=True,
        # Programs in the background are started with interrupts ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == "working\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.read() == "the run was cancelled. Start it again.\n"
    assert process.returncode == 0
    assert files_below(tmp_path) == ["songs", "songs/hum.wav"]


def test_a_kernel_that_ends_leaves_no_files_and_no_complaints(
    song: Path, model: str, tmp_path: Path
) -> None:
    """While one panel separates, and another measures the speed of this machine."""
    code = f"""
        import threading
        from stemlab.widgets import SeparationPanel
        started = threading.Event()
        panel = SeparationPanel(song={str(song)!r}, model={model!r}, out_dir="stems")
        other = SeparationPanel(song={str(song)!r}, model={model!r})
        panel.observe(lambda _: started.set(), "progress")
        panel.separate()
        assert started.wait({SECONDS})
        other.overlap = 0.5
        assert any(thread.name == "stemlab-calibration" for thread in threading.enumerate())
    """
    root, cache = Path(__file__).resolve().parent.parent, tmp_path.with_name("cache")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root), "STEMLAB_CACHE": str(cache)},
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert files_below(tmp_path) == ["songs", "songs/hum.wav"]


# --- errors


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        ("<missing>.wav", AudioNotFoundError, "&lt;missing&gt;.wav"),
        ("", ParameterError, "song is empty"),
    ],
)
def test_errors_are_shown_in_words(
    panel: SeparationPanel, name: str, error: type[Exception], text: str
) -> None:
    panel.song = name
    panel.separate()
    with pytest.raises(error):
        panel.wait(SECONDS)
    assert panel.state == "failed"
    assert panel.error
    assert '<div role="alert"' in shown(panel)
    assert text in shown(panel)
    assert "Traceback" not in shown(panel)


def test_an_error_is_gone_with_the_next_run(panel: SeparationPanel, song: Path) -> None:
    panel.song = "missing.wav"
    panel.separate()
    with pytest.raises(AudioNotFoundError):
        panel.wait(SECONDS)
    panel.song = str(song)
    panel.separate()
    panel.wait(SECONDS)
    assert (panel.state, panel.error) == ("done", "")
    assert "alert" not in shown(panel)


def test_a_bug_is_called_a_bug(panel: SeparationPanel, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("no lanes")

    monkeypatch.setattr(separation_panel, "StemMixer", fail)
    panel.separate()
    with pytest.raises(ZeroDivisionError):
        panel.wait(SECONDS)
    assert panel.state == "failed"
    assert "bug of stemlab, please report it. ZeroDivisionError: no lanes" in panel.error
