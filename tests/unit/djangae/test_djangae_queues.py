"""The queues of CLOUD_TASKS_QUEUES, and the local queue that manage.py starts."""

import os

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from defer_djangae import cloud, sandbox
from defer_local.cloud.server import CloudTasksServer

PLACE = {"CLOUD_TASKS_PROJECT_ID": "museum", "CLOUD_TASKS_LOCATION": "europe-west1"}


@pytest.fixture
def server(monkeypatch, tmp_path):
    """The Cloud Tasks API of the embedded queue, where a Djangae site expects its emulator."""
    monkeypatch.delenv("GAE_ENV", raising=False)
    with CloudTasksServer(file=tmp_path / "queue.sqlite3") as server:
        monkeypatch.setenv("TASKS_EMULATOR_HOST", f"127.0.0.1:{server.port}")
        yield server


def test_the_queues_are_made_and_updated_in_what_their_entries_say(server):
    entries = [{"name": "default", "rate_per_second": "5", "retry_max_attempts": 9}, {"name": "slow"}]
    client = cloud.get_cloud_tasks_client()
    with override_settings(**PLACE, CLOUD_TASKS_QUEUES=entries):
        cloud.ensure_required_queues_exist()
        made = {queue.name: queue for queue in client.list_queues(parent=cloud.cloud_tasks_parent_path())}
        default, slow = (made[cloud.cloud_tasks_queue_path(name)] for name in ("default", "slow"))
    assert (default.rate_limits.max_dispatches_per_second, default.retry_config.max_attempts) == (5, 9)
    with override_settings(**PLACE, CLOUD_TASKS_QUEUES=[{"name": "default", "rate_per_second": 7}]):
        cloud.ensure_required_queues_exist()
    updated = client.get_queue(name=default.name)
    assert (updated.rate_limits.max_dispatches_per_second, updated.retry_config.max_attempts) == (7, 9)
    assert client.get_queue(name=slow.name) == slow
    client.transport.close()


def test_without_queues_nothing_is_called():
    with override_settings(CLOUD_TASKS_LOCATION=None):
        cloud.ensure_required_queues_exist()


@pytest.mark.parametrize("entry", [{"name": "projects/p/locations/l/queues/q"}, {"name": "slow", "rate": 5}, {}])
def test_an_entry_that_is_no_queue_is_refused(entry):
    with override_settings(**PLACE, CLOUD_TASKS_QUEUES=[entry]):
        with pytest.raises(ImproperlyConfigured, match=r"CLOUD_TASKS_QUEUES: .*(short name|no setting 'rate')"):
            cloud.ensure_required_queues_exist()


def test_the_project_of_the_environment(monkeypatch):
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "from-environment")
    with override_settings(CLOUD_TASKS_LOCATION="europe-west1"):
        assert cloud.cloud_tasks_parent_path() == "projects/from-environment/locations/europe-west1"
        assert cloud.cloud_tasks_queue_path("q", parent="p") == "p/queues/q"


def test_a_client_of_the_emulator(monkeypatch):
    monkeypatch.setenv("TASKS_EMULATOR_HOST", "127.0.0.1:9")
    monkeypatch.delenv("GAE_ENV", raising=False)
    client = cloud.get_cloud_tasks_client()
    assert client.queue_path("p", "l", "q") == "projects/p/locations/l/queues/q"
    client.transport.close()


@pytest.fixture
def started(monkeypatch):
    """The commands that would have been started."""
    commands = []

    class Process:
        def __init__(self, command):
            commands.append(command)

        def terminate(self):
            commands.append("terminated")

        def wait(self, timeout=None):
            return 0

    monkeypatch.setattr("subprocess.Popen", Process)
    for name in ("RUN_MAIN", "GOOGLE_CLOUD_PROJECT", "GAE_APPLICATION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "set-already")
    monkeypatch.setenv("DEFER_LOCAL_FILE", "as it was")
    monkeypatch.delenv("DEFER_LOCAL_FILE")
    yield commands
    sandbox.stop_emulators()


def test_the_local_queue_is_started_beside_runserver_and_stopped(started, monkeypatch):
    monkeypatch.setattr("sys.argv", ["manage.py", "runserver", "0.0.0.0:8100"])
    sandbox.start_emulators(
        persist_data=False, project_id="museum", emulators=("tasks",), datastore_port=1, datastore_dir=None,
        tasks_port=2, task_target_port=None, task_queue_yaml=None, autodetect_task_port=True, storage_port=3,
        storage_dir=None,
    )  # fmt: skip
    sandbox.start_emulators(persist_data=False)
    (command,) = started
    assert command[1:] == ["-m", "defer_local", "--url", "http://127.0.0.1:8100", "--parent", str(os.getpid())]
    sandbox.stop_emulators()
    assert started[-1] == "terminated"


def test_tests_and_the_reloaders_child_start_nothing(started, monkeypatch):
    monkeypatch.setattr("sys.argv", ["manage.py", "test"])
    sandbox.start_emulators(persist_data=False)
    monkeypatch.setattr("sys.argv", ["manage.py", "runserver"])
    monkeypatch.setenv("RUN_MAIN", "true")
    sandbox.start_emulators(persist_data=False)
    assert started == []


@pytest.mark.parametrize("command", ["runserver", "shell"])
def test_every_command_means_the_queue_beside_manage_py(started, monkeypatch, tmp_path, command):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["site/manage.py", command])
    sandbox.start_emulators()
    assert os.environ["DEFER_LOCAL_FILE"] == str(tmp_path / "site" / ".defer" / "queue.sqlite3")


@pytest.mark.parametrize("command", ["migrate", "shell", "check", "runserver_plus"])
def test_only_runserver_has_a_queue(started, monkeypatch, command):
    monkeypatch.setattr("sys.argv", ["manage.py", command, "runserver"])
    sandbox.start_emulators(persist_data=False)
    assert started == []


def test_a_port_that_is_given_is_the_servers(started, monkeypatch):
    monkeypatch.setattr("sys.argv", ["manage.py", "runserver", "8001"])
    sandbox.start_emulators(task_target_port=9000)
    assert "http://127.0.0.1:9000" in started[0]
    sandbox.stop_emulators()
    sandbox.start_emulators(autodetect_task_port=False)
    assert "http://127.0.0.1:8000" in started[-1]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "127.0.0.1:8000"),
        (["--noreload", "8001"], "127.0.0.1:8001"),
        (["8001", "--nothreading"], "127.0.0.1:8001"),
        (["0.0.0.0:9000"], "127.0.0.1:9000"),
        (["0:9000"], "127.0.0.1:9000"),
        (["192.168.1.7:9000"], "192.168.1.7:9000"),
        (["[::1]:8000"], "[::1]:8000"),
        (["[::]:8003"], "[::1]:8003"),
        (["--ipv6"], "[::1]:8000"),
        (["-6", "8004"], "[::1]:8004"),
        (["localhost:8005"], "localhost:8005"),
        (["--settings", "museum.settings", "8006"], "127.0.0.1:8006"),
        (["-v", "2"], "127.0.0.1:8000"),
        (["-v2", "--settings=x", "8007"], "127.0.0.1:8007"),
        (["nonsense"], "127.0.0.1:8000"),
    ],
)
def test_where_runserver_serves(arguments, expected):
    assert sandbox.served_at(arguments) == expected


def test_the_project_is_said_where_nothing_said_it(started, monkeypatch):
    sandbox.enable_test_environment_variables("museum")
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == "set-already"
    assert os.environ["GAE_APPLICATION"] == "e~museum"
    monkeypatch.delenv("GAE_APPLICATION")
