"""Export, import, merge and removal of wisdom. Whatever is not taken is reported, with the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

from pooling.backends.registry import REGISTRY
from pooling.errors import PoolingError
from pooling.tuning.candidates import source_of
from pooling.tuning.machine import machine
from pooling.tuning.store import frozen, here, location, locked, store, text_of, write
from pooling.tuning.wisdom import Record, Wisdom, WisdomError, chosen, joined, sift, to_text


@dataclass
class Imported:
    """By key, what was taken, known already, and refused with the reason."""

    took: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)


def contents(path: Path | None = None) -> tuple[Wisdom, dict[str, str]]:
    """What a file holds, by default the store's, and by key what in it is not sound; nothing where there is no file.

    Raises
    ------
    PoolingError
        It can't be read, or is no wisdom at all.
    """
    file = location() if path is None else path
    try:
        if file is None:
            raise FileNotFoundError
        return sift(text_of(file))
    except FileNotFoundError:
        if path is None:  # nothing measured yet, or in memory alone
            return Wisdom({here(): machine()}, {here(): store.load().sound()}), {}
        raise PoolingError(f"{path}: there is no such file; name one that `pooling wisdom export` wrote") from None
    except (OSError, WisdomError) as error:
        own = (
            "set POOLING_WISDOM to another file"
            if isinstance(error, OSError)
            else "move it away, or let `pooling tune` do so"
        )
        remedy = "name one that `pooling wisdom export` wrote" if path else own
        raise PoolingError(f"{file}: {getattr(error, 'strerror', None) or error}; {remedy}") from None


def exported(everything: bool = False) -> str:
    """The store's text: of this machine and these versions, or with `everything` of all."""
    wisdom, _ = contents()
    if not everything:
        name = here()
        wisdom = Wisdom({name: machine()}, {name: wisdom.records.get(name, {})})
    return to_text(wisdom)


def import_file(path: Path) -> Imported:
    """Take into the store what in a file is of use on this machine.

    Refused are records of other machines or versions, of backends that are not here or whose source is another, and what is
    not sound. Of a candidate that is known already the later measurement stays.
    """
    _may_write()
    wisdom, unsound = contents(path)
    imported = Imported(refused=dict(unsound))
    name = here()
    mine = machine()
    taken: dict[str, Record] = {}
    for theirs, records in wisdom.records.items():
        for key, record in records.items():
            if theirs != name:
                differ = [what for what in mine if wisdom.machines[theirs].get(what) != mine[what]]
                imported.refused.setdefault(key, f"it was measured with other {', '.join(differ) or 'facts'}")
            elif (kept := _usable(record)) is None:
                imported.refused[key] = _why_not(record)
            elif (stored := store.get(key)) is not None and joined(stored, kept) == stored:
                imported.known.append(key)
            else:
                taken[key] = kept
                imported.took.append(key)
                imported.refused.pop(key, None)
    if taken:
        update = Wisdom({name: mine}, {name: taken})
        store.change(lambda known: known.add(update))
    return imported


def _usable(record: Record) -> Record | None:
    """The record with the candidates that are the same here; None when none with a time is left."""
    kept = {n: one for n, one in record.candidates.items() if n in REGISTRY and one.source == source_of(REGISTRY[n])}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    choice = record.choice if record.choice in kept else chosen(kept, None)
    if choice is None or any(one.measured > now for one in kept.values()):
        return None
    return replace(record, choice=choice, candidates=kept)


def _why_not(record: Record) -> str:
    unknown = [name for name in record.candidates if name not in REGISTRY]
    if len(unknown) == len(record.candidates):
        return f"there is no backend {', '.join(unknown)} here"
    same = [n for n, one in record.candidates.items() if n in REGISTRY and one.source == source_of(REGISTRY[n])]
    return "it was measured in the future" if same else "the sources of its backends are others than here"


def merge(paths: Sequence[Path], into: Path | None = None) -> int:
    """Join files, whatever machines they are of, into a file, by default the store's; how many records that then has."""
    _may_write()
    found = Wisdom()
    for path in paths:
        found.add(_all_sound(path))
    if into is None:
        if not store.change(lambda known: known.add(found)):
            raise PoolingError("the store can't be written: name a file with --into")
        return contents()[0].count
    try:
        with locked(into):
            if into.exists():
                found.add(_all_sound(into))
            write(into, to_text(found))
    except OSError as error:
        raise PoolingError(f"{into} can't be written: {error.strerror or error}; name another file") from None
    return found.count


def _all_sound(path: Path) -> Wisdom:
    """What a file holds; PoolingError where a part of it would be lost."""
    wisdom, unsound = contents(path)
    for key, reason in unsound.items():
        raise PoolingError(
            f"{path}: {key}: {reason}; nothing was merged: remove that record, or take the others by `pooling wisdom import`"
        )
    return wisdom


def forget(wanted: Callable[[str, str, Record], bool]) -> int:
    """Remove records from the store: those for which `wanted`, given machine, key and record, is true. How many."""
    _may_write()
    removed = 0

    def edit(wisdom: Wisdom) -> None:
        nonlocal removed
        for name in list(wisdom.records):
            records = wisdom.records[name]
            for key in [key for key, record in records.items() if wanted(name, key, record)]:
                del records[key]
                removed += 1
            if not records:
                wisdom.records.pop(name)
                wisdom.machines.pop(name, None)

    store.change(edit)
    return removed


def stale(name: str, key: str, record: Record) -> bool:
    """Whether nothing in a record can be relied on any more: another machine or version, or all sources have changed."""
    return name != here() or _usable(record) is None


def matching(words: Iterable[str]) -> Callable[[str, str, Record], bool]:
    """What to give :func:`forget`: keys that have all these words in them."""
    given = list(words)
    return lambda name, key, record: all(word in key for word in given)


def _may_write() -> None:
    if frozen():
        raise PoolingError("POOLING_FROZEN is set, so nothing may be written: unset it")
