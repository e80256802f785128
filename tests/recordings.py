"""Recordings that tests write, with soundfile or PyAV alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

__all__ = ["RATE", "noise", "put", "put_av", "tone"]

RATE = 44_100


def noise(samples: int, channels: int = 2, seed: int = 0, level: float = 0.1) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return (generator.standard_normal((channels, samples)) * level).astype(np.float32)


def put(
    path: Path,
    samples: np.ndarray,
    rate: int = RATE,
    *,
    container: str = "WAV",
    subtype: str = "FLOAT",
    **quality: object,
) -> Path:
    """Write channels-first samples with soundfile alone."""
    with soundfile.SoundFile(
        path, "w", rate, len(samples), format=container, subtype=subtype, **quality
    ) as file:
        for start in range(0, samples.shape[1], 65_536):
            file.write(samples.T[start : start + 65_536])
    return path


def put_av(
    path: Path,
    samples: np.ndarray,
    codec: str = "aac",
    rate: int = RATE,
    *,
    layout: str = "stereo",
    video: bool = False,
    options: dict[str, str] | None = None,
) -> Path:
    """Write channels-first samples with PyAV, on request behind a video stream."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options=options or {}) as container:
        picture = None
        if video:
            picture = container.add_stream("mpeg4", rate=25)
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        stream = container.add_stream(codec, rate=rate)
        stream.layout = layout
        if codec == "libmp3lame":
            stream.codec_context.options = {"compression_level": "2"}
            stream.codec_context.bit_rate = 0
            stream.codec_context.flags |= av.codec.context.Flags.qscale
            stream.codec_context.global_quality = 2 * 118
        if picture is not None:
            for _ in range(3):
                image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), "rgb24")
                for packet in picture.encode(image):
                    container.mux(packet)
            for packet in picture.encode(None):
                container.mux(packet)
        resampler = av.AudioResampler(
            format=stream.format.name,
            layout=layout,
            rate=rate,
            frame_size=1152 if codec == "libmp3lame" else 1024,
        )
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples), format="fltp", layout=layout
        )
        frame.sample_rate = rate
        frame.pts = 0  # without a time, the muxer does not note the encoder's delay
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            for packet in stream.encode(piece):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    return path


def tone(samples: int, channels: int = 2, rate: int = RATE) -> np.ndarray:
    time = np.arange(samples) / rate
    rows = [0.5 * np.sin(2 * np.pi * (300 + 200 * c) * time) for c in range(channels)]
    return np.array(rows, dtype=np.float32)
