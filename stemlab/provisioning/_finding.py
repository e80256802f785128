"""Find the files of a released model among those of the user, by size and digest."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from stemlab.errors import ModelError, ModelNotFoundError, ModelRefusedError, ParameterError
from stemlab.registry import NetworkEntry, WeightFile, read_bounded

__all__ = ["check_exists", "find_files"]

# A folder of downloads may hold anything; the search for one file in it should not take long.
_MOST_FILES_LOOKED_AT = 100_000


def find_files(
    networks: Sequence[NetworkEntry], model: str, paths: Sequence[Path]
) -> list[tuple[WeightFile, Path]]:
    """Find a file for each network; their names do not matter."""
    sizes = {file.size for network in networks for file in network.files}
    by_digest: dict[str, Path] = {}
    others: list[str] = []
    for path in _files(paths):
        # A file that cannot be read need not be the wanted one.
        with suppress(OSError, ModelError):
            size = path.stat().st_size
            if size in sizes:
                content = read_bounded(path, size, follow_links=True)
                by_digest[hashlib.sha256(content).hexdigest()] = path
            else:
                others.append(f"{str(path)!r} has {size} bytes")
    found = []
    for network in networks:
        file = next((file for file in network.files if file.sha256 in by_digest), None)
        if file is None:
            recorded = {file.sha256 for network in networks for file in network.files}
            strays = [
                f"{str(path)!r} has SHA-256 {digest}"
                for digest, path in by_digest.items()
                if digest not in recorded
            ]
            alone = len(others) == 1 and not by_digest
            raise _not_among(network, model, strays or (others if alone else []))
        found.append((file, by_digest[file.sha256]))
    return found


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    looked_at = 0
    for path in paths:
        check_exists(path)
        if not os.path.isdir(path):
            yield path
            continue
        for folder, folders, names in os.walk(path):
            looked_at += len(folders) + len(names)
            if looked_at > _MOST_FILES_LOOKED_AT:
                raise ParameterError(
                    f"{str(path)!r} holds more than {_MOST_FILES_LOOKED_AT} files. Name the file, "
                    "or a narrower folder."
                )
            yield from (Path(folder, name) for name in sorted(names))


def check_exists(path: Path) -> None:
    """Refuse a path where there is nothing."""
    # pathlib's own raises where a name is too long or a folder may not be entered.
    if not os.path.exists(path):
        raise ModelNotFoundError(
            f"{str(path)!r} does not exist, or may not be looked at. Name a file or a folder."
        )


def _not_among(network: NetworkEntry, model: str, instead: Sequence[str]) -> ModelError:
    """Say what was expected, and which files look as if they were meant for it."""
    expected = " or ".join(
        f"{file.name} ({file.size} bytes, SHA-256 {file.sha256})" for file in network.files
    )
    if instead:
        return ModelRefusedError(
            f"what was named is not the file of {model!r}: expected {expected}, but "
            f"{'; '.join(instead[:3])}. Get the file again; do not use this one.",
            expected=[file.sha256 for file in network.files],
            actual=list(instead),
        )
    return ModelNotFoundError(
        f"a file of {model!r} is not among those that were looked at: expected {expected}. Name "
        "the file, or its folder."
    )
