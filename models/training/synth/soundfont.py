"""Notes played by sampled instruments through FluidSynth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .composition import Hit, Note
from .effects import SAMPLE_RATE, resample
from .instruments import GENERAL_MIDI_DRUMS

# All from Debian packages. The first is MIT, the second MIT with parts in CC0; the others (GPL-2,
# public domain, CC-BY-SA twice) are for the evaluation only. The third and the fourth share many
# recordings, so they belong in the same palette.
SOUNDFONTS = {
    "fluid": Path("/usr/share/sounds/sf2/FluidR3_GM.sf2"),
    "musescore": Path("/usr/share/sounds/sf3/MuseScore_General_Lite.sf3"),
    "timgm6mb": Path("/usr/share/sounds/sf2/TimGM6mb.sf2"),
    "csound": Path("/usr/share/sounds/sf2/sf_GMbank.sf2"),
    "black pearl": Path("/usr/share/sounds/sf2/Black_Pearl_4_LV2.sf2"),
    "red zeppelin": Path("/usr/share/sounds/sf2/Red_Zeppelin_4_LV2.sf2"),
}
_MANY_KITS = (*range(20), 0, 8, 16, 24, 25, 25, 32, 33, 34, 35, 36, 40, 41, 42, 48)
_FEW_KITS = (0, 0, 8, 16, 24, 25, 32, 40)
# Programs of the drums in each soundfont.
DRUM_KITS = {
    "fluid": _MANY_KITS,
    "musescore": _MANY_KITS,
    "timgm6mb": _FEW_KITS,
    "csound": _FEW_KITS,
    "black pearl": (0,),
    "red zeppelin": (0,),
}
# These two hold one kit, in the bank of the instruments and with other toms.
_KIT_FONTS = ("black pearl", "red zeppelin")
_KIT_FONT_DRUMS = {
    "low tom": 43,
    "mid tom": 45,
    "high tom": 47,
    "shaker": 54,
    "low conga": 45,
    "high conga": 47,
}
_DRUM_BANK, _DRUM_CHANNEL = 128, 9


def play_notes(notes: Sequence[Note], samples: int, *, soundfont: str, program: int) -> np.ndarray:
    """Render notes with a General MIDI program; shape (2, samples)."""
    events = [(note.start, note.start + note.duration, note.pitch, note.velocity) for note in notes]
    return _render(events, samples, soundfont=soundfont, bank=0, program=program)


def play_transposed(
    notes: Sequence[Note], samples: int, *, soundfont: str, program: int, semitones: float
) -> np.ndarray:
    """Render at other pitches and play that faster or slower: same notes, other timbre."""
    speed = 2 ** (-semitones / 12)
    moved = [
        Note(n.start * speed, n.duration * speed, round(n.pitch + semitones), n.velocity)
        for n in notes
    ]
    length = int(samples * speed) + 1
    audio = resample(play_notes(moved, length, soundfont=soundfont, program=program), speed)
    return np.pad(audio, ((0, 0), (0, max(0, samples - audio.shape[1]))))[:, :samples]


def play_drums(hits: Sequence[Hit], samples: int, *, soundfont: str, kit: int) -> np.ndarray:
    """Render hits with a drum kit; shape (2, samples)."""
    alone = soundfont in _KIT_FONTS
    keys = GENERAL_MIDI_DRUMS | (_KIT_FONT_DRUMS if alone else {})
    events = [(hit.start, hit.start + 0.15, keys[hit.drum], hit.velocity) for hit in hits]
    bank = 0 if alone else _DRUM_BANK
    return _render(events, samples, soundfont=soundfont, bank=bank, program=kit)


def _open(soundfont: str, bank: int, program: int) -> tuple[object, int]:
    """A fresh synthesiser: whatever was played before leaves no trace in it."""
    import fluidsynth

    path = SOUNDFONTS[soundfont]
    if not path.is_file():
        raise FileNotFoundError(f"soundfont {path} is missing; README.md names its package")
    synth = fluidsynth.Synth(gain=0.4, samplerate=float(SAMPLE_RATE))
    # Only the samples in use are loaded: 10 ms instead of 3 s.
    synth.setting("synth.dynamic-sample-loading", 1)
    synth.setting("synth.reverb.active", 0)
    synth.setting("synth.chorus.active", 0)
    channel = _DRUM_CHANNEL if bank == _DRUM_BANK or soundfont in _KIT_FONTS else 0
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
