"""The tests themselves: their examples depend neither on the time nor on what ran before them."""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from types import ModuleType

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).resolve().parents[2]


def test_no_test_has_a_deadline() -> None:
    profile = settings()
    assert profile.deadline is None
    assert profile.derandomize
    assert HealthCheck.too_slow in profile.suppress_health_check


def examples() -> list[int]:
    """What Hypothesis makes up now."""
    drawn: list[int] = []

    @settings(max_examples=300)
    @given(st.integers())
    def draw(n: int) -> None:
        drawn.append(n)

    draw()
    return drawn


def test_examples_are_the_same_whatever_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a module that another test has imported came in before: alone, a test that had failed passed."""
    before = examples()
    for i in range(20):
        module = ModuleType(f"loaded_{i}")
        module.__file__ = str(tmp_path / f"loaded_{i}.py")
        Path(module.__file__).write_text(f"NUMBERS = {list(range(1000 * i + 123_456, 1000 * i + 123_556))}\n")
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert examples() == before


def test_no_settings_of_hypothesis_bring_time_back() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.keyword) and node.arg == "deadline":
                assert isinstance(node.value, ast.Constant), path
                assert node.value.value is None, path
