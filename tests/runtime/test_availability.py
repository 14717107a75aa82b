"""Numba told to compile nothing, not installed, or unable to load: what needs it says so, and everything else goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pooling.runtime import availability
from tests.processes import HANG_S, STEP, run_python, works

OFF = {"NUMBA_DISABLE_JIT": "1"}

COMPARE = """
import itertools
import numpy as np, pooling
from tests.cases import data, gradient_for, same_bits

def compare(operator, x, tolerance=0.0):
    found = []
    for name in ("reference", "numba_loops"):
        operator.backend = name
        y, saved = operator.forward(x)
        found.append((y, operator.backward(gradient_for(y), saved) if x.dtype.kind == "f" else y))
    for ours, theirs in zip(*found):
        if tolerance:
            np.testing.assert_allclose(theirs, ours, tolerance, tolerance, equal_nan=True)
        else:
            assert same_bits(ours, theirs), operator

size = {1: (3,), 2: (5, 6), 3: (3, 4, 5)}
padded = dict(kernel_size=3, stride=2, padding=2, ceil_mode=True, dilation=1)
padded["padding"] = ((2, 2),)
for n, dtype, layout in itertools.product(size, ("f4", "f8", "i1", "u8", "?"), ("channels_first", "channels_last")):
    x = data((2, 3, *size[n]) if layout == "channels_first" else (2, *size[n], 3), dtype)
    alone = dict(kernel_size=2, stride=1, padding=2, dilation=4)  # along 3 cells, some windows hold padding alone
    for window in (dict(kernel_size=2), padded | {"padding": padded["padding"] * n}, alone):
        for ties in ("first", "last", "split", "all"):
            compare(pooling.MaxPool(**window, ties=ties, data_format=layout), x)
        if x.dtype.kind == "f":
            tame = np.where(np.isfinite(x), x, 1).astype(dtype)
            compare(pooling.AvgPool(**window, count_include_pad=False, data_format=layout), tame, 1e-6)
            compare(pooling.LpPool(**window, p=3, data_format=layout), tame, 1e-5)
            compare(pooling.LpPool(**window, p=float("inf"), data_format=layout), tame)
constant = np.full((1, 1, 400, 400), 0.1, np.float32)
mean = pooling.GlobalAvgPool(backend="numba_loops")(constant)
assert abs(mean.item() - np.float64(constant[0, 0, 0, 0])) < 1e-8, mean
print("equal")
"""


def test_the_loops_run_as_python_and_give_the_same() -> None:
    """numba#7808: with NUMBA_DISABLE_JIT, what Numba decorates has none of a dispatcher's attributes."""
    works(run_python(COMPARE, **OFF), "equal")


SAID = """
import numpy as np, pooling
x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
pool = pooling.MaxPool(2)
y, saved = pool.forward(x)
dx = pool.backward(y, saved)
pooling.gradcheck(pooling.MaxPool(3, 2, 1), x)
choice = pooling.pick(x.shape, x.dtype, pool, explain=True)
print(saved.backend, int(dx.sum()), choice.backend)
for name in ("numba_loops", "simd"):
    reason = pooling.REGISTRY[name].why_not(x.shape, x.dtype, pool)
    print(reason)
    print(choice.not_considered.get(name))
    try:
        pooling.MaxPool(2, backend=name)(x)
        print("works")
    except pooling.UnsupportedError as error:
        assert reason in str(error), (reason, error)
        print("refused")
"""


def test_what_can_not_run_says_so_and_auto_takes_what_runs() -> None:
    works(
        run_python(SAID, **OFF),
        f"strided_slices 576 strided_slices\nNone\n{availability.IN_PYTHON}\nworks\n"
        f"{availability.DISABLED}\n{availability.DISABLED}\nrefused",
    )


def test_it_may_be_switched_while_the_process_runs() -> None:
    code = """
import numba
before = [step(name) for name in ("simd", "numba_loops")]
auto = pooling.MaxPool(2)
names = [auto.forward(x)[1].backend]
other = pooling.MaxPool(2, ties="last", backend="simd")
y, saved = other.forward(x)
for numba.config.DISABLE_JIT in (1, 0):
    names.append(auto.forward(x)[1].backend)
    try:
        assert int(other.backward(y, saved).sum()) == 576
        assert int(pooling.AvgPool(2, backend="simd")(x).sum()) == 504
    except pooling.UnsupportedError as error:
        assert "DISABLE_JIT" in str(error)
        names.append("refused")
    assert int(pooling.AvgPool(2, backend="numba_loops")(x).sum()) == 504
from pooling.backends.numba_loops import add_cells
print(*before, *names, hasattr(add_cells._compiled, "py_func"))
"""
    works(run_python(STEP + code), "576 576 simd strided_slices refused simd True")


def test_turned_off_between_forward_and_backward() -> None:
    """The error named an internal kernel and not the backend, which is what a user can choose."""
    code = """
import numba
pool = pooling.MaxPool(2, backend="simd")
y, saved = pool.forward(x)
numba.config.DISABLE_JIT = 1
try:
    pool.backward(y, saved)
except pooling.UnsupportedError as error:
    print("'simd'" in str(error), "DISABLE_JIT" in str(error), "prepare" in str(error))
numba.config.DISABLE_JIT = 0
print(int(pool.backward(y, saved).sum()))
"""
    works(run_python(STEP + code), "True True False\n576")


@pytest.mark.parametrize(("rung", "refused"), [("sparse", True), ("update", True), ("buffers", False), ("simd", False)])
def test_a_training_of_compiled_kernels_is_refused(rung: str, refused: bool) -> None:
    """It failed behind the progress bar, with a kernel's name."""
    code = f"""
from bench.training.data import digits
from bench.training.train import Settings
from pooling import PoolingError
try:
    Settings(rung={rung!r}).check(digits())
    print("taken")
except PoolingError as error:
    print("DISABLE_JIT" in str(error), len(str(error).splitlines()))
"""
    works(run_python(code, **OFF), "True 1" if refused else "taken")


@pytest.mark.parametrize(("value", "off"), [("", False), ("0", False), ("1", True), ("2", True)])
def test_numba_and_the_library_read_the_setting_alike(value: str, off: bool) -> None:
    code = """
from pooling.runtime.availability import disabled
before = disabled()
import warnings; warnings.simplefilter("ignore")
import numba
print(before, disabled(), bool(numba.config.DISABLE_JIT))
"""
    works(run_python(code, NUMBA_DISABLE_JIT=value), f"{off} {off} {off}")


def broken(folder: Path) -> dict[str, str]:
    """An environment whose Numba refuses its NumPy."""
    (folder / "numba").mkdir()
    (folder / "numba" / "__init__.py").write_text('raise ImportError("Numba needs NumPy 2.1 or less.")\n')
    return {"PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")])}


MISSING = "import sys; sys.modules['numba'] = None\n"


def test_numba_is_not_installed() -> None:
    reason = "Numba is not installed: pip install numba"
    refused = "\n".join([reason, reason, "refused"])
    works(run_python(MISSING + SAID), f"strided_slices 576 strided_slices\n{refused}\n{refused}")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_numba_can_not_be_imported(dtype: str, tmp_path: Path) -> None:
    """numba#10033: it refuses newer versions of NumPy. The first call finds out, and takes another backend."""
    done = run_python(SAID.replace("np.float32", f"np.{dtype}"), **broken(tmp_path))
    reason = "Numba can't be imported: Numba needs NumPy 2.1 or less."
    refused = "\n".join([reason, reason, "refused"])
    works(done, f"strided_slices 576 strided_slices\n{refused}\n{refused}")


def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pooling", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


@pytest.mark.parametrize("how", ["off", "broken"])
def test_the_commands(how: str, tmp_path: Path) -> None:
    environment = OFF if how == "off" else broken(tmp_path)
    environment = environment | {"POOLING_WISDOM": str(tmp_path / "wisdom.json")}
    layer = ("--shape", "2,2,8,8", "--kernel", "2")

    def told(*arguments: str) -> Any:
        done = command(*arguments, "--json", **environment)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        return json.loads(done.stdout)

    assert ("DISABLE_JIT" if how == "off" else "can't be imported") in told("info")["numba"]
    assert command("info", **environment).returncode == 0
    verdicts = {(one["backend"], one["verdict"]) for one in told("check")}
    assert ("simd", "not offered") in verdicts
    assert ("numba_loops", "right" if how == "off" else "not offered") in verdicts
    assert (("numba_loops", "not checked") in verdicts) == (how == "off"), "sums of many cells take minutes as Python"
    assert "WRONG" not in {verdict for _, verdict in verdicts}
    tuned = command("tune", *layer, "--budget", "2", **environment)
    assert tuned.returncode == 0, tuned.stderr
    (machine,) = json.loads((tmp_path / "wisdom.json").read_text(encoding="utf-8"))["machines"].values()
    assert machine["numba"] == "unused", "what was chosen without Numba would be chosen with it, too"
    assert told("pick", *layer)["backend"] in ("strided_slices", "argmax_switches")


def test_kernels_that_call_kernels_run_as_python() -> None:
    code = """
from tests.runtime.test_jit import scaled, twice_scaled
bound = twice_scaled.bind(scaled=scaled.bind(FACTOR=7))
print(twice_scaled(3), twice_scaled.bind(FACTOR=5)(3), scaled(3), bound(1), twice_scaled.__name__)
"""
    works(run_python(code, **OFF), "12 75 6 49 twice_scaled")


def test_here_numba_is_there() -> None:
    assert availability.why_not_compiled() is None
    assert availability.imports()
