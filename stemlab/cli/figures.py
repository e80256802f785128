"""``stemlab figures``: the pictures of a sweep, made from its file."""

from __future__ import annotations

import argparse
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from stemlab.cli._shared import save, show
from stemlab.errors import ParameterError
from stemlab.files import write_atomically
from stemlab.plots import plot_sdr_against_rtf, plot_sweep_heatmaps, plot_sweep_pareto
from stemlab.results import file_safe
from stemlab.sweeps import Recommendation, read_sweep, recommend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes


def run(options: argparse.Namespace) -> int:
    """Draw the results of a sweep."""
    results = read_sweep(options.results)
    answer = None
    with suppress(ParameterError):  # Costs alone can be drawn too.
        answer = recommend(results)
    pictures = draw(results, Path(options.out), answer)
    show(options, {"pictures": pictures}, pictures)
    return 0


def draw(results: pd.DataFrame, folder: Path, answer: Recommendation | None) -> list[str]:
    """Draw the results of a sweep into files, and return their paths."""
    drawn: dict[str, Axes] = {}
    shown = results[results["error"] == ""].drop_duplicates(["model", "shifts", "padded"])
    for row in shown.to_dict(orient="records"):
        chosen = {name: row[name] for name in ("model", "shifts", "padded")}
        name = (
            f"heatmaps-{file_safe(row['model'])}-shifts-{row['shifts']}{'-padded' * row['padded']}"
        )
        drawn[name] = plot_sweep_heatmaps(results, **chosen)[0]
    if results["sdr_db"].notna().any() or results["agreement_db"].notna().any():
        mark = None if answer is None else asdict(answer.setting)
        drawn["pareto"] = plot_sweep_pareto(results, highlight=mark)
        drawn["quality-against-rtf"] = plot_sdr_against_rtf(results)
    pictures = []
    for name, axes in drawn.items():
        picture = folder / f"{name}.png"
        figure = axes.get_figure(root=True)
        assert figure is not None
        write_atomically(picture, save(figure), advice=", or choose another folder")
        pictures.append(str(picture))
    return pictures
