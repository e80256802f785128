"""How stemlab reads and writes files: whole or not at all, and never through somebody's link.

A folder that the user names may be a link and belong to anybody. Below it, links are not followed,
and only what this user owns is replaced or removed. `Folder` keeps a folder open, so that nothing
can be put in its place while it is used. A `WorkFolder` belongs to one process while it lives: the
system releases its lock when the process ends, however it ends.
"""

from __future__ import annotations

from stemlab.files.folder import Folder
from stemlab.files.whole import (
    atomic_file,
    cache_dir,
    check_writable,
    nearest_existing,
    parse_json,
    read_bounded,
    strict_json,
    write_atomically,
)
from stemlab.files.working import ScratchFolder, WorkFolder, abandoned_folders, lock_file

__all__ = [
    "Folder",
    "ScratchFolder",
    "WorkFolder",
    "abandoned_folders",
    "atomic_file",
    "cache_dir",
    "check_writable",
    "lock_file",
    "nearest_existing",
    "parse_json",
    "read_bounded",
    "strict_json",
    "write_atomically",
]
