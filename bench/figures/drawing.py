"""Matplotlib as it is delivered: pictures are the same bytes whatever the user has set.

The only module here that imports Matplotlib, which reads the user's settings as it is imported, and fails where it can't.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any


@contextmanager
def unset() -> Iterator[None]:
    """No settings of the user for whoever is imported here: those that environment variables name, or that lie in this folder."""
    found = find_spec("matplotlib")
    data = Path(found.origin).with_name("mpl-data") if found and found.origin else None
    folder = None
    with without("MPLBACKEND", "MATPLOTLIBRC"):
        try:
            if data is not None and data.is_dir():
                os.environ["MATPLOTLIBRC"] = str(data)
                folder = away_from("matplotlibrc", data)  # which in the current folder comes before any other
            yield
        finally:
            if folder is not None:
                os.chdir(folder)


def away_from(name: str, to: Path) -> str | None:
    """Leave the current folder for another where it has a file of this name; where to return to, or None."""
    if not os.path.isfile(name):  # nor is there one in a folder that can't be searched, or is gone
        return None
    try:
        here = os.getcwd()
        os.stat(os.path.join(here, name))
    except OSError:  # no way back: better the settings, which house_style undoes
        return None
    os.chdir(to)
    return here


@contextmanager
def without(*names: str) -> Iterator[None]:
    """The environment without these variables, which are put back."""
    before = {name: os.environ.pop(name, None) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value


with unset():
    import matplotlib as mpl
    from matplotlib import font_manager
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

__all__ = ["Axes", "Figure", "FuncFormatter", "LogLocator", "NullLocator", "house_style", "unset", "without"]


def use_delivered_fonts() -> None:
    """Matplotlib's own fonts and no others: its list of fonts is a file of the user's, and may name other files, or lack some."""
    font_manager.fontManager.ttflist = []
    for path in sorted(Path(mpl.get_data_path(), "fonts", "ttf").glob("*.ttf")):
        font_manager.fontManager.addfont(path)


use_delivered_fonts()

STYLE: dict[str, Any] = {
    "svg.hashsalt": "pooling",
    "svg.fonttype": "path",
    "font.family": ["DejaVu Sans"],  # which comes with Matplotlib; no others for letters that it lacks
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}


@contextmanager
def house_style() -> Iterator[None]:
    """Matplotlib's own settings and STYLE, and nothing that was set before. Figures are made and saved within."""
    # Neither `rcdefaults` nor `style`: both read the user's style files, and the first forgets the backend.
    delivered = {name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"}
    # A date is read from the environment even where none is wanted, and is an error where it is no number.
    with mpl.rc_context(), without("SOURCE_DATE_EPOCH"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", mpl.MatplotlibDeprecationWarning)  # of settings that nobody here asked for
            mpl.rcParams.update(delivered)
        mpl.rcParams.update(STYLE)
        yield
