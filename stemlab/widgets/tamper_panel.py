"""Tamper with a copy of a model and see what stemlab makes of it."""

from __future__ import annotations

import hashlib
import pickle
import tempfile
from collections.abc import Callable
from html import escape
from pathlib import Path

import ipywidgets
import numpy as np
import traitlets

from stemlab._assets import asset_dir
from stemlab.errors import ModelRefusedError
from stemlab.separation import AudioStemSeparator
from stemlab.widgets._work import LABELS, WIDE, WorkPanel

__all__ = ["TAMPERING", "TamperPanel"]

_MODEL = "stemlab-mini"


def _flip(content: bytes, byte: int) -> bytes:
    return content[:byte] + bytes([content[byte] ^ 1]) + content[byte + 1 :]


def _pickle(content: bytes, byte: int) -> bytes:
    """A pickle of the same size: what follows its end is not read."""
    return pickle.dumps({"weights": [0.0]}).ljust(len(content), b"\0")


_CHANGES: dict[str, Callable[[bytes, int], bytes]] = {
    "nothing": lambda content, byte: content,
    "flip one bit": _flip,
    "cut off the last byte": lambda content, byte: content[:-1],
    "put a pickle in its place": _pickle,
    "flip one bit, and change the manifest": _flip,
}
TAMPERING = tuple(_CHANGES)
"""What can be done to the copy."""


class TamperPanel(WorkPanel):
    """Change the weights of a copy of the default model, and try to load it.

    The installed model is not touched. The copy lies in a temporary folder, for as long as a try
    takes.

    Attributes
    ----------
    tampering : str
        One of `TAMPERING`; can be set.
    byte : int
        Which one has a bit flipped; can be set.
    loaded : bool or None
        Whether the last copy was loaded; None before the first.
    refusal : str
        What stemlab said of the last copy; empty where it was loaded.
    state : {"idle", "running", "done", "cancelled", "failed"}
    message : str
        What the panel says about the state.
    error : str
        What went wrong in the last run; empty otherwise.

    Notes
    -----
    A copy is loaded by the path of its folder, so its own manifest is all that vouches for it. A
    model that is asked for by its name has its manifest compared with the registry, too.

    Examples
    --------
    >>> panel = TamperPanel()
    >>> panel.tampering = "flip one bit"
    >>> panel.tamper()
    >>> panel.wait(60)
    False
    """

    tampering = traitlets.Enum(TAMPERING, TAMPERING[0])
    byte = traitlets.Int()
    loaded = traitlets.Bool(None, allow_none=True)
    refusal = traitlets.Unicode()

    _thread_name = "stemlab-tampering"

    def __init__(self) -> None:
        super().__init__()
        self._folder = asset_dir("models") / _MODEL
        self._weights = self._folder / f"{_MODEL}.safetensors"
        self._bytes = self._weights.stat().st_size
        self.byte = self._bytes // 2
        self.message = "Choose what to do to the copy, and press Tamper and load."
        self._build()

    def __repr__(self) -> str:
        return f"TamperPanel(tampering={self.tampering!r}, loaded={self.loaded})"

    def tamper(self) -> None:
        """Start to change a copy and load it, unless that is going on; does not wait.

        `wait` then returns whether it was loaded.
        """
        tampering, byte = self.tampering, self.byte
        self._start(lambda: self._try(tampering, byte), "Changing the copy and loading it.")

    @traitlets.validate("byte")
    def _check_byte(self, proposal: traitlets.Bunch) -> int:
        return min(max(int(proposal.value), 0), self._bytes - 1)

    def _try(self, tampering: str, byte: int) -> bool:
        original = self._weights.read_bytes()
        changed = _CHANGES[tampering](original, byte)
        manifest = (self._folder / "manifest.json").read_text("utf-8")
        recorded = _digest(original)
        if tampering == TAMPERING[-1]:
            manifest, recorded = manifest.replace(recorded, _digest(changed)), _digest(changed)
        with tempfile.TemporaryDirectory(prefix="stemlab-") as name:
            folder = Path(name) / "copy"
            folder.mkdir()
            (folder / "manifest.json").write_text(manifest, "utf-8")
            (folder / self._weights.name).write_bytes(changed)
            self._check_stop()
            refusal = _load(folder)
        self.refusal = refusal
        self.loaded = not refusal
        self._show_results(ipywidgets.HTML(_told(recorded, _digest(changed), refusal)))
        self.message = "Refused." if refusal else "Loaded."
        return self.loaded

    def _build(self) -> None:
        what = ipywidgets.Dropdown(options=TAMPERING, description="Do", layout=WIDE, style=LABELS)
        byte = ipywidgets.IntSlider(
            description="Byte", max=self._bytes - 1, layout=WIDE, style=LABELS
        )
        traitlets.link((self, "tampering"), (what, "value"))
        traitlets.link((self, "byte"), (byte, "value"))

        def show(_: object = None) -> None:
            byte.layout.display = "" if _CHANGES[self.tampering] is _flip else "none"

        self.observe(show, "tampering")
        show()
        start = ipywidgets.Button(
            description="Tamper and load",
            button_style="primary",
            tooltip="Change a copy of the model, and try to load it",
        )
        start.on_click(lambda _: self.tamper())
        self._show_status()
        self.children = [what, byte, self._buttons(start), self._status, self._results]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _load(folder: Path) -> str:
    """What stemlab says of the copy; empty if it loads."""
    silence = np.zeros((2, 4410), np.float32)
    try:
        AudioStemSeparator(folder, device="cpu").separate_audio(silence, 44_100)
    except ModelRefusedError as error:
        return str(error).replace(str(folder), "copy")
    return ""


def _told(recorded: str, found: str, refusal: str) -> str:
    marked = "".join(
        each if each == other else f"<b style='color: var(--jp-error-color1, #b00020)'>{each}</b>"
        for each, other in zip(found, recorded, strict=True)
    )
    verdict = f"<b>Refused:</b> {escape(refusal)}" if refusal else "<b>Loaded.</b>"
    return (
        f"<div>{verdict}</div><small>SHA-256 in the manifest: <code>{recorded}</code><br>"
        f"SHA-256 of the file: &emsp;&emsp;&ensp; <code>{marked}</code></small>"
    )
