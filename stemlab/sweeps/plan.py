"""The plan of a sweep: its settings, the computations they come to, and the key of each result."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from stemlab.audio import resampled_length
from stemlab.chunking import ChunkPlan
from stemlab.cost import call_seconds
from stemlab.errors import ParameterError
from stemlab.networks.identity import digest_of
from stemlab.registry import is_folder
from stemlab.separation import AudioStemSeparator, SeparationSettings
from stemlab.sweeps.excerpt import Excerpt
from stemlab.sweeps.grid import (
    Measures,
    SweepGrid,
    SweepSetting,
    computation_of,
    long_context_settings,
    settings_of,
)
from stemlab.sweeps.measure import Task
from stemlab.sweeps.models import ModelSource

__all__ = ["Computation", "PlannedSetting", "SweepPlan", "now"]

# Changes with what a record holds, or how its figures are defined.
_RECORD = 3


@dataclass(frozen=True)
class Computation:
    """Something to run once: what one or several settings come to, or a long-context run."""

    key: str
    name: str  # For the eyes of the user.
    task: Task
    plans: tuple[ChunkPlan, ...]

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.task.model.name

    @property
    def weight(self) -> int:
        """Samples that the networks compute, to which the time is nearly proportional."""
        return sum(plan.computed_samples for plan in self.plans)

    @property
    def is_compared(self) -> bool:
        """Whether its stems are compared with the long-context run of the model."""
        return self.task.measures is not None and self.task.measures.agreement

    @property
    def stems_only(self) -> Computation:
        """The same without its figures."""
        return replace(self, task=replace(self.task, measures=None))


@dataclass(frozen=True)
class PlannedSetting:
    """A setting with its computation, or the reason why it is not possible."""

    setting: SweepSetting
    computation: Computation | None
    columns: Mapping[str, Any]  # Those of the table that follow from the plan.
    error: str = ""


class SweepPlan:
    """What a sweep computes. Making one checks all that can be checked before anything runs."""

    def __init__(
        self,
        excerpt: Excerpt,
        sources: Sequence[ModelSource],
        grid: SweepGrid,
        measures: Measures,
        common: SeparationSettings,
        *,
        device: str,
        batch_size: int,
        executor: str,
    ) -> None:
        self.excerpt = excerpt
        self.grid = grid
        self.measures = measures
        self.sources = {source.name: source for source in sources}
        self.separators = {
            source.name: _separator(source, device, batch_size) for source in sources
        }
        self._executor = executor  # "" for none.
        # If nobody vouches for the code of a network, its results must not be found again.
        self._identities = {
            name: {
                **separator.identity,
                "model": self.sources[name].identity or str(uuid.uuid4()),
            }
            for name, separator in self.separators.items()
        }
        self.long_runs = {name: self._long_run(name, common) for name in self.sources}
        self.settings = [
            self._planned(name, setting, settings)
            for name, source in self.sources.items()
            for setting, settings in settings_of(
                grid, name, self.separators[name].spec, common, pads=source.pads_by_default
            ).items()
        ]
        by_key = {
            planned.computation.key: planned.computation
            for planned in self.settings
            if planned.computation is not None
        }
        if not by_key:
            raise ParameterError(f"no setting of the sweep is possible. {self.settings[0].error}")
        order = list(self.sources)
        # Model by model, the cheapest first.
        self.computations = sorted(
            by_key.values(),
            key=lambda computation: (order.index(computation.model), computation.weight),
        )

    @property
    def device(self) -> str:
        """Where the networks run."""
        return next(iter(self.separators.values())).device

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the packages that the figures depend on."""
        versions: dict[str, str] = next(iter(self._identities.values()))["versions"]
        return versions

    def stems_of(self, computation: Computation) -> tuple[str, ...]:
        """List the stems that a computation makes."""
        return computation.task.settings.pick_sources(self.separators[computation.model].sources)

    def planned(self, setting: SweepSetting) -> PlannedSetting:
        """Find a setting of the plan."""
        for planned in self.settings:
            if planned.setting == setting:
                return planned
        raise ParameterError(f"setting={setting} is not one of this sweep's {len(self.settings)}.")

    def manifest(self) -> dict[str, Any]:
        """Describe the sweep for whoever reads its table."""
        excerpt = self.excerpt
        identity = next(iter(self._identities.values()))
        long_runs = self.long_runs if self.measures.agreement else {}
        return {
            "made_by": "stemlab sweep",
            "contains": "Settings, figures and versions, the kind of the machine, the file name of "
            "the recording, and digests of it and of the models. No audio, no folders.",
            "created": now(),
            "song": excerpt.name,
            "seconds": round(excerpt.seconds, 6),
            "start_seconds": round(excerpt.start / excerpt.sample_rate, 6),
            "recording_seconds": round(excerpt.total / excerpt.sample_rate, 6),
            **excerpt.facts,
            "models": {name: source.sha256 for name, source in self.sources.items()},
            "requests": {
                name: None
                if source.request is None or is_folder(source.request)
                else source.request
                for name, source in self.sources.items()
            },
            "mixed_segments": {
                name: separator.spec.segment_seconds
                for name, separator in self.separators.items()
                if separator.spec.segments_differ
            },
            "grid": asdict(self.grid),
            "measures": asdict(self.measures),
            "long_run": {name: asdict(run.task.settings) for name, run in long_runs.items()},
            "device": self.device,
            "batch_size": identity["batch_size"],
            "threads": identity["threads"],
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
            "versions": self.versions,
        }

    def _plans(self, name: str, settings: SeparationSettings) -> tuple[ChunkPlan, ...]:
        rate = self.separators[name].sample_rate
        samples = resampled_length(self.excerpt.mixture.shape[1], self.excerpt.sample_rate, rate)
        return self.separators[name].plan(samples, settings)

    def _task(self, name: str, settings: SeparationSettings, measures: Measures | None) -> Task:
        separator = self.separators[name]
        return Task(self.sources[name], settings, separator.device, separator.batch_size, measures)

    def _long_run(self, name: str, common: SeparationSettings) -> Computation:
        settings = long_context_settings(self.grid, self.separators[name].spec, common)
        plans = self._plans(name, settings)
        key = digest_of(
            {
                **self._identities[name],
                "long_run": True,
                "computation": computation_of(plans),
                "sources": settings.sources,
                "audio": self.excerpt.facts,
            }
        )
        shown = f"{name}: the long-context run to compare with"
        return Computation(key, shown, self._task(name, settings, None), plans)

    def _planned(
        self, name: str, setting: SweepSetting, settings: SeparationSettings
    ) -> PlannedSetting:
        try:
            plans = self._plans(name, settings)
        except ParameterError as error:
            return PlannedSetting(setting, None, {}, str(error))
        computation = computation_of(plans)
        key = digest_of(
            {
                **self._identities[name],
                "record": _RECORD,
                "audio": self.excerpt.facts,
                "computation": computation,
                "sources": settings.sources,
                "long_run": self.long_runs[name].key if self.measures.agreement else None,
                # Keeping stems changes no figure.
                "measures": asdict(replace(self.measures, keep_audio=False)),
                "machine": [platform.node(), platform.machine(), os.cpu_count()],
                # Its times are those of other machines, or of a busy one.
                "executor": self._executor,
            }
        )
        task = self._task(name, settings, self.measures)
        return PlannedSetting(
            setting, Computation(key, str(setting), task, plans), _columns(plans, computation)
        )


def _separator(source: ModelSource, device: str, batch_size: int) -> AudioStemSeparator:
    model: Any = source.request if source.network is None else source.network
    separator = AudioStemSeparator(model, device=device, batch_size=batch_size)
    separator.check(SeparationSettings())
    return separator


def _columns(plans: Sequence[ChunkPlan], computation: str) -> dict[str, Any]:
    """Return the columns of the table that follow from the plans of a setting."""
    computed = sum(plan.computed_samples for plan in plans)
    wasted = sum(plan.wasted_share * plan.computed_samples for plan in plans)
    return {
        "calls": sum(plan.calls for plan in plans),
        "network_seconds": max(map(call_seconds, plans)),
        "wasted_share": wasted / computed,
        "computation": computation[:12],
        "note": " ".join(dict.fromkeys(note for plan in plans for note in plan.notes)),
    }


def now() -> str:
    """Return the time as records and manifests state it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
