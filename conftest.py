"""Benchmarks run once, as tests, unless an option such as ``--benchmark-only`` asks for their times."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    asked = any(str(argument).startswith("--benchmark") for argument in config.invocation_params.args)
    if not asked and hasattr(config.option, "benchmark_disable"):
        config.option.benchmark_disable = True
