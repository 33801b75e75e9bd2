"""Where this process runs, in each environment that there is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import services

from defer_core import platform
from defer_core.errors import ConfigError


@pytest.fixture(autouse=True)
def _bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GAE_ENV", "K_SERVICE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def bed() -> Iterator[Any]:
    """The SDK's test bed, in which no service answers yet."""
    bed = services.library("google.appengine.ext.testbed").Testbed()
    bed.activate()
    yield bed
    bed.deactivate()


@pytest.mark.parametrize(
    ("environ", "app_engine", "cloud_run"),
    [
        ({}, "", False),
        ({"GAE_ENV": ""}, "", False),
        ({"GAE_ENV": "standard"}, "standard", False),
        ({"GAE_ENV": "flex"}, "flex", False),
        ({"GAE_ENV": "localdev"}, "", False),  # an emulator
        ({"GAE_ENV": "development"}, "", False),  # Djangae's sandbox
        ({"K_SERVICE": "shop"}, "", True),
        ({"K_SERVICE": ""}, "", False),
        ({"GAE_ENV": "localdev", "K_SERVICE": "shop"}, "", True),
    ],
    ids=str,
)
def test_each_environment(
    monkeypatch: pytest.MonkeyPatch, environ: dict[str, str], app_engine: str, cloud_run: bool
) -> None:
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    assert platform.app_engine_environment() == app_engine
    assert platform.on_app_engine() is bool(app_engine)
    assert platform.on_cloud_run() is cloud_run
    assert platform.on_google_cloud() is (cloud_run or bool(app_engine))


@pytest.mark.parametrize(("variable", "value"), [("GAE_ENV", "standard"), ("K_SERVICE", "shop")])
def test_what_is_kept_on_a_disk_is_refused_on_google_cloud(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    platform.refuse_on_google_cloud("The local queue")
    monkeypatch.setenv(variable, value)
    with pytest.raises(ConfigError, match=r"The local queue .* refused on Google Cloud"):
        platform.refuse_on_google_cloud("The local queue")


DEVELOPMENT = """
import sys
from defer_core import platform
assert not platform.on_development_server() and "django" not in sys.modules
from django.conf import settings
assert not platform.on_development_server()
settings.configure(DEBUG={debug})
print(platform.on_development_server())
"""


@pytest.mark.parametrize("debug", [True, False])
def test_a_development_server_is_django_with_debug(debug: bool) -> None:
    script = DEVELOPMENT.format(debug=debug)
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == f"{debug}\n"


def test_a_bundled_service_that_does_not_answer_names_the_remedy(bed: Any) -> None:
    assert not platform.bundled_service_answers(platform.TASK_QUEUE)
    with pytest.raises(ConfigError, match="app_engine_apis: true"):
        platform.require_bundled_service(platform.TASK_QUEUE)


def test_each_bundled_service_answers_for_itself(bed: Any) -> None:
    bed.init_taskqueue_stub()
    assert platform.bundled_service_answers(platform.TASK_QUEUE)
    assert not platform.bundled_service_answers(platform.DATASTORE)
    platform.require_bundled_service(platform.TASK_QUEUE)


def test_the_project_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in platform.PROJECTS:
        monkeypatch.delenv(name, raising=False)
    assert platform.project_of_environment() is None
    monkeypatch.setenv("CLOUD_TASKS_PROJECT_ID", "second")
    assert platform.project_of_environment() == "second"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "")
    assert platform.project_of_environment() == "second"
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "first")
    assert platform.project_of_environment() == "first"
