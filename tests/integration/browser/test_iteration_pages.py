"""The pages of iterations as a person uses them, in Chromium."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row

from defer_core import config
from defer_core.spi import clock, encode
from defer_core.testing import drain, in_memory, run_one
from defer_iteration import IterationHandle, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.model.iteration import IterationState

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver.common.keys import Keys  # noqa: E402

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True, databases=["default", "other"])]
WIDE, NARROW = (1280, 860), (420, 900)
LIST = "/admin/defer_iteration/iteration/"


@pytest.fixture
def queue(transactional_db: None) -> Iterator[Any]:
    iterations.reset()
    config.reset()
    with in_memory(store="django", sweep_grace=3600.0) as transport:
        yield transport
    iterations.reset()


def page_of(handle: IterationHandle) -> str:
    return f"{LIST}{handle.id}/change/"


def begin(queue: Any, rows: int, **options: Any) -> IterationHandle:
    """An iteration whose shards have not begun."""
    Row.objects.bulk_create([Row(number=index) for index in range(rows)])
    given = {"_shards": 4, **options}
    handle = walk(Row.objects.all(), iterations.callback, iterations.finalize, **given)
    run_one(queue.queued()[0], queue)
    return handle


def went_on(handle: IterationHandle, *rows: int) -> None:
    """Let the first shards have finished so many rows, as their checkpoints would say."""
    for shard, number in zip(handle.progress().shards, rows, strict=False):
        lower = shard.range.lower or (Row.objects.order_by("pk").values_list("pk", flat=True)[0],)
        models.Shard.objects.filter(pk=f"{handle.id}-{shard.index}").update(
            rows=number, counters=json.dumps({"repriced": number}), position=encode((lower[0] + number,))
        )


def buttons(browser: Any) -> list[str]:
    """The ids of the buttons of a page."""
    found: list[str] = browser.run(
        "return [...document.querySelectorAll('[data-live=actions] button')].map((each) => each.id)"
    )
    return found


def press(browser: Any, name: str) -> None:
    browser.find(f"#act-{name}").click()


def ask(browser: Any, name: str, question: str) -> None:
    """Open what is asked before a button, and see it stay open while the page goes on."""
    browser.find(f"#ask-{name} summary").click()
    browser.until_said(question, f"#ask-{name}")


def raises(row: Any) -> None:
    raise KeyError("size")


def test_a_page_follows_an_iteration_to_its_end(root: Any, queue: Any) -> None:
    handle = begin(queue, 2000, _name="reprice")
    root.go(page_of(handle))
    root.until_said("0 of 2,000 rows")
    run_one(queue.queued()[0], queue)
    root.until_said("500 of 2,000 rows (25 %)")
    bars = [each.get_attribute("value") for each in root.all("[data-live=shards] progress")]
    assert sorted(bars) == ["0", "0", "0", "500"]
    drain(queue)
    root.until_said("2,000 of 2,000 rows (100 %)")
    root.until(lambda: root.text("[data-live=state]").strip() == "done")
    assert "passed 2,000" in " ".join(root.text().split())
    assert buttons(root) == ["act-forget"]


def test_the_rate_and_the_time_left_are_of_what_the_page_has_seen(root: Any, queue: Any) -> None:
    handle = begin(queue, 4000)
    root.go(page_of(handle))
    root.until_said("0 of 4,000 rows")
    root.run("const now = performance.now.bind(performance); performance.now = () => now() + 20_000")
    went_on(handle, 1000, 1000)
    root.until_said("2,000 of 4,000 rows")
    root.until(
        lambda: 0 < float(root.text("[data-rate]").removesuffix(" rows/s") or 0) <= 100, root.text("[data-rate]")
    )
    assert re.fullmatch(r"\d+ (sec|min)", root.text("[data-left]"))


def test_each_button_does_what_it_says(root: Any, queue: Any) -> None:
    handle = begin(queue, 8, _name="reprice")
    root.go(page_of(handle))
    press(root, "pause")
    root.until_said("Paused: it stops at its next checkpoints.")
    assert handle.progress().state is IterationState.PAUSED and buttons(root) == ["act-resume", "act-cancel"]
    press(root, "resume")
    root.until_said("Resumed: it goes on where it stopped.")
    drain(queue)
    assert len(iterations.seen) == 8
    root.until(lambda: buttons(root) == ["act-forget"])
    ask(root, "forget", "Delete all that is kept of it?")
    press(root, "forget")
    root.until_said("Forgotten.")
    assert root.chrome.current_url.endswith(LIST) and not models.Iteration.objects.exists()


def test_to_cancel_is_asked_about_in_the_page(root: Any, queue: Any) -> None:
    handle = begin(queue, 8)
    root.go(page_of(handle))
    ask(root, "cancel", "Cancel it for good?")
    assert handle.progress().state is IterationState.RUNNING
    press(root, "cancel")
    root.until_said("Cancelled.")
    assert handle.progress().state is IterationState.CANCELLED


def test_quarantined_rows_are_seen_and_called_again(root: Any, queue: Any) -> None:
    iterations.before.append(raises)
    handle = begin(queue, 3, _shards=1, _on_error="quarantine", _max_attempts=1, _delete_marker=False)
    drain(queue)
    root.go(page_of(handle))
    root.until_said("Rows set aside (3)")
    root.find("#row-1 summary").click()
    assert "KeyError: 'size'" in root.text("#row-1 pre") and "Traceback" in root.text("#row-1 pre")
    iterations.before.clear()
    press(root, "retry")
    root.until_said("The quarantined rows are called again.")
    drain(queue)
    root.until(lambda: "Rows set aside" not in root.text())
    assert len(iterations.seen) == 3


def test_what_is_open_stays_open_while_the_page_goes_on(root: Any, queue: Any) -> None:
    iterations.before.append(raises)
    handle = begin(queue, 8, _shards=2)
    for each in queue.queued():
        run_one(each, queue)
    root.go(page_of(handle))
    root.find("#shard-1 summary").click()
    assert "raised once: KeyError: 'size'" in root.text("#shard-1 summary")
    root.run("document.activeElement.blur()")
    went_on(handle, 3)
    root.until_said("3 of 8 rows")
    assert "Traceback" in root.text("#shard-1 pre")


def test_all_is_done_by_the_keyboard_alone(root: Any, queue: Any) -> None:
    handle = begin(queue, 8)
    root.go(page_of(handle))
    root.reach("#act-pause").send_keys(Keys.ENTER)
    root.until_said("Paused: it stops")
    root.reach("#ask-cancel summary").send_keys(Keys.SPACE)
    root.until(lambda: root.find("#act-cancel").is_displayed())
    root.reach("#act-cancel").send_keys(Keys.ENTER)
    root.until_said("Cancelled.")
    assert handle.progress().state is IterationState.CANCELLED


def test_a_page_that_is_paused_stays_as_it_is(root: Any, queue: Any) -> None:
    handle = begin(queue, 8)
    root.go(page_of(handle))
    root.find("button.defer-live").click()
    assert root.find("button.defer-live").get_attribute("aria-pressed") == "false"
    root.run(
        "window.asked = window.ticks = 0;"
        "const ask = fetch; window.fetch = (...given) => (window.asked += 1, ask(...given));"
        "const wait = setTimeout; window.setTimeout = (...given) => (window.ticks += 1, wait(...given));"
    )
    went_on(handle, 3)
    root.until(lambda: root.run("return window.ticks") >= 1)
    assert root.run("return window.asked") == 0 and "0 of 8 rows" in root.text()
    root.find("button.defer-live").click()
    root.until_said("3 of 8 rows")


def test_an_iteration_that_is_gone_is_said_to_be_over(root: Any, queue: Any) -> None:
    handle = begin(queue, 8)
    root.go(page_of(handle))
    root.until_said("0 of 8 rows")
    drain(queue)
    root.until_said("There is no such iteration, or it is over and nothing is kept of it.")
    assert root.chrome.current_url.endswith(LIST)
    root.complaints()  # the browser tells of the page that was not found


def test_a_viewer_sees_all_and_can_do_nothing(viewer: Any, queue: Any) -> None:
    handle = begin(queue, 8)
    browser = viewer("view_iteration")
    browser.go(page_of(handle))
    browser.until_said("0 of 8 rows")
    assert buttons(browser) == [] and len(browser.all("[data-live=shards] tbody tr")) == 4
    said = browser.run(
        "return fetch(arguments[0], {method: 'POST', body: new URLSearchParams({csrfmiddlewaretoken: 'x'})})"
        ".then((answer) => answer.status)",
        f"{LIST}{handle.id}/act/cancel/",
    )
    assert said == 403 and handle.progress().state is IterationState.RUNNING
    assert all("403" in each for each in browser.complaints())


def test_the_list_follows_all_and_is_filtered(root: Any, queue: Any) -> None:
    done, running = begin(queue, 40, _name="reprice"), None
    drain(queue)
    running = begin(queue, 0)
    root.go(LIST)
    assert [each.text for each in root.all("#result_list .defer-badge")] == ["running", "done"]
    root.until_said("40 of 40")
    run_one(queue.queued()[0], queue)
    root.until_said("1 of 4")
    root.find("#changelist-filter a[href='?state=done']").click()
    root.until(lambda: [each.text for each in root.all("#result_list .defer-badge")] == ["done"])
    root.find("#result_list tbody a").click()
    root.until_said(done.id)
    assert running.id not in root.text()


def test_pages_speak_the_language_of_the_site(root: Any, queue: Any, settings: Any) -> None:
    settings.LANGUAGE_CODE = "de"
    handle = begin(queue, 4000)
    went_on(handle, 600)
    root.go(page_of(handle))
    root.until_said("600 von 4.000 Zeilen (15 %)")
    for words in ("läuft", "Anhalten", "Shards", "Zeilen/s", "verbleiben", "wird wieder aufgerufen"):
        root.until_said(words)
    root.go(LIST)
    root.until_said("600 von 4.000")


def test_pages_fit_a_narrow_window_and_are_pictured(root: Any, queue: Any) -> None:
    def sometimes(row: Any) -> None:
        if row.number % 700 == 650:
            raises(row)

    iterations.before.append(sometimes)
    for name in ("archive-2025", "export"):
        begin(queue, 0 if Row.objects.exists() else 3000, _name=name, _on_error="quarantine", _max_attempts=1)
    drain(queue)
    handle = begin(queue, 3000, _name="reprice-2026-11", _shards=6, _on_error="quarantine", args=[3], currency="EUR")
    for each in queue.queued()[:2]:
        run_one(each, queue)
    went_on(handle, 700, 640, 450, 720, 510, 130)
    models.Iteration.objects.filter(pk=handle.id).update(created=clock.now() - 90)
    for name, path in (("iterations", LIST), ("iteration", page_of(handle))):
        root.resize(WIDE)
        root.go(path)
        root.until_said("of 6,000")
        root.picture(name)
        root.prefer("dark")
        root.picture(f"{name}-dark")
        root.prefer("light")
        root.resize(NARROW)
        root.go(path)
        root.until_said("of 6,000")
        root.picture(f"{name}-narrow")
        assert root.fits()
    root.find("#ask-cancel summary").click()
    question = root.find("#ask-cancel form").rect
    assert root.fits() and question["x"] >= 0 and question["x"] + question["width"] <= NARROW[0]
