"""What sweeps have measured, kept so that no setting is measured twice.

A record is a file named by the digest of all that its figures depend on; it appears whole or not
at all and is never changed, so processes need not know of each other and a killed one leaves
nothing behind. Stems that are kept for listening have a bounded place of their own.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemlab._disk import cache_dir, write_atomically
from stemlab._partial import PartialFolder
from stemlab._typing import AudioArray, StrPath
from stemlab.audio import write_file
from stemlab.errors import OutputError

__all__ = ["AUDIO_LIMIT_BYTES", "StoreUsage", "SweepStore"]

_log = logging.getLogger(__name__)

# About 45 settings of 30 s in four stereo stems.
AUDIO_LIMIT_BYTES = 2_000_000_000
_ADVICE = ", or set STEMLAB_CACHE to another one"


@dataclass(frozen=True)
class StoreUsage:
    """How much a store holds.

    Parameters
    ----------
    folder : Path
    results : int
        Settings whose figures are stored.
    result_bytes : int
    kept : int
        Settings whose stems are kept.
    kept_bytes : int
    kept_limit_bytes : int
        Beyond it, the stems that were used longest ago go.
    """

    folder: Path
    results: int
    result_bytes: int
    kept: int
    kept_bytes: int
    kept_limit_bytes: int


class SweepStore:
    """The results of sweeps, by key.

    Parameters
    ----------
    folder : path, optional
        Default: ``sweeps`` in `cache_dir`.
    audio_limit_bytes : int, > 0, optional
        What kept stems may take together.
    """

    def __init__(
        self, folder: StrPath | None = None, *, audio_limit_bytes: int = AUDIO_LIMIT_BYTES
    ) -> None:
        self.folder = cache_dir() / "sweeps" if folder is None else Path(folder)
        self._limit = audio_limit_bytes

    def check_writable(self) -> None:
        """Refuse a store that cannot keep results, before anything is measured for it.

        Raises
        ------
        OutputError
            If a file cannot be written there.
        """
        with self._drafts() as drafts:
            write_atomically(drafts / "writable", b"", advice=_ADVICE, sync=False)

    def find(self, key: str) -> dict[str, Any] | None:
        """Look up a result.

        Parameters
        ----------
        key : str, 64 hex digits

        Returns
        -------
        record : dict, or None
            None where there is none, or it cannot be read.
        """
        try:
            record = json.loads(self._record(key).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return record if isinstance(record, dict) and record.get("key") == key else None

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Store a result.

        Parameters
        ----------
        key : str, 64 hex digits
        record : mapping
            What JSON can hold; gets ``key``.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        content = json.dumps({**record, "key": key}, indent=1, allow_nan=True)
        with self._drafts() as drafts:
            write_atomically(self._record(key), content.encode(), drafts=drafts, advice=_ADVICE)

    def keep(self, key: str, stems: Mapping[str, AudioArray], sample_rate: int) -> bool:
        """Keep stems for listening, in place of the ones used longest ago where room is short.

        Parameters
        ----------
        key : str, 64 hex digits
        stems : mapping of str to ndarray, each shape (channels, samples), float32
        sample_rate : int, in Hz

        Returns
        -------
        kept : bool
            False if they alone take more than the limit.

        Raises
        ------
        OutputError
            If they cannot be written.
        """
        if self.kept(key):
            return True
        size = sum(each.nbytes for each in stems.values())
        if size > self._limit:
            _log.warning(
                "stems of %.0f MB are not kept: the limit is %.0f MB", size / 1e6, self._limit / 1e6
            )
            return False
        self._make_room(size)
        final = self._audio / key
        with self._drafts() as drafts:
            draft = drafts / "stems"
            draft.mkdir()
            for name, stem in stems.items():
                write_file(draft / f"{name}.wav", [stem], sample_rate, stem.shape[0])
            self._audio.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError, OSError):  # Another process was quicker.
                os.rename(draft, final)
        return True

    def kept(self, key: str) -> dict[str, Path]:
        """Find kept stems, which from now count as used.

        Parameters
        ----------
        key : str, 64 hex digits

        Returns
        -------
        stems : dict of str to Path
            Float WAV files; empty where none are kept.
        """
        folder = self._audio / key
        stems = {each.stem: each for each in sorted(folder.glob("*.wav"))}
        if stems:
            with suppress(OSError):
                os.utime(folder)
        return stems

    def usage(self) -> StoreUsage:
        """Count what is stored.

        Returns
        -------
        usage : StoreUsage
        """
        records = [_size(each) for each in self.folder.glob("results/*/*.json")]
        kept = list(self._kept())
        return StoreUsage(
            self.folder,
            len(records),
            sum(records),
            len(kept),
            sum(size for _, size, _ in kept),
            self._limit,
        )

    def clear(self, *, results: bool = True, audio: bool = True) -> None:
        """Remove what is stored; nothing else in the folder is touched.

        Parameters
        ----------
        results, audio : bool, optional
            Figures, and kept stems.

        Raises
        ------
        OutputError
            If something cannot be removed.
        """
        for wanted, folder in ((results, self.folder / "results"), (audio, self._audio)):
            try:
                if wanted and folder.exists():
                    shutil.rmtree(folder)
            except OSError as error:
                raise OutputError(
                    f"{str(folder)!r} cannot be removed: {error.strerror or error}. Check its "
                    "permissions.",
                    folder,
                ) from error

    @property
    def _audio(self) -> Path:
        return self.folder / "audio"

    def _record(self, key: str) -> Path:
        return self.folder / "results" / key[:2] / f"{key}.json"

    def _kept(self) -> Iterator[tuple[float, int, Path]]:
        """Time of last use, size and folder of kept stems."""
        for folder in self._audio.glob("*"):
            with suppress(OSError):
                yield folder.stat().st_mtime, sum(map(_size, folder.iterdir())), folder

    @contextmanager
    def _drafts(self) -> Iterator[Path]:
        """A folder for what is not whole yet; what killed processes left in theirs goes."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            drafts = PartialFolder(self.folder, "sweep", inherits=False)
            try:
                yield drafts.path
            finally:
                drafts.close(keep=False)
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(
                f"results cannot be kept in {str(self.folder)!r}: {error.strerror or error}. Check "
                f"the permissions and the free space of its folder{_ADVICE}.",
                self.folder,
            ) from error

    def _make_room(self, size: int) -> None:
        kept = sorted(self._kept())
        total = sum(each for _, each, _ in kept)
        for _, each, folder in kept:
            if total + size <= self._limit:
                break
            shutil.rmtree(folder, ignore_errors=True)
            total -= each


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
