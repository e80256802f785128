"""Make text from untrusted sources safe to show."""

from __future__ import annotations


def printable(text: str) -> str:
    """Escape control characters and characters that hide or reorder text, as `repr` does."""
    if text.isprintable():
        return text
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )


def brief(text: str, at_most: int = 400) -> str:
    """Make a stranger's text safe to show: cut it, and escape as `printable` does."""
    return printable(text[:at_most])
