"""Benchmarks run once, as tests, unless an option such as ``--benchmark-only`` asks for times; tests see no user's wisdom."""

from __future__ import annotations

import os
import shlex

import pytest


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark reads its options
def pytest_configure(config: pytest.Config) -> None:
    os.environ["POOLING_WISDOM"] = os.devnull
    given = [*map(str, config.invocation_params.args), *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
    asked = any(argument.startswith("--benchmark-") for argument in given)
    if not asked and config.pluginmanager.hasplugin("benchmark"):
        config.option.benchmark_disable = True
