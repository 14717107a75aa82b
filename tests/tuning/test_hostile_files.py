"""Files that say anything at all: what is not sound is refused with a reason, and nothing else is lost."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

import bench.schema.results
import pooling
from pooling.cli import app
from pooling.errors import shown
from pooling.tuning import exchange, rule, wisdom
from pooling.tuning.machine import machine
from pooling.tuning.model_files import read
from pooling.tuning.store import here, store
from pooling.tuning.timing import Outcome
from pooling.tuning.tuner import as_measured
from pooling.tuning.wisdom import MOST_SAMPLES, from_text, sift
from tests.bench.test_bench_results import results
from tests.wisdom import CHEAP, SHAPE, key, made_up, only, store_in

GOOD, BAD = key(), key(direction="inference")
OTHER = "another machine"

EXTREMES = {
    "an int above all floats": "1" + "0" * 400,
    "an int that Python does not spell out": "9" * 5000,
    "the same, negative": "-" + "9" * 5000,
    "more than any count": str(MOST_SAMPLES + 1),
    "infinite": "1e400",
    "Infinity": "Infinity",
    "minus Infinity": "-Infinity",
    "NaN": "NaN",
    "nothing": "0",
    "less than nothing": "-1",
    "minus nothing": "-0",
    "minus nothing as a float": "-0.0",
    "next to nothing": "5e-324",
    "the largest float": "1.7976931348623157e308",
    "true": "true",
    "null": "null",
    "a word": '"fast"',
    "half a character": r'"\ud800"',
    "a zero byte": r'"\u0000"',
    "a long word": '"' + "x" * 100_000 + '"',
    "a list": "[]",
    "a long list": "[" + "1," * 50_000 + "1]",
    "a deep list": "[" * 500 + "]" * 500,
    "a table": "{}",
    "an entry twice": '{"a": 1, "a": 2}',
}
"""JSON literals that programs trip over."""

TEXTS = ("source", "measured", "note")
NUMBERS = ("median_us", "low_us", "high_us", "samples")
MARK = "here it stands"


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    only(CHEAP, monkeypatch)
    with store_in(tmp_path / "home" / "wisdom.json", monkeypatch) as path:
        path.parent.mkdir()
        yield path


def data() -> dict[str, Any]:
    """Two records of this machine and one of another."""
    found = wisdom.Wisdom({here(): machine(), OTHER: {"cpu": "unknown"}})
    found.records = {
        here(): {GOOD: made_up({"strided_slices": 5.0}), BAD: made_up({"argmax_switches": 3.0})},
        OTHER: {GOOD: made_up({"strided_slices": 7.0})},
    }
    tables: dict[str, Any] = json.loads(wisdom.to_text(found))
    return tables


def with_literal(path: tuple[str, ...], literal: str, tables: dict[str, Any] | None = None) -> str:
    """The text of a file in which this literal stands in a place."""
    tables = data() if tables is None else tables
    place: Any = tables
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = MARK
    return json.dumps(tables).replace(json.dumps(MARK), literal)


RECORD = ("records", here(), BAD)
CANDIDATE = (*RECORD, "candidates", "argmax_switches")


@pytest.mark.parametrize("extreme", EXTREMES)
@pytest.mark.parametrize("field", NUMBERS)
def test_a_record_with_an_extreme_number_is_refused_and_the_rest_used(path: Path, field: str, extreme: str) -> None:
    """Of a file with ``"samples": 10**400``, a legal JSON number, tune, show and import made an OverflowError."""
    text = with_literal((*CANDIDATE, field), EXTREMES[extreme])
    found, refused = sift(text)
    assert set(refused) == {BAD}
    assert f"{field} is " in refused[BAD]
    assert len(refused[BAD]) < 400
    assert (set(found.records[here()]), set(found.records[OTHER])) == ({GOOD}, {GOOD})
    path.write_text(text, encoding="utf-8")
    assert pooling.pick(SHAPE, "float32", pooling.MaxPool(2)) == "strided_slices"
    with pytest.warns(pooling.WisdomWarning, match="2 records in it that are sound"):
        pooling.tune([(SHAPE, "float32", pooling.MaxPool(2), "inference")], 5)
    kept = from_text(path.read_text(encoding="utf-8"))
    assert (set(kept.records[here()]), set(kept.records[OTHER])) == ({GOOD, BAD}, {GOOD}), "of all machines"
    assert path.with_name("wisdom.json.aside").read_text(encoding="utf-8") == text, "and nothing is lost"


@pytest.mark.parametrize("literal", [EXTREMES["an int above all floats"], EXTREMES["half a character"], "[[]]"])
def test_commands_show_and_import_what_is_sound(path: Path, tmp_path: Path, literal: str) -> None:
    text = with_literal((*CANDIDATE, "samples"), literal)
    path.write_text(text, encoding="utf-8")
    shown_ = CliRunner().invoke(app, ["wisdom", "show", "--all"])
    assert shown_.exit_code == 0, shown_.exception
    assert "2 records" in shown_.stdout
    assert f"not sound: {BAD}" in shown_.stderr
    exported = CliRunner().invoke(app, ["wisdom", "export"])
    assert from_text(exported.stdout).count == 1
    path.unlink()
    store.reload()
    other = tmp_path / "other.json"
    other.write_text(text, encoding="utf-8-sig")  # as some editors write it
    told = CliRunner().invoke(app, ["wisdom", "import", str(other)])
    assert told.exit_code == 0, told.exception
    assert "1 taken, 0 known already" in told.stdout
    assert f"refused  {BAD}: 'argmax_switches': samples is" in told.stdout
    assert other.read_text(encoding="utf-8-sig") == text


UNREADABLE = {"half a character": "\ud800", "a colour": "\x1b[31mred", "two lines": "max\nmin", "a zero byte": "a\0b"}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("place", ["layer", "choice", "key", "machine", "fact", "name", "note", "source", "measured"])
def test_text_that_a_terminal_can_not_show_is_refused(path: Path, place: str, text: str) -> None:
    """``"layer": "\\ud800"`` ended `pooling pick` and `str(choice)` with an error, and colours reached the terminal."""
    tables = data()
    mine = tables["records"][here()]
    if place in ("layer", "choice"):
        mine[BAD][place] = text
    elif place == "key":
        mine[text] = mine.pop(BAD)
    elif place == "machine":
        tables["machines"][text] = tables["machines"][OTHER]
        tables["records"][text] = tables["records"].pop(OTHER)
    elif place == "fact":
        tables["machines"][OTHER]["cpu"] = text
    elif place == "name":
        mine[BAD]["candidates"][text] = mine[BAD]["candidates"]["argmax_switches"]
    else:
        mine[BAD]["candidates"]["argmax_switches"][place] = text
    damaged = json.dumps(tables)
    found, refused = sift(damaged)
    assert found.count == 2
    assert len(refused) == 1
    assert all(word.isprintable() for word in (*refused, *refused.values()))
    path.write_text(damaged, encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pooling.WisdomWarning)
        for direction in ("training", "inference"):
            choice = pooling.pick(SHAPE, "float32", pooling.MaxPool(2), direction, explain=True)
            assert all(line.isprintable() for line in str(choice).encode().decode().splitlines())
    path.write_text(damaged, encoding="utf-8")
    told = CliRunner().invoke(app, ["wisdom", "show", "--all"])
    assert told.exit_code == 0, told.exception
    assert "2 records" in told.stdout
    assert all(line.isprintable() for line in told.output.splitlines())


def test_what_the_tuner_writes_can_be_shown(path: Path) -> None:
    assert all(fact.isprintable() for fact in machine().values())
    refused = Outcome(refused={"argmax_switches": "in cell\n\x1b[31m"})
    assert as_measured(refused)["argmax_switches"].note == r"wrong: in cell\n\x1b[31m"


def test_a_merge_loses_no_record_that_it_can_not_read(path: Path, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(data()), encoding="utf-8")
    text = with_literal((*CANDIDATE, "samples"), EXTREMES["an int above all floats"])
    bad.write_text(text, encoding="utf-8")
    for files, into in (([bad], None), ([good], bad)):
        with pytest.raises(pooling.PoolingError, match=r"samples is .* nothing was merged: remove that record"):
            exchange.merge(files, into)
    assert bad.read_text(encoding="utf-8") == text


def places(tables: Any, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every place in a document."""
    if isinstance(tables, dict):
        for name, entry in tables.items():
            yield (*at, name)
            yield from places(entry, (*at, name))


PLACES = list(places(data()))
NUMBER = st.one_of(st.integers(), st.floats(), st.sampled_from([10**400, -(10**400), 2**63, -0.0, 5e-324]))
WORD = st.one_of(st.text(), st.sampled_from(["\ud800", "\0", "x" * 5000, "1e400"]))
ANYTHING = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBER, WORD),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORD, inner, max_size=4)),
    max_leaves=10,
)
FUZZED = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@settings(FUZZED, max_examples=200)
@given(place=st.sampled_from(PLACES), value=ANYTHING)
def test_whatever_stands_in_the_store_every_command_goes_on(path: Path, place: tuple[str, ...], value: Any) -> None:
    tables = data()
    inner: Any = tables
    for step in place[:-1]:
        inner = inner[step]
    inner[place[-1]] = value
    text = json.dumps(tables)
    for left in path.parent.iterdir():
        left.unlink()
    path.write_text(text, encoding="utf-8")
    store.reload()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", pooling.WisdomWarning)
        for direction in ("training", "inference"):
            assert pooling.pick(SHAPE, "float32", pooling.MaxPool(2), direction) in CHEAP
            pooling.pick(SHAPE, "float32", pooling.MaxPool(2), direction, explain=True).provenance  # noqa: B018
        for command in ("show", "import"):
            told = CliRunner().invoke(app, ["wisdom", command, *([str(path)] if command == "import" else ["--all"])])
            assert isinstance(told.exception, SystemExit | None), told.exception
            assert all(line.isprintable() for line in told.output.splitlines())
        store.add("a new key", made_up({"strided_slices": 1.0}))
    assert "a new key" in from_text(path.read_text(encoding="utf-8")).records[here()]
    aside = path.with_name("wisdom.json.aside")
    assert not aside.exists() or aside.read_text(encoding="utf-8") == text


@settings(FUZZED, max_examples=150)
@given(
    entry=st.dictionaries(
        st.sampled_from(
            ["op", "shape", "dtype", "direction", "count", "kernel_size", "stride", "padding", "dilation", "ceil_mode"]
            + ["ties", "data_format", "p", "signed", "output_size", "output_ratio", "random_samples", "rng", "name"]
        ),
        st.one_of(ANYTHING, st.sampled_from(["max", "lp", "fractionalmax", [2, 3, 8, 8], 2, [3, 3]])),
        max_size=7,
    )
)
def test_a_layer_of_anything_is_a_layer_or_named(path: Path, entry: dict[str, Any]) -> None:
    file = path.with_name("model.json")
    layer = {"shape": [2, 3, 8, 8], "kernel_size": 2} | entry
    file.write_text(json.dumps([layer]), encoding="utf-8")
    try:
        (found,) = read(file)
    except pooling.PoolingError as error:
        assert "layer 1: " in str(error)  # noqa: PT017
        assert len(str(error)) < 2000  # noqa: PT017
    else:
        with contextlib.suppress(pooling.UnsupportedError):  # a dtype that NumPy knows, but no backend
            pooling.pick(found.shape, found.dtype, found.operator)
        assert found.count < 1 << 41


@pytest.mark.parametrize("name", ["model.json", "model.toml", "model.csv"])
@pytest.mark.parametrize("digits", [400, 5000])
def test_a_count_of_many_digits_is_refused(tmp_path: Path, name: str, digits: int) -> None:
    """A count of 10**400 was taken, and ended in an OverflowError of `tune`."""
    count = "1" + "0" * digits
    text = {
        "model.json": f'[{{"shape": [1, 1, 4, 4], "kernel_size": 2, "count": {count}}}]',
        "model.toml": f"[[layers]]\nshape = [1, 1, 4, 4]\nkernel_size = 2\ncount = {count}\n",
        "model.csv": f"shape,kernel_size,count\n1x1x4x4,2,{count}\n",
    }[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(pooling.PoolingError, match=name) as caught:
        read(tmp_path / name)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 500


@pytest.mark.parametrize("name", ["prices", "splits", "floors"])
@pytest.mark.parametrize("literal", EXTREMES.values(), ids=EXTREMES)
def test_a_rule_with_anything_in_it_ranks(
    name: str, literal: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = json.loads(Path(rule.PATH).read_text(encoding="utf-8"))
    damaged = tmp_path / "rule.json"
    monkeypatch.setattr(rule, "PATH", str(damaged))
    case = next(iter(tables[name]))
    for at in ((name,), (name, case)):
        damaged.write_text(with_literal(at, literal, json.loads(json.dumps(tables))), encoding="utf-8")
        rule.rule.cache_clear()
        try:
            assert pooling.pick(SHAPE, "float32", pooling.MaxPool(2), "inference", explain=True).ranking
        finally:
            rule.rule.cache_clear()


@pytest.mark.parametrize("literal", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("field", ["samples", "calls", "threads", "bytes_moved", "median_s", "q3_s"])
def test_results_with_an_extreme_number_are_refused(tmp_path: Path, field: str, literal: str) -> None:
    bench.schema.results.save(results(), tmp_path / "results.json")
    tables = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    tables["rows"][0][field] = MARK
    (tmp_path / "results.json").write_text(json.dumps(tables).replace(json.dumps(MARK), literal), encoding="utf-8")
    counts = field not in ("median_s", "q3_s")
    if counts and literal in ("0", "-0", EXTREMES["more than any count"]):
        (timing, *_) = bench.schema.results.load(tmp_path / "results.json").of(bench.schema.results.Timing)
        assert timing.gb_per_s >= 0
        return
    with pytest.raises(bench.schema.results.ResultsError, match="measure again") as caught:
        bench.schema.results.load(tmp_path / "results.json")
    assert len(str(caught.value).replace(str(tmp_path), "")) < 500


@pytest.mark.parametrize("literal", EXTREMES.values(), ids=EXTREMES)
@pytest.mark.parametrize("field", ["schema", "threads", "finished", "machine", "rows", "workloads"])
def test_results_with_anything_at_their_top_are_refused(tmp_path: Path, field: str, literal: str) -> None:
    bench.schema.results.save(results(), tmp_path / "results.json")
    tables = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    (tmp_path / "results.json").write_text(with_literal((field,), literal, tables), encoding="utf-8")
    try:
        loaded = bench.schema.results.load(tmp_path / "results.json")
    except bench.schema.results.ResultsError as error:
        assert len(str(error)) < 500  # noqa: PT017
    else:
        bench.schema.results.save(loaded, tmp_path / "again.json")


class Hostile:
    def __repr__(self) -> str:
        raise RuntimeError("no")


def test_a_message_shows_any_value() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for value in (10**5000, -(10**5000), (10**5000,), deep, Hostile(), "x" * 10**6, "\ud800\n\0", {1: 2}):
        assert 0 < len(shown(value)) <= 230
    for wrong in (10**400, 10**5000, -(10**5000)):
        for call in (pooling.MaxPool, pooling.AdaptiveMaxPool, pooling.set_num_threads, pooling.set_buffer_bytes):
            if call is pooling.set_buffer_bytes and wrong > 0:
                continue
            with pytest.raises(pooling.PoolingError):
                call(wrong)
    with pytest.raises(pooling.PoolingError, match=r"shape=.*no memory holds an array of so many bytes"):
        pooling.pick((1 << 40,) * 40, "float32", pooling.MaxPool(2))
