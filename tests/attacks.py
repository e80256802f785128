"""The table of attacks on weights and what came of each, `docs/attacks.csv`.

Each test that attacks hands in what was said, and fails if the table says something else.
`make attacks` runs them all and writes the table anew.
"""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

__all__ = ["AttackTable"]

_PATH = Path(__file__).parents[1] / "docs" / "attacks.csv"
_COLUMNS = ("way", "attack", "outcome", "test")
# How the file, or what is said of it, comes in.
WAYS = ("pickle", "safetensors", "what a file states", "manifest", "models folder", "download")


# What differs between machines or versions, or is the text of another library.
_UNSETTLED = {
    r"(?<=')/\S*/(?=[^/']+')": "",
    r"has \S+ of shape .*": "has a tensor of another shape or type than its network",
    r"for tensor `.*`": "for a tensor",
    # It would be markup where the table is shown.
    r"`": "'",
    r"[0-9a-f]{64}": "…",
    r"\b\d{4,}\b(?!\.)": "N",
    r"(127\.0\.0\.1|localhost):\w+": r"\1",
    r"its pickle is refused: (it )?": r"\1",
    r"(Can only build|persistent_load|Unsupported operand).*": "PyTorch does not read it",
    r"\((\w+Error): .*": r"(\1)",
    r"is not JSON \(.*": "is not JSON",
    r"is not trusted: .*": "is not trusted",
}


def _in_brief(said: str) -> str:
    """The first sentence of what was said, without what is not the same everywhere."""
    for pattern, settled in _UNSETTLED.items():
        said = re.sub(pattern, settled, said)
    said = said.partition(". ")[0].removesuffix(".")
    said += ")" * (said.count("(") - said.count(")"))
    return said if len(said) <= 160 else said[:159] + "…"


class AttackTable:
    """What came of each attack, as the repository has it or as it is seen now."""

    def __init__(self) -> None:
        self._writes = os.environ.get("STEMLAB_ATTACKS") == "write"
        self._seen: dict[tuple[str, str], tuple[str, str]] = {}
        self._known: dict[tuple[str, str], tuple[str, str]] = {}
        if not self._writes:
            with _PATH.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    self._known[row["way"], row["attack"]] = row["outcome"], row["test"]

    def refused(self, way: str, attack: str, said: str, test: str) -> None:
        """Compare with the table, or keep it for the next one."""
        assert way in WAYS, way
        row = f"refused: {_in_brief(said)}", test
        assert self._seen.setdefault((way, attack), row) == row, f"two attacks are named {attack}"
        if not self._writes:
            known = self._known.get((way, attack))
            assert known == row, f"{_PATH.name} says {known}. `make attacks` writes it anew"

    def attacks(self, test: str) -> list[str]:
        """Names of the attacks that the table says a test tries."""
        rows = self._seen if self._writes else self._known
        return [attack for (_, attack), (_, named) in rows.items() if named == test]

    def save(self) -> None:
        """Write what was seen, if that was asked for."""
        if self._writes:
            rows = sorted(self._seen.items(), key=lambda item: WAYS.index(item[0][0]))
            with _PATH.open("w", encoding="utf-8", newline="") as file:
                table = csv.writer(file, lineterminator="\n")
                table.writerow(_COLUMNS)
                table.writerows((*attack, *outcome) for attack, outcome in rows)
