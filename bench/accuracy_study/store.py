"""Rows on disk: a line of JSON each, added at once when a run is done, so that whatever happens later it counts, and once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import filelock
from pydantic import TypeAdapter, ValidationError

from bench.accuracy_study.runs import Row
from bench.schema.results import ResultsError

_ROW = TypeAdapter(Row)


class Store:
    """The rows in a file, which one study at a time may write to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = filelock.FileLock(path.with_suffix(".lock"))
        self.rows = {row.key: row for row in read(path)}

    def __enter__(self) -> Store:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self.lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ResultsError(
                f"{self.path}: another study writes to it; wait for its end, or choose another --out"
            ) from None
        self.rows = {row.key: row for row in read(self.path)}
        whole = self.path.read_bytes() if self.path.exists() else b""
        if whole and not whole.endswith(b"\n"):  # a line that a crash cut short
            with self.path.open("r+b") as file:
                file.truncate(whole.rfind(b"\n") + 1)
        return self

    def __exit__(self, *_: object) -> None:
        self.lock.release()

    def add(self, row: Row) -> bool:
        """Keep a row, on disk before this returns; False where its run has one already."""
        if row.key in self.rows:
            return False
        with self.path.open("a", encoding="utf-8", newline="\n") as file:
            file.write(json.dumps(asdict(row), allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.rows[row.key] = row
        return True


def read(path: Path) -> list[Row]:
    """The rows in a file, none where there is none; a last line that a crash cut short is passed over.

    Raises
    ------
    ResultsError
        A whole line is not a row.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    found: list[Row] = []
    for number, line in enumerate(lines[:-1], start=1):  # behind the last newline is nothing, or half a line
        try:
            found.append(_ROW.validate_json(line))
        except ValidationError as error:
            problem = error.errors()[0]
            raise ResultsError(
                f"{path}, line {number}: {'.'.join(map(str, problem['loc'])) or 'the line'}: {problem['msg']}; "
                "remove the line, and the run will be done again"
            ) from None
    return once(found)


def once(rows: Iterable[Row]) -> list[Row]:
    """The first row of each run."""
    return list({row.key: row for row in reversed(list(rows))}.values())[::-1]
