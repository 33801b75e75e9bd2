"""Iterations in the admin: how far they are, what they trip over, and what can be done about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db import DatabaseError
from django.db.models import F, QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseNotAllowed, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from defer_core.errors import DeferError
from defer_core.spi import clock, last_line
from defer_django.store import is_datastore
from defer_django.words import at, share, span

from . import page
from .handle import IterationHandle
from .model.iteration import IterationState
from .model.transitions import LIVE, STOPPED
from .models import Iteration

OVER = tuple(state for state in IterationState if state.is_over)


@dataclass(frozen=True, kw_only=True)
class Action:
    """What a button does."""

    name: str
    """Its name in the URL."""
    label: str
    """What the button says."""
    run: Callable[[IterationHandle], object]
    """Does it, and returns something false if there was nothing to do."""
    states: Sequence[IterationState]
    """The states in which there is a button."""
    said: str
    """What the history and a message say of it."""
    question: str = ""
    """What is asked before; empty if nothing is."""
    button: str = ""
    """The class of the button."""

    @property
    def forgets(self) -> bool:
        """Whether the iteration is gone afterwards."""
        return self.name == "forget"


ACTIONS = {
    action.name: action
    for action in (
        Action(
            name="pause",
            label=gettext_lazy("Pause"),
            run=IterationHandle.pause,
            states=LIVE,
            said=gettext_lazy("Paused: it stops at its next checkpoints."),
        ),
        Action(
            name="resume",
            label=gettext_lazy("Resume"),
            run=IterationHandle.resume,
            states=STOPPED,
            said=gettext_lazy("Resumed: it goes on where it stopped."),
            button="default",
        ),
        Action(
            name="retry",
            label=gettext_lazy("Retry quarantined rows"),
            run=IterationHandle.retry_quarantined,
            states=tuple(IterationState),
            said=gettext_lazy("The quarantined rows are called again."),
        ),
        Action(
            name="cancel",
            label=gettext_lazy("Cancel"),
            run=IterationHandle.cancel,
            states=(*LIVE, *STOPPED),
            said=gettext_lazy("Cancelled."),
            question=gettext_lazy("Cancel it for good? Rows that are done stay done, and finalize will not be called."),
            button="is-danger",
        ),
        Action(
            name="forget",
            label=gettext_lazy("Forget"),
            run=IterationHandle.forget,
            states=OVER,
            said=gettext_lazy("Forgotten."),
            question=gettext_lazy("Delete all that is kept of it? Another iteration may have its name then."),
            button="is-danger",
        ),
    )
}


class StateFilter(admin.SimpleListFilter):
    """By state; all states are offered, so that none is counted for it."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(state.value, str(words)) for state, words in page.STATES.items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Iteration]) -> QuerySet[Iteration]:
        return queryset.filter(state=self.value()) if self.value() else queryset


class IterationList(ChangeList):
    """A page of the list, whose iterations know what their shards have come to."""

    def get_queryset(self, request: HttpRequest, **kwargs: Any) -> QuerySet[Iteration]:
        return page.without(super().get_queryset(request, **kwargs), "job", "options", "counters")

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Iteration]) -> Sequence[Any]:
        return ("pk",) if _on_datastore() else super().get_ordering(request, queryset)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows: list[Any] = list(self.result_list)  # type: ignore[has-type]
        if _on_datastore():
            rows.sort(key=lambda row: row.created, reverse=True)
        found = page.tallies([row.pk for row in rows if row.state != IterationState.DONE], self.root_queryset.db)
        for row in rows:
            row.tally = found.get(row.pk, page.Tally())
            row.done_rows = row.tally.rows if row.rows is None else row.rows
        self.result_list = rows


@admin.register(Iteration)
class IterationAdmin(admin.ModelAdmin):
    """Shows iterations and controls them; they are begun by code, and are not written by hand."""

    list_display = ("what", "condition", "progress", "shards", "when")
    list_filter = (StateFilter,)
    list_per_page = 50
    show_facets = admin.ShowFacets.NEVER
    search_fields = ("id", "name", "label")
    actions = None
    change_list_template = "admin/defer_iteration/iteration/change_list.html"

    # --- the list -----------------------------------------------------------------------------------------------------

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        title = capfirst(self.opts.verbose_name_plural)
        return super().changelist_view(request, {"title": title, **(extra_context or {})})

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return IterationList

    def get_ordering(self, request: HttpRequest) -> Sequence[Any]:
        """Put what is not over first, then what has ended last; Datastore has no index for it."""
        return () if _on_datastore() else (F("finished").desc(nulls_first=True), "-created")

    def get_sortable_by(self, request: HttpRequest) -> Sequence[str]:
        return () if _on_datastore() else self.list_display

    def get_search_fields(self, request: HttpRequest) -> Sequence[str]:
        return () if _on_datastore() else self.search_fields

    @admin.display(description=gettext_lazy("iteration"), ordering="name")
    def what(self, row: Iteration) -> SafeString:
        label = format_html('<br><span class="defer-quiet">{}</span>', row.label) if row.name else ""
        line = last_line(row.reason or row.error)
        trouble = format_html('<br><span class="defer-line">{}</span>', line) if line else ""
        return format_html("{}{}{}", row.name or row.label or row.pk, label, trouble)

    @admin.display(description=gettext_lazy("state"), ordering="state")
    def condition(self, row: Iteration) -> SafeString:
        return format_html(
            '<span class="defer-badge is-{}">{}</span>', row.state, page.STATES[IterationState(row.state)]
        )

    @admin.display(description=gettext_lazy("progress"), ordering="rows")
    def progress(self, row: Any) -> SafeString:
        said = page.of_total(row.done_rows, row.total)
        if not row.total:
            return format_html('<span class="defer-quiet">{}</span>', said)
        kind = "is-done" if row.state == IterationState.DONE else "is-failing" if row.tally.failing else ""
        return format_html(
            '<progress class="defer-bar {}" value="{}" max="{}" aria-label="{}"></progress><br>{} '
            '<span class="defer-quiet">({})</span>',
            kind,
            min(row.done_rows, row.total),
            row.total,
            _("Rows done"),
            said,
            share(row.done_rows, row.total),
        )

    @admin.display(description=gettext_lazy("shards"))
    def shards(self, row: Any) -> SafeString | str:
        failing = format_html('<br><span class="defer-line">{}</span>', row.tally.trouble) if row.tally.failing else ""
        return format_html("{}{}", row.tally, failing) if row.tally.shards else "–"

    @admin.display(description=gettext_lazy("started"), ordering="created")
    def when(self, row: Iteration) -> SafeString:
        age = _("for %(time)s") if row.finished is None else _("took %(time)s")
        said = age % {"time": span(row.created, clock.now() if row.finished is None else row.finished)}
        when = at(row.created, "SHORT_DATETIME_FORMAT")
        return format_html('{}<br><span class="defer-quiet">{}</span>', when, said)

    # --- permissions --------------------------------------------------------------------------------------------------

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Iteration | None = None) -> bool:
        """Forbid the admin's own deletion, which would leave shards and tasks behind: there is `forget`."""
        return False

    def _may(self, request: HttpRequest, action: Action) -> bool:
        if action.forgets:
            return super().has_delete_permission(request)
        return self.has_change_permission(request)

    # --- one iteration ------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[Any]:
        view = self.admin_site.admin_view(self.act_view)
        return [
            path("<str:object_id>/act/<str:name>/", view, name="defer_iteration_iteration_act"),
            *super().get_urls(),
        ]

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show an iteration. There is no form: what can be changed has a button."""
        if request.method not in ("GET", "HEAD"):
            return HttpResponseNotAllowed(["GET", "HEAD"])
        if not self.has_view_permission(request):
            raise PermissionDenied
        row = self.get_object(request, object_id)
        if row is None:
            return self._gone(request)
        shown, name = page.page_of(row, row._state.db), row.name or row.label or row.pk
        context = {
            **self.admin_site.each_context(request),
            "title": name,
            "original": name,
            "has_view_permission": True,
            "opts": self.opts,
            "row": row,
            "page": shown,
            "has_history": not _on_datastore(),  # the admin looks for it by a text, which that cannot
            "actions": [each for each in ACTIONS.values() if self._may(request, each) and _is_offered(each, shown)],
            **(extra_context or {}),
        }
        request.current_app = self.admin_site.name
        return TemplateResponse(request, "admin/defer_iteration/iteration/iteration.html", context)

    def _gone(self, request: HttpRequest) -> HttpResponse:
        """Go back to the list; a page that is shown is told to load itself again for that."""
        if request.headers.get("X-Requested-With") == "XMLHttpRequest":
            raise Http404
        said = _("There is no such iteration, or it is over and nothing is kept of it.")
        self.message_user(request, said, messages.INFO)
        return HttpResponseRedirect(self._url("changelist"))

    def _url(self, name: str, *args: str) -> str:
        return reverse(f"admin:defer_iteration_iteration_{name}", args=args, current_app=self.admin_site.name)

    def act_view(self, request: HttpRequest, object_id: str, name: str) -> HttpResponse:
        """Do what a button says, and say what came of it."""
        if request.method != "POST":
            return HttpResponseNotAllowed(["POST"])
        action = ACTIONS.get(name)
        if action is None:
            raise Http404
        if not self._may(request, action):
            raise PermissionDenied
        row = self.get_object(request, object_id)
        if row is None:
            return self._gone(request)
        try:
            done = action.run(IterationHandle(id=row.pk, alias=row._state.db))
        except (DeferError, DatabaseError) as error:
            self.message_user(request, str(error), messages.ERROR)
        else:
            self._tell(request, row, action, bool(done))
            if done and action.forgets:
                return HttpResponseRedirect(self._url("changelist"))
        return HttpResponseRedirect(self._url("change", row.pk))

    def _tell(self, request: HttpRequest, row: Iteration, action: Action, done: bool) -> None:
        """Say what came of an action, and note it in the history."""
        if not done:
            self.message_user(request, _("There was nothing to do: it has changed meanwhile."), messages.WARNING)
        elif action.forgets:
            self.log_deletions(request, [row])
            self.message_user(request, action.said, messages.SUCCESS)
        else:
            self.log_change(request, row, str(action.said))
            self.message_user(request, action.said, messages.SUCCESS)


def _on_datastore() -> bool:
    return is_datastore(Iteration._default_manager.db)


def _is_offered(action: Action, shown: page.Page) -> bool:
    if action.name == "retry" and not shown.quarantined_number:
        return False
    return shown.progress.state in action.states
