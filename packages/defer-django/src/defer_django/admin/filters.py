"""What the list of tasks can be narrowed to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.admin import SimpleListFilter
from django.contrib.admin.views.main import SEARCH_VAR
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy

from defer_core.spi import State, clock

from ..models import DeferredTask
from ..store import is_datastore
from . import summary
from .states import LATE, REASONS, STATES

ATTENTION, ALL = "attention", "all"


class StateFilter(SimpleListFilter):
    """By state; first, and unless a text is searched for, what needs attention: the rest has mostly just been sent."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def __init__(self, request: HttpRequest, *args: Any) -> None:
        self._default = ALL if request.GET.get(SEARCH_VAR) else ATTENTION
        super().__init__(request, *args)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [
            (ATTENTION, gettext_lazy("what needs attention")),
            (LATE, gettext_lazy("late")),
            *STATES.items(),
            (ALL, gettext_lazy("all")),
        ]

    def value(self) -> str:
        return super().value() or self._default

    def choices(self, changelist: Any) -> Iterator[dict[str, Any]]:
        for value, words in self.lookup_choices:
            query = changelist.get_query_string({self.parameter_name: value})
            yield {"selected": self.value() == value, "query_string": query, "display": words}

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeferredTask]) -> QuerySet[DeferredTask]:
        late = Q(state=State.PENDING.value, due__lte=clock.now())
        match self.value():
            case "all":
                return queryset.filter(state__in=list(STATES)) if is_datastore(queryset.db) else queryset
            case "late":
                return queryset.filter(late)
            case "attention":
                trouble = Q(state__in=[State.FAILING.value, State.DEAD.value])
                # an entity has no state that says late, and a query of entities no alternatives
                return queryset.filter(trouble if is_datastore(queryset.db) else trouble | late)
        return queryset.filter(state=self.value())


class QueueFilter(SimpleListFilter):
    """By queue: those that have records, attempts, or a declaration."""

    title = gettext_lazy("queue")
    parameter_name = "queue"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, name) for name in summary.of(request, model_admin.get_queryset(request).db).numbers.queues]

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeferredTask]) -> QuerySet[DeferredTask]:
        return queryset.filter(queue=self.value()) if self.value() else queryset


class ReasonFilter(SimpleListFilter):
    """By why a task is dead; all reasons are offered, so that none is counted for it."""

    title = gettext_lazy("reason")
    parameter_name = "reason"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return list(REASONS.items())

    def queryset(self, request: HttpRequest, queryset: QuerySet[DeferredTask]) -> QuerySet[DeferredTask]:
        return queryset.filter(reason=self.value()) if self.value() else queryset
