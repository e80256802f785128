"""Which models there are, and whether their files are the recorded ones.

``models/registry.json`` pins the digest of each built-in model's ``manifest.json``, which pins the
size and digest of each file of weights: a single changed byte is detected. Models that the user
added have a registry of the same form in the models folder; it is read after the built-in one and
cannot replace its entries. A folder with a ``manifest.json`` gets the same checks from there on.
Nothing here parses weights: `stemlab.networks` does, and gets bytes that are already verified.

`lookup` finds a model by name, `manifests` reads its record, `store` knows the models folder,
`files` reads. Nothing here writes: `stemlab.provisioning` does.
"""

from stemlab.registry.files import (
    read_bounded,
    read_verified,
    refuse_digest,
)
from stemlab.registry.lookup import (
    asked_for,
    builtin_names,
    find_model,
    is_folder,
    list_models,
    own_names,
    registered_name,
    without_folder,
)
from stemlab.registry.manifests import (
    MANIFEST_NAME,
    MAX_WEIGHTS_BYTES,
    PICKLE_SUFFIXES,
    SCHEMA,
    ModelManifest,
    NetworkEntry,
    WeightFile,
    check_digest,
    check_file_name,
    check_sources,
    check_text,
    exact_seconds,
    parse_manifest,
    printable,
    read_manifest,
)
from stemlab.registry.store import (
    RECORDS_NAME,
    REGISTRY_NAME,
    InstalledFile,
    SourceRecord,
    installed_file,
    is_installed,
    models_dir,
    read_records,
    read_registry,
    refuse_link,
)

__all__ = [
    "MANIFEST_NAME",
    "MAX_WEIGHTS_BYTES",
    "PICKLE_SUFFIXES",
    "RECORDS_NAME",
    "REGISTRY_NAME",
    "SCHEMA",
    "InstalledFile",
    "ModelManifest",
    "NetworkEntry",
    "SourceRecord",
    "WeightFile",
    "asked_for",
    "builtin_names",
    "check_digest",
    "check_file_name",
    "check_sources",
    "check_text",
    "exact_seconds",
    "find_model",
    "installed_file",
    "is_folder",
    "is_installed",
    "list_models",
    "models_dir",
    "own_names",
    "parse_manifest",
    "printable",
    "read_bounded",
    "read_manifest",
    "read_records",
    "read_registry",
    "read_verified",
    "refuse_digest",
    "refuse_link",
    "registered_name",
    "without_folder",
]
