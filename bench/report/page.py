"""The page and the README's numbers, from the results alone."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bench.analysis.targets import outcomes
from bench.analysis.versus import Duel, Summary, geometric_mean, prices, reached, summaries
from bench.experiments import startup
from bench.experiments.conformance import FRAMEWORKS
from bench.experiments.exhibits import EXHIBITS
from bench.experiments.studies import LAYOUTS, SUBJECT
from bench.figures.drawing import house_style, without
from bench.figures.style import DIRECTION_NAMES, ranked, svg
from bench.files import write_atomically
from bench.report.fit_report import FitSection
from bench.report.plots import pictures
from bench.report.race_report import RaceSection, ladder, profiles
from bench.schema.environment import describe, size_text
from bench.schema.results import Answer, Bandwidth, LeftOut, Results, TieExample, Timing, Training, Verdict

BASELINE = "block_reduce"
"""The original answer, which the others are compared with."""

PURE = "strided_slices"
"""The fastest in NumPy alone."""


@without("SOURCE_DATE_EPOCH")  # SciPy, too, can't be imported where it is no number
def write(results: Results, folder: Path) -> Path:
    """Write the pictures and index.html, which needs nothing else, into `folder`; the page's path."""
    drawn = dict(pictures(results))
    fit = FitSection.of(results, folder / "results" / "rule.json")
    if fit.judged:
        with house_style():
            drawn["rule"] = svg(fit.picture())
    race = RaceSection.of(folder)
    if race.races:
        with house_style():
            drawn["race"] = svg(race.picture())
    for name, text in drawn.items():
        write_atomically(folder / f"{name}.svg", text)
    environment = Environment(
        loader=PackageLoader("bench.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"ms": milliseconds, "size": size_text, "times": times, "part": part}
    timings = reached(results)
    page = environment.get_template("index.html.j2").render(
        results=results,
        pictures=defaultdict(str, {name: Markup(text) for name, text in drawn.items()}),
        machine=describe(results.machine, results.threads, results.software, results.source),
        answer=Headline.of(results),
        matrix=Matrix.of(results),
        exhibits=[(e, next((v for v in results.of(Verdict, subject=e.name)), None)) for e in EXHIBITS],
        ties=results.of(TieExample),
        conformance=Conformance.of(results),
        steps=step_table(results),
        subject=SUBJECT,
        duels=Duel.all_of(results),
        summaries=summaries(results),
        prices=prices(results),
        reached=timings,
        outcomes=[*outcomes(results)],
        startup=[*startup.outcomes(results)],
        beyond=[r for r in timings if r.timing.stage == "beyond"],
        beside={row.workload for row in results.of(Timing, stage="beyond")}
        == {row.workload for row in results.of(Bandwidth, stage="beyond")},
        fit=fit,
        race=race,
        ladder=ladder,
        profiles=profiles,
        directions=DIRECTION_NAMES,
        curves=results.of(Training, stage="accuracy"),
        epochs=results.of(Training, stage="epoch"),
        deviations=deviations(results),
        left_out=left_out(results),
        missing=[task for task in results.planned if task not in results.finished],
        unstable=sum(t.unstable for t in results.of(Timing)),
        timings=len(results.of(Timing)),
    )
    path = folder / "index.html"
    write_atomically(path, page)
    return path


def milliseconds(seconds: float) -> str:
    """Three digits, in ms.

    Examples
    --------
    >>> milliseconds(0.0123456), milliseconds(1.2e-5), milliseconds(0.3)
    ('12.3', '0.0120', '300')
    """
    ms = 1e3 * seconds
    return f"{ms:.{max(0, 2 - math.floor(math.log10(ms)))}f}" if ms > 0 else "0"


def times(ratio: float) -> str:
    """A ratio for people: one digit behind the point below 20, two below 1.05, so that 1 has its sides.

    Examples
    --------
    >>> [times(ratio) for ratio in (0.984, 1.04, 1.54, 23.4)]
    ['0.98×', '1.04×', '1.5×', '23×']
    """
    if ratio < 1.05:
        return f"{ratio:.2f}×"
    return f"{ratio:.1f}×" if ratio < 20 else f"{ratio:.0f}×"


def part(fraction: float | None) -> str:
    """A part of what memory allows, in percent."""
    return "–" if fraction is None else f"{fraction:.0%}"


def ratios(results: Results, slower: str, faster: str, op: str | None = None) -> list[float]:
    """At each workload that both did, how many times as long a training step takes."""
    by = {(t.workload, t.contender): t.median_s for t in results.of(Timing, stage="workloads", direction="step")}
    found = []
    for workload in results.workloads.values():
        a, b = by.get((workload.id, slower)), by.get((workload.id, faster))
        if a is not None and b is not None and op in (None, workload.op):
            found.append(a / b)
    return found


@dataclass(frozen=True)
class Headline:
    """The numbers of the first paragraph; None where the results lack them."""

    best: str | None
    best_over_baseline: float | None
    best_over_pure: float | None
    pure_over_baseline: float | None
    accuracy_max: float | None
    accuracy_avg: float | None
    epochs: int
    share: float | None

    @classmethod
    def of(cls, results: Results) -> Headline:
        steps = results.of(Timing, stage="workloads", direction="step")
        own = [row for row in steps if row.kind == "backend"]
        best = ranked(results, own)[0] if own else None
        curves = {t.pool: t for t in results.of(Training, stage="accuracy", network="lenet")}
        share = None
        for row in results.of(Training, stage="epoch", backend=best):
            share = sum(t.seconds for t in row.layers if t.layer.startswith("pool")) / sum(
                t.seconds for t in row.layers
            )

        def mean(slower: str, faster: str | None) -> float | None:
            values = ratios(results, slower, faster) if faster else []
            return geometric_mean(values) if values else None

        return cls(
            best,
            mean(BASELINE, best),
            mean(PURE, best),
            mean(BASELINE, PURE),
            curves["max"].accuracy[-1] if "max" in curves else None,
            curves["avg"].accuracy[-1] if "avg" in curves else None,
            len(curves["max"].accuracy) if "max" in curves else 0,
            share,
        )


@dataclass(frozen=True)
class Matrix:
    """The gradient-check matrix: a row for each backend and policy, a column for each case."""

    cases: list[str]
    rows: list[tuple[str, list[Verdict]]]

    @classmethod
    def of(cls, results: Results) -> Matrix:
        verdicts = [v for v in results.of(Verdict) if not v.exhibit]
        subjects = dict.fromkeys(v.subject for v in verdicts)
        return cls(
            list(dict.fromkeys(v.case for v in verdicts)),
            [(subject, [v for v in verdicts if v.subject == subject]) for subject in subjects],
        )


@dataclass(frozen=True)
class Conformance:
    """The conformance table: a row for each question, a column for each system."""

    subjects: list[str]
    rows: list[tuple[Answer, list[Answer]]]
    absent: list[str]

    @classmethod
    def of(cls, results: Results) -> Conformance:
        """Each question with all its answers: the reference's first, then those of others, then those of our backends."""
        found: dict[str, list[Answer]] = {}
        given = results.of(Answer)
        for answer in sorted(given, key=lambda a: (a.subject != given[0].subject, a.kind == "backend")):
            found.setdefault(answer.question, []).append(answer)
        rows = [found[question] for question in dict.fromkeys(answer.question for answer in given)]
        subjects = [answer.subject for answer in rows[0]] if rows else []
        return cls(subjects, [(row[0], row) for row in rows], [name for name in FRAMEWORKS if name not in subjects])


@dataclass(frozen=True)
class StepRow:
    """One workload of the table: the fastest backend first."""

    label: str
    ranking: list[Timing]
    over_baseline: float | None
    over_pure: float | None


def step_table(results: Results) -> list[StepRow]:
    rows = []
    for workload in results.workloads.values():
        found = results.of(Timing, stage="workloads", direction="step", workload=workload.id, kind="backend")
        ranking = sorted(found, key=lambda row: row.median_s)
        if ranking:
            by = {row.contender: row.median_s / ranking[0].median_s for row in ranking}
            rows.append(StepRow(workload.label, ranking, by.get(BASELINE), by.get(PURE)))
    return rows


@dataclass(frozen=True)
class Deviation:
    """How far a backend's losses were from those of ties="first" after the first step."""

    backend: str
    ties: str | None
    largest: float
    last: float


def deviations(results: Results) -> list[Deviation]:
    """Of every epoch that was trained side by side, from the first one with ties="first"."""
    epochs = results.of(Training, stage="epoch")
    base = next((row for row in epochs if row.ties == "first"), None)
    if base is None:
        return []
    found = []
    for row in epochs:
        off = [abs(a - b) for a, b in zip(row.losses, base.losses, strict=True)]
        found.append(Deviation(row.backend, row.ties, max(off), row.losses[-1] - base.losses[-1]))
    return found


def left_out(results: Results) -> list[tuple[str, str, int | None]]:
    """Who was left out with which reason, and at how many workloads; None of those who did not take part at all."""
    counted: dict[tuple[str, str], int] = {}
    for row in results.of(LeftOut):
        reason = "would take too long for this preset" if row.reason.startswith("about ") else row.reason
        counted[row.contender, reason] = counted.get((row.contender, reason), 0) + 1
    return [(name, reason, None) for name, reason in results.absent.items()] + [
        (contender, reason, n) for (contender, reason), n in counted.items()
    ]


def update_readme(results: Results, readme: Path) -> None:
    """Write this run's numbers between the README's markers.

    Raises
    ------
    ValueError
        A marker is missing, or the results lack what belongs between them.
    """
    text = readme.read_text(encoding="utf-8")
    parts: dict[str, Callable[[Results], str]] = {
        "answer": readme_answer,
        "table": readme_table,
        "peers": readme_peers,
    }
    for name, make in parts.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        if not pattern.search(text):
            raise ValueError(f"{readme} has no <!-- {name} --> ... <!-- /{name} -->: put them where the numbers belong")
        written = make(results)
        text = pattern.sub(lambda match, written=written: match[1] + written + match[2], text)  # type: ignore[misc]
    write_atomically(readme, text)


def readme_answer(results: Results) -> str:
    answer = Headline.of(results)
    needed = (answer.best_over_baseline, answer.best_over_pure, answer.pure_over_baseline, answer.accuracy_max)
    if answer.best is None or answer.accuracy_avg is None or answer.share is None or None in needed:
        raise ValueError(
            "the results lack the numbers of the answer: run python -m bench report --preset standard first"
        )
    return (
        f"Remember which cell won, in one byte, and never build a mask. In NumPy alone, `strided_slices` does a training step "
        f"{times(answer.pure_over_baseline or 0)} as fast as `block_reduce` with a mask; `{answer.best}` does it "
        f"{times(answer.best_over_baseline or 0)} as fast (geometric means over the workloads). With it pooling takes "
        f"{answer.share:.0%} of LeNet's training time. After {answer.epochs} epochs on {results.dataset}, LeNet with max "
        f"pooling reaches {answer.accuracy_max:.2%}, with mean pooling {answer.accuracy_avg:.2%}.\n"
    )


def readme_table(results: Results) -> str:
    """Training steps in ms, a column for each backend, fastest first."""
    steps = results.of(Timing, stage="workloads", direction="step", kind="backend")
    names = [n for n in ranked(results, steps) if not next(e for e in results.entrants if e.name == n).reference_only]
    lines = [f"| training step, ms | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for row in step_table(results):
        by = {timing.contender: milliseconds(timing.median_s) for timing in row.ranking}
        lines.append(f"| {row.label} | {' | '.join(by.get(name, '–') for name in names)} |")
    machine = results.machine
    lines.append(
        f"\nfloat32, {results.threads} threads, {machine.cpu} ({machine.architecture}), results written to arrays that exist; "
        "medians of interleaved rounds. “–”: not offered, or left out as too slow.\n"
    )
    return "\n".join(lines)


def readme_peers(results: Results) -> str:
    """How many times as long each framework takes: mean and worst case, in training and in inference."""
    by = {((summary.peer, summary.data_format), summary.direction): summary for summary in summaries(results)}
    if not by:
        return "These results were measured without frameworks: `make peers`, then `make report`.\n"

    def cells(summary: Summary | None) -> str:
        if summary is None:
            return "– | –"
        mean, worst = (
            f"**{times(ratio)}**" if ratio < 1 else times(ratio) for ratio in (summary.mean, summary.worst.ratio)
        )
        return f"{mean} | {worst}, {summary.worst.workload.label}"

    lines = [
        f"| time over `{SUBJECT}`'s | layout | training step: mean | worst case | inference: mean | worst case |",
        "|---" * 6 + "|",
    ]
    lines += [
        f"| `{who[0]}` | {who[1]} | {cells(by.get((who, 'step')))} | {cells(by.get((who, 'forward')))} |"
        for who in sorted(dict.fromkeys(who for who, _ in by), key=lambda who: LAYOUTS.index(who[1]))
    ]
    timings = results.of(Timing)
    unstable = sum(timing.unstable for timing in timings)
    lost = sum(summary.lost for summary in by.values())
    count = sum(summary.count for summary in by.values())
    lines.append(
        f"\nGeometric means over the workloads each of them did; same threads, outputs reused where its interface can. At "
        f"{lost} of {count} the framework is faster: below 1×, in bold. Targets that are missed are in "
        f"[docs/targets.md](docs/targets.md). Of the run's {len(timings)} timings {unstable} had a spread of more than 10%.\n"
    )
    return "\n".join(lines)
