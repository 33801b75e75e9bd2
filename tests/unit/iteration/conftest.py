"""What the tests of iterations share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row

from defer_core.testing import MemoryTransport, forget_configuration, in_memory


@pytest.fixture
def queue(transactional_db: None) -> Iterator[MemoryTransport]:
    """A queue in memory, with the records in the database; and nothing noted so far."""
    iterations.reset()
    forget_configuration()
    with in_memory(store="django", sweep_grace=60.0) as transport:
        yield transport
    iterations.reset()


@pytest.fixture
def rows() -> Callable[[int], list[Any]]:
    """Make so many rows; returns their primary keys."""

    def make(number: int, **values: Any) -> list[Any]:
        Row.objects.bulk_create([Row(number=index, **values) for index in range(number)])
        return list(Row.objects.order_by("pk").values_list("pk", flat=True))

    return make
