"""Where things lie in the repository."""

from __future__ import annotations

from pathlib import Path

TRAINING = Path(__file__).resolve().parent
MODELS = TRAINING.parent
DEMO = MODELS.parent / "stemlab" / "assets" / "demo"
CONFIGURATION = TRAINING / "stemlab-mini.toml"
