"""Keep a finished run somewhere else: what a panel listens to first and saves later."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from stemlab._typing import StrPath
from stemlab.errors import AudioError
from stemlab.results import BlockStore, ResultPlace, only_publisher, recover
from stemlab.separation._files import relative_path
from stemlab.separation.events import SeparationResult
from stemlab.separation.settings import unpack_parameters


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
    run, folder = result.run, result.manifest_path.parent
    out_dir, digest = Path(out_dir), run.input.sha256
    owner = f"{digest[:16]}-saved"  # Not the folder of an unfinished separation.
    recover(out_dir, owner)
    song = Path(os.path.normpath(folder.resolve() / run.input.path))
    _, output, _ = unpack_parameters(run.parameters)
    place = ResultPlace(
        out_dir, output.filename, song, run.model.name, tuple(result.stems), output.format, digest
    )
    place.choose(force=force)
    size = sum(path.stat().st_size for path in result.stems.values() if path.exists())
    with BlockStore(out_dir, (), 0, owner=owner, expected_bytes=size) as store:
        drafts = {stem: store.draft_copy(stem, path) for stem, path in result.stems.items()}
        for stem, draft in drafts.items():
            if store.draft_sha256(draft) != run.stems[stem].sha256:
                path = result.stems[stem]
                raise AudioError(f"{str(path)!r} is not what the run wrote. Separate again.", path)
        with only_publisher(out_dir):
            target = place.choose(force=force)
            saved = run.moved(
                relative_path(song, target.manifest.parent),
                {stem: target.seen_from_manifest(stem) for stem in drafts},
            )
            store.publish(target, drafts, saved)
    return replace(result, stems=target.stems, manifest_path=target.manifest, run=saved)
