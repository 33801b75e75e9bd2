"""A library that is not installed is named by its extra: at `configure`, at the first use and by the checks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

HIDDEN = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if any(name == each or name.startswith(each + ".") for each in {hidden!r}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing())
for name in [each for each in sys.modules if each.partition(".")[0] == "google"]:
    del sys.modules[name]  # which a .pth file has made
from defer_core import *
from defer_core.errors import MissingExtraError

def says(extra, call):
    try:
        call()
    except MissingExtraError as error:
        assert isinstance(error, ConfigError) and isinstance(error, ImportError)
        assert f"defer-core[{{extra}}]" in str(error) or f"Install {{extra}}" in str(error), error
        print("said", extra)
    else:
        raise AssertionError("nothing was said")
"""


def run(script: str, *hidden: str) -> list[str]:
    """What a program says in a process that cannot import what is hidden."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "DEFER"))}
    done = subprocess.run(
        [sys.executable, "-c", HIDDEN.format(hidden=hidden) + script],
        capture_output=True,
        text=True,
        env=environ,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize("hidden", ["google", "google.cloud", "google.cloud.tasks_v2"])
def test_the_extra_of_the_transport_is_named_by_configure(hidden: str) -> None:
    assert run('says("cloud-tasks", lambda: configure(transport="cloud"))', hidden) == ["said cloud-tasks"]


@pytest.mark.parametrize(
    ("settings", "extra"),
    [
        ("transport='appengine'", "appengine"),
        ("transport='memory', store='ndb'", "datastore"),
        ("transport='memory', store='appengine'", "appengine"),
    ],
)
def test_the_extra_of_every_adapter_is_named_by_configure(settings: str, extra: str) -> None:
    assert run(f"says({extra!r}, lambda: configure({settings}))", "google") == [f"said {extra}"]


@pytest.mark.parametrize(
    ("environ", "extra"),
    [
        ({"DEFER_TRANSPORT": "cloud"}, "cloud-tasks"),
        ({"DEFER_TRANSPORT": "defer_core.transports.cloud.transport:CloudTasksTransport"}, "cloud-tasks"),
        ({"DEFER_TRANSPORT": "appengine"}, "appengine"),
        ({"DEFER_TRANSPORT": "memory", "DEFER_STORE": "ndb"}, "datastore"),
        ({"DEFER_TRANSPORT": "memory", "DEFER_STORE": "appengine"}, "appengine"),
        ({"DEFER_TRANSPORT": "local"}, "defer-local"),
    ],
    ids=str,
)
def test_it_is_named_at_the_first_use_of_what_the_environment_says(environ: dict[str, str], extra: str) -> None:
    script = f"""
import asyncio, os
os.environ.update({environ!r})
says({extra!r}, lambda: defer(print, 1))
says({extra!r}, lambda: defer_many(print, [(1,)]))
says({extra!r}, lambda: asyncio.run(adefer(print, 1)))
"""
    assert run(script, "google", "defer_local") == [f"said {extra}"] * 3


def test_what_needs_no_datastore_is_sent_without_it() -> None:
    """Small tasks leave no record."""
    script = """
from defer_core.transports.memory import MemoryTransport
configure(transport=MemoryTransport(), store="memory", joins=["ndb"])
print(defer(print, 1, _small_task=True).status)
"""
    assert run(script, "google.cloud.ndb") == ["sent"]


def test_google_s_handler_names_its_extra() -> None:
    script = 'import importlib; says("appengine", lambda: importlib.import_module("defer_gae_handler.google"))'
    assert run(script, "google") == ["said appengine"]


@pytest.mark.parametrize(
    ("settings", "extra"),
    [
        ("DEFER={'TRANSPORT': 'cloud'}", "cloud-tasks"),
        ("CLOUD_TASKS_LOCATION='europe-west1', CLOUD_TASKS_PROJECT_ID='shop'", "cloud-tasks"),
        ("DEFER={'TRANSPORT': 'appengine'}", "appengine"),
        ("DEFER={'TRANSPORT': 'memory', 'STORE': 'ndb'}", "datastore"),
        ("DEFER={'TRANSPORT': 'memory', 'JOINS': ['ndb']}", "datastore"),
        ("DEFER={'TRANSPORT': 'local'}", "defer-local"),
        ("DEBUG=True", "defer-local"),
    ],
)
def test_a_system_check_is_an_error_that_names_it(settings: str, extra: str) -> None:
    script = f"""
import django
from django.conf import settings
from django.core.checks import Error, run_checks
settings.configure(SECRET_KEY="k" * 50, INSTALLED_APPS=["defer_django"], {settings})
django.setup()
print(*[each.msg for each in run_checks() if isinstance(each, Error)])
"""
    [said] = run(script, "google", "defer_local")
    assert extra in said
