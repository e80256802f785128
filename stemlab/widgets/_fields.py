"""Fields, checkboxes and buttons that look alike in all panels."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterable
from html import escape
from io import BytesIO
from typing import Any

import ipywidgets
from matplotlib.figure import Figure

_LABEL_WIDTH = "8em"


def field(kind: type[Any], description: str, **options: Any) -> Any:
    """Make a labelled field of the width that all fields have."""
    return kind(
        description=description,
        layout=ipywidgets.Layout(width="36em", max_width="100%"),
        style={"description_width": _LABEL_WIDTH},
        **options,
    )


def text_field(description: str, placeholder: str, **options: Any) -> Any:
    """Make a field for text, which counts once the user leaves it."""
    return field(
        ipywidgets.Text, description, placeholder=placeholder, continuous_update=False, **options
    )


def checkbox(description: str) -> Any:
    """Make a checkbox that lines up with the fields."""
    return indented(
        ipywidgets.Checkbox(
            description=description, indent=False, layout=ipywidgets.Layout(width="36em")
        )
    )


def dropdown(description: str, options: Iterable[Any]) -> Any:
    """Make a list to choose from: of values, or of pairs of label and value."""
    return field(ipywidgets.Dropdown, description, options=list(options))


def button(description: str, tooltip: str, press: Callable[[], object], style: str = "") -> Any:
    """Make a button that calls `press`."""
    made = ipywidgets.Button(description=description, tooltip=tooltip, button_style=style)
    made.on_click(lambda _: press())
    return made


def indented(widget: Any) -> Any:
    """Line up a widget that has no label with the fields that have one."""
    widget.layout.margin = f"2px 2px 2px calc({_LABEL_WIDTH} + 8px)"
    return widget


def close_tree(widget: Any) -> None:
    """Close a widget and all widgets in it."""
    for part in getattr(widget, "children", ()):
        close_tree(part)
    widget.close()


def picture(figure: Figure, description: str) -> Any:
    """Make a figure into a widget, which threads can show as well."""
    content = BytesIO()
    figure.savefig(content, format="png", dpi=90)
    return ipywidgets.HTML(
        f'<img alt="{escape(description)}" style="max-width: 100%" '
        f'src="data:image/png;base64,{b64encode(content.getvalue()).decode()}">'
    )


def table(caption: str, heads: Iterable[str], rows: Iterable[Iterable[str]]) -> Any:
    """Make a small table of text."""

    def line(tag: str, cells: Iterable[str]) -> str:
        shown = (f"<{tag} style='padding: 0 6px'>{escape(cell)}</{tag}>" for cell in cells)
        return f"<tr>{''.join(shown)}</tr>"

    lines = [line("th", heads), *(line("td", row) for row in rows)]
    return ipywidgets.HTML(f"<small>{escape(caption)}<table>{''.join(lines)}</table></small>")
