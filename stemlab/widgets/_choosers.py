"""Choosers that several panels share: a song, a folder of recordings, a model."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import lru_cache
from html import escape
from pathlib import Path

import ipywidgets
import traitlets

from stemlab import audio
from stemlab._assets import demo_song_dir
from stemlab._typing import StrPath
from stemlab.errors import AudioError, ModelError, ParameterError
from stemlab.registry import ModelManifest, find_model, is_installed, list_models
from stemlab.widgets._fields import dropdown, indented, text_field
from stemlab.widgets._page import is_served, panel_path
from stemlab.widgets.upload import SongUpload

# How deep below a folder recordings are looked for, and how many folders are offered.
_DEEPEST, _MOST_FOLDERS = 3, 100
_ABOUT_SHORT_SEGMENTS = {
    "free": "Shorter ones save memory, but give the model less context.",
    "padded": "Shorter ones are padded to this length: they take as long and save no memory.",
    "fixed": "No other length is possible.",
}


def demo_song() -> str:
    """Path of the song that comes with stemlab."""
    return str(demo_song_dir() / "mixture.flac")


class _PathChooser(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """A list of paths, whose last entry (the empty path) stands for one that the user types."""

    path = traitlets.Unicode()

    def __init__(
        self, description: str, offered: list[tuple[str, str]], placeholder: str, path: str
    ) -> None:
        super().__init__()
        self._list = dropdown(description, offered)
        self._typed = text_field("Path", placeholder)
        self._list.observe(self._on_picked, "value")
        self._typed.observe(self._on_typed, "value")
        self.observe(self._show, "path")
        self.path = path
        self._show()
        # Visitors of a page may not type paths.
        self.children = [self._list] if is_served() else [self._list, self._typed]

    def _on_picked(self, _: object) -> None:
        self.path = self._list.value or self._typed.value.strip()

    def _on_typed(self, _: object) -> None:
        if not self._list.value:
            self.path = self._typed.value.strip()

    def _show(self, _: object = None) -> None:
        # In this order: once the list stands at its last entry, what is typed becomes the path.
        if self.path in [path for _, path in self._list.options]:
            self._list.value = self.path
            self._typed.value = ""
        else:
            self._typed.value = self.path
            self._list.value = ""
        self._typed.layout.display = "none" if self._list.value else ""


class SongChooser(_PathChooser):
    """Choose the demo song, a recording in a folder or any other by its path, or upload one."""

    def __init__(self, folder: StrPath, song: StrPath | None) -> None:
        self._folder = panel_path(folder)
        path = demo_song() if song is None else str(song)
        super().__init__("Song", self._offered(), "path of an audio file", path)
        self._upload = SongUpload(self._folder)
        # Not its path, which stays the same when the same file is uploaded again.
        self._upload.observe(self._on_uploaded, "state")
        self.children = [*self.children, indented(self._upload)]

    def length(self) -> tuple[int, int]:
        """Samples and sample rate of the song, from its header or, without one, by decoding."""
        path = panel_path(self.path or ".")
        try:
            status = os.stat(path)
        except (OSError, ValueError):
            raise AudioError(f"{self.path!r} cannot be opened.", path) from None
        return _length(path, status.st_size, status.st_mtime_ns)

    def _offered(self) -> list[tuple[str, str]]:
        if not os.path.isdir(self._folder):
            raise ParameterError(
                f"folder={str(self._folder)!r} is not a folder. Name one that exists."
            )
        return [
            ("Demo song (comes with stemlab)", demo_song()),
            *((path.name, str(path)) for path in audio.find_recordings(self._folder)),
            ("Choose a song" if is_served() else "Other file (type its path)", ""),
        ]

    def _on_uploaded(self, _: object) -> None:
        if self._upload.state != "done":
            return
        # As the list spells it, so that the list can show it.
        uploaded = str(self._folder / Path(self._upload.path).name)
        # A list that gets new entries chooses the first, which nobody asked for.
        self._list.unobserve(self._on_picked, "value")
        self._list.options = self._offered()
        self._list.observe(self._on_picked, "value")
        self.path = uploaded
        self._show()


class FolderChooser(_PathChooser):
    """Choose a folder that holds recordings to compare, or any other by its path."""

    def __init__(self, folder: StrPath) -> None:
        start = panel_path(folder)
        found = [
            ("this folder" if path == start else path.relative_to(start).as_posix(), str(path))
            for path in _with_recordings(start)
        ]
        typed = ("Choose a folder" if is_served() else "Other folder (type its path)", "")
        offered = [*found, typed]
        super().__init__("Folder", offered, "folder with the stems of a song", offered[0][1])


class ModelChooser(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Choose an installed model; shows what it is and its licence."""

    model = traitlets.Unicode()

    def __init__(self, model: StrPath) -> None:
        super().__init__()
        self._manifests: dict[str, ModelManifest] = {}
        for manifest in list_models():
            # A damaged one must not hide the others; `stemlab models verify` reports it.
            with suppress(ModelError):
                if is_installed(manifest):
                    self._manifests[manifest.name] = manifest
        if str(model) not in self._manifests:
            self._manifests[str(model)] = find_model(str(model))
        names, about = dropdown("Model", self._manifests), ipywidgets.HTML()
        self.model = str(model)
        traitlets.link((self, "model"), (names, "value"))
        traitlets.dlink((self, "model"), (about, "value"), self._about)
        self.children = [names, indented(about)]

    @property
    def manifest(self) -> ModelManifest:
        """Manifest of the chosen model."""
        return self._manifests[self.model]

    @property
    def segment_seconds(self) -> float:
        """Default segment of the chosen model."""
        return float(self.manifest.segment_seconds)

    def _about(self, _: object) -> str:
        manifest = self.manifest
        lines = [
            f"{manifest.title}. Sources: {', '.join(manifest.sources)}.",
            f"Weights: {manifest.weight_license}, {manifest.origin}.",
            f"Default segment: {manifest.segment_seconds:g} s. "
            f"{_ABOUT_SHORT_SEGMENTS[manifest.segment_policy]}",
        ]
        return f"<small>{'<br>'.join(map(escape, lines))}</small>"

    @traitlets.validate("model")
    def _check(self, proposal: traitlets.Bunch) -> str:
        name = str(proposal.value)
        if name not in self._manifests:
            raise ParameterError(
                f"model={name!r} is not offered here ({', '.join(self._manifests)}). "
                "Make a panel for it: model=..."
            )
        return name


@lru_cache(maxsize=1)  # Decoding takes long, and the cost is told at every move of a slider.
def _length(path: Path, size: int, modified_ns: int) -> tuple[int, int]:
    return audio.read_length(path)


def _with_recordings(folder: Path) -> list[Path]:
    """The folder and those below it, level by level, that hold at least two recordings."""
    found, level = [], [folder]
    for _ in range(_DEEPEST + 1):
        below: list[Path] = []
        for candidate in level:
            # One that cannot be read, or is outside the served folder, is skipped.
            with suppress(AudioError, OSError, ParameterError):
                if len(audio.find_recordings(panel_path(candidate))) >= 2:
                    found.append(candidate)
                inside = (inner for inner in candidate.iterdir() if not inner.name.startswith("."))
                below += sorted(inner for inner in inside if inner.is_dir())
        level = below[:_MOST_FOLDERS]
    return found[:_MOST_FOLDERS]
