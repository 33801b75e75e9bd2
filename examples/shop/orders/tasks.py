"""What the shop does later."""

from __future__ import annotations

import hashlib

from defer_core import PermanentTaskFailure, current_delivery
from defer_iteration import current_iteration, current_shard

from .models import JournalEntry, LedgerEntry, Order

FAILURES = 2
"""How often the bank is out of order before a payment goes through."""


def note(task: str, subject: object, text: str = "") -> None:
    """Write into the journal."""
    JournalEntry.objects.create(task=task, subject=str(subject), text=text)


def confirm(order_id: int) -> None:
    """Confirm an order."""
    Order.objects.filter(pk=order_id).update(status="confirmed")
    note("confirm", order_id)


def archive(name: str, invoice: bytes) -> None:
    """Put a large document away (here: its checksum)."""
    note("archive", name, hashlib.sha256(invoice).hexdigest())


def inspect(order: Order) -> None:
    """Say which relations came along in the caches of an order."""
    cached = [*order._state.fields_cache, *getattr(order, "_prefetched_objects_cache", {})]
    note("inspect", order.pk, ",".join(cached))


def charge(order_id: int) -> None:
    """Charge an order, at a bank that is out of order at first."""
    delivery = current_delivery()
    assert delivery is not None
    note("charge", order_id, str(delivery.retry_count))
    if (delivery.retry_count or 0) < FAILURES:
        raise ConnectionError("The bank does not answer. (This is part of the demonstration.)")


def refund(order_id: int) -> None:
    """Refund an order that was never paid: trying again would not help."""
    raise PermanentTaskFailure(f"Order {order_id} was never paid. (This is part of the demonstration.)")


def reject(name: str, document: bytes) -> None:
    """Refuse a document that nobody can read."""
    raise PermanentTaskFailure(
        f"Nobody can read {name}, of {len(document)} bytes. (This is part of the demonstration.)"
    )


def book(order: Order) -> None:
    """Enter one order into the ledger; a second call for it changes nothing."""
    LedgerEntry.objects.get_or_create(order=order, defaults={"amount": order.total})
    shard = current_shard()
    assert shard is not None
    shard.count("orders")
    shard.count("cents", order.total)


def close_the_books() -> None:
    """Say what all shards have counted together."""
    iteration = current_iteration()
    assert iteration is not None
    counted = ", ".join(f"{number} {what}" for what, number in sorted(iteration.counters.items()))
    print(f"finalize: the books are closed: {counted}", flush=True)
    note("close_the_books", iteration.id, counted)
