"""Tasks are enqueued in the transaction that makes them necessary: the caller's, for the plan."""

from __future__ import annotations

from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row

from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration import models

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


# --- transactions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transactional", [True, False])
def test_promise_2_a_call_that_is_rolled_back_never_runs(queue: Any, rows: Any, transactional: bool) -> None:
    from django.db import transaction

    rows(2)
    with pytest.raises(ZeroDivisionError), transaction.atomic():
        walk(Row.objects.all(), iterations.callback, iterations.finalize, _transactional=transactional)
        raise ZeroDivisionError
    assert queue.queued() == [] and not models.Iteration.objects.exists()


@pytest.mark.parametrize("transactional", [True, False])
def test_a_call_in_a_transaction_runs_after_its_commit(queue: Any, rows: Any, transactional: bool) -> None:
    from django.db import transaction

    keys = rows(2)
    with transaction.atomic():
        walk(Row.objects.all(), iterations.callback, iterations.finalize, _transactional=transactional)
        assert queue.queued() == []
    drain(queue)
    assert sorted(iterations.seen) == keys


def test_transactional_outside_a_transaction_runs_at_once(queue: Any, rows: Any) -> None:
    rows(1)
    walk(Row.objects.all(), iterations.callback, iterations.finalize, _transactional=True)
    assert len(queue.queued()) == 1
