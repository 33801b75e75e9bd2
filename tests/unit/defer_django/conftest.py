"""What the tests of defer_django share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from testapp import tasks

from defer_core.testing import forget_configuration


@pytest.fixture
def calls() -> Iterator[list[tuple[Any, ...]]]:
    """What `testapp.tasks.record` was called with."""
    tasks.calls.clear()
    yield tasks.calls
    tasks.calls.clear()


@pytest.fixture(autouse=True)
def fresh_configuration() -> Iterator[None]:
    """Each test reads the settings anew, and gets a queue of its own."""
    forget_configuration()
    yield
    forget_configuration()
