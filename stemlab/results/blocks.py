"""Raw float blocks of a run, in a working folder of the output folder, until they are published."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import numpy as np

from stemlab._typing import AudioArray
from stemlab.errors import AudioError, OutputError
from stemlab.files import WorkFolder, abandoned_folders, nearest_existing
from stemlab.results.journal import Journal, Mark, read_marks
from stemlab.results.manifest import RunManifest
from stemlab.results.names import file_safe
from stemlab.results.place import Target
from stemlab.results.publishing import publish

_READ_BYTES = 1 << 20


def check_capacity(out_dir: Path, expected_bytes: int, song: Path) -> None:
    """Refuse a run that no disk of this size could hold, by the length that its song states."""
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
    """Raw float blocks of all stems, until they are encoded and published.

    A context manager: leaving it removes everything that was not published, unless the run is to
    be resumed. `owner` says what the run is of, and `key` what decides its samples: with `resume`,
    what an earlier run of the same owner and key has finished, of at most `most_samples`, is
    copied. The earlier run's own files are never written to. Raises OutputError if the folder
    cannot be made or has less room than `expected_bytes`.
    """

    def __init__(
        self,
        out_dir: Path,
        stems: Sequence[str],
        channels: int,
        *,
        owner: str,
        key: str = "",
        resume: bool = False,
        expected_bytes: int = 0,
        most_samples: int = 0,
    ) -> None:
        self.channels = channels
        self._out_dir = out_dir
        self._resume = resume
        self._finished = 0
        self._made: list[Path] = []
        self._stems: dict[str, _RawStem] = {}
        self._journal: Journal | None = None
        try:
            with self._writing():
                self._make(out_dir)
                self._folder = WorkFolder(out_dir, owner)
                try:
                    self._open(stems, owner, key, expected_bytes, most_samples)
                except BaseException:
                    self._close(keep=False)
                    raise
        except BaseException:
            self._remove_made()
            raise

    def _open(
        self, stems: Sequence[str], owner: str, key: str, expected_bytes: int, most_samples: int
    ) -> None:
        earlier = [*abandoned_folders(self._out_dir, owner)]
        marks: list[Mark] = []
        try:
            best, candidates = None, earlier if self._resume else []
            for folder in candidates:
                found = read_marks(folder, key, most_samples)
                if found and (not marks or found[-1].samples > marks[-1].samples):
                    best, marks = folder, found
            self._check_room(expected_bytes)
            for stem in stems:
                self._stems[stem] = _RawStem(self._folder, _raw_name(stem))
            if best is not None:
                marks = self._copy(best, marks)
                self._finished = marks[-1].samples if marks else 0
        finally:
            for folder in earlier:
                folder.close()
        self._journal = Journal(self._folder, key, marks)

    def _copy(self, earlier: WorkFolder, marks: Sequence[Mark]) -> list[Mark]:
        """Copy what an earlier run has finished, as far as its digests are right."""
        whole: list[Mark] = []
        with suppress(OSError):
            for stem in self._stems.values():
                stem.source = earlier.open(stem.name)
        position = 0
        for mark in marks:
            count = 4 * self.channels * (mark.samples - position)
            if not all(
                stem.copy(count, mark.sha256.get(name)) for name, stem in self._stems.items()
            ):
                break
            position = mark.samples
            whole.append(mark)
        for stem in self._stems.values():
            stem.cut(4 * self.channels * position)
        return whole

    def __enter__(self) -> BlockStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # If the recording changes during the run, its partial output is discarded.
        usable = error is not None and not isinstance(error, AudioError)
        self._close(keep=self._resume and usable and bool(self._finished))
        self._remove_made()

    def _close(self, *, keep: bool) -> None:
        self._close_stems()
        if self._journal is not None:
            self._journal.close()
        with suppress(OSError):  # The folder itself may be gone.
            self._folder.close(keep=keep)

    def _close_stems(self) -> None:
        for stem in self._stems.values():
            stem.close()
        self._stems = {}

    @property
    def finished(self) -> int:
        """Samples that an earlier run has left, or that `checkpoint` has noted since."""
        return self._finished

    def checkpoint(self) -> None:
        """Note that what was appended so far is whole, for a run that has to go on from here."""
        assert self._journal is not None
        self._finished = next(iter(self._stems.values())).size // (4 * self.channels)
        digests = {name: stem.digest.hexdigest() for name, stem in self._stems.items()}
        with self._writing():
            self._journal.add(
                Mark(self._finished, digests), [stem.file for stem in self._stems.values()]
            )

    def together(self) -> Iterator[AudioArray]:
        """Yield all stems side by side: blocks of shape (stems, channels, n), float32."""
        for blocks in zip(*map(self.blocks, self._stems), strict=True):
            yield np.stack(blocks)

    def rewrite(self, blocks: Iterable[AudioArray]) -> None:
        """Replace the samples of all stems by blocks that may be made of those of `together`."""
        with self._writing():
            written = {
                name: _RawStem(self._folder, f"native-{stem.name}")
                for name, stem in self._stems.items()
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
        """Make room for one more stem, which no journal knows of."""
        with self._writing():
            self._stems[name] = _RawStem(self._folder, _raw_name(name))

    @property
    def peak(self) -> float:
        """Largest absolute sample of all stems; 0 for silence."""
        return max(stem.peak for stem in self._stems.values())

    def append(self, stems: Mapping[str, AudioArray]) -> None:
        """Add the next block of some stems, each of shape (channels, n), float32."""
        for name, block in stems.items():
            with self._writing():
                self._stems[name].append(block)

    def blocks(self, stem: str) -> Iterator[AudioArray]:
        """Yield a stem's blocks, each of shape (channels, n), float32."""
        return self._stems[stem].blocks(self.channels)

    def samples_sha256(self, stem: str) -> str:
        """Digest of a stem's samples: float32, little-endian, channels interleaved."""
        return self._stems[stem].digest.hexdigest()

    def stem_peak(self, stem: str) -> float:
        """Largest absolute sample of one stem."""
        return self._stems[stem].peak

    @contextmanager
    def draft(self, stem: str, ext: str) -> Iterator[tuple[str, BinaryIO]]:
        """Make a file to be published, and yield its name in the working folder and itself."""
        name = f"{file_safe(stem)}.{ext}"
        with self._writing():
            file = self._folder.open(name, "x+b", buffering=0)
        with file:
            yield name, file

    def draft_copy(self, stem: str, source: Path) -> str:
        """Copy a finished file into the working folder, and return its name there."""
        ext = source.suffix.removeprefix(".")
        with self._writing(), open(source, "rb") as file, self.draft(stem, ext) as (name, draft):
            shutil.copyfileobj(file, draft, _READ_BYTES)
        return name

    def draft_sha256(self, draft: str) -> str:
        """Digest of a draft."""
        return self._folder.digest(draft)

    def draft_bytes(self, draft: str) -> int:
        """Length of a draft."""
        facts = self._folder.stat(draft)
        assert facts is not None
        return facts.st_size

    def publish(self, target: Target, drafts: Mapping[str, str], manifest: RunManifest) -> None:
        """Move the drafts of the stems, and then the manifest, to their final names.

        Raises OutputError if one cannot be written; an earlier result is then as it was.
        """
        with self._writing():
            self._folder.write("manifest.json", manifest.to_json().encode())
            for path in (*target.stems.values(), target.manifest):
                self._note_missing(path.parent)
            publish(self._folder, target, drafts, "manifest.json")

    def _check_room(self, expected_bytes: int) -> None:
        free = shutil.disk_usage(self._out_dir).free
        if free < expected_bytes:
            raise _too_little_room(self._out_dir, free, expected_bytes)

    def _make(self, folder: Path) -> None:
        self._note_missing(folder)
        folder.mkdir(parents=True, exist_ok=True)

    def _note_missing(self, folder: Path) -> None:
        """Remember which folders are new, to remove them if nothing is published."""
        self._made.extend(
            place for place in (folder, *folder.parents) if not os.path.lexists(place)
        )

    def _remove_made(self) -> None:
        for folder in sorted(self._made, key=lambda path: len(path.parts), reverse=True):
            with suppress(OSError):  # One that holds a result stays.
                folder.rmdir()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Say in which folder writing failed, and why."""
        folder = self._out_dir
        try:
            yield
        except OutputError:
            raise
        except FileExistsError as error:
            raise OutputError(
                f"{str(error.filename2 or error.filename or folder)!r} is in the way, or was just "
                "written by another run. Try again, or choose another output folder.",
                folder,
            ) from error
        except OSError as error:
            raise OutputError(
                f"cannot write to {str(folder)!r}: {error.strerror or error}. Check its "
                "permissions and free space, or choose another output folder.",
                folder,
            ) from error


def _raw_name(stem: str) -> str:
    return f"{file_safe(stem)}.f32"


class _RawStem:
    """One stem's samples in a new file: float32, little-endian, channels interleaved."""

    def __init__(self, folder: WorkFolder, name: str) -> None:
        self.name = name
        self.peak = 0.0
        self.size = 0
        self.digest = hashlib.sha256()
        self.source: BinaryIO | None = None
        self._folder = folder
        self.file = folder.open(name, "x+b")

    def append(self, block: AudioArray) -> None:
        values = np.ascontiguousarray(block.T, "<f4")
        self.file.write(values.data)
        self._count(values)

    def copy(self, count: int, sha256: str | None) -> bool:
        """Copy the next bytes of the source; False if they, and all before, have another digest."""
        while self.source is not None and count:
            content = self.source.read(min(count, _READ_BYTES))
            if not content or len(content) % 4:
                return False
            self.file.write(content)
            self._count(np.frombuffer(content, "<f4"))
            count -= len(content)
        return not count and self.digest.hexdigest() == sha256

    def cut(self, size: int) -> None:
        """Close the source, and drop what is behind some place."""
        if self.source is not None:
            self.source.close()
        self.file.flush()
        self.file.truncate(size)
        self.file.seek(0)
        if self.size != size:
            self.peak, self.size, self.digest = 0.0, 0, hashlib.sha256()
            while content := self.file.read(_READ_BYTES):
                self._count(np.frombuffer(content, "<f4"))
        self.file.seek(size)

    def _count(self, values: AudioArray) -> None:
        self.digest.update(values.data)
        self.size += values.nbytes
        self.peak = max(self.peak, float(values.max(initial=0.0)), -float(values.min(initial=0.0)))

    def blocks(self, channels: int) -> Iterator[AudioArray]:
        self.file.flush()
        with self._folder.open(self.name) as file:
            while content := file.read(4 * channels * (_READ_BYTES // 16)):
                yield np.frombuffer(content, "<f4").reshape(-1, channels).T.astype(np.float32)

    def close(self) -> None:
        # A full disk shows up here once more; the run has reported it already.
        with suppress(OSError):
            self.file.close()
