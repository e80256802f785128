"""One-shot recordings: those of Sonic Pi for training, the kits of Hydrogen for the evaluation."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from .composition import Note
from .effects import SAMPLE_RATE, butterworth, pan, place, resample

# Debian's sonic-pi-samples. Only files that its copyright file lists one by one as CC0 are named
# below; the loops are left out, since the origin of some is a commercial record.
_SONIC_PI = Path("/usr/share/sonic-pi/samples")
# Debian's hydrogen-drumkits: GPL and CC BY-SA, so for the evaluation only.
_HYDROGEN = Path("/usr/share/hydrogen/data/drumkits")

# Each drum with the recordings it is drawn from.
SONIC_PI_DRUMS = {
    "kick": (
        "bd_808 bd_ada bd_boom bd_fat bd_gas bd_haus bd_klub bd_pure bd_sone bd_tek bd_zome bd_zum "
        "drum_bass_hard drum_bass_soft drum_heavy_kick elec_hollow_kick elec_soft_kick"
    ).split(),
    "snare": (
        "sn_dolf sn_dub sn_zome drum_snare_hard drum_snare_soft elec_snare elec_hi_snare "
        "elec_mid_snare elec_lo_snare elec_filt_snare"
    ).split(),
    "clap": ["perc_snap", "perc_snap2", "elec_hi_snare", "elec_filt_snare", "sn_dub"],
    "rim": ["elec_tick", "elec_wood", "elec_pop", "perc_snap", "tabla_te1", "tabla_na_s"],
    "hat": ["drum_cymbal_closed", "drum_cymbal_pedal", "elec_tick", "drum_cymbal_closed"],
    "open hat": ["drum_cymbal_open", "elec_cymbal", "drum_cymbal_soft"],
    "low tom": ["drum_tom_lo_hard", "drum_tom_lo_soft", "elec_fuzz_tom", "tabla_ghe3"],
    "mid tom": ["drum_tom_mid_hard", "drum_tom_mid_soft", "elec_fuzz_tom", "tabla_tun1"],
    "high tom": ["drum_tom_hi_hard", "drum_tom_hi_soft", "elec_flip", "tabla_na_o"],
    "crash": ["drum_splash_hard", "drum_cymbal_hard", "drum_splash_soft"],
    "ride": ["drum_cymbal_soft", "drum_cymbal_hard", "drum_splash_soft", "elec_cymbal"],
    "tambourine": ["drum_cymbal_pedal", "elec_triangle", "drum_cymbal_closed"],
    "shaker": ["drum_cymbal_closed", "perc_swash", "drum_cymbal_pedal"],
    "cowbell": ["drum_cowbell", "elec_bell", "elec_ping", "elec_triangle"],
    "low conga": ["tabla_ghe1", "tabla_ghe5", "tabla_ghe7", "tabla_ke2", "elec_bong", "tabla_tun3"],
    "high conga": ["tabla_na", "tabla_tas1", "tabla_te2", "tabla_re", "tabla_te_ne", "elec_plip"],
}
# The recordings all reach full scale; these are the levels of a kit.
_PEAKS = {"kick": 1.0, "snare": 0.9, "clap": 0.6, "hat": 0.6, "open hat": 0.4, "crash": 0.5}
_OTHER_PEAK = 0.4
# MIDI pitch as measured; the name says F or C.
SONIC_PI_BASSES = {
    "bass_dnb_f": 28.9,
    "bass_hard_c": 23.9,
    "bass_thick_c": 35.9,
    "bass_trance_c": 35.9,
    "bass_voxy_c": 36.05,
    "bass_woodsy_c": 35.9,
}
# Pitched one-shots for stabs and arpeggios.
SONIC_PI_TONES = {
    "elec_bell": 59.85,
    "elec_bong": 51.1,
    "elec_ping": 69.05,
    "elec_plip": 69.95,
    "elec_blip2": 61.9,
    "elec_blip": 62.1,
}
SONIC_PI_TEXTURES = (
    "ambi_dark_woosh ambi_drone ambi_glass_hum ambi_glass_rub ambi_haunted_hum ambi_lunar_land "
    "ambi_soft_buzz ambi_swoosh guit_e_fifths guit_e_slide guit_em9 guit_harmonics vinyl_hiss "
    "vinyl_scratch vinyl_rewind vinyl_backspin misc_cineboom elec_chime perc_bell perc_till"
).split()

# What an instrument of a Hydrogen kit is called, for each drum.
_HYDROGEN_NAMES = {
    "kick": r"kick|bass ?drum|cajon thump",
    "rim": r"stick|rim click|^click",
    "snare": r"snare(?!.*(roll|rim))|cajon slap",
    "clap": r"clap|snaps",
    "hat": r"closed|hat.* cl$|hat (low|ring)",
    "open hat": r"\bopen|hat.* op\b|ohh",
    "low tom": r"\btom (low|floor)|floor tom|low tom|bongo lo|drum 1",
    "mid tom": r"\btom ?(mid|2)|^tom$|middle tom|bongo lo|drum 2",
    "high tom": r"\btom ?(hi|1)|high tom|bongo hi|conga 1",
    "crash": r"crash(?!/)",
    "ride": r"ride(?!.*bell)",
    "tambourine": r"tambourine(?! pedal)",
    "shaker": r"maraca",
    "cowbell": r"cowbell",
    "low conga": r"conga 2|bongo lo|woodblock lo",
    "high conga": r"conga 1|bongo hi|woodblock hi",
}

# Kits of Hydrogen have thousands of seconds; keep the last used.
_KEPT = 200


@lru_cache(maxsize=_KEPT)
def load(path: Path) -> np.ndarray:
    """A recording as float32 of shape (2, samples), silence at its end cut off."""
    import soundfile

    if not path.is_file():
        raise FileNotFoundError(f"recording {path} is missing; README.md names its package")
    audio, rate = soundfile.read(path, dtype="float32", always_2d=True)
    audio = np.repeat(audio.T, 2, axis=0)[:2] if audio.shape[1] == 1 else audio.T[:2]
    if rate != SAMPLE_RATE:
        audio = resample(audio, rate / SAMPLE_RATE)
    loud = np.flatnonzero(np.abs(audio).max(axis=0) > 1e-3)
    audio = audio[:, : loud[-1] + 1 if loud.size else 1].copy()
    fade = min(300, audio.shape[1])
    audio[:, -fade:] *= np.linspace(1, 0, fade)
    audio.setflags(write=False)
    return audio


def sonic_pi(name: str) -> np.ndarray:
    """A recording of Sonic Pi."""
    return load(_SONIC_PI / f"{name}.flac")


def sonic_pi_kit(rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """A kit put together at random, each drum at a random pitch."""
    kit = {}
    for drum, names in SONIC_PI_DRUMS.items():
        sound = resample(sonic_pi(str(rng.choice(names))), 2 ** (rng.uniform(-3, 3) / 12))
        if drum in ("hat", "shaker", "tambourine", "rim"):
            # One recording serves several drums, so make it as short and bright as this one is.
            sound = butterworth(sound, "highpass", rng.uniform(300, 5000))
            sound = sound * np.exp(-np.arange(sound.shape[1]) / SAMPLE_RATE / rng.uniform(0.03, 1))
        elif drum in ("open hat", "crash", "ride"):
            sound = butterworth(sound, "highpass", rng.uniform(200, 4000))
        peak = _PEAKS.get(drum, _OTHER_PEAK) / (np.abs(sound).max() + 1e-6)
        kit[drum] = [(sound * peak).astype(np.float32)]
    return kit


@lru_cache(maxsize=32)
def _hydrogen_instruments(kit: str) -> tuple[tuple[str, tuple[tuple[float, Path], ...]], ...]:
    """Names of instruments and their layers, each its greatest velocity (0 to 1) and file."""
    path = _HYDROGEN / kit / "drumkit.xml"
    if not path.is_file():
        raise FileNotFoundError(f"drum kit {path} is missing; install hydrogen-drumkits")
    # The files are UTF-8 but some name no namespace and some do.
    text = re.sub(r'\sxmlns(:\w+)?="[^"]*"|\sxsi:\w+="[^"]*"', "", path.read_text("utf-8"))
    instruments = []
    for node in ElementTree.fromstring(text).iter("instrument"):
        layers = [
            (float(layer.findtext("max", "1")), path.parent / layer.findtext("filename", ""))
            for layer in node.iter("layer")
        ]
        single = node.findtext("filename")
        if not layers and single:
            layers = [(1.0, path.parent / single)]
        files = tuple(sorted(layer for layer in layers if layer[1].is_file()))
        if files:
            instruments.append((node.findtext("name", ""), files))
    return tuple(instruments)


def hydrogen_kit(kit: str, rng: np.random.Generator) -> dict[str, list[np.ndarray]]:
    """The drums of a Hydrogen kit, each with its layers from soft to loud."""
    instruments = _hydrogen_instruments(kit)
    sounds = {}
    for drum, pattern in _HYDROGEN_NAMES.items():
        fitting = [layers for name, layers in instruments if re.search(pattern, name.lower())]
        if fitting:
            layers = fitting[int(rng.integers(len(fitting)))]
            sounds[drum] = [load(path) for _, path in layers]
    return sounds


def play_one_shots(
    notes: Sequence[Note], samples: int, sound: np.ndarray, pitch: float
) -> np.ndarray:
    """Play a recording of a known pitch at the pitches of notes, by changing its speed."""
    canvas = np.zeros((2, samples), np.float32)
    tuned: dict[int, np.ndarray] = {}
    for note in notes:
        if note.pitch not in tuned:
            tuned[note.pitch] = resample(sound, 2 ** ((note.pitch - pitch) / 12))
        length = int((note.duration + 0.03) * SAMPLE_RATE)
        heard = tuned[note.pitch][:, :length] * (note.velocity / 100)
        fade = min(1200, heard.shape[1])
        heard[:, -fade:] *= np.linspace(1, 0, fade)
        place(canvas, heard, note.start)
    return canvas


def play_textures(
    times_seconds: Sequence[float], samples: int, rng: np.random.Generator
) -> np.ndarray:
    """Noises, drones and guitar sounds at given times; shape (2, samples)."""
    canvas = np.zeros((2, samples), np.float32)
    names = rng.choice(SONIC_PI_TEXTURES, size=2)
    sounds = [resample(sonic_pi(str(name)), 2 ** (rng.uniform(-7, 7) / 12)) for name in names]
    for time in times_seconds:
        sound = sounds[int(rng.integers(2))]
        if rng.random() < 0.2:
            sound = sound[:, ::-1]
        place(canvas, pan(sound * rng.uniform(0.3, 1), rng.uniform(-0.6, 0.6)), time)
    return canvas
