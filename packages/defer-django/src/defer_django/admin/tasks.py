"""The list of tasks, the page of one, and what a person can do with a dead letter."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.actions import delete_selected as ask_and_delete
from django.contrib.admin.utils import quote, unquote
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db.models import BooleanField, ExpressionWrapper, Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.decorators import method_decorator
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from django.views.decorators.http import require_POST, require_safe

from defer_core.errors import DeferError
from defer_core.spi import Routing, State, attempt_limit, call_of, clock, current, last_line, one_line, rerun

from ..datastore import DatastoreTaskStore
from ..models import DeferredTask
from ..store import DjangoTaskStore, is_datastore
from ..stores import task_store
from ..words import span
from . import summary
from .facts import call, facts
from .filters import ALL, QueueFilter, ReasonFilter, StateFilter
from .states import LATE, attempts_of, condition_of, next_of

TEMPLATES = "admin/defer_django/deferredtask"


class TaskList(ChangeList):
    """A page of the list."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.title = capfirst(self.opts.verbose_name_plural)

    def get_queryset(self, request: HttpRequest, **kwargs: Any) -> QuerySet[DeferredTask]:
        """Leave out large payloads."""
        rows: QuerySet[DeferredTask] = super().get_queryset(request, **kwargs)
        is_large = ExpressionWrapper(Q(payload__isnull=False), BooleanField())
        return rows.defer("payload").annotate(is_large=is_large)


class EntityList(TaskList):
    """The same on a Datastore, which cannot leave out columns, and answers with a few large rows at a time."""

    def get_queryset(self, request: HttpRequest, **kwargs: Any) -> QuerySet[DeferredTask]:
        return ChangeList.get_queryset(self, request, **kwargs)

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[DeferredTask]) -> Sequence[str]:
        """Order by what there is an index for."""
        return ("due", "pk") if self.params.get(StateFilter.parameter_name) == LATE else ("pk",)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        ids: QuerySet[str] = self.result_list.values_list("pk", flat=True)  # type: ignore[has-type]
        self.result_list = [*DatastoreTaskStore(alias=self.queryset.db).read([*ids])]


@admin.register(DeferredTask)
class DeferredTaskAdmin(admin.ModelAdmin):
    """Shows records, re-runs dead letters and drops them; tasks are not written by hand."""

    list_display = ("what", "condition", "tries", "queue_name", "age")
    list_display_links = None
    list_filter = (StateFilter, QueueFilter, ReasonFilter)
    list_per_page = 50
    search_fields = ("id", "label", "last_error")
    ordering = ("-created",)
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    actions = ("rerun", "delete_selected")

    # --- the list -----------------------------------------------------------------------------------------------------

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return EntityList if self._is_on_datastore(request) else TaskList

    def get_sortable_by(self, request: HttpRequest) -> Sequence[str]:
        return () if self._is_on_datastore(request) else super().get_sortable_by(request)

    def get_list_filter(self, request: HttpRequest) -> Sequence[Any]:
        return self.list_filter[:2] if self._is_on_datastore(request) else self.list_filter  # reasons have no index

    def get_search_fields(self, request: HttpRequest) -> Sequence[str]:
        return () if self._is_on_datastore(request) else super().get_search_fields(request)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[DeferredTask], search_term: str
    ) -> tuple[QuerySet[DeferredTask], bool]:
        """Look also for tasks whose name in their queue, which the log has, begins as what is searched for."""
        found, may_have_duplicates = super().get_search_results(request, queryset, search_term)
        if search_term and self.get_search_fields(request):
            name = json.dumps(search_term.strip())[:-1]
            found |= queryset.filter(routing__contains=f'"name": {name}')
        return found, may_have_duplicates

    def _is_on_datastore(self, request: HttpRequest) -> bool:
        return is_datastore(self.get_queryset(request).db)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        numbers = summary.of(request, self.get_queryset(request).db)
        context = {"cards": numbers.cards(), "queues": numbers.rows(), "all": ALL, "chosen": request.GET.get("state")}
        answer: HttpResponse = super().changelist_view(request, {**context, **(extra_context or {})})
        return answer

    @admin.display(description=gettext_lazy("task"), ordering="label")
    def what(self, task: DeferredTask) -> str:
        context = {
            "task": task,
            "url": self._url("change", quote(task.pk)),
            "name": _name(task),
            "is_large": getattr(task, "is_large", False),
            "arguments": _arguments_of(task),
            "error": last_line(task.last_error),
        }
        return render_to_string(f"{TEMPLATES}/what.html", context)

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def condition(self, task: DeferredTask) -> str:
        return render_to_string(f"{TEMPLATES}/condition.html", {"condition": condition_of(task, clock.now())})

    @admin.display(description=gettext_lazy("attempts"), ordering="attempts")
    def tries(self, task: DeferredTask) -> str:
        return attempts_of(task, _limit_of(task))

    @admin.display(description=gettext_lazy("queue"), ordering="queue")
    def queue_name(self, task: DeferredTask) -> str:
        return task.queue_name

    @admin.display(description=gettext_lazy("age"), ordering="created")
    def age(self, task: DeferredTask) -> str:
        return span(task.created, clock.now(), units=1)

    # --- permissions --------------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: DeferredTask | None = None) -> bool:
        """Allow deleting dead letters alone: the task of a waiting record would be lost."""
        return super().has_delete_permission(request, obj) and (obj is None or obj.state == State.DEAD)

    # --- one task -----------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.rerun_view)
        return [
            path("<path:object_id>/rerun/", view, name="defer_django_deferredtask_rerun"),
            *super().get_urls(),
        ]

    @method_decorator(require_safe)
    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show a task. There is no form: what can be done has a button."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        task = self.get_object(request, unquote(object_id))
        shown = {"title": _("This task is not here any more")} if task is None else self._shown(request, task)
        trail = {"original": shown["title"], "has_view_permission": True}
        context = {**self.admin_site.each_context(request), "opts": self.opts, "task": task, **shown, **trail}
        request.current_app = self.admin_site.name
        status = 404 if task is None else 200
        return TemplateResponse(request, f"{TEMPLATES}/task.html", {**context, **(extra_context or {})}, status=status)

    def _shown(self, request: HttpRequest, task: DeferredTask) -> dict[str, Any]:
        now, limit = clock.now(), _limit_of(task)
        return {
            "title": _name(task),
            "condition": condition_of(task, now),
            "next": next_of(task, limit, now),
            "facts": facts(task, limit, now),
            "call": call(task),
            "error": last_line(task.last_error),
            "can_rerun": task.state == State.DEAD and self.has_change_permission(request, task),
            "has_history": not self._is_on_datastore(request),  # which cannot be asked for a text, as the admin does
            "can_drop": self.has_delete_permission(request, task),
        }

    @method_decorator(require_POST)
    def rerun_view(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Send a dead letter again, and go to the list; stay where it cannot be."""
        task = self.get_object(request, unquote(object_id))
        if not self.has_change_permission(request, task):
            raise PermissionDenied
        if task is None:
            self.message_user(request, _("This task is not here any more"), messages.WARNING)
        elif not self._rerun(request, task):
            return HttpResponseRedirect(self._url("change", quote(task.pk)))
        return HttpResponseRedirect(self._url("changelist"))

    def _url(self, name: str, *args: str) -> str:
        return reverse(f"admin:defer_django_deferredtask_{name}", args=args, current_app=self.admin_site.name)

    # --- what can be done ---------------------------------------------------------------------------------------------

    @admin.action(description=gettext_lazy("Re-run the selected dead letters"), permissions=["change"])
    def rerun(self, request: HttpRequest, queryset: QuerySet[DeferredTask]) -> None:
        """Send the selected letters again, each under a new name."""
        sent = sum(self._rerun(request, task, quiet=True) for task in queryset)
        said = ngettext("%(number)s re-run.", "%(number)s re-run.", sent) % {"number": sent}
        self.message_user(request, said, messages.SUCCESS if sent else messages.WARNING)

    def _rerun(self, request: HttpRequest, task: DeferredTask, *, quiet: bool = False) -> bool:
        """Send a letter again, and note that in its history. Return whether that was possible."""
        try:
            rerun(task.pk, _store_on(task._state.db))
        except (DeferError, KeyError) as error:
            said = _("Task %(id)s: %(error)s") % {"id": task.pk, "error": error.args[0]}
            self.message_user(request, said, messages.ERROR)
            return False
        self.log_change(request, task, _("Re-run."))
        if not quiet:
            self.message_user(request, _("Sent again: %(task)s") % {"task": _name(task)}, messages.SUCCESS)
        return True

    @admin.action(description=gettext_lazy("Drop the selected dead letters"), permissions=["delete"])
    def delete_selected(self, request: HttpRequest, queryset: QuerySet[DeferredTask]) -> HttpResponse | None:
        """Drop the dead letters of the selection, once that has been confirmed, and say how many others stay."""
        dead = queryset.filter(state=State.DEAD.value)
        number = dead.count()
        if others := queryset.count() - number:
            said = ngettext(
                "%(number)s task is not dead and stays: only dead letters can be dropped.",
                "%(number)s tasks are not dead and stay: only dead letters can be dropped.",
                others,
            )
            self.message_user(request, said % {"number": others}, messages.WARNING)
        answer: HttpResponse | None = ask_and_delete(self, request, dead) if number else None
        return answer

    def delete_model(self, request: HttpRequest, obj: DeferredTask) -> None:
        self.delete_queryset(request, DeferredTask._base_manager.using(obj._state.db).filter(pk=obj.pk))

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[DeferredTask]) -> None:
        """Drop letters, as long as they are dead; on a Datastore with the further rows of large payloads."""
        if is_datastore(queryset.db):
            _store_on(queryset.db).delete([task.pk for task in queryset if task.state == State.DEAD])
        else:
            queryset.filter(state=State.DEAD.value).delete()


def _name(task: DeferredTask) -> str:
    return one_line(task.label) or _("task")


def _arguments_of(task: DeferredTask) -> str:
    """Return the arguments of a task, or why there are none to show; its payload need not have been read."""
    unread = {"payload": None} if "payload" in task.get_deferred_fields() else {}
    try:
        return call_of(task.to_record(**unread), current()).listed()
    except ValueError as error:
        return f"<{error}>"


def _limit_of(task: DeferredTask) -> int | None:
    """Return how often the task may be attempted, if that is known."""
    try:
        return attempt_limit(Routing.from_json(task.routing), current())
    except Exception:  # the page of a task must not depend on its queue
        return None


def _store_on(alias: str) -> DjangoTaskStore:
    """Return the configured store on an alias, whose list of records to forget is this process's own."""
    for store in current().stores:
        if isinstance(store, DjangoTaskStore) and store.has_alias(alias):
            return store.using(alias)
    return task_store(alias=alias)
