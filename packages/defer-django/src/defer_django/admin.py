"""The records in the admin: what waits, what is dead and why, and the re-run of dead letters."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import datetime, timezone
from urllib.parse import urlsplit, urlunsplit

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html

from defer_core.errors import DeferError
from defer_core.spi import State, current, describe, rerun

from .models import DeferredTask
from .store import DjangoTaskStore
from .stores import task_store


def _time(column: str, heading: str) -> Callable[[DeferredTask], datetime | None]:
    @admin.display(description=heading, ordering=column)
    def shown(task: DeferredTask) -> datetime | None:
        seconds = getattr(task, column)
        return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)

    shown.__name__ = column
    return shown


CREATED, DUE = _time("created", "created"), _time("due", "due")
FIRST, LAST = _time("first_attempt", "first attempt"), _time("last_attempt", "last attempt")
DOUBTFUL = _time("doubtful_since", "doubtful since")


@admin.display(description="last error")
def _traceback(task: DeferredTask) -> str:
    return format_html("<pre>{}</pre>", task.last_error) if task.last_error else "-"


@admin.display(description="call")
def _call(task: DeferredTask) -> str:
    return describe(task.to_record(), current().secrets)


@admin.display(description="routing", ordering="routing")
def _routing(task: DeferredTask) -> str:
    """Show the routing as JSON, without values of headers and the query of the URL, which may hold credentials."""
    routing = json.loads(task.routing)
    if routing.get("headers"):
        routing["headers"] = sorted(routing["headers"])
    if routing.get("url"):
        parts = urlsplit(routing["url"])
        host = parts.netloc.rpartition("@")[2]
        routing["url"] = urlunsplit((parts.scheme, host, parts.path, "…" if parts.query else "", ""))
    return json.dumps(routing, ensure_ascii=False)


SHOWN = (
    "label", "state", "reason", _call, _traceback, "attempts", FIRST, LAST, CREATED, DUE, DOUBTFUL,
    "queue", _routing, "verified", "idempotent", "id",
)  # fmt: skip
"""All fields but bytes and tokens; those that people look for come first."""


@admin.register(DeferredTask)
class DeferredTaskAdmin(admin.ModelAdmin):
    """Shows, re-runs and drops records; tasks are not written by hand."""

    list_display = ("label", "state", "reason", "queue", "attempts", CREATED, LAST, "id")
    list_display_links = ("label", "id")
    list_filter = ("state", "reason", "verified")
    search_fields = ("id", "label", "last_error")
    ordering = ("-created",)
    show_full_result_count = False
    actions = ("rerun",)
    fields = readonly_fields = SHOWN

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeferredTask]:
        return super().get_queryset(request).defer("envelope", "payload")

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: DeferredTask | None = None) -> bool:
        """Allow deleting dead letters alone: the task of a waiting record would be lost."""
        return super().has_delete_permission(request, obj) and (obj is None or obj.state == State.DEAD)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[DeferredTask]) -> None:
        queryset.filter(state=State.DEAD.value).delete()

    @admin.action(description="Re-run the selected dead letters", permissions=["change"])
    def rerun(self, request: HttpRequest, queryset: QuerySet[DeferredTask]) -> None:
        """Send the selected letters again, each under a new name."""
        store = _store(queryset.db)
        sent = 0
        for task in queryset.only("pk"):
            try:
                rerun(task.pk, store)
                sent += 1
            except (DeferError, KeyError) as error:
                self.message_user(request, f"{task.pk}: {error.args[0]}", messages.ERROR)
        self.message_user(request, f"{sent} re-run.", messages.SUCCESS if sent else messages.WARNING)


def _store(alias: str) -> DjangoTaskStore:
    """Return the configured store on an alias, whose list of records to forget is this process's own."""
    for store in current().stores:
        if isinstance(store, DjangoTaskStore) and store.has_alias(alias):
            return store.using(alias)
    return task_store(alias=alias)
