"""pytest: every test has a queue of its own, in memory, and the fixture `deferred` looks into it.

It is a package of its own, which imports defer when the first test runs: coverage does not see what pytest loads at its
start.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from defer_core.testing import Deferred

pytest.register_assert_rewrite("defer_core.testing.contracts")  # whose failures are to say what was compared


def pytest_configure(config: pytest.Config) -> None:
    """Register the mark."""
    config.addinivalue_line("markers", "defer_real: tasks of this test go to the queue that is configured")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Isolate a test with all of its fixtures: what those of a session or module defer belongs to no test."""
    with _around(item):
        yield


@pytest.fixture(autouse=True)
def _defer_queue(request: pytest.FixtureRequest) -> Iterator[None]:
    with _around(request.node):
        yield


@pytest.fixture
def deferred(_defer_queue: None) -> Deferred:
    """Return the tasks that this test has deferred: a `defer_core.testing.Deferred`."""
    from defer_core.testing.deferred import Deferred

    return Deferred()


def _around(item: pytest.Item) -> AbstractContextManager[None]:
    from defer_core.testing import isolation

    return isolation.not_isolated() if item.get_closest_marker("defer_real") else isolation.isolated()
