"""Give the files of a run their names: all of them, or none, however the run ends.

The files are whole before the first is moved. The earlier result, if there is one, waits in the
working folder until the last is in its place. A record in the working folder holds names and
digests, so that the next run of the same recording can undo what a killed one had begun. A file is
moved or removed only if its digest is the recorded one.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from stemlab.audio import FORMATS
from stemlab.errors import OutputError
from stemlab.files import Folder, WorkFolder, abandoned_folders, parse_json
from stemlab.results.manifest import MAX_BYTES, is_digest
from stemlab.results.place import Target

_log = logging.getLogger(__name__)

_RECORD = "moves-2.json"
_RECORD_OF_0_1 = "moves.json"
_MOST_MOVES = 3000
# Another run moves its files in a moment; a program that holds the folder for ever is not one.
_LOCK_SECONDS = 30.0


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
                with out.reach(move.name) as (folder, last):
                    folder.move(last, work, str(move.earlier))
            for move in new:
                with out.reach(move.name, make=True) as (folder, last):
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
    if new and not out.reaches(new[-1].name):
        for move in new:
            if out.reaches(move.name):
                with out.reach(move.name) as (folder, last):
                    _take_back(work, str(move.draft), folder, last, move.sha256)
        # The manifest was moved first, so it comes back last: until then, it can be tried again.
        for move in reversed(moves):
            if move.earlier is not None:
                with out.reach(move.name) as (folder, last):
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
