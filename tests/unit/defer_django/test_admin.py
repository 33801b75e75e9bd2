"""The pages of tasks in the admin: what they show, whom they obey, and what they cost."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from django.contrib.admin import site
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from testapp import tasks

from defer_core import defer
from defer_core.spi import State, clock, current
from defer_core.testing import drain, in_memory
from defer_django.admin.states import REASONS, STATES, attempts_of, condition_of, next_of
from defer_django.models import DeferredTask, Minute

pytestmark = pytest.mark.django_db(transaction=True)
LIST = reverse("admin:defer_django_deferredtask_changelist")
DOCS = Path(__file__).parents[3] / "docs"
NOW = 1_800_000_000.0
TRACEBACK = "Traceback (most recent call last):\n  File 'shop.py'\nValueError: order 17 has no <address>"


@pytest.fixture(autouse=True)
def now() -> Iterator[list[float]]:
    """The time, which tests may change."""
    time = [NOW]
    with clock.replaced(lambda: time[0]):
        yield time


@pytest.fixture(autouse=True)
def _queues() -> Iterator[None]:
    """One queue is declared, with a limit."""
    with in_memory(store="django", queues=[{"name": "mail", "retry_max_attempts": 5}], keys=["k" * 20]):
        yield


@pytest.fixture
def admin(client: Client) -> Client:
    """A client that may do everything."""
    client.force_login(User.objects.create_superuser("root"))
    return client


@pytest.fixture
def viewer(client: Client) -> Callable[..., Client]:
    """Return a client that has these permissions alone."""

    def made(*codenames: str) -> Client:
        user = User.objects.create_user("viewer", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return made


def put(
    state: str = "dead", *args: Any, queue: str = "mail", call: dict[str, Any] | None = None, **columns: Any
) -> str:
    """Store a record of a call of `record`, and return its id."""
    handle = defer(tasks.record, *args, _queue=queue, **(call or {}))
    current().the_transport.clear()
    columns = {
        "state": state,
        "reason": "gave up" if state == "dead" else "",
        "created": NOW - 7300,
        "due": NOW + 100,
        "attempts": 2 if state in ("failing", "dead") else 0,
        "last_attempt": NOW - 60,
        "last_error": TRACEBACK if state in ("failing", "dead") else "",
        **columns,
    }
    DeferredTask.objects.filter(pk=handle.record_id).update(**columns)
    return str(handle.record_id)


def text_of(answer: Any) -> str:
    """The text of a page, without markup."""
    assert answer.status_code in (200, 404)
    body = answer.content.decode().partition("<main")[2]
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", body)).replace("\xa0", " ").split())


def listed(client: Client, **query: str) -> set[str]:
    """The ids of the rows of the list."""
    answer = client.get(LIST, query)
    assert answer.status_code == 200
    return set(re.findall(r'id="task-(\w+)"', answer.content.decode()))


def url(name: str, pk: str) -> str:
    return reverse(f"admin:defer_django_deferredtask_{name}", args=[pk])


def buttons(client: Client, pk: str) -> set[str]:
    """The buttons on the page of a task."""
    return set(re.findall(r'id="(rerun|drop|history)"', client.get(url("change", pk)).content.decode()))


# --- the list ---------------------------------------------------------------------------------------------------------


@pytest.mark.on_sql
def test_the_list_begins_with_what_needs_attention(admin: Client) -> None:
    trouble = {put("failing"), put("dead"), put("pending", due=NOW - 1)}
    others = {put("pending"), put("sent")}
    assert listed(admin) == trouble
    assert listed(admin, state="all") == trouble | others


def test_it_is_narrowed_by_state_and_queue(admin: Client) -> None:
    failing, late = put("failing"), put("pending", due=NOW - 1)
    gave_up, slow = put("dead"), put("dead", queue="slow")
    assert listed(admin, state="failing") == {failing}
    assert listed(admin, state="late") == listed(admin, state="pending") == {late}
    assert listed(admin, queue="slow") == {slow}
    assert listed(admin, state="dead", queue="mail") == {gave_up}


@pytest.mark.on_sql
def test_it_is_narrowed_by_reason(admin: Client) -> None:
    held, _gave_up = put("dead", reason="held"), put("dead")
    assert listed(admin, reason="held") == {held}


@pytest.mark.on_gcloudc
def test_a_datastore_is_asked_for_what_it_has_an_index_for(admin: Client) -> None:
    trouble, late = {put("failing"), put("dead")}, put("pending", due=NOW - 1)
    assert listed(admin) == trouble
    assert listed(admin, state="all") == {*trouble, late}
    assert "1 is late" in text_of(admin.get(LIST))
    page = admin.get(LIST).content.decode()
    assert "By reason" not in page and 'id="searchbar"' not in page


@pytest.mark.on_sql
def test_a_search_looks_everywhere_unless_a_state_is_chosen(admin: Client) -> None:
    sent, other = put("sent"), put("dead", label="shop:order")
    assert listed(admin, q=sent) == {sent}
    assert listed(admin, q="no <address>") == {other}
    assert listed(admin, q=sent, state="dead") == set()


@pytest.mark.on_sql
def test_a_search_finds_the_name_that_the_log_has(admin: Client) -> None:
    named = put("failing", call={"_name": "nightly-7"})
    put("failing", call={"_name": "weekly-7"})
    put("failing", call={"_headers": {"X-Token": "nightly-7"}})
    assert listed(admin, q="nightly-7") == listed(admin, q=" nightly ") == {named}
    assert listed(admin, q='mail"') == set()


def test_the_cards_say_how_many_and_what_is_bad_about_them(admin: Client) -> None:
    put("pending")
    put("failing")
    put("dead", last_attempt=NOW - 3 * 86400)
    said = text_of(admin.get(LIST))
    assert "Waiting to be sent 1 none is late Sent 0 large ones, in their queues Failing 1 their queues" in said
    assert "Dead 1 0 since yesterday" in said and 'class="is-bad"' not in admin.get(LIST).content.decode()
    put("pending", due=NOW - 1)
    put("dead")
    said = text_of(admin.get(LIST))
    assert "Waiting to be sent 2 1 is late" in said and "Dead 2 1 since yesterday" in said
    assert admin.get(LIST).content.decode().count('class="is-bad"') == 2


def test_the_table_says_what_each_queue_has_and_does(admin: Client) -> None:
    put("failing")
    put("dead")
    put("pending", queue="slow")
    Minute.objects.create(pk="1", minute=NOW - 600, queue="slow", done=12_000, failed=4_000)
    said = text_of(admin.get(LIST))
    assert "Failed attempts, last hour mail 0 1 1 0 0 slow 1 0 0 12,000 4,000 (25 %)" in said
    assert f"{LIST}?" not in said and 'href="?state=all&amp;queue=slow"' in admin.get(LIST).content.decode()


def test_a_row_says_what_was_called_what_it_raised_and_how_often(admin: Client) -> None:
    put("failing", 17, call={"size": "XL", "password": "hush"})
    said = text_of(admin.get(LIST))
    row = (
        "testapp.tasks:record 17, size='XL', password=•••••• ValueError: order 17 has no <address> failing 2 of 5 mail"
    )
    assert f"{row} 2 hours" in said
    assert "hush" not in said


@pytest.mark.on_sql
def test_a_large_call_is_not_read_for_the_list(admin: Client) -> None:
    pk = put("dead", os.urandom(150_000))
    with CaptureQueriesContext(connection) as queries:
        assert "a large call, which its page shows" in text_of(admin.get(LIST))
    columns = [each["sql"].partition("FROM")[0] for each in queries if "defer_django_deferredtask" in each["sql"]]
    assert columns and not any('"payload",' in each for each in columns)
    assert "1. <150,000 bytes>" in text_of(admin.get(url("change", pk)))


def test_a_record_that_no_release_can_read_is_listed_all_the_same(admin: Client) -> None:
    pk = put("dead", reason="unreadable", envelope=pickle.dumps((print, (), {})), label="")
    assert "task <a pickle of another library, " in text_of(admin.get(LIST))
    assert "It cannot be shown: a pickle of another library" in text_of(admin.get(url("change", pk)))


def test_markup_in_names_and_errors_stays_text(admin: Client) -> None:
    evil = "<script>alert(1)</script>"
    pk = put("dead", evil, label=evil, last_error=evil, reason=evil[:50], routing='{"queue": "<b>"}')
    for page in (LIST, url("change", pk)):
        answer = admin.get(page)
        assert "<script>alert" not in answer.content.decode() and "<b>" not in answer.content.decode()
        assert evil in text_of(answer)


@pytest.mark.on_sql
def test_five_thousand_failing_tasks_are_nine_queries_at_most(viewer: Callable[..., Client]) -> None:
    columns = DeferredTask.objects.filter(pk=put("failing")).values().get()
    rows = [DeferredTask(**{**columns, "id": f"{i:032}", "queue": f"queue-{i % 7}"}) for i in range(5_000)]
    DeferredTask.objects.all().delete()
    DeferredTask.objects.bulk_create(rows, batch_size=500)
    client = viewer("view_deferredtask", "change_deferredtask", "delete_deferredtask")
    with CaptureQueriesContext(connection) as queries:
        said = text_of(client.get(LIST))
    assert "Failing 5,000" in said and "queue-6 0 714 0" in said
    assert len(queries) <= 9


def test_the_page_of_a_task_is_three_queries(admin: Client) -> None:
    pk = put("dead")
    with CaptureQueriesContext(connection) as queries:
        admin.get(url("change", pk))
    assert len(queries) <= 3


# --- one task ---------------------------------------------------------------------------------------------------------


def test_the_page_says_what_is_known(admin: Client) -> None:
    pk = put("dead", 17, call={"size": "XL", "password": "hush"})
    said = text_of(admin.get(url("change", pk)))
    assert "dead: gave up Its queue does not try it again. Mend the cause and re-run it, or drop it." in said
    assert "attempts 2 of 5 queue mail deferred Jan. 14, 2027, 11:58 p.m. (2 hours, 1 minute ago)" in said
    assert "function testapp.tasks.record 1. 17 size 'XL' password ••••••" in said
    assert "Last error ValueError: order 17 has no <address> Traceback (most recent call last):" in said
    assert pk in said and "hush" not in said


@pytest.mark.parametrize("columns", [{"verified": False}, {"envelope": pickle.dumps((print, (), {}))}], ids=str)
def test_when_a_task_was_deferred_is_not_said_if_that_is_not_known(admin: Client, columns: dict[str, Any]) -> None:
    assert "deferred Jan. 14" not in text_of(admin.get(url("change", put(**columns))))
    assert "deferred Jan. 14" in text_of(admin.get(url("change", put())))


@pytest.mark.parametrize(
    ("columns", "condition", "tries", "next_"),
    [
        ({"state": "pending", "due": NOW + 59}, "waiting to be sent", "–", "the sweep sends it in 59 seconds."),
        (
            {"state": "pending", "due": NOW + 59, "attempts": 1},
            "waiting to be sent",
            "1 try to send it",
            "Its queue did not take it. It is sent again in 59 seconds.",
        ),
        ({"state": "pending", "due": NOW - 90}, "late", "–", "It should have been sent 1 minute ago."),
        ({"state": "sent"}, "sent", "–", "Its queue has it."),
        ({"state": "failing", "attempts": 2}, "failing", "2 of 5", "3 attempts are left; after that it is dead."),
        ({"state": "failing", "attempts": 4}, "failing", "4 of 5", "1 attempt is left; after that it is dead."),
        ({"state": "failing", "attempts": 7}, "failing", "7 of 5", "tries it again by itself."),
        ({"state": "dead", "reason": "gave up", "attempts": 5}, "dead: gave up", "5 of 5", "or drop it."),
        ({"state": "dead", "reason": "held", "attempts": 9}, "dead: held", "9 tries to send it", "Look whether it ran"),
        ({"state": "dead", "reason": "new one"}, "dead: new one", "–", "Mend the cause and re-run it, or drop it."),
    ],
)
def test_each_state_is_said_in_words_with_what_happens_next(
    columns: dict[str, Any], condition: str, tries: str, next_: str
) -> None:
    task = DeferredTask(**{"due": NOW, "attempts": 0, **columns})
    assert condition_of(task, NOW).words == condition
    assert attempts_of(task, 5) == tries
    assert next_ in next_of(task, 5, NOW).replace("\xa0", " ")


def test_without_a_limit_none_is_said() -> None:
    task = DeferredTask(state="failing", attempts=1200)
    assert attempts_of(task, None) == "1,200"
    assert next_of(task, None, NOW) == "Its queue has it, and tries it again by itself."


def test_each_state_and_each_reason_has_words_and_advice_of_its_own() -> None:
    assert set(STATES) == {state.value for state in State}
    said = {next_of(DeferredTask(state="dead", reason=reason), 5, NOW) for reason in REASONS}
    assert len(said) == len(REASONS)
    documented = re.findall(r"^\| `([\w ]+)` \|", (DOCS / "dead-letters.md").read_text(), re.MULTILINE)
    assert list(REASONS) == documented


def test_the_trail_to_a_page_is_the_admins_own(admin: Client) -> None:
    """Releases of Django mark it up differently."""
    trails = [
        re.search(r'<(\w+) class="breadcrumbs">(.*?)</\1>', admin.get(page).content.decode(), re.DOTALL)
        for page in (reverse("admin:auth_user_changelist"), url("change", put("dead")), url("change", "0" * 32))
    ]
    assert all(trails) and len({trail[1] for trail in trails if trail}) == 1
    said = [unescape(re.sub(r"<[^>]*>", "", trail[2])).split() for trail in trails if trail]
    assert said[1][-1] == "testapp.tasks:record" and said[2][-1] == "more"


def test_what_is_gone_has_a_page_that_says_so(admin: Client) -> None:
    answer = admin.get(url("change", "0" * 32))
    assert answer.status_code == 404
    assert "It has run since, or it was re-run or dropped." in text_of(answer)
    assert buttons(admin, "0" * 32) == set()


def test_the_pages_speak_the_language_of_the_request(admin: Client, settings: Any) -> None:
    settings.LANGUAGE_CODE = "de"
    pk = put("failing")
    assert "Tot 0 0 seit gestern" in text_of(admin.get(LIST))
    assert "mit Fehlern Ihre Warteschlange hat sie" in text_of(admin.get(url("change", pk)))


# --- what can be done, and by whom ------------------------------------------------------------------------------------


def test_a_dead_letter_alone_has_buttons(admin: Client) -> None:
    assert buttons(admin, put("dead")) >= {"rerun", "drop"}
    for state in ("failing", "sent", "pending"):
        assert not buttons(admin, put(state)) & {"rerun", "drop"}


@pytest.mark.on_sql  # permissions are joins
def test_a_viewer_sees_no_buttons_and_may_do_nothing(viewer: Callable[..., Client]) -> None:
    pk = put("dead")
    client = viewer("view_deferredtask")
    assert listed(client) == {pk}
    assert "Re-run the selected" not in client.get(LIST).content.decode()
    assert buttons(client, pk) == {"history"}
    assert client.post(url("rerun", pk)).status_code == 403
    assert client.post(url("delete", pk), {"post": "yes"}).status_code == 403
    assert DeferredTask.objects.filter(pk=pk, state="dead").exists()


@pytest.mark.on_sql  # permissions are joins
def test_each_button_needs_a_right_of_its_own(viewer: Callable[..., Client]) -> None:
    pk = put("dead")
    assert buttons(viewer("change_deferredtask"), pk) == {"rerun", "history"}


@pytest.mark.on_sql  # permissions are joins
def test_who_may_only_drop_cannot_re_run(viewer: Callable[..., Client]) -> None:
    pk = put("dead")
    client = viewer("view_deferredtask", "delete_deferredtask")
    assert buttons(client, pk) == {"drop", "history"}
    assert client.post(url("rerun", pk)).status_code == 403
    assert client.post(url("delete", pk), {"post": "yes"}).status_code == 302
    assert not DeferredTask.objects.exists()


@pytest.mark.on_sql  # permissions are joins
def test_who_has_no_right_sees_nothing(viewer: Callable[..., Client]) -> None:
    pk = put("dead")
    client = viewer()
    answers = [client.get(LIST), client.get(url("change", pk)), client.post(url("rerun", pk))]
    assert [each.status_code for each in answers] == [403, 403, 403]


def test_re_run_sends_it_again_and_is_noted(admin: Client, calls: list[Any]) -> None:
    pk = put("dead", 17)
    said = text_of(admin.post(url("rerun", pk), follow=True))
    assert "Sent again: testapp.tasks:record" in said
    drain()
    assert calls == [(17,)]
    assert [(each.object_id, each.get_change_message()) for each in LogEntry.objects.all()] == [(pk, "Re-run.")]


def test_what_cannot_be_re_run_stays_and_says_why(admin: Client) -> None:
    failing, foreign = put("failing"), put("dead", envelope=pickle.dumps((print, (), {})), verified=False)
    assert "There is no dead letter" in text_of(admin.post(url("rerun", failing), follow=True))
    assert f"Task {foreign}: The body" in text_of(admin.post(url("rerun", foreign), follow=True))
    assert DeferredTask.objects.count() == 2 and not LogEntry.objects.exists()
    assert "This task is not here any more" in text_of(admin.post(url("rerun", "0" * 32), follow=True))


def test_a_letter_is_dropped_after_a_question(admin: Client) -> None:
    pk = put("dead")
    assert "Are you sure" in text_of(admin.get(url("delete", pk)))
    assert DeferredTask.objects.filter(pk=pk).exists()
    admin.post(url("delete", pk), {"post": "yes"})
    assert not DeferredTask.objects.exists()
    failing = put("failing")
    assert admin.post(url("delete", failing), {"post": "yes"}).status_code == 403


def drop_selected(client: Client, *pks: str, **more: str) -> Any:
    selected = {"action": "delete_selected", ACTION_CHECKBOX_NAME: pks}
    return client.post(LIST, {**selected, **more}, follow=True)


def test_the_letters_of_a_selection_are_dropped_and_the_others_stay(admin: Client) -> None:
    dead, *failing = put("dead"), put("failing"), put("failing")
    asked = drop_selected(admin, dead, *failing)
    assert "Are you sure" in text_of(asked) and "permission" not in text_of(asked)
    assert "2 tasks are not dead and stay: only dead letters can be dropped." in asked.content.decode()
    assert DeferredTask.objects.count() == 3
    assert drop_selected(admin, dead, post="yes").status_code == 200
    assert set(DeferredTask.objects.values_list("pk", flat=True)) == {*failing}


def test_a_selection_without_letters_is_not_asked_about(admin: Client) -> None:
    failing = put("failing")
    for more in ({}, {"post": "yes"}):
        answer = drop_selected(admin, failing, **more)
        assert "1 task is not dead and stays" in answer.content.decode() and "Are you sure" not in text_of(answer)
    assert DeferredTask.objects.filter(pk=failing).exists()


def test_a_letter_that_has_come_to_life_is_not_dropped(admin: Client) -> None:
    task = DeferredTask.objects.get(pk=put("dead"))
    DeferredTask.objects.update(state="failing")
    site.get_model_admin(DeferredTask).delete_model(None, task)
    assert DeferredTask.objects.get().state == "failing"


def test_actions_are_posted_with_a_token_and_pages_are_not_posted_to(admin: Client) -> None:
    pk = put("dead")
    assert admin.get(url("rerun", pk)).status_code == 405
    assert admin.post(url("change", pk), {"state": "sent"}).status_code == 405
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get())
    assert strict.post(url("rerun", pk)).status_code == 403
    assert DeferredTask.objects.get().state == "dead"
