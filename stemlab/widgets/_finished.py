"""A finished run of the separation panel, and what it is compared with by ear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from stemlab._assets import demo_song_dir
from stemlab.files import ScratchFolder
from stemlab.separation import SeparationResult, SeparationSettings

__all__ = ["FinishedRun"]


@dataclass(frozen=True)
class FinishedRun:
    """A finished run, in a temporary folder until it is saved."""

    model: str
    settings: SeparationSettings
    result: SeparationResult
    folder: ScratchFolder

    def counterpart(
        self, song: Path, before: FinishedRun | None
    ) -> tuple[tuple[str, str], Mapping[str, Path] | None]:
        """Labels of this result and of another, and the stems of the other, if there is one.

        That is the run before, if it was of the same recording with other settings, or the true
        stems of the demo song.
        """
        if before is not None and before._recording == self._recording:
            mine, theirs = self._in_words(), before._in_words()
            differ = [name for name in mine if mine[name] != theirs[name]]
            if differ:
                label, other = (
                    ", ".join(words[name] for name in differ) for words in (mine, theirs)
                )
                return (label, other), before.result.stems
        truth = {name: song.with_name(f"{name}.flac") for name in self.result.stems}
        if song.parent == demo_song_dir() and all(path.is_file() for path in truth.values()):
            return ("estimated", "true"), truth
        return ("A", "B"), None

    @property
    def _recording(self) -> str:
        return self.result.run.input.sha256

    def _in_words(self) -> dict[str, str]:
        settings = self.settings
        seconds = settings.segment_seconds
        return {
            "model": self.model,
            "segment": "default segment" if seconds is None else f"segment {seconds:g} s",
            "overlap": f"overlap {settings.overlap:g}",
            "shifts": f"shifts {settings.shifts}",
            "padding": "padded" if settings.pad_to_training_segment else "not padded",
        }
