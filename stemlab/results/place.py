"""Where the result of a run belongs, and what of an earlier one it may replace."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from stemlab.audio import FORMATS
from stemlab.errors import OutputError
from stemlab.files import Folder, check_writable
from stemlab.results.manifest import MAX_BYTES, RunManifest, StemRecord
from stemlab.results.names import ResultNames, file_safe

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
                taken = [name for name in wanted if out is not None and out.reaches(name)]
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
        there = [name for name in dict.fromkeys([*listed, *taken]) if out.reaches(name)]
        for name in there:
            path = out.path / name
            with out.reach(name) as (folder, last):
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
        with out.reach(name) as (folder, last):
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


def _read(out: Folder, name: str) -> bytes:
    with out.reach(name) as (folder, last):
        return folder.read(last, MAX_BYTES)
