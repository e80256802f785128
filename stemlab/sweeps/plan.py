"""The plan of a sweep: its settings, the computations they come to, and the key of each result."""

from __future__ import annotations

import os
import platform
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from stemlab.audio import resampled_length
from stemlab.chunking import ChunkPlan
from stemlab.cost import call_seconds
from stemlab.errors import ParameterError
from stemlab.networks.identity import digest_of
from stemlab.registry import is_folder
from stemlab.separation import SeparationSettings
from stemlab.sweeps._excerpt import Excerpt
from stemlab.sweeps._models import ModelSource, make_separator
from stemlab.sweeps.grid import (
    Measures,
    SweepGrid,
    SweepSetting,
    long_context_settings,
    settings_of,
)

# Changes with what a record holds, or how its figures are defined.
_RECORD = 3


@dataclass(frozen=True)
class Computation:
    """What a setting or a long-context run computes, as data that any process can carry out.

    Settings that come to the same have computations of the same key, of which one is run.
    """

    key: str
    name: str  # For the eyes of the user.
    model: ModelSource
    settings: SeparationSettings
    plans: tuple[ChunkPlan, ...]
    device: str
    batch_size: int
    measures: Measures | None  # None: only the stems are wanted.

    @property
    def stems(self) -> tuple[str, ...]:
        """The stems that it makes."""
        return self.settings.pick_sources(self.model.stems)

    @property
    def weight(self) -> int:
        """Samples that the networks compute, to which the time is nearly proportional."""
        return sum(plan.computed_samples for plan in self.plans)

    @property
    def is_compared(self) -> bool:
        """Whether its stems are compared with the long-context run of the model."""
        return self.measures is not None and self.measures.agreement

    @property
    def needs_own_process(self) -> bool:
        """Whether peak memory is measured on the CPU, where it is that of the whole process."""
        return self.measures is not None and self.measures.memory and self.device == "cpu"

    @property
    def columns(self) -> dict[str, Any]:
        """The columns of the table that follow from the plans."""
        return {
            "calls": sum(plan.calls for plan in self.plans),
            "network_seconds": max(map(call_seconds, self.plans)),
            "wasted_share": sum(plan.wasted_share * plan.computed_samples for plan in self.plans)
            / self.weight,
            "computation": _digest_of_plans(self.plans)[:12],
            "note": " ".join(dict.fromkeys(note for plan in self.plans for note in plan.notes)),
        }


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
            source.name: make_separator(source, device, batch_size) for source in sources
        }
        for separator in self.separators.values():
            separator.check(SeparationSettings())
        self.device = next(iter(self.separators.values())).device
        self.folders = {  # Where the models lie that are folders.
            source.name: source.request
            for source in sources
            if source.request is not None and is_folder(source.request)
        }
        self._executor = executor  # "" for none.
        # If nobody vouches for the code of a network, its results must not be found again.
        self._identities = {
            name: {**separator.identity, "model": self.sources[name].identity or str(uuid.uuid4())}
            for name, separator in self.separators.items()
        }
        self.long_runs = {
            name: self._plan(name, long_context_settings(grid, separator.spec, common))
            for name, separator in self.separators.items()
        }
        # A text says why a setting is not possible.
        self.settings: dict[SweepSetting, Computation | str] = {}
        for name, source in self.sources.items():
            spec = self.separators[name].spec
            combined = settings_of(grid, name, spec, common, pads=source.pads_by_default)
            for setting, settings in combined.items():
                try:
                    self.settings[setting] = self._plan(name, settings, setting)
                except ParameterError as error:
                    self.settings[setting] = str(error)
        by_key = {
            computation.key: computation
            for computation in self.settings.values()
            if isinstance(computation, Computation)
        }
        if not by_key:
            raise ParameterError(
                f"no setting of the sweep is possible. {next(iter(self.settings.values()))}"
            )
        order = list(self.sources)
        # Model by model, the cheapest first.
        self.computations = sorted(
            by_key.values(),
            key=lambda computation: (order.index(computation.model.name), computation.weight),
        )

    @property
    def stated(self) -> dict[str, Any]:
        """What each record of this sweep states, besides its figures."""
        return {
            "seconds": self.excerpt.seconds,
            "device": self.device,
            "versions": next(iter(self._identities.values()))["versions"],
            # Keeping stems changes no figure.
            "measures": asdict(replace(self.measures, keep_audio=False)),
        }

    def computation(self, setting: SweepSetting) -> Computation | str:
        """Find the computation of a setting, or the reason why it is not possible."""
        try:
            return self.settings[setting]
        except KeyError:
            raise ParameterError(
                f"setting={setting} is not one of this sweep's {len(self.settings)}."
            ) from None

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
                name: None if name in self.folders else source.request
                for name, source in self.sources.items()
            },
            "mixed_segments": {
                name: separator.spec.segment_seconds
                for name, separator in self.separators.items()
                if separator.spec.segments_differ
            },
            "grid": asdict(self.grid),
            "measures": asdict(self.measures),
            "long_run": {name: asdict(run.settings) for name, run in long_runs.items()},
            "device": self.device,
            "batch_size": identity["batch_size"],
            "threads": identity["threads"],
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
            "versions": identity["versions"],
        }

    def _plan(
        self, model: str, settings: SeparationSettings, setting: SweepSetting | None = None
    ) -> Computation:
        """Plan a setting or, without one, a long-context run.

        The key is a digest of all that the result depends on.
        """
        separator, excerpt = self.separators[model], self.excerpt
        samples, rate = excerpt.mixture.shape[1], excerpt.sample_rate
        plans = separator.plan(resampled_length(samples, rate, separator.sample_rate), settings)
        facts: dict[str, Any] = {"long_run": True}
        if setting is not None:
            facts = {
                "record": _RECORD,
                "long_run": self.long_runs[model].key if self.measures.agreement else None,
                "measures": self.stated["measures"],
                "machine": [platform.node(), platform.machine(), os.cpu_count()],
                # Its times are those of other machines, or of a busy one.
                "executor": self._executor,
            }
        facts |= self._identities[model]
        facts |= {"computation": _digest_of_plans(plans), "sources": settings.sources}
        return Computation(
            digest_of({**facts, "audio": excerpt.facts}),
            f"{model}: the long-context run to compare with" if setting is None else str(setting),
            self.sources[model],
            settings,
            plans,
            separator.device,
            separator.batch_size,
            None if setting is None else self.measures,
        )


def _digest_of_plans(plans: Sequence[ChunkPlan]) -> str:
    """Return a digest of what plans compute; settings with the same digest give the same stems."""
    return digest_of([_facts(plan) for plan in plans])


def _facts(plan: ChunkPlan) -> dict[str, Any]:
    facts: dict[str, Any] = {"network": plan.name, "starts": plan.starts, "samples": plan.samples}
    if plan.skip_covered_tail:
        facts["skip_covered_tail"] = True
    if plan.calls == len(plan.starts):
        # One chunk holds the whole recording: its weights divide out, and nothing overlaps.
        chunks = [next(plan.chunks(start)) for start in plan.starts]
        inputs = [(chunk.input_start, chunk.input_stop) for chunk in chunks]
        lengths = [max(stop - start, plan.network_samples or 0) for start, stop in inputs]
        return {**facts, "inputs": inputs, "computed": lengths}
    return {
        **facts,
        "segment": plan.segment_samples,
        "hop": plan.hop_samples,
        "input": plan.input_samples,
        # Zeros are only added to what is shorter.
        "computed": plan.network_samples or plan.input_samples,
    }


def now() -> str:
    """Return the time as records and manifests state it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
