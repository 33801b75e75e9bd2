"""`djangae.models`: the table in which Djangae counted shards, only so that shards in flight at the switch can finish."""

from __future__ import annotations

from django.db import models


class DeferIterationMarker(models.Model):
    """One iteration of Djangae's. Its table is Djangae's own: nothing here creates, migrates or drops it."""

    is_ready = models.BooleanField(default=False)
    shard_count = models.PositiveIntegerField(default=0)
    shards_complete = models.PositiveIntegerField(default=0)
    delete_on_completion = models.BooleanField(default=True)
    created = models.DateTimeField(auto_now_add=True)
    callback_name = models.CharField(max_length=100)
    finalize_name = models.CharField(max_length=100)

    class Meta:
        app_label = "djangae"
        db_table = "djangae_deferiterationmarker"
        managed = False

    def __str__(self) -> str:
        return f"{self.callback_name} -> {self.finalize_name} at {self.created}"

    @property
    def is_finished(self) -> bool:
        """Whether every shard is done."""
        return self.is_ready and self.shard_count == self.shards_complete
