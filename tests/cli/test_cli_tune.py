"""The tuner from the command line: pick, tune and wisdom."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import pooling
from pooling.backends.registry import REGISTRY
from pooling.cli import app
from pooling.cli.tune import _bar
from pooling.tuning import timing as measuring
from pooling.tuning.store import here, store
from pooling.tuning.wisdom import from_text
from tests.wisdom import CHEAP, SHAPE, key, made_up, only, store_in, wrong_forward

LAYER = ("--shape", "4,3,12,12", "--kernel", "2")


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    only(CHEAP, monkeypatch)
    monkeypatch.setattr(measuring, "MOST", 6)
    with store_in(tmp_path / "wisdom.json", monkeypatch) as path:
        yield path


def run(*arguments: str, code: int = 0) -> Result:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, result.output
    return result


def test_tune_then_pick() -> None:
    shown = run("tune", *LAYER).stdout
    assert "1 measured, 0 known already, 0 left out" in shown
    assert "kept in " in shown
    told = json.loads(run("pick", *LAYER, "--json").stdout)
    assert (told["origin"], told["key"]) == ("record", key())
    assert {place["backend"] for place in told["ranking"]} == {"strided_slices", "argmax_switches"}
    assert all(place["measured"] and place["seconds"] > 0 for place in told["ranking"])
    assert told["backend"] == pooling.pick(SHAPE, "float32", pooling.MaxPool(2))
    assert "0 measured, 1 known already" in run("tune", *LAYER).stdout
    assert "1 measured" in run("tune", *LAYER, "--again").stdout


def test_pick_shows_bars_and_the_source() -> None:
    store.add(key(), made_up({"strided_slices": 20.0, "argmax_switches": 40.0}))
    shown = run("pick", *LAYER, "--show-source").stdout
    lines = shown.splitlines()
    assert lines[0] == "strided_slices"
    (fast,) = (line for line in lines if line.startswith("* strided_slices"))
    (slow,) = (line for line in lines if "argmax_switches" in line and "us" in line)
    assert 0 < fast.count("█") < slow.count("█")
    source = Path(__file__).parents[2] / "pooling" / "backends" / "strided_slices.py"
    assert source.read_text(encoding="utf-8").strip() in shown
    assert json.loads(run("pick", *LAYER, "--show-source", "--json").stdout)["source"] == source.read_text(
        encoding="utf-8"
    )


def test_pick_by_direction_and_threads() -> None:
    store.add(key(direction="inference", threads=3), made_up({"argmax_switches": 1.0}))
    told = json.loads(run("pick", *LAYER, "--direction", "inference", "--threads", "3", "--json").stdout)
    assert (told["backend"], told["direction"], told["threads"]) == ("argmax_switches", "inference", 3)
    assert json.loads(run("pick", *LAYER, "--json").stdout)["origin"] == "rule"


def test_tune_from_a_file(tmp_path: Path) -> None:
    table = tmp_path / "layers.csv"
    table.write_text("shape,kernel_size\n4x3x12x12,2\n4x3x12x12,3\n", encoding="utf-8")
    told = json.loads(run("tune", str(table), "--direction", "inference", "--json").stdout)
    assert set(told["measured"]) == {
        key(direction="inference"),
        key(operator=pooling.MaxPool(3), direction="inference"),
    }
    assert all(one["us"][one["choice"]] > 0 for one in told["measured"].values())
    assert told["store"]


def test_a_wrong_candidate_is_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(REGISTRY, "strided_slices", wrong_forward("strided_slices"))
    assert "refused: strided_slices" in run("tune", *LAYER, code=1).stdout


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pooling, "tune", interrupt)
    assert "kept" in run("tune", *LAYER, code=130).stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tune",), "give a file that describes layers, or --shape and --kernel"),
        (("tune", "--shape", "4,4"), "give a file"),
        (("tune", "none.toml"), "none.toml: No such file"),
        (("tune", *LAYER, "--budget", "0"), "budget_s=0"),
        (("pick", *LAYER, "--direction", "up"), "--direction"),
        (("wisdom", "import", "none.json"), "there is no such file"),
        (("wisdom", "forget"), "say what to forget"),
        (("wisdom", "forget", "--all", "max"), "say what to forget"),
    ],
)
def test_mistakes_are_one_line(arguments: tuple[str, ...], message: str) -> None:
    error = run(*arguments, code=2).stderr
    assert message in error
    assert error.count("\n") == 1


def test_show(path: Path) -> None:
    store.add(key(), made_up({"strided_slices": 20.0, "argmax_switches": 50.0}))
    shown = run("wisdom", "show").stdout
    assert str(path) in shown
    assert key() in shown
    assert "argmax_switches 2.50x" in shown
    assert from_text(run("wisdom", "show", "--json").stdout).records[here()].keys() == {key()}


def test_the_bar_fits_into_the_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "60")
    with _bar(60.0) as show:
        show(1, 3, key(operator=pooling.MaxPool(3, 2, 1)))
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err).splitlines()
    assert any("1/3 at most 60 s left training max [size" in line for line in lines), lines


def test_import_of_what_is_older_changes_nothing(tmp_path: Path) -> None:
    old, new = "2026-01-01T00:00:00+00:00", "2026-02-01T00:00:00+00:00"
    store.add(key(), made_up({"strided_slices": 20.0, "argmax_switches": 20.1}, "strided_slices", measured=old))
    run("wisdom", "export", str(tmp_path / "old.json"))
    run("wisdom", "forget", "--all")
    store.add(key(), made_up({"strided_slices": 20.0, "argmax_switches": 20.1}, "argmax_switches", measured=new))
    assert "0 taken, 1 known already, 0 refused" in run("wisdom", "import", str(tmp_path / "old.json")).stdout
    assert pooling.pick(SHAPE, "float32", pooling.MaxPool(2)) == "argmax_switches"


def test_records_are_not_exported_over_themselves(path: Path) -> None:
    store.add(key(), made_up({"strided_slices": 20.0}))
    before = path.read_bytes()
    failed = run("wisdom", "export", str(path), code=2)
    assert "name another file" in failed.stderr
    assert path.read_bytes() == before


def test_export_import_and_forget(tmp_path: Path, path: Path) -> None:
    store.add(key(), made_up({"strided_slices": 20.0, "argmax_switches": 50.0}))
    store.add(key(direction="inference"), made_up({"strided_slices": 20.0}))
    out = tmp_path / "out.json"
    assert "2 records" in run("wisdom", "export", str(out)).stdout
    assert run("wisdom", "export").stdout == out.read_text(encoding="utf-8")
    assert "1 records forgotten" in run("wisdom", "forget", "inference", "max").stdout
    assert "1 records forgotten" in run("wisdom", "forget", "--all").stdout
    assert pooling.pick(SHAPE, "float32", pooling.MaxPool(2), explain=True).origin == "rule"
    shown = run("wisdom", "import", str(out)).stdout
    assert "2 taken, 0 known already, 0 refused" in shown
    assert f"took     {key()}" in shown
    assert pooling.pick(SHAPE, "float32", pooling.MaxPool(2), explain=True).origin == "record"
    assert "0 taken, 2 known already, 0 refused" in run("wisdom", "import", str(out)).stdout


def refusals(tmp_path: Path) -> dict[str, str]:
    """A file in which every record is to be refused, and by key a part of the reason."""
    store.add(key(), made_up({"strided_slices": 20.0}))
    data: Any = json.loads(run("wisdom", "export").stdout)
    good = data["records"][here()][key()]
    run("wisdom", "forget", "--all")

    def candidate(**changes: Any) -> Any:
        return good | {"candidates": {"strided_slices": good["candidates"]["strided_slices"] | changes}}

    data["records"][here()] = {
        "changed": candidate(source="another"),
        "future": candidate(measured="2999-01-01T00:00:00+00:00"),
        "unsound": candidate(median_us="fast"),
        "unknown": {"choice": "magic", "layer": "", "candidates": {"magic": good["candidates"]["strided_slices"]}},
    }
    data["machines"]["other"] = data["machines"][here()] | {"cpu": "another", "numba": "0.1"}
    data["records"]["other"] = {"elsewhere": good}
    (tmp_path / "bad.json").write_text(json.dumps(data), encoding="utf-8")
    return {
        "changed": "sources of its backends are others",
        "future": "in the future",
        "unsound": "median_us is 'fast'",
        "unknown": "there is no backend magic",
        "elsewhere": "measured with other cpu, numba",
    }


def test_import_says_what_it_refused(tmp_path: Path) -> None:
    expected = refusals(tmp_path)
    told = json.loads(run("wisdom", "import", str(tmp_path / "bad.json"), "--json", code=1).stdout)
    (found,) = told.values()
    assert found["took"] == found["known"] == []
    assert found["refused"].keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in found["refused"][name]
    assert store.load() == {}


def test_merge_keeps_all_machines(tmp_path: Path, path: Path) -> None:
    store.add(key(), made_up({"strided_slices": 20.0}))
    mine = tmp_path / "mine.json"
    run("wisdom", "export", str(mine))
    theirs: Any = json.loads(mine.read_text(encoding="utf-8"))
    theirs["machines"] = {"other": {"cpu": "another"}}
    theirs["records"] = {"other": theirs["records"][here()]}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(theirs), encoding="utf-8")
    both = tmp_path / "both.json"
    assert "both.json: 2 records" in run("wisdom", "merge", str(mine), str(other), "--into", str(both)).stdout
    assert from_text(both.read_text(encoding="utf-8")).records.keys() == {here(), "other"}
    assert "2 records" in run("wisdom", "merge", str(other)).stdout
    assert "records of another machine" in run("wisdom", "show").stdout
    assert "1 records forgotten" in run("wisdom", "forget", "--stale").stdout
    assert from_text(path.read_text(encoding="utf-8")).records.keys() == {here()}


def test_forget_stale_takes_what_has_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    store.add(key(), made_up({"strided_slices": 20.0}))
    record = made_up({"strided_slices": 20.0})
    old = {name: dataclasses.replace(one, source="old") for name, one in record.candidates.items()}
    store.add("old", dataclasses.replace(record, candidates=old))
    assert "1 records forgotten" in run("wisdom", "forget", "--stale").stdout
    assert store.load().keys() == {key()}


def test_frozen_says_no(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    run("wisdom", "export", str(out))
    monkeypatch.setenv("POOLING_FROZEN", "1")
    for arguments in (("tune", *LAYER), ("wisdom", "forget", "--all"), ("wisdom", "import", str(out))):
        assert "POOLING_FROZEN is set" in run(*arguments, code=2).stderr
    run("pick", *LAYER)
