"""Styles of music: tempo, metre, grooves, and which parts and sounds are likely."""

from __future__ import annotations

from dataclasses import dataclass, field

# Kick and snare; one character for each sixteenth, or twelfth, of a bar.
_ROCK = (
    ("x.......x.x.....", "....x.......x..."),
    ("x.......x.......", "....x.......x..."),
    ("x.x.......x..x..", "....x..x.x..x..."),
    ("x..x....x.x.....", "....x.......x..."),
    ("x.x...x.x.x...x.", "....x.......x..."),
    ("x.x.x.x.x.x.x.x.", "....x.......x..."),
    ("x.....x...x.....", "........x......."),
    ("x.......x.x...x.", "....x..x.x..x..x"),
)
_FAST = (
    ("xxxxxxxxxxxxxxxx", "....x.......x..."),
    ("x...x...x...x...", "..x...x...x...x."),
    ("x.xxx.xxx.xxx.xx", "........x......."),
    ("x..x..x..x..x.x.", "....x.......x..."),
    ("x.x.x.x.x.x.x.x.", ".x.x.x.x.x.x.x.x"),
)
_CLUB = (
    ("x...x...x...x...", "....x.......x..."),
    ("x...x...x...x...", "................"),
    ("x...x...x...x..x", "....x.......x.x."),
    ("x.....x...x.....", "....x.......x..."),
    ("x.........x.....", "....x.......x..."),
    ("x..x..x...x..x..", "....x.......x..."),
)
_BEATS = (
    ("x.....x...x.....", "........x......."),
    ("x..x......x..x..", "....x.......x..."),
    ("x.........x.x...", "........x......."),
    ("x.......x.....x.", "....x..x.x..x..."),
    ("x..x..x...x.....", "....x.......x..x"),
    ("x..x..x.x..x..x.", "....x.......x..."),
    ("x.............x.", "........x......."),
)
_FUNK = (
    ("x.x.......x..x..", "....x..x.x..x..."),
    ("x.....x.x.....x.", "....x..x....x..."),
    ("x..x..x...x.x...", "....x..x.x.xx..x"),
    ("x.x...x..x.x..x.", "....x..x.x..x..x"),
)
_LATIN = (
    ("x..x..x.x..x..x.", "...x..x....x..x."),
    ("x.....x.x.....x.", "..x..x....x.x..."),
    ("x...x...x...x...", "...x..x....x..x."),
)
_JAZZ = (
    ("x.......x.......", "................"),
    ("x...x...x...x...", "......x.......x."),
    ("x.......x.....x.", "....x.......x..."),
)
_THREE = (
    ("x...........", "....x...x..."),
    ("x.......x...", "....x......."),
    ("x.....x.....", "......x....."),
    ("x...x...x...", "......x....."),
    ("x..x......x.", "......x....."),
)


@dataclass(frozen=True)
class Style:
    """What is likely in a style; weights need not add up to one.

    `ghosts` and `rolls` are the chances of soft strokes between the beats and of fast rolls on
    the hat; `electronic` is the share of drum machines, synths and one-shots over instruments.
    """

    tempo_bpm: tuple[float, float]
    grooves: tuple[tuple[str, str], ...]
    cymbals: dict[str, float]
    basses: dict[str, float]
    roles: dict[str, float]
    electronic: float
    form: str = "song"
    swing: float = 0.1
    ghosts: float = 0.04
    rolls: float = 0.0
    three: float = 0.08
    no_drums: float = 0.03
    no_bass: float = 0.04
    weight: float = field(default=1.0, compare=False)


_ROLES = {
    "chords": 3,
    "strum": 2,
    "pad": 2,
    "arpeggio": 2,
    "lead": 2,
    "power": 1,
    "stabs": 1,
    "riff": 1,
    "texture": 0.5,
}

STYLES = {
    "pop": Style(
        tempo_bpm=(85, 135),
        grooves=_ROCK + _CLUB,
        cymbals={"eighths": 4, "sixteenths": 2, "quarters": 1, "off-beats": 1, "none": 1},
        basses={"eighths": 2, "kick": 3, "octaves": 1, "long": 2, "syncopated": 2, "riff": 1},
        roles=_ROLES,
        electronic=0.5,
        weight=2.0,
    ),
    "rock": Style(
        tempo_bpm=(90, 170),
        grooves=_ROCK,
        cymbals={"eighths": 5, "quarters": 2, "ride": 2, "crash": 1, "open": 1},
        basses={"eighths": 4, "kick": 3, "riff": 3, "long": 1, "walk": 1},
        roles={"power": 4, "strum": 3, "riff": 3, "lead": 2, "chords": 2, "pad": 1, "arpeggio": 1},
        electronic=0.08,
        ghosts=0.06,
        weight=2.0,
    ),
    "metal": Style(
        tempo_bpm=(100, 190),
        grooves=_FAST + _ROCK[-3:],
        cymbals={"eighths": 2, "quarters": 2, "crash": 3, "ride": 1, "open": 2},
        basses={"sixteenths": 2, "riff": 4, "eighths": 3, "kick": 2},
        roles={"power": 6, "riff": 5, "lead": 2, "pad": 1, "arpeggio": 1, "texture": 0.5},
        electronic=0.06,
        no_bass=0.02,
        weight=0.8,
    ),
    "electronic": Style(
        tempo_bpm=(110, 175),
        grooves=_CLUB + _BEATS[-2:],
        cymbals={"off-beats": 4, "sixteenths": 3, "eighths": 2, "none": 1},
        basses={"rolling": 3, "sixteenths": 2, "octaves": 2, "long": 1, "riff": 2, "pedal": 2},
        roles={"pad": 3, "arpeggio": 3, "stabs": 3, "lead": 3, "texture": 3, "chords": 2},
        electronic=0.93,
        form="club",
        weight=1.6,
    ),
    "hip-hop": Style(
        tempo_bpm=(65, 100),
        grooves=_BEATS,
        cymbals={"eighths": 3, "sixteenths": 3, "quarters": 1, "none": 1},
        basses={"glide": 4, "kick": 3, "long": 2, "riff": 2, "syncopated": 1},
        roles={"chords": 3, "pad": 2, "texture": 2, "arpeggio": 2, "lead": 2, "riff": 1},
        electronic=0.85,
        swing=0.3,
        rolls=0.35,
        weight=1.5,
    ),
    "folk": Style(
        tempo_bpm=(70, 130),
        grooves=_ROCK[:2] + _JAZZ,
        cymbals={"eighths": 2, "quarters": 2, "none": 3, "ride": 1},
        basses={"long": 3, "alternate": 4, "walk": 1, "eighths": 1},
        roles={"strum": 5, "arpeggio": 3, "chords": 2, "lead": 2, "pad": 1},
        electronic=0.02,
        three=0.3,
        no_drums=0.3,
        no_bass=0.15,
        weight=1.2,
    ),
    "jazz": Style(
        tempo_bpm=(80, 200),
        grooves=_JAZZ,
        cymbals={"swing": 6, "ride": 1, "quarters": 1},
        basses={"walk": 8, "long": 1, "alternate": 1},
        roles={"chords": 5, "lead": 5, "riff": 1, "pad": 0.5},
        electronic=0.0,
        swing=0.0,
        ghosts=0.15,
        three=0.15,
        no_drums=0.1,
        weight=0.7,
    ),
    "funk": Style(
        tempo_bpm=(85, 125),
        grooves=_FUNK + _LATIN,
        cymbals={"sixteenths": 4, "eighths": 3, "off-beats": 2},
        basses={"riff": 4, "syncopated": 3, "octaves": 2, "kick": 1},
        roles={"stabs": 3, "chords": 3, "strum": 2, "lead": 2, "riff": 2, "pad": 1},
        electronic=0.3,
        swing=0.25,
        ghosts=0.22,
        weight=1.2,
    ),
    "ballad": Style(
        tempo_bpm=(55, 85),
        grooves=_ROCK[:4] + _BEATS[:2],
        cymbals={"eighths": 4, "quarters": 2, "ride": 1, "none": 2},
        basses={"long": 5, "kick": 2, "walk": 1},
        roles={"chords": 4, "arpeggio": 3, "pad": 4, "strum": 2, "lead": 1, "texture": 0.5},
        electronic=0.3,
        three=0.25,
        no_drums=0.15,
        no_bass=0.12,
        weight=1.0,
    ),
}
GROOVES_IN_THREE = _THREE

# Forms a song is cut from, and how likely a part plays in each section.
FORMS = {
    "song": ("intro", "verse", "chorus", "verse", "chorus", "bridge", "chorus", "break"),
    "club": ("intro", "build", "drop", "break", "build", "drop"),
}
PRESENCE = {
    "intro": 0.6,
    "verse": 0.95,
    "chorus": 1.25,
    "bridge": 0.8,
    "break": 0.45,
    "build": 0.8,
    "drop": 1.25,
}
