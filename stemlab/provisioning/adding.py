"""Add a model to the models folder: one that stemlab knows, or one of the user's own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from stemlab._typing import StrPath
from stemlab.errors import ParameterError
from stemlab.provisioning._download import ProgressCallback
from stemlab.provisioning._own import add_own
from stemlab.provisioning._released import add_released
from stemlab.registry.lookup import asked_for, builtin_names, find_model, registered_name
from stemlab.registry.manifests import ModelManifest, check_digest


def add_model(
    name: str,
    paths: StrPath | Sequence[StrPath] = (),
    *,
    download: bool = False,
    sha256: str | Sequence[str] = (),
    weight_license: str | None = None,
    progress: ProgressCallback | None = None,
) -> ModelManifest:
    """Put a model into the models folder: one that stemlab knows, or one of the user's own.

    A file is read once, and that buffer is verified, converted if it is a pickle (in a process of
    its own, with ``weights_only`` and an exact list of what it may name), compared with the
    architecture and only then moved into place. Two processes may do this at once.

    Parameters
    ----------
    name : str
        Registered name; or, for a model of the user's own, a new one.
    paths : path or sequence of path, optional
        Files, or folders that are searched for them by size and digest. They are left as they are.
    download : bool, optional
        Fetch the files from where they are published, instead of taking them from `paths`.
    sha256 : str or sequence of str, 64 hex digits each, optional
        Digests that the user vouches for: of the one file of a custom model, and of a file whose
        digest is known from a single source.
    weight_license : str, optional
        Terms of the weights of a custom model.
    progress : callable, optional
        Called with a `FileProgress`.

    Returns
    -------
    manifest : ModelManifest
        Of the model, which is installed now. Nothing is done if it was before, and is whole.

    Raises
    ------
    ParameterError
        If the arguments do not go together, or the name cannot be used.
    ModelNotFoundError
        If a file is not where it was looked for. Nothing is added then.
    ModelRefusedError
        If a file is not the recorded one, or holds something else than weights of the network.
    DownloadError
        If a file cannot be fetched; what arrived is kept and used next time.
    MissingDependencyError
        If the model's network is that of a package which does not load here.
    OutputError
        If the models folder cannot be written to.
    """
    name = asked_for(name)
    paths = _paths([paths] if isinstance(paths, (str, os.PathLike)) else paths)
    digests = [_digest(typed) for typed in ([sha256] if isinstance(sha256, str) else sha256)]
    if download == bool(paths):
        raise ParameterError(
            f"where the files of {name!r} come from is not clear: name files or folders (--from), "
            "or download them (--download), one of the two."
        )
    if registered_name(name, own=False) is not None:
        return add_released(find_model(name), paths, digests, weight_license, progress)
    if download:
        raise ParameterError(
            f"name={name!r} is none of the models that can be downloaded "
            f"({', '.join(builtin_names())}). Name the file of a model of your own with --from."
        )
    return add_own(name, paths, digests, weight_license, progress)


def _paths(paths: Sequence[StrPath]) -> list[Path]:
    try:
        made = [Path(path) for path in paths]
    except TypeError as error:
        raise ParameterError(f"paths={paths!r} are not paths of files or folders.") from error
    if any(not os.fspath(path) for path in paths):
        raise ParameterError("one of the paths is empty. Name a file or a folder; '.' is this one.")
    return made


def _digest(typed: str) -> str:
    digest = str(typed).strip().lower()
    try:
        check_digest(digest)
    except ValueError as error:
        raise ParameterError(
            f"sha256={typed!r} is not a full SHA-256: expected 64 hex digits, got {len(digest)} "
            "characters. The first few digits are not enough."
        ) from error
    return digest
