"""Tamper with a copy of a model, and see whether stemlab loads it."""

from __future__ import annotations

import hashlib
import json
import pickle
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any

import ipywidgets
import traitlets

from stemlab.errors import ModelRefusedError
from stemlab.files import ScratchFolder
from stemlab.provisioning import verify_model
from stemlab.registry import MANIFEST_NAME, find_model, installed_file, read_manifest
from stemlab.widgets._fields import button, checkbox, dropdown, field
from stemlab.widgets._work import WorkPanel

_MODEL = "stemlab-mini"
_MARK = "color: var(--jp-error-color1, #b00020)"


class _Surprise:
    """An object whose pickle runs a call when it is opened."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return print, ("A pickle was opened, and its code ran.",)


def _other_weights(content: bytes) -> bytes:
    """Valid weights of the same names, shapes and size, all of them 0."""
    start = 8 + int.from_bytes(content[:8], "little")
    return content[:start] + bytes(len(content) - start)


_CHANGES: dict[str, Callable[[bytes, int], bytes]] = {
    "nothing": lambda content, byte: content,
    "flip one bit": lambda content, byte: (
        content[:byte] + bytes([content[byte] ^ 1]) + content[byte + 1 :]
    ),
    "cut off the last byte": lambda content, byte: content[:-1],
    "put other weights in its place": lambda content, byte: _other_weights(content),
    # Of the same size: what follows the end of a pickle is not read.
    "put a pickle in its place": lambda content, byte: pickle.dumps(_Surprise()).ljust(
        len(content), b"\0"
    ),
}
TAMPERING = tuple(_CHANGES)
"""What can be done to the weights of the copy."""


class TamperPanel(WorkPanel[bool]):
    """Change the weights of a copy of the default model, and try to load it.

    The installed model is not touched. The copy is in a temporary folder, which is removed after
    each try.

    Attributes
    ----------
    tampering : str
        One of `TAMPERING`; can be set, like the next three.
    byte : int
        Which one has a bit flipped.
    fit_manifest : bool
        Whether size and digest in the copy's manifest are changed to those of the changed weights.
    ask_by : {"folder", "name"}
        How the copy is loaded: by its folder, whose manifest is taken as it is, or by its name,
        whose manifest has to match the registry.
    loaded : bool or None
        Whether the last copy was loaded; None before the first.
    refusal : str
        Why stemlab refused the last copy; empty if it was loaded.
    state, message, error
        As in `SeparationPanel`.

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
    fit_manifest = traitlets.Bool(False)
    ask_by = traitlets.Enum(["folder", "name"], "folder")
    loaded = traitlets.Bool(None, allow_none=True)
    refusal = traitlets.Unicode()

    _in_repr = ("tampering", "fit_manifest", "ask_by", "loaded")

    def __init__(self) -> None:
        super().__init__()
        self._manifest = find_model(_MODEL)
        self._file = installed_file(self._manifest, self._manifest.networks[0])
        self.byte = self._file.size // 2
        self.message = "Choose what to do to the copy, and press Tamper and load."
        byte = self._bind("byte", field(ipywidgets.IntSlider, "Byte", max=self._file.size - 1))
        traitlets.dlink(
            (self, "tampering"),
            (byte.layout, "display"),
            lambda chosen: "" if chosen == "flip one bit" else "none",
        )
        folder_or_name = [("its folder", "folder"), ("its name", "name")]
        self.children = [
            self._bind("tampering", dropdown("Tampering", TAMPERING)),
            byte,
            self._bind("fit_manifest", checkbox("Change the manifest to match")),
            self._bind("ask_by", dropdown("Load by", folder_or_name)),
            self._controls(
                button("Tamper and load", "Change and load a copy", self.tamper, "primary")
            ),
            self._results,
        ]

    def tamper(self) -> None:
        """Start to change a copy and load it, unless that is going on; does not wait.

        `wait` then returns whether it was loaded.
        """
        self._start(self._try, "Changing the copy and loading it.")

    @traitlets.validate("byte")
    def _check_byte(self, proposal: traitlets.Bunch) -> int:
        return min(max(int(proposal.value), 0), self._file.size - 1)

    def _try(self, chosen: Any) -> bool:
        original = self._file.path.read_bytes()
        weights = _CHANGES[chosen.tampering](original, chosen.byte)
        manifest = (self._manifest.folder / MANIFEST_NAME).read_bytes()
        recorded = self._file.sha256
        if chosen.fit_manifest and weights != original:
            manifest, recorded = _fitted(manifest, weights), _digest(weights)
        with ScratchFolder() as name:
            folder = Path(name) / "copy"
            folder.mkdir()
            (folder / MANIFEST_NAME).write_bytes(manifest)
            (folder / self._file.path.name).write_bytes(weights)
            self._check_stop()
            refusal = self._load(folder, chosen.ask_by)
        compared = [("weights", "manifest", recorded, _digest(weights))]
        if chosen.ask_by == "name":
            pinned = self._manifest.sha256
            compared.insert(0, ("manifest", "registry", pinned, _digest(manifest)))
        self.refusal, self.loaded = refusal, not refusal
        self._show_results(ipywidgets.HTML(_describe(compared, refusal)))
        self.message = "Refused." if refusal else "Loaded."
        return not refusal

    def _load(self, folder: Path, ask_by: str) -> str:
        """Load the copy; return why that was refused, or an empty text."""
        try:
            if ask_by == "name":
                # Loading by name checks this in addition: the registry's digest of the manifest.
                read_manifest(folder, sha256=self._manifest.sha256)
            verify_model(folder)
        except ModelRefusedError as error:
            return str(error).replace(str(folder), "copy")
        return ""


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fitted(manifest: bytes, weights: bytes) -> bytes:
    """The manifest as an attacker changes it who can write to the folder."""
    fields = json.loads(manifest)
    fields["networks"][0]["files"][0] |= {"bytes": len(weights), "sha256": _digest(weights)}
    return json.dumps(fields, indent=2).encode()


def _describe(compared: list[tuple[str, str, str, str]], refusal: str) -> str:
    said = f"<b>stemlab says:</b> {escape(refusal)}" if refusal else ""
    rows = ""
    for what, witness, expected, found in compared:
        pairs = list(zip(expected, found, strict=True))
        different = sum(one != other for one, other in pairs)
        differ = f"{different} of 64 digits differ" if different else "identical"
        marked = "".join(
            other if one == other else f"<b style='{_MARK}'>{other}</b>" for one, other in pairs
        )
        for title, digits in (
            (f"SHA-256 in the {witness}", expected),
            (f"actual SHA-256, {differ}", marked),
        ):
            rows += f"<tr><td>{what}: {title} &emsp;</td><td><code>{digits}</code></td></tr>"
    return f"<div style='overflow-wrap: anywhere'>{said}</div><table>{rows}</table>"
