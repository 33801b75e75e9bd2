"""Every test of this folder belongs to the lane `outside`: it runs what users run, in processes of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from outside.processes import Processes
from outside.row import Row

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before -m looks at the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.outside)


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes in the test's own folder, and ends them."""
    with Processes(tmp_path) as processes:
        yield processes


@pytest.fixture(scope="module")
def row(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Row]:
    """A server, by its name."""
    with Processes(tmp_path_factory.mktemp(request.param)) as processes:
        yield Row(request.param, processes)
