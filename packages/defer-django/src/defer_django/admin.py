"""The records in the admin: what waits, what is dead and why, and the re-run of dead letters."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest

from defer_core import dead
from defer_core.config import current
from defer_core.errors import DeferError
from defer_core.record import State

from .models import DeferredTask
from .store import DjangoTaskStore

HIDDEN = ("envelope", "payload", "lease")
"""Columns of bytes and tokens that tell a person nothing."""


def _time(column: str, heading: str) -> Callable[[DeferredTask], datetime | None]:
    @admin.display(description=heading, ordering=column)
    def shown(task: DeferredTask) -> datetime | None:
        seconds = getattr(task, column)
        return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)

    shown.__name__ = column
    return shown


@admin.register(DeferredTask)
class DeferredTaskAdmin(admin.ModelAdmin):
    """Looks, re-runs and drops; nobody writes a task by hand."""

    list_display = (
        "id",
        "label",
        "state",
        "reason",
        "queue",
        "attempts",
        _time("created", "created"),
        _time("last_attempt", "last attempt"),
    )
    list_filter = ("state", "reason", "verified")
    search_fields = ("id", "label", "last_error")
    ordering = ("-created",)
    show_full_result_count = False
    actions = ("rerun",)
    exclude = HIDDEN

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeferredTask]:
        return super().get_queryset(request).defer("envelope", "payload")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def get_readonly_fields(self, request: HttpRequest, obj: DeferredTask | None = None) -> tuple[str, ...]:
        return tuple(each.name for each in DeferredTask._meta.fields if each.name not in HIDDEN)

    def has_delete_permission(self, request: HttpRequest, obj: DeferredTask | None = None) -> bool:
        """Only what is dead may be dropped: deleting a record that waits would lose its task."""
        return super().has_delete_permission(request, obj) and (obj is None or obj.state == State.DEAD)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[DeferredTask]) -> None:
        queryset.filter(state=State.DEAD.value).delete()

    @admin.action(description="Re-run the selected dead letters", permissions=["change"])
    def rerun(self, request: HttpRequest, queryset: QuerySet[DeferredTask]) -> None:
        """Send them again, each under a new name."""
        store = _store(queryset.db)
        sent = 0
        for task in queryset.only("pk"):
            try:
                dead.rerun(task.pk, store)
                sent += 1
            except (DeferError, KeyError) as error:
                self.message_user(request, f"{task.pk}: {error.args[0]}", messages.ERROR)
        self.message_user(request, f"{sent} re-run.", messages.SUCCESS if sent else messages.WARNING)


def _store(alias: str) -> DjangoTaskStore:
    """The configured store on an alias, so that what it sends is forgotten by the process's own list."""
    for store in current().stores:
        if isinstance(store, DjangoTaskStore) and store.has_alias(alias):
            return store.using(alias)
    return DjangoTaskStore(alias=alias)
