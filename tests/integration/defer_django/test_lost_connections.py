"""A connection to PostgreSQL that is lost while a task runs: what the library then writes is written all the same."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import services
from django.core.management import call_command
from django.db import DatabaseError, connections, transaction

from defer_core import Delivery, Outcome, PermanentTaskFailure, defer, execute
from defer_core.record import State, TaskRecord, new_id
from defer_core.testing import MemoryTransport, in_memory
from defer_django.models import DeferredTask
from defer_django.store import DjangoTaskStore

ALIAS = "lost"
LARGE = os.urandom(150_000)
DELIVERY = Delivery(task_name="7f", queue="default", retry_count=0, target="http")
address = ""


@pytest.fixture(scope="module")
def database(postgres: str, django_db_blocker: Any) -> Iterator[None]:
    global address
    address, where = postgres, urlsplit(postgres)
    own = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": where.path.strip("/"),
        "USER": where.username or "postgres",
        "HOST": parse_qs(where.query)["host"][0],
        "OPTIONS": {},
    }
    with django_db_blocker.unblock():
        connections.settings[ALIAS] = {**connections.settings["default"], **own}
        call_command("migrate", database=ALIAS, run_syncdb=True, verbosity=0)
        yield
        connections[ALIAS].close()
        del connections[ALIAS]
        del connections.settings[ALIAS]


@pytest.fixture
def store(database: None, django_db_blocker: Any) -> Iterator[DjangoTaskStore]:
    with django_db_blocker.unblock():
        DeferredTask.objects.using(ALIAS).all().delete()
        yield DjangoTaskStore(alias=ALIAS)


@pytest.fixture
def queue(store: DjangoTaskStore) -> Iterator[MemoryTransport]:
    with in_memory(store=store) as transport:
        yield transport


def ended_by_the_server() -> None:
    """As `idle_session_timeout`, a failover or a restart does it."""
    pid = connections[ALIAS].connection.info.backend_pid
    services.ask_postgres(address, f"SELECT pg_terminate_backend({pid})")
    while services.ask_postgres(address, f"SELECT 1 FROM pg_stat_activity WHERE pid = {pid}"):
        pass


def ended_and_noticed() -> None:
    """The task's own query has failed, and it has caught that."""
    ended_by_the_server()
    with pytest.raises(DatabaseError):
        DeferredTask.objects.using(ALIAS).count()


def closed_by_hand() -> None:
    """The driver's connection, under Django's."""
    connections[ALIAS].connection.close()


LOSSES = (ended_by_the_server, ended_and_noticed, closed_by_hand)


def lose(how: str, error: str, *args: Any) -> None:
    globals()[how]()
    if error:
        raise {"permanent": PermanentTaskFailure, "value": ValueError}[error]("it can never be done")


def body_of(queue: MemoryTransport, *args: Any, **options: Any) -> bytes:
    defer(lose, *args, **options)
    body: bytes = queue.queued()[-1].message.body
    DeferredTask.objects.using(ALIAS).filter(payload=None).delete()
    return body


@pytest.mark.parametrize("how", LOSSES, ids=lambda how: how.__name__)
def test_a_stored_task_is_done_once(queue: MemoryTransport, store: DjangoTaskStore, how: Callable[[], None]) -> None:
    assert execute(body_of(queue, how.__name__, "", LARGE), DELIVERY) is Outcome.DONE
    assert not DeferredTask.objects.using(ALIAS).exists()


@pytest.mark.parametrize("payload", [b"x", LARGE], ids=["inline", "stored"])
@pytest.mark.parametrize("how", LOSSES, ids=lambda how: how.__name__)
def test_a_permanent_failure_is_one_dead_letter(
    queue: MemoryTransport, store: DjangoTaskStore, how: Callable[[], None], payload: bytes
) -> None:
    assert execute(body_of(queue, how.__name__, "permanent", payload), DELIVERY) is Outcome.PERMANENT
    letter = DeferredTask.objects.using(ALIAS).get()
    assert (letter.state, letter.reason, letter.attempts) == (State.DEAD, "permanent", 1)


@pytest.mark.parametrize("payload", [b"x", LARGE], ids=["inline", "stored"])
@pytest.mark.parametrize("how", LOSSES, ids=lambda how: how.__name__)
def test_a_failure_is_seen(
    queue: MemoryTransport, store: DjangoTaskStore, how: Callable[[], None], payload: bytes
) -> None:
    with pytest.raises(ValueError, match="never"):
        execute(body_of(queue, how.__name__, "value", payload), DELIVERY)
    assert DeferredTask.objects.using(ALIAS).get().state == State.FAILING


@pytest.mark.parametrize(
    "work",
    [
        lambda store: store.put([TaskRecord(id=new_id(), envelope=b"x")]),
        lambda store: store.put([TaskRecord(id=new_id(), envelope=b"x") for _ in range(2)]),
        lambda store: store.put([], forget=[new_id()]),
        lambda store: store.get(new_id()),
        lambda store: store.lease_due(now=1.0, limit=5, seconds=1),
        lambda store: store.list(State.DEAD),
        lambda store: store.count(State.DEAD),
        lambda store: store.count_unverified(),
        lambda store: store.count_dead(0.0),
        lambda store: store.expire(1.0, limit=5),
        lambda store: store.oldest_pending(),
    ],
)
@pytest.mark.parametrize("how", LOSSES, ids=lambda how: how.__name__)
def test_every_call_of_the_store_finds_a_new_connection(
    store: DjangoTaskStore, how: Callable[[], None], work: Callable[[Any], object]
) -> None:
    store.count(State.DEAD)
    how()
    work(store)
    assert connections[ALIAS].is_usable()


def test_in_a_transaction_nothing_is_repeated(store: DjangoTaskStore) -> None:
    """What was done before in it is gone, and the caller must know."""
    with pytest.raises(DatabaseError), transaction.atomic(using=ALIAS):
        store.put([TaskRecord(id=new_id(), envelope=b"x")])
        ended_by_the_server()
        store.put([TaskRecord(id=new_id(), envelope=b"y")])
    assert store.count(State.PENDING) == 0


def test_other_errors_of_a_healthy_connection_are_raised_at_once(store: DjangoTaskStore) -> None:
    record = TaskRecord(id=new_id(), envelope=b"x")
    store.put([record])
    before = connections[ALIAS].connection
    with pytest.raises(DatabaseError):
        store.put([record])
    assert connections[ALIAS].connection is before
