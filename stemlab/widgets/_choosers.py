"""What several panels begin with: which song, which model."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from pathlib import Path

import ipywidgets
import traitlets

from stemlab import audio
from stemlab._assets import demo_song_dir
from stemlab._typing import StrPath
from stemlab.errors import AudioError, ModelError, ParameterError
from stemlab.registry import ModelManifest, find_model, is_installed, list_models
from stemlab.widgets._served import is_served, panel_path
from stemlab.widgets._work import LABELS, WIDE, indented
from stemlab.widgets.upload import SongUpload

__all__ = ["FolderChooser", "ModelChooser", "SongChooser", "demo_song"]

# How far below a folder recordings are looked for, and how many folders are offered.
_DEEPEST, _MOST_FOLDERS = 3, 100


def demo_song() -> str:
    """Path of the song that comes with stemlab."""
    return str(demo_song_dir() / "mixture.flac")


class SongChooser(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Choose the demo song, a recording of a folder, any other by its path, or upload one."""

    song = traitlets.Unicode()

    def __init__(self, folder: StrPath, song: StrPath | None) -> None:
        super().__init__()
        self._folder = panel_path(folder)
        self._songs = ipywidgets.Dropdown(
            options=self._offered(), description="Song", layout=WIDE, style=LABELS
        )
        self._typed = ipywidgets.Text(
            description="Path",
            placeholder="path of an audio file",
            continuous_update=False,
            layout=ipywidgets.Layout(**WIDE),
            style=LABELS,
        )
        self._upload = SongUpload(self._folder)
        self._songs.observe(self._on_picked, "value")
        self._typed.observe(self._on_typed, "value")
        # Not its path, which stays the same where the same file is uploaded again.
        self._upload.observe(self._on_uploaded, "state")
        self.observe(self._show, "song")
        self.song = demo_song() if song is None else str(song)
        self._show()
        self.children = [self._songs, *_typed_fields(self._typed), indented(self._upload)]

    def close(self) -> None:
        """Stop an upload and take the chooser off the page."""
        self._upload.close()
        super().close()

    def _offered(self) -> list[tuple[str, str]]:
        """Labels and paths; an empty path stands for a typed one."""
        if not os.path.isdir(self._folder):
            raise ParameterError(
                f"folder={str(self._folder)!r} is not a folder. Name one that exists."
            )
        return [
            ("Demo song (comes with stemlab)", demo_song()),
            *((each.name, str(each)) for each in audio.find_recordings(self._folder)),
            ("Choose a song" if is_served() else "Another file: type its path", ""),
        ]

    def _on_picked(self, _: object) -> None:
        self.song = self._songs.value or self._typed.value

    def _on_typed(self, _: object) -> None:
        if not self._songs.value:
            self.song = self._typed.value

    def _on_uploaded(self, _: object) -> None:
        if self._upload.state != "done":
            return
        # As the list names it, so that the list can show it.
        uploaded = str(self._folder / Path(self._upload.path).name)
        # A list that gets new entries chooses the first, which nobody asked for.
        self._songs.unobserve(self._on_picked, "value")
        self._songs.options = self._offered()
        self._songs.observe(self._on_picked, "value")
        self.song = uploaded
        self._show()

    def _show(self, _: object = None) -> None:
        # In these orders, because the list takes over what is typed once it says "another file".
        if self.song in [path for _, path in self._songs.options]:
            self._songs.value = self.song
            self._typed.value = ""
        else:
            self._typed.value = self.song
            self._songs.value = ""
        self._typed.layout.display = "none" if self._songs.value else ""


class FolderChooser(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Choose one of the folders that hold recordings to compare, or any other by its path."""

    folder = traitlets.Unicode()

    def __init__(self, folder: StrPath) -> None:
        super().__init__()
        start = panel_path(folder)
        found = [(_shown(path, start), str(path)) for path in _with_recordings(start)]
        self._folders = ipywidgets.Dropdown(
            options=[
                *found,
                ("Choose a folder" if is_served() else "Another folder: type its path", ""),
            ],
            description="Folder",
            layout=WIDE,
            style=LABELS,
        )
        self._typed = ipywidgets.Text(
            description="Path",
            placeholder="folder with the stems of a song",
            continuous_update=False,
            layout=ipywidgets.Layout(**WIDE),
            style=LABELS,
        )
        self._folders.observe(self._on_picked, "value")
        self._typed.observe(self._on_typed, "value")
        self.observe(self._show, "folder")
        self.folder = self._folders.value
        self._show()
        self.children = [self._folders, *_typed_fields(self._typed)]

    def _on_picked(self, _: object) -> None:
        self.folder = self._folders.value or self._typed.value

    def _on_typed(self, _: object) -> None:
        if not self._folders.value:
            self.folder = self._typed.value.strip()

    def _show(self, _: object = None) -> None:
        # In these orders, as in the chooser of songs.
        if self.folder and self.folder in [path for _, path in self._folders.options]:
            self._folders.value = self.folder
            self._typed.value = ""
        else:
            self._typed.value = self.folder
            self._folders.value = ""
        self._typed.layout.display = "none" if self._folders.value else ""


class ModelChooser(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Choose one of the models that are installed; says what it is and under which licence."""

    model = traitlets.Unicode()

    def __init__(self, model: StrPath) -> None:
        super().__init__()
        self._manifests = _offered_models(str(model))
        about = ipywidgets.HTML()
        names = ipywidgets.Dropdown(
            options=list(self._manifests), description="Model", layout=WIDE, style=LABELS
        )

        def show(_: object = None) -> None:
            about.value = _about(self.manifest)

        self.model = str(model)
        traitlets.link((self, "model"), (names, "value"))
        self.observe(show, "model")
        show()
        self.children = [names, indented(about)]

    @property
    def manifest(self) -> ModelManifest:
        """What is known of the chosen model."""
        return self._manifests[self.model]

    @traitlets.validate("model")
    def _check(self, proposal: traitlets.Bunch) -> str:
        name = str(proposal.value)
        if name not in self._manifests:
            raise ParameterError(
                f"model={name!r} is not offered here ({', '.join(self._manifests)}). "
                "Make a panel for it: model=..."
            )
        return name


def _typed_fields(field: ipywidgets.Text) -> list[ipywidgets.Text]:
    """The field for a path, which a visitor of a page is not offered."""
    return [] if is_served() else [field]


def _with_recordings(folder: Path) -> list[Path]:
    """The folder and those below it, level by level, that hold something to compare."""
    found, level = [], [folder]
    for _ in range(_DEEPEST + 1):
        below: list[Path] = []
        for each in level:
            # One that may not be read, or is outside what is served, is passed over.
            with suppress(AudioError, OSError, ParameterError):
                if len(audio.find_recordings(panel_path(each))) >= 2:
                    found.append(each)
                inside = (inner for inner in each.iterdir() if not inner.name.startswith("."))
                below += sorted(inner for inner in inside if inner.is_dir())
        level = below[:_MOST_FOLDERS]
    return found[:_MOST_FOLDERS]


def _shown(folder: Path, start: Path) -> str:
    return "this folder" if folder == start else folder.relative_to(start).as_posix()


def _about(manifest: ModelManifest) -> str:
    segment = {
        "free": "it was made for shorter ones as well, which save memory and see less.",
        "padded": "a shorter one is padded to that, costs as much and saves nothing.",
        "fixed": "it takes no other.",
    }[manifest.segment_policy]
    lines = [
        f"{manifest.title}. Makes {', '.join(manifest.sources)}.",
        f"Weights: {manifest.weight_license}, {manifest.origin}.",
        f"Its own segment is {manifest.segment_seconds:g} s; {segment}",
    ]
    return f"<small>{'<br>'.join(map(escape, lines))}</small>"


def _offered_models(model: str) -> Mapping[str, ModelManifest]:
    registered = {}
    for each in list_models():
        # One that is damaged is told by `stemlab models verify`, and hides no other.
        with suppress(ModelError):
            if is_installed(each):
                registered[each.name] = each
    return registered if model in registered else {**registered, model: find_model(model)}
