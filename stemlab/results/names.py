"""Names of results: from a template to paths below the output folder."""

from __future__ import annotations

import re
import string
from dataclasses import dataclass
from pathlib import Path

from stemlab.errors import ParameterError

_TEMPLATE_FIELDS = ("song", "source", "model", "ext")
# These end lines, or turn the direction of a text so that a name reads as another.
_TURNS = "\u200e\u200f\u2028-\u202e\u2066-\u2069"


def check_filename(template: str) -> None:
    """Refuse a template that cannot name the files of a run inside the output folder.

    It may hold ``{song}``, ``{source}``, ``{model}`` and ``{ext}``, must hold ``{source}`` and end
    in ``.{ext}``.
    """
    advice = "Use for instance '{song}/{source}.{ext}' or '{song} ({source}).{ext}'."
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ParameterError(
            f"filename={template!r} is not a template: {error}. {advice}"
        ) from error
    fields = [field for _, field, _, _ in parts if field is not None]
    plain = all(not specification and not conversion for _, _, specification, conversion in parts)
    if not plain or not set(fields) <= set(_TEMPLATE_FIELDS) or "source" not in fields:
        raise ParameterError(
            f"filename={template!r} must hold {{source}} and may hold "
            f"{', '.join(f'{{{field}}}' for field in _TEMPLATE_FIELDS)}, nothing else. {advice}"
        )
    text = template.replace("\\", "/")
    inside = not text.startswith(("/", "~")) and ":" not in text and ".." not in text.split("/")
    named = all(part not in ("", ".", ".{ext}") for part in text.split("/"))
    if not inside or not named or not text.endswith(".{ext}") or not text.isprintable():
        raise ParameterError(
            f"filename={template!r} must end in a name and '.{{ext}}' and stay inside the output "
            f"folder (no leading '/' or '~', no '..', no drive, no control characters). {advice}"
        )


def file_safe(name: str) -> str:
    """Make a text usable as one part of a path on every system, in at most 120 bytes of UTF-8."""
    printable = name.encode("utf-8", "replace").decode("utf-8")
    safe = re.sub(rf'[<>:"/\\|?*\x00-\x1f\x7f-\x9f{_TURNS}]', "_", printable)
    safe = safe.encode("utf-8")[:120].decode("utf-8", "ignore")
    return safe.strip(". ") or "song"


@dataclass(frozen=True)
class ResultNames:
    """The names of one result, relative to the output folder, with '/' between their parts."""

    template: str
    song: str
    model: str

    def stem(self, source: str, ext: str) -> str:
        """Name the file of a stem."""
        names = {"song": self.song, "model": file_safe(self.model)}
        path = self.template.replace("\\", "/")
        return path.format(source=file_safe(source), ext=file_safe(ext), **names)

    @property
    def manifest(self) -> str:
        """Name of the manifest, which lies beside the stems."""
        return self.stem("run", "json")

    def stored_as(self, source: str, file: str) -> str | None:
        """Name a stem that a manifest lists as `file`; None if no run names it like that.

        Only the ending is taken from the manifest, so it cannot lead anywhere else.
        """
        name = self.stem(source, Path(file).suffix.removeprefix("."))
        return name if Path(name).name == file.replace("\\", "/").rpartition("/")[2] else None
