"""How Django loads the apps of a Djangae site, the checks, and a real Djangae that is taken over."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = Path(__file__).parents[3] / "packages"
START = """
import json, sys
from django.conf import settings
given = json.loads(sys.argv[1])
settings.configure(**{
    "SECRET_KEY": "k" * 60,
    "DATABASES": {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    "DEFAULT_AUTO_FIELD": "django.db.models.BigAutoField",
    "DEFER": {"TRANSPORT": "memory"},
    **given,
})
import django
django.setup()
"""


def run(code, *, path=(), fails=False, **settings):
    """Run code in a Django of its own; `path` comes before the shims. Returns what it printed, or its error."""
    import json

    kept = {key: value for key, value in os.environ.items() if not key.startswith(("DJANGO_", "DEFER_", "GAE_"))}
    kept["PYTHONPATH"] = os.pathsep.join([*map(str, path), os.environ.get("PYTHONPATH", "")]).strip(os.pathsep)
    settings.setdefault("INSTALLED_APPS", ["django.contrib.contenttypes", "djangae", "djangae.tasks"])
    command = [sys.executable, "-B", "-W", "error", "-c", START + code, json.dumps(settings)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=kept)
    assert (done.returncode != 0) == fails, done.stdout + done.stderr
    return done.stderr.strip().splitlines()[-1] if fails else done.stdout.split()


def test_the_apps_of_a_djangae_site_are_ours():
    names = "from django.apps import apps; print(*[each.name for each in apps.get_app_configs()])"
    assert run(names) == ["django.contrib.contenttypes", "defer_iteration", "defer_django"]
    tables = "from django.db import connection\nfrom django.core.management import call_command\n"
    tables += "call_command('migrate', verbosity=0); print(*connection.introspection.table_names())"
    assert {"defer_django_deferredtask", "defer_iteration_iteration"} <= set(run(tables))


def test_the_configs_have_djangaes_names():
    configs = ["django.contrib.contenttypes", "djangae.apps.DjangaeConfig", "djangae.tasks.apps.DjangaeTasksConfig"]
    assert run("import djangae.tasks.models; print('loaded')", INSTALLED_APPS=configs) == ["loaded"]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("ours,theirs", [("defer_django", "djangae.tasks"), ("defer_iteration", "djangae")])
def test_an_app_under_both_names_is_refused_with_the_remedy(ours, theirs, order):
    apps = ["django.contrib.contenttypes", "djangae", "djangae.tasks", ours]
    said = run("", INSTALLED_APPS=apps[::order], fails=True)
    assert "ImproperlyConfigured" in said
    assert f'"{theirs}"' in said
    assert f'"{ours}"' in said
    assert "take one of them out" in said


def test_what_older_libraries_have_queued_is_accepted_unless_settings_say_no():
    accepted = "from defer_core.spi import current; print(current().accept_legacy_pickles)"
    assert run(accepted) == ["True"]
    assert run(accepted, DEFER={"TRANSPORT": "memory", "ACCEPT_LEGACY_PICKLES": False}) == ["False"]


CHECKS = """
from django.core.checks import run_checks
print(*sorted(each.id for each in run_checks() if each.id.startswith("defer_djangae")))
"""


def test_the_checks_say_that_the_names_are_ours_and_what_is_missing():
    assert run(CHECKS) == ["defer_djangae.I002"]
    alone = run(CHECKS, INSTALLED_APPS=["django.contrib.contenttypes", "djangae.tasks"])
    assert alone == ["defer_djangae.E001", "defer_djangae.I002"]


def test_the_checks_say_that_there_is_nothing_to_take_over():
    hint = "from defer_djangae.checks import which_djangae; print(which_djangae()[0].hint)"
    assert "TAKE_OVER_DJANGAE" in run(hint, DEFER={"TRANSPORT": "memory", "TAKE_OVER_DJANGAE": True})
    assert run(hint) == ["None"]


# --- where the real Djangae stays -------------------------------------------------------------------------------------

OURS = ["django.contrib.contenttypes", "site_app", "djangae", "djangae.tasks", "defer_django", "defer_iteration"]


@pytest.fixture
def real(tmp_path):
    """A stand-in for the real Djangae, and an app of a site whose models import from it."""
    files = {
        "djangae/__init__.py": "",
        "djangae/tasks/__init__.py": "",
        "djangae/tasks/deferred.py": "def defer(*a): raise AssertionError('the real one')\nclass Mine: pass\n",
        "djangae/tasks/handlers.py": "def deferred_handler(request): raise AssertionError('the real one')\n",
        "djangae/contrib.py": "def left_alone(): return 'real'\n",
        "site_app/__init__.py": "",
        "site_app/models.py": "from djangae.tasks.deferred import defer, Mine\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


LOOK = """
import defer_djangae.deferred
from site_app import models
import djangae.contrib, djangae.tasks.handlers, djangae.tasks.deferred as deferred
print(defer_djangae.live() != "shim", models.defer is defer_djangae.deferred.defer, models.Mine is deferred.Mine)
print(djangae.contrib.left_alone(), djangae.tasks.handlers.deferred_handler.__module__)
print(hasattr(deferred, "defer_iteration_with_finalize"))
"""


@pytest.mark.parametrize("apps", [OURS, [*OURS, "defer_djangae"], ["defer_djangae", *OURS]])
def test_a_real_djangae_is_taken_over_before_any_model_imports_it(real, apps):
    said = run(LOOK, path=[real], INSTALLED_APPS=apps, DEFER={"TRANSPORT": "memory", "TAKE_OVER_DJANGAE": True})
    assert said == ["True", "True", "True", "real", "defer_gae_handler.django.views", "True"]


def test_a_real_djangae_is_left_alone_unless_settings_say_so(real):
    code = "from site_app import models; print(models.defer.__module__)"
    assert run(code, path=[real], INSTALLED_APPS=[*OURS, "defer_djangae"]) == ["djangae.tasks.deferred"]


def test_the_checks_say_which_one_is_live(real):
    apps, both = [*OURS, "defer_djangae"], {"TRANSPORT": "memory", "TAKE_OVER_DJANGAE": True}
    assert run(CHECKS, path=[real], INSTALLED_APPS=apps) == ["defer_djangae.W001"]
    assert run(CHECKS, path=[real], INSTALLED_APPS=apps, DEFER=both) == ["defer_djangae.I001"]


def test_a_module_that_was_imported_before_is_taken_over_too(real):
    code = (
        "import djangae.tasks.deferred as deferred\n"
        "from defer_djangae import takeover\n"
        "takeover.install(); takeover.install()\n"
        "print(deferred.defer.__module__)\n"
        "print(sum(isinstance(each, takeover.Finder) for each in sys.meta_path))"
    )
    assert run(code, path=[real], INSTALLED_APPS=["defer_django"]) == ["defer_djangae.deferred", "1"]
