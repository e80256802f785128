"""The comparison panel with real recordings."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest
from panels import find, parts, shown

from stemlab import audio, compare_spectra
from stemlab.errors import AudioError, AudioNotFoundError, ParameterError, SeparationError
from stemlab.spectra import SpectralGrid
from stemlab.widgets import ComparePanel, StemMixer, compare_panel

RATE = 8000
SECONDS = 60


@pytest.fixture
def signals(rng: np.random.Generator) -> dict[str, Any]:
    noise = rng.uniform(-0.3, 0.3, (2, 2 * RATE)).astype(np.float32)
    return {"stem": noise / 2, "mixture": noise, "<other>": noise[:1, :RATE] / 4}


@pytest.fixture
def panel(threads_end: None, signals: Any) -> Iterator[ComparePanel]:
    made = ComparePanel(signals, RATE)
    yield made
    made.close()


def test_starts_with_the_mixture_as_reference(panel: ComparePanel) -> None:
    assert panel.reference == "mixture"
    assert panel.compared == ("stem", "<other>")
    assert panel.time_range_seconds == (0, 2)
    assert repr(panel) == (
        "ComparePanel(reference='mixture', compared=('stem', '<other>'), state='idle')"
    )


def test_the_numbers_are_those_of_the_library(panel: ComparePanel, signals: Any) -> None:
    find(panel, ipywidgets.Button, "Compare").click()
    found = panel.wait(SECONDS)
    expected = compare_spectra(signals, RATE, reference="mixture")
    assert found.log_spectral_distance_db == expected.log_spectral_distance_db
    assert panel.comparison is found
    text = shown(panel)
    assert 'alt="Spectrograms of mixture, stem, &lt;other&gt;. Log-spectral distance' in text
    assert "stem 6.0 dB" in text
    assert "<td style='padding: 0 6px'>-6.0</td>" in text
    assert "<other>" not in text
    assert panel.mixer in parts(panel)
    assert panel.mixer.heard == "stem"
    panel.mixer.heard = "mixture"


def test_an_earlier_result_makes_room_for_that_of_other_choices(panel: ComparePanel) -> None:
    panel.compare()
    panel.wait(SECONDS)
    old = panel.mixer
    find(panel, ipywidgets.Dropdown, "Reference").value = "stem"
    find(panel, ipywidgets.SelectMultiple, "Compared").value = ("mixture",)
    find(panel, ipywidgets.Dropdown, "Freq. scale").value = "mel"
    find(panel, ipywidgets.Dropdown, "Frame").value = 512
    find(panel, ipywidgets.FloatRangeSlider, "Time (s)").value = (0.5, 1.5)
    find(panel, ipywidgets.Dropdown, "Show above").value = 100
    panel.compare()
    found = panel.wait(SECONDS)
    assert found.reference == "stem"
    assert list(found.powers) == ["stem", "mixture"]
    assert found.grid == SpectralGrid(512, "mel", (0.5, 1.5), (100, RATE / 2))
    assert old is not None
    assert old.comm is None
    assert shown(panel).count("<img") == 1


def test_a_folder_stands_for_its_recordings(tmp_path: Path, signals: Any) -> None:
    for name, signal in zip(("b", "a"), signals.values(), strict=False):
        audio.write_file(tmp_path / f"{name}.wav", [signal], RATE, len(signal))
    # Of another rate, and to be decoded.
    audio.write_file(tmp_path / "c.ogg", [signals["mixture"]], 2 * RATE, 2, format="ogg")
    panel = ComparePanel(tmp_path)
    assert (panel.reference, panel.compared) == ("a", ("b", "c"))
    panel.compare()
    assert panel.wait(SECONDS).log_spectral_distance_db["b"] == pytest.approx(6.02, abs=0.01)
    panel.close()


def test_folders_are_offered_and_any_other_may_be_typed(tmp_path: Path, signals: Any) -> None:
    noise = signals["mixture"]
    for name, samples in (("stems/long", 2 * RATE), ("stems/short", RATE), ("elsewhere", RATE)):
        (tmp_path / name).mkdir(parents=True)
        for stem in ("bass", "drums"):
            audio.write_file(tmp_path / name / f"{stem}.wav", [noise[:, :samples]], RATE, 2)
    (tmp_path / "stems" / ".hidden").mkdir()
    (tmp_path / "one").mkdir()
    audio.write_file(tmp_path / "one" / "alone.wav", [noise], RATE, 2)
    panel = ComparePanel(tmp_path / "stems")
    folders = find(panel, ipywidgets.Dropdown, "Folder")
    assert [label for label, _ in folders.options] == [
        "long",
        "short",
        "Other folder (type its path)",
    ]
    assert panel.time_range_seconds == (0, 2)
    panel.compare()
    panel.wait(SECONDS)
    assert panel.mixer is not None
    folders.label = "short"
    assert panel.time_range_seconds == (0, 1)
    assert (panel.reference, panel.compared) == ("bass", ("drums",))
    assert panel.mixer is None
    folders.label = "Other folder (type its path)"
    assert "nothing to compare here yet" in shown(panel)
    typed = find(panel, ipywidgets.Text, "Path")
    typed.value = str(tmp_path / "elsewhere")
    assert panel.reference == "bass"
    panel.compare()
    assert panel.wait(SECONDS).log_spectral_distance_db == {"drums": 0}
    for wrong, message in (("one", "at least 2 signals, not 1"), ("no", "cannot be listed")):
        typed.value = str(tmp_path / wrong)
        assert message in shown(panel)
        assert panel.reference == ""
        assert panel.compared == ()
    panel.compare()
    with pytest.raises(ParameterError, match="no signal is selected"):
        panel.wait(SECONDS)
    panel.folder = str(tmp_path / "stems" / "long")
    assert folders.label == "long"
    assert panel.error == ""
    panel.close()


def test_a_folder_without_recordings_is_told_in_the_panel(tmp_path: Path) -> None:
    panel = ComparePanel(tmp_path)
    assert "nothing to compare here yet" in shown(panel)
    panel.close()


def test_a_large_folder_is_compared_in_part(tmp_path: Path, signals: Any) -> None:
    for number in range(104):
        audio.write_file(tmp_path / f"{number:03}.wav", [signals["<other>"]], RATE, 1)
    audio.write_file(tmp_path / "000.flac", [signals["<other>"]], RATE, 1, format="flac")
    panel = ComparePanel(tmp_path)
    offered = find(panel, ipywidgets.SelectMultiple, "Compared").options
    assert len(offered) == 100
    # Two of one name are told apart.
    assert offered[:3] == ("000.flac", "000.wav", "001")
    assert panel.compared == offered[1:6]
    assert "The first 100 of 105 recordings are offered." in shown(panel)
    panel.close()


def test_a_recording_that_cannot_be_read_is_told(tmp_path: Path, signals: Any) -> None:
    audio.write_file(tmp_path / "a.wav", [signals["stem"]], RATE, 2)
    (tmp_path / "b.wav").write_text("no sound")
    panel = ComparePanel(tmp_path)
    assert "b.wav" in panel.error
    assert panel.message == "Choose another folder."
    panel.close()


def test_another_folder_ends_the_comparison_of_the_first(
    tmp_path: Path, signals: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one/a", "one/b", "two/c", "two/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        audio.write_file(tmp_path / f"{name}.wav", [signals["stem"]], RATE, 2)
    panel = ComparePanel(tmp_path)
    reading, chosen = threading.Event(), threading.Event()
    open_recording = audio.SeekableRecording

    def slow(path: Path, sample_rate: int) -> Any:
        if path.name == "b.wav":
            reading.set()
            assert chosen.wait(SECONDS)
        return open_recording(path, sample_rate)

    monkeypatch.setattr(audio, "SeekableRecording", slow)
    panel.compare()
    assert reading.wait(SECONDS)
    panel.folder = str(tmp_path / "two")
    chosen.set()
    with pytest.raises(SeparationError, match="cancelled"):
        panel.wait(SECONDS)
    assert (panel.state, panel.error, panel.comparison) == ("cancelled", "", None)
    panel.compare()
    assert list(panel.wait(SECONDS).powers) == ["c", "d"]
    panel.close()


def test_a_folder_chosen_at_the_last_moment_does_not_show_the_result_of_the_first(
    tmp_path: Path, signals: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one/a", "one/b", "two/c", "two/d"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        audio.write_file(tmp_path / f"{name}.wav", [signals["stem"]], RATE, 2)
    panel = ComparePanel(tmp_path / "one")
    made: list[StemMixer] = []

    def choose_another(*arguments: Any, **options: Any) -> StemMixer:
        panel.folder = str(tmp_path / "two")
        made.append(StemMixer(*arguments, **options))
        return made[0]

    monkeypatch.setattr(compare_panel, "StemMixer", choose_another)
    panel.compare()
    with pytest.raises(SeparationError, match="cancelled"):
        panel.wait(SECONDS)
    assert (panel.reference, panel.comparison, panel.mixer) == ("c", None, None)
    assert "<img" not in shown(panel)
    assert made[0].comm is None
    panel.close()


def test_letters_that_no_font_has_are_not_complained_of(signals: Any) -> None:
    # Warnings are errors here, and in the thread as well.
    panel = ComparePanel({"さくら": signals["stem"], "Ärger": signals["mixture"]}, RATE)
    panel.compare()
    panel.wait(SECONDS)
    assert "<td style='padding: 0 6px'>Ärger</td>" in shown(panel)
    assert "Compared with さくら" in shown(panel)
    panel.close()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s, _: ComparePanel({"x": s["stem"]}, RATE), ParameterError, "at least 2 signals"),
        (lambda s, _: ComparePanel(s), ParameterError, "sample_rate is missing"),
        (lambda _, p: ComparePanel(p / "no"), AudioError, "cannot be listed"),
        (
            lambda _, p: ComparePanel({"a": p / "a.wav", "b": p / "b.wav"}),
            AudioNotFoundError,
            "does not exist",
        ),
    ],
)
def test_wrong_arguments_are_refused(
    make: Any, error: type[Exception], message: str, signals: Any, tmp_path: Path
) -> None:
    with pytest.raises(error, match=message):
        make(signals, tmp_path)


def test_wrong_choices_are_refused(panel: ComparePanel) -> None:
    with pytest.raises(ParameterError, match="reference='no' is not one of the signals"):
        panel.reference = "no"
    with pytest.raises(ParameterError, match="compared='no'"):
        panel.compared = ("no",)
    panel.compared = ()
    panel.compare()
    with pytest.raises(ParameterError, match="no signal is selected"):
        panel.wait(SECONDS)
    assert "no signal is selected" in shown(panel)
