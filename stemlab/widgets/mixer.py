"""A mixer for notebooks that plays all stems on one clock."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from numbers import Real
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
import traitlets

from stemlab._typing import AudioArray, StrPath
from stemlab.audio import SeekableRecording, check_output_format
from stemlab.errors import ParameterError
from stemlab.widgets._lanes import Painter, column_samples, envelope
from stemlab.widgets._page import STATIC, Message, PageWidget, telling_failures

MIXTURE = "mixture"
GAIN_RANGE_DB = (-40.0, 12.0)
_SHORTEST_LOOP_SECONDS = 0.1

# About three seconds: short enough to start at once, long enough to last until the next arrives.
_PIECE_SAMPLES = 1 << 17
_ENCODING: dict[str, dict[str, Any]] = {
    "flac": {"format": "FLAC", "subtype": "PCM_16"},
    # The least compression, V0.
    "mp3": {"format": "MP3", "compression_level": 0.0, "bitrate_mode": "VARIABLE"},
}
_Recordings = Mapping[str, StrPath | npt.ArrayLike]


class _TraitRefusedError(ParameterError, traitlets.TraitError):
    """Also a TraitError: at any other error, traitlets keeps the value that a page sent."""


class StemMixer(PageWidget):
    """Play stems together in a notebook: mute, solo, seek, loop, and switch between two results.

    All stems play on one clock of the browser, so they cannot drift apart. Their audio is sent in
    pieces during playback: neither the page nor the saved notebook grows with the song.

    Parameters
    ----------
    stems : mapping of str to path or array, each shape (channels, samples) or (samples,)
        One row for each, in this order.
    sample_rate : int, in Hz, optional
        Of arrays, which need it; files of another rate are resampled. Default: that of the first
        file.
    mixture : path or array, optional
        Gets a row of its own, muted at first: with the stems, it would be twice as loud.
    other : mapping of str to path or array, optional
        A second result, for instance of other settings, or the true stems. It shares the rows, and
        `heard` switches between the two without a gap.
    labels : (str, str), default ("A", "B")
        Names of the two results.

    Attributes
    ----------
    playing : bool
        Like all but `message`, it can be set. A browser plays nothing until its page was clicked
        once.
    position_seconds : float, in [0, duration_seconds]
    loop_seconds : tuple of float
        Start and end of the loop; empty for none.
    muted, soloed : tuple of str
        Rows. If any is soloed, only soloed ones are heard.
    gains_db : dict of str to float, in [-40, 12]
        By row; 0 for rows that are left out.
    heard : str
        The one of `labels` that is heard.
    lanes : {"waveform", "spectrogram"}
        What the rows show.
    message : str
        Status shown on the page.

    Raises
    ------
    ParameterError
        If there are no stems, one is called "mixture", the labels are equal, or arrays come
        without a rate.
    AudioError
        If a recording cannot be read.

    Notes
    -----
    A common gain keeps the loudest sample of all recordings within full scale, so that levels can
    be compared by ear. Audio is sent as FLAC with 16 bits; `embed` uses MP3.

    While the mixer has the focus, the space bar plays and pauses, the arrow keys jump 5 s, Home
    goes to the start, ``[`` and ``]`` set the ends of the loop, ``L`` turns it off and on, ``X``
    switches between the two results, digits solo a row and, with Shift, mute it.

    Examples
    --------
    >>> import numpy as np
    >>> noise = np.random.default_rng(0).uniform(-0.1, 0.1, (2, 44_100))
    >>> mixer = StemMixer({"drums": noise, "bass": noise / 2}, 44_100)
    >>> mixer.soloed = ("bass",)
    >>> mixer
    StemMixer('drums', 'bass', seconds=1.0)
    """

    _esm = "\n".join(
        (STATIC / name).read_text(encoding="utf-8")
        for name in ("sound.js", "transport.js", "mixer.js")
    )
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
        # First: close() needs these, even if the rest of the constructor fails.
        self._recordings: list[SeekableRecording] = []
        self._closed = threading.Event()
        self._painter = Painter(self._recordings, self.send)
        first, second = _check_labels(labels)
        rows = [*([MIXTURE] if mixture is not None else []), *_rows_of(stems, other)]
        # A track without a label belongs to both results.
        tracks = [] if mixture is None else [(MIXTURE, "", mixture)]
        tracks += [(str(name), first, stem) for name, stem in stems.items()]
        tracks += [(str(name), second, stem) for name, stem in (other or {}).items()]
        with ExitStack() as opened:
            opened.callback(self._close_recordings)
            for _, _, source in tracks:
                self._recordings.append(SeekableRecording(source, sample_rate))
                sample_rate = self._recordings[0].sample_rate
            assert sample_rate is not None
            check_output_format("flac", 16, sample_rate)
            samples = max(recording.samples for recording in self._recordings)
            envelopes = [envelope(recording, samples) for recording in self._recordings]
            opened.pop_all()
        peak = max(float(np.abs(extremes).max()) for extremes in envelopes)
        self._gain = 1 / max(1.0, peak)
        # One scale for all lanes: the loudest sample fills its own.
        self._envelopes = [
            np.round(127 / (peak or 1) * extremes).astype(np.int8) for extremes in envelopes
        ]
        super().__init__(
            heard=first,
            muted=(MIXTURE,) if mixture is not None else (),
            _rows=rows,
            _labels=[first] if other is None else [first, second],
            _tracks=[{"row": row, "label": label} for row, label, _ in tracks],
            _sample_rate=sample_rate,
            _samples=samples,
        )
        self.observe(self._on_position, "position_seconds")
        self.on_msg(self._on_message)

    def __repr__(self) -> str:
        return f"StemMixer({', '.join(map(repr, self._rows))}, seconds={self.duration_seconds:.1f})"

    @property
    def duration_seconds(self) -> float:
        """Length of the longest recording."""
        return float(self._samples / self._sample_rate)

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
        The sound is MP3 of the highest variable bit rate: about 2 MB per minute of a recording, a
        third of FLAC. A page decodes all of it at once, to 21 MB per minute, because MP3 cannot be
        cut without a gap.
        """
        check_output_format("mp3", None, self._sample_rate)
        tracks = range(len(self._recordings))
        answers = {
            "overview": [self._overview()],
            "piece": [({"kind": "piece", "piece": 0}, self._encoded(0, self._samples, "mp3"))],
            "spectrograms": [self._painter.picture(number) for number in tracks],
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
        self._painter.close()
        self._close_recordings()

    def _close_recordings(self) -> None:
        for recording in self._recordings:
            recording.close()

    @traitlets.validate("position_seconds")
    def _check_position(self, proposal: traitlets.Bunch) -> float:
        seconds = float(proposal.value)
        if not 0 <= seconds < np.inf:
            raise _TraitRefusedError(
                f"position_seconds={seconds!r} is not in [0, {self.duration_seconds:.3f}]. "
                "Pass where to play, in seconds."
            )
        return min(seconds, self.duration_seconds)

    @traitlets.validate("loop_seconds")
    def _check_loop(self, proposal: traitlets.Bunch) -> tuple[float, ...]:
        if not proposal.value:
            return ()
        try:
            start, stop = map(float, proposal.value)
        except (TypeError, ValueError, OverflowError):
            start = stop = float("nan")
        end = self.duration_seconds
        shortest = min(_SHORTEST_LOOP_SECONDS, end)
        if not (start >= 0 and start + shortest <= stop + 1e-9 and stop <= end + 1e-9):
            raise _TraitRefusedError(
                f"loop_seconds={proposal.value!r} is not a range of at least {shortest:.3g} s in "
                f"[0, {end:.3f}]. Pass (start, stop), or () for no loop."
            )
        return start, min(stop, end)

    @traitlets.validate("muted", "soloed", "gains_db")
    def _check_rows(self, proposal: traitlets.Bunch) -> tuple[str, ...] | dict[str, float]:
        trait, value = proposal.trait.name, proposal.value
        for name in value:
            if name not in self._rows:
                raise _TraitRefusedError(
                    f"{trait}: {name!r} is not a row here. Pass some of "
                    f"{', '.join(map(repr, self._rows))}, as a tuple or a mapping."
                )
        if trait != "gains_db":
            return tuple(row for row in self._rows if row in value)
        low, high = GAIN_RANGE_DB
        for name, gain in value.items():
            if not (isinstance(gain, Real) and low <= gain <= high):  # type: ignore[operator]
                allowed = f"[{low:g}, {high:g}]. Mute the row to silence it."
                raise _TraitRefusedError(f"gains_db[{name!r}]={gain!r} is not in {allowed}")
        return {name: float(gain) for name, gain in value.items()}

    @traitlets.validate("heard")
    def _check_heard(self, proposal: traitlets.Bunch) -> str:
        if proposal.value not in self._labels:
            labels = ", ".join(map(repr, self._labels))
            raise _TraitRefusedError(f"heard={proposal.value!r} is not one of {labels}.")
        return str(proposal.value)

    def _on_position(self, change: traitlets.Bunch) -> None:
        """Tell a page that plays to jump, unless the position is the one that it reported."""
        if change.new != self._from_page.get("position_seconds"):
            self.send({"kind": "jump", "seconds": change.new})

    def _on_message(self, _: object, content: object, __: object) -> None:
        """Answer a page. Several threads may do this at the same time."""
        if self._closed.is_set():
            return
        with telling_failures(self.send):
            match content:
                case {"kind": "overview"}:
                    self.send(*self._overview())
                case {"kind": "piece", "piece": int(number)}:
                    self._send_piece(number)
                case {"kind": "spectrograms"}:
                    self._painter.start()
                case _:
                    self.log.warning("StemMixer: unknown message")

    def _overview(self) -> Message:
        content = {"kind": "overview", "width": column_samples(self._samples)}
        return content, [extremes.tobytes() for extremes in self._envelopes]

    def _send_piece(self, number: int) -> None:
        pieces = max(1, self._samples // _PIECE_SAMPLES)
        if not 0 <= number < pieces:
            return
        start = number * _PIECE_SAMPLES
        # The last piece takes the rest: some browsers cannot decode a file of a few samples.
        stop = self._samples if number == pieces - 1 else start + _PIECE_SAMPLES
        self.send({"kind": "piece", "piece": number}, self._encoded(start, stop, "flac"))

    def _encoded(self, start: int, stop: int, format: str) -> list[bytes]:
        return [
            _encode(self._gain * recording.read(start, stop), self._sample_rate, format)
            for recording in self._recordings
        ]


def _check_labels(labels: object) -> tuple[str, str]:
    match labels:
        case [str(first), str(second)] if first and second and first != second:
            return first, second
    raise ParameterError(f"labels={labels!r} are not two different names. Pass ('A', 'B').")


def _rows_of(stems: _Recordings, other: _Recordings | None) -> list[str]:
    given: list[object] = [stems] if other is None else [stems, other]
    for result in given:
        if not isinstance(result, Mapping) or not result:
            raise ParameterError("there are no stems. Pass a mapping such as {'vocals': path}.")
    names = [str(name) for name in dict.fromkeys([*stems, *(other or ())])]
    if MIXTURE in names:
        raise ParameterError("a stem is called 'mixture'. Pass it as mixture=, or rename it.")
    return names


def _encode(audio: AudioArray, sample_rate: int, format: str) -> bytes:
    file = BytesIO()
    # In a thread, which gets no interrupts: soundfile calls Python while it writes, and an
    # interrupt in there would be lost.
    with ThreadPoolExecutor(1) as encoder:
        encoder.submit(soundfile.write, file, audio.T, sample_rate, **_ENCODING[format]).result()
    return file.getvalue()
