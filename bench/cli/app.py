"""The suite's command line: ``python -m bench report|fit|train|race|study|plots|env|readme``."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

import pooling
from bench.cli.console import INTERRUPTED, complaints, interruptible
from bench.files import ROOT
from bench.schema.results import LeftOut, Results, ResultsError, load
from bench.schema.workloads import PRESETS, Preset

app = typer.Typer(
    help="Prove, time and show every way to pool. Results go to JSON; pictures and page are drawn from it alone.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def preset_of(value: str) -> Preset:
    """A preset by its name, or a complaint."""
    for preset in PRESETS:
        if value == preset:
            return preset
    raise typer.BadParameter(f"{value!r}: choose one of {', '.join(PRESETS)}")


Out = Annotated[Path, typer.Option("--out", help="Folder of the page, its pictures and results.")]
Threads = Annotated[
    int | None,
    typer.Option("--threads", min=1, help="Threads for everybody.", show_default="those this process may use"),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder with IDX files called as MNIST's.",
        show_default="POOLING_DATA_DIR, else it is downloaded",
    ),
]
NetworkName = Annotated[
    str, typer.Option("--network", help="question, lenet, or sizes: '16,32/200 conv=3 pool=3,2' (filters/hidden).")
]
ChosenPreset = Annotated[
    str,
    typer.Option(
        "--preset",
        callback=preset_of,
        metavar="|".join(PRESETS),
        help="Measure for at most 2, 16 or 60 minutes on 2 cores, with the frameworks two to three times that; "
        "the first time, compiling takes some minutes more.",
    ),
]
DrawnPreset = Annotated[
    str | None,
    typer.Option("--preset", metavar="|".join(PRESETS), help="Whose results.", show_default="the latest run"),
]


@app.command()
def report(
    preset: ChosenPreset = "standard",
    out: Out = Path("reports/local"),
    threads: Threads = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Begin anew even where an interrupted run could go on.")
    ] = False,
    only: Annotated[
        list[str] | None, typer.Option(help="Tasks with this in their name; may be repeated.", show_default="all")
    ] = None,
    backend: Annotated[
        list[str] | None, typer.Option(help="Time this backend; may be repeated.", show_default="all")
    ] = None,
    peers: Annotated[
        bool | None,
        typer.Option(
            "--peers/--no-peers", help="Take in the frameworks.", show_default="the installed ones, but with --backend"
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Prove and time every backend, train on MNIST, and write the page. An interrupted run goes on where it was.

    With --only or --backend the page goes to the folder "part" within --out, and the whole run's results stay as they are.
    """
    console = Console(stderr=True)
    with complaints(console):
        from bench.cli.progress import ProgressWatch
        from bench.experiments.suite import lineup, plan
        from bench.protocol.contenders import backends, of_backend
        from bench.report.page import write

        folder = out / "part" if only or backend else out
        contenders = tuple(of_backend(pooling.get_backend(name)) for name in backend) if backend else backends()
        absent: dict[str, str] = {}
        if peers or (peers is None and not backend):
            everybody, absent = lineup(preset_of(preset))
            contenders += tuple(contender for contender in everybody if contender.kind == "peer")
        with console.status("Looking at the machine and the data"), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            suite = plan(
                preset_of(preset),
                results_path(folder, preset),
                threads or pooling.get_num_threads(),
                fresh=fresh,
                contenders=contenders,
                absent=absent,
                only=only or (),
                data_dir=data_dir,
            )
        data = f"Data: {suite.results.dataset}, {suite.results.dataset_note}"
        for line in filter(None, (*(str(warning.message) for warning in warned), suite.note, data)):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
        try:
            with ProgressWatch(console, suite.left) as watch, interruptible():
                suite.run(watch)
        except KeyboardInterrupt:
            kept = len(suite.tasks) - len(suite.left)
            console.print(
                f"Interrupted. {kept} of {len(suite.tasks)} tasks are kept in {suite.path}; the same command goes on from "
                f"there.{' What there is so far: python -m bench plots --out ' + str(folder) if kept else ''}",
                highlight=False,
                markup=False,
                soft_wrap=True,
            )
            raise typer.Exit(INTERRUPTED) from None
        wrong = [row for row in suite.results.of(LeftOut) if row.wrong]
        for row in wrong:
            console.print(f"Wrong result, not timed: {row.reason}", style="red", highlight=False, markup=False)
        typer.echo(write(suite.results, folder).resolve())
        if wrong:
            raise typer.Exit(1)


@app.command()
def plots(out: Out = Path("reports/local"), preset: DrawnPreset = None) -> None:
    """Draw pictures and page again, from the results alone."""
    with complaints(Console(stderr=True)):
        from bench.report.page import write

        typer.echo(write(results_in(out, preset), out).resolve())


@app.command()
def readme(
    out: Out = Path("reports"),
    preset: DrawnPreset = None,
    path: Annotated[Path, typer.Option("--readme", help="File to write to.")] = ROOT / "README.md",
) -> None:
    """Write the reference run's numbers between the README's markers."""
    with complaints(Console(stderr=True)):
        from bench.report.page import update_readme

        update_readme(results_in(out, preset), path)
        typer.echo(path)


@app.command()
def env(threads: Threads = None) -> None:
    """What the numbers would be measured on."""
    with complaints(Console(stderr=True)):
        from bench import peers
        from bench.schema.environment import describe, machine, source, versions

        table = Table(show_header=False, box=None)
        software = versions() | peers.versions()
        for name, value in describe(machine(), threads or pooling.get_num_threads(), software, source()):
            table.add_row(name, value)
        Console().print(table)


@app.command()
def fit(
    measure: Annotated[
        bool, typer.Option("--measure/--no-measure", help="Measure what is missing of the design first.")
    ] = True,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure all of the design anew.")] = False,
    results: Annotated[Path, typer.Option("--results", help="Folder with the run and the measured design.")] = ROOT
    / "reports"
    / "results",
    out: Annotated[Path | None, typer.Option("--out", help="File of the rule.", show_default="the library's")] = None,
) -> None:
    """Fit the rule that backend="auto" follows to this machine. An interrupted measurement goes on where it was."""
    console = Console(stderr=True)
    with complaints(console):
        from bench.analysis import fit as fitting
        from bench.report.fit_report import describe_fit
        from pooling.tuning import rule

        measured = results / "rule.json"
        if measure or fresh:
            try:
                with fit_progress(console) as progress, interruptible():
                    fitting.measure_design(measured, fresh, progress)
            except KeyboardInterrupt:
                console.print(f"Interrupted; {measured} keeps what is done, and the same command goes on with it.")
                raise typer.Exit(INTERRUPTED) from None
        observations = list(fitting.of_file(measured))
        run = [load(path) for path in (results / f"{preset}.json" for preset in PRESETS) if path.exists()]
        for one in run:
            observations += fitting.of_results(one)
        found = fitting.fit(observations)
        fitting.write(found, observations, out or Path(rule.PATH))
        for line in describe_fit(fitting.cross_validate(observations)):
            typer.echo(line)
        typer.echo(out or rule.PATH)


@app.command()
def train(
    network: NetworkName = "lenet",
    pool: Annotated[str, typer.Option(help="max, avg, or undivided: a mean whose gradient is not divided.")] = "max",
    backend: Annotated[str, typer.Option(help="A backend's name, or auto.")] = "auto",
    ties: Annotated[str, typer.Option(help="first, last, split or all.")] = "first",
    epochs: Annotated[int, typer.Option(min=1)] = 3,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    learning_rate: Annotated[float, typer.Option(min=0)] = 0.03,
    momentum: Annotated[float, typer.Option(min=0, max=1)] = 0.9,
    seed: Annotated[int, typer.Option(min=0, help="Of weights and order: the same seed gives the same losses.")] = 0,
    images: Annotated[int | None, typer.Option(min=1, help="Train on the first so many only.")] = None,
    rung: Annotated[
        str, typer.Option(help="How it is computed, from numpy, the first version, to the last.")
    ] = "sparse",
    threads: Threads = None,
    data_dir: DataDir = None,
) -> None:
    """Train a network on MNIST, and say where the time goes."""
    console = Console(stderr=True)
    with complaints(console):
        from bench.training import data
        from bench.training.command import check, run

        options = {
            "network": network,
            "pool": pool,
            "backend": backend,
            "ties": ties,
            "epochs": epochs,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "momentum": momentum,
            "seed": seed,
            "images": images,
            "threads": threads or pooling.get_num_threads(),
            "rung": rung,
        }
        check(options)  # before the data, which take a second to load, or minutes to come
        try:
            with interruptible():
                run(data.load(data_dir), **options)
        except KeyboardInterrupt:
            console.print("Interrupted; the epochs above are what there is.")
            raise typer.Exit(INTERRUPTED) from None


@contextmanager
def fit_progress(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


@app.command()
def race(
    network: NetworkName = "lenet",
    pool: Annotated[str, typer.Option(help="max or avg.")] = "max",
    rung: Annotated[
        list[str] | None,
        typer.Option(help="Ours that take part; may be repeated; all is every one.", show_default="sparse"),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    learning_rate: Annotated[float, typer.Option(min=0)] = 0.03,
    momentum: Annotated[float, typer.Option(min=0, max=1)] = 0.9,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    images: Annotated[int | None, typer.Option(min=1, help="Train on the first so many only.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Of each.", show_default="an epoch")] = None,
    rung_steps: Annotated[
        int | None,
        typer.Option(min=1, help="Of an epoch, rungs other than the last do at most so many.", show_default="200"),
    ] = None,
    compiled: Annotated[bool, typer.Option("--compiled", help="PyTorch's compiler too.")] = False,
    memory: Annotated[bool, typer.Option("--memory/--no-memory", help="Also each alone, for its memory.")] = True,
    out: Out = Path("reports/local"),
    threads: Threads = None,
    data_dir: DataDir = None,
) -> None:
    """Train in turns with PyTorch: time, losses, accuracy, memory, and where each spends its time."""
    console = Console(stderr=True)
    with complaints(console):
        from bench.training import command, data

        settings = {
            "network": network,
            "pool": pool,
            "batch_size": batch_size,
            "learning_rate": learning_rate,
            "momentum": momentum,
            "seed": seed,
            "images": images,
            "threads": threads or pooling.get_num_threads(),
        }
        with interruptible():
            dataset = data.load(data_dir)
            path = command.race(dataset, out, settings, rung or [], steps, compiled, memory, data_dir, rung_steps)
        typer.echo(path.resolve())


@app.command()
def study(
    out: Out = Path("reports/local"),
    part: Annotated[
        list[str] | None,
        typer.Option(help="timing, grid, rates or published; may be repeated.", show_default="all"),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1)] = 5,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    published_epochs: Annotated[int, typer.Option(min=1, help="Of Nielsen's ladder.")] = 60,
    images: Annotated[int | None, typer.Option(min=1, help="Train on the first so many only.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="Address of a Dask scheduler, whose workers do the runs.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes without one.", show_default="cores")] = None,
    budget_minutes: Annotated[
        float | None, typer.Option(min=0, help="Begin no run after so long; the same command goes on.")
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """What does max pooling do to accuracy? Many trainings, each a row on disk when it is done; goes on where it was."""
    console = Console(stderr=True)
    with complaints(console):
        from bench.accuracy_study.command import planned, rows_path, show
        from bench.accuracy_study.command import study as do

        wanted = planned(tuple(part or ()), seeds, epochs, images, published_epochs)
        try:
            with interruptible():
                outcome = do(
                    console,
                    out,
                    wanted,
                    data_dir=data_dir,
                    scheduler=scheduler,
                    workers=workers,
                    budget_minutes=budget_minutes,
                )
        except KeyboardInterrupt:
            console.print(
                f"Interrupted; rows are kept in {rows_path(out)}, and the same command goes on.", soft_wrap=True
            )
            raise typer.Exit(INTERRUPTED) from None
        for key, reason in outcome.failed.items():
            console.print(f"Given up: {key}: {reason}", style="red", highlight=False, markup=False, soft_wrap=True)
        if outcome.left:
            console.print(f"{len(outcome.left)} runs are left; the same command goes on with them.", highlight=False)
        typer.echo(show(Console(quiet=True), out).resolve())
        if outcome.failed:
            raise typer.Exit(1)


def results_path(folder: Path, preset: str) -> Path:
    """Where the results of a preset's run are kept."""
    return folder / "results" / f"{preset}.json"


def results_in(folder: Path, preset: str | None) -> Results:
    """The results of a preset's run, or of the latest run in `folder`.

    Raises
    ------
    ResultsError
        There are none, or they can't be read.
    """
    if preset is not None:
        return load(results_path(folder, preset_of(preset)))
    found = [load(path) for path in (results_path(folder, preset) for preset in PRESETS) if path.exists()]
    if not found:
        raise ResultsError(f"{folder} has no results; measure first: python -m bench report --out {folder}")
    return max(found, key=lambda results: results.updated)
