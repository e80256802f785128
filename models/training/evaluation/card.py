"""The figures of a model as the section of its card; needs nothing but the standard library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

BEGIN = "<!-- figures: begin (make evaluate writes them; do not edit) -->"
END = "<!-- figures: end -->"
SOURCES = ("drums", "bass", "other", "vocals")
MATERIALS = {
    "unseen": "unseen sounds",
    "known": "known sounds",
    "demo": "demo song",
    "real": "real song, sum of its stems",
    "real, released": "real song, as released",
}

# Numbers over songs: lower quartile, median, upper quartile.
Spread = Sequence[float]


def check_card(card: str) -> None:
    """Raise where there is no place for the figures."""
    if END not in card.partition(BEGIN)[2]:
        raise ValueError(f"the card has no section between {BEGIN!r} and {END!r}")


def into_card(card: str, figures: dict[str, Any]) -> str:
    """The card with its figures renewed; the rest stays as it was written."""
    check_card(card)
    before, _, rest = card.partition(BEGIN)
    after = rest.partition(END)[2]
    return f"{before}{BEGIN}\n\n{render(figures)}\n{END}{after}"


def render(figures: dict[str, Any]) -> str:
    """All figures as Markdown."""
    parts = [
        _made(figures),
        _summary(figures),
        _accuracy(figures, "unseen"),
        _accuracy(figures, "real"),
        _bss(figures),
        _absent(figures),
        _settings(figures),
        _residuals(figures),
    ]
    return "\n".join(parts)


def _made(figures: dict[str, Any]) -> str:
    model, made, songs = figures["model"], figures["made"], figures["songs"]
    speed = figures["speed"]
    versions = ", ".join(f"{name} {version}" for name, version in made["versions"].items())
    return f"""\
{model["parameters"]:,} parameters, {model["bytes"] / 1e6:.1f} MB; SHA-256 of the weights
`{model["sha256"]}`.
On one thread of a CPU "{made["cpu"]}" a separation takes {speed["rtf"]:.2f} times as long as the
music lasts (demo song, median of {speed["runs"]} runs). Measured on {made["date"]} with
{versions}.

- **Unseen sounds**: {songs["unseen"]["count"]} songs of {songs["unseen"]["seconds"]:.0f} s with \
seeds from {songs["unseen"]["first_seed"]:,}. Their
  soundfonts, drum kits and voices are none that the training used; the composer is the same.
- **Known sounds**: {songs["known"]["count"]} songs of {songs["known"]["seconds"]:.0f} s with \
seeds from {songs["known"]["first_seed"]:,}: new notes, the sounds of the training.
- **Demo song**: new notes, the sounds of the training; one of five, chosen because the model
  separates it well, so no evidence of anything.
- **Real song**: the example that comes with stempeg, 6 s; the only recorded music here.

SDR is global (all channels and samples of a song together); a source more than 30 dB below its
mixture is not scored. Over songs: the median, and in brackets lower and upper quartile. All figures
are in dB and in `evaluation.json`.
"""


def _summary(figures: dict[str, Any]) -> str:
    rows = [
        [title, *(_spread(model[s]["sdr"]) for s in SOURCES), _mean(model, "sdr")]
        for material, title in MATERIALS.items()
        for model in [figures["accuracy"][material]["model"]]
    ]
    means = {
        material: _mean_of(figures["accuracy"][material]["model"], "sdr") for material in MATERIALS
    }
    unseen, real = means["unseen"], means["real, released"]
    return f"""\
### SDR of the model

{_table(["", *SOURCES, "mean"], rows)}

From known to unseen sounds the mean SDR changes by {unseen - means["known"]:+.1f} dB, from unseen
sounds to the real song by {real - unseen:+.1f} dB. The real song is a single one of 6 s: it shows
which way things go, not how far.
"""


def _accuracy(figures: dict[str, Any], material: str) -> str:
    estimators = figures["accuracy"][material]
    sdrs = [
        [name, *(_spread(found[s]["sdr"]) for s in SOURCES), _mean(found, "sdr")]
        for name, found in estimators.items()
    ]
    si_sdrs = [
        [name, *(_with_gain(found[s]) for s in SOURCES), _mean(found, "si_sdr_gain", sign="+")]
        for name, found in estimators.items()
    ]
    return f"""\
### Beside baselines: {MATERIALS[material]}

"Classical" is HPSS, a low-pass and centre extraction; the oracle mask is computed from the true
stems (`evaluation/baselines.py`). SDR:

{_table(["", *SOURCES, "mean"], sdrs)}

SI-SDR; after the semicolon its gain over the mixture:

{_table(["", *SOURCES, "mean gain"], si_sdrs)}
"""


def _bss(figures: dict[str, Any]) -> str:
    parts = []
    for material, estimators in figures["bss_eval"].items():
        rows = [
            [name, source, *(_number(found[source][m][1]) for m in ("SDR", "ISR", "SIR", "SAR"))]
            for name, found in estimators.items()
            for source in SOURCES
        ]
        table = _table(["", "source", "SDR", "ISR", "SIR", "SAR"], rows)
        parts.append(f"{MATERIALS[material][0].upper()}{MATERIALS[material][1:]}:\n\n{table}\n")
    text = "\n".join(parts)
    return f"""\
### BSSEval v4

Of museval: the median over frames of one second, then over excerpts of 8 s (of unseen
sounds: {figures["songs"]["bss_eval"]["count"]}). The true stems have noise at -60 dB added;
without it, SIR and SAR mean nothing on music from a lossy codec (`evaluation/scores.py` says why).

{text}"""


def _absent(figures: dict[str, Any]) -> str:
    rows = [
        [MATERIALS[material], *(_spread(levels[s]) for s in SOURCES)]
        for material, levels in figures["absent"].items()
    ]
    return f"""\
### Bleed into the stem of an absent source

Level beside the mixture of the stem of a source that does not play; lower is better.

{_table(["", *SOURCES], rows)}
"""


def _settings(figures: dict[str, Any]) -> str:
    padded, free = figures["segments, padded"], figures["segments, free"]
    segments = [
        [f"{seconds} s", _spread(found["sdr"]), _spread(free[seconds]["sdr"])]
        for seconds, found in padded.items()
    ]
    overlaps = [
        [overlap, _spread(found["sdr"]), _spread(found["residual"])]
        for overlap, found in figures["overlaps"].items()
    ]
    longest = next(iter(padded))
    count = figures["songs"]["settings"]["count"]
    return f"""\
### Segment and overlap

Mean SDR of excerpts of 12 s (of unseen sounds: {count}). "Padded": a shorter segment is filled
up to {longest} s, as Demucs does; "free" (`--no-pad`): it is not.

{_table(["segment", "padded", "free"], segments)}

{_table(["overlap", "mean SDR", "left over"], overlaps)}
"""


def _residuals(figures: dict[str, Any]) -> str:
    rows = [
        [MATERIALS[material], _spread(estimators["model"]["residual"])]
        for material, estimators in figures["accuracy"].items()
    ]
    altered = figures["robustness"]
    names = list(next(iter(altered.values())))
    alterations = [
        [name, *(_number(altered[material][name][1]) for material in altered)] for name in names
    ]
    return f"""\
### Do the stems add up?

Level of what the four stems leave over of the mixture:

{_table(["", "left over"], rows)}

The same when the music is made unlike the training songs (one song each); "noise" is white noise
instead of music. Silence stays silent.

{_table(["", *(MATERIALS[material] for material in altered)], alterations)}
"""


def _mean_of(found: dict[str, Any], metric: str) -> float:
    return sum(found[source][metric][1] for source in SOURCES) / len(SOURCES)


def _mean(found: dict[str, Any], metric: str, sign: str = "") -> str:
    return _number(_mean_of(found, metric), sign)


def _with_gain(found: dict[str, Spread]) -> str:
    return f"{_spread(found['si_sdr'])}; {_number(found['si_sdr_gain'][1], '+')}"


def _spread(values: Spread) -> str:
    low, median, high = values
    if low == high:
        return _number(median)
    return f"{_number(median)} ({_number(low)} to {_number(high)})"


def _number(value: float, sign: str = "") -> str:
    # Adding zero takes the sign from a rounded -0.0.
    return f"{round(value, 1) + 0.0:{sign}.1f}"


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
