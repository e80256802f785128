"""Defaults that the command line tells in its help, where nothing heavy may be imported."""

from __future__ import annotations

DEFAULT_OVERLAP = 0.25
