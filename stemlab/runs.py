"""What a run leaves on disk: raw blocks while it works, whole files and ``run.json`` at its end.

While a run works, its samples lie as raw float32 in a hidden folder inside the target folder. At
the end they are encoded there and moved to their final names; ``run.json`` comes last, so a
folder that has one is complete. What ends a run early takes the hidden folder with it, unless the
run is to be resumed, or was killed: then the next run of the same recording finds it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import re
import shutil
import string
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from stemlab._disk import check_writable, nearest_existing
from stemlab._partial import Journal, Mark, PartialFolder, move_together
from stemlab._typing import AudioArray, StrPath
from stemlab._version import __version__
from stemlab.audio import file_digest
from stemlab.errors import AudioError, OutputError, ParameterError

__all__ = [
    "BlockStore",
    "Target",
    "check_capacity",
    "check_filename",
    "choose_target",
    "file_safe",
    "find_finished",
    "package_versions",
    "peak_memory_bytes",
    "read_run",
]

SCHEMA = 1
_TEMPLATE_FIELDS = ("song", "source", "model", "ext")
_READ_SAMPLES = 1 << 16
# What ends lines, or turns the direction of a text so that a name reads as another.
_TURNS = "\u200e\u200f\u2028-\u202e\u2066-\u2069"
_VERSIONS_OF = ("torch", "demucs", "numpy", "soundfile", "soxr", "safetensors")


# ---------------------------------------------------------------- names


@dataclass(frozen=True)
class Target:
    """Where the files of a run will appear.

    Parameters
    ----------
    stems : mapping of str to Path
        One file per stem.
    manifest : Path
        The run manifest beside them.
    replaced : tuple of Path
        Files of the earlier result; what is not replaced goes once the new ones are there.
    """

    stems: Mapping[str, Path]
    manifest: Path
    replaced: tuple[Path, ...] = ()


def check_filename(template: str) -> None:
    """Refuse a template that cannot name the files of a run inside the target folder.

    Parameters
    ----------
    template : str
        May hold ``{song}``, ``{source}``, ``{model}`` and ``{ext}``; must hold ``{source}`` and
        end in ``.{ext}``; folders are separated by ``/``.

    Raises
    ------
    ParameterError
        If a field is unknown or missing, or the path would leave the target folder.
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
            f"{', '.join(f'{{{each}}}' for each in _TEMPLATE_FIELDS)}, nothing else. {advice}"
        )
    text = template.replace("\\", "/")
    inside = not text.startswith(("/", "~")) and ":" not in text and ".." not in text.split("/")
    named = all(each and each != ".{ext}" for each in text.split("/"))
    if not inside or not named or not text.endswith(".{ext}") or not text.isprintable():
        raise ParameterError(
            f"filename={template!r} must end in a name and '.{{ext}}' and stay inside the target "
            f"folder (no leading '/' or '~', no '..', no drive, no control characters). {advice}"
        )


def file_safe(name: str) -> str:
    """Make a text usable as one part of a path on every system.

    Parameters
    ----------
    name : str

    Returns
    -------
    safe : str
        At most 120 bytes of UTF-8, without separators, characters that control how a text is
        shown, or leading and trailing dots and blanks; ``song`` if nothing is left.
    """
    printable = name.encode("utf-8", "replace").decode("utf-8")
    safe = re.sub(rf'[<>:"/\\|?*\x00-\x1f\x7f-\x9f{_TURNS}]', "_", printable)
    safe = safe.encode("utf-8")[:120].decode("utf-8", "ignore")
    return safe.strip(". ") or "song"


def choose_target(
    out_dir: Path,
    template: str,
    *,
    song: Path,
    model: str,
    stems: Sequence[str],
    ext: str,
    input_sha256: str,
    force: bool,
) -> Target:
    """Decide the names of a run's files so that no other song's result is touched.

    Parameters
    ----------
    out_dir : Path
    template : str
        See `check_filename`.
    song : Path
        The recording; never overwritten. Its name without ending is ``{song}``.
    model : str
    stems : sequence of str
    ext : str
    input_sha256 : str
        A result of another recording with the same name is left alone: this one's name then gets
        the first digits of its digest.
    force : bool
        Whether an earlier result of this recording may be replaced.

    Returns
    -------
    target : Target

    Raises
    ------
    OutputError
        If there is a result already and `force` is false, something is in the way, or a folder
        takes no files.
    """
    for target in _targets(out_dir, template, song, model, stems, ext, input_sha256):
        taken = [
            each for each in (*target.stems.values(), target.manifest) if os.path.lexists(each)
        ]
        if taken:
            earlier_sha256, earlier_files = _earlier_result(target, out_dir)
            if earlier_sha256 not in (None, input_sha256):
                continue
            _check_replaceable(taken, earlier_files, song, force)
            target = replace(target, replaced=tuple(earlier_files))
        for each in (*target.stems.values(), target.manifest):
            check_writable(each, "Choose another output folder.")
        return target
    raise OutputError(
        f"{str(taken[0])!r} belongs to another recording. Put {{song}} into the file name "
        "template, or choose another output folder.",
        taken[0],
    )


def find_finished(
    out_dir: Path,
    template: str,
    *,
    song: Path,
    model: str,
    stems: Sequence[str],
    ext: str,
    input_sha256: str,
    fingerprint: str,
) -> tuple[Target, dict[str, Any]] | None:
    """Find what an earlier run has made of the same recording in the same way.

    Parameters
    ----------
    out_dir : Path
    template : str
    song : Path
    model : str
    stems : sequence of str
    ext : str
    input_sha256 : str
        These as for `choose_target`.
    fingerprint : str
        That the manifest of the run must hold.

    Returns
    -------
    target, manifest : Target, dict
        None if there is no such run, or a file of it is gone or was changed.
    """
    for target in _targets(out_dir, template, song, model, stems, ext, input_sha256):
        try:
            fields = read_run(target.manifest)
            wanted = {name: str(fields["stems"][name]["sha256"]) for name in stems}
            found = {name: file_digest(path) for name, path in target.stems.items()}
        except (AudioError, ParameterError, KeyError, TypeError):
            continue
        if fields.get("fingerprint") == fingerprint and found == wanted:
            return target, fields
    return None


def _targets(
    out_dir: Path,
    template: str,
    song: Path,
    model: str,
    stems: Sequence[str],
    ext: str,
    input_sha256: str,
) -> Iterator[Target]:
    """The names that a run's files can have, best first."""
    for name in (file_safe(song.stem), f"{file_safe(song.stem)}-{input_sha256[:8]}"):
        fields = {"song": name, "model": file_safe(model)}
        yield Target(
            {each: out_dir / template.format(source=each, ext=ext, **fields) for each in stems},
            out_dir / template.format(source="run", ext="json", **fields),
        )


def _check_replaceable(
    taken: Sequence[Path], earlier_files: Sequence[Path], song: Path, force: bool
) -> None:
    """Only files that stemlab wrote for this recording may go, and only if that is wanted."""
    for each in taken:
        if os.path.exists(each) and os.path.samefile(each, song):
            reason = "is the recording itself"
        elif each not in earlier_files or os.path.isdir(each):
            reason = "was not written by stemlab"
        else:
            continue
        raise OutputError(f"{str(each)!r} exists and {reason}. Choose another output folder.", each)
    if not force:
        raise OutputError(
            f"{str(taken[0])!r} exists already. Pass --force (force=True) to replace an earlier "
            "result, or choose another output folder.",
            taken[0],
        )


def _earlier_result(target: Target, out_dir: Path) -> tuple[str | None, list[Path]]:
    """Digest of the recording that a result is of, and its files that are still there.

    Nothing if it is not ours. A file that the new result has too is named as there.
    """
    try:
        fields = json.loads(target.manifest.read_bytes())
        names = [str(each["file"]) for each in fields["stems"].values()]
        sha256 = str(fields["input"]["sha256"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None, []
    stems = {os.path.abspath(each): each for each in target.stems.values()}
    places = [os.path.abspath(target.manifest.parent / name) for name in names]
    # A manifest from elsewhere must not make us touch anything outside.
    inside = [each for each in places if Path(each).is_relative_to(os.path.abspath(out_dir))]
    files = [target.manifest, *(stems.get(each, Path(each)) for each in inside)]
    return sha256, [each for each in files if os.path.lexists(each)]


# ---------------------------------------------------------------- blocks


def check_capacity(out_dir: Path, expected_bytes: int, song: Path) -> None:
    """Refuse a run that no disk of this size could hold, however empty.

    Parameters
    ----------
    out_dir : Path
        May not exist yet.
    expected_bytes : int
        What the run will need there, by the length that the recording states.
    song : Path
        The recording.

    Raises
    ------
    OutputError
        If that is more than the whole disk.
    """
    disk = shutil.disk_usage(nearest_existing(out_dir))
    if expected_bytes > disk.total:
        stated = (
            f", by the length that {str(song)!r} states (export the recording again, if it is not "
            "so long)"
        )
        raise _too_little_room(out_dir, disk.free, expected_bytes, stated)


def _too_little_room(
    out_dir: Path, free_bytes: int, expected_bytes: int, because: str = ""
) -> OutputError:
    return OutputError(
        f"{str(out_dir)!r} has {free_bytes / 1e6:.0f} MB of free space; this run needs about "
        f"{expected_bytes / 1e6:.0f} MB while it works{because}. Choose another output folder.",
        out_dir,
    )


class BlockStore:
    """Raw float blocks of all stems in the target folder, until they are encoded and published.

    A context manager: leaving it removes everything that was not published.

    Parameters
    ----------
    out_dir : Path
        Made if missing.
    stems : sequence of str
    channels : int, >= 1
    expected_bytes : int
        What the run will need on disk; refused at once where there is less.
    owner : str, optional
        What the run is of, usable in a file name: runs of the same owner find what one that was
        killed has left.
    key : str
        What decides the samples: of a run with another key nothing is taken over.
    resume : bool
        Whether to go on where a run with this key ended, and to leave what is finished for the
        next one if this one ends early. Otherwise all of it is removed.

    Raises
    ------
    OutputError
        If the folder cannot be made or written to, or has too little room.
    """

    def __init__(
        self,
        out_dir: Path,
        stems: Sequence[str],
        channels: int,
        *,
        expected_bytes: int = 0,
        owner: str | None = None,
        key: str = "",
        resume: bool = False,
    ) -> None:
        self.channels = channels
        self._out_dir = out_dir
        self._resume = resume
        self._finished = 0
        self._made: list[Path] = []
        self._stems: dict[str, _RawStem] = {}
        try:
            with _writing_to(out_dir):
                self._make(out_dir)
                self._partial = PartialFolder(out_dir, owner)
                self._folder = self._partial.path
                try:
                    self._open(stems, expected_bytes, Journal(self._folder / "journal", key))
                except BaseException:
                    self._close(keep=bool(self._finished))
                    raise
        except BaseException:
            self._remove_made()
            raise

    def _open(self, stems: Sequence[str], expected_bytes: int, journal: Journal) -> None:
        paths = {each: self._folder / f"{each}.f32" for each in stems}
        there = all(os.path.exists(each) for each in paths.values())
        marks = journal.read() if self._resume and there else []
        if marks:
            self._stems = {name: _RawStem(path, "r+b") for name, path in paths.items()}
            marks = self._whole(marks)
        if not marks:
            self._close_stems()
        self._partial.clear(keep=[*paths.values()] if marks else [])
        self._finished = marks[-1].samples if marks else 0
        taken = sum(each.stat().st_size for each in self._folder.iterdir())
        self._check_room(expected_bytes - taken)
        if not marks:
            self._stems = {name: _RawStem(path, "w+b") for name, path in paths.items()}
        self._journal = journal
        journal.begin(marks)

    def _whole(self, marks: Sequence[Mark]) -> list[Mark]:
        """The marks up to which the files hold what was noted; what is behind is cut off."""
        whole: list[Mark] = []
        position = 0
        for mark in marks:
            count = 4 * self.channels * (mark.samples - position)
            if not all(
                each.accept(count, mark.sha256.get(name)) for name, each in self._stems.items()
            ):
                break
            position = mark.samples
            whole.append(mark)
        for each in self._stems.values():
            each.cut(4 * self.channels * position)
        return whole

    def __enter__(self) -> BlockStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What was made of a recording that changed under way is of no recording.
        usable = error is not None and not isinstance(error, AudioError)
        self._close(keep=self._resume and usable and bool(self._finished))
        self._remove_made()

    def _close(self, *, keep: bool) -> None:
        self._close_stems()
        with suppress(OSError, AttributeError):  # A full disk was reported already.
            self._journal.close()
        self._partial.close(keep=keep)

    def _close_stems(self) -> None:
        for each in self._stems.values():
            each.close()
        self._stems = {}

    @property
    def finished(self) -> int:
        """Samples that an earlier run has left, or that `checkpoint` has noted since."""
        return self._finished

    def checkpoint(self) -> None:
        """Note that what was appended so far is whole, for a run that has to go on from here.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        self._finished = next(iter(self._stems.values())).size // (4 * self.channels)
        digests = {name: each.digest.hexdigest() for name, each in self._stems.items()}
        with _writing_to(self._out_dir):
            self._journal.add(
                Mark(self._finished, digests), [each.file for each in self._stems.values()]
            )

    def together(self) -> Iterator[AudioArray]:
        """Read all stems back side by side.

        Yields
        ------
        block : ndarray, shape (stems, channels, n), float32
        """
        for blocks in zip(*map(self.blocks, self._stems), strict=True):
            yield np.stack(blocks)

    def rewrite(self, blocks: Iterable[AudioArray]) -> None:
        """Replace the samples of all stems; the earlier ones stay on disk until the run ends.

        Parameters
        ----------
        blocks : iterable of ndarray, each shape (stems, channels, n), float32
            May be made of those of `together`.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        with _writing_to(self._out_dir):
            written = {
                each: _RawStem(self._folder / f"{each}.new.f32", "w+b") for each in self._stems
            }
            try:
                for block in blocks:
                    for stem, samples in zip(written.values(), block, strict=True):
                        stem.append(samples)
            except BaseException:
                for stem in written.values():
                    stem.close()
                raise
        self._close_stems()
        self._stems = written

    def add_stem(self, name: str) -> None:
        """Make room for one more stem, which no journal knows of.

        Parameters
        ----------
        name : str
        """
        with _writing_to(self._out_dir):
            self._stems[name] = _RawStem(self._folder / f"{name}.f32", "w+b")

    @property
    def peak(self) -> float:
        """Largest absolute sample of all stems; 0 for silence."""
        return max(each.peak for each in self._stems.values())

    def append(self, stems: Mapping[str, AudioArray]) -> None:
        """Add the next block of some stems.

        Parameters
        ----------
        stems : mapping of str to ndarray, each shape (channels, n), float32

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        for name, block in stems.items():
            with _writing_to(self._out_dir):
                self._stems[name].append(block)

    def blocks(self, stem: str) -> Iterator[AudioArray]:
        """Read a stem back.

        Parameters
        ----------
        stem : str

        Yields
        ------
        block : ndarray, shape (channels, n), float32
        """
        return self._stems[stem].blocks(self.channels)

    def samples_sha256(self, stem: str) -> str:
        """Digest of a stem's samples: float32, little-endian, channels interleaved.

        Parameters
        ----------
        stem : str

        Returns
        -------
        digest : str, 64 hex digits
        """
        return self._stems[stem].digest.hexdigest()

    def stem_peak(self, stem: str) -> float:
        """Largest absolute sample of one stem.

        Parameters
        ----------
        stem : str

        Returns
        -------
        peak : float, >= 0
        """
        return self._stems[stem].peak

    def draft(self, name: str) -> Path:
        """Name a file in the working folder, to be written before `publish` moves it.

        Parameters
        ----------
        name : str

        Returns
        -------
        path : Path
        """
        return self._folder / name

    def draft_copy(self, source: Path) -> Path:
        """Copy a finished file into the working folder.

        Parameters
        ----------
        source : Path

        Returns
        -------
        path : Path
            A draft for `publish`.

        Raises
        ------
        OutputError
            If it cannot be written.
        """
        draft = self.draft(source.name)
        with _writing_to(self._out_dir):
            shutil.copyfile(source, draft)
        return draft

    def publish(
        self, target: Target, drafts: Mapping[str, Path], manifest: Mapping[str, Any]
    ) -> None:
        """Move the encoded stems and then their manifest to their final names.

        Parameters
        ----------
        target : Target
        drafts : mapping of str to Path
            The whole files of the stems.
        manifest : mapping

        Raises
        ------
        OutputError
            If a file cannot be written. Nothing new is left then.
        """
        draft = self.draft("manifest.json")
        with _writing_to(self._out_dir):
            draft.write_text(json.dumps(manifest, indent=2) + "\n", "utf-8")
            moves = [(drafts[name], final) for name, final in target.stems.items()]
            moves.append((draft, target.manifest))
            for _, final in moves:
                self._make(final.parent)
            move_together(self._folder, moves, target.replaced)
            for each in set(target.replaced) - {final for _, final in moves}:
                each.unlink(missing_ok=True)

    def _check_room(self, expected_bytes: int) -> None:
        free = shutil.disk_usage(self._out_dir).free
        if free < expected_bytes:
            raise _too_little_room(self._out_dir, free, expected_bytes)

    def _make(self, folder: Path) -> None:
        """Make a folder and remember which of its parents are new."""
        missing = [each for each in (folder, *folder.parents) if not os.path.exists(each)]
        folder.mkdir(parents=True, exist_ok=True)
        self._made.extend(missing)

    def _remove_made(self) -> None:
        for folder in sorted(self._made, key=lambda each: len(each.parts), reverse=True):
            with suppress(OSError):  # One that holds a result stays.
                folder.rmdir()


class _RawStem:
    """One stem's samples in a file: float32, little-endian, channels interleaved."""

    def __init__(self, path: Path, mode: str) -> None:
        self.peak = 0.0
        self.size = 0
        self.digest = hashlib.sha256()
        self._path = path
        self.file: IO[bytes] = path.open(mode)

    def append(self, block: AudioArray) -> None:
        values = np.ascontiguousarray(block.T, "<f4")
        self.file.write(values.data)
        self._count(values)

    def accept(self, count: int, sha256: str | None) -> bool:
        """Take over the next bytes of the file, if it then has this digest."""
        content = self.file.read(count)
        digest = self.digest.copy()
        digest.update(content)
        if len(content) != count or digest.hexdigest() != sha256:
            return False
        self._count(np.frombuffer(content, "<f4"))
        return True

    def cut(self, size: int) -> None:
        """Drop what is behind some place. More was accepted if other stems had less."""
        self.file.truncate(size)
        if self.size == size:
            self.file.seek(size)
            return
        self.file.seek(0)
        self.peak, self.size, self.digest = 0.0, 0, hashlib.sha256()
        while content := self.file.read(4 * _READ_SAMPLES):
            self._count(np.frombuffer(content, "<f4"))

    def _count(self, values: AudioArray) -> None:
        self.digest.update(values.data)
        self.size += values.nbytes
        self.peak = max(self.peak, float(values.max(initial=0.0)), -float(values.min(initial=0.0)))

    def blocks(self, channels: int) -> Iterator[AudioArray]:
        self.file.flush()
        with self._path.open("rb") as file:
            while content := file.read(4 * channels * _READ_SAMPLES):
                yield np.frombuffer(content, "<f4").reshape(-1, channels).T.astype(np.float32)

    def close(self) -> None:
        # A full disk shows up here once more; the run has reported it already.
        with suppress(OSError):
            self.file.close()


@contextmanager
def _writing_to(folder: Path) -> Iterator[None]:
    """Say in which folder writing failed, and why."""
    try:
        yield
    except OutputError:
        raise
    except FileExistsError as error:
        raise OutputError(
            f"{str(error.filename or folder)!r} is in the way, or was just written by another "
            "run. Try again, or choose another output folder.",
            folder,
        ) from error
    except OSError as error:
        raise OutputError(
            f"cannot write to {str(folder)!r}: {error.strerror or error}. Check its permissions "
            "and free space, or choose another output folder.",
            folder,
        ) from error


# ---------------------------------------------------------------- the run manifest


def read_run(path: StrPath) -> dict[str, Any]:
    """Read a ``run.json``.

    Parameters
    ----------
    path : path
        The file, or the folder that holds it.

    Returns
    -------
    manifest : dict
        With the tables ``input``, ``model``, ``parameters`` and ``stems``.

    Raises
    ------
    ParameterError
        If there is none, or it was not written by a version this one understands.
    """
    file = Path(path) / "run.json" if os.path.isdir(path) else Path(path)
    try:
        fields: dict[str, Any] = json.loads(file.read_bytes())
        known = fields["schema"] == SCHEMA and all(
            isinstance(fields[table], dict) for table in ("input", "model", "parameters", "stems")
        )
    except OSError as error:
        raise ParameterError(
            f"{str(file)!r} cannot be read: {error.strerror}. Pass the run.json that lies beside "
            "the stems."
        ) from error
    except (ValueError, KeyError, TypeError, RecursionError):
        known = False
    if not known:
        raise ParameterError(
            f"{str(file)!r} is not a run manifest of schema {SCHEMA}. Pass the run.json that "
            "`stemlab separate` wrote beside the stems."
        )
    return fields


def package_versions() -> dict[str, str]:
    """Collect the versions of what the samples of a run depend on.

    Returns
    -------
    versions : dict of str to str
        Package name to version, with ``stemlab`` and ``python``.
    """
    versions = {"stemlab": __version__, "python": platform.python_version()}
    for name in _VERSIONS_OF:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed as a package"
    return versions


def peak_memory_bytes() -> int | None:
    """Highest resident memory of this process so far.

    Returns
    -------
    peak : int or None, in bytes
        None where the system does not tell (Windows).
    """
    if sys.platform == "win32":
        return None
    if sys.platform == "linux":
        # Its getrusage starts a new program with the peak of the one that started it.
        with suppress(OSError, ValueError, StopIteration):
            with open("/proc/self/status", encoding="ascii", errors="replace") as status:
                line = next(each for each in status if each.startswith("VmHWM:"))
            return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
