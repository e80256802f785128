"""``stemlab figures``: the pictures of a sweep, made from its file."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from stemlab.errors import ParameterError
from stemlab.files import write_atomically
from stemlab.plots import plot_sdr_against_rtf, plot_sweep_heatmaps, plot_sweep_pareto
from stemlab.results import file_safe
from stemlab.sweeps import SweepSetting, read_sweep, recommend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes

__all__ = ["draw", "run"]


def run(options: argparse.Namespace) -> int:
    """Draw the results of a sweep."""
    results = read_sweep(options.results)
    recommended = None
    with suppress(ParameterError):  # Costs alone can be drawn too.
        recommended = recommend(results).setting
    pictures = draw(results, Path(options.out), recommended)
    if options.json:
        print(json.dumps({"pictures": [str(picture) for picture in pictures]}))
    elif not options.quiet:
        print("\n".join(map(str, pictures)))
    return 0


def draw(results: pd.DataFrame, folder: Path, recommended: SweepSetting | None) -> list[Path]:
    """Draw the results of a sweep into files."""
    drawn: dict[str, Axes] = {}
    shown = results[results["error"] == ""].drop_duplicates(["model", "shifts", "padded"])
    for row in shown.to_dict(orient="records"):
        chosen = {name: row[name] for name in ("model", "shifts", "padded")}
        name = (
            f"heatmaps-{file_safe(row['model'])}-shifts-{row['shifts']}{'-padded' * row['padded']}"
        )
        drawn[name] = plot_sweep_heatmaps(results, **chosen)[0]
    if results["sdr_db"].notna().any() or results["agreement_db"].notna().any():
        mark = None if recommended is None else asdict(recommended)
        drawn["pareto"] = plot_sweep_pareto(results, highlight=mark)
        drawn["quality-against-rtf"] = plot_sdr_against_rtf(results)
    pictures = []
    for name, axes in drawn.items():
        picture = folder / f"{name}.png"
        content = BytesIO()
        figure = axes.get_figure(root=True)
        assert figure is not None
        figure.savefig(content, format="png", dpi=110)
        write_atomically(picture, content.getvalue(), advice=", or choose another folder")
        pictures.append(picture)
    return pictures
