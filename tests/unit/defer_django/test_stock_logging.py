"""What the log says under Django's own LOGGING, with DEBUG off: in a process of its own, as gunicorn would run it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SITE = """
import io, os, sys, types
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="k" * 50, USE_TZ=True, DEBUG=DEBUG, ROOT_URLCONF="site_urls", ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "defer_django"],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    SETTINGS
    DEFER={"TRANSPORT": "memory", "SWEEP_INTERVAL": 0, "AUTHENTICATORS": ["appengine"]})
django.setup()
from django.core.management import call_command
from django.urls import include, path
sys.modules["site_urls"] = types.SimpleNamespace(
    urlpatterns=[path("_ah/queue/", include("defer_gae_handler.django.urls"))])
from django.core.wsgi import get_wsgi_application
from defer_core import PermanentTaskFailure, defer
from defer_core.spi import current
from defer_django.models import DeferredTask

shop = sys.modules["shop"] = types.ModuleType("shop")
exec('''
def ship(order): raise ValueError(f"order {order} has no lines")
def refund(order): raise PermanentTaskFailure(f"order {order} was never paid")
''', dict(PermanentTaskFailure=PermanentTaskFailure, __name__="shop"), shop.__dict__)
call_command("migrate", verbosity=0)
application = get_wsgi_application()

def post(url, body, **headers):
    environ = {"REQUEST_METHOD": "POST", "PATH_INFO": url, "CONTENT_LENGTH": str(len(body)), "REMOTE_ADDR": "0.1.0.2",
               "wsgi.input": io.BytesIO(body), "SERVER_NAME": "s", "SERVER_PORT": "80", **headers}
    application(environ, lambda status, headers: print(status))

def deliver(func, *attempts, **options):
    handle = defer(func, 4711, _name="t-1", **options)
    [task] = current().the_transport.queued()
    current().the_transport.clear()
    for number in attempts:
        post(handle.url, task.message.body, HTTP_X_APPENGINE_TASKNAME="t-1", HTTP_X_APPENGINE_QUEUENAME="default",
             HTTP_X_APPENGINE_TASKRETRYCOUNT=str(number - 1))
"""
SHIP = "Task t-1 (shop:ship) failed at attempt {} of 3: ValueError('order 4711 has no lines')"


def run(*lines: str, debug: bool = False, settings: str = "") -> tuple[list[str], list[str]]:
    """What a site prints with these `settings`, as arguments, and what its log says."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("DJANGO", "DEFER"))}
    script = "\n".join([SITE.replace("DEBUG=DEBUG", f"DEBUG={debug}").replace("SETTINGS", settings), *lines])
    given = {**environ, "GAE_ENV": "standard"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=given, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.parametrize("func", ["shop.ship", "functools.partial(shop.ship)"])
def test_a_failing_task_has_a_line_an_attempt_and_its_traceback_at_the_first_and_the_last(func: str) -> None:
    printed, said = run(
        "import functools",
        f"deliver({func}, 1, 2, 3, _retry_options={{'max_attempts': 3}})",
        "print(*DeferredTask.objects.filter(attempts__gt=0).values_list('state', 'reason', 'attempts'))",
    )
    assert printed == ["500 Internal Server Error"] * 3 + ["('dead', 'gave up', 3)"]
    assert [line for line in said if line.startswith("Task")] == [SHIP.format(number) for number in (1, 2, 3)]
    assert sum(line.startswith("Traceback") for line in said) == 2
    assert said[0] == SHIP.format(1) and said[1].startswith("Traceback")
    assert said.count("ValueError: order 4711 has no lines") == 2


def test_a_dying_task_has_one_line_and_its_traceback() -> None:
    printed, said = run("deliver(shop.refund, 1)")
    assert printed == ["200 OK"]
    assert said[0].startswith("Task t-1 (shop:refund) failed for good at attempt 1: PermanentTaskFailure('order 4711")
    assert sum(line.startswith("Traceback") for line in said) == 1


def test_a_request_that_is_let_in_by_no_authenticator_has_one_line() -> None:
    printed, said = run("post('/_ah/queue/deferred', b'x')")
    assert printed == ["403 Forbidden"]
    assert len(said) == 1 and "was refused" in said[0]


def test_with_debug_djangos_own_traceback_is_the_only_one() -> None:
    printed, said = run("deliver(shop.ship, 1)", debug=True)
    assert printed == ["500 Internal Server Error"]
    assert sum("failed at attempt 1: ValueError" in line for line in said) == 1
    assert said.count("ValueError: order 4711 has no lines") == 1
