"""Notes played by sampled instruments through FluidSynth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .composition import Hit, Note
from .effects import SAMPLE_RATE
from .instruments import GENERAL_MIDI_DRUMS

# All from Debian packages. The first is MIT, the second MIT with parts in CC0; the others (GPL and
# LGPL) are for the evaluation only.
SOUNDFONTS = {
    "fluid": Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    "musescore": Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3"),
    "timgm6mb": Path("/usr/share/sounds/sf2/TimGM6mb.sf2"),
    "csound": Path("/usr/share/sounds/sf2/sf_GMbank.sf2"),
}
DRUM_KITS = (0, 0, 8, 16, 24, 25, 32, 40)
_DRUM_BANK, _DRUM_CHANNEL = 128, 9


def play_notes(notes: Sequence[Note], samples: int, *, soundfont: str, program: int) -> np.ndarray:
    """Render notes with a General MIDI program; shape (2, samples)."""
    events = [(note.start, note.start + note.duration, note.pitch, note.velocity) for note in notes]
    return _render(events, samples, soundfont=soundfont, bank=0, program=program)


def play_drums(hits: Sequence[Hit], samples: int, *, soundfont: str, kit: int) -> np.ndarray:
    """Render hits with a General MIDI drum kit; shape (2, samples)."""
    events = [
        (hit.start, hit.start + 0.15, GENERAL_MIDI_DRUMS[hit.drum], hit.velocity) for hit in hits
    ]
    return _render(events, samples, soundfont=soundfont, bank=_DRUM_BANK, program=kit)


def _open(soundfont: str, bank: int, program: int) -> tuple[object, int]:
    """A fresh synthesiser: whatever was played before leaves no trace in it."""
    import fluidsynth

    path = SOUNDFONTS[soundfont]
    if not path.is_file():
        raise FileNotFoundError(f"soundfont {path} is missing; install the package in README.md")
    synth = fluidsynth.Synth(gain=0.4, samplerate=float(SAMPLE_RATE))
    # Only the samples in use are loaded: 10 ms instead of 3 s.
    synth.setting("synth.dynamic-sample-loading", 1)
    synth.setting("synth.reverb.active", 0)
    synth.setting("synth.chorus.active", 0)
    channel = _DRUM_CHANNEL if bank == _DRUM_BANK else 0
    font = synth.sfload(str(path))
    if synth.program_select(channel, font, bank, program) != 0:
        synth.program_select(channel, font, bank, 0)
    return synth, channel


def _render(
    events: Sequence[tuple[float, float, int, float]],
    samples: int,
    *,
    soundfont: str,
    bank: int,
    program: int,
) -> np.ndarray:
    synth, channel = _open(soundfont, bank, program)
    timeline = []
    for start, end, pitch, velocity in events:
        loudness = int(np.clip(velocity, 5, 127))
        timeline.append((int(start * SAMPLE_RATE), 1, int(pitch), loudness))
        timeline.append((int(end * SAMPLE_RATE), 0, int(pitch), 0))
    pieces, position = [], 0
    for when, on, pitch, loudness in sorted(timeline):
        when = min(max(when, 0), samples)
        if when > position:
            pieces.append(synth.get_samples(when - position))
            position = when
        if on:
            synth.noteon(channel, pitch, loudness)
        else:
            synth.noteoff(channel, pitch)
    if position < samples:
        pieces.append(synth.get_samples(samples - position))
    synth.delete()
    return np.concatenate(pieces).reshape(-1, 2).T.astype(np.float32) / 32768
