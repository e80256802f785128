"""Which models there are, and whether their files are what the registry says.

``models/registry.json`` pins the digest of each built-in model's ``manifest.json``, which pins
the size and digest of each file of weights: whoever changes one byte of either is found out.
The models that a person added have a registry of the same form in the models folder; it is read
after the built-in one and cannot replace what that names. A folder with a ``manifest.json`` gets
the same checks from there on. Nothing here parses weights: that is for `stemlab._models`, which
gets bytes that were already checked.

`lookup` finds a model by name, `manifests` reads what is recorded of it, `store` knows the models
folder, `files` reads and writes.
"""

from stemlab.registry.files import read_bounded, read_verified, refuse_digest, write_atomically
from stemlab.registry.lookup import find_model, is_builtin, is_folder, list_models, model_names
from stemlab.registry.manifests import (
    MANIFEST_NAME,
    MAX_WEIGHTS_BYTES,
    SCHEMA,
    ModelManifest,
    NetworkEntry,
    WeightFile,
    check_digest,
    check_file_name,
    check_sources,
    exact_seconds,
    read_manifest,
)
from stemlab.registry.store import (
    InstalledFile,
    forget_model,
    installed_file,
    is_installed,
    models_dir,
    record_file,
    register_model,
)

__all__ = [
    "MANIFEST_NAME",
    "MAX_WEIGHTS_BYTES",
    "SCHEMA",
    "InstalledFile",
    "ModelManifest",
    "NetworkEntry",
    "WeightFile",
    "check_digest",
    "check_file_name",
    "check_sources",
    "exact_seconds",
    "find_model",
    "forget_model",
    "installed_file",
    "is_builtin",
    "is_folder",
    "is_installed",
    "list_models",
    "model_names",
    "models_dir",
    "read_bounded",
    "read_manifest",
    "read_verified",
    "record_file",
    "refuse_digest",
    "register_model",
    "write_atomically",
]
