"""Hear stems together: a mixer for notebooks, with every stem on one clock."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from io import BytesIO
from numbers import Real
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
import soundfile
import traitlets

from stemlab._typing import AudioArray, StrPath
from stemlab.audio import SeekableRecording, check_output_format
from stemlab.errors import ParameterError
from stemlab.spectra import SpectralGrid, compare_spectra
from stemlab.widgets._page import STATIC, PageWidget, in_words

__all__ = ["StemMixer"]

MIXTURE = "mixture"
GAIN_RANGE_DB = (-40.0, 12.0)
_SHORTEST_LOOP_SECONDS = 0.1

# About three seconds: short enough to start at once, long enough to fill the time between two.
_PIECE_SAMPLES = 1 << 17
_SCAN_SAMPLES = 1 << 18
# What the lanes show: columns of the waveform, rows of the spectrogram.
_COLUMNS, _ROWS = 1200, 96
_LOWEST_HZ, _DB_RANGE = 40.0, 80.0
_ENCODING: dict[str, dict[str, Any]] = {
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    # The least compression, V0.
    "mp3": {"format": "MP3", "compression_level": 0.0, "bitrate_mode": "VARIABLE"},
}
# How long closing waits for a spectrogram that is being computed.
_CLOSING_SECONDS = 10.0

_Recordings = Mapping[str, StrPath | npt.ArrayLike]
_Message = tuple[dict[str, Any], list[bytes]]


class _TraitRefusedError(ParameterError, traitlets.TraitError):
    """Of the second kind for traitlets, which keeps what a page sent at any other error."""


class StemMixer(PageWidget):
    """Play stems together in a notebook: mute, solo, seek, loop, and switch between two results.

    All stems play on one clock of the browser, so that they cannot drift apart. Their audio stays
    where it is and is sent in pieces while it plays: neither the page nor the saved notebook grows
    with the song.

    Parameters
    ----------
    stems : mapping of str to path or array, each shape (channels, samples) or (samples,)
        One row for each, in this order.
    sample_rate : int, in Hz, optional
        Of arrays, which need it; files of another rate are resampled. Default: that of the first
        file.
    mixture : path or array, optional
        Gets a row of its own, muted at first: stems and mixture together would be twice as loud.
    other : mapping of str to path or array, optional
        A second result, for instance of other settings, or the true stems. It plays in the same
        rows, and `heard` switches between the two without a gap.
    labels : (str, str), default ("A", "B")
        What the two results are called.

    Attributes
    ----------
    playing : bool
        Can be set. A browser plays nothing before its page was clicked once.
    position_seconds : float, in [0, duration_seconds]
        Can be set, to jump.
    loop_seconds : tuple of float
        Where the range that is repeated starts and ends; empty for none. Can be set.
    muted, soloed : tuple of str
        Rows; where any is soloed, only soloed ones are heard. Can be set.
    gains_db : dict of str to float, in [-40, 12]
        Of the rows; those that are left out have 0. Can be set.
    heard : str
        The one of `labels` that is heard. Can be set.
    lanes : {"waveform", "spectrogram"}
        What the rows show. Can be set.
    message : str
        What the page says about its state.

    Raises
    ------
    ParameterError
        If there are no stems, one is called "mixture", the labels are equal, or arrays come
        without a rate.
    AudioError
        If a recording cannot be read.

    Notes
    -----
    One gain for all keeps the loudest sample of all recordings within full scale, so that levels
    can be compared by ear. They are sent as FLAC with 16 bits; only `embed` makes MP3 of them.

    With the mixer in focus, the space bar plays and pauses, the arrow keys jump 5 s, Home goes to
    the start, ``[`` and ``]`` set the ends of the loop, ``L`` turns it off and on, ``X`` switches
    between the two results, digits solo a row and, with Shift, mute it.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 44_100))
    >>> mixer = StemMixer({"drums": noise, "bass": noise / 2}, 44_100)
    >>> mixer.soloed = ("bass",)
    >>> mixer
    StemMixer('drums', 'bass', seconds=1.0)
    """

    _esm = STATIC / "mixer.js"
    _css = STATIC / "mixer.css"

    playing = traitlets.Bool(False).tag(sync=True, page=True)
    position_seconds = traitlets.Float(0.0).tag(sync=True, page=True)
    loop_seconds = traitlets.Tuple().tag(sync=True, page=True)
    muted = traitlets.Tuple().tag(sync=True, page=True)
    soloed = traitlets.Tuple().tag(sync=True, page=True)
    gains_db = traitlets.Dict().tag(sync=True, page=True)
    heard = traitlets.Unicode().tag(sync=True, page=True)
    lanes = traitlets.Enum(["waveform", "spectrogram"], "waveform").tag(sync=True, page=True)
    message = traitlets.Unicode("").tag(sync=True, page=True)

    # The page needs to know these and cannot change them.
    _rows: traitlets.List[str] = traitlets.List().tag(sync=True)
    _labels: traitlets.List[str] = traitlets.List().tag(sync=True)
    _tracks: traitlets.List[dict[str, str]] = traitlets.List().tag(sync=True)
    _sample_rate = traitlets.Int().tag(sync=True)
    _samples = traitlets.Int().tag(sync=True)
    _piece_samples = traitlets.Int(_PIECE_SAMPLES).tag(sync=True)
    # The page that plays; empty for none.
    _player = traitlets.Unicode("").tag(sync=True, page=True)
    # By what a page may ask for, the messages that answer it; empty but for `embed`.
    _answers: traitlets.Dict[str, list[dict[str, Any]]] = traitlets.Dict().tag(sync=True)

    def __init__(
        self,
        stems: _Recordings,
        sample_rate: int | None = None,
        *,
        mixture: StrPath | npt.ArrayLike | None = None,
        other: _Recordings | None = None,
        labels: Sequence[str] = ("A", "B"),
    ) -> None:
        # First of all: what is made only halfway is closed all the same.
        self._recordings: list[SeekableRecording] = []
        self._closed = threading.Event()
        self._painter: threading.Thread | None = None
        self._one_painter = threading.Lock()
        self._pictures: list[_Message] = []
        self._loudest_power = 0.0
        first, second = _check_labels(labels)
        rows = [*([MIXTURE] if mixture is not None else []), *_rows_of(stems, other)]
        # Tracks without a label belong to both results.
        tracks = [] if mixture is None else [(MIXTURE, "", mixture)]
        tracks += [(str(name), first, each) for name, each in stems.items()]
        tracks += [(str(name), second, each) for name, each in (other or {}).items()]
        with ExitStack() as opened:
            opened.callback(self._close_recordings)
            for _, _, source in tracks:
                self._recordings.append(SeekableRecording(source, sample_rate))
                sample_rate = self._recordings[0].sample_rate
            assert sample_rate is not None
            check_output_format("flac", 16, sample_rate)
            samples = max(each.samples for each in self._recordings)
            envelopes = [_envelope(each, samples) for each in self._recordings]
            opened.pop_all()
        peak = max(float(np.abs(each).max()) for each in envelopes)
        self._gain = 1 / max(1.0, peak)
        # One scale for all lanes: the loudest sample fills its own.
        self._envelopes = [np.round(127 / (peak or 1) * each).astype(np.int8) for each in envelopes]
        self._seconds: float = samples / sample_rate
        super().__init__(
            heard=first,
            muted=(MIXTURE,) if mixture is not None else (),
            _rows=rows,
            _labels=[first] if other is None else [first, second],
            _tracks=[{"row": row, "label": label} for row, label, _ in tracks],
            _sample_rate=sample_rate,
            _samples=samples,
        )
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        return f"StemMixer({', '.join(map(repr, self._rows))}, seconds={self.duration_seconds:.1f})"

    @property
    def duration_seconds(self) -> float:
        """Length of the longest recording."""
        return self._seconds

    def embed(self) -> None:
        """Put the whole recordings into the state of the widget, for pages without a kernel.

        A notebook that is saved, or exported, together with the state of its widgets then holds a
        mixer that plays. `make report` does this for the mixers of a notebook.

        Raises
        ------
        ParameterError
            If there is no MP3 of this sample rate.
        AudioError
            If a recording cannot be read any more.

        Notes
        -----
        The sound is MP3 of the highest variable bit rate: for each minute of a recording about
        2 MB, a third of FLAC. It is one piece, because MP3 cannot be cut without a gap, so a page
        decodes all of it at once, to 21 MB a minute. All recordings get the same delay from the
        encoder, and stay together.

        Examples
        --------
        >>> import numpy as np
        >>> noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 44_100))
        >>> mixer = StemMixer({"drums": noise}, 44_100)
        >>> mixer.embed()
        >>> sorted(mixer._answers)
        ['overview', 'piece', 'spectrograms']
        """
        check_output_format("mp3", None, self._sample_rate)
        sound = [
            _encode(self._gain * each.read(0, self._samples), each.sample_rate, "mp3")
            for each in self._recordings
        ]
        answers = {
            "overview": [self._overview()],
            "piece": [({"kind": "piece", "piece": 0}, sound)],
            "spectrograms": [self._picture(number) for number in range(len(self._recordings))],
        }
        with self.hold_sync():
            self._piece_samples = self._samples
            self._answers = {
                asked: [{"content": content, "buffers": buffers} for content, buffers in messages]
                for asked, messages in answers.items()
            }

    def close(self) -> None:
        """Take the mixer off the page and let the recordings go."""
        self._closed.set()
        super().close()
        painter = self._painter
        if painter is not None and painter is not threading.current_thread():
            painter.join(_CLOSING_SECONDS)
        self._close_recordings()

    def _close_recordings(self) -> None:
        for each in self._recordings:
            each.close()

    # ------------------------------------------------------------ what may be set

    @traitlets.validate("position_seconds")
    def _check_position(self, proposal: traitlets.Bunch) -> float:
        seconds = float(proposal.value)
        if not 0 <= seconds < np.inf:
            raise _TraitRefusedError(
                f"position_seconds={seconds!r} is not in [0, {self._seconds:.3f}]. "
                "Pass where to play, in seconds."
            )
        return min(seconds, self._seconds)

    @traitlets.validate("loop_seconds")
    def _check_loop(self, proposal: traitlets.Bunch) -> tuple[float, ...]:
        if not proposal.value:
            return ()
        try:
            start, stop = map(float, proposal.value)
        except (TypeError, ValueError, OverflowError):
            start = stop = float("nan")
        shortest = min(_SHORTEST_LOOP_SECONDS, self._seconds)
        if not (start >= 0 and start + shortest <= stop + 1e-9 and stop <= self._seconds + 1e-9):
            raise _TraitRefusedError(
                f"loop_seconds={proposal.value!r} is not a range of at least {shortest:.3g} s in "
                f"[0, {self._seconds:.3f}]. Pass (start, stop), or () for no loop."
            )
        return start, min(stop, self._seconds)

    @traitlets.validate("muted", "soloed")
    def _check_rows(self, proposal: traitlets.Bunch) -> tuple[str, ...]:
        self._refuse_unknown(proposal.trait.name, proposal.value)
        return tuple(each for each in self._rows if each in proposal.value)

    @traitlets.validate("gains_db")
    def _check_gains(self, proposal: traitlets.Bunch) -> dict[str, float]:
        self._refuse_unknown("gains_db", proposal.value)
        low, high = GAIN_RANGE_DB
        for name, gain in proposal.value.items():
            if not (isinstance(gain, Real) and low <= gain <= high):  # type: ignore[operator]
                raise _TraitRefusedError(
                    f"gains_db[{name!r}]={gain!r} is not in [{low:g}, {high:g}]. Mute the row to "
                    "silence it."
                )
        return {name: float(gain) for name, gain in proposal.value.items()}

    @traitlets.validate("heard")
    def _check_heard(self, proposal: traitlets.Bunch) -> str:
        if proposal.value not in self._labels:
            raise _TraitRefusedError(
                f"heard={proposal.value!r} is not one of {', '.join(map(repr, self._labels))}."
            )
        return str(proposal.value)

    def _refuse_unknown(self, trait: str, names: Iterable[str]) -> None:
        for each in names:
            if each not in self._rows:
                raise _TraitRefusedError(
                    f"{trait}: {each!r} is not a row here. Pass some of "
                    f"{', '.join(map(repr, self._rows))}, as a tuple or a mapping."
                )

    # ------------------------------------------------------------ what the page asks for

    def _on_message(self, _: object, content: object, __: object) -> None:
        """Answer a page; maybe in a thread of its own, at the same time as others."""
        if self._closed.is_set():
            return
        with self._telling_failures():
            match content:
                case {"kind": "overview"}:
                    self.send(*self._overview())
                case {"kind": "piece", "piece": int(number)}:
                    self._send_piece(number)
                case {"kind": "spectrograms"}:
                    self._start_painting()
                case _:
                    self.log.warning("StemMixer: a message that it does not know")

    @contextmanager
    def _telling_failures(self) -> Iterator[None]:
        """Tell the page why it gets no answer: otherwise it would ask again."""
        try:
            yield
        except Exception as error:  # noqa: BLE001
            self.send({"kind": "failed", "message": in_words(error)})

    def _overview(self) -> _Message:
        content = {"kind": "overview", "width": _column_samples(self._samples)}
        return content, [each.tobytes() for each in self._envelopes]

    def _send_piece(self, number: int) -> None:
        pieces = max(1, self._samples // _PIECE_SAMPLES)
        if not 0 <= number < pieces:
            return
        start = number * _PIECE_SAMPLES
        # The last one takes the rest: a few samples alone are no file that all browsers decode.
        stop = self._samples if number == pieces - 1 else start + _PIECE_SAMPLES
        content = [
            _encode(self._gain * each.read(start, stop), each.sample_rate, "flac")
            for each in self._recordings
        ]
        self.send({"kind": "piece", "piece": number}, content)

    def _start_painting(self) -> None:
        with self._one_painter:
            # Those of before, for a page that was opened in between.
            for content, pixels in self._pictures:
                self.send(content, pixels)
            missing = len(self._pictures) < len(self._recordings)
            if missing and (self._painter is None or not self._painter.is_alive()):
                self._painter = threading.Thread(
                    target=self._paint, name="stemlab-spectrograms", daemon=True
                )
                self._painter.start()

    def _paint(self) -> None:
        """Send the spectrogram of each track, one at a time: they take seconds for a long song."""
        with self._telling_failures():
            for number in range(len(self._pictures), len(self._recordings)):
                if self._closed.is_set():
                    return
                picture = self._picture(number)
                with self._one_painter:
                    self._pictures.append(picture)
                    self.send(*picture)

    def _picture(self, number: int) -> _Message:
        """Compute the spectrogram of a track; the first one sets the scale of levels for all."""
        powers = _spectrogram(self._recordings[number], self._samples)
        # All relative to the first, which is the mixture where there is one.
        self._loudest_power = self._loudest_power or float(powers.max())
        shades = _shades(powers, self._loudest_power)
        colours = (matplotlib.colormaps["magma"](np.arange(256)) * 255).astype(np.uint8)
        rows, columns = shades.shape
        content = {"kind": "spectrogram", "track": number, "rows": rows, "columns": columns}
        return content, [shades.tobytes(), colours.tobytes()]


def _check_labels(labels: object) -> tuple[str, str]:
    match labels:
        case [str(first), str(second)] if first and second and first != second:
            return first, second
    raise ParameterError(f"labels={labels!r} are not two different names. Pass ('A', 'B').")


def _rows_of(stems: _Recordings, other: _Recordings | None) -> list[str]:
    given: list[object] = [stems] if other is None else [stems, other]
    for each in given:
        if not isinstance(each, Mapping) or not each:
            raise ParameterError("there are no stems. Pass a mapping such as {'vocals': path}.")
    names = [str(each) for each in dict.fromkeys([*stems, *(other or ())])]
    if MIXTURE in names:
        raise ParameterError("a stem is called 'mixture'. Pass it as mixture=, or rename it.")
    return names


def _column_samples(samples: int) -> int:
    return max(1, -(-samples // _COLUMNS))


def _envelope(recording: SeekableRecording, samples: int) -> AudioArray:
    """Lowest and highest sample of each column, shape (2, columns), in constant memory."""
    width = _column_samples(samples)
    step = width * max(1, _SCAN_SAMPLES // width)
    parts = []
    for start in range(0, samples, step):
        block = recording.read(start, min(start + step, samples))
        starts = np.arange(0, block.shape[1], width)
        parts.append(
            [
                np.minimum.reduceat(block.min(axis=0), starts),
                np.maximum.reduceat(block.max(axis=0), starts),
            ]
        )
    return np.concatenate(parts, axis=1)


def _encode(audio: AudioArray, sample_rate: int, format: str) -> bytes:
    file = BytesIO()
    # soundfile calls Python while it writes. An interrupt raised in there is lost, and threads get
    # none.
    with ThreadPoolExecutor(1) as encoder:
        encoder.submit(soundfile.write, file, audio.T, sample_rate, **_ENCODING[format]).result()
    return file.getvalue()


def _spectrogram(recording: SeekableRecording, samples: int) -> npt.NDArray[np.float32]:
    """Powers of one recording in rows of equal height on a logarithmic axis."""
    rate = recording.sample_rate
    grid = SpectralGrid(frequency_range_hz=(min(_LOWEST_HZ, rate / 8), rate / 2))
    found = compare_spectra({"": recording.read(0, samples)}, rate, grid=grid)
    heights = np.geomspace(found.hz[0], found.hz[-1], 2 * _ROWS + 1)[1::2]
    rows = np.clip(np.searchsorted(found.hz, heights) - 1, 0, len(found.hz) - 2)
    return found.powers[""][rows]


def _shades(powers: npt.NDArray[np.float32], loudest: float) -> npt.NDArray[np.uint8]:
    """Levels as bytes, the highest frequency first."""
    levels = 10 * np.log10(np.maximum(powers, 1e-20) / (loudest or 1.0))
    shades = np.clip(255 * (1 + levels / _DB_RANGE), 0, 255).astype(np.uint8)
    return np.ascontiguousarray(shades[::-1])
