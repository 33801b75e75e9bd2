"""The pages of tasks as a person uses them, in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from testapp import tasks

from defer_core import config, defer
from defer_core.spi import clock
from defer_core.testing import drain, in_memory
from defer_django.models import DeferredTask, Minute

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True, databases=["default", "other"])]
WIDE, NARROW = (1280, 860), (420, 900)
LIST = "/admin/defer_django/deferredtask/"
COUNTING = """
    window.asked = window.turns = 0;
    const [ask, later] = [fetch, setTimeout];
    window.fetch = (...given) => (window.asked += 1, ask(...given));
    window.setTimeout = (work, wait) => (window.turns += wait >= 5000, later(work, wait));
"""
"""Counts how often the page asks, and how often it might."""
TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/tasks.py", line 12, in ship
    raise ValueError(f"order {order.pk} has no address")
ValueError: order 4711 has no address"""


@pytest.fixture(autouse=True)
def queue(transactional_db: None) -> Iterator[Any]:
    tasks.calls.clear()
    config.reset()
    queues = [{"name": "mail", "retry_max_attempts": 5}, "default"]
    with in_memory(store="django", queues=queues, sweep_grace=3600.0) as transport:
        yield transport
    tasks.calls.clear()


def put(transport: Any, state: str = "dead", *args: Any, queue: str = "mail", **columns: Any) -> str:
    """Store a record of a call of `record`, and return its id."""
    handle = defer(tasks.record, *args, _queue=queue, password="hush")
    transport.clear()
    now = clock.now()
    given = {"state": state, "reason": "gave up" if state == "dead" else "", "attempts": 2, "created": now - 7200}
    given |= {"first_attempt": now - 7000, "last_attempt": now - 100, "due": now + 3000, "last_error": TRACEBACK}
    DeferredTask.objects.filter(pk=handle.record_id).update(**{**given, **columns})
    return str(handle.record_id)


def page_of(pk: str) -> str:
    return f"{LIST}{pk}/change/"


def rows(browser: Any) -> set[str]:
    """The ids of the rows of the list."""
    found: list[str] = browser.run("return [...document.querySelectorAll('.field-what a')].map((each) => each.id)")
    return {each.removeprefix("task-") for each in found}


def buttons(browser: Any) -> list[str]:
    """The ids of the buttons on the page of a task."""
    found: list[str] = browser.run("return [...document.querySelectorAll('.defer-actions .button')].map((e) => e.id)")
    return found


def number_on(browser: Any, card: str) -> str:
    said: str = browser.text(f"#card-{card} .number")
    return said


def test_a_dead_letter_is_found_read_and_run_again(root: Any, queue: Any) -> None:
    dead, _other = put(queue, "dead", 17), put(queue, "failing")
    root.go(LIST)
    root.find("#card-dead").click()
    root.until(lambda: rows(root) == {dead})
    assert root.find("#card-dead").get_attribute("aria-current") == "true"
    root.find(f"#task-{dead}").click()
    root.until_said("dead: gave up")
    assert root.text(".defer-error").splitlines()[-1] == "ValueError: order 4711 has no address"
    assert "17 password ••••••" in " ".join(root.text("#call").split())
    root.find("#rerun").click()
    root.until_said("Sent again: testapp.tasks:record")
    drain(queue)
    assert tasks.calls == [(17, {"password": "hush"})]


def test_a_dead_letter_is_dropped_after_a_question(root: Any, queue: Any) -> None:
    dead = put(queue)
    root.go(page_of(dead))
    root.find("#drop").click()
    root.until_said("Are you sure")
    assert DeferredTask.objects.filter(pk=dead).exists()
    root.find("input[type=submit]").click()
    root.until_said("was deleted successfully")
    assert not DeferredTask.objects.exists()


def test_a_failing_task_has_no_buttons_but_its_history(root: Any, queue: Any) -> None:
    root.go(page_of(put(queue, "failing")))
    root.until_said("Its queue has it, and tries it again by itself. 3 attempts are left")
    assert buttons(root) == ["history"]
    root.find("#history").click()
    root.until_said("Change history")


def test_a_page_follows_its_task_to_the_end(root: Any, queue: Any) -> None:
    pk = put(queue, "failing")
    root.go(page_of(pk))
    root.until_said("2 of 5")
    DeferredTask.objects.update(attempts=5, state="dead", reason="gave up")
    root.until_said("5 of 5")
    root.until(lambda: buttons(root) == ["rerun", "drop", "history"])
    DeferredTask.objects.all().delete()
    root.until_said("It has run since, or it was re-run or dropped.")
    assert buttons(root) == []
    root.complaints()  # the browser tells of the page that was not found


def test_the_list_follows_what_happens(root: Any, queue: Any) -> None:
    first = put(queue, "failing")
    root.go(LIST)
    root.until(lambda: rows(root) == {first} and number_on(root, "dead") == "0")
    second = put(queue, "dead", queue="slow")
    root.until(lambda: rows(root) == {first, second} and number_on(root, "dead") == "1")
    assert "slow\t0\t0\t1\t0\t0" in root.text("#queues")


def test_what_is_selected_stays_selected_and_is_run_again(root: Any, queue: Any) -> None:
    put(queue, "dead", 1)
    root.go(LIST)
    root.until(lambda: len(rows(root)) == 1)
    put(queue, "dead", 2)
    root.until(lambda: len(rows(root)) == 2)  # the boxes are new now
    root.find("#action-toggle").click()
    assert "2 of 2 selected" in root.text(".actions")
    put(queue, "dead", 3)
    Select(root.find("select[name=action]")).select_by_value("rerun")
    root.run(COUNTING)
    root.until(lambda: root.run("return window.turns") > 1)
    assert root.run("return window.asked") == 0 and "2 of 2 selected" in root.text(".actions")
    root.find("button[name=index]").click()
    root.until_said("2 re-run.")
    drain(queue)
    assert sorted(call[0] for call in tasks.calls) == [1, 2]


def test_the_list_is_narrowed_by_queue_by_reason_and_by_a_text(root: Any, queue: Any) -> None:
    mail, slow = put(queue, "dead", reason="held"), put(queue, "sent", queue="slow", label="shop:order")
    root.go(LIST)
    root.until(lambda: rows(root) == {mail})
    root.find("#queues a[href$='queue=slow']").click()
    root.until(lambda: rows(root) == {slow})
    root.find("#changelist-filter a[href*='queue=mail']").click()
    root.until(lambda: rows(root) == {mail})
    root.find("#changelist-filter a[href*='reason=expired']").click()
    root.until(lambda: rows(root) == set())
    root.go(LIST)
    root.find("#searchbar").send_keys("shop:order", Keys.ENTER)
    root.until(lambda: rows(root) == {slow})


def test_all_is_done_by_the_keyboard_alone(root: Any, queue: Any) -> None:
    dead = put(queue)
    root.go(LIST)
    root.reach("#card-dead").send_keys(Keys.ENTER)
    root.until(lambda: "state=dead" in root.chrome.current_url)
    root.reach(f"#task-{dead}").send_keys(Keys.ENTER)
    root.until_said("dead: gave up")
    root.reach("pre.defer-error")
    root.run("document.activeElement.blur()")
    root.reach("#rerun").send_keys(Keys.ENTER)
    root.until_said("Sent again")
    assert not DeferredTask.objects.filter(state="dead").exists()


def test_the_focus_stays_while_the_page_goes_on(root: Any, queue: Any) -> None:
    dead = put(queue)
    root.go(LIST)
    root.reach(f"#task-{dead}")
    DeferredTask.objects.update(attempts=4)
    root.until_said("4 of 5")
    assert root.run("return document.activeElement.id") == f"task-{dead}"


def test_a_button_that_is_being_pressed_is_not_replaced(root: Any, queue: Any) -> None:
    root.go(page_of(put(queue)))
    root.find("#rerun")
    root.run("window.button = document.querySelector('#rerun')")
    DeferredTask.objects.update(attempts=4)  # elsewhere on the page; the form has another token each time
    root.until_said("4 of 5")
    assert root.run("return document.contains(window.button)")


def test_a_viewer_sees_all_and_can_do_nothing(viewer: Any, queue: Any) -> None:
    dead = put(queue)
    browser = viewer("view_deferredtask")
    browser.go(LIST)
    browser.until(lambda: rows(browser) == {dead})
    assert not browser.all("select[name=action] option[value=rerun]")
    browser.go(page_of(dead))
    browser.until_said("dead: gave up")
    assert buttons(browser) == ["history"]
    said = browser.run(
        "return fetch(arguments[0], {method: 'POST', body: new URLSearchParams({csrfmiddlewaretoken: 'x'})})"
        ".then((answer) => answer.status)",
        f"{LIST}{dead}/rerun/",
    )
    assert said == 403 and DeferredTask.objects.get().state == "dead"
    assert all("403" in each for each in browser.complaints())


def test_pages_speak_the_language_of_the_site(root: Any, queue: Any, settings: Any) -> None:
    settings.LANGUAGE_CODE = "de"
    dead = put(queue)
    root.go(LIST)
    for words in ("Zurückgestellte Aufgaben", "1 seit gestern", "was Aufmerksamkeit braucht", "2 von 5"):
        root.until_said(words)
    root.until(lambda: root.text("button.defer-live") == "Läuft mit")
    root.go(page_of(dead))
    root.until_said("Behebe die Ursache und sende sie noch einmal, oder verwirf sie.")


def test_pages_fit_a_narrow_window_and_are_pictured(root: Any, queue: Any) -> None:
    shown = put(queue, "dead", 4711, "DHL")
    for number in range(3):
        put(queue, "failing", 4712 + number, attempts=number + 1)
    put(queue, "pending", 5, queue="default", due=clock.now() - 300, last_error="", attempts=0)
    for name, done, failed in (("default", 12_481, 96), ("mail", 3_207, 411)):
        Minute.objects.create(pk=name, minute=clock.now() - 600, queue=name, done=done, failed=failed)
    for name, path in (("tasks", LIST), ("task", page_of(shown))):
        root.resize(WIDE)
        root.go(path)
        root.until_said("2 of 5")
        root.picture(name)
        root.prefer("dark")
        root.picture(f"{name}-dark")
        root.prefer("light")
        root.resize(NARROW)
        root.go(path)
        root.until_said("2 of 5")
        root.picture(f"{name}-narrow")
        assert root.fits()
