"""Add models to the models folder, verify what is there, and remove it.

Each of these is an explicit act of the user; nothing here runs because a model was requested.
`adding` takes the request; `_released` and `_own` are its two ways. `upkeep` verifies and removes.
Behind them: `_download` fetches, `_pickles` converts a pickle in a process of its own
(`_unpickle`), `_declared` reads what a file says of itself, `_store` writes into the models folder,
one process at a time.
"""

from stemlab.provisioning._download import FileProgress
from stemlab.provisioning.adding import add_model
from stemlab.provisioning.upkeep import VerifiedModel, remove_model, verify_model

__all__ = ["FileProgress", "VerifiedModel", "add_model", "remove_model", "verify_model"]
