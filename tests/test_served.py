"""Panels on a page for visitors: what a forged message asks for outside the folder is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import ipywidgets
import numpy as np
import pytest
import soundfile
from ipywidgets.widgets import widget
from panels import parts, shown

from stemlab import demo_song_dir
from stemlab._isolation import SERVED_FOLDER
from stemlab.errors import ParameterError
from stemlab.widgets import (
    ComparePanel,
    CostPanel,
    SeamPanel,
    SeparationPanel,
    SweepPanel,
    TamperPanel,
)
from stemlab.widgets._page import panel_path

OUTSIDE = "is outside the folder that is served here"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A folder of recordings that no visitor may know of."""
    folder = tmp_path / "private"
    folder.mkdir()
    for name in ("bass", "drums", "vocals", "other"):
        shutil.copy(demo_song_dir() / f"{name}.flac", folder)
    return folder


@pytest.fixture
def served(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "served"
    folder.mkdir()
    soundfile.write(folder / "song.flac", rng.uniform(-0.1, 0.1, (22_050, 2)), 44_100)
    monkeypatch.setenv(SERVED_FOLDER, str(folder))
    monkeypatch.chdir(folder)
    # Those of the panel of this test alone.
    monkeypatch.setattr(widget, "_instances", {})
    return folder


def tell(target: Any, **state: object) -> None:
    """Send what the page sends when something is chosen or typed."""
    target._handle_msg({"content": {"data": {"method": "update", "state": state}}})


def forge(text: str) -> int:
    """Put a text into every field there is, shown or not, once the lists ask for one."""
    fields = [part for part in widget._instances.values() if isinstance(part, ipywidgets.Text)]
    for chosen in list(widget._instances.values()):
        if isinstance(chosen, ipywidgets.Dropdown) and chosen._options_values[-1:] == ("",):
            tell(chosen, index=len(chosen.options) - 1)
    for field in fields:
        tell(field, value=text)
        assert field.value == text
    return len(fields)


def fields_shown(panel: Any) -> list[str]:
    return [part.description for part in parts(panel) if isinstance(part, ipywidgets.Text)]


@pytest.mark.parametrize("name", ["bass.flac", "nothing.flac"])
def test_no_song_outside_is_separated_and_none_is_told_of(
    served: Path, outside: Path, name: str
) -> None:
    panel = SeparationPanel()
    assert fields_shown(panel) == []
    assert forge(str(outside / name)) == 1
    assert panel.song == str(outside / name)
    assert panel.cost == f"{panel.song!r} {OUTSIDE}. Choose one inside it."
    panel.separate()
    with pytest.raises(ParameterError, match=OUTSIDE):
        panel.wait(60)
    assert panel.error == panel.cost
    panel.close()


def test_links_lead_nowhere(served: Path, outside: Path) -> None:
    (served / "link.flac").symlink_to(outside / "bass.flac")
    (served / "folder").symlink_to(outside)
    panel = SeparationPanel()
    for song in ("link.flac", "folder/bass.flac", "../private/bass.flac", "nowhere/../link.flac"):
        panel.song = song
        panel.separate()
        with pytest.raises(ParameterError, match=OUTSIDE):
            panel.wait(60)
    with pytest.raises(ParameterError, match=OUTSIDE):
        SeparationPanel("folder")
    with pytest.raises(ParameterError, match=OUTSIDE):
        ComparePanel("folder")


def test_stems_are_saved_in_the_folder_that_is_served(served: Path, outside: Path) -> None:
    panel = SeparationPanel(song="song.flac")
    panel.pad_to_training_segment = False
    panel.separate()
    panel.wait(120)
    # The panel makes no field for this trait when it is served.
    forge(str(outside))
    assert panel.out_dir == "stems"
    panel.out_dir = str(outside)
    panel.save()
    with pytest.raises(ParameterError, match=OUTSIDE):
        panel.wait(60)
    panel.out_dir = "stems"
    panel.save()
    assert panel.wait(60).manifest_path == Path("stems/song/run.json")
    assert len(list(outside.iterdir())) == 4


def test_nothing_outside_is_compared(served: Path, outside: Path) -> None:
    below = served / "stems"
    shutil.copytree(outside, below)
    (served / "linked").symlink_to(outside)
    panel = ComparePanel(".")
    assert fields_shown(panel) == []
    offered = next(part for part in parts(panel) if isinstance(part, ipywidgets.Dropdown))
    assert [label for label, _ in offered.options] == ["stems", "Choose a folder"]
    for folder in (outside, outside / "nothing"):
        forge(str(folder))
        assert panel.folder == str(folder)
        assert panel.error == f"{str(folder)!r} {OUTSIDE}. Choose one inside it."
        assert panel.reference == ""
    (below / "bass.flac").unlink()
    (below / "bass.flac").symlink_to(outside / "bass.flac")
    panel.folder = "stems"
    assert OUTSIDE in panel.error
    with pytest.raises(ParameterError, match=OUTSIDE):
        ComparePanel({name: outside / f"{name}.flac" for name in ("bass", "drums")})


def test_a_sweep_reads_nothing_outside(served: Path, outside: Path) -> None:
    panel = SweepPanel(song="song.flac")
    assert "True stems" not in fields_shown(panel)
    panel.references = str(outside)
    panel.run()
    with pytest.raises(ParameterError, match=OUTSIDE):
        panel.wait(60)
    panel.references, panel.song = "", str(outside / "bass.flac")
    panel.estimate()
    with pytest.raises(ParameterError, match=OUTSIDE):
        panel.wait(60)


def test_the_other_panels_take_no_path(served: Path) -> None:
    for kind in (CostPanel, SeamPanel, TamperPanel):
        panel = kind()
        assert forge("/") == 0
        panel.close()


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "a\0" * 5000])
def test_what_no_path_can_be_is_told_in_words(text: str) -> None:
    with pytest.raises(ParameterError, match="is not a path. Choose a file or folder."):
        panel_path(text)


def test_elsewhere_paths_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SERVED_FOLDER, raising=False)
    assert panel_path(tmp_path / "x") == tmp_path / "x"
    panel = SeparationPanel(tmp_path)
    assert fields_shown(panel) == ["Path", "Save to"]
    assert "type its path" in str(panel._songs._list.options)
    assert OUTSIDE not in shown(panel)
    panel.close()
