"""The page, its pictures and the README's numbers, from results small enough to measure here."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest

import pooling
from bench.experiments import roofline, startup
from bench.experiments.conformance import QUESTIONS, answers
from bench.experiments.gradients import tie_examples, verdicts
from bench.experiments.studies import of_kernel, priced
from bench.experiments.suite import training_row
from bench.figures.style import look
from bench.protocol.contenders import Contender, backends, of_backend
from bench.protocol.measure import Patience, measure, measure_together
from bench.report.page import (
    Headline,
    left_out,
    milliseconds,
    readme_peers,
    readme_table,
    step_table,
    update_readme,
    write,
)
from bench.schema.environment import machine, source, versions
from bench.schema.results import Results, Row, Timing, load, save
from bench.schema.workloads import Workload
from bench.training.data import digits
from bench.training.train import Settings, race, train
from pooling.geometry.problem import Ties

WORKLOADS = (
    Workload("small", "a network", (2, 3, 8, 8), 2),
    Workload("overlapping", "a network", (2, 3, 9, 9), 3, 2, op="avg"),
)
PICTURES = ("steps", "workloads", "sizes", "roofline", "threads", "kernels", "epochs", "accuracy")
HASTE = Patience(0.01, math.inf, (1, 1))
SUBJECT = of_backend(pooling.get_backend("simd"))


def rival(name: str, alike: str = "strided_slices") -> Contender:
    """A backend in the clothes of a framework."""
    return replace(of_backend(pooling.get_backend(alike)), name=name, kind="peer")


PEERS = (rival("rival"), rival("<other>", "numba_loops"))
EVERYBODY = (*backends(), *PEERS)


def empty() -> Results:
    return Results(
        preset="quick",
        threads=1,
        started="2026-01-01T00:00:00+00:00",
        machine=machine(),
        software=versions(),
        source=source(),
        dataset="digits",
        dataset_note="not MNIST: digits",
        entrants=[contender.entrant() for contender in EVERYBODY],
        absent={"away": "away is not installed; pip install away"},
        planned=["all"],
    )


@pytest.fixture(scope="module")
def results() -> Results:
    found = empty()
    rows: list[Row] = [*verdicts(1), *tie_examples(), *answers(frameworks=False)]
    for stage in ("workloads", "sizes", "beyond"):
        for workload in WORKLOADS[: 2 if stage == "workloads" else 1]:
            rows += measure(workload, EVERYBODY, HASTE, threads=1, stage=stage)
    for threads in (1, 2):
        rows += measure(WORKLOADS[0], backends(), HASTE, threads=threads, stage="threads", directions=("step",))
    kernels = [of_kernel(2, "channels_first"), of_kernel(3, "channels_last")]
    for kernel in kernels:
        rows += measure(kernel, [SUBJECT, PEERS[0]], HASTE, threads=1, stage="kernels", directions=("step",))
    prices = priced("channels_first")
    rows += measure_together(prices, [SUBJECT], HASTE, threads=1, stage="prices")
    rows += roofline.measure(threads=1, sizes=(1 << 16, 1 << 20))
    costs = {what for aim in startup.AIMS for what in (aim.what, aim.beside) if what is not None}
    rows += [startup.as_cost(what, [1.0]) for what in sorted(costs)]
    data = digits()
    competing: tuple[tuple[str, Ties], ...] = (("simd", "first"), ("repeat_mask", "all"))
    settings = [Settings(backend=b, ties=t, images=64, epochs=1) for b, t in competing]
    rows += [training_row("epoch", s, data, 64, h) for s, h in zip(settings, race(settings, data), strict=True)]
    for pool in ("max", "avg"):
        one = Settings(pool=pool, images=64, epochs=1)
        rows.append(training_row("accuracy", one, data, 64, train(one, data)))
    found.add("all", 1.0, [steadied(row) for row in rows], (*WORKLOADS, *kernels, *prices))
    return found


def steadied(row: Row) -> Row:
    """A timing of a contender that always takes as long: who is fastest must not depend on how busy this machine is."""
    if not isinstance(row, Timing):
        return row
    s = 1e-5 * (1 + [contender.name for contender in EVERYBODY].index(row.contender))
    return replace(row, fastest_s=s, q1_s=s, median_s=s, q3_s=s)


def test_the_page_holds_everything(results: Results, tmp_path: Path) -> None:
    page = write(results, tmp_path)
    text = page.read_text(encoding="utf-8")
    for picture in PICTURES:
        ElementTree.parse(tmp_path / f"{picture}.svg")
    assert text.count("<svg") == len(PICTURES) == len(list(tmp_path.glob("*.svg")))
    assert "not MNIST: digits" in text
    assert "not complete" not in text
    assert all(f"<td>{aim.what}</td>" in text for aim in startup.AIMS)
    assert all(question.name in text for question in QUESTIONS)
    assert '<td class="refused">-1 0</td>' in text, "scikit-image, which pads with zeros"
    for exhibit in ("Undivided mean", "Mask pays every tie", "Zero padding"):
        assert exhibit in text
    for name in (
        "strided_slices",
        "numba_loops",
        "simd",
        "rival",
        "&lt;other&gt;",
        "away is not installed; pip install away",
    ):
        assert name in text
    # Nothing is fetched: the only addresses are the names of XML's and SVG's vocabularies.
    assert all(word not in text for word in ("src=", "<link", "@import", "<script"))


def test_the_same_results_give_the_same_bytes(results: Results, tmp_path: Path) -> None:
    save(results, tmp_path / "results.json")
    first = write(results, tmp_path / "a")
    second = write(load(tmp_path / "results.json"), tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()


def test_an_interrupted_run_has_a_page_that_says_so(tmp_path: Path) -> None:
    text = write(empty(), tmp_path).read_text(encoding="utf-8")
    assert "This run is not complete" in text
    assert "Not measured yet" in text
    assert "Not asked yet" in text
    assert not list(tmp_path.glob("*.svg"))


def test_readme_numbers_stand_between_markers(results: Results, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(
        "before\n<!-- answer -->\nold\n<!-- /answer -->\n<!-- table -->\n<!-- /table -->\n"
        "<!-- peers -->\n<!-- /peers -->\nafter\n"
    )
    results = slowed(results, "simd", 1e-3)  # the fastest, for only it has trained
    update_readme(results, readme)
    text = readme.read_text(encoding="utf-8")
    assert "\nold\n" not in text
    assert text.startswith("before\n<!-- answer -->\n")
    assert text.endswith("<!-- /peers -->\nafter\n")
    assert text.count("| a network") == 2
    update_readme(results, readme)
    assert readme.read_text(encoding="utf-8") == text
    readme.write_text("nothing")
    with pytest.raises(ValueError, match="answer"):
        update_readme(results, readme)


def test_numbers_for_people() -> None:
    assert [milliseconds(s) for s in (1.5, 0.1234, 0.00123456, 4.56e-6)] == ["1500", "123", "1.23", "0.00456"]


def without_peers(results: Results) -> Results:
    rows = [row for row in results.rows if getattr(row, "kind", None) != "peer"]
    return replace(results, rows=rows, entrants=[e for e in results.entrants if e.kind == "backend"])


def slowed(results: Results, contender: str, factor: float) -> Results:
    """The same, as if one had taken so many times as long."""
    rows = [
        replace(row, median_s=factor * row.median_s) if isinstance(row, Timing) and row.contender == contender else row
        for row in results.rows
    ]
    return replace(results, rows=rows)


def test_a_lost_race_is_marked_and_a_won_one_is_not(results: Results, tmp_path: Path) -> None:
    lost, won = (write(slowed(results, "simd", f), tmp_path).read_text(encoding="utf-8") for f in (1e3, 1e-3))
    assert '<td class="n lost">' in lost
    assert 'class="n lost"' not in won


def test_every_timing_is_listed_with_its_bandwidth(results: Results, tmp_path: Path) -> None:
    text = write(results, tmp_path).read_text(encoding="utf-8")
    listed = text[text.index("Every timing, with the bandwidth") :]
    listed = listed[: listed.index("</table>")]
    assert listed.count("<tr>") == 1 + len(results.of(Timing))
    on_two = [line for line in listed.splitlines() if "<td>threads</td>" in line and '<td class="n">2</td>' in line]
    assert on_two
    assert all(line.endswith('<td class="n">–</td></tr>') for line in on_two)  # bandwidth is that of one thread
    assert listed.count("%</td></tr>") == len(results.of(Timing)) - len(on_two)


def test_frameworks_stay_out_of_what_is_about_backends(results: Results) -> None:
    fast = slowed(results, "rival", 1e-6)
    assert "rival" not in readme_table(fast)
    assert all(timing.kind == "backend" for row in step_table(fast) for timing in row.ranking)
    assert Headline.of(fast) == Headline.of(results)


def test_readme_tells_of_each_framework_the_mean_and_the_worst(results: Results) -> None:
    table = readme_peers(slowed(results, "rival", 1e6))
    (line,) = (line for line in table.splitlines() if line.startswith("| `rival` | channels_first |"))
    assert line.count("|") == 7
    assert line.count("a network") == 2
    assert "**" not in line
    assert "**" in readme_peers(slowed(results, "rival", 1e-6))
    assert "| `simd` |" not in table


def test_a_run_without_frameworks_says_so(results: Results, tmp_path: Path) -> None:
    alone = without_peers(results)
    assert readme_peers(alone).startswith("These results were measured without frameworks")
    assert "measured without frameworks" in write(alone, tmp_path).read_text(encoding="utf-8")


def test_those_who_are_not_installed_are_left_out_with_a_note(results: Results) -> None:
    assert ("away", "away is not installed; pip install away", None) in left_out(results)


def test_frameworks_are_drawn_hollow_and_backends_filled(results: Results) -> None:
    looks = {entrant.name: look(results, entrant.name) for entrant in results.entrants}
    assert {name for name, style in looks.items() if style.get("markerfacecolor") == "none"} == {"rival", "<other>"}
    assert len({(style["color"], style["marker"]) for style in looks.values()}) == len(looks)
