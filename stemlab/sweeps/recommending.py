"""From the table of a sweep to an answer: what is worth its cost, and what to take."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from stemlab.errors import ParameterError
from stemlab.sweeps.settings import SweepSetting
from stemlab.sweeps.table import SETTING_COLUMNS

__all__ = ["Recommendation", "check_limits", "pareto_front", "parse_memory", "recommend"]

# Without true stems: the SDR that the stems themselves are taken to have, about that of today's
# separators on real songs. What a setting changes adds to that error.
_ASSUMED_SDR_DB = 6.0
# Times that differ by less are taken for equal: one machine is not quieter than that.
_TIMING_NOISE = 0.05
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 2**10, "mib": 2**20}
_UNITS["gib"] = 2**30
_MEMORY = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]*)\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Recommendation:
    """An answer, and why.

    Parameters
    ----------
    setting : SweepSetting
    reason : str
        In a sentence or three.
    command : str
        That separates with it, at the shell; SONG stands for the recording.
    front : tuple of SweepSetting
        The Pareto-optimal settings, the fastest first: each of the others is beaten by one of
        these in time, memory and quality, or equalled in all and beaten in one.
    """

    setting: SweepSetting
    reason: str
    command: str
    front: tuple[SweepSetting, ...]


def recommend(
    results: pd.DataFrame,
    *,
    memory_limit: float | str | None = None,
    max_rtf: float | None = None,
    tolerance_db: float = 0.1,
    max_seam_db: float = 3.0,
) -> Recommendation:
    """Choose a setting: the fastest that gives up next to nothing.

    Parameters
    ----------
    results : DataFrame
        As `sweep` returns it.
    memory_limit : float in bytes, or str, optional
        Such as ``"2GB"``; only settings that stay below. Needs measured memory.
    max_rtf : float, > 0, optional
        Only settings that take at most this many seconds per second of audio.
    tolerance_db : float, >= 0, default 0.1
        How much SDR may be given up for speed, as the mean over the sources.
    max_seam_db : float, > 0, default 3
        Settings whose error stands out more at the segment boundaries, where it clicks, are only
        taken if all do.

    Returns
    -------
    recommendation : Recommendation

    Raises
    ------
    ParameterError
        If no setting succeeded or none is within the limits, or the table lacks what is needed.

    Notes
    -----
    With true stems, quality is the mean SDR over the sources. Without, it is estimated from the
    agreement A with the long-context run: if that run is a stem of SDR Q = 6 dB and what a setting
    changes is independent of its error, the SDR falls by 10 log10(1 + 10^((Q - A) / 10)); an
    agreement of 22 dB costs about 0.1 dB. Agreement tells nothing of one model beside another:
    several models are compared only by true stems.

    Examples
    --------
    >>> table = pd.DataFrame({
    ...     "model": "m", "segment_seconds": 8.0, "overlap": [0.1, 0.5], "shifts": 0,
    ...     "padded": False, "source": "bass", "rtf": [0.1, 0.2], "peak_memory_bytes": np.nan,
    ...     "sdr_db": [5.00, 5.02], "agreement_db": np.nan, "seam_db": 0.0, "error": ""})
    >>> recommend(table).setting.overlap
    0.1
    """
    check_limits(
        memory_limit=memory_limit,
        max_rtf=max_rtf,
        tolerance_db=tolerance_db,
        max_seam_db=max_seam_db,
    )
    settings = _by_setting(results)
    front = settings[_undominated(settings)].sort_values("rtf", kind="stable")
    allowed, limits = _within(settings, memory_limit, max_rtf)
    calm = allowed[~(allowed["seam_db"] > max_seam_db)]
    clicking = len(allowed) - len(calm)
    candidates = allowed if calm.empty else calm
    best = candidates.loc[candidates["loss_db"].idxmin()]
    good = candidates[candidates["loss_db"] <= best["loss_db"] + tolerance_db]
    quick = good[good["rtf"] <= good["rtf"].min() * (1 + _TIMING_NOISE)]
    chosen = quick.sort_values(["loss_db", "rtf"], kind="stable").iloc[0]
    setting = SweepSetting.of_row(chosen)
    return Recommendation(
        setting,
        _reason(chosen, best, settings, limits, clicking, max_seam_db, all_click=calm.empty),
        _command(setting),
        tuple(SweepSetting.of_row(each) for _, each in front.iterrows()),
    )


def pareto_front(results: pd.DataFrame) -> list[SweepSetting]:
    """List the settings that no other beats.

    Parameters
    ----------
    results : DataFrame
        As `sweep` returns it.

    Returns
    -------
    settings : list of SweepSetting
        The fastest first.

    Raises
    ------
    ParameterError
        If no setting succeeded, or the table lacks what is needed.
    """
    settings = _by_setting(results)
    front = settings[_undominated(settings)].sort_values("rtf", kind="stable")
    return [SweepSetting.of_row(each) for _, each in front.iterrows()]


def parse_memory(limit: float | str) -> float:
    """Take an amount of memory.

    Parameters
    ----------
    limit : float in bytes, or str
        A number with a unit: ``"2GB"``, ``"900 MB"``, ``"1.5GiB"``.

    Returns
    -------
    limit : float, in bytes

    Raises
    ------
    ParameterError
        If it is neither.

    Examples
    --------
    >>> parse_memory("1.5 GB")
    1500000000.0
    """
    found = _MEMORY.fullmatch(str(limit))
    unit = found.group(2).lower() if found else "?"
    if isinstance(limit, bool) or found is None or unit not in _UNITS or not float(found.group(1)):
        raise ParameterError(
            f"memory_limit={limit!r} is no amount of memory. Pass for instance '2GB' or '900MB'."
        )
    return float(found.group(1)) * _UNITS[unit]


def check_limits(
    *,
    memory_limit: float | str | None = None,
    max_rtf: float | None = None,
    tolerance_db: float = 0.1,
    max_seam_db: float = 3.0,
) -> None:
    """Refuse limits that make no sense, before anything is measured for them.

    Parameters
    ----------
    memory_limit, max_rtf, tolerance_db, max_seam_db : optional
        As for `recommend`.

    Raises
    ------
    ParameterError
        If one is outside its range.
    """
    if memory_limit is not None:
        parse_memory(memory_limit)
    for name, value, allowed in (
        ("max_rtf", max_rtf, "above 0"),
        ("tolerance_db", tolerance_db, "of at least 0"),
        ("max_seam_db", max_seam_db, "above 0"),
    ):
        number = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
        least = np.nextafter(0, 1) if allowed == "above 0" else 0
        if value is not None and not (number and value >= least):
            raise ParameterError(f"{name}={value!r} is not a number {allowed}.")


def _by_setting(results: pd.DataFrame) -> pd.DataFrame:
    """One row per setting that succeeded: rtf, memory, seams and the loss in SDR."""
    needed = [*SETTING_COLUMNS, "source", "rtf", "error", "agreement_db", "sdr_db", "seam_db"]
    missing = [each for each in needed if each not in results.columns]
    if missing:
        raise ParameterError(
            f"results lacks the column {missing[0]!r}. Pass the table that sweep returned."
        )
    done = results[(results["error"] == "") & results["rtf"].notna()]
    if done.empty:
        raise ParameterError(
            "results has no setting that succeeded; its column 'error' says why. Sweep others."
        )
    truth = done["sdr_db"].notna().any()
    if not truth and done["model"].nunique() > 1:
        raise ParameterError(
            f"results has {done['model'].nunique()} models and no true stems: agreement is with a "
            "run of the same model. Pass references to the sweep, or the rows of one model."
        )
    if not truth and done["agreement_db"].isna().all():
        raise ParameterError(
            "results has no quality: neither true stems nor agreement. Sweep with references, or "
            "with agreement=True."
        )
    quality = done["sdr_db"] if truth else -_loss_db(done["agreement_db"])
    table = done.assign(quality_db=quality).groupby([*SETTING_COLUMNS], sort=False)
    settings = table[["rtf", "peak_memory_bytes", "seam_db", "quality_db", "sdr_db"]].mean()
    settings = settings.reset_index().dropna(subset=["quality_db"])
    settings["agreement_db"] = table["agreement_db"].mean().to_numpy()[settings.index]
    settings["loss_db"] = settings["quality_db"].max() - settings["quality_db"]
    # Of two runs that are equal to the last bit, the difference of their infinities is no number.
    settings["loss_db"] = settings["loss_db"].fillna(0.0)
    return settings


def _loss_db(agreement_db: pd.Series[float]) -> pd.Series[float]:
    loss: pd.Series[float] = 10 * np.log10(1 + 10 ** ((_ASSUMED_SDR_DB - agreement_db) / 10))
    return loss


def _undominated(settings: pd.DataFrame) -> list[bool]:
    costs = settings[["rtf", "loss_db"]].to_numpy(float)
    if settings["peak_memory_bytes"].notna().all():
        costs = np.column_stack([costs, settings["peak_memory_bytes"].to_numpy(float)])
    return [
        not any((other <= own).all() and (other < own).any() for other in costs) for own in costs
    ]


def _within(
    settings: pd.DataFrame, memory_limit: float | str | None, max_rtf: float | None
) -> tuple[pd.DataFrame, list[str]]:
    allowed, limits = settings, []
    if memory_limit is not None:
        most = parse_memory(memory_limit)
        peaks = settings["peak_memory_bytes"]
        if peaks.isna().all():
            raise ParameterError(
                f"memory_limit={memory_limit!r} needs measured memory, and results has none. "
                "Sweep with memory=True (--memory)."
            )
        allowed = allowed[allowed["peak_memory_bytes"] <= most]
        limits.append(f"at most {most / 1e6:.0f} MB")
        if allowed.empty:
            raise ParameterError(
                f"memory_limit={memory_limit!r} is below every setting: the smallest takes "
                f"{peaks.min() / 1e6:.0f} MB ({SweepSetting.of_row(settings.loc[peaks.idxmin()])})."
            )
    if max_rtf is not None:
        fastest = allowed.loc[allowed["rtf"].idxmin()]
        allowed = allowed[allowed["rtf"] <= max_rtf]
        limits.append(f"an RTF of at most {max_rtf:g}")
        if allowed.empty:
            raise ParameterError(
                f"max_rtf={max_rtf:g} is below every setting: the fastest takes "
                f"{fastest['rtf']:.3g} ({SweepSetting.of_row(fastest)})."
            )
    return allowed, limits


def _reason(
    chosen: Mapping[str, Any],
    best: Mapping[str, Any],
    settings: pd.DataFrame,
    limits: list[str],
    clicking: int,
    max_seam_db: float,
    *,
    all_click: bool,
) -> str:
    gives_up = max(float(chosen["loss_db"] - best["loss_db"]), 0.0)
    slowest = settings.loc[settings["rtf"].idxmax()]
    truth = pd.notna(chosen["sdr_db"])
    quality = (
        f"a mean SDR of {chosen['sdr_db']:.2f} dB against the true stems"
        if truth
        else f"{chosen['agreement_db']:.1f} dB of agreement with a long-context run"
    )
    within = f" within {' and '.join(limits)}" if limits else ""
    place = f"the best{within}."
    if gives_up >= 0.005:
        place = (
            f"{gives_up:.2f} dB of SDR{'' if truth else ' (estimated)'} below the best{within}, "
            f"which takes {best['rtf'] / chosen['rtf']:.1f} times as long."
        )
    parts = [f"It takes {chosen['rtf']:.3g} s per second of audio and reaches {quality}, {place}"]
    ratio = slowest["rtf"] / chosen["rtf"]
    if ratio > 1.5 and slowest["rtf"] > best["rtf"]:
        gain = max(float(chosen["loss_db"] - slowest["loss_db"]), 0.0)
        parts.append(
            f"The slowest setting takes {ratio:.1f} times as long and gains {gain:.2f} dB."
        )
    if all_click:
        parts.append(
            f"At every setting the error stands out at the segment boundaries, here by "
            f"{chosen['seam_db']:.0f} dB: more overlap would hide them."
        )
    elif clicking:
        parts.append(
            f"{clicking} {'setting was' if clicking == 1 else 'settings were'} left out because "
            f"the error at segment boundaries stands out by more than {max_seam_db:g} dB, which "
            "may click."
        )
    return " ".join(parts)


def _command(setting: SweepSetting) -> str:
    parts = ["stemlab", "separate", "SONG"]
    if setting.model != "stemlab-mini":
        parts += ["--model", setting.model]
    parts += ["--segment", f"{setting.segment_seconds:g}", "--overlap", f"{setting.overlap:g}"]
    parts += ["--shifts", str(setting.shifts)] if setting.shifts else []
    parts += [] if setting.padded else ["--no-pad"]
    return shlex.join(parts)
