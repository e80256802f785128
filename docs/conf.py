"""How Sphinx builds the reference: ``make docs``."""

from __future__ import annotations

from typing import Any

from stemlab import __version__
from stemlab.metrics import FIGURES

project = "stemlab"
author = "the stemlab developers"
release = __version__
extensions = ["sphinx.ext.autodoc", "sphinx.ext.autosummary", "numpydoc"]
templates_path = ["_templates"]
exclude_patterns = ["vendor"]
html_theme = "alabaster"
html_theme_options = {"description": "Music source separation, measured", "page_width": "70em"}
html_show_sourcelink = False
# The reader asks for the text, nothing else: no page loads anything from elsewhere.
html_sidebars = {"**": ["about.html", "navigation.html", "searchbox.html"]}

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc's Parameters have the types, with shapes and units.
autodoc_inherit_docstrings = False
numpydoc_show_class_members = False


def setup(app: Any) -> None:
    """Fill in what the code says best."""
    app.connect("source-read", _list_figures)


def _list_figures(_: object, page: str, source: list[str]) -> None:
    lines = [
        f"   * - ``{name}``\n     - {figure.title}\n     - {figure.meaning}"
        for name, figure in FIGURES.items()
    ]
    if page == "api":
        source[0] = source[0].replace("   * - FIGURES", "\n".join(lines))
