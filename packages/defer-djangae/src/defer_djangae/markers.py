"""`djangae.models`: Djangae's tables, for tasks that were in flight at the switch."""

from __future__ import annotations

from typing import Any

from django.db import models


class DeferIterationMarker(models.Model):
    """One iteration of Djangae's, in Djangae's own table: we do not create, migrate or drop it."""

    is_ready: Any = models.BooleanField(default=False)
    shard_count: Any = models.PositiveIntegerField(default=0)
    shards_complete: Any = models.PositiveIntegerField(default=0)
    delete_on_completion: Any = models.BooleanField(default=True)
    created: Any = models.DateTimeField(auto_now_add=True)
    callback_name: Any = models.CharField(max_length=100)
    finalize_name: Any = models.CharField(max_length=100)

    class Meta:
        app_label = "djangae"
        db_table = "djangae_deferiterationmarker"
        managed = False

    def __str__(self) -> str:
        return f"{self.callback_name} -> {self.finalize_name} at {self.created}"

    @property
    def is_finished(self) -> bool:
        """Tell whether every shard is done."""
        return self.is_ready and self.shard_count == self.shards_complete


class StoredTask(models.Model):
    """A call that Djangae 2 has stored, in its own table."""

    data: Any = models.BinaryField()

    class Meta:
        app_label = "djangae"
        db_table = "tasks_deferredtask"
        managed = False

    def __str__(self) -> str:
        return f"stored task {self.pk}"
