"""Give the files of a run their names: all of them, or none, however the run ends.

The files are whole before the first is moved. The earlier result, if there is one, waits in the
working folder until the last is in its place. A record in the working folder holds names and
digests, so that the next run of the same recording can undo what a killed one had begun. A file is
moved or removed only if its digest is the recorded one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from stemlab.audio import FORMATS
from stemlab.errors import OutputError
from stemlab.files import Folder, WorkFolder, abandoned_folders, check_writable, parse_json
from stemlab.results.manifest import MAX_BYTES, RunManifest, StemRecord, is_digest
from stemlab.results.names import ResultNames, file_safe

__all__ = [
    "EarlierResultError",
    "ResultPlace",
    "Target",
    "only_publisher",
    "publish",
    "recover",
    "remove_unfinished",
]

_log = logging.getLogger(__name__)

_RECORD = "moves-2.json"
_RECORD_OF_0_1 = "moves.json"
_MOST_MOVES = 3000
# Another run moves its files in a moment; a program that holds the folder for ever is not one.
_LOCK_SECONDS = 30.0
_OTHER_FOLDER = "Choose another output folder."


class EarlierResultError(OutputError):
    """An earlier result of the same recording is there, which `force` would replace."""


@dataclass(frozen=True)
class Target:
    """Where the files of a run will appear, and which files of an earlier result they replace.

    Names are relative to the output folder, with '/' between their parts; `replaced` maps those of
    the earlier result to their digests, its manifest first.
    """

    out_dir: Path
    stem_names: Mapping[str, str]
    manifest_name: str
    replaced: Mapping[str, str] = field(default_factory=dict)

    @property
    def stems(self) -> dict[str, Path]:
        """Path of each stem."""
        return {stem: self.out_dir / name for stem, name in self.stem_names.items()}

    @property
    def manifest(self) -> Path:
        """Path of the manifest."""
        return self.out_dir / self.manifest_name

    def seen_from_manifest(self, stem: str) -> str:
        """Path of a stem as the manifest lists it."""
        return Path(os.path.relpath(self.stems[stem], self.manifest.parent)).as_posix()


@dataclass(frozen=True)
class _Written:
    """What is recorded of a file: its digest, and its length, which version 0.1 did not record."""

    sha256: str
    size: int | None

    def is_of(self, folder: Folder, name: str) -> bool:
        """Tell whether a file is still the recorded one."""
        facts = folder.stat(name)
        right = facts is not None and self.size in (None, facts.st_size)
        return right and folder.digest(name) == self.sha256


@dataclass(frozen=True)
class _Earlier:
    """An earlier result: its manifest, and its files by name, the manifest's first."""

    run: RunManifest
    files: Mapping[str, _Written]


@dataclass(frozen=True)
class ResultPlace:
    """Where the result of a run belongs: a folder, a template, and what fills the template.

    The names of the files begin with that of the song. Where a result of another recording has
    them, the first digits of this one's digest follow.
    """

    out_dir: Path
    template: str
    song: Path
    model: str
    stems: Sequence[str]
    ext: str
    input_sha256: str

    def choose(self, *, force: bool) -> Target:
        """Decide the names of the files so that only this song's earlier result is touched.

        Raises OutputError if there is a result already and `force` is false, if one of its files
        is not what stemlab wrote, or if a folder takes no files.
        """
        taken: list[str] = []
        for names, target in self._targets():
            with _reading(self.out_dir) as out:
                wanted = [*target.stem_names.values(), target.manifest_name]
                taken = [name for name in wanted if out is not None and _exists(out, name)]
                earlier = _earlier_result(out, names) if out is not None and taken else None
                if earlier is not None and earlier.run.input.sha256 != self.input_sha256:
                    continue
                if out is not None and taken:
                    replaced = self._check_replaceable(out, taken, earlier, force)
                    target = replace(target, replaced=replaced)
            for path in (*target.stems.values(), target.manifest):
                check_writable(path, _OTHER_FOLDER)
            return target
        raise OutputError(
            f"{str(self.out_dir / taken[0])!r} belongs to another recording. Put {{song}} into the "
            "file name template, or choose another output folder.",
            self.out_dir / taken[0],
        )

    def find_finished(self, fingerprint: str) -> tuple[Target, RunManifest] | None:
        """Find what an earlier run has made in the same way, with its manifest, if it is whole."""
        for _, target in self._targets():
            try:
                with _reading(self.out_dir) as out:
                    if out is None:
                        return None
                    run = RunManifest.from_json(_read(out, target.manifest_name))
                    if run.fingerprint == fingerprint and _are_whole(out, target, run.stems):
                        return target, run
            except (OSError, ValueError, KeyError):
                continue
        return None

    def _targets(self) -> Iterator[tuple[ResultNames, Target]]:
        """The names that the files can have, best first."""
        song = file_safe(self.song.stem)
        for name in (song, f"{song}-{self.input_sha256[:8]}"):
            names = ResultNames(self.template, name, self.model)
            files = {stem: names.stem(stem, self.ext) for stem in self.stems}
            if len(set(files.values())) < len(files):
                raise OutputError(
                    f"stems {', '.join(map(repr, files))} cannot all be files of their own: some "
                    "of their names differ only in characters that file names do not have. Rename "
                    "the sources."
                )
            yield names, Target(self.out_dir, files, names.manifest)

    def _is_song(self, path: Path) -> bool:
        return os.path.exists(self.song) and os.path.samefile(path, self.song)

    def _check_replaceable(
        self, out: Folder, taken: Sequence[str], earlier: _Earlier | None, force: bool
    ) -> dict[str, str]:
        """Digests of an earlier result's files, as they were written; refuse what was changed."""
        listed = {} if earlier is None else earlier.files
        there = [name for name in dict.fromkeys([*listed, *taken]) if _exists(out, name)]
        for name in there:
            path = out.path / name
            with _opened(out, name) as (folder, last):
                if os.path.exists(path) and self._is_song(path):
                    reason = "is the recording itself"
                elif name not in listed:
                    reason = "was not written by stemlab"
                elif not folder.owns(last):
                    reason = "is a link, not a regular file, or belongs to another user"
                elif force and listed[name].sha256 == self.input_sha256:
                    reason = "is the recording itself"
                elif force and not listed[name].is_of(folder, last):
                    reason = "was changed since stemlab wrote it"
                else:
                    continue
            advice = "Move it away, or choose another output folder."
            raise OutputError(f"{str(path)!r} exists and {reason}. {advice}", path)
        if not force:
            older = earlier is not None and earlier.run.schema == 1
            version = ", made by an earlier version of stemlab," if older else ""
            raise EarlierResultError(
                f"{str(out.path / taken[0])!r}{version} exists already. Pass --force (force=True) "
                "to replace an earlier result, or choose another output folder.",
                out.path / taken[0],
            )
        return {name: listed[name].sha256 for name in there}


def _are_whole(out: Folder, target: Target, records: Mapping[str, StemRecord]) -> bool:
    """Tell whether the stems of a target are those that were recorded."""
    for stem, name in target.stem_names.items():
        with _opened(out, name) as (folder, last):
            written = _Written(records[stem].sha256, records[stem].bytes)
            if not (folder.owns(last) and written.is_of(folder, last)):
                return False
    return target.stem_names.keys() == records.keys()


def _earlier_result(out: Folder, names: ResultNames) -> _Earlier | None:
    """Read what the manifest of an earlier result says; None if there is none of ours."""
    try:
        content = _read(out, names.manifest)
        run = RunManifest.from_json(content)
    except (OSError, ValueError):
        return None
    files = {names.manifest: _Written(hashlib.sha256(content).hexdigest(), len(content))}
    for stem, record in run.stems.items():
        name = names.stored_as(stem, record.file)
        ext = record.file.rpartition(".")[2]
        if name is not None and ext in FORMATS:
            files[name] = _Written(record.sha256, record.bytes)
    return _Earlier(run, files)


# ---------------------------------------------------------------- moving


@dataclass(frozen=True)
class _Move:
    """A file that gets a name, or an earlier file that gives its name up; plain names, digests."""

    name: str
    sha256: str
    draft: str | None = None
    earlier: str | None = None


def publish(work: WorkFolder, target: Target, drafts: Mapping[str, str], manifest: str) -> None:
    """Move the stems' drafts, and then the manifest, out of the working folder.

    The caller has chosen the target while it holds `only_publisher`. Raises OSError if a file
    cannot be moved; the earlier result is then back in its place.
    """
    away = [
        _Move(name, sha256, earlier=f"earlier-{number}")
        for number, (name, sha256) in enumerate(target.replaced.items())
    ]
    names = {target.stem_names[stem]: draft for stem, draft in drafts.items()}
    names[target.manifest_name] = manifest
    new = [_Move(name, work.digest(draft), draft=draft) for name, draft in names.items()]
    with Folder(target.out_dir) as out:
        work.write(_RECORD, _to_json([*away, *new]))
        try:
            for move in away:
                with _opened(out, move.name) as (folder, last):
                    folder.move(last, work, str(move.earlier))
            for move in new:
                with _opened(out, move.name, make=True) as (folder, last):
                    work.move(str(move.draft), folder, last)
        except BaseException:
            _undo(work, out, [*away, *new])
            raise
        work.remove(_RECORD)


@contextmanager
def only_publisher(out_dir: Path) -> Iterator[None]:
    """Keep other runs from moving files in an output folder, where the system can."""
    with Folder(out_dir) as out, out.locked(_LOCK_SECONDS):
        yield


def recover(out_dir: Path, owner: str) -> None:
    """Undo what runs of an owner had begun to move when they were killed.

    Raises OutputError if that fails; nothing is lost then, and it can be tried again.
    """
    for work in abandoned_folders(out_dir, owner):
        try:
            if work.stat(_RECORD) is not None:
                with only_publisher(out_dir), Folder(out_dir) as out:
                    _undo(work, out, _from_json(work.read(_RECORD, MAX_BYTES)))
            elif work.stat(_RECORD_OF_0_1) is not None:
                waiting = [name for name in work.names() if name.startswith("earlier-")]
                _log.warning(
                    "version 0.1 of stemlab was cut off while it replaced a result. Files of the "
                    "earlier one may be in %r (%s). Move away what you need, and remove the folder",
                    str(work.path),
                    ", ".join(waiting) or "none",
                )
        except ValueError as error:
            _log.warning("%r is left as it is: %s", str(work.path), error)
        except OSError as error:
            raise OutputError(
                f"an earlier run was cut off in {str(out_dir)!r} while its files got their names, "
                f"and the result before it cannot be put back: {error.strerror or error}. Its "
                f"files are in {str(work.path)!r}. Check the permissions of both and try again.",
                work.path,
            ) from error
        finally:
            work.close(keep=True)


def remove_unfinished(out_dir: Path, owner: str) -> None:
    """Remove what runs of an owner that were cut off have left, after `recover`."""
    for work in abandoned_folders(out_dir, owner):
        work.close()


def _undo(work: WorkFolder, out: Folder, moves: Sequence[_Move]) -> None:
    """Take back the moves of a record, unless the last one, the manifest's, has happened."""
    new = [move for move in moves if move.draft is not None]
    if new and not _exists(out, new[-1].name):
        for move in new:
            if _exists(out, move.name):
                with _opened(out, move.name) as (folder, last):
                    _take_back(work, str(move.draft), folder, last, move.sha256)
        # The manifest was moved first, so it comes back last: until then, it can be tried again.
        for move in reversed(moves):
            if move.earlier is not None:
                with _opened(out, move.name) as (folder, last):
                    _put_back(work, move.earlier, folder, last, move.sha256)
    work.remove(_RECORD)


def _take_back(work: WorkFolder, draft: str, folder: Folder, last: str, sha256: str) -> None:
    """Bring a new file back into the working folder, if it has left it."""
    if _are_one(work, draft, folder, last):  # Killed in the middle of a move.
        folder.remove(last)
    elif work.stat(draft) is None and folder.owns(last) and folder.digest(last) == sha256:
        folder.move(last, work, draft)


def _put_back(work: WorkFolder, earlier: str, folder: Folder, last: str, sha256: str) -> None:
    """Bring a file of the earlier result back to its place, if it has left it."""
    if _are_one(work, earlier, folder, last):
        work.remove(earlier)
    elif work.owns(earlier) and work.digest(earlier) == sha256:
        work.move(earlier, folder, last)


def _are_one(folder: Folder, name: str, other: Folder, other_name: str) -> bool:
    facts, others = folder.stat(name), other.stat(other_name)
    return facts is not None and others is not None and os.path.samestat(facts, others)


def _to_json(moves: Sequence[_Move]) -> bytes:
    return json.dumps({"schema": 2, "moves": [asdict(move) for move in moves]}).encode()


def _from_json(content: bytes) -> list[_Move]:
    """Read a record; one that was cut off was written before the first move."""
    try:
        fields = parse_json(content)
    except ValueError:
        return []
    moves = fields.get("moves")
    if not isinstance(moves, list) or len(moves) > _MOST_MOVES:
        raise ValueError("its record of moves was changed")
    return [_move(entry) for entry in moves]


def _move(entry: object) -> _Move:
    names = set(_Move.__dataclass_fields__)
    if not isinstance(entry, dict) or set(entry) != names or not is_digest(entry["sha256"]):
        raise ValueError("its record of moves was changed")
    ending = str(entry["name"]).rpartition(".")[2]
    earlier = entry["draft"] is None and re.fullmatch(r"earlier-\d{1,4}", str(entry["earlier"]))
    if ending not in {*FORMATS, "json"} or not (earlier or isinstance(entry["draft"], str)):
        raise ValueError("its record of moves was changed")
    return _Move(**entry)


# ---------------------------------------------------------------- names in an open folder


@contextmanager
def _reading(out_dir: Path) -> Iterator[Folder | None]:
    """Open the output folder, if it is there; say what stands in the way of a result."""
    try:
        out = Folder(out_dir) if os.path.isdir(out_dir) else None
        try:
            yield out
        finally:
            if out is not None:
                out.close()
    except OutputError:
        raise
    except OSError as error:
        place = error.filename or out_dir
        raise OutputError(
            f"{str(place)!r} cannot hold a result: {error.strerror or error}. {_OTHER_FOLDER}",
            str(place),
        ) from error


@contextmanager
def _opened(out: Folder, name: str, *, make: bool = False) -> Iterator[tuple[Folder, str]]:
    """Open the folder of a name, part by part and without following links."""
    *parents, last = name.split("/")
    with ExitStack() as stack:
        folder = out
        for parent in parents:
            folder = stack.enter_context(folder.subfolder(parent, make=make))
        yield folder, last


def _exists(out: Folder, name: str) -> bool:
    try:
        with _opened(out, name) as (folder, last):
            return folder.stat(last) is not None
    except FileNotFoundError:
        return False


def _read(out: Folder, name: str) -> bytes:
    with _opened(out, name) as (folder, last):
        return folder.read(last, MAX_BYTES)
