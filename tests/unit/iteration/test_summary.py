"""Iterations in `manage.py defer_status`."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from testapp import iterations
from testapp.models import Row

from defer_core.testing import drain
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration import summary
from defer_iteration.model.iteration import IterationState
from defer_iteration.stores.routing import store_on

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


def begin(**options: Any) -> Any:
    given = {"_delete_marker": False, "_shards": 2, **options}
    return walk(Row.objects.all(), iterations.callback, iterations.finalize, **given)


def test_an_iteration_is_a_row(queue: Any, rows: Any) -> None:
    rows(1200)
    handle = begin(_name="prices")
    drain(queue)
    [row] = summary.rows(10)
    assert (row["id"], row["name"], row["state"], row["rows"], row["total"]) == (
        handle.id,
        "prices",
        "done",
        1200,
        1200,
    )
    assert (row["label"], row["quarantined"], row["error"]) == ("testapp.iterations:callback", 0, "")


def test_what_needs_a_person_comes_first_and_what_is_over_last(queue: Any, rows: Any) -> None:
    rows(3)
    failed, store = begin(), store_on("default")
    store.transact(lambda: store.control(failed.id, IterationState.FAILED, when=[IterationState.NEW], reason="a\nb"))
    paused, over = begin(), begin()
    paused.pause()
    drain(queue)
    under_way = begin()
    ids = [row["id"] for row in summary.rows(10)]
    assert ids == [failed.id, under_way.id, paused.id, over.id]
    assert summary.rows(10)[0]["error"] == "b"
    assert [row["id"] for row in summary.rows(1)] == [failed.id]


def test_only_so_many_are_looked_at(queue: Any, rows: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(summary, "LOOKED_AT", 2)
    for _ in range(3):
        begin()
    assert len(summary.rows(10)) == 2


def test_the_command_has_them(queue: Any, rows: Any) -> None:
    rows(3)
    handle = begin()
    out = io.StringIO()
    call_command("defer_status", "--json", stdout=out)
    [row] = json.loads(out.getvalue())["sections"]["iterations"]
    assert (row["id"], row["state"]) == (handle.id, "new")
    call_command("defer_status", stdout=out)
    assert "iterations:" in out.getvalue()
