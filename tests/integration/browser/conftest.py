"""Chromium, and who uses it: it looks at the tests' own site, and complains of nothing that it sees there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.contrib.auth.models import Permission, User
from django.test import Client

selenium = pytest.importorskip("selenium", reason="selenium is not installed")
from selenium.webdriver import Chrome, ChromeOptions, ChromeService  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

PROGRAMS = [shutil.which("chromium"), shutil.which("chromedriver")]
PATIENCE = 30  # seconds that a page may take
PICTURES = Path(__file__).parents[3] / "docs/images"
WIDE, NARROW = (1280, 860), (420, 900)


@pytest.fixture(scope="session")
def chrome() -> Iterator[Any]:
    """Chromium itself."""
    if None in PROGRAMS:
        pytest.skip("Chromium and its driver are not here (Debian: chromium-driver)")
    options = ChromeOptions()
    options.binary_location = PROGRAMS[0]
    for each in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars", "--lang=en"):
        options.add_argument(each)
    with Chrome(options=options, service=ChromeService(PROGRAMS[1])) as driver:
        yield driver


class Browser:
    """A person's browser on the tests' site."""

    def __init__(self, chrome: Any, url: str) -> None:
        self.chrome, self.url = chrome, url
        self.resize(WIDE)

    def log_in(self, user: User) -> None:
        """Be that person from now on."""
        client = Client()
        client.force_login(user)
        self.chrome.get(f"{self.url}/admin/login/")  # a cookie is given to the site that is shown
        self.chrome.delete_all_cookies()
        self.chrome.add_cookie({"name": settings.SESSION_COOKIE_NAME, "value": client.cookies["sessionid"].value})

    def go(self, path: str) -> None:
        """Look at a page."""
        self.chrome.get(self.url + path)

    def find(self, selector: str) -> Any:
        """Return an element by a CSS selector, once it is there."""
        return WebDriverWait(self.chrome, PATIENCE).until(lambda page: page.find_element(By.CSS_SELECTOR, selector))

    def all(self, selector: str) -> list[Any]:
        """Return the elements that a CSS selector finds now."""
        return list(self.chrome.find_elements(By.CSS_SELECTOR, selector))

    def text(self, selector: str = "main") -> str:
        """Return the text of an element, read at once: the page may replace it at any time."""
        said: str = self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector)
        return said

    def until(self, is_so: Callable[[], object], what: str = "") -> None:
        """Wait until something is so."""
        WebDriverWait(self.chrome, PATIENCE).until(lambda _: is_so(), what)

    def until_said(self, words: str, selector: str = "main") -> None:
        """Wait until an element says something."""
        self.until(lambda: words in self.text(selector), f"{selector} does not say {words!r}")

    def reach(self, selector: str) -> Any:
        """Return an element, to which the tab key has led."""
        self.find(selector)
        for _ in range(200):
            if self.run("return document.activeElement.matches(arguments[0])", selector):
                return self.chrome.switch_to.active_element
            self.chrome.switch_to.active_element.send_keys(Keys.TAB)
        raise AssertionError(f"The tab key does not lead to {selector}.")

    def run(self, script: str, *arguments: Any) -> Any:
        """Run JavaScript on the page."""
        return self.chrome.execute_script(script, *arguments)

    def resize(self, size: tuple[int, int]) -> None:
        """Look through a window of so many pixels."""
        given = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self.chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", given)

    def prefer(self, scheme: str) -> None:
        """Prefer `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def picture(self, name: str) -> None:
        """Put a picture of the page into the documents."""
        PICTURES.mkdir(exist_ok=True)
        self.chrome.save_screenshot(str(PICTURES / f"{name}.png"))

    def fits(self) -> bool:
        """Return whether the page is no wider than its window."""
        fits: bool = self.run("return document.documentElement.scrollWidth <= innerWidth")
        return fits

    def complaints(self) -> list[str]:
        """Return what the console has reported: violations of the site's policy, and errors."""
        said = [each["message"] for each in self.chrome.get_log("browser") if each["level"] == "SEVERE"]
        return [each for each in said if "favicon" not in each]


@pytest.fixture
def visitor(chrome: Any, live_server: Any) -> Iterator[Browser]:
    """A browser in which nobody has logged in, and that must have nothing to complain about in the end."""
    browser = Browser(chrome, live_server.url)
    browser.complaints()
    yield browser
    said = browser.complaints()
    browser.run("sessionStorage.clear()")
    browser.prefer("light")
    browser.go("/static/admin/css/base.css")  # nothing that goes on asking
    assert said == []


@pytest.fixture
def root(visitor: Browser) -> Browser:
    """The browser of somebody who may do everything."""
    visitor.log_in(User.objects.create_superuser("root"))
    return visitor


@pytest.fixture
def viewer(visitor: Browser) -> Callable[..., Browser]:
    """Return the browser of somebody who has these permissions alone, by their codenames."""

    def log_in(*codenames: str) -> Browser:
        user = User.objects.create_user("viewer", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
        visitor.log_in(user)
        return visitor

    return log_in
