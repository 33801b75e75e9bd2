"""The scenes: each defers something, watches what becomes of it, and checks it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from django.db import transaction
from orders import tasks
from orders.models import Customer, JournalEntry, Order, OrderLine

from defer_core import RetryOptions, defer
from defer_core.spi import State, TaskRecord, TaskStore, current

from .checks import Check, seen
from .display import Display
from .processes import Dispatcher, Server

LARGE = 300_000
"""Bytes of the large argument, over the inline limit of 100 KiB."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What the scenes play on."""

    display: Display
    server: Server
    dispatcher: Dispatcher
    rows: int
    """Orders that the iteration walks over."""
    failing: list[str] = field(default_factory=list)
    """The names of the tasks that are to fail."""
    cut: list[str] = field(default_factory=list)
    """What the dispatcher said while the server was away."""


Scene = Callable[[Stage], Iterator[Check]]


def store() -> TaskStore:
    """Where the tasks' records are."""
    found = current().the_store
    assert found is not None
    return found


def journal(task: str, subject: object) -> list[str]:
    """What a task has noted about a subject, oldest first."""
    entries = JournalEntry.objects.filter(task=task, subject=str(subject)).order_by("pk")
    return list(entries.values_list("text", flat=True))


def new_order() -> Order:
    """An order of one customer, with two lines."""
    order = Order.objects.create(customer=Customer.objects.create(name="Ada"), total=4200)
    OrderLine.objects.bulk_create([OrderLine(order=order, article=article) for article in ("tea", "cup")])
    return order


def small_task(stage: Stage) -> Iterator[Check]:
    """A small task"""
    order = new_order()
    handle = defer(tasks.confirm, order.pk)
    stage.display.say(f"defer(confirm, {order.pk}) → task {handle.name}, {handle.size} bytes")
    yield Check(scene="small task", claim="the queue has it when defer() returns", held=handle.was_enqueued)
    ran = seen(lambda: journal("confirm", order.pk))
    order.refresh_from_db()
    yield Check(
        scene="small task",
        claim="it ran once, in the server",
        held=ran and len(journal("confirm", order.pk)) == 1 and order.status == "confirmed",
        detail=f"the order is {order.status}",
    )


def large_task(stage: Stage) -> Iterator[Check]:
    """A task with 300 KB of arguments"""
    invoice = os.urandom(LARGE)
    handle = defer(tasks.archive, "invoice.pdf", invoice)
    stage.display.say(f"defer(archive, 'invoice.pdf', <{LARGE:,} bytes>) → {handle.size} bytes in the queue")
    yield Check(
        scene="large task",
        claim="the queue gets a claim of the stored payload, not the payload",
        held=handle.size < 1000,
        detail=f"{handle.size} bytes",
    )
    arrived = seen(lambda: journal("archive", "invoice.pdf"))
    same = arrived and journal("archive", "invoice.pdf")[0] == hashlib.sha256(invoice).hexdigest()
    yield Check(scene="large task", claim="every byte arrived", held=same, detail="same SHA-256" if same else "")
    gone = seen(lambda: store().get(str(handle.record_id)) is None)
    yield Check(scene="large task", claim="the stored payload is deleted once the task has run", held=gone)


def instance(stage: Stage) -> Iterator[Check]:
    """An instance with cached relations"""
    order = Order.objects.select_related("customer").prefetch_related("lines").get(pk=new_order().pk)
    defer(tasks.inspect, order)
    stage.display.say("defer(inspect, order), where order.customer and order.lines are cached")
    ran = seen(lambda: journal("inspect", order.pk))
    travelled = journal("inspect", order.pk)
    yield Check(
        scene="instance",
        claim="the cached relations did not travel",
        held=ran and travelled == [""],
        detail=f"caches that arrived: {travelled[0] or 'none'}" if travelled else "it did not run",
    )
    kept = "customer" in order._state.fields_cache and "lines" in order._prefetched_objects_cache
    yield Check(scene="instance", claim="the caller's instance still has them", held=kept)


def transactions(stage: Stage) -> Iterator[Check]:
    """One transaction that rolls back, and one that commits"""
    lost, kept = new_order(), new_order()
    try:
        with transaction.atomic():
            refused = defer(tasks.confirm, lost.pk)
            raise ValueError("the payment was refused")
    except ValueError as error:
        stage.display.say(f"order {lost.pk}: rolled back, because {error}")
    with transaction.atomic():
        handle = defer(tasks.confirm, kept.pk)
        waits = not handle.was_enqueued
    stage.display.say(f"order {kept.pk}: committed")
    yield Check(scene="transaction", claim="nothing is sent before the commit", held=waits)
    ran = seen(lambda: journal("confirm", kept.pk))
    yield Check(scene="transaction", claim="the committed transaction's task ran", held=ran)
    never = not journal("confirm", lost.pk) and store().get(str(refused.record_id)) is None
    yield Check(scene="transaction", claim="the rolled-back one's never did, and left no record", held=never)


def retries(stage: Stage) -> Iterator[Check]:
    """A task that fails twice, and then succeeds"""
    order = new_order()
    handle = defer(tasks.charge, order.pk, _retry_options=RetryOptions(min_backoff=0.2))
    stage.failing.append(str(handle.name))
    stage.display.say("defer(charge, …): the bank is out of order at first")
    seen(lambda: len(journal("charge", order.pk)) > tasks.FAILURES)
    attempts = journal("charge", order.pk)
    yield Check(
        scene="retries",
        claim="the third attempt succeeded",
        held=attempts == [str(number) for number in range(tasks.FAILURES + 1)],
        detail=f"retry counts {', '.join(attempts)}",
    )


def dead_letter(stage: Stage) -> Iterator[Check]:
    """A permanent failure"""
    order = new_order()
    defer(tasks.refund, order.pk)
    stage.display.say("defer(refund, …) raises PermanentTaskFailure")
    seen(lambda: _dead_letters(order.pk))
    letters = _dead_letters(order.pk)
    yield Check(
        scene="dead letter",
        claim="it is kept with its error, and not tried again",
        held=len(letters) == 1 and "PermanentTaskFailure" in letters[0].last_error,
        detail=f"{letters[0].label}: {letters[0].reason}" if letters else "",
    )


def _dead_letters(order_id: int) -> list[TaskRecord]:
    return [each for each in store().list(State.DEAD) if f"Order {order_id} was never paid" in each.last_error]
