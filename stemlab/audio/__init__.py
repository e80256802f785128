"""Audio in and out: reading, resampling and writing recordings as float32 arrays.

Arrays have the shape (channels, samples), dtype float32 and nominally lie in [-1, 1]; files are
transposed and converted here and nowhere else.
"""

from __future__ import annotations

from stemlab.audio._opening import AudioInfo
from stemlab.audio.arrays import as_audio
from stemlab.audio.finding import RECORDING_SUFFIXES, find_recordings
from stemlab.audio.reading import (
    file_digest,
    read_file,
    read_info,
    read_length,
    stream_file,
)
from stemlab.audio.resampling import StreamResampler, resample, resampled_length
from stemlab.audio.seeking import SeekableRecording
from stemlab.audio.writing import FORMATS, OutputFormat, check_output_format, write_file

__all__ = [
    "FORMATS",
    "RECORDING_SUFFIXES",
    "AudioInfo",
    "OutputFormat",
    "SeekableRecording",
    "StreamResampler",
    "as_audio",
    "check_output_format",
    "file_digest",
    "find_recordings",
    "read_file",
    "read_info",
    "read_length",
    "resample",
    "resampled_length",
    "stream_file",
    "write_file",
]
