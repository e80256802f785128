"""Keep a finished run somewhere else: what a panel listens to first and saves later."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from stemlab._partial import undo_unfinished
from stemlab._typing import StrPath
from stemlab.audio import file_digest, read_info
from stemlab.errors import AudioError
from stemlab.runs import BlockStore, choose_target
from stemlab.separation._files import relative_path
from stemlab.separation.events import SeparationResult

__all__ = ["save_result"]


def save_result(
    result: SeparationResult, out_dir: StrPath, *, force: bool = False
) -> SeparationResult:
    """Copy the files of a run into a folder, under the names they would have been given there.

    Parameters
    ----------
    result : SeparationResult
        Its files stay where they are.
    out_dir : path
        Made if missing.
    force : bool, default False
        Replace an earlier result of the same recording.

    Returns
    -------
    saved : SeparationResult

    Raises
    ------
    AudioError
        If a stem is gone, or is not what the run wrote.
    OutputError
        If there is a result already, or it cannot be written. Nothing is left half-written.
    """
    manifest, folder = result.manifest, result.manifest_path.parent
    for name, path in result.stems.items():
        if file_digest(path) != manifest["stems"][name]["sha256"]:
            raise AudioError(f"{str(path)!r} is not what the run wrote. Separate again.", path)
    out_dir, digest = Path(out_dir), manifest["input"]["sha256"]
    owner = f"{digest[:16]}-saved"  # Not the folder of an unfinished separation.
    undo_unfinished(out_dir, owner)
    song = Path(os.path.normpath(folder.resolve() / manifest["input"]["path"]))
    parameters = manifest["parameters"]
    target = choose_target(
        out_dir,
        parameters["filename"],
        song=song,
        model=manifest["model"]["name"],
        stems=tuple(result.stems),
        ext=parameters["format"],
        input_sha256=digest,
        force=force,
    )
    size = sum(each.stat().st_size for each in result.stems.values())
    channels = read_info(next(iter(result.stems.values()))).channels
    with BlockStore(out_dir, (), channels, expected_bytes=size, owner=owner) as store:
        drafts = {name: store.draft_copy(path) for name, path in result.stems.items()}
        place = target.manifest.parent
        saved = {
            **manifest,
            "input": {**manifest["input"], "path": relative_path(song, place)},
            "stems": {
                name: {**manifest["stems"][name], "file": os.path.relpath(final, place)}
                for name, final in target.stems.items()
            },
        }
        store.publish(target, drafts, saved)
    return replace(result, stems=target.stems, manifest_path=target.manifest, manifest=saved)
