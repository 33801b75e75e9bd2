"""Callbacks and finalizes that are coroutines run; those that only make something fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row

from defer_core.errors import OptionError, PermanentTaskFailure
from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration import models

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


async def callback(row: Any) -> None:
    iterations.callback(row)
    await Row.objects.filter(pk=row.pk).aupdate(hits=row.hits + 1)


async def finalize() -> None:
    iterations.finalize()


def of_one(row: Any) -> None:
    pass


def makes_steps(*args: Any) -> Iterator[None]:
    return (None for _ in args)


@pytest.mark.parametrize("atomic", [False, True])
def test_coroutines_are_awaited_for_every_row_and_at_the_end(queue: Any, rows: Any, atomic: bool) -> None:
    keys = rows(7)
    walk(Row.objects.all(), callback, finalize, _shards=2, _atomic=atomic)
    drain(queue)
    assert sorted(iterations.seen) == keys
    assert iterations.counters == [{"passed": 7}]
    assert set(Row.objects.values_list("hits", flat=True)) == {1}


def test_a_row_s_generator_is_an_error(queue: Any, rows: Any) -> None:
    rows(1)
    walk(Row.objects.all(), makes_steps, iterations.finalize, _shards=1, _on_error="fail", _max_attempts=1)
    drain(queue, on_error="ignore")
    assert "body has not run" in models.Iteration.objects.get().reason + models.Shard.objects.get().error


def test_a_quarantined_row_is_awaited_when_it_is_tried_again(queue: Any, rows: Any) -> None:
    rows(1)

    def refuse(row: Any) -> None:
        raise PermanentTaskFailure("not yet")

    iterations.before.append(refuse)
    handle = walk(Row.objects.all(), callback, finalize, _shards=1, _on_error="quarantine", _max_attempts=1)
    drain(queue, on_error="ignore")
    iterations.before.clear()
    handle.retry_quarantined()
    drain(queue)
    assert set(Row.objects.values_list("hits", flat=True)) == {1}


@pytest.mark.parametrize(
    ("which", "given"),
    [
        ("callback", {"args": [1], "finalize": iterations.finalize}),
        ("callback", {"countdown": 5, "finalize": iterations.finalize}),
        ("finalize", {"args": [1], "callback": iterations.callback}),
    ],
)
def test_arguments_that_do_not_fit_are_refused(queue: Any, which: str, given: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="does not fit") as caught:
        walk(Row.objects.all(), **{"callback": of_one, "finalize": finalize, **given})
    assert which in caught.value.__notes__[0]
    assert not models.Iteration.objects.exists()
