"""What a run leaves on disk: raw blocks while it works, whole stems and ``run.json`` at its end.

``run.json`` gets its name last, and loses it first where a result is replaced: a folder that has
one holds a whole result.
"""

from stemlab.results.blocks import BlockStore, check_capacity
from stemlab.results.manifest import (
    DeviceRecord,
    InputRecord,
    ModelRecord,
    RunCost,
    RunManifest,
    StemRecord,
    describe_plan,
    package_versions,
    peak_memory_bytes,
)
from stemlab.results.names import ResultNames, check_filename, file_safe
from stemlab.results.place import EarlierResultError, ResultPlace, Target
from stemlab.results.publishing import only_publisher, recover, remove_unfinished

__all__ = [
    "BlockStore",
    "DeviceRecord",
    "EarlierResultError",
    "InputRecord",
    "ModelRecord",
    "ResultNames",
    "ResultPlace",
    "RunCost",
    "RunManifest",
    "StemRecord",
    "Target",
    "check_capacity",
    "check_filename",
    "describe_plan",
    "file_safe",
    "only_publisher",
    "package_versions",
    "peak_memory_bytes",
    "recover",
    "remove_unfinished",
]
