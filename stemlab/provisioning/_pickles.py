"""Convert a verified pickle to safetensors in another process; this one never opens it."""

from __future__ import annotations

import json
import os
import struct
import subprocess
from pathlib import Path
from typing import Any

from stemlab._isolation import child
from stemlab._text import brief
from stemlab.errors import ModelRefusedError
from stemlab.networks.architectures import ARCHITECTURES
from stemlab.provisioning import _unpickle

TIMEOUT_SECONDS = 900
# What Python needs to find itself and its packages. Tokens and other secrets are not passed on.
_ENVIRONMENT = (
    "APPDATA DYLD_LIBRARY_PATH HOME LD_LIBRARY_PATH PATH PYTHONHOME PYTHONPATH PYTHONUSERBASE "
    "SYSTEMROOT TEMP TMP TMPDIR USERPROFILE"
).split()


def convert(content: bytes, label: str) -> tuple[bytes, dict[str, Any]]:
    """Turn a pickle of weights into the bytes of a safetensors file."""
    class_names = [entry.class_name for entry in ARCHITECTURES.values() if entry.class_name]
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    try:
        process = subprocess.run(
            **child(str(Path(_unpickle.__file__)), *class_names, environment=environment),
            input=content,
            capture_output=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise _refusal(label, f"it took longer than {TIMEOUT_SECONDS} s") from error
    said = process.stderr.decode("utf-8", "replace").strip().splitlines()
    if process.returncode == _unpickle.REFUSED:
        raise _refusal(label, said[-1] if said else "no reason was given")
    if process.returncode != 0:
        raise _refusal(
            label,
            f"its process ended with code {process.returncode}, at one of its limits of time and "
            f"memory or for want of a package ({said[-1] if said else 'it said nothing'})",
        )
    (length,) = struct.unpack_from(">Q", process.stdout)
    facts: dict[str, Any] = json.loads(process.stdout[8 : 8 + length])
    return process.stdout[8 + length :], facts


def _refusal(label: str, reason: str) -> ModelRefusedError:
    return ModelRefusedError(
        f"{label!r} cannot be converted: {brief(reason)}. Nothing was added. Use another file, "
        "best a .safetensors one.",
        path=label,
    )
