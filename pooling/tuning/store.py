"""The store: wisdom in memory and on disk, for many threads, many processes, and a disk that may refuse.

The file is read once, when a choice is first asked for. It is written under a lock, merged with what others have written
meanwhile, as a whole and under another name first, so that no reader finds, and no killed writer leaves, half a file. A file in
which something is not sound is set aside, with a warning, and a new one is begun with the rest. Where nothing can be written,
what is found is remembered in memory until the process ends. Nothing here ever fails a call that pools.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import warnings
from collections.abc import Callable, Iterator
from threading import RLock
from typing import TYPE_CHECKING

from pooling.runtime.user_dirs import named, user_folder
from pooling.tuning.layer import Facts
from pooling.tuning.machine import machine, name_of
from pooling.tuning.wisdom import Record, Records, Wisdom, WisdomError, from_text, raw, sift, to_text

if TYPE_CHECKING:
    from pathlib import Path

FILE = "wisdom.json"
LARGEST = 1 << 24
"""Bytes of the largest file that is read: a record takes about one thousand."""

WAIT_S = 30.0
"""How long to wait for other writers."""

GLANCE_S = 1.0
"""The same while a call that pools waits, which could not even read: it goes by the rule instead."""


class WisdomWarning(UserWarning):
    """Something is wrong with the store of measured choices; choices are made all the same."""


def frozen() -> bool:
    """Whether POOLING_FROZEN asks to write nothing."""
    return os.environ.get("POOLING_FROZEN", "").strip().lower() not in ("", "0", "false", "no", "off")


def location() -> Path | None:
    """The file: POOLING_WISDOM, or in that folder, or in the user's data folder; None if there is none, or it is /dev/null."""
    from pathlib import Path

    place = _place()
    return None if place is None else Path(place)


def no_location() -> str | None:
    """Why there is no file, or why it can't be written; None where it can."""
    try:
        place = _find_place()
    except (OSError, ValueError) as error:
        return f"{error}; set POOLING_WISDOM to a file"
    if place is None:
        return f"POOLING_WISDOM is {os.devnull}"
    if frozen():
        return "POOLING_FROZEN is set: it is only read"
    above = place if os.path.exists(place) else os.path.dirname(place)
    while not os.path.exists(above):
        above = os.path.dirname(above)
    needed = os.W_OK if above == place else os.W_OK | os.X_OK  # nothing is made in a folder that can't be searched
    if os.access(above, needed) and (above == place or os.path.isdir(above)):
        return None
    return f"{above} can't be written: choices are kept in memory; set POOLING_WISDOM to a file that can be"


def _place() -> str | None:
    """The same as text: a process that only looks for records need not wait 4 ms for the import of pathlib."""
    try:
        return _find_place()
    except (OSError, ValueError):
        return None


def _find_place() -> str | None:
    """The same; NoPlace where there is no home, None for /dev/null."""
    given = os.environ.get("POOLING_WISDOM")
    if given == os.devnull:
        return None
    path = named("POOLING_WISDOM")
    if given and path:
        folder = given.endswith(("/", os.sep)) or os.path.isdir(path)
        return os.path.realpath(os.path.join(path, FILE) if folder else path)
    return os.path.realpath(os.path.join(user_folder("data"), FILE))


def warn(message: str) -> None:
    """Warn; where warnings are made errors, say it on stderr instead, because pooling never fails for the store."""
    try:
        warnings.warn(message, WisdomWarning, stacklevel=_user_level())
    except WisdomWarning:
        with contextlib.suppress(Exception):
            sys.stderr.write(f"pooling: {message}\n")


def _user_level() -> int:
    """How far up, for whom this is called from, the first frame is that is none of this package's."""
    frame, level = sys._getframe(1), 1
    package = __name__.partition(".")[0]
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == package:
        frame, level = frame.f_back, level + 1
    return level


class Store:
    """This process's view of the file, and the only one that writes it."""

    def __init__(self) -> None:
        self.lock = RLock()
        self.records: Records | None = None
        self.memory_only = False
        self.version: object = object()

    def find(self, facts: Facts) -> Record | None:
        """The record of this problem: with its own size, or else with the next smaller or larger one."""
        if self.load():
            for size in (facts.size, facts.size - 1, facts.size + 1):
                record = self.get(f"{facts.family} bytes<=4^{size}")
                if record is not None:
                    return record
        return None

    def get(self, key: str) -> Record | None:
        """The record of this very key. One that is not sound makes its file a damaged one."""
        try:
            return self.load().get(key)
        except WisdomError:
            with self.lock:
                path = location()
                if path is not None:
                    self.read(path)
                self.records = Records(self.load().sound())
            return None

    def load(self) -> Records:
        """This machine's records, from the file if that has not been read yet."""
        if self.records is not None:
            return self.records
        with self.lock:
            if self.records is None:
                place = _place()
                self.records = Records() if place is None else self._load_file(place)
            return self.records

    def _load_file(self, place: str) -> Records:
        try:
            return Records(raw(text_of(place))[1].get(here()))
        except FileNotFoundError:
            return Records()
        except (WisdomError, OSError):
            from pathlib import Path

            return Records(self.read(Path(place)).records.get(here()))  # which knows what to say, and to do

    def reload(self) -> None:
        """Forget what was read, and let operators choose anew."""
        with self.lock:
            self.records = None
            self.version = object()

    def add(self, key: str, record: Record) -> bool:
        """Keep a record, in memory and if possible on disk; whether it was."""
        update = Wisdom({here(): machine()}, {here(): {key: record}})
        return self.change(lambda wisdom: wisdom.add(update))

    def change(self, edit: Callable[[Wisdom], None]) -> bool:
        """Apply `edit` to what the file holds, in memory and if possible on disk; whether it was."""
        with self.lock:
            known = Wisdom({here(): machine()}, {here(): self.load().sound()})
            written = False
            path = location()
            if not frozen() and path is not None and not self.memory_only:
                try:
                    known = self._change_file(path, known, edit)
                    written = True
                except (OSError, NotImplementedError) as error:
                    self.memory_only = True
                    warn(
                        f"{path} can't be written ({_said(error)}): choices are kept in memory until this process ends"
                    )
            if not written:
                edit(known)
            self.records = Records(known.records.get(here()))
            self.version = object()
            return written

    def _change_file(self, path: Path, known: Wisdom, edit: Callable[[Wisdom], None]) -> Wisdom:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise OSError("it is not a file")  # a device, say, whose folder shall have no lock of ours either
        with locked(path):
            wisdom = self.read(path, have_lock=True, instead=known)
            edit(wisdom)
            write(path, to_text(wisdom))
        return wisdom

    def read(self, path: Path, have_lock: bool = False, instead: Wisdom | None = None) -> Wisdom:
        """What the file holds; nothing where there is none, and `instead`, after a warning, of one that is damaged."""
        try:
            return from_text(text_of(path))
        except (FileNotFoundError, NotADirectoryError):
            return Wisdom()
        except WisdomError as error:
            if have_lock:
                return self._set_aside(path, str(error), instead or Wisdom())
            if frozen() or not self._again_with_lock(path):
                warn(f"{path} is left alone: {error}")
        except OSError as error:
            if have_lock:
                raise
            warn(f"{path} can't be read ({_said(error)}): backends are chosen by the rule")
        return Wisdom()

    def _again_with_lock(self, path: Path) -> bool:
        """Read again under the lock, and set the file aside if it is still damaged; False if that is not possible."""
        try:
            with locked(path, GLANCE_S):
                self.read(path, have_lock=True)
        except (OSError, NotImplementedError):
            return False
        return True

    def _set_aside(self, path: Path, reason: str, known: Wisdom) -> Wisdom:
        """Rename a damaged file, and begin a new one with what is sound in it, of all machines; that and what is known."""
        number, aside = 1, path.with_name(f"{path.name}.aside")
        while aside.exists():
            number, aside = number + 1, path.with_name(f"{path.name}.aside-{number + 1}")
        os.replace(path, aside)
        message = f"{path} can't be used: {reason}. It is now {aside.name}, and a new one is begun"
        sound = Wisdom()
        with contextlib.suppress(OSError, WisdomError):  # of what is no wisdom at all
            sound, _ = sift(text_of(aside))
            write(path, to_text(sound))
            message += f" with the {sound.count} records in it that are sound"
        warn(message)
        sound.add(known)
        return sound


def here() -> str:
    """This machine's name."""
    return name_of(machine())


def text_of(path: Path | str) -> str:
    """A wisdom file's text; WisdomError where it can't be one."""
    with contextlib.closing(_Descriptor(path)) as file:
        facts = os.fstat(file.number)
        if not stat.S_ISREG(facts.st_mode):
            raise OSError("it is not a file")
        if facts.st_size > LARGEST:
            raise WisdomError(f"it has {facts.st_size} bytes, more than {LARGEST}")
        with open(file.number, "rb", closefd=False) as stream:
            try:
                return stream.read().decode("utf-8-sig")  # editors may put a mark before it
            except UnicodeDecodeError:
                raise WisdomError("it is not text") from None


class _Descriptor:
    """An open file by its number; a pipe without a writer is not waited for."""

    def __init__(self, path: Path | str) -> None:
        self.number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))

    def close(self) -> None:
        os.close(self.number)


def write(path: Path, text: str) -> None:
    """Write a file as a whole or not at all. The caller holds the lock, so temporary files of others are left-overs."""
    for left in path.parent.glob(f".{path.name}.*.tmp"):
        left.unlink(missing_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(path: Path, wait_s: float = WAIT_S) -> Iterator[None]:
    """Hold the lock of a file; OSError when it can't be had."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(f"{path}.lock", timeout=wait_s):
            yield
    except Timeout:
        raise OSError(f"another process has held {path.name}.lock for {wait_s:g} s") from None


def _said(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)


store = Store()


def _after_fork() -> None:
    """A forked child may have a lock that another thread held."""
    store.lock = RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
