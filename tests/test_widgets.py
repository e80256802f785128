"""The separation panel with a real network and real files; the browser test clicks it."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ipywidgets
import numpy as np
import pytest
import soundfile
from safetensors.torch import save_file

from stemlab import audio
from stemlab.errors import (
    AudioNotFoundError,
    ModelNotFoundError,
    OutputError,
    ParameterError,
    SeparationError,
)
from stemlab.registry import list_models
from stemlab.separation import AudioStemSeparator
from stemlab.widgets import SeparationPanel, separation_panel

if TYPE_CHECKING:
    from demucs.htdemucs import HTDemucs

RATE = 44100
SECONDS = 120


@pytest.fixture(scope="module")
def model(tiny_htdemucs: HTDemucs, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with a small real model: four segments for three seconds."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    weights = folder / "tiny.safetensors"
    save_file({name: each.clone() for name, each in tiny_htdemucs.state_dict().items()}, weights)
    sources = ["drums", "bass", "other", "vocals"]
    network = {
        "architecture": "HTDemucs",
        "arguments": {
            "sources": sources,
            "samplerate": RATE,
            "channels": 8,
            "bottom_channels": 32,
            "t_layers": 3,
            "t_heads": 2,
            "t_hidden_scale": 1.0,
            "segment": 1.0,
        },
        "files": [
            {
                "name": weights.name,
                "bytes": weights.stat().st_size,
                "sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
            }
        ],
    }
    manifest = {
        "schema": 2,
        "name": "tiny",
        "title": "tiny <of the tests>",
        "sources": sources,
        "sample_rate": RATE,
        "channels": 2,
        "segment_seconds": 1.0,
        "segment_policy": "padded",
        "parameters": sum(each.numel() for each in tiny_htdemucs.parameters()),
        "networks": [network],
        "code_license": "MIT",
        "weight_license": "CC0-1.0",
        "disputes": [],
        "origin": "random numbers",
        "training_data": "none",
    }
    (folder / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return str(folder)


@pytest.fixture
def song(tmp_path: Path, rng: np.random.Generator) -> Path:
    path = tmp_path / "songs" / "hum.wav"
    path.parent.mkdir()
    tone = 0.3 * np.sin(2 * np.pi * 220 * np.arange(3 * RATE) / RATE)
    mixture = (tone + rng.uniform(-0.1, 0.1, (2, 3 * RATE))).astype(np.float32)
    audio.write_file(path, [mixture], RATE, 2, bits=16)
    return path


@pytest.fixture
def panel(song: Path, model: str, tmp_path: Path) -> Iterator[SeparationPanel]:
    before = set(threading.enumerate())
    made = SeparationPanel(song.parent, song=song, model=model, out_dir=tmp_path / "stems")
    yield made
    made.cancel()
    for each in set(threading.enumerate()) - before:
        each.join(SECONDS)
    assert set(threading.enumerate()) <= before


def parts(widget: Any) -> Iterator[Any]:
    """A widget and everything in it."""
    yield widget
    for each in getattr(widget, "children", ()):
        yield from parts(each)


def find(panel: SeparationPanel, kind: type[Any], description: str) -> Any:
    (found,) = (
        each for each in parts(panel) if isinstance(each, kind) and each.description == description
    )
    return found


def shown(panel: SeparationPanel) -> str:
    return "\n".join(each.value for each in parts(panel) if isinstance(each, ipywidgets.HTML))


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

    songs.label = "Another file: type its path"
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


def test_says_what_the_model_is_and_under_which_licence(panel: SeparationPanel) -> None:
    assert "tiny &lt;of the tests&gt;. Makes drums, bass, other, vocals." in shown(panel)
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


def test_a_run_writes_shows_and_returns_the_stems(
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
    assert f"Done: 4 stems are in {tmp_path / 'stems' / 'hum'}." in shown(panel)
    assert "replaced" not in shown(panel)

    mixture, _ = audio.read_file(song)
    expected = AudioStemSeparator(model).separate_audio(mixture, RATE)
    for source, path in result.stems.items():
        stem, rate = audio.read_file(path)
        assert rate == RATE
        np.testing.assert_allclose(stem, expected[source], atol=1e-5)

    players = [each for each in parts(panel) if isinstance(each, ipywidgets.Audio)]
    gain = 1 / max(1, *(np.abs(each).max() for each in (mixture, *expected.values())))
    for player, signal_ in zip(players, [mixture, *expected.values()], strict=True):
        heard, rate = soundfile.read(BytesIO(player.value), dtype="float32")
        assert (player.format, rate, player.autoplay, player.loop) == ("flac", RATE, False, False)
        np.testing.assert_allclose(heard.T, gain * signal_, atol=2**-15)
    labels = [each.value for each in parts(panel) if isinstance(each, ipywidgets.Label)]
    assert labels[::2] == ["mixture", "drums", "bass", "other", "vocals"]
    assert labels[1::2] == [str(song), *(str(each) for each in result.stems.values())]
    assert '<img alt="Waveforms. Peaks, full scale being 1: mixture 0.40, drums' in shown(panel)


def test_players_hold_an_excerpt_of_a_long_song(
    panel: SeparationPanel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(separation_panel, "_PREVIEW_SECONDS", 2)
    panel.separate()
    result = panel.wait(SECONDS)
    for each in parts(panel):
        if isinstance(each, ipywidgets.Audio):
            assert soundfile.info(BytesIO(each.value)).frames == 2 * RATE
    assert soundfile.info(result.stems["bass"]).frames == 3 * RATE


def test_running_again_replaces_the_result_and_says_so(panel: SeparationPanel) -> None:
    panel.separate()
    first = panel.wait(SECONDS)
    old = [each for each in parts(panel) if isinstance(each, ipywidgets.Audio)]
    panel.separate()
    second = panel.wait(SECONDS)
    assert second.stems == first.stems
    assert "They replaced an earlier result of this song." in shown(panel)
    # A closed widget has no connection: its audio is gone from kernel and page.
    assert [each.comm for each in old] == [None] * 5


def test_files_of_others_are_not_replaced(panel: SeparationPanel, tmp_path: Path) -> None:
    foreign = tmp_path / "stems" / "hum" / "vocals.wav"
    foreign.parent.mkdir(parents=True)
    foreign.write_text("mine")
    panel.separate()
    with pytest.raises(OutputError, match="was not written by stemlab"):
        panel.wait(SECONDS)
    assert panel.state == "failed"
    assert "was not written by stemlab" in panel.error
    assert foreign.read_text() == "mine"
    assert files_below(tmp_path / "stems") == ["hum", "hum/vocals.wav"]


def test_pressing_twice_starts_one_run(panel: SeparationPanel) -> None:
    go_on = threading.Event()
    on_first_segment(panel, lambda: go_on.wait(SECONDS))
    panel.separate()
    running = [each for each in threading.enumerate() if each.name == "stemlab-separation"]
    try:
        assert panel.state == "running"
        assert find(panel, ipywidgets.Button, "Separate").disabled
        assert not find(panel, ipywidgets.Button, "Cancel").disabled
        panel.separate()
        find(panel, ipywidgets.Button, "Separate").click()
        now = [each for each in threading.enumerate() if each.name == "stemlab-separation"]
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


def test_cancelling_keeps_an_earlier_result(panel: SeparationPanel, tmp_path: Path) -> None:
    panel.separate()
    panel.wait(SECONDS)
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in files_below(tmp_path)}
    on_first_segment(panel, panel.cancel)
    panel.separate()
    with pytest.raises(SeparationError, match="was cancelled"):
        panel.wait(SECONDS)
    after = {name: (tmp_path / name).stat().st_mtime_ns for name in files_below(tmp_path)}
    before.pop("stems")  # The folder itself held the working files of the second run.
    after.pop("stems")
    assert after == before


def test_cancelling_nothing_does_nothing(panel: SeparationPanel) -> None:
    panel.cancel()
    assert panel.state == "idle"
    with pytest.raises(SeparationError, match="nothing was separated yet"):
        panel.wait(0)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows sends no interrupt to one process")
def test_interrupting_a_waiting_cell_cancels(panel: SeparationPanel) -> None:
    on_first_segment(panel, lambda: os.kill(os.getpid(), signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        (panel.separate(), panel.wait(SECONDS))
    with pytest.raises(SeparationError, match="was cancelled"):
        panel.wait(SECONDS)


def test_a_kernel_that_ends_leaves_no_files(song: Path, model: str, tmp_path: Path) -> None:
    code = f"""
        import threading
        from stemlab.widgets import SeparationPanel
        started = threading.Event()
        panel = SeparationPanel(song={str(song)!r}, model={model!r}, out_dir="stems")
        panel.observe(lambda _: started.set(), "progress")
        panel.separate()
        assert started.wait({SECONDS})
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    root = Path(__file__).resolve().parent.parent
    subprocess.run(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(root)},
        check=True,
        timeout=SECONDS,
    )
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
    def fail(*_: object) -> None:
        raise ZeroDivisionError("no lanes")

    monkeypatch.setattr(separation_panel, "plot_waveforms", fail)
    panel.separate()
    with pytest.raises(ZeroDivisionError):
        panel.wait(SECONDS)
    assert panel.state == "failed"
    assert "bug of stemlab, please report it. ZeroDivisionError: no lanes" in panel.error
