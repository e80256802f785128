"""Put models where stemlab finds them, check them there, and take them away.

Each of these is an explicit act of the user; nothing here runs because a model was asked for.
`adding` is the way of a file into the models folder, `upkeep` verifies and removes. Behind them:
`_download` fetches, `_pickles` converts a pickle in a process of its own (`_unpickle`),
`_declared` reads what a file says of itself, `_store` keeps two processes apart.
"""

from stemlab.provisioning._download import FileProgress
from stemlab.provisioning.adding import add_model
from stemlab.provisioning.upkeep import VerifiedModel, remove_model, verify_model

__all__ = ["FileProgress", "VerifiedModel", "add_model", "remove_model", "verify_model"]
