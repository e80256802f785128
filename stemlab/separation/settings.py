"""What was asked for, checked before a file is opened or a model loaded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from stemlab._checks import check_count
from stemlab._defaults import DEFAULT_OVERLAP
from stemlab.audio import check_output_format
from stemlab.chunking import check_overlap, check_segment_seconds
from stemlab.errors import ParameterError
from stemlab.results import check_filename

CLIP_MODES = ("rescale", "clamp")
# Each shift costs a whole pass; beyond this it is a typing error rather than a wish.
MAX_SHIFTS = 100


@dataclass(frozen=True)
class SeparationSettings:
    """How to separate.

    Parameters
    ----------
    segment_seconds : float, in (0, 3600], optional
        Length of a model input. Default: the model's own.
    overlap : float, in [0, 1), default 0.25
        Fraction of a segment shared with the next. Takes 1 / (1 - overlap) times as long as 0.
    shifts : int, in [0, 100], default 0
        Number of random time shifts averaged. Costs that many passes.
    seed : int, >= 0, default 0
        Decides the shifts.
    sources : sequence of str, optional
        Which stems to make. Default: all.
    pad_to_training_segment : bool, default True
        Whether an HTDemucs pads shorter segments to its training length, as Demucs does. False
        (Demucs' ``use_train_segment=False``) saves time and memory and changes the output.
    skip_covered_tail : bool, default False
        Whether to leave out a last segment that holds nothing new, because the one before it
        reaches the end, too. Saves that call (Demucs makes it) and changes the last moments.

    Raises
    ------
    ParameterError
        If a value is outside its range.
    """

    segment_seconds: float | None = None
    overlap: float = DEFAULT_OVERLAP
    shifts: int = 0
    seed: int = 0
    sources: Sequence[str] | None = None
    pad_to_training_segment: bool = True
    skip_covered_tail: bool = False

    def __post_init__(self) -> None:
        check_overlap(self.overlap)
        # Plain numbers, whatever kind was passed: they are written to the run manifest.
        if self.segment_seconds is not None:
            self._set("segment_seconds", float(check_segment_seconds(self.segment_seconds)))
        self._set("overlap", float(self.overlap))
        self._set("shifts", check_count("shifts", self.shifts, 0, MAX_SHIFTS))
        self._set("seed", check_count("seed", self.seed, 0, 2**63 - 1))
        self._set("pad_to_training_segment", bool(self.pad_to_training_segment))
        self._set("skip_covered_tail", bool(self.skip_covered_tail))
        if self.sources is not None:
            if isinstance(self.sources, str) or not isinstance(self.sources, Iterable):
                raise ParameterError(
                    f"sources={self.sources!r} is not a list of names. Pass for instance "
                    "['vocals']."
                )
            self._set("sources", tuple(map(str, self.sources)))
            if not self.sources or len(set(self.sources)) != len(self.sources):
                raise ParameterError(
                    f"sources={list(self.sources)!r} is empty or names a source twice. "
                    "Leave it out for all stems."
                )

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)

    def pick_sources(self, offered: Sequence[str]) -> tuple[str, ...]:
        """Settle which stems to make of those a model offers.

        Parameters
        ----------
        offered : sequence of str

        Returns
        -------
        sources : tuple of str
            In the order of the model.

        Raises
        ------
        ParameterError
            If one is asked for that the model does not offer.
        """
        wanted = self.sources or tuple(offered)
        unknown = [source for source in wanted if source not in offered]
        if unknown:
            raise ParameterError(
                f"sources={unknown[0]!r} is not made by this model. "
                f"Choose among {', '.join(offered)}."
            )
        return tuple(source for source in offered if source in wanted)


def make_settings(
    settings: SeparationSettings | None, options: Mapping[str, Any]
) -> SeparationSettings:
    """Return `settings`, or make them from keywords; refuse both at once."""
    if unknown := options.keys() - SeparationSettings.__dataclass_fields__.keys():
        raise TypeError(
            f"{min(unknown)} is not a setting. Choose among "
            f"{', '.join(SeparationSettings.__dataclass_fields__)}."
        )
    if settings is None:
        return SeparationSettings(**options)
    if options:
        raise ParameterError(
            f"settings and {', '.join(options)} were passed together. Pass either a "
            "SeparationSettings or single settings."
        )
    return settings


@dataclass(frozen=True)
class OutputSettings:
    """How to write the stems of a file.

    Parameters
    ----------
    format : {"wav", "flac", "mp3", "ogg"}, default "wav"
    bits : {16, 24, 32}, optional
        Default: 32-bit float for WAV, 24 for FLAC; MP3 and OGG take none.
    clip : {"rescale", "clamp"}, default "rescale"
        What to do with samples beyond full scale in a format that cannot hold them: one gain for
        all stems, or cut off. Float WAV holds them and is never touched.
    filename : str, default "{song}/{source}.{ext}"
        Path inside the target folder; may also hold ``{model}``.
    two_stems : str, optional
        Write only this stem and ``no_<stem>``, which is the mixture minus the stem.
    force : bool, default False
        Replace an earlier result of the same recording.
    downmix : bool, default False
        Mix recordings with more than two channels down to stereo instead of refusing them.
    resume : bool, default False
        Go on from the last finished block of a run that was killed, with the samples that one run
        would have made; leave a run alone that has finished. A run that ends early, for whatever
        reason, then keeps what it has finished, in a hidden folder.

    Raises
    ------
    ParameterError
        If a value is outside its range.
    """

    format: str = "wav"
    bits: int | None = None
    clip: str = "rescale"
    filename: str = "{song}/{source}.{ext}"
    two_stems: str | None = None
    force: bool = False
    downmix: bool = False
    resume: bool = False

    def __post_init__(self) -> None:
        if self.bits is not None:
            object.__setattr__(self, "bits", check_count("bits", self.bits, 1, 64))
        check_output_format(self.format, self.bits)
        if self.clip not in CLIP_MODES:
            raise ParameterError(
                f"clip={self.clip!r} is not known. Choose one of {', '.join(CLIP_MODES)}."
            )
        check_filename(self.filename)

    @property
    def holds_any_level(self) -> bool:
        """Whether the format keeps samples beyond full scale as they are."""
        return self.format == "wav" and self.bits in (None, 32)

    @property
    def clamps(self) -> bool:
        """Whether samples beyond full scale are cut off."""
        return self.clip == "clamp" and not self.holds_any_level


def pack_parameters(
    settings: SeparationSettings, output: OutputSettings, batch_size: int
) -> dict[str, Any]:
    """Collect what a run manifest records as its parameters."""
    return {**asdict(settings), **asdict(output), "batch_size": batch_size}


def unpack_parameters(
    parameters: Mapping[str, Any],
) -> tuple[SeparationSettings, OutputSettings, int]:
    """Read what `pack_parameters` collected; KeyError or TypeError if a name is missing or unknown.

    A repeated run resumes nothing.
    """
    left = {name: value for name, value in parameters.items() if name != "resume"}
    of_output = OutputSettings.__dataclass_fields__.keys() - {"resume"}
    output = OutputSettings(**{name: left.pop(name) for name in of_output})
    batch_size = left.pop("batch_size")
    return SeparationSettings(**left), output, batch_size
