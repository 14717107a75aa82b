"""Races on disk and on the page, from made-up ones: a real race needs PyTorch and minutes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.report.race_report import RaceSection, ladder, profiles
from bench.schema.environment import machine, source, versions
from bench.schema.results import ResultsError
from bench.training.duel import Contestant, highest
from bench.training.ladder import FASTEST, LADDER
from bench.training.outcome import Race, load, path_of, save
from bench.training.train import Settings

STEPS = 4


def contestant(name: str, ms: float, steps: int = STEPS, accuracy: float | None = 0.97) -> Contestant:
    layers = [
        ("conv1", "forward", ms / 2e3),
        ("0 MaxPool2d", "forward", ms / 8e3),
        ("0 MaxPool2d", "backward", ms / 8e3),
    ]
    return Contestant(name, (ms, 0.9 * ms, 1.2 * ms), STEPS * ms / 1e3, [1.0] * steps, accuracy, layers, 400.0)


def made_up(network: str = "lenet", ours: float = 6.0) -> Race:
    who = [
        contestant("numpy", 40.0, 2, None),
        contestant(FASTEST, ours),
        contestant("pytorch", 20.0),
        contestant("pytorch_channels_last", 10.0),
    ]
    agreement = {f"{a} and {b}": 1e-5 for a in ("numpy", FASTEST) for b in ("pytorch", "pytorch_channels_last")}
    return Race(
        date="2026-01-02T03:04:05+00:00",
        settings=Settings(network, threads=1),
        dataset="MNIST",
        machine=machine(),
        source=source(),
        versions=versions(),
        blas=["openblas"],
        epoch_steps=STEPS,
        agreed=200,
        gentle={"momentum": 0.0},
        agreement=agreement,
        apart=agreement | {"pytorch and pytorch_channels_last": 0.3},
        contestants=who,
    )


def test_what_is_kept_is_what_was_run(tmp_path: Path) -> None:
    race = made_up("20/100")
    path = path_of(tmp_path, race.settings)
    save(race, path)
    assert load(path) == race
    assert RaceSection.of(tmp_path).races == [race]


@pytest.mark.parametrize(("ours", "met"), [(6.0, True), (7.5, False)])
def test_targets_are_worked_out(ours: float, met: bool) -> None:
    epoch, memory, accuracy, losses = made_up(ours=ours).targets()
    assert (epoch.met, epoch.found) == (met, f"{ours / 10:.2f}")
    assert "pytorch_channels_last" in epoch.what
    assert (memory.met, accuracy.met, losses.met) == (True, True, True)


def test_what_was_not_measured_is_not_met() -> None:
    race = made_up()
    short = [replace(c, accuracy=None, peak_mb=None) for c in race.contestants]
    _, memory, accuracy, _ = replace(race, contestants=short).targets()
    assert (memory.met, accuracy.met) == (None, None)


def test_each_rung_over_the_one_before_and_how_to_do_it_again() -> None:
    first, last = ladder(made_up())
    assert (first.over_before, last.over_before) == (None, 6.0 / 40.0)
    assert last.note == LADDER[FASTEST].note
    assert "--network lenet" in last.command
    assert last.command.endswith(f"--rung {FASTEST}")


def test_where_a_step_goes() -> None:
    found = list(profiles(made_up()))
    assert [p.name for p in found] == [FASTEST, "pytorch", "pytorch_channels_last"]
    assert found[0].layers[0] == ("conv1", 3e-3, None)
    assert found[0].pooling == pytest.approx(1 / 3)


def test_the_highest_rung() -> None:
    assert highest(["simd", "numpy", FASTEST, "slices"]) == FASTEST


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema": 0}', "older", "strange", "alone"])
def test_a_race_that_cannot_be_read_is_named(tmp_path: Path, damage: str) -> None:
    race = made_up()
    path = path_of(tmp_path, race.settings)
    save(race, path)
    kept = json.loads(path.read_text())
    if damage == "older":
        del kept["epoch_steps"]
    elif damage == "strange":
        kept["contestants"][0]["name"] = "tensorflow"
    elif damage == "alone":
        kept["contestants"] = kept["contestants"][:2]
    path.write_text(damage if damage[0] in "{[" else json.dumps(kept))
    with pytest.raises(ResultsError, match="race-lenet-max"):
        load(path)
    section = RaceSection.of(tmp_path)
    assert section.races == []
    assert "race-lenet-max" in section.unreadable[0]


def test_the_picture_has_a_panel_for_each_network(tmp_path: Path) -> None:
    for network in ("lenet", "question"):
        race = made_up(network)
        save(race, path_of(tmp_path, race.settings))
    figure = RaceSection.of(tmp_path).picture()
    assert [panel.get_title() for panel in figure.axes] == ["lenet", "question"]


def test_the_study_is_linked_where_it_lies(tmp_path: Path) -> None:
    assert RaceSection.of(tmp_path).study is None
    (tmp_path / "study.html").write_text("<p>")
    assert RaceSection.of(tmp_path).study == "study.html"
