"""The suite's commands, as somebody types them."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import bench.experiments.suite
import pooling
from bench.cli.app import app
from bench.cli.console import interruptible
from bench.experiments.suite import EFFORTS, Effort, Suite
from bench.protocol.contenders import of_backend
from bench.protocol.measure import Patience
from bench.schema.results import LeftOut, Row, Timing, load
from bench.schema.task import Task
from bench.schema.workloads import Workload
from bench.training.data import digits

RUNNER = CliRunner(env={"COLUMNS": "200", "NO_COLOR": "1"})
TINY = Effort(
    Patience(0.01, math.inf, (2, 2)),
    Patience(0.01, math.inf, (2, 2)),
    1,
    64,
    ("question",),
    1,
    64,
    50,
    roof=(1 << 16,),
    beyond=False,
    kernels=(2, 3),
    setup_s=5.0,
    starts=(1, 1),
)


def press_ctrl_c(progress: object) -> list[Row]:
    os.kill(os.getpid(), signal.SIGINT)
    return []


def bench_(*arguments: object) -> Result:
    return RUNNER.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The quick preset on one workload."""
    monkeypatch.setattr("bench.training.data.load", lambda folder=None: digits())
    monkeypatch.setitem(EFFORTS, "quick", TINY)
    monkeypatch.setattr(
        bench.experiments.suite, "of_preset", lambda preset: (Workload("a", "a test", (2, 3, 8, 8), 2),)
    )
    monkeypatch.setattr(bench.experiments.suite, "ladder", lambda preset: (Workload("b", "a test", (1, 2, 8, 8), 2),))


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty page."""
    monkeypatch.setattr("bench.report.page.write", lambda results, folder: folder / "index.html")


@pytest.mark.parametrize("command", ["report", "train", "plots", "readme", "env"])
def test_help(command: str) -> None:
    result = bench_(command, "--help")
    assert result.exit_code == 0
    assert "--help" in result.stdout
    assert command in bench_("--help").stdout


@pytest.mark.usefixtures("tiny")
def test_report_prints_the_path_of_the_page_last_and_plots_needs_the_json_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks_of = bench.experiments.suite.tasks_of

    def few(*arguments: object) -> list[Task]:  # `test_bench_suite.py` does them all
        return [t for t in tasks_of(*arguments) if t.name.split()[0] in ("workloads", "accuracy")]  # type: ignore[arg-type]

    monkeypatch.setattr(bench.experiments.suite, "tasks_of", few)
    done = bench_("report", "--preset", "quick", "--out", tmp_path, "--threads", 1, "--no-peers")
    assert done.exit_code == 0, done.output
    page = Path(done.stdout.splitlines()[-1])
    assert page == tmp_path / "index.html"
    assert load(tmp_path / "results" / "quick.json").complete
    assert "workloads a-2x3x8x8-max-k2s2" in done.stderr

    for drawn in (page, *tmp_path.glob("*.svg")):
        drawn.unlink()
    again = bench_("plots", "--out", tmp_path)
    assert (again.exit_code, again.stdout.strip()) == (0, str(page))
    assert "<svg" in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("tiny")
def test_ctrl_c_tells_what_is_kept_and_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks_of = bench.experiments.suite.tasks_of

    def interrupted(*arguments: object) -> Iterator[Task]:
        yield from [task for task in tasks_of(*arguments) if task.workloads][:2]  # type: ignore[arg-type]
        yield Task("too long", 1.0, press_ctrl_c)

    monkeypatch.setattr(bench.experiments.suite, "tasks_of", interrupted)
    result = bench_("report", "--preset", "quick", "--out", tmp_path, "--no-peers")
    assert result.exit_code == 130
    path = tmp_path / "results" / "quick.json"
    assert f"2 of 3 tasks are kept in {path}; the same command goes on from there" in result.stderr
    assert len(load(path).finished) == 2
    assert not (tmp_path / "index.html").exists()


@pytest.mark.usefixtures("tiny", "undrawn")
def test_filters_leave_the_whole_run_alone(tmp_path: Path) -> None:
    names = ("--backend", "strided_slices", "--backend", "numba_loops", "--only", "sizes")
    result = bench_("report", "--preset", "quick", "--out", tmp_path, *names)
    assert result.exit_code == 0, result.output
    results = load(tmp_path / "part" / "results" / "quick.json")
    assert [entrant.name for entrant in results.entrants] == ["strided_slices", "numba_loops"]
    assert not results.absent
    assert results.planned == ["sizes b-1x2x8x8-max-k2s2"]
    assert not (tmp_path / "results").exists()


@pytest.mark.usefixtures("tiny", "undrawn")
@pytest.mark.parametrize(
    ("options", "take_part"),
    [((), True), (("--no-peers",), False), (("--backend", "simd"), False), (("--backend", "simd", "--peers"), True)],
)
def test_installed_peers_take_part_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], take_part: bool
) -> None:
    peer = replace(of_backend(pooling.get_backend("strided_slices")), name="rival", kind="peer")
    slow = replace(peer, name="slow", setup_s=60.0)
    monkeypatch.setattr("bench.peers.contenders", lambda: (peer, slow))
    monkeypatch.setattr("bench.peers.missing", lambda: (("away", "away is not installed; pip install away"),))
    monkeypatch.setattr("bench.peers.versions", lambda: {"rival": "1.2"})
    result = bench_("report", "--preset", "quick", "--out", tmp_path, "--only", "workloads", *options)
    assert result.exit_code == 0, result.output
    results = load((tmp_path / "part") / "results" / "quick.json")
    assert ([e.name for e in results.entrants if e.kind == "peer"] == ["rival"]) == take_part
    assert bool(results.of(Timing, kind="peer")) == take_part
    assert ("rival" in results.software) == take_part
    if take_part:
        assert results.absent["away"] == "away is not installed; pip install away"
        assert "about 60 s a workload" in results.absent["slow"]
    else:
        assert not results.absent


@pytest.mark.usefixtures("tiny", "undrawn")
def test_wrong_result_is_told_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Suite.run

    def one_wrong(suite: Suite, watch: bench.experiments.suite.Watch) -> None:
        run(suite, watch)
        suite.results.rows.append(LeftOut("sizes", "b-1x2x8x8-max-k2s2", "simd", "simd: y differs", wrong=True))

    monkeypatch.setattr(Suite, "run", one_wrong)
    result = bench_("report", "--preset", "quick", "--out", tmp_path, "--only", "sizes", "--no-peers")
    assert result.exit_code == 1
    assert "Wrong result, not timed: simd: y differs" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("report", "--preset", "swift"), "'swift': choose one of quick, standard, full"),
        (("report", "--backend", "sind"), "did you mean 'simd'?"),
        (("plots", "--out", "nowhere"), "nowhere has no results; measure first: python -m bench report --out nowhere"),
        (("plots", "--out", "nowhere", "--preset", "full"), "measure first: python -m bench report"),
        (("train", "--data-dir", "nowhere"), "nowhere has no train-images"),
        (("train", "--data-dir", "nowhere", "--backend", "repeat_mask"), "--backend repeat_mask can't do this: "),
        (("train", "--data-dir", "nowhere", "--ties", "none"), "--ties none: choose one of"),
    ],
)
def test_mistakes_are_told_in_a_line(arguments: tuple[str, ...], message: str) -> None:
    result = bench_(*arguments)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert "Traceback" not in result.output


def test_env_names_the_machine() -> None:
    result = bench_("env", "--threads", 1)
    assert result.exit_code == 0
    assert "CPU" in result.stdout
    assert "numpy" in result.stdout


def test_interrupt_that_got_lost_in_a_callback_is_still_one() -> None:
    def compile_interrupted() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
        except KeyboardInterrupt:
            raise RuntimeError("no compiled object yet") from None

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt), interruptible():
        compile_interrupted()
    with pytest.raises(RuntimeError, match="honest"), interruptible():
        raise RuntimeError("an honest mistake")
    assert signal.getsignal(signal.SIGINT) is before
