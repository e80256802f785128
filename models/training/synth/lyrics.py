"""Lines to sing or to speak: a small grammar over common words, and lines of plain vowels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

LINES = 240  # a fixed pool, so that songs share the analysis of a line

_WORDS = {
    "who": "I you we they she he nobody somebody everybody strangers lovers angels people".split(),
    "verb": (
        "love need want know feel see hear hold take give break leave find follow catch keep miss "
        "chase burn call change shake fight lose kiss teach watch push trust thank kill serve "
        "believe forget remember carry surrender discover imagine deliver"
    ).split(),
    "move": (
        "run fall fly dance cry sing walk dream wait stay shine breathe drive swim sleep jump "
        "rise crash drift scream smile whisper wander disappear celebrate travel"
    ).split(),
    "noun": (
        "heart night fire rain road light sky moon sun sea dream star street town house door hand "
        "face voice song dance time day year world ghost smoke stone bridge ship church fish "
        "chance sugar money river ocean morning shadow window mirror summer winter diamond "
        "thunder silence yesterday memory paradise satellite highway city bottle kitchen jacket"
    ).split(),
    "how": (
        "cold wild young old sweet strange black blue red golden silver broken empty lonely "
        "beautiful crazy heavy perfect electric invisible fragile hungry precious"
    ).split(),
    "where": (
        "tonight again forever away alone together tomorrow outside upstairs underground "
        "somewhere everywhere like_this back_home all_night"
    ).split(),
    "near": "in on under over through behind beside across into without".split(),
    "with": "my your the this every that our one each".split(),
    "will": "will can could should never always just still only won't can't must gotta".split(),
    "cry": "hey yeah oh baby come_on alright listen okay tell_me sugar honey what uh-huh".split(),
}
_PATTERNS = tuple(
    pattern.split()
    for pattern in (
        "who will verb with noun",
        "who verb with how noun",
        "cry who move near with noun",
        "who will move where",
        "with noun near with how noun",
        "verb with noun where",
        "how noun near with noun",
        "who move like with how noun and who verb with noun",
        "if who verb with noun who will move where",
        "cry cry verb with noun",
        "move move where",
        "who will verb with noun and with noun will move near with how noun",
        "who said with noun was how but who will never move where",
        "who got with noun near with noun and who verb with how noun where cry",
        "noun and noun near with noun",
        "how how noun",
    )
)
_CRIES = (
    "hey",
    "yeah",
    "oh yeah",
    "come on",
    "let's go",
    "whoa",
    "uh huh",
    "oh baby",
    "what",
    "one more time",
    "hey hey hey",
    "sing it",
)
_VOCALISES = (
    "ah",
    "ooh",
    "oh",
    "la la la la la",
    "na na na na na na",
    "oh oh oh oh",
    "doo doo doo doo",
    "ooh ooh",
    "ah ah ah",
    "hey hey ya",
    "oh whoa oh",
    "da da dum da da",
    "sha la la la",
    "yeah yeah yeah",
)


@lru_cache(maxsize=LINES)
def line(number: int) -> str:
    """The line of a number below `LINES`."""
    rng = np.random.default_rng(number)
    pattern = _PATTERNS[number % len(_PATTERNS)]
    words = (str(rng.choice(_WORDS[word])) if word in _WORDS else word for word in pattern)
    return " ".join(words).replace("_", " ")


def draw(rng: np.random.Generator, kind: str, count: int) -> list[str]:
    """Draw texts of a kind: words, vocalise or cries."""
    if kind == "words":
        return [line(int(number)) for number in rng.integers(LINES, size=count)]
    texts = _VOCALISES if kind == "vocalise" else _CRIES
    return [str(text) for text in rng.choice(texts, size=count)]
