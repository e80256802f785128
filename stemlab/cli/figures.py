"""``stemlab figures``: the pictures of a sweep, made from its file."""

from __future__ import annotations

import argparse
import json
from contextlib import suppress
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from stemlab._disk import write_atomically
from stemlab.errors import ParameterError
from stemlab.plots import plot_sdr_against_rtf, plot_sweep_heatmaps, plot_sweep_pareto
from stemlab.sweeps import SweepSetting, read_sweep, recommend

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["draw", "run"]


def run(options: argparse.Namespace) -> int:
    """Draw the results of a sweep.

    Parameters
    ----------
    options : Namespace

    Returns
    -------
    code : int
    """
    results = read_sweep(options.results)
    recommended = None
    with suppress(ParameterError):  # Costs alone can be drawn too.
        recommended = recommend(results).setting
    pictures = draw(results, Path(options.out), recommended)
    if options.json:
        print(json.dumps({"pictures": [str(each) for each in pictures]}))
    elif not options.quiet:
        print("\n".join(map(str, pictures)))
    return 0


def draw(results: pd.DataFrame, folder: Path, recommended: SweepSetting | None) -> list[Path]:
    """Draw the results of a sweep into files.

    Parameters
    ----------
    results : DataFrame
    folder : Path
    recommended : SweepSetting or None
        Marked in the picture of all settings.

    Returns
    -------
    pictures : list of Path
        Heatmaps for each model, number of shifts and padding; the Pareto front and the quality of
        each source against time, where there is any.

    Raises
    ------
    ParameterError
        If no setting succeeded.
    OutputError
        If one cannot be written.
    """
    figures: dict[str, Figure] = {}
    groups = results[results["error"] == ""].groupby(["model", "shifts", "padded"], sort=False)
    for _, rows in groups:
        setting = SweepSetting.of_row(rows.iloc[0].to_dict())
        name = f"heatmaps-{setting.model}-shifts-{setting.shifts}"
        name += "-padded" if setting.padded else ""
        figures[name] = plot_sweep_heatmaps(rows)[0].figure
    if results["sdr_db"].notna().any() or results["agreement_db"].notna().any():
        mark = None if recommended is None else asdict(recommended)
        figures["pareto"] = plot_sweep_pareto(results, highlight=mark).figure
        figures["quality-against-rtf"] = plot_sdr_against_rtf(results).figure
    pictures = []
    for name, figure in figures.items():
        picture = folder / f"{name}.png"
        content = BytesIO()
        figure.savefig(content, format="png", dpi=110)
        write_atomically(picture, content.getvalue(), advice=", or choose another folder")
        pictures.append(picture)
    return pictures
