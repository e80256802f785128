"""The store of sweeps, so that no setting is measured twice.

A record is a file named by the digest of all that its figures depend on; it appears whole or not
at all and is never changed, so processes need not know of each other. Stems that are kept for
listening have a bounded place of their own, with the digests of their samples beside them.

The folder may have been made by anybody: links in it are not followed, what is found in it is
checked before it is used, and only files that are named like those of a store and belong to this
user are replaced or removed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stemlab._typing import AudioArray, StrPath
from stemlab.audio import read_file
from stemlab.audio.writing import write_to
from stemlab.errors import AudioError, OutputError
from stemlab.files import Folder, WorkFolder, abandoned_folders, cache_dir, parse_json
from stemlab.results import package_versions
from stemlab.sweeps._excerpt import Excerpt, samples_digest

_log = logging.getLogger(__name__)

# About 45 settings of 30 s with four stereo stems.
AUDIO_LIMIT_BYTES = 2_000_000_000
_OWNER = "sweep"
# Names of the folders in a store, and in each of these; and of the files in those.
_KINDS = re.compile("results|audio")
_FOLDER_NAMES = {"results": re.compile(r"[0-9a-f]{2}"), "audio": re.compile(r"[0-9a-f]{64}")}
_RECORD_NAME = re.compile(r"[0-9a-f]{64}\.json")
_STEM_NAME = re.compile(r"[^/\\]+\.wav")
_DIGESTS_NAME = "stems.json"
_Status = list[tuple[int, int, int, int]] | None
_MOST_RECORD_BYTES = 1_000_000
MOST_HEADER_BYTES = 4096


@dataclass(frozen=True)
class StoreUsage:
    """How much a store holds."""

    folder: Path
    results: int
    stale: int  # Measured with other versions of packages: no sweep finds them.
    result_bytes: int
    kept: int
    kept_bytes: int
    kept_limit_bytes: int


class SweepStore:
    """The results of sweeps, by key."""

    def __init__(
        self, folder: StrPath | None = None, *, audio_limit_bytes: int = AUDIO_LIMIT_BYTES
    ) -> None:
        # The folder that the user named may be a link; the folders below it may not.
        self._named = cache_dir() if folder is None else Path(folder)
        self._below = ("sweeps",) if folder is None else ()
        self.folder = self._named.joinpath(*self._below)
        self.audio_limit_bytes = audio_limit_bytes
        # Status of the files of kept stems when their digests were compared.
        self._verified: dict[str, _Status] = {}

    def check_writable(self) -> None:
        """Raise OutputError if results cannot be kept, before anything is measured."""
        with self._writing() as (root, drafts):
            drafts.write("writable.json", b"{}")
            for name in ("results", "audio"):
                _own_subfolder(root, name).close()

    def find(self, key: str) -> dict[str, Any] | None:
        """Look up a result."""
        try:
            with self._open("results", key[:2]) as folder:
                record = parse_json(folder.read(f"{key}.json", _MOST_RECORD_BYTES))
        except (OSError, ValueError):
            return None
        return record if record.pop("key", None) == key else None

    def add(self, key: str, record: Mapping[str, Any]) -> None:
        """Store a result."""
        content = json.dumps({**record, "key": key}, indent=1, allow_nan=False).encode()
        with (
            self._writing() as (root, drafts),
            _skipping_taken("figures"),
            _own_subfolder(root, "results") as results,
            _own_subfolder(results, key[:2]) as folder,
        ):
            _put(drafts, folder, f"{key}.json", content)

    def keep(self, key: str, stems: Mapping[str, AudioArray], sample_rate: int) -> None:
        """Keep stems for listening; where room is short, remove those used longest ago."""
        size = sum(stem.nbytes for stem in stems.values())
        if size > self.audio_limit_bytes:
            _log.warning(
                "stems of %.0f MB are not kept: the limit is %.0f MB",
                size / 1e6,
                self.audio_limit_bytes / 1e6,
            )
            return
        digests = {name: samples_digest(stem) for name, stem in stems.items()}
        with (
            self._writing() as (root, drafts),
            _skipping_taken("stems"),
            _own_subfolder(root, "audio") as audio,
        ):
            self._make_room(audio, size, key)
            with _own_subfolder(audio, key) as folder:
                for name, stem in stems.items():
                    draft = f"{name}.wav"
                    with drafts.open(draft, "x+b", buffering=0) as file:
                        write_to(file, folder.path / draft, [stem], sample_rate, stem.shape[0])
                    _replace(drafts, folder, draft)
                # Written last: without it, or with an earlier one, the stems are not used.
                _put(drafts, folder, _DIGESTS_NAME, json.dumps(digests).encode())

    def kept(self, key: str, names: Sequence[str], excerpt: Excerpt) -> dict[str, Path]:
        """Find kept stems of an excerpt, and note that they were used.

        Their digests are compared at the first time, and when a file has changed since.
        """
        status = self._status(key, names)
        if status is None or status != self._verified.get(key):
            names = list(self.kept_samples(key, names, excerpt))
        else:
            self._note_use(key)
        return {name: self.folder / "audio" / key / f"{name}.wav" for name in sorted(names)}

    def kept_samples(
        self, key: str, names: Sequence[str], excerpt: Excerpt
    ) -> dict[str, AudioArray]:
        """Read kept stems of an excerpt, and note that they were used."""
        status = self._status(key, names)
        try:
            with self._open("audio", key) as folder:
                digests = parse_json(folder.read(_DIGESTS_NAME, _MOST_RECORD_BYTES))
                if set(digests) != set(names):
                    return {}
                stems = {
                    name: _read_stem(folder, name, digests[name], excerpt) for name in sorted(names)
                }
        except (OSError, ValueError, AudioError):
            return {}
        self._verified[key] = status
        self._note_use(key)
        return stems

    def _status(self, key: str, names: Sequence[str]) -> _Status:
        """Return what changes when a file of kept stems does; None if one is missing."""
        folder = self.folder / "audio" / key
        files = [folder / _DIGESTS_NAME, *(folder / f"{name}.wav" for name in names)]
        try:
            found = [os.stat(file, follow_symlinks=False) for file in files]
        except OSError:
            return None
        return [(file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns) for file in found]

    def _note_use(self, key: str) -> None:
        with suppress(OSError, NotImplementedError):
            os.utime(self.folder / "audio" / key, follow_symlinks=False)

    def usage(self) -> StoreUsage:
        """Count what is stored."""
        versions = package_versions()
        records = [
            (facts.st_size, _is_stale(folder, name, versions))
            for folder in self._folders("results")
            for name, facts in _files(folder)
        ]
        kept = [_bytes_in(folder) for folder in self._folders("audio")]
        return StoreUsage(
            self.folder,
            len(records),
            sum(is_stale for _, is_stale in records),
            sum(size for size, _ in records),
            len(kept),
            sum(kept),
            self.audio_limit_bytes,
        )

    def clear_stale(self) -> None:
        """Remove the results that other versions of packages measured, and their stems."""
        versions = package_versions()
        keys = set()
        for folder in self._folders("results"):
            for name, _ in _files(folder) if folder.is_own() else ():
                if _is_ours(folder, name) and _is_stale(folder, name, versions):
                    folder.remove(name)
                    keys.add(name.removesuffix(".json"))
        with suppress(OSError), self._open("audio") as audio:
            for folder in _subfolders(audio, _FOLDER_NAMES["audio"]):
                if folder.path.name in keys and folder.is_own():
                    _remove_files(audio, folder)

    def clear(self, *, results: bool = True, audio: bool = True) -> None:
        """Remove what is stored, and nothing else in the folder."""
        try:
            with self._open() as root:
                for parent in _subfolders(root, _KINDS):
                    kind = parent.path.name
                    if not {"results": results, "audio": audio}[kind] or not parent.is_own():
                        continue
                    for folder in _subfolders(parent, _FOLDER_NAMES[kind]):
                        if folder.is_own():
                            _remove_files(parent, folder)
                    with suppress(OSError):
                        root.remove_folder(kind)
        except FileNotFoundError:
            return
        except OSError as error:
            place = str(error.filename or self.folder)
            raise OutputError(
                f"{place!r} cannot be cleared: {error.strerror or error}. Check what it is, and "
                "its permissions.",
                self.folder,
            ) from error

    def remove_drafts(self) -> None:
        """Remove the drafts of processes that were killed."""
        with suppress(OSError), self._open():
            for abandoned in abandoned_folders(self.folder, _OWNER):
                abandoned.close()

    @contextmanager
    def _open(self, *names: str) -> Iterator[Folder]:
        """Open a folder of the store without following links; raise OSError if there is none."""
        folder = Folder(self._named)
        try:
            for name in (*self._below, *names):
                inner = folder.subfolder(name)
                folder.close()
                folder = inner
            yield folder
        finally:
            folder.close()

    def _folders(self, kind: str) -> Iterator[Folder]:
        with suppress(OSError), self._open(kind) as parent:
            yield from _subfolders(parent, _FOLDER_NAMES[kind])

    @contextmanager
    def _writing(self) -> Iterator[tuple[Folder, WorkFolder]]:
        """Open the store and a folder for drafts; remove drafts of processes that were killed."""
        try:
            with ExitStack() as stack:
                self._named.mkdir(parents=True, exist_ok=True)
                root = stack.enter_context(Folder(self._named))
                for name in self._below:
                    root = stack.enter_context(_own_subfolder(root, name))
                self.remove_drafts()
                drafts = WorkFolder(self.folder, _OWNER)
                stack.callback(drafts.close)
                yield root, drafts
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(
                f"results cannot be kept in {str(self.folder)!r}: {error.strerror or error}. Check "
                f"the permissions and the free space of its folder, "
                "or set STEMLAB_CACHE to another one.",
                self.folder,
            ) from error

    def _make_room(self, audio: Folder, size: int, key: str) -> None:
        """Remove the stems that were used longest ago until there is room for those of `key`."""
        kept = [
            (os.stat(folder.path).st_mtime, _bytes_in(folder), folder.path.name)
            for folder in _subfolders(audio, _FOLDER_NAMES["audio"])
            if folder.is_own() and folder.path.name != key
        ]
        total = sum(bytes_ for _, bytes_, _ in kept)
        for _, bytes_, name in sorted(kept):
            if total + size <= self.audio_limit_bytes:
                break
            with suppress(OSError), audio.subfolder(name) as folder:
                _remove_files(audio, folder)
            total -= bytes_


class _TakenError(OSError):
    """Something that is not stemlab's has the name of a file or folder of the store."""


@contextmanager
def _skipping_taken(what: str) -> Iterator[None]:
    """If a name is taken, warn and go on without storing, so that no result is lost."""
    try:
        yield
    except _TakenError as error:
        _log.warning("%s are not stored: %s (%r)", what, error.strerror, str(error.filename))


def _own_subfolder(parent: Folder, name: str) -> Folder:
    """Open or make a folder of the store; refuse links and folders of other users."""
    try:
        folder = parent.subfolder(name, make=True)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise _TakenError(error.errno, error.strerror, error.filename) from error
        raise
    if not folder.is_own():
        folder.close()
        raise _TakenError(errno.EPERM, "it belongs to another user", str(folder.path))
    return folder


def _subfolders(parent: Folder, pattern: re.Pattern[str]) -> Iterator[Folder]:
    """Open the folders of the store in another; skip links and what cannot be opened."""
    for name in filter(pattern.fullmatch, parent.names()):
        try:
            folder = parent.subfolder(name)
        except OSError:
            continue
        with folder:
            yield folder


def _files(folder: Folder) -> Iterator[tuple[str, os.stat_result]]:
    """List the regular files in a folder of results or stems that are named like the store's."""
    for name in folder.names():
        facts = folder.stat(name)
        if folder.path.parent.name == "results":
            is_named = bool(_RECORD_NAME.fullmatch(name)) and name.startswith(folder.path.name)
        else:
            is_named = name == _DIGESTS_NAME or bool(_STEM_NAME.fullmatch(name))
        if is_named and facts is not None and stat.S_ISREG(facts.st_mode):
            yield name, facts


def _bytes_in(folder: Folder) -> int:
    return sum(facts.st_size for _, facts in _files(folder))


def _is_stale(folder: Folder, name: str, versions: Mapping[str, str]) -> bool:
    try:
        return parse_json(folder.read(name, _MOST_RECORD_BYTES)).get("versions") != versions
    except (OSError, ValueError):
        return True


def _is_ours(folder: Folder, name: str) -> bool:
    """Tell whether a file may be removed: a regular file of this user with one name."""
    facts = folder.stat(name)
    return facts is not None and facts.st_nlink == 1 and folder.owns(name)


def _put(drafts: WorkFolder, folder: Folder, name: str, content: bytes) -> None:
    drafts.write(name, content)
    _replace(drafts, folder, name)


def _replace(drafts: WorkFolder, folder: Folder, name: str) -> None:
    """Move a draft to its place, unless something foreign is there."""
    if folder.stat(name) is not None and not _is_ours(folder, name):
        taken = "something that is not stemlab's has its name"
        raise _TakenError(errno.EEXIST, taken, str(folder.path / name))
    drafts.replace(name, folder, name)


def _read_stem(folder: Folder, name: str, sha256: object, excerpt: Excerpt) -> AudioArray:
    """Read a kept stem; raise ValueError if it is not what was kept."""
    file_name = f"{name}.wav"
    facts = folder.stat(file_name)
    if facts is None or not stat.S_ISREG(facts.st_mode):
        raise ValueError("it is missing, or not a regular file")
    if not 0 <= facts.st_size - excerpt.mixture.nbytes <= MOST_HEADER_BYTES:
        raise ValueError("it has another length")
    stem, rate = read_file(folder.path / file_name)
    found = (stem.shape, rate, samples_digest(stem))
    if found != (excerpt.mixture.shape, excerpt.sample_rate, sha256):
        raise ValueError("it holds other samples")
    return stem


def _remove_files(parent: Folder, folder: Folder) -> None:
    """Remove the files of the store in a folder, and the folder if nothing else is in it."""
    for name, _ in _files(folder):
        if _is_ours(folder, name):
            folder.remove(name)
    with suppress(OSError):
        parent.remove_folder(folder.path.name)
