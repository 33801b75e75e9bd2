"""The shop with its tables, for code that supposes one: `from outside.supposed.shop import *`."""

# ruff: noqa: E402 (Django is to be set up before its models are imported)
from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "outside.supposed.shop_settings")
import django

django.setup()

from django.core.management import call_command
from django.db import transaction

from defer_core.config import current
from defer_core.testing import drain

call_command("migrate", run_syncdb=True, verbosity=0)

from outside.supposed.models import Customer, LedgerEntry, Order

customer = Customer.objects.create(name="Ada")
order = Order(customer=customer)
order.save()
Order.objects.create(customer=customer)


def send_invoice(order: Order) -> None:
    """A task."""
    LedgerEntry.objects.get_or_create(order=order, defaults={"amount": 0})


def ship(order_id: int) -> None:
    """A task."""
    Order.objects.filter(pk=order_id).update(open=False)


def deliver() -> int:
    """Run all that was deferred. Returns how many tasks ran."""
    report = drain(current().the_transport)  # type: ignore[arg-type]
    return report.done


__all__ = ["LedgerEntry", "Order", "customer", "deliver", "order", "send_invoice", "ship", "transaction"]
