"""Layers as a table: what a cell of a CSV file means, and how a value is written in one.

Every value that JSON can hold has a cell, and a cell one meaning:

============================  ==================================================================
cell                          value
============================  ==================================================================
nothing                       the argument is left out
``2``, ``1.5``, ``inf``       a number
``true``, ``false``, ``none`` the same; none is JSON's null
``64x20x24x24``               a list; ``3x`` is one with a single entry, ``nonex4`` has an open one
``1:0x0:1``                   a list of (before, after) pairs, or of pairs and numbers
``same_upper``                a word
``[[1, 0], [0, 1]]``          JSON: whatever begins with a bracket or a quotation mark
============================  ==================================================================

`shape` is a list even of one entry. What is a word by its nature, such as a dtype, is taken as it stands.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pooling.errors import PoolingError, shown

WORDS = ("op", "name", "dtype", "direction", "data_format", "ties")
"""Columns whose cells are words, whatever they look like."""

SPELLED = {"true": True, "false": False, "none": None}
INTEGER = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf|nan)", re.IGNORECASE)

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
"""What spreadsheets write instead of commas, and what it is called."""

MOST_DIGITS = 4000
"""Digits of an integer that Python reads in any case."""


def rows_of(text: str) -> list[dict[str, Any]]:
    """The entries of each line of a table whose first line has the names.

    Raises
    ------
    PoolingError
        It is no table, or a cell is not what it has to be; the message names the line and the column.
    """
    lines = csv.reader(io.StringIO(text), skipinitialspace=True, strict=True)
    try:
        names = [name.strip() for name in next(lines, [])]
        for separator, called in SEPARATORS.items():
            if len(names) == 1 and separator in names[0]:
                raise PoolingError(f"line 1: its columns are separated by {called}: write commas")
        twice = [name for i, name in enumerate(names) if name and name in names[:i]]
        if twice:
            raise PoolingError(f"two columns have the name {shown(twice[0])}: leave one out")
        return [_row(names, cells, lines.line_num) for cells in lines if any(map(str.strip, cells))]
    except csv.Error as error:
        raise PoolingError(
            f"line {lines.line_num} is no line of a table ({error}): check its quotation marks"
        ) from None


def _row(names: Sequence[str], cells: Sequence[str], line: int) -> dict[str, Any]:
    found = {}
    for i, cell in enumerate(cells):
        if not cell.strip():
            continue
        name = names[i] if i < len(names) else ""
        if not name:
            raise PoolingError(
                f"line {line}: {shown(cell)} is in a column without a name: give it one in the first line"
            )
        try:
            found[name] = value_of(name, cell)
        except ValueError as error:
            raise PoolingError(
                f"line {line}: {name}={shown(cell)} is no JSON ({error}): write it as 2, 3x3 or 1:0x0:1"
            ) from None
        if name not in WORDS and isinstance(found[name], str) and not cell.strip().isidentifier():
            form = "2x3x8x8" if name == "shape" else "2, 3x3 or 1:0x0:1"
            raise PoolingError(f"line {line}: {name}={shown(cell)} is no number and no list: write it as {form}")
    return found


def value_of(name: str, cell: str) -> Any:
    """What a cell of the column `name` means; ValueError for one that begins like JSON and is none.

    Examples
    --------
    >>> [value_of("padding", cell) for cell in ("1", "1x0", "1:0x0:1", "1x", "same_upper", "[[1, 0]]")]
    [1, [1, 0], [[1, 0], [0, 1]], [1], 'same_upper', [[1, 0]]]
    """
    text = cell.strip()
    if name in WORDS:
        return text
    if text[:1] in ("[", '"'):
        return json.loads(text, parse_int=integer)
    parts = text.lower().split("x")
    closed = parts[:-1] if len(parts) > 1 and not parts[-1].strip() else parts
    values = [_part(part.strip()) for part in closed]
    if any(value is ... for value in values):
        return text
    one = len(parts) == 1 and not isinstance(values[0], list) and name != "shape"
    return values[0] if one else values


def _part(text: str) -> Any:
    """A number, true, false, none or a pair; an ellipsis for what is none of them."""
    if text in SPELLED:
        return SPELLED[text]
    if INTEGER.fullmatch(text):
        return integer(text)
    if NUMBER.fullmatch(text):
        return float(text)
    pair = text.split(":")
    if len(pair) == 2 and all(INTEGER.fullmatch(end.strip()) for end in pair):
        return [integer(end.strip()) for end in pair]
    return ...


def integer(digits: str) -> float:
    """An int; one too long for Python to read as a float, which is infinite, and refused wherever an int is wanted."""
    return int(digits) if len(digits) <= MOST_DIGITS else float(digits)


def cell_of(name: str, value: Any) -> str:
    """The cell that means `value`.

    Examples
    --------
    >>> [cell_of("padding", value) for value in (1, [1], [[1, 0], [0, 1]], "valid", [[0.5]])]
    ['1', '1x', '1:0x0:1', 'valid', '[[0.5]]']
    """
    text = _spelled(value)
    if text is None or (name not in WORDS and not _means(text, name, value)):
        text = json.dumps(value)
    return text


def _means(text: str, name: str, value: Any) -> bool:
    """Whether a cell is read as `value`, and of the same types: 1, 1.0 and true are equal."""
    try:
        return text.isprintable() and text != "" and json.dumps(value_of(name, text)) == json.dumps(value)
    except ValueError:
        return False


def _spelled(value: Any) -> str | None:
    """The short form of a value; None where it has none."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        return str(value).lower()
    parts = []
    for entry in value:
        if isinstance(entry, list) and [type(end) for end in entry] == [int, int]:
            parts.append(":".join(map(str, entry)))
        elif isinstance(entry, int | float | None):
            parts.append(str(entry).lower())
        else:
            return None
    return "x".join(parts) + "x" * (len(parts) == 1)


def table_of(rows: Sequence[Mapping[str, Any]]) -> str:
    """A table with a line for each of `rows`, and a column for each name in any of them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(names)
    lines.writerows([cell_of(name, row[name]) if name in row else "" for name in names] for row in rows)
    return text.getvalue()
