"""The pages of iterations in the admin: what they show, whom they obey, and what they cost."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from testapp import iterations
from testapp.models import Row

from defer_core.errors import ConfigError
from defer_core.spi import clock
from defer_core.testing import drain, run_one
from defer_iteration import IterationHandle, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.model.iteration import IterationState

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])
LIST = reverse("admin:defer_iteration_iteration_changelist")


@pytest.fixture
def admin(client: Client) -> Client:
    """A client that may do everything."""
    client.force_login(User.objects.create_superuser("root"))
    return client


def url_of(handle: IterationHandle) -> str:
    return reverse("admin:defer_iteration_iteration_change", args=[handle.id])


def page_of(client: Client, handle: IterationHandle) -> str:
    answer = client.get(url_of(handle))
    assert answer.status_code == 200
    return answer.content.decode()


def act(client: Client, handle: IterationHandle, name: str) -> str:
    """Press a button, and return the page that comes of it."""
    url = reverse("admin:defer_iteration_iteration_act", args=[handle.id, name])
    return client.post(url, follow=True).content.decode()


def buttons(text: str) -> set[str]:
    return {name for name in ("pause", "resume", "retry", "cancel", "forget") if f'id="act-{name}"' in text}


def begin(**options: Any) -> IterationHandle:
    return walk(Row.objects.all(), iterations.callback, iterations.finalize, **options)


def planned(queue: Any, **options: Any) -> IterationHandle:
    """An iteration whose shards have not begun."""
    handle = begin(**options)
    run_one(queue.queued()[0], queue)
    return handle


def attempt_all(queue: Any) -> None:
    """Deliver each task that is queued, once."""
    for each in queue.queued():
        run_one(each, queue)


def raises(row: Any) -> None:
    raise KeyError("size")


# --- what is shown ----------------------------------------------------------------------------------------------------


def test_the_list_says_how_far_each_has_come(queue: Any, rows: Any, admin: Client) -> None:
    rows(1200)
    done = begin(_name="reprice", _shards=2)
    drain(queue)
    running = planned(queue, _shards=3)
    text = admin.get(LIST).content.decode()
    assert "1,200 of 1,200" in text and "0 of 1,200" in text and "0 of 3" in text
    assert text.index(running.id) < text.index(done.id)  # history comes last
    assert 'value="1200" max="1200"' in text and "100 %" in text
    assert "reprice" in text and "took " in text


def test_the_list_counts_shards_that_fail(queue: Any, rows: Any, admin: Client) -> None:
    rows(4)
    iterations.before.append(raises)
    planned(queue, _shards=2)
    attempt_all(queue)
    assert "0 of 2<br>" in (text := admin.get(LIST).content.decode()) and ">2 failing<" in text


def test_the_list_says_why_one_is_stopped(queue: Any, rows: Any, admin: Client) -> None:
    rows(2)
    iterations.before.append(raises)
    begin(_shards=1, _on_error="fail", _max_attempts=1)
    drain(queue)
    text = admin.get(LIST).content.decode()
    assert "KeyError: &#x27;size&#x27;" in text and "Traceback" not in text


def test_the_list_is_filtered_by_state_and_searched(queue: Any, rows: Any, admin: Client) -> None:
    rows(2)
    done = begin(_name="old")
    drain(queue)
    new = begin(_name="young")
    for query, there, gone in (("done", done, new), ("new", new, done)):
        text = admin.get(LIST, {"state": query}).content.decode()
        assert there.id in text and gone.id not in text
    if connections["default"].vendor in ("sqlite", "postgresql"):
        assert new.id not in admin.get(LIST, {"q": "old"}).content.decode()


@pytest.mark.on_sql
@pytest.mark.parametrize("number", [1, 12])
def test_the_list_costs_the_same_for_any_number(queue: Any, rows: Any, admin: Client, number: int) -> None:
    rows(4)
    for _ in range(number):
        begin(_shards=2)
    with CaptureQueriesContext(connections["default"]) as queries:
        admin.get(LIST)
    assert len(queries) == 6, [each["sql"] for each in queries]  # session, user, two counts, iterations, shards


def test_a_page_shows_an_iteration_under_way(queue: Any, rows: Any, admin: Client) -> None:
    rows(1200)
    handle = planned(queue, _shards=2, args=[3], _max_rows_per_second=50_000)
    text = page_of(admin, handle)
    for part in (
        "testapp.iterations.callback(row=…, 3)",
        "testapp.iterations.finalize",
        "testapp.models.Row",
        "0 of 1,200",
    ):
        assert part in text
    assert "_max_rows_per_second=50000" in text and "0 of 2" in text and handle.id in text
    assert buttons(text) == {"pause", "cancel"}


@pytest.mark.on_sql  # Datastore divides by a sample
def test_a_page_shows_the_keys_of_shards(queue: Any, rows: Any, admin: Client) -> None:
    keys = rows(1200)
    text = page_of(admin, planned(queue, _shards=2))
    assert f"… – {keys[600]}" in text and f"{keys[600]} – {keys[-1]}" in text


def test_a_page_shows_what_was_counted(queue: Any, rows: Any, admin: Client) -> None:
    rows(1200)
    handle = begin(_name="count", _shards=2)
    drain(queue)
    text = page_of(admin, handle)
    assert '<span>passed</span> <span class="number">1,200</span>' in text
    assert "1,200 of 1,200" in text and "is-done" in text and "took" in text
    assert buttons(text) == {"forget"}


def test_a_shard_that_raises_comes_first_with_its_traceback(queue: Any, rows: Any, admin: Client) -> None:
    keys = rows(4)
    iterations.before.append(lambda row: raises(row) if row.pk == keys[2] else None)
    handle = planned(queue, _shards=2)
    for _ in range(3):
        attempt_all(queue)
    text = page_of(admin, handle)
    assert "raised 3 times: KeyError: &#x27;size&#x27;" in text and "Traceback" in text
    assert text.index('id="shard-1"') < text.index('aria-label="Shard 0"')
    assert f"shard 1, row {keys[2]}" in text


def test_quarantined_rows_are_shown_and_retried(queue: Any, rows: Any, admin: Client) -> None:
    keys = rows(4)
    iterations.before.append(lambda row: raises(row) if row.pk == keys[2] else None)
    handle = begin(_shards=2, _on_error="quarantine", _max_attempts=2)
    drain(queue)
    text = page_of(admin, handle)
    assert f'<th scope="row" class="defer-call">{keys[2]}</th>' in text and "raised 2 times: KeyError" in text
    assert "is set aside after 2 calls" in text and buttons(text) == {"retry", "forget"}
    iterations.before.clear()
    assert "are called again" in act(admin, handle, "retry")
    drain(queue)
    assert sorted(iterations.seen) == keys


def test_what_finalize_raised_is_shown(queue: Any, rows: Any, admin: Client) -> None:
    rows(2)
    iterations.finalizing.append(lambda: raises(None))
    handle = begin(_shards=1)
    with pytest.raises(KeyError):
        drain(queue)
    text = page_of(admin, handle)
    assert "Last error (finalize): raised 3 times: KeyError" in " ".join(text.split())


def test_what_has_stalled_is_marked(queue: Any, rows: Any, admin: Client) -> None:
    rows(2)
    handle, later = planned(queue, _shards=1), clock.now() + 100_000
    assert "stalled" not in page_of(admin, handle)
    with clock.replaced(lambda: later):
        assert page_of(admin, handle).count(">stalled<") == 1


def test_of_many_shards_a_page_shows_some(queue: Any, rows: Any, admin: Client) -> None:
    rows(70)
    text = page_of(admin, planned(queue, _shards=70))
    assert text.count('aria-label="Shard ') == 64 and "6 more shards are not shown" in text


def test_of_many_quarantined_rows_a_page_shows_some(queue: Any, rows: Any, admin: Client) -> None:
    rows(70)
    iterations.before.append(raises)
    handle = begin(_shards=1, _on_error="quarantine", _max_attempts=1)
    drain(queue)
    text = page_of(admin, handle)
    assert text.count('<details id="row-') == 64 and "(70)" in text


@pytest.mark.on_sql
def test_a_page_costs_six_queries_at_most(queue: Any, rows: Any, admin: Client) -> None:
    rows(40)
    handle = planned(queue, _shards=20)
    with CaptureQueriesContext(connections["default"]) as queries:
        page_of(admin, handle)
    assert len(queries) == 5, [each["sql"] for each in queries]  # session, user, iteration, shards, quarantined rows


# --- what is done -----------------------------------------------------------------------------------------------------


def test_pause_resume_and_cancel(queue: Any, rows: Any, admin: Client) -> None:
    rows(4)
    handle = planned(queue, _shards=2)
    assert "Paused: it stops" in (text := act(admin, handle, "pause"))
    assert handle.progress().state is IterationState.PAUSED and buttons(text) == {"resume", "cancel"}
    assert "it goes on where it stopped" in act(admin, handle, "resume")
    assert handle.progress().state is IterationState.RUNNING
    assert "Cancel it for good?" in text
    assert "Cancelled." in (text := act(admin, handle, "cancel"))
    assert handle.progress().state is IterationState.CANCELLED and buttons(text) == {"forget"}
    said = [each.change_message for each in LogEntry.objects.order_by("action_time")]
    assert [each.partition(":")[0] for each in said] == ["Paused", "Resumed", "Cancelled."]


@pytest.mark.on_sql  # the admin looks for an object's history by a text
def test_what_was_done_is_in_the_history(queue: Any, rows: Any, admin: Client) -> None:
    rows(4)
    handle = begin()
    history = reverse("admin:defer_iteration_iteration_history", args=[handle.id])
    assert history in act(admin, handle, "pause")
    assert "Paused: it stops" in admin.get(history).content.decode()


def test_forget_deletes_all_that_is_kept(queue: Any, rows: Any, admin: Client) -> None:
    rows(4)
    handle = begin(_name="reprice")
    drain(queue)
    assert "Forgotten." in act(admin, handle, "forget")
    assert not models.Iteration.objects.exists()
    assert LogEntry.objects.get().is_deletion()
    assert begin(_name="reprice").begun


def test_what_has_changed_meanwhile_is_left_alone(queue: Any, rows: Any, admin: Client) -> None:
    rows(4)
    handle = begin()
    for name in ("resume", "forget", "retry"):
        assert "There was nothing to do" in act(admin, handle, name)
    assert not LogEntry.objects.exists()


def test_an_error_of_the_handle_is_said(queue: Any, rows: Any, admin: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(iteration_id: str, *args: Any, **kwargs: Any) -> None:
        raise ConfigError("no queue of that name")

    rows(4)
    handle = planned(queue)
    handle.pause()
    monkeypatch.setattr("defer_iteration.handle.start_shards", refuse)
    assert "No queue of that name" in act(admin, handle, "resume")
    assert handle.progress().state is IterationState.PAUSED and not LogEntry.objects.exists()


def test_what_is_gone_leads_back_to_the_list(queue: Any, rows: Any, admin: Client) -> None:
    rows(4)
    handle = begin()
    drain(queue)
    for answer in (admin.get(url_of(handle), follow=True), admin.post(f"{act_url(handle, 'pause')}", follow=True)):
        assert answer.redirect_chain[-1][0] == LIST
        assert "There is no such iteration, or it is over and nothing is kept of it." in answer.content.decode()
    assert admin.get(url_of(handle), headers={"X-Requested-With": "XMLHttpRequest"}).status_code == 404


# --- who may ----------------------------------------------------------------------------------------------------------


def act_url(handle: IterationHandle, name: str) -> str:
    return reverse("admin:defer_iteration_iteration_act", args=[handle.id, name])


@pytest.fixture
def person(client: Client) -> Callable[..., Client]:
    """Log somebody in who has some permissions."""

    def log_in(*codenames: str) -> Client:
        user = User.objects.create_user("clerk", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        client.force_login(user)
        return client

    return log_in


@pytest.mark.on_sql  # the admin's permissions are joins
def test_staff_without_permission_sees_nothing(queue: Any, rows: Any, person: Any) -> None:
    rows(2)
    handle, clerk = begin(), person()
    assert [clerk.get(url).status_code for url in (LIST, url_of(handle))] == [403, 403]


@pytest.mark.on_sql  # the admin's permissions are joins
def test_a_viewer_sees_no_buttons_and_may_do_nothing(queue: Any, rows: Any, person: Any) -> None:
    rows(2)
    handle, viewer = begin(), person("view_iteration")
    assert buttons(page_of(viewer, handle)) == set() and viewer.get(LIST).status_code == 200
    for name in ("pause", "resume", "retry", "cancel", "forget"):
        assert viewer.post(act_url(handle, name)).status_code == 403
    assert handle.progress().state is IterationState.NEW


@pytest.mark.on_sql  # the admin's permissions are joins
def test_to_forget_takes_the_permission_to_delete(queue: Any, rows: Any, person: Any) -> None:
    rows(2)
    handle, clerk = begin(_name="old"), person("change_iteration")
    assert buttons(page_of(clerk, handle)) == {"pause", "cancel"}
    drain(queue)
    assert buttons(page_of(clerk, handle)) == set()
    assert clerk.post(act_url(handle, "forget")).status_code == 403
    clerk.logout()
    User.objects.all().delete()
    assert buttons(page_of(person("view_iteration", "delete_iteration"), handle)) == {"forget"}


def test_actions_are_posts(queue: Any, rows: Any, admin: Client) -> None:
    rows(2)
    handle = begin()
    assert admin.get(act_url(handle, "pause")).status_code == 405
    assert admin.post(url_of(handle), {"state": "done"}).status_code == 405
    assert admin.post(act_url(handle, "explode")).status_code == 404
    assert handle.progress().state is IterationState.NEW


def test_an_action_without_a_token_is_forbidden(queue: Any, rows: Any) -> None:
    rows(2)
    handle, careful = begin(), Client(enforce_csrf_checks=True)
    careful.force_login(User.objects.create_superuser("root"))
    assert careful.post(act_url(handle, "pause")).status_code == 403
    assert handle.progress().state is IterationState.NEW


def test_nothing_is_added_edited_or_deleted_by_hand(queue: Any, rows: Any, admin: Client) -> None:
    rows(2)
    handle = begin()
    for name, args in (("add", []), ("delete", [handle.id])):
        assert admin.get(reverse(f"admin:defer_iteration_iteration_{name}", args=args)).status_code == 403
    assert "<textarea" not in page_of(admin, handle)


def test_a_project_without_the_admin_needs_nothing_of_it() -> None:
    code = (
        "import sys, django; from django.conf import settings; "
        'settings.configure(SECRET_KEY="k" * 50, INSTALLED_APPS=["defer_django", "defer_iteration"], '
        'DEFER={"TRANSPORT": "memory"}); django.setup(); '
        "from django.core.management import call_command; call_command('check'); "
        "unwanted = ('django.contrib.admin', 'defer_iteration.admin'); "
        "assert not [name for name in sys.modules if name.startswith(unwanted)]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
