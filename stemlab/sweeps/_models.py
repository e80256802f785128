"""The models of a sweep: how one is named, identified, and made again in another process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pkgutil import resolve_name
from typing import Any

from torch import nn

from stemlab._typing import StrPath
from stemlab.errors import ModelRefusedError, ParameterError
from stemlab.registry import find_model
from stemlab.separation import AudioStemSeparator

SweepModel = StrPath | nn.Module | Callable[[], nn.Module]


@dataclass(frozen=True)
class ModelSource:
    """A model of a sweep."""

    name: str
    request: str | None  # A registered name or a folder.
    factory: str | None  # "module:function" that makes the network.
    network: nn.Module | None
    sha256: str
    identity: str | None  # None: nothing tells what the network computes.
    stems: tuple[str, ...]
    pads_by_default: bool

    def portable(self, why: str) -> ModelSource:
        """Return what another process can make the model from, or refuse."""
        if self.request is None and self.factory is None:
            raise ParameterError(
                f"model={self.name!r} is a network in the memory of this process, and {why} works "
                "in others. Pass a function that makes it, without arguments, from a module that "
                "can be imported there (not from a notebook or script), or a registered model."
            )
        return replace(self, network=None)


def model_sources(
    models: SweepModel | Iterable[SweepModel] | Mapping[str, SweepModel],
    *,
    network_version: str | None = None,
) -> list[ModelSource]:
    """Find the models of a sweep; their weights are not loaded."""
    if isinstance(models, Mapping):
        named = [(str(name), model) for name, model in models.items()]
    elif isinstance(models, Iterable) and not isinstance(models, (str, nn.Module)):
        named = [("", model) for model in models]
    else:
        named = [("", models)]
    sources = [_source(name, model, network_version) for name, model in named]
    names = [source.name for source in sources]
    if not names or len(set(names)) < len(names):
        raise ParameterError(
            f"models={names!r} is empty or has a name twice. Pass different models, or a mapping "
            "that names them."
        )
    return sources


def _source(name: str, model: SweepModel, version: str | None) -> ModelSource:
    factory = None
    if not isinstance(model, nn.Module) and callable(model):
        factory = _importable(model)
        name = name or str(getattr(model, "__name__", "network"))
        model = model()
        if not isinstance(model, nn.Module):
            raise ParameterError(
                f"the function for model={name!r} gave a {type(model).__name__}, not a network."
            )
    # A model can be described without its device.
    separator = AudioStemSeparator(model, device="cpu", network_version=version)
    name = name or separator.name
    facts = separator.model_sha256, separator.identity["model"], separator.sources
    if isinstance(model, nn.Module):
        return ModelSource(name, None, factory, model, *facts, pads_by_default=True)
    pads = find_model(model).segment_policy != "free"
    return ModelSource(name, separator.resolved_request, None, None, *facts, pads_by_default=pads)


def make_separator(source: ModelSource, device: str, batch_size: int) -> AudioStemSeparator:
    """Make the separator of a model, and verify that it is the model of the sweep."""
    model: Any = source.network if source.request is None else source.request
    if model is None:
        assert source.factory is not None
        try:
            make = resolve_name(source.factory)
        except (ImportError, AttributeError) as error:
            raise ModelRefusedError(
                f"the function {source.factory} that makes the network cannot be imported in this "
                f"process ({error}). Install its module where the workers run."
            ) from error
        model = make()
    separator = AudioStemSeparator(model, device=device, batch_size=batch_size)
    if separator.model_sha256 != source.sha256:
        raise ModelRefusedError(
            f"model {source.name!r} is not that of the sweep in this process: expected SHA-256 "
            f"{source.sha256}, got {separator.model_sha256}. Install the same model everywhere; "
            "a function must make the same network each time (seed its random numbers).",
            expected=source.sha256,
            actual=separator.model_sha256,
        )
    return separator


def _importable(factory: Any) -> str | None:
    """Return ``module:function`` if another process can import the function by that name."""
    module = getattr(factory, "__module__", None)
    name = f"{module}:{getattr(factory, '__qualname__', '')}"
    if not module or module == "__main__":
        return None
    try:
        return name if resolve_name(name) is factory else None
    except (ImportError, AttributeError, ValueError):  # Such as "<locals>" in the name.
        return None
