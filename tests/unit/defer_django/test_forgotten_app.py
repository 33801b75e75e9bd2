"""A project that has settings for defer, and has forgotten the app that reads them: in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys

import django
import pytest

PROJECT = """
import asyncio, django
from importlib.util import find_spec
from django.conf import settings

settings.configure(
    SECRET_KEY="k" * 50, USE_TZ=True, DEFER={"TRANSPORT": "local"},
    INSTALLED_APPS=["django_tasks"] if find_spec("django_tasks") else [],
    TASKS={"default": {"BACKEND": "defer_django.tasks.DeferBackend"}},
)
from defer_django import adefer, defer, defer_many
from defer_core import ConfigError, Task, enqueue

def said(call):
    try:
        call()
    except ConfigError as error:
        print("INSTALLED_APPS" in str(error) and "defer_django" in str(error) and "django.setup()" in str(error))
"""


def run(*lines: str) -> list[str]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "DEFER"))}
    script = PROJECT + "\n".join(lines)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("ready", ["django.setup()", ""], ids=["set up", "not set up"])
def test_every_entry_names_the_app(ready: str) -> None:
    calls = [
        "defer(print)",
        "asyncio.run(adefer(print))",
        "defer_many(print, [()])",
        "enqueue(Task(func=print))",
    ]
    assert run(ready, *(f"said(lambda: {call})" for call in calls)) == ["True"] * 4


def test_the_backend_and_its_check_name_the_app() -> None:
    if django.VERSION < (6, 0):
        pytest.importorskip("django_tasks")
    assert run(
        "django.setup()",
        "from django.core.checks import Error, run_checks",
        "import defer_django.tasks",  # as a module with tasks does
        "print(*[(each.id, 'INSTALLED_APPS' in each.msg) for each in run_checks() if isinstance(each, Error)])",
        "import statistics",
        "task = __import__('django.tasks' if django.VERSION >= (6, 0) else 'django_tasks', fromlist=['task']).task",
        "statistics.mean = task(statistics.mean)",
        "said(lambda: statistics.mean.enqueue([1]))",
    ) == ["('defer.E005', True)", "True"]


def test_a_project_with_the_app_hears_of_what_it_lacks_alone() -> None:
    assert run(
        "settings.INSTALLED_APPS = ['defer_django']",
        "settings.DEFER = None",
        "django.setup()",
        "said(lambda: defer(print))",
    ) == ["False"]


def test_without_django_nothing_is_said_of_it() -> None:
    script = "from defer_core import defer\ntry: defer(print)\nexcept Exception as error: print(error)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "configure(transport" in done.stdout and "django.setup" not in done.stdout
