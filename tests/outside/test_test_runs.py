"""Users' test runs, in a project as `startproject` makes it: each test has its own queue, and nothing leaves that."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from outside.processes import Processes

CORE = Path(__file__).parents[2] / "packages/defer-core"
SETTINGS = {
    "nothing": "",
    "local": 'DEFER = {"TRANSPORT": "local"}',
    "cloud": 'DEFER = {"TRANSPORT": "cloud", "AUTHENTICATORS": ["oidc"]}',
    "djangae": 'CLOUD_TASKS_LOCATION = "europe-west1"',
    "appengine": 'DEFER = {"TRANSPORT": "appengine"}',
    "memory": 'DEFER = {"TRANSPORT": "memory"}',
    "datastore": 'DEFER = {"TRANSPORT": "cloud", "STORE": "ndb"}',
}
MORE = """
INSTALLED_APPS += ["defer_django"]
DATABASES["other"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE_DIR / "other.sqlite3"}
"""
TASKS = """
ran = []

def ship(order, fast=False):
    ran.append((order, fast))

def fail():
    raise ValueError("no lines")
"""
TESTS = """
import random

from django.core import mail
from django.db import transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase
from defer_core import Status, defer, defer_many
from defer_core.upkeep.sweep import sweep
from defer_core.testing import drain, in_memory
from defer_django.models import DeferredTask
from defer_django.testing import DeferredTasks
from shop.tasks import fail, ran, ship

LARGE = random.Random(0).randbytes(300_000)

class Common(DeferredTasks):
    def setUp(self):
        ran.clear()
        self.assertEqual(len(self.deferred), 0)  # those of the test before are not here

    def test_a_task_is_seen_and_run(self):
        self.assertEqual(defer(ship, 1, _name="only", fast=True).status, Status.SENT)
        self.deferred.assert_called(ship, args=[1], kwargs={"fast": True}, name="only", times=1)
        self.assertEqual(self.deferred.run(), 1)
        self.assertEqual(ran, [(1, True)])

    def test_a_name_of_another_test_is_free(self):
        self.assertEqual(defer(ship, 2, _name="only").status, Status.SENT)
        self.assertEqual(drain().done, 1)

    def test_the_outbox_may_be_emptied(self):
        defer(ship, 3)
        mail.outbox = []
        self.deferred.assert_called(ship, args=[3])

class WithDatabase(Common):
    def test_what_is_rolled_back_is_not_queued(self):
        with self.assertRaises(KeyError), transaction.atomic():
            defer(ship, 1)
            defer_many(ship, [(2,), (3,)])
            raise KeyError
        self.deferred.assert_not_called()
        self.assertEqual(drain().done, 0)

    def test_nor_is_an_inner_block_s(self):
        with transaction.atomic():
            defer(ship, "outer")
            with self.assertRaises(KeyError), transaction.atomic():
                defer(ship, "inner")
                raise KeyError
            with transaction.atomic():
                defer_many(ship, [("second",), (LARGE,)])
            self.deferred.assert_not_called()  # before the commit
        self.assertEqual([task.args[0] for task in self.deferred], ["outer", "second", LARGE])
        self.deferred.run()
        self.assertEqual([order for order, _ in ran], ["outer", "second", LARGE])

    def test_a_large_one_is_stored_and_run(self):
        defer(ship, LARGE)
        self.assertEqual(drain().done, 1)
        self.assertEqual(DeferredTask.objects.count(), 0)

    def test_in_memory_joins_transactions(self):
        with in_memory():
            with self.assertRaises(KeyError), transaction.atomic():
                defer(ship, 1)
                defer_many(ship, [(2,)])
                raise KeyError
            with transaction.atomic():
                defer(ship, 3)
            self.assertEqual(drain().done, 1)
        self.assertEqual(ran, [(3, False)])

    def test_eagerly(self):
        with self.deferred.eager():
            defer(ship, 1)
            self.assertEqual(ran, [(1, False)])
            with transaction.atomic():
                defer(ship, 2)
                self.assertEqual(ran, [(1, False)])
            with self.assertRaises(ValueError):
                defer(fail)
        self.assertEqual(ran, [(1, False), (2, False)])

    def test_the_sweep_uses_what_the_test_may_use(self):
        with self.assertNoLogs("defer", "ERROR"):
            defer(ship, 1)
            drain()
            self.assertEqual(sweep().counts["failed"], 0)

class InTestCase(WithDatabase, TestCase):
    databases = {"default"}

    def test_callbacks_may_be_captured_beside_it(self):
        with self.captureOnCommitCallbacks(execute=True):
            with transaction.atomic():
                defer(ship, 1)
        self.deferred.run()
        self.assertEqual(ran, [(1, False)])

class InTransactionTestCase(WithDatabase, TransactionTestCase):
    databases = {"default"}

class InSimpleTestCase(Common, SimpleTestCase):
    def test_the_sweep_uses_no_database(self):
        with self.assertNoLogs("defer", "ERROR"):
            defer(ship, 1)
            drain()
            self.assertEqual(sweep().counts["failed"], 0)
"""
PYTEST = """
import pytest
from django.db import transaction
from defer_core import defer
from shop.tasks import fail, ran, ship

@pytest.fixture(scope="session")
def loaded():
    return defer(ship, "of no test")

@pytest.mark.parametrize("number", range(4))
def test_a_task_is_seen_and_run(deferred, number, loaded):
    ran.clear()
    defer(ship, number, _name="only")
    deferred.assert_called(ship, args=[number], times=1)
    assert deferred.run() == 1 == len(ran)

@pytest.mark.django_db
def test_what_is_rolled_back_is_not_queued(deferred):
    with pytest.raises(KeyError), transaction.atomic():
        defer(ship, 1)
        raise KeyError
    with transaction.atomic():
        defer(ship, 2)
    assert [task.args for task in deferred] == [(2,)]
"""
PLAIN = """
import pytest
from defer_core import configure, defer, defer_many

configure(SETTINGS)

def ship(order): ...

@pytest.mark.parametrize("number", range(4))
def test_it_is_kept(deferred, number):
    assert defer(ship, number, _name="only").was_enqueued
    defer_many(ship, [(number,), (b"x" * 200_000,)])
    assert len(deferred) == 3
    assert deferred.run(ship) == 3
"""
AUTHENTICATOR = """
def test_an_application_has_its_authenticator():
    import defer_gae_handler
    assert defer_gae_handler.make_application()
"""


@pytest.fixture
def project(processes: Processes, tmp_path: Path) -> Path:
    """A new project with an app, in the test's folder."""
    assert processes.python("-m", "django", "startproject", "site_", ".").ends() == 0
    (tmp_path / "shop").mkdir()
    for name, text in {"__init__": "", "tasks": TASKS, "tests": TESTS, "test_pytest": PYTEST}.items():
        (tmp_path / "shop" / f"{name}.py").write_text(text)
    return tmp_path


def configure(project: Path, settings: str) -> None:
    file = project / "site_/settings.py"
    file.write_text(f"{file.read_text()}{MORE}{SETTINGS[settings]}\n")


def passes(processes: Processes, *command: str, **environ: str) -> str:
    """What a run of tests says, which must be that all is well."""
    process = processes.python(*command, **environ)
    status, said = process.ends(300), process.output()
    assert status == 0, said
    assert "WARNINGS" not in said and "defer.W" not in said, said
    return said


@pytest.mark.parametrize("settings", SETTINGS)
def test_manage_py_test(processes: Processes, project: Path, settings: str) -> None:
    configure(project, settings)
    if settings == "memory":  # whose records are of the database that it names
        tests = (project / "shop/tests.py").read_text()
        (project / "shop/tests.py").write_text(tests.partition("class InSimpleTestCase")[0])
    before = {path for path in project.iterdir() if path.suffix != ".log"}
    passes(processes, "manage.py", "test", "shop.tests", "--reverse" if settings == "local" else "--shuffle=1")
    passes(processes, "manage.py", "test", "shop.tests", "--parallel", "2")
    assert {path for path in project.iterdir() if path.suffix != ".log"} == before


@pytest.mark.parametrize("settings", ["nothing", "local", "cloud", "memory"])
def test_pytest_django(processes: Processes, project: Path, settings: str) -> None:
    configure(project, settings)
    (project / "pytest.ini").write_text("[pytest]\nDJANGO_SETTINGS_MODULE = site_.settings\n")
    tests = ["shop/test_pytest.py", *(["shop/tests.py"] if settings != "memory" else [])]
    if settings == "memory":
        text = (project / "shop/test_pytest.py").read_text()
        marked = text.replace("@pytest.mark.param", "@pytest.mark.django_db\n@pytest.mark.param")
        (project / "shop/test_pytest.py").write_text(marked.replace('return defer(ship, "of no test")', "return None"))
    plugin = ["-m", "pytest", "-q", "-p", "defer_pytest", "-p", "no:cacheprovider"]
    passes(processes, *plugin, *tests)
    passes(processes, *plugin, "-n", "2", *tests)
    if settings != "memory":
        passes(processes, "-m", "pytest", "-q", "-p", "no:defer_pytest", "-p", "no:cacheprovider", "shop/tests.py")
    assert not (project / ".defer").exists()


@pytest.mark.parametrize(
    "settings", ["", "transport='cloud'", "transport='local'", "transport='appengine'", "transport='memory'"]
)
def test_pytest_without_django_by_the_wheel(processes: Processes, tmp_path: Path, settings: str) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=CORE, check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(tmp_path / "wheel")
    brings_an_authenticator = "local" in settings or "appengine" in settings
    (tmp_path / "test_plain.py").write_text(
        PLAIN.replace("SETTINGS", settings) + (AUTHENTICATOR if brings_an_authenticator else "")
    )
    passes(
        processes,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:django",
        "-p",
        "no:cacheprovider",
        "test_plain.py",
        PYTHONPATH=str(tmp_path / "wheel"),
    )
    assert not (tmp_path / ".defer").exists()
