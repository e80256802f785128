"""Take recorded music apart, and see, hear and measure what every setting does.

Importing this package is quick: each name below is loaded when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from stemlab._version import __version__

if TYPE_CHECKING:
    from stemlab._assets import demo_song_dir as demo_song_dir
    from stemlab.analysis import SongReport as SongReport
    from stemlab.analysis import analyze as analyze
    from stemlab.audio import read_file as read_file
    from stemlab.audio import write_file as write_file
    from stemlab.chunking import ChunkPlan as ChunkPlan
    from stemlab.cost import CostEstimate as CostEstimate
    from stemlab.cost import CostModel as CostModel
    from stemlab.cost import calibrate as calibrate
    from stemlab.errors import AudioError as AudioError
    from stemlab.errors import AudioNotFoundError as AudioNotFoundError
    from stemlab.errors import DownloadError as DownloadError
    from stemlab.errors import MissingDependencyError as MissingDependencyError
    from stemlab.errors import ModelError as ModelError
    from stemlab.errors import ModelNotFoundError as ModelNotFoundError
    from stemlab.errors import ModelRefusedError as ModelRefusedError
    from stemlab.errors import OutOfMemoryError as OutOfMemoryError
    from stemlab.errors import OutputError as OutputError
    from stemlab.errors import ParameterError as ParameterError
    from stemlab.errors import SeparationError as SeparationError
    from stemlab.errors import StemlabError as StemlabError
    from stemlab.metrics import bss_eval as bss_eval
    from stemlab.metrics import clicks as clicks
    from stemlab.metrics import consistency as consistency
    from stemlab.metrics import sdr as sdr
    from stemlab.metrics import seams as seams
    from stemlab.metrics import si_sdr as si_sdr
    from stemlab.plots import compare_spectrograms as compare_spectrograms
    from stemlab.provisioning import add_model as add_model
    from stemlab.provisioning import remove_model as remove_model
    from stemlab.provisioning import verify_model as verify_model
    from stemlab.registry import ModelManifest as ModelManifest
    from stemlab.registry import find_model as find_model
    from stemlab.registry import list_models as list_models
    from stemlab.separation import AudioStemSeparator as AudioStemSeparator
    from stemlab.separation import OutputSettings as OutputSettings
    from stemlab.separation import ReplayReport as ReplayReport
    from stemlab.separation import SegmentDone as SegmentDone
    from stemlab.separation import SeparationResult as SeparationResult
    from stemlab.separation import SeparationSettings as SeparationSettings
    from stemlab.separation import StemBlock as StemBlock
    from stemlab.separation import replay as replay
    from stemlab.separation import save_result as save_result
    from stemlab.spectra import SpectralComparison as SpectralComparison
    from stemlab.spectra import SpectralGrid as SpectralGrid
    from stemlab.spectra import compare_spectra as compare_spectra
    from stemlab.sweeps import Recommendation as Recommendation
    from stemlab.sweeps import Sweep as Sweep
    from stemlab.sweeps import plan_sweep as plan_sweep
    from stemlab.sweeps import read_sweep as read_sweep
    from stemlab.sweeps import recommend as recommend
    from stemlab.sweeps import sweep as sweep
    from stemlab.sweeps import write_sweep as write_sweep

_NAMES = {
    "stemlab._assets": ("demo_song_dir",),
    "stemlab.analysis": ("SongReport", "analyze"),
    "stemlab.audio": ("read_file", "write_file"),
    "stemlab.chunking": ("ChunkPlan",),
    "stemlab.cost": ("CostEstimate", "CostModel", "calibrate"),
    "stemlab.errors": (
        "AudioError",
        "AudioNotFoundError",
        "DownloadError",
        "MissingDependencyError",
        "ModelError",
        "ModelNotFoundError",
        "ModelRefusedError",
        "OutOfMemoryError",
        "OutputError",
        "ParameterError",
        "SeparationError",
        "StemlabError",
    ),
    "stemlab.metrics": ("bss_eval", "clicks", "consistency", "sdr", "seams", "si_sdr"),
    "stemlab.plots": ("compare_spectrograms",),
    "stemlab.provisioning": ("add_model", "remove_model", "verify_model"),
    "stemlab.registry": ("ModelManifest", "find_model", "list_models"),
    "stemlab.separation": (
        "AudioStemSeparator",
        "OutputSettings",
        "ReplayReport",
        "SegmentDone",
        "SeparationResult",
        "SeparationSettings",
        "StemBlock",
        "replay",
        "save_result",
    ),
    "stemlab.spectra": ("SpectralComparison", "SpectralGrid", "compare_spectra"),
    "stemlab.sweeps": (
        "Recommendation",
        "Sweep",
        "plan_sweep",
        "read_sweep",
        "recommend",
        "sweep",
        "write_sweep",
    ),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'stemlab' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
