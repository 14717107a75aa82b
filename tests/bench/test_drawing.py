"""Pictures are the same bytes whatever the user has set for Matplotlib, and wherever it is found."""

from __future__ import annotations

import ast
import copy
import dataclasses
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib as mpl
import pytest
from matplotlib import font_manager

from bench.figures.drawing import Figure, away_from, house_style, unset
from bench.figures.style import svg
from bench.report.plots import pictures
from bench.schema.results import load
from tests.processes import HANG_S, unprivileged

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "reports" / "results" / "standard.json"

HOSTILE = """
text.usetex: True
font.family: serif
font.serif: cmr10
font.size: 21
font.weight: bold
mathtext.fontset: stix
axes.formatter.use_locale: True
axes.formatter.use_mathtext: True
axes.formatter.limits: -1, 1
axes.unicode_minus: False
axes.prop_cycle: cycler('color', ['r', 'g'])
axes.facecolor: black
axes.titlesize: 30
axes.labelpad: 40
axes.xmargin: 0.4
axes.ymargin: 0.4
axes.autolimit_mode: round_numbers
axes.spines.left: False
axes.axisbelow: False
axes3d.grid: False
backend: TkAgg
interactive: True
toolbar: None
timezone: Asia/Tokyo
date.epoch: 0000-12-31T00:00:00
figure.dpi: 37
figure.facecolor: pink
figure.autolayout: True
figure.constrained_layout.w_pad: 0.9
figure.subplot.left: 0.4
figure.hooks: no.such.module:hook
grid.color: red
grid.linestyle: :
grid.linewidth: 5
image.cmap: gray
hatch.color: red
legend.frameon: True
legend.fontsize: 30
legend.numpoints: 4
legend.labelcolor: red
lines.linewidth: 9
lines.linestyle: --
lines.dash_capstyle: round
lines.dashed_pattern: 1, 9
lines.marker: x
lines.markersize: 20
lines.antialiased: False
lines.scale_dashes: False
markers.fillstyle: left
patch.edgecolor: red
patch.force_edgecolor: True
patch.linewidth: 4
path.simplify: False
path.snap: False
path.sketch: 5, 100, 2
path.effects: [('withStroke', {'linewidth': 4})]
savefig.dpi: 11
savefig.bbox: tight
savefig.pad_inches: 3
savefig.facecolor: black
savefig.format: png
savefig.transparent: True
savefig.orientation: landscape
savefig.directory: /nowhere
svg.fonttype: none
svg.image_inline: False
svg.hashsalt: theirs
text.color: red
text.antialiased: False
text.hinting: none
xtick.direction: in
xtick.minor.visible: True
xtick.top: True
ytick.labelsize: 22
ytick.right: True
ytick.minor.ndivs: 3
"""

DRAW = """
import hashlib, sys
{before}
from pathlib import Path
from bench.figures.drawing import house_style
from bench.report.plots import drawings
from bench.schema.results import load
from bench.figures.style import svg
from bench.accuracy_study.page import curves
from bench.accuracy_study.store import read
results, study = map(Path, sys.argv[1:])
drawn = {{"study": curves(read(study))}}
for name, _, draw in drawings(load(results)):
    if name in ("sizes", "threads", "epochs"):
        with house_style():
            drawn[name] = svg(draw())
for name, text in drawn.items():
    print(name, hashlib.sha256(text.encode()).hexdigest())
"""

Setting = Callable[[Path], dict[str, str]]
"""Prepares a home that is also the current folder, and gives more of the environment."""


def rc_here(home: Path) -> dict[str, str]:
    (home / "matplotlibrc").write_text(HOSTILE)
    return {}


def rc_named(home: Path) -> dict[str, str]:
    (home / "their own").write_text(HOSTILE)
    return {"MATPLOTLIBRC": str(home / "their own"), "PYTHONHASHSEED": "7"}


def rc_of_the_user(home: Path) -> dict[str, str]:
    folder = home / ".config" / "matplotlib"
    (folder / "stylelib").mkdir(parents=True)
    (folder / "matplotlibrc").write_text(HOSTILE)
    (folder / "stylelib" / "default.mplstyle").write_text(HOSTILE)
    (folder / "stylelib" / "broken.mplstyle").write_bytes(b"\xff\xfe")
    return {"MPLBACKEND": "TkAgg", "TZ": "Asia/Tokyo", "SOURCE_DATE_EPOCH": "315532800", "PYTHONHASHSEED": "99"}


def rc_of_the_config_folder(home: Path) -> dict[str, str]:
    (home / "config").mkdir()
    (home / "config" / "matplotlibrc").write_text(HOSTILE)
    return {"MPLCONFIGDIR": str(home / "config"), "MPLBACKEND": "no such backend", "SOURCE_DATE_EPOCH": "yesterday"}


def damaged(home: Path) -> dict[str, str]:
    """Files at which importing Matplotlib fails."""
    (home / "matplotlibrc").write_bytes(b"font.family: \xff\xfe\n")
    (home / "other").write_bytes(b"\xff")
    return {"MATPLOTLIBRC": str(home / "other"), "MPLBACKEND": "module://no.such.module", "LC_ALL": "C"}


def nowhere_to_write(home: Path) -> dict[str, str]:
    return {"MPLCONFIGDIR": os.devnull, "HOME": os.devnull, "XDG_CACHE_HOME": os.devnull, "XDG_CONFIG_HOME": os.devnull}


def other_language(home: Path) -> dict[str, str]:
    return {"LC_ALL": "de_DE.UTF-8", "LANG": "de_DE.UTF-8", "LANGUAGE": "de", "PYTHONUTF8": "0", "TZ": "nonsense"}


def namesakes(home: Path) -> dict[str, str]:
    """Fonts of the user's called as ours is, with other letters."""
    fonts = pytest.importorskip("fontTools.ttLib", reason="Matplotlib came without fontTools")
    for folder in (home / ".fonts", home / ".local" / "share" / "fonts"):
        folder.mkdir(parents=True)
        with fonts.TTFont(Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf")) as font:
            for record in font["name"].names:
                text = record.toUnicode().replace("DejaVu Sans Mono", "DejaVu Sans").replace("Mono", "")
                font["name"].setName(text, record.nameID, record.platformID, record.platEncID, record.langID)
            font.save(folder / "DejaVuSans.ttf")
    return {}


def stale_fonts(home: Path) -> dict[str, str]:
    """A list of fonts, made when others were installed, that names one other file as ours."""
    listed = copy.copy(font_manager.fontManager)
    ours = next(font for font in listed.ttflist if Path(font.fname).name == "DejaVuSans.ttf")
    other = Path(mpl.get_data_path(), "fonts", "ttf", "DejaVuSansMono.ttf")
    listed.ttflist = [dataclasses.replace(ours, fname=str(other))]
    folder = home / ".cache" / "matplotlib"
    folder.mkdir(parents=True)
    font_manager.json_dump(listed, folder / f"fontlist-v{font_manager.FontManager.__version__}.json")
    return {}


SETTINGS: dict[str, Setting] = {
    setting.__name__: setting
    for setting in (
        rc_here,
        rc_named,
        rc_of_the_user,
        rc_of_the_config_folder,
        damaged,
        nowhere_to_write,
        other_language,
        namesakes,
        stale_fonts,
    )
}

BEFORE = {
    "settings changed": "import matplotlib\nmatplotlib.rcParams.update({'text.usetex': True, 'font.size': 33})",
    "sketched": "import matplotlib; matplotlib.use('agg'); from matplotlib import pyplot; pyplot.xkcd()",
    "another style": "import matplotlib.style; matplotlib.style.use(['dark_background', 'ggplot'])",
    "another locale": "import locale\ntry: locale.setlocale(locale.LC_ALL, '')\nexcept locale.Error: pass",
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Results and rows: those of the reference run."""
    folder = tmp_path_factory.mktemp("inputs")
    return str(shutil.copy(RESULTS, folder)), str(shutil.copy(RESULTS.with_name("study.jsonl"), folder))


def draw(home: Path, inputs: tuple[str, str], before: str = "", **environment: str) -> str:
    """The digests of all pictures, drawn in a process of its own with `home` as its home and folder."""
    ours = ("MPL", "MATPLOTLIB", "XDG_", "LC_", "LANG", "PYTHONHASHSEED", "SOURCE_DATE_EPOCH", "TZ")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(
        (sys.executable, "-W", "error", "-c", DRAW.format(before=before), *inputs),
        cwd=home,
        env=inherited | {"HOME": str(home), "PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory, inputs: tuple[str, str]) -> str:
    """With nothing set."""
    drawn = draw(tmp_path_factory.mktemp("home"), inputs)
    assert len(drawn.splitlines()) == 4
    return drawn


@pytest.mark.parametrize("setting", SETTINGS)
def test_whatever_the_user_has_set(setting: str, tmp_path: Path, inputs: tuple[str, str], expected: str) -> None:
    assert draw(tmp_path, inputs, **SETTINGS[setting](tmp_path)) == expected


@pytest.mark.parametrize("how", BEFORE)
def test_whatever_the_process_has_set(how: str, tmp_path: Path, inputs: tuple[str, str], expected: str) -> None:
    assert draw(tmp_path, inputs, BEFORE[how], LC_ALL="de_DE.UTF-8") == expected


def test_the_hostile_settings_are_settings(tmp_path: Path) -> None:
    """A key that Matplotlib doesn't know would test nothing; each is another value than the one delivered."""
    (tmp_path / "matplotlibrc").write_text(HOSTILE)
    read = mpl.rc_params_from_file(tmp_path / "matplotlibrc", use_default_template=False)
    lines = HOSTILE.strip().splitlines()
    known = [line for line in lines if line.split(":")[0] in mpl.rcParams]
    assert len(known) > 60
    assert len(read) == len(known)
    assert sum(mpl.rcParamsDefault[name] != value for name, value in read.items() if name != "backend") > 60


def test_what_was_set_is_set_again() -> None:
    with mpl.rc_context({"font.size": 33, "text.usetex": True}):
        before = dict(mpl.rcParams)
        with house_style():
            figure = Figure()
            figure.subplots().set_title("a picture")
            assert svg(figure).startswith("<svg")
            assert (mpl.rcParams["font.size"], mpl.rcParams["text.usetex"]) == (9, False)
        assert dict(mpl.rcParams) == before


def test_the_reader_of_pictures_keeps_its_settings() -> None:
    for _ in pictures(load(RESULTS)):
        assert mpl.rcParams["svg.hashsalt"] != "pooling"
        break


def test_environment_and_folder_are_put_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matplotlibrc").touch()
    monkeypatch.setenv("MPLBACKEND", "mine")
    monkeypatch.delenv("MATPLOTLIBRC", raising=False)
    with unset():
        assert "MPLBACKEND" not in os.environ
        assert not Path("matplotlibrc").samefile(tmp_path / "matplotlibrc")
    assert os.environ["MPLBACKEND"] == "mine"
    assert "MATPLOTLIBRC" not in os.environ
    assert Path.cwd() == tmp_path


def test_a_folder_that_can_not_be_searched(tmp_path: Path) -> None:
    """It raised PermissionError."""
    closed = tmp_path / "closed"
    closed.mkdir()
    code = f"import os; os.chdir({str(closed)!r}); os.chmod('.', 0); import bench.figures.drawing; print('imported')"
    done = subprocess.run(
        (*unprivileged(), sys.executable, "-P", "-c", code),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )
    closed.chmod(0o700)
    assert (done.stdout, done.returncode) == ("imported\n", 0), done.stderr


def test_a_folder_that_there_is_no_way_back_to_is_not_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "matplotlibrc").touch()
    monkeypatch.setattr(os, "getcwd", lambda: str(tmp_path / "gone"))
    assert away_from("matplotlibrc", ROOT) is None
    assert Path("matplotlibrc").samefile(tmp_path / "matplotlibrc")


def test_only_one_module_imports_matplotlib() -> None:
    for path in (ROOT / "bench").rglob("*.py"):
        if path.name == "drawing.py":
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("matplotlib")], path
