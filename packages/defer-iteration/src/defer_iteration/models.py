"""The tables of iterations. Keys and jobs are packed like arguments of tasks; times are seconds since the epoch."""

from __future__ import annotations

from typing import ClassVar

from django.db import models
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy


class Iteration(models.Model):
    """The marker of one iteration."""

    id = models.CharField(primary_key=True, max_length=32)
    job = models.BinaryField()
    options = models.TextField()
    name = models.CharField(max_length=200, blank=True, db_default="", db_index=True)
    label = models.CharField(max_length=500, blank=True)
    state = models.CharField(max_length=16, db_index=True)
    resumes = models.CharField(max_length=16, blank=True)
    reason = models.TextField(blank=True)
    error = models.TextField(blank=True, db_default="")
    errors = models.IntegerField(db_default=0)
    failed_at = models.FloatField(null=True)
    generation = models.IntegerField(default=0)
    due = models.FloatField(default=0.0)
    wakes = models.IntegerField(default=0)
    total = models.BigIntegerField(null=True)
    rows = models.BigIntegerField(null=True)
    counters = models.TextField(default="{}")
    created = models.FloatField(default=0.0)
    finished = models.FloatField(null=True)

    class Meta:
        verbose_name = _("iteration")
        verbose_name_plural = pgettext_lazy("of rows", "iterations")

    def __str__(self) -> str:
        return f"{self.name or self.label} ({self.id}): {self.state}"


class Shard(models.Model):
    """One range of an iteration; no foreign key, so that it is the same on Datastore."""

    id = models.CharField(primary_key=True, max_length=48)
    iteration = models.CharField(max_length=32, db_index=True)
    index = models.IntegerField()
    range = models.BinaryField()
    generation = models.IntegerField(default=0)
    fence = models.IntegerField(default=0)
    position = models.BinaryField(null=True)
    rows = models.BigIntegerField(default=0)
    counters = models.TextField(default="{}")
    failing = models.BinaryField(null=True)
    attempts = models.IntegerField(default=0)
    error = models.TextField(blank=True)
    errors = models.IntegerField(db_default=0)
    failed_at = models.FloatField(null=True)
    due = models.FloatField(default=0.0)
    wakes = models.IntegerField(default=0)
    done = models.BooleanField(default=False)
    rest = models.BinaryField(null=True)

    class Meta:
        # Datastore can be asked for the first two
        indexes: ClassVar = [models.Index(fields=["done", "iteration", "due"], name="defer_shard_due")]

    def __str__(self) -> str:
        return f"{self.iteration}, shard {self.index}: {self.rows} rows"


class QuarantinedRow(models.Model):
    """A row that was set aside."""

    id = models.CharField(primary_key=True, max_length=64)
    iteration = models.CharField(max_length=32, db_index=True)
    index = models.IntegerField()
    key = models.BinaryField()
    error = models.TextField(blank=True)
    attempts = models.IntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.iteration}, shard {self.index}: quarantined"
