"""The admin's pages as a person uses them, in Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User
from testapp import tasks

from defer_core import PermanentTaskFailure, config, defer
from defer_core.record import State
from defer_core.testing import drain
from defer_django.models import DeferredTask

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver import Chrome, ChromeOptions, ChromeService  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

PROGRAMS = [shutil.which("chromium"), shutil.which("chromedriver")]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.skipif(None in PROGRAMS, reason="Chromium and its driver are not here (Debian: chromium-driver)"),
]
PATIENCE = 20  # seconds that a page may take


def closed(*args: Any) -> None:
    raise PermanentTaskFailure("the shop is closed")


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> Iterator[DeferredTask]:
    """A dead letter, of a task that would succeed now."""
    config.reset()
    tasks.calls.clear()
    defer(tasks.record, 1)
    with monkeypatch.context() as patched:
        patched.setattr(tasks, "record", closed)
        drain()
    yield DeferredTask.objects.get(state=State.DEAD)
    tasks.calls.clear()
    config.reset()


@pytest.fixture
def browser(live_server: Any, dead: DeferredTask) -> Iterator[Any]:
    """Chromium, logged in to the admin."""
    User.objects.create_superuser("root", password="secret")
    options = ChromeOptions()
    options.binary_location = PROGRAMS[0]
    for each in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(each)
    with Chrome(options=options, service=ChromeService(PROGRAMS[1])) as chrome:
        chrome.implicitly_wait(PATIENCE)
        chrome.get(f"{live_server.url}/admin/defer_django/deferredtask/")
        chrome.find_element(By.NAME, "username").send_keys("root")
        chrome.find_element(By.NAME, "password").send_keys("secret")
        chrome.find_element(By.CSS_SELECTOR, "input[type=submit]").click()
        yield chrome


def test_a_dead_letter_is_found_read_and_run_again(browser: Any, dead: DeferredTask) -> None:
    browser.find_element(By.LINK_TEXT, "dead").click()  # the filter
    assert "state" in browser.current_url
    browser.find_element(By.LINK_TEXT, dead.pk).click()
    traceback = browser.find_element(By.CSS_SELECTOR, "pre").text.splitlines()
    assert traceback[1].startswith("  File ") and traceback[-1].endswith("the shop is closed")
    assert str(datetime.now(UTC).year) in browser.find_element(By.CSS_SELECTOR, ".field-created").text
    assert browser.find_elements(By.CSS_SELECTOR, ".deletelink")
    browser.back()

    browser.find_element(By.NAME, "_selected_action").click()
    Select(browser.find_element(By.NAME, "action")).select_by_value("rerun")
    browser.find_element(By.CSS_SELECTOR, "button[name=index]").click()
    assert "1 re-run." in browser.find_element(By.CSS_SELECTOR, ".messagelist").text
    drain()
    assert tasks.calls == [(1,)]
    assert not DeferredTask.objects.filter(state=State.DEAD).exists()


def test_the_list_says_first_what_a_person_looks_for(browser: Any, dead: DeferredTask) -> None:
    WebDriverWait(browser, PATIENCE).until(lambda page: page.find_element(By.ID, "result_list"))
    headings = [each.text.upper() for each in browser.find_elements(By.CSS_SELECTOR, "#result_list thead th")]
    assert headings[1:5] == ["LABEL", "STATE", "REASON", "QUEUE"]
    failed = [each["message"] for each in browser.get_log("browser") if each["level"] == "SEVERE"]
    assert [each for each in failed if "favicon" not in each] == []
