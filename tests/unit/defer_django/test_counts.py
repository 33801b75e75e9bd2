"""How many records the queues have, in `manage.py defer_status`."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator

import pytest
from django.core.management import call_command
from django.test import override_settings

from defer_core.spi import Attempt, Delivery, Ending, Routing, State, TaskRecord, clock, new_id
from defer_django import counts, statistics
from defer_django.stores import task_store

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


@pytest.fixture(autouse=True)
def queues() -> Iterator[None]:
    """Three declared queues, and no attempts of other tests that wait to be written."""
    statistics._waiting.clear()
    with override_settings(DEFER={"TRANSPORT": "memory", "QUEUES": ["default", "mail", "slow"]}):
        yield


def put(queue: str, state: State, alias: str = "default") -> None:
    now, store = clock.now(), task_store(alias=alias)
    store.put([TaskRecord(id=new_id(), envelope=b"", state=state, routing=Routing(queue=queue), created=now, due=now)])


def test_each_queue_is_a_row_and_what_fails_comes_first() -> None:
    for state in (State.PENDING, State.FAILING, State.DEAD, State.DEAD, State.SENT):
        put("mail", state)
    for ending in (Ending.DONE, Ending.DONE, Ending.FAILED):
        statistics.count(Attempt(delivery=Delivery(queue="slow"), ending=ending))
    statistics.write()
    none = {"alias": "default", "waiting": 0, "failing": 0, "dead": 0, "done": 0, "failed": 0}
    found = [row for row in counts.rows(10) if row["alias"] == "default"]
    assert found == [
        {**none, "queue": "mail", "waiting": 1, "failing": 1, "dead": 2},
        {**none, "queue": "default"},
        {**none, "queue": "slow", "done": 2, "failed": 1},
    ]
    assert counts.rows(1) == found[:1]


def test_every_database_has_its_rows() -> None:
    put("mail", State.DEAD, "other")
    assert (counts.rows(1)[0]["alias"], counts.rows(1)[0]["dead"]) == ("other", 1)


def test_the_command_shows_them() -> None:
    put("mail", State.FAILING)
    out = io.StringIO()
    call_command("defer_status", "--json", stdout=out)
    row = json.loads(out.getvalue())["sections"]["by_queue"][0]
    assert (row["queue"], row["failing"]) == ("mail", 1)
