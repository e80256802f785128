"""Choose a song, press Separate, watch, listen."""

from __future__ import annotations

import atexit
import tempfile
import threading
from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from html import escape
from io import BytesIO
from pathlib import Path

import ipywidgets
import numpy as np
import traitlets

from stemlab import audio
from stemlab._assets import demo_song_dir
from stemlab._typing import AudioArray, StrPath
from stemlab.errors import (
    ModelError,
    OutputError,
    ParameterError,
    SeparationError,
    StemlabError,
)
from stemlab.plots import plot_waveforms
from stemlab.registry import ModelManifest, find_model, is_installed, list_models
from stemlab.separation import (
    AudioStemSeparator,
    OutputSettings,
    SegmentDone,
    SeparationResult,
)

__all__ = ["SeparationPanel"]

# About 12 MB for each player: what a browser takes without delay.
_PREVIEW_SECONDS = 120
_PREVIEW_BLOCK = 1 << 16
# How long a kernel that is shut down waits for the run to clear up.
_SHUTDOWN_SECONDS = 30
_WIDE = ipywidgets.Layout(width="34em", max_width="100%")
_LABELS = {"description_width": "5.5em"}


class _Cancelled(Exception):
    """Raised in the progress callback, where `AudioStemSeparator` lets a caller stop it."""


class SeparationPanel(ipywidgets.VBox):  # type: ignore[misc]  # ipywidgets has no types
    """Separate a song in a notebook and hear the stems.

    The last expression of a cell shows the panel. What its buttons do, `separate`, `cancel` and
    `wait` do from code. The work runs in a thread of its own, and the kernel stays free.

    Parameters
    ----------
    folder : path, default "."
        Its audio files are offered as songs.
    song : path, optional
        The one chosen at first. Default: the demo song that comes with stemlab.
    model : str, default "stemlab-mini"
        A registered name, or the path of a folder with a model, which is then offered as well.
    out_dir : path, default "stems"
        Gets ``<song>/<source>.wav`` and ``<song>/run.json``. An earlier result of the same song
        there is replaced, and the panel says so; nothing else is.

    Attributes
    ----------
    song, model, out_dir : str
        What the next run will use; can be set.
    state : {"idle", "running", "done", "cancelled", "failed"}
    progress : float, in [0, 1]
    message : str
        What the panel says about the state.
    error : str
        What went wrong in the last run; empty otherwise.

    Raises
    ------
    ParameterError
        If `folder` is not a folder.
    ModelNotFoundError, ModelRefusedError
        If there is no such model, or a manifest failed a check.

    Notes
    -----
    The players and the picture hold the first two minutes of a longer song; the files are
    complete. While a cell runs, a notebook does not hear buttons: interrupt the kernel to cancel
    a run that a cell waits for.

    Examples
    --------
    >>> panel = SeparationPanel()
    >>> panel
    SeparationPanel(song='mixture.flac', model='stemlab-mini', state='idle')
    """

    song = traitlets.Unicode()
    model = traitlets.Unicode()
    out_dir = traitlets.Unicode()
    state = traitlets.Enum(["idle", "running", "done", "cancelled", "failed"], "idle")
    progress = traitlets.Float(0.0)
    message = traitlets.Unicode("Choose a song and press Separate.")
    error = traitlets.Unicode()

    def __init__(
        self,
        folder: StrPath = ".",
        *,
        song: StrPath | None = None,
        model: StrPath = "stemlab-mini",
        out_dir: StrPath = "stems",
    ) -> None:
        super().__init__()
        self._busy = False
        self._starting = threading.Lock()
        self._stop = threading.Event()
        self._ended: threading.Event | None = None
        self._result: SeparationResult | None = None
        self._failure: BaseException | None = None
        self._manifests = _offered_models(str(model))
        self.model, self.out_dir = str(model), str(out_dir)
        self.song = str(demo_song_dir() / "mixture.flac" if song is None else song)
        self._build(_offered_songs(Path(folder)))

    def __repr__(self) -> str:
        return (
            f"SeparationPanel(song={Path(self.song).name!r}, model={self.model!r}, "
            f"state={self.state!r})"
        )

    def separate(self) -> None:
        """Start a run with what is chosen now, unless one is running already; does not wait."""
        with self._starting:
            if self._busy:
                return
            self._busy = True
        self._stop.clear()
        # One of this run: an interrupted Thread.join would take the thread for ended.
        self._ended = threading.Event()
        self._result = self._failure = None
        self.error, self.progress = "", 0.0
        self._clear_results()
        self.message = "Reading the model and the song."
        self.state = "running"
        atexit.register(self._shut_down)
        threading.Thread(
            target=self._run,
            args=(self.song.strip(), self.model, self.out_dir.strip(), self._ended),
            name="stemlab-separation",
            # Python waits for other threads before it asks anything to stop.
            daemon=True,
        ).start()

    def cancel(self) -> None:
        """Ask the run to stop; it does after the segment in work, and leaves no files."""
        if self._busy:
            self._stop.set()
            self.message = "Stopping after this segment."

    def wait(self, timeout: float | None = None) -> SeparationResult:
        """Wait for the run to end; interrupting the wait cancels the run.

        Parameters
        ----------
        timeout : float, in seconds, optional
            Default: no limit.

        Returns
        -------
        result : SeparationResult

        Raises
        ------
        SeparationError
            If the run was cancelled, or there was none.
        TimeoutError
            If the run still works after `timeout`; it goes on.
        StemlabError
            What made the run fail.
        """
        if self._ended is None:
            raise SeparationError("nothing was separated yet. Call separate() first.")
        try:
            ended = self._ended.wait(timeout)
        except KeyboardInterrupt:
            self.cancel()
            raise
        if not ended:
            raise TimeoutError(
                f"the separation is not done after timeout={timeout} s ({self.progress:.0%}). "
                "Wait again, or call cancel()."
            )
        if self._failure is not None:
            raise self._failure
        assert self._result is not None
        return self._result

    @traitlets.validate("model")
    def _check_model(self, proposal: traitlets.Bunch) -> str:
        name = str(proposal.value)
        if name not in self._manifests:
            raise ParameterError(
                f"model={name!r} is not offered here ({', '.join(self._manifests)}). "
                "Make a panel for it: SeparationPanel(model=...)."
            )
        return name

    # ------------------------------------------------------------ the run

    def _run(self, song: str, model: str, out_dir: str, ended: threading.Event) -> None:
        """Work in the thread. Nothing may escape: an exception of a thread reaches nobody."""
        state = "failed"
        try:
            self._result, replaced = self._separate(song, model, out_dir)
            self._show_result(Path(song).expanduser(), self._result)
        except _Cancelled:
            state, self.message = "cancelled", "Cancelled. Nothing was written."
            self._failure = SeparationError("the run was cancelled. Call separate() to start anew.")
        except StemlabError as error:
            self._fail(str(error), error)
        except Exception as error:  # noqa: BLE001
            text = f"{type(error).__name__}: {error}"
            self._fail(f"This is a bug of stemlab, please report it. {text}", error)
        else:
            state, self.progress = "done", 1.0
            where = self._result.manifest_path.parent
            self.message = f"Done: {len(self._result.stems)} stems are in {where}." + (
                " They replaced an earlier result of this song." if replaced else ""
            )
        atexit.unregister(self._shut_down)
        self._busy = False
        try:
            self.state = state
        finally:
            ended.set()

    def _fail(self, text: str, error: Exception) -> None:
        self._failure = error
        self.message = "This did not work."
        self.error = text

    def _separate(self, song: str, model: str, out_dir: str) -> tuple[SeparationResult, bool]:
        if not song:
            raise ParameterError("song is empty. Choose one, or type the path of an audio file.")
        separator = AudioStemSeparator(model)
        path, target = Path(song).expanduser(), Path(out_dir or ".").expanduser()
        try:
            return separator.separate_file(path, target, progress=self._on_progress), False
        except OutputError as error:
            # Files without a run.json beside them are not ours to replace.
            if error.path is None or not (error.path.parent / "run.json").is_file():
                raise
        output = OutputSettings(force=True)
        return separator.separate_file(
            path, target, output=output, progress=self._on_progress
        ), True

    def _on_progress(self, event: SegmentDone) -> None:
        if self._stop.is_set():
            raise _Cancelled
        self.progress = event.done / event.total
        self.message = (
            f"Segment {event.done} of {event.total}, about {event.remaining_seconds:.0f} s left."
            if event.done < event.total
            else "Writing the stems."
        )

    def _shut_down(self) -> None:
        self._stop.set()
        if self._ended is not None:
            self._ended.wait(_SHUTDOWN_SECONDS)

    # ------------------------------------------------------------ what is shown

    def _build(self, songs: list[tuple[str, str]]) -> None:
        self._songs = ipywidgets.Dropdown(
            options=songs, description="Song", layout=_WIDE, style=_LABELS
        )
        self._typed = ipywidgets.Text(
            description="Path",
            placeholder="path of an audio file",
            continuous_update=False,
            layout=ipywidgets.Layout(width=_WIDE.width, max_width=_WIDE.max_width),
            style=_LABELS,
        )
        self._models = ipywidgets.Dropdown(
            options=list(self._manifests),
            description="Model",
            layout=_WIDE,
            style=_LABELS,
        )
        self._about = ipywidgets.HTML(layout=ipywidgets.Layout(margin="0 0 0 6em"))
        folder = ipywidgets.Text(
            description="Save to",
            placeholder="folder",
            tooltip="Folder that gets the stems, one folder per song",
            continuous_update=False,
            layout=_WIDE,
            style=_LABELS,
        )
        self._start = ipywidgets.Button(
            description="Separate", button_style="primary", tooltip="Take the song apart"
        )
        self._cancel = ipywidgets.Button(
            description="Cancel", tooltip="Stop the run; nothing is written", disabled=True
        )
        bar = ipywidgets.FloatProgress(
            max=1.0,
            tooltip="Share of the song that is done",
            layout=ipywidgets.Layout(width="16em"),
        )
        self._status = ipywidgets.HTML()
        self._results = ipywidgets.VBox()

        traitlets.link((self, "model"), (self._models, "value"))
        traitlets.link((self, "out_dir"), (folder, "value"))
        traitlets.dlink((self, "progress"), (bar, "value"))
        self._songs.observe(self._on_song_picked, "value")
        self._typed.observe(self._on_song_typed, "value")
        self._start.on_click(lambda _: self.separate())
        self._cancel.on_click(lambda _: self.cancel())
        self.observe(self._show_song, "song")
        self.observe(self._show_model, "model")
        self.observe(self._show_state, ["state", "message", "error"])
        self._show_song()
        self._show_model()
        self._show_state()
        self.children = [
            self._songs,
            self._typed,
            self._models,
            self._about,
            folder,
            ipywidgets.HBox([self._start, self._cancel, bar]),
            self._status,
            self._results,
        ]

    def _on_song_picked(self, _: object) -> None:
        self.song = self._songs.value or self._typed.value

    def _on_song_typed(self, _: object) -> None:
        if not self._songs.value:
            self.song = self._typed.value

    def _show_song(self, _: object = None) -> None:
        # In these orders, because the list takes over what is typed once it says "another file".
        if self.song in [path for _, path in self._songs.options]:
            self._songs.value = self.song
            self._typed.value = ""
        else:
            self._typed.value = self.song
            self._songs.value = ""
        self._typed.layout.display = "none" if self._songs.value else ""

    def _show_model(self, _: object = None) -> None:
        manifest = self._manifests[self.model]
        self._about.value = (
            f"<small>{escape(manifest.title)}. Makes {escape(', '.join(manifest.sources))}. "
            f"Weights: {escape(manifest.weight_license)}, {escape(manifest.origin)}.</small>"
        )

    def _show_state(self, _: object = None) -> None:
        running = self.state == "running"
        self._start.disabled, self._cancel.disabled = running, not running
        # Roles, so that a screen reader speaks what changes.
        self._status.value = f'<div role="status">{escape(self.message)}</div>' + (
            '<div role="alert" style="color: var(--jp-error-color1, #b00020)">'
            f"<b>Error:</b> {escape(self.error)}</div>"
            if self.error
            else ""
        )

    def _show_result(self, song: Path, result: SeparationResult) -> None:
        files = {"mixture": song, **result.stems}
        rate = audio.read_info(song).sample_rate
        signals = {name: _excerpt(path) for name, path in files.items()}
        # One gain for all, or stems could not be compared by ear.
        gain = 1 / max(1.0, *(float(np.abs(each).max()) for each in signals.values()))
        rows = [
            ipywidgets.HBox(
                [
                    ipywidgets.Label(name, layout=ipywidgets.Layout(width="5.5em")),
                    _player(signals[name], rate, gain),
                    ipywidgets.Label(str(path)),
                ],
                layout=ipywidgets.Layout(align_items="center"),
            )
            for name, path in files.items()
        ]
        self._results.children = [*rows, _picture(signals, rate)]

    def _clear_results(self) -> None:
        old, self._results.children = self._results.children, ()
        for each in old:
            # Otherwise kernel and page would keep the audio of every run.
            for part in (*getattr(each, "children", ()), each):
                part.close()


def _offered_songs(folder: Path) -> list[tuple[str, str]]:
    """Labels and paths; an empty path stands for a typed one."""
    if not folder.is_dir():
        raise ParameterError(f"folder={str(folder)!r} is not a folder. Name one that exists.")
    return [
        ("Demo song (comes with stemlab)", str(demo_song_dir() / "mixture.flac")),
        *((each.name, str(each)) for each in audio.find_recordings(folder)),
        ("Another file: type its path", ""),
    ]


def _offered_models(model: str) -> Mapping[str, ModelManifest]:
    registered = {}
    for each in list_models():
        # One that is damaged is told by `stemlab models verify`, and hides no other.
        with suppress(ModelError):
            if is_installed(each):
                registered[each.name] = each
    return registered if model in registered else {**registered, model: find_model(model)}


def _excerpt(path: Path) -> AudioArray:
    """Read what the players and the picture hold of a recording."""
    left = _PREVIEW_SECONDS * audio.read_info(path).sample_rate
    blocks = []
    for block in audio.stream_file(path, block_samples=_PREVIEW_BLOCK):
        blocks.append(block[:, :left])
        left -= blocks[-1].shape[1]
        if not left:
            break
    return np.concatenate(blocks, axis=1)


def _player(recording: AudioArray, sample_rate: int, gain: float) -> ipywidgets.Audio:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "player.flac"
        audio.write_file(
            file, [recording], sample_rate, len(recording), format="flac", bits=16, gain=gain
        )
        content = file.read_bytes()
    # No tooltip, by which others get a name: with one, this widget's view fails (ipywidgets 8.1).
    return ipywidgets.Audio(value=content, format="flac", autoplay=False, loop=False)


def _picture(signals: Mapping[str, AudioArray], sample_rate: int) -> ipywidgets.HTML:
    """Waveforms as an image with a text alternative, which ipywidgets.Image cannot have."""
    buffer = BytesIO()
    plot_waveforms(signals, sample_rate)[0].figure.savefig(buffer, format="png", dpi=90)
    peaks = ", ".join(f"{name} {np.abs(each).max():.2f}" for name, each in signals.items())
    return ipywidgets.HTML(
        f'<img alt="Waveforms. Peaks, full scale being 1: {escape(peaks)}." '
        'style="max-width: 100%" '
        f'src="data:image/png;base64,{b64encode(buffer.getvalue()).decode()}">'
    )
