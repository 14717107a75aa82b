"""The command line: what it prints, for people and for scripts, and how it says no."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import pooling
from pooling.backends.registry import REGISTRY
from pooling.cli import app
from pooling.tuning.candidates import FOR_REFERENCE, READS_X_AGAIN

PICK = ("pick", "--shape", "64,20,24,24")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def printed(*arguments: str) -> Any:
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_no_command_shows_the_help() -> None:
    result = run()
    assert result.exit_code == 0
    assert all(command in result.stdout for command in ("info", "pick", "check"))


def test_wisdom_alone_shows_its_help() -> None:
    result = run("wisdom")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "forget" in result.stdout


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_bars_are_printed_whatever_the_encoding(encoding: str) -> None:
    command = (sys.executable, "-m", "pooling", "pick", "--shape", "4,4,8,8", "--kernel", "2")
    environment = os.environ | {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert b" us  " in done.stdout


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full disk at hand")
def test_a_full_disk_is_one_line() -> None:
    command = (sys.executable, "-m", "pooling", "pick", "--shape", "4,4,8,8", "--kernel", "2")
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1), done.stderr


def test_version() -> None:
    assert run("--version").stdout.strip() == pooling.__version__


def test_info() -> None:
    facts = printed("info")
    assert facts["version"] == pooling.__version__
    assert facts["threads"] == pooling.get_num_threads()
    assert facts["vector_bytes"] in (16, 32, 64)
    assert [b["name"] for b in facts["backends"]] == list(pooling.list_backends())
    assert {b["name"]: (b["note"], tuple(b["ties"]), tuple(b["ops"])) for b in facts["backends"]} == {
        name: (b.note, b.ties, tuple(b.ops)) for name, b in REGISTRY.items()
    }
    shown = run("info").stdout
    assert all(b.note in shown for b in REGISTRY.values())


def test_pick_agrees_with_the_library() -> None:
    shape, operator = (64, 20, 24, 24), pooling.MaxPool(2)
    answer = printed(*PICK, "--kernel", "2")
    assert answer["backend"] == pooling.pick(shape, "float32", operator)
    assert answer["shape"] == list(shape)
    for name in pooling.list_backends():
        reason = pooling.get_backend(name).why_not(shape, "float32", operator)
        others = (FOR_REFERENCE, READS_X_AGAIN)
        assert answer["not_considered"].get(name) in ((reason,) if reason else (None, *others))


def test_pick_prints_the_name_first() -> None:
    result = run(*PICK, "--kernel", "2")
    first, *rest = result.stdout.splitlines()
    assert first in pooling.list_backends()
    assert any(line.split() and line.split()[0] == "block_reduce" for line in rest)


@pytest.mark.parametrize(
    ("options", "operator"),
    [
        (("--kernel", "3,2", "--stride", "2,1"), pooling.MaxPool((3, 2), (2, 1))),
        (("--kernel", "3", "--padding", "0:1,1:1"), pooling.MaxPool(3, padding=((0, 1), (1, 1)))),
        (("--kernel", "3", "--padding", "1,0"), pooling.MaxPool(3, padding=(1, 0))),
        (("--kernel", "3", "--padding", "same_upper"), pooling.MaxPool(3, padding="same_upper")),
        (("--kernel", "2", "--ties", "split", "--dilation", "2"), pooling.MaxPool(2, dilation=2, ties="split")),
        (("--kernel", "3", "--ceil-mode", "--op", "avg"), pooling.AvgPool(3, ceil_mode=True)),
        (("--kernel", "3", "--op", "lp"), pooling.LpPool(3)),
        (("--kernel", "2", "--data-format", "channels_last"), pooling.MaxPool(2, data_format="channels_last")),
        (("--kernel", "4,", "--padding", "1,"), pooling.MaxPool((4,), padding=(1,))),
    ],
)
def test_pick_takes_every_argument(options: tuple[str, ...], operator: pooling.MaxPool) -> None:
    answer = printed(*PICK, *options)
    assert answer["operator"] == repr(operator)
    assert answer["backend"] == pooling.pick((64, 20, 24, 24), "float32", operator)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nothing",), "nothing"),
        (("pick", "--shape", "4,4"), "--kernel"),
        (("pick", "--shape", "4,x", "--kernel", "2,2"), "--shape 4,x: give integers"),
        (("pick", "--shape", "-4,4", "--kernel", "2,2"), "--shape -4,4"),
        (("pick", "--shape", "4,4", "--kernel", "0,2"), "kernel_size"),
        (("pick", "--shape", "4,4", "--kernel", "9,2"), "kernel_size 9"),
        (("pick", "--shape", "4,4", "--kernel", "2"), "x has 2 dimensions"),
        (("pick", "--shape", "4,4", "--kernel", "2,2", "--op", "median"), "--op"),
        (("pick", "--shape", "4,4", "--kernel", "2,2", "--op", "avg", "--ties", "first"), "--ties first"),
        (("pick", "--shape", "4,4", "--kernel", "2,2", "--padding", "1:1:1,0"), "--padding 1:1:1,0"),
        (("pick", "--shape", "4,4", "--kernel", "2,2", "--padding", "everything"), "everything"),
        (("pick", "--shape", "4,4", "--kernel", "2,2", "--dtype", "float23"), "--dtype float23"),
        (("pick", "--shape", "4,4", "--kernel", "2,2", "--dtype", "complex64"), "complex64"),
        (("check", "--backend", "numba_lops"), "did you mean 'numba_loops'?"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert words in result.stderr


def test_check_says_what_is_right() -> None:
    verdicts = printed("check", "--backend", "repeat_mask")
    assert {(v["op"], v["ties"], v["window"]): v["verdict"] for v in verdicts if v["window"] == "2x2"} == {
        ("max", "split", "2x2"): "right",
        ("max", "all", "2x2"): "right",
        ("avg", "", "2x2"): "right",
    }
    assert all(v["message"] for v in verdicts if v["verdict"] == "not offered")


def test_check_finds_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = REGISTRY["strided_slices"]
    mean = honest.ops["avg"]

    def undivided(dy: Any, kept: Any, problem: Any, dx: Any) -> None:
        mean.backward(dy, kept, problem, dx)
        dx *= problem.window.n_taps

    broken = dataclasses.replace(honest, ops={"avg": dataclasses.replace(mean, backward=undivided)}, ties=())
    monkeypatch.setitem(REGISTRY, "strided_slices", broken)
    result = run("check", "--backend", "strided_slices")
    assert result.exit_code == 1
    assert "WRONG: " in result.stdout
    assert result.stdout.splitlines()[-1] == "2 right, 4 wrong, 0 not offered or not checked"
