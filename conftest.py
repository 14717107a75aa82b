"""Benchmarks run once, as tests, unless an option such as ``--benchmark-only`` asks for times; tests see no user's wisdom.

Hypothesis gives the same examples in every run, and takes the time it needs: a busy machine is no fault of what is tested.
"""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator

import pytest


def make_examples_steady() -> None:
    """A profile for all tests, where Hypothesis is installed: benchmarks do without it."""
    try:
        from hypothesis import HealthCheck, settings
        from hypothesis.internal.conjecture import providers
    except ImportError:
        return
    slow = [HealthCheck.too_slow, HealthCheck.filter_too_much]
    settings.register_profile("steady", deadline=None, derandomize=True, database=None, suppress_health_check=slow)
    settings.load_profile("steady")
    # It also draws constants from the sources of whatever modules are loaded. Which these are depends on the tests before,
    # and so on which worker was free; no setting turns it off. Without this function examples are as they were before it.
    if hasattr(providers, "_get_local_constants"):
        none = providers._local_constants
        providers._get_local_constants = lambda: none


make_examples_steady()


@pytest.hookimpl(tryfirst=True)  # before pytest-benchmark reads its options
def pytest_configure(config: pytest.Config) -> None:
    os.environ["POOLING_WISDOM"] = os.devnull
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in what a shell runs in its background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    given = [*map(str, config.invocation_params.args), *shlex.split(os.environ.get("PYTEST_ADDOPTS", ""))]
    asked = any(argument.startswith("--benchmark-") for argument in given)
    if not asked and config.pluginmanager.hasplugin("benchmark"):
        config.option.benchmark_disable = True


@pytest.fixture(autouse=True)
def number_of_threads_is_left_alone() -> Iterator[None]:
    """A test that leaves a number of threads set would change what tests after it find, and which these are depends on timing."""
    yield
    pool = sys.modules.get("pooling.parallel.pool")
    if pool is not None and pool.chosen_threads() is not None:
        pool.set_num_threads(None)
        pytest.fail("the number of threads is still set: end with pooling.set_num_threads(None)")
