"""The recommendation of a sweep: the setting that is worth its cost."""

from __future__ import annotations

import math
import shlex
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from stemlab.errors import ModelError, ParameterError
from stemlab.memory import parse_memory
from stemlab.metrics import FIGURES, pareto_front
from stemlab.metrics.figures import SETTING_COLUMNS, by_setting
from stemlab.registry import find_model, is_folder
from stemlab.sweeps.grid import SweepSetting

if TYPE_CHECKING:
    import pandas as pd

# SDR that stems are assumed to have where the true stems are not known: about that of today's
# separators on real songs. What a setting changes adds to that error.
_ASSUMED_SDR_DB = 6.0
# Relative difference up to which two times count as equal.
_TIMING_NOISE = 0.05
_Row = dict[Any, Any]  # A setting with its figures, those of stems as means over the sources.


@dataclass(frozen=True)
class Recommendation:
    """An answer, and why.

    Parameters
    ----------
    setting : SweepSetting
    reason : str
        In a sentence or three.
    command : str or None
        That separates with it, at the shell; SONG stands for the recording. None if no command can
        name the model: a network in memory, or, in a table from a file, a folder.
    front : tuple of SweepSetting
        The Pareto-optimal settings, the fastest first: each of the others is beaten, or equalled,
        by one of these in time, quality and, if it was measured, memory.
    """

    setting: SweepSetting
    reason: str
    command: str | None
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
    >>> import pandas as pd
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
    settings, quality = _graded(results)
    allowed, limits = _within(settings, memory_limit, max_rtf)
    calm = [row for row in allowed if not row["seam_db"] > max_seam_db]
    candidates = calm or allowed
    best = min(candidates, key=itemgetter("loss_db"))
    good = [row for row in candidates if row["loss_db"] <= best["loss_db"] + tolerance_db]
    fastest = min(row["rtf"] for row in good)
    quick = [row for row in good if row["rtf"] <= fastest * (1 + _TIMING_NOISE)]
    chosen = min(quick, key=itemgetter("loss_db", "rtf"))
    reason = _reason(quality, chosen, best, max(settings, key=itemgetter("rtf")), limits)
    if not calm:
        reason += (
            " At every one of these the error stands out at the segment boundaries, here by "
            f"{chosen['seam_db']:.0f} dB: more overlap would hide them."
        )
    elif len(calm) < len(allowed):
        reason += (
            f" Left out: {len(allowed) - len(calm)} whose error stands out by more than "
            f"{max_seam_db:g} dB at the segment boundaries, where it may click."
        )
    if not all(row["timed_alone"] for row in settings):
        reason += " Times were taken beside other settings: they compare only roughly."
    costs = [[row[name] for row in settings] for name in ("rtf", quality, "peak_memory_bytes")]
    front = [SweepSetting.of_row(settings[number]) for number in pareto_front(*costs)]
    setting = SweepSetting.of_row(chosen)
    return Recommendation(setting, reason, _command(setting, results), tuple(front))


def check_limits(
    *,
    memory_limit: float | str | None = None,
    max_rtf: float | None = None,
    tolerance_db: float = 0.1,
    max_seam_db: float = 3.0,
) -> None:
    """Raise ParameterError for limits that make no sense, before anything is measured."""
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


def _graded(results: pd.DataFrame) -> tuple[list[_Row], str]:
    """Return the settings that succeeded and have a quality, and the name of that figure.

    ``loss_db`` is the SDR below the best setting with true stems, else below an ideal one.
    """
    needed = [*SETTING_COLUMNS, "source", "rtf", "error", "agreement_db", "sdr_db", "seam_db"]
    missing = [name for name in needed if name not in results.columns]
    if missing:
        raise ParameterError(
            f"results lacks the column {missing[0]!r}. Pass the table that sweep returned."
        )
    done = results[(results["error"] == "") & results["rtf"].notna()]
    if done.empty:
        raise ParameterError(
            "results has no setting that succeeded; its column 'error' says why. Sweep others."
        )
    quality = "sdr_db" if done["sdr_db"].notna().any() else "agreement_db"
    if quality == "agreement_db" and done["model"].nunique() > 1:
        raise ParameterError(
            f"results has {done['model'].nunique()} models and no true stems: agreement is with a "
            "run of the same model. Pass references to the sweep, or the rows of one model."
        )
    settings = by_setting(done)
    for name, value in {"peak_memory_bytes": math.nan, "timed_alone": True}.items():
        if name not in settings:
            settings[name] = value
    # The loss is estimated for each source before the mean is taken.
    share = (_ASSUMED_SDR_DB - done["agreement_db"]) / 10
    losses = done.assign(loss_db=10 * np.log10(1 + 10**share))
    settings["loss_db"] = (
        losses.groupby([*SETTING_COLUMNS], sort=False)["loss_db"].mean().to_numpy()
    )
    settings = settings.dropna(subset=[quality])
    if settings.empty:
        raise ParameterError(
            "results has no quality: neither true stems nor agreement. Sweep with references, or "
            "with agreement=True."
        )
    if quality == "sdr_db":
        best = settings[quality].max()
        # Both may be infinite.
        settings["loss_db"] = (best - settings[quality]).where(settings[quality] != best, 0.0)
    return settings.to_dict(orient="records"), quality


def _within(
    settings: list[_Row], memory_limit: float | str | None, max_rtf: float | None
) -> tuple[list[_Row], str]:
    """Return the settings within the limits, and the limits in words."""
    allowed, limits, memory = settings, [], FIGURES["peak_memory_bytes"]
    if memory_limit is not None:
        most = parse_memory(memory_limit)
        measured = [row for row in settings if not math.isnan(row["peak_memory_bytes"])]
        if not measured:
            raise ParameterError(
                f"memory_limit={memory_limit!r} needs measured memory, and results has none. "
                "Sweep with memory=True (--memory)."
            )
        allowed = [row for row in measured if row["peak_memory_bytes"] <= most]
        if not allowed:
            smallest = min(measured, key=itemgetter("peak_memory_bytes"))
            raise ParameterError(
                f"memory_limit={memory_limit!r} is below every setting: the smallest takes "
                f"{memory.text(smallest['peak_memory_bytes'])} ({SweepSetting.of_row(smallest)}). "
                "Allow more, or try shorter segments that are not padded."
            )
        limits.append(memory.text(most))
    if max_rtf is not None:
        fastest = min(allowed, key=itemgetter("rtf"))
        allowed = [row for row in allowed if row["rtf"] <= max_rtf]
        if not allowed:
            raise ParameterError(
                f"max_rtf={max_rtf:g} is below every setting: the fastest takes "
                f"{FIGURES['rtf'].text(fastest['rtf'])} ({SweepSetting.of_row(fastest)}). Allow "
                "more, or try less overlap or a smaller model."
            )
        limits.append(f"an RTF of {max_rtf:g}")
    return allowed, f" within {' and '.join(limits)}" if limits else ""


def _reason(quality: str, chosen: _Row, best: _Row, slowest: _Row, within: str) -> str:
    level, rtf = FIGURES[quality].text(chosen[quality]), chosen["rtf"]
    reached = f"{level} of agreement with a long-context run"
    estimated = " (estimated)"
    if quality == "sdr_db":
        reached, estimated = f"a mean SDR of {level} against the true stems", ""
    gives_up = chosen["loss_db"] - best["loss_db"]
    place = f"the best{within}."
    if gives_up >= 0.005:
        place = (
            f"{gives_up:.2f} dB of SDR{estimated} below the best{within}, which takes "
            f"{best['rtf'] / rtf:.1f} times as long."
        )
    seconds = FIGURES["rtf"].text(rtf)
    reason = f"It takes {seconds} s per second of audio and reaches {reached}, {place}"
    if slowest["rtf"] > 1.5 * rtf and slowest is not best:
        gain = max(chosen["loss_db"] - slowest["loss_db"], 0.0)
        reason += (
            f" The slowest setting takes {slowest['rtf'] / rtf:.1f} times as long and gains "
            f"{gain:.2f} dB{estimated}."
        )
    return reason


def _command(setting: SweepSetting, results: pd.DataFrame) -> str | None:
    model = _request(setting.model, results)
    if model is None:
        return None
    parts = ["stemlab", "separate", "SONG"]
    if model != "stemlab-mini":
        # With "=", a name that begins with a hyphen is not taken for an option.
        parts += [f"--model={model}"] if model.startswith("-") else ["--model", model]
    if setting.segment_seconds != _manifest(results, "mixed_segments").get(setting.model):
        parts += ["--segment", _exact(setting.segment_seconds)]
    parts += ["--overlap", _exact(setting.overlap)]
    parts += ["--shifts", str(setting.shifts)] if setting.shifts else []
    parts += [] if setting.padded else ["--no-pad"]
    return shlex.join(parts)


def _exact(value: float) -> str:
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def _manifest(results: pd.DataFrame, name: str) -> dict[str, Any]:
    """Return a mapping of the manifest; the manifest may come from an untrusted file."""
    manifest = results.attrs.get("manifest")
    found = manifest.get(name) if isinstance(manifest, dict) else None
    return found if isinstance(found, dict) else {}


def _request(name: str, results: pd.DataFrame) -> str | None:
    """Return what to pass as --model for a model of the table."""
    folders: dict[str, str] = results.attrs.get("folders", {})
    if name in folders:
        return folders[name]
    requests, digests = _manifest(results, "requests"), _manifest(results, "models")
    if not digests:
        return name
    request = requests.get(name, name)
    if not isinstance(request, str) or is_folder(request):
        return None
    if name in requests:
        return request
    try:  # Version 0.1 wrote only names and digests.
        return request if find_model(request).sha256 == digests.get(name) else None
    except (ModelError, ParameterError):
        return None
