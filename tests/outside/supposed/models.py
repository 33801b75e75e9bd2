"""What the shop sells."""

from __future__ import annotations

from typing import Any

from django.db import models


class Customer(models.Model):
    """Who buys."""

    name = models.CharField(max_length=50)

    def email_user(self, subject: str, *text: Any) -> None:
        """Say that a mail was sent."""
        print(f"mail: {subject}")


class Order(models.Model):
    """What is bought."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE)
    total = models.IntegerField(default=4200)
    price = models.FloatField(default=100)
    paid = models.BooleanField(default=True)
    open = models.BooleanField(default=True)


class LedgerEntry(models.Model):
    """What was paid."""

    order = models.OneToOneField(Order, on_delete=models.CASCADE)
    amount = models.IntegerField()
