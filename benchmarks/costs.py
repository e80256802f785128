"""Fit the cost model to measurements, and check it on settings that were not part of the fit.

    python benchmarks/costs.py stemlab/assets/costs.json

Takes about 15 minutes on two cores; the machine should have nothing else to do. Each setting runs
in a fresh process (a sweep with ``memory=True``). What is measured is stored as every sweep is, so
a run that was cut off goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import released
import torch

from stemlab import AudioStemSeparator, SeparationSettings, plan_sweep
from stemlab.cost import CostModel, calibrate
from stemlab.results import package_versions

RATE = 44_100
Setting = tuple[float, float, int, bool]  # segment in s, overlap, shifts, padded


@dataclass(frozen=True)
class Shape:
    """An architecture to measure: its model, how much audio, and the settings."""

    name: str
    model: str | Callable[[], Any]
    seconds: float
    fitted_segments: tuple[float, ...]
    checked: tuple[Setting, ...]

    def separator(self) -> AudioStemSeparator:
        model = self.model if isinstance(self.model, str) else self.model()
        return AudioStemSeparator(model, device="cpu")


SHAPES = (
    Shape(
        "stemlab-mini",
        "stemlab-mini",
        31.2,
        (0.5, 1.0, 1.95, 3.9, 7.8),
        (
            (0.75, 0.25, 0, False),
            (1.5, 0.75, 0, False),
            (3.0, 0.1, 0, False),
            (6.0, 0.5, 0, False),
            (2.0, 0.1, 0, True),
            (7.8, 0.25, 2, True),
        ),
    ),
    Shape(
        "htdemucs",
        released.htdemucs,
        15.6,
        (1.0, 1.95, 3.9, 7.8),
        (
            (1.5, 0.25, 0, False),
            (3.0, 0.1, 0, False),
            (6.0, 0.25, 0, False),
            (7.8, 0.5, 0, True),
            (3.9, 0.1, 0, True),
        ),
    ),
    Shape(
        "hdemucs_mmi",
        released.hdemucs_mmi,
        44.0,
        (2.0, 5.0, 11.0, 22.0, 44.0),
        ((3.0, 0.25, 0, False), (8.0, 0.1, 0, False), (15.0, 0.5, 0, False)),
    ),
)


def measure(shape: Shape, settings: Sequence[Setting]) -> pd.DataFrame:
    """Time and memory of settings, each in a fresh process."""
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, int(shape.seconds * RATE)))
    tables = []
    for segment, overlap, shifts, padded in settings:
        print(f"{shape.name}: segment {segment}, overlap {overlap}", file=sys.stderr, flush=True)
        planned = plan_sweep(
            noise.astype(np.float32),
            shape.model,
            sample_rate=RATE,
            segments=[segment],
            overlaps=[overlap],
            shifts=[shifts],
            padded=[padded],
            excerpt_seconds=None,
            agreement=False,
            memory=True,
            repeats=2,
            device="cpu",
        )
        (setting,) = planned.settings
        table = planned.run().head(1)
        assert not table["error"].iloc[0], table["error"].iloc[0]
        plans = planned.plans(setting)
        tables.append(table.assign(computed=sum(p.computed_samples for p in plans) / RATE))
    return pd.concat(tables, ignore_index=True)


def fit(shape: Shape) -> dict[str, Any]:
    """Coefficients of time and memory, by least squares of relative errors; none is negative."""
    from scipy.optimize import nnls

    table = measure(shape, [(segment, 0.0, 0, False) for segment in shape.fitted_segments])
    length, computed = table["network_seconds"], table["computed"]
    wall, peak = table["wall_seconds_min"], table["peak_memory_bytes"]
    call, _ = nnls(
        np.column_stack([table["calls"], computed, computed * length]) / wall.to_numpy()[:, None],
        np.ones(len(table)),
    )
    memory, _ = nnls(
        np.column_stack([np.ones(len(table)), length, length**2]) / peak.to_numpy()[:, None],
        np.ones(len(table)),
    )
    separator = shape.separator()
    return {
        "architecture": separator.spec.members[0].architecture.cost_shape,
        "parameters": separator.spec.parameters,
        "call": [float(f"{each:.6g}") for each in call],
        "memory": [float(f"{each:.6g}") for each in memory],
        "measured": [
            {
                "segment_seconds": row.segment_seconds,
                "calls": row.calls,
                "wall_seconds": round(row.wall_seconds_min, 3),
                "peak_memory_bytes": row.peak_memory_bytes,
            }
            for row in table.itertuples()
        ],
    }


def check(shape: Shape) -> list[dict[str, Any]]:
    """What the model says of settings that it was not fitted to, and what is measured."""
    separator = shape.separator()
    cost: CostModel = calibrate(separator, fresh=True)
    rows = []
    measured = measure(shape, shape.checked).itertuples()
    for (segment, overlap, shifts, padded), row in zip(shape.checked, measured, strict=True):
        asked = SeparationSettings(
            segment_seconds=segment,
            overlap=overlap,
            shifts=shifts,
            pad_to_training_segment=padded,
        )
        estimate = cost.estimate(separator.plan(int(shape.seconds * RATE), asked))
        rows.append(
            {
                "model": shape.name,
                "segment_seconds": segment,
                "overlap": overlap,
                "shifts": shifts,
                "padded": padded,
                "estimated_seconds": round(estimate.seconds, 2),
                "wall_seconds": round(row.wall_seconds, 2),
                "time_error": round(estimate.seconds / row.wall_seconds - 1, 3),
                "estimated_memory_bytes": estimate.peak_memory_bytes,
                "peak_memory_bytes": row.peak_memory_bytes,
                "memory_error": round(estimate.peak_memory_bytes / row.peak_memory_bytes - 1, 3),
            }
        )
    return rows


def main() -> None:
    """Measure, fit, check and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("file", type=Path)
    file: Path = parser.parse_args().file
    fields: dict[str, Any] = {
        "made_by": "benchmarks/costs.py",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "versions": package_versions(),
        "shapes": {shape.name: fit(shape) for shape in SHAPES},
        "error": {key: {"median": 0.0, "largest": 0.0} for key in ("time", "memory")},
        "checked": [],
    }
    # The check below reads it.
    file.write_text(json.dumps(fields, indent=1) + "\n", "utf-8")
    rows = [row for shape in SHAPES for row in check(shape)]
    fields["checked"] = rows
    for key in ("time", "memory"):
        errors = [abs(row[f"{key}_error"]) for row in rows]
        fields["error"][key] = {
            "median": round(float(np.median(errors)), 3),
            "largest": round(max(errors), 3),
        }
    file.write_text(json.dumps(fields, indent=1) + "\n", "utf-8")
    print(pd.DataFrame(rows).to_string(index=False))
    print(json.dumps(fields["error"]))


if __name__ == "__main__":
    main()
