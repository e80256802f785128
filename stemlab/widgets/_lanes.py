"""What the lanes of the mixer show, computed in bounded memory: envelopes and spectrograms."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import matplotlib
import numpy as np
import numpy.typing as npt

from stemlab._typing import AudioArray
from stemlab.audio import SeekableRecording
from stemlab.spectra import SpectralGrid, compare_spectra
from stemlab.widgets._page import Message, telling_failures

_SCAN_SAMPLES = 1 << 18
# Columns of an envelope, rows of a spectrogram.
_COLUMNS, _ROWS = 1200, 96
_LOWEST_HZ, _DB_RANGE = 40.0, 80.0
# How long closing waits for a spectrogram that is being computed.
_CLOSING_SECONDS = 10.0


def column_samples(samples: int) -> int:
    """Number of samples that a column of an envelope stands for."""
    return max(1, -(-samples // _COLUMNS))


def envelope(recording: SeekableRecording, samples: int) -> AudioArray:
    """Lowest and highest sample of each column, shape (2, columns)."""
    width = column_samples(samples)
    step = width * max(1, _SCAN_SAMPLES // width)
    parts = []
    for start in range(0, samples, step):
        block = recording.read(start, min(start + step, samples))
        starts = np.arange(0, block.shape[1], width)
        lowest = np.minimum.reduceat(block.min(axis=0), starts)
        highest = np.maximum.reduceat(block.max(axis=0), starts)
        parts.append([lowest, highest])
    return np.concatenate(parts, axis=1)


def _spectrogram(
    recording: SeekableRecording, longest: SeekableRecording
) -> npt.NDArray[np.float32]:
    """Powers of a recording, in rows of equal height on a logarithmic axis."""
    rate = recording.sample_rate
    grid = SpectralGrid(frequency_range_hz=(min(_LOWEST_HZ, rate / 8), rate / 2))
    signals = {"": recording}
    if recording.samples < longest.samples:
        signals["longest"] = longest  # Makes the picture of a shorter one as wide as the others.
    found = compare_spectra(signals, rate, grid=grid)
    heights = np.geomspace(found.hz[0], found.hz[-1], 2 * _ROWS + 1)[1::2]
    rows = np.clip(np.searchsorted(found.hz, heights) - 1, 0, len(found.hz) - 2)
    return found.powers[""][rows]


class Painter:
    """Computes the spectrogram of each track once, in a thread, and sends it to the pages."""

    def __init__(self, recordings: Sequence[SeekableRecording], send: Callable[..., None]) -> None:
        self._recordings = recordings
        self._send = send
        self._pictures: list[Message] = []
        self._loudest_power = 0.0
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._closed = threading.Event()

    def start(self) -> None:
        """Send what is ready, and begin with the rest unless that is going on."""
        with self._lock:
            for picture in self._pictures:
                self._send(*picture)
            missing = len(self._pictures) < len(self._recordings)
            if missing and (self._thread is None or not self._thread.is_alive()):
                self._thread = threading.Thread(
                    target=self._paint, name="stemlab-spectrograms", daemon=True
                )
                self._thread.start()

    def close(self) -> None:
        """End the thread, and wait until it has ended."""
        self._closed.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_CLOSING_SECONDS)

    def picture(self, number: int) -> Message:
        """Compute the spectrogram of a track."""
        longest = max(self._recordings, key=lambda recording: recording.samples)
        powers = _spectrogram(self._recordings[number], longest)
        # All levels are relative to the first track: the mixture, if there is one.
        self._loudest_power = self._loudest_power or float(powers.max())
        decibels = 10 * np.log10(np.maximum(powers, 1e-20) / (self._loudest_power or 1.0))
        shades = np.clip(255 * (1 + decibels / _DB_RANGE), 0, 255).astype(np.uint8)
        colours = (matplotlib.colormaps["magma"](np.arange(256)) * 255).astype(np.uint8)
        rows, columns = shades.shape
        content = {"kind": "spectrogram", "track": number, "rows": rows, "columns": columns}
        # The highest frequency first.
        return content, [shades[::-1].tobytes(), colours.tobytes()]

    def _paint(self) -> None:
        with telling_failures(self._send):
            for number in range(len(self._pictures), len(self._recordings)):
                if self._closed.is_set():
                    return
                picture = self.picture(number)
                with self._lock:
                    self._pictures.append(picture)
                    self._send(*picture)
