"""The table of a sweep: its columns, and how it is written to a file and read back."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stemlab._typing import StrPath
from stemlab.errors import ParameterError
from stemlab.files import check_writable, parse_json, read_bounded, write_atomically
from stemlab.metrics import FIGURES
from stemlab.separation.settings import MAX_SHIFTS
from stemlab.sweeps.plan import SweepPlan

if TYPE_CHECKING:
    import pandas as pd


def _columns() -> dict[str, str]:
    columns = {
        "model": "name of the model",
        "segment_seconds": "segment asked for, in s; the model's own where none was",
        "overlap": "fraction of a segment shared with the next, in [0, 1)",
        "shifts": "number of random time shifts averaged; 0 without",
        "padded": "whether the model pads short segments to its training length",
        "source": "the stem; empty in the one row of a setting that failed",
    }
    for name, figure in FIGURES.items():
        columns[name] = figure.meaning
        if name == "rtf":
            columns["timed_alone"] = "False where other settings of the sweep ran beside it"
    return columns | {
        "device": "where the network ran",
        "computation": "equal for settings that come to the same computation, which is run once",
        "note": "what the user should know of the setting",
        "error": "why the setting failed; empty otherwise",
    }


COLUMNS = MappingProxyType(_columns())
"""Name and meaning of each column, in order."""

_TEXTS = ("model", "source", "device", "computation", "note", "error")
_FLAGS = ("padded", "timed_alone")
_COMMENT = "# "
_MOST_BYTES = 50_000_000
# The cost of comparing all settings grows with the square of their number.
_MOST_ROWS = 5_000
# A spreadsheet takes a cell that begins like this for a formula.
_FORMULA = re.compile(r"[\s']*[=+\-@\uff1d\uff0b\uff0d\uff20\t\r\n]")
_JSON_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')


def make_table(
    plan: SweepPlan, records: Mapping[str, Mapping[str, Any]], errors: Mapping[str, str]
) -> pd.DataFrame:
    """Make the table of a sweep from its records and errors, each by the key of a computation."""
    import pandas as pd  # Takes a while to load.

    rows: list[dict[str, Any]] = []
    for setting, found in plan.settings.items():
        shared = {**asdict(setting), "timed_alone": False}
        if isinstance(found, str):
            rows.append({**shared, "error": found})
        elif found.key in records:
            shared |= found.columns
            rows += [shared | figures for figures in _figures(records[found.key])]
        elif found.key in errors:
            rows.append({**shared, **found.columns, "error": errors[found.key]})
    results = pd.DataFrame(rows, columns=list(COLUMNS))
    # The same as when it is read from a file.
    results.attrs["manifest"] = json.loads(json.dumps(plan.manifest()))
    return _typed(results)


def _figures(record: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Return the columns of a record for each of its sources."""
    walls = record["wall_seconds"]
    median = statistics.median(walls)
    shared = {
        "wall_seconds": median,
        "wall_seconds_min": min(walls),
        "wall_seconds_max": max(walls),
        "repeats": len(walls),
        "rtf": median / record["seconds"],
        **{name: record[name] for name in ("timed_alone", "peak_memory_bytes", "device")},
        **{name: record[name] for name in ("seams", "consistency_db")},
    }
    for source, figures in record["sources"].items():
        worst = (figures["worst_seams"] or [[None, None]])[0]
        yield {
            **shared,
            **{name: figures[name] for name in figures.keys() & FIGURES.keys()},
            "source": source,
            "worst_seam_seconds": worst[0],
            "worst_seam_db": worst[1],
        }


def _typed(results: pd.DataFrame) -> pd.DataFrame:
    """Give each column its type, whatever is missing in it."""
    for name in _TEXTS:
        texts = results[name].astype(object)
        results[name] = texts.where(texts.notna(), None if name == "source" else "")
    kinds = {name: "float64" for name in COLUMNS if name not in _TEXTS}
    return results.astype(kinds | dict.fromkeys(_FLAGS, "bool") | {"shifts": "int64"})


def write_sweep(results: pd.DataFrame, path: StrPath) -> None:
    """Write the table of a sweep, with the manifest that tells how it was made.

    Parameters
    ----------
    results : DataFrame
        As `sweep` returns it.
    path : path
        Ends in ``.csv`` (the manifest is a first line that starts with ``#``; for pandas,
        ``comment="#"``) or ``.json``. Replaced if it is there.

    Raises
    ------
    ParameterError
        If it ends in something else.
    OutputError
        If it cannot be written. An earlier file is then left as it was.
    """
    path = Path(path)
    check_table_path(path)
    manifest = json.dumps(results.attrs.get("manifest", {}))
    if path.suffix.lower() == ".csv":
        table = results.map(_guarded)
        # In quotes, a "#" does not begin a comment.
        quoted = table.to_csv(index=False, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
        content = f"{_COMMENT}{_guarded_json(manifest)}\n{quoted}"
    else:
        columns = {name: COLUMNS.get(str(name), "") for name in results.columns}
        content = json.dumps(
            {"manifest": json.loads(manifest), "columns": columns, "rows": plain_rows(results)},
            indent=1,
        )
    write_atomically(path, content.encode(), advice=", or choose another file")


def check_table_path(path: StrPath) -> None:
    """Raise if the table cannot be written there, before anything is measured."""
    if Path(path).suffix.lower() not in (".csv", ".json"):
        raise ParameterError(
            f"{str(path)!r} does not end in .csv or .json, which says how to write the table. "
            "Name for instance results.csv."
        )
    check_writable(Path(path), "Name another file.")


def plain_rows(results: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as standard JSON can hold them."""

    def plain(value: Any) -> Any:
        if not isinstance(value, float) or math.isfinite(value):
            return value
        return None if math.isnan(value) else str(value)

    return [
        {str(name): plain(value) for name, value in row.items()}
        for row in results.to_dict(orient="records")
    ]


def read_sweep(path: StrPath) -> pd.DataFrame:
    """Read a table that `write_sweep` wrote.

    Parameters
    ----------
    path : path

    Returns
    -------
    results : DataFrame
        With ``attrs["manifest"]``.

    Raises
    ------
    ParameterError
        If it cannot be read, or is no such table.
    """
    path = Path(path)
    try:
        text = read_bounded(path, _MOST_BYTES).decode()
        if path.suffix.lower() == ".json":
            fields = parse_json(text)
            manifest, columns, rows = fields["manifest"], list(fields["columns"]), fields["rows"]
        else:
            first, _, table = text.partition("\n")
            manifest = parse_json(first.removeprefix(_COMMENT))
            lines = csv.reader(io.StringIO(table, newline=""))
            columns = next(lines, [])
            rows = (_row_of_texts(columns, texts) for texts in lines if texts)
        if not isinstance(manifest, dict):
            raise ValueError("its manifest is not a JSON object")
        results = _table_of(columns, rows)
    except OSError as error:
        raise ParameterError(
            f"{str(path)!r} cannot be read: {error.strerror}. Pass what `stemlab sweep "
            "--out` wrote."
        ) from error
    except (ValueError, KeyError, TypeError, ArithmeticError, csv.Error) as error:
        raise ParameterError(
            f"{str(path)!r} is not the table of a sweep ({error}). Pass what `stemlab sweep --out` "
            "wrote."
        ) from error
    results.attrs["manifest"] = manifest
    return results


def _row_of_texts(columns: Sequence[str], texts: Sequence[str]) -> dict[str, Any]:
    """Give the cells of a line of CSV the types of their columns."""
    row: dict[str, Any] = {}
    for name, text in zip(columns, texts, strict=True):
        if name in _TEXTS:
            is_guarded = text.startswith("'") and _FORMULA.match(text)
            row[name] = text[1:] if is_guarded else text or None
        elif name in _FLAGS:
            row[name] = {"true": True, "false": False}[text.lower()]
        else:
            row[name] = float(text) if text else None
    return row


def _table_of(columns: Sequence[str], rows: Any) -> pd.DataFrame:
    """Make the table of rows from a file; raise ValueError for what no sweep has."""
    import pandas as pd  # Takes a while to load.

    if list(columns) != list(COLUMNS):
        raise ValueError("its columns are others")
    rows = list(rows)
    if len(rows) > _MOST_ROWS:
        raise ValueError(f"it has {len(rows)} rows, more than {_MOST_ROWS}")
    if not all(isinstance(row, dict) for row in rows):
        raise ValueError("its rows are not a list of JSON objects")
    results = pd.DataFrame(rows, columns=list(COLUMNS), dtype=object)
    for name in results.columns:
        for value in results[name]:
            _check_value(name, value)
    results = _typed(results.replace({"inf": math.inf, "-inf": -math.inf}))
    ranges = {
        "segment_seconds": results["segment_seconds"].between(0, math.inf, inclusive="neither"),
        "overlap": results["overlap"].between(0, 1, inclusive="left"),
        "shifts": results["shifts"].between(0, MAX_SHIFTS),
        "rtf": results["rtf"].between(0, math.inf, inclusive="neither") | (results["error"] != ""),
        "model": results["model"] != "",
    }
    for name, fits in ranges.items():
        if not fits.all():
            wrong = str(results.loc[~fits, name].iloc[0])[:40]
            raise ValueError(f"its column {name!r} holds {wrong!r}")
    return results


def _check_value(name: str, value: Any) -> None:
    """Raise ValueError for a value that does not have the type of its column."""
    if name in _TEXTS:
        fits = isinstance(value, str) or value is None
    elif name in _FLAGS:
        fits = isinstance(value, bool)
    elif name == "shifts":
        fits = type(value) is int or (type(value) is float and value.is_integer())
    else:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        fits = number or value is None or value in ("inf", "-inf")
    if not fits:
        raise ValueError(f"its column {name!r} holds {str(value)[:40]!r}")


def _guarded(value: Any) -> Any:
    """Quote a text that a spreadsheet would take for a formula."""
    return f"'{value}" if isinstance(value, str) and _FORMULA.match(value) else value


def _guarded_json(text: str) -> str:
    """Escape what a spreadsheet that splits this JSON into cells would take for formulas."""

    def guard(match: re.Match[str]) -> str:
        return re.sub(
            r"(?<=[,;])(\s*)([=+\-@])", lambda found: f"{found[1]}\\u{ord(found[2]):04x}", match[0]
        )

    return _JSON_TEXT.sub(guard, text)
