"""Folders of the user in which this library keeps files: in `cache` what can be made again, in `data` what was measured.

A process may have no home: in a container whose user has no entry in the list of users, say. Then it has no such folder either,
and its callers compute without it.
"""

from __future__ import annotations

import os
import sys
from typing import Literal

from pooling.errors import shown

NAME = "pooling"

XDG = {"cache": ("XDG_CACHE_HOME", ".cache"), "data": ("XDG_DATA_HOME", os.path.join(".local", "share"))}


class NoPlace(OSError):
    """There is no such folder; the message says why."""


def user_folder(kind: Literal["cache", "data"]) -> str:
    """What platformdirs says; where that is simple, without its import, which takes 7 ms.

    Raises
    ------
    NoPlace
        The user has no home, or it is not an absolute path.
    """
    if sys.platform == "linux" and "ANDROID_DATA" not in os.environ:
        variable, below_home = XDG[kind]
        given, home = os.environ.get(variable, ""), os.environ.get("HOME", "")
        if os.path.isabs(given):
            return os.path.join(given, NAME)
        if not given and os.path.isabs(home):
            return os.path.join(home, below_home, NAME)
    import platformdirs

    find = platformdirs.user_cache_dir if kind == "cache" else platformdirs.user_data_dir
    try:
        folder = find(NAME, appauthor=False)
    except (RuntimeError, OSError):  # RuntimeError: no absolute home, as newer versions say it
        folder = ""
    if not os.path.isabs(folder):
        raise NoPlace(f"this user has no home folder (HOME is {shown(os.environ.get('HOME'))})")
    return folder


def named(variable: str) -> str | None:
    """The absolute path that an environment variable names; None where it is empty or not set.

    Raises
    ------
    NoPlace
        It names the home of a user without one, or is relative to a working directory that is gone.
    """
    given = os.environ.get(variable)
    if not given:
        return None
    path = os.path.expanduser(given)  # written in a file of settings, no shell has done it
    homeless = not os.path.isabs(path) or os.environ.get("HOME") == ""  # which makes "/" of "~/"
    if given.startswith("~") and homeless:
        raise NoPlace(f"{variable}={shown(given)} names a home folder that there is not")
    try:
        return os.path.abspath(path)
    except OSError:
        raise NoPlace(f"{variable}={shown(given)} is relative to a folder that is gone") from None
