"""What the shop keeps."""

from __future__ import annotations

from django.db import models


class Customer(models.Model):
    """Who orders."""

    name = models.CharField(max_length=100)


class Order(models.Model):
    """What was ordered."""

    customer = models.ForeignKey(Customer, on_delete=models.CASCADE, related_name="orders")
    total = models.IntegerField(help_text="in cents")
    status = models.CharField(max_length=20, default="new")


class OrderLine(models.Model):
    """One article of an order."""

    order = models.ForeignKey(Order, on_delete=models.CASCADE, related_name="lines")
    article = models.CharField(max_length=100)


class LedgerEntry(models.Model):
    """One booking. An order is booked once, however often its task is delivered: the unique key sees to that."""

    order = models.OneToOneField(Order, on_delete=models.CASCADE)
    amount = models.IntegerField(help_text="in cents")


class JournalEntry(models.Model):
    """What a task has to say for itself."""

    task = models.CharField(max_length=50, db_index=True)
    subject = models.CharField(max_length=50)
    text = models.TextField(blank=True)
