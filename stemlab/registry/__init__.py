"""Which models there are, and whether their files are the recorded ones.

``models/registry.json`` pins the digest of each built-in model's ``manifest.json``, which pins the
size and digest of each file of weights: a single changed byte is detected. Models that the user
added have a registry of the same form in the models folder; it is read after the built-in one and
cannot replace its entries. A folder with a ``manifest.json`` gets the same checks from there on.
Nothing here parses weights: `stemlab.networks` does, and gets bytes that are already verified.

`lookup` finds a model by name, `manifests` reads its record, `store` knows the models folder,
`files` reads. Nothing here writes: `stemlab.provisioning` does.
"""

from stemlab.registry.lookup import (
    builtin_names,
    find_model,
    is_folder,
    list_models,
    own_names,
    without_folder,
)
from stemlab.registry.manifests import MANIFEST_NAME, ModelManifest, NetworkEntry, read_manifest
from stemlab.registry.store import installed_file, is_installed, models_dir

__all__ = [
    "MANIFEST_NAME",
    "ModelManifest",
    "NetworkEntry",
    "builtin_names",
    "find_model",
    "installed_file",
    "is_folder",
    "is_installed",
    "list_models",
    "models_dir",
    "own_names",
    "read_manifest",
    "without_folder",
]
