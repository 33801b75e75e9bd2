"""The tables: of task records, and of attempts by the minute."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime, timezone
from typing import Any, ClassVar

from django.db import models
from django.utils.translation import gettext_lazy

from defer_core.spi import Routing, State, TaskRecord, storable


class DeferredTask(models.Model):
    """A TaskRecord as a row: large payload, outbox entry and dead letter in one. Times are seconds since the epoch."""

    id = models.CharField(primary_key=True, max_length=40, editable=False)
    envelope = models.BinaryField()
    payload = models.BinaryField(null=True)
    routing = models.TextField(help_text="Queue, name, ETA and the rest, as JSON.")
    state = models.CharField(max_length=10, choices=[(state.value, state.value) for state in State])
    idempotent = models.BooleanField(default=False)
    verified = models.BooleanField(default=True)
    created = models.FloatField()
    due = models.FloatField()
    attempts = models.IntegerField(default=0)
    doubtful_since = models.FloatField(null=True)
    lease = models.CharField(max_length=32, blank=True, default="")
    last_error = models.TextField(blank=True, default="")
    reason = models.CharField(max_length=50, blank=True, default="")
    first_attempt = models.FloatField(null=True)
    last_attempt = models.FloatField(null=True)
    label = models.TextField(blank=True, default="")
    # the database's own default is for processes that still run the release before
    queue = models.CharField(max_length=100, blank=True, default="", db_default="")

    class Meta:
        verbose_name = gettext_lazy("deferred task")
        verbose_name_plural = gettext_lazy("deferred tasks")
        indexes: ClassVar = [
            models.Index(fields=["state", "due"], name="defer_state_due"),
            models.Index(fields=["created"], name="defer_created"),
            # gcloudc indexes first columns only, and those of no others
            models.Index(fields=["due"], name="defer_due"),
            models.Index(fields=["last_attempt", "state"], name="defer_last_attempt"),
            models.Index(fields=["verified", "state"], name="defer_verified"),
            models.Index(fields=["queue", "state"], name="defer_queue"),
        ]

    def __str__(self) -> str:
        return f"{self.label or 'task'} {self.id}"

    @classmethod
    def from_record(cls, record: TaskRecord) -> DeferredTask:
        """Make the row of a record, not yet saved."""
        return cls(**to_columns({name: getattr(record, name) for name in RECORD_FIELDS}))

    def to_record(self, **left_out: Any) -> TaskRecord:
        """Make the record of a row; `left_out` has the values of columns that were not read."""
        columns = {name: left_out[name] if name in left_out else getattr(self, name) for name in RECORD_FIELDS}
        columns["envelope"] = bytes(columns["envelope"])
        columns["payload"] = None if columns["payload"] is None else bytes(columns["payload"])
        columns["routing"] = Routing.from_json(columns["routing"])
        columns["state"] = State(columns["state"])
        return TaskRecord(**columns)

    @property
    def queue_name(self) -> str:
        """Return the short name of the task's queue, also of a row from before there was a column for it."""
        return self.queue or Routing.from_json(self.routing).queue

    @property
    def created_at(self) -> datetime:
        """Return when it was deferred, in UTC."""
        return datetime.fromtimestamp(self.created, timezone.utc)


class Minute(models.Model):
    """The attempts at tasks of one queue that ended in one minute: `statistics` counts them."""

    id = models.CharField(primary_key=True, max_length=120, editable=False)
    minute = models.FloatField(db_index=True)
    queue = models.CharField(max_length=100)
    done = models.BigIntegerField(default=0)
    failed = models.BigIntegerField(default=0)

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return f"{self.queue} at {self.minute:.0f}: {self.done} done, {self.failed} failed"


RECORD_FIELDS = tuple(each.name for each in fields(TaskRecord))


def to_columns(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Convert fields of a TaskRecord for their columns."""
    columns = {name: _to_column(value) for name, value in fields.items()}
    if "routing" in fields:
        columns["queue"] = storable(fields["routing"].queue)[: DeferredTask._meta.get_field("queue").max_length]
    return columns


def _to_column(value: Any) -> Any:
    match value:
        case Routing():
            return value.to_json()
        case State():
            return value.value
        case str():
            return storable(value)
    return value
