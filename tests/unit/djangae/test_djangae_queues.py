"""The queues of CLOUD_TASKS_QUEUES, and the local queue that manage.py starts."""

from unittest import mock

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from defer_djangae import cloud, sandbox

PLACE = {"CLOUD_TASKS_PROJECT_ID": "museum", "CLOUD_TASKS_LOCATION": "europe-west1"}


def test_a_queue_is_updated_in_what_its_entry_says():
    entries = [{"name": "default", "rate_per_second": "5", "retry_max_attempts": 9}, {"name": "slow"}]
    client = mock.Mock()
    with override_settings(**PLACE, CLOUD_TASKS_QUEUES=entries):
        with mock.patch.object(cloud, "get_cloud_tasks_client", return_value=client):
            cloud.ensure_required_queues_exist()
    first, second = [call.kwargs for call in client.update_queue.call_args_list]
    assert first["queue"].name == "projects/museum/locations/europe-west1/queues/default"
    assert first["queue"].rate_limits.max_dispatches_per_second == 5
    assert list(first["update_mask"].paths) == [
        "name", "rate_limits.max_dispatches_per_second", "retry_config.max_attempts",
    ]  # fmt: skip
    assert list(second["update_mask"].paths) == ["name"]


def test_without_queues_no_client_is_made():
    with override_settings(**PLACE), mock.patch.object(cloud, "get_cloud_tasks_client", side_effect=AssertionError):
        cloud.ensure_required_queues_exist()


def test_a_queue_with_its_full_name_is_refused():
    with override_settings(**PLACE), pytest.raises(ImproperlyConfigured, match="short name"):
        cloud.queue_of({"name": "projects/p/locations/l/queues/q"})


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
    assert command[1:] == ["-m", "defer_local", "--url", "http://127.0.0.1:8100"]
    sandbox.stop_emulators()
    assert started[-1] == "terminated"


def test_tests_and_the_reloaders_child_start_nothing(started, monkeypatch):
    monkeypatch.setattr("sys.argv", ["manage.py", "test"])
    sandbox.start_emulators(persist_data=False)
    monkeypatch.setattr("sys.argv", ["manage.py", "runserver"])
    monkeypatch.setenv("RUN_MAIN", "true")
    sandbox.start_emulators(persist_data=False)
    assert started == []


def test_the_port_that_tasks_go_to():
    assert sandbox.target_port(["manage.py", "runserver"]) == 8000
    assert sandbox.target_port(["manage.py", "runserver", "--noreload", "8001"]) == 8001
    assert sandbox.target_port(["manage.py", "runserver", "8001"], autodetect=False) == 8000
    assert sandbox.target_port(["manage.py", "migrate"]) == 8000


def test_the_project_is_said_where_nothing_said_it(started, monkeypatch):
    import os

    sandbox.enable_test_environment_variables("museum")
    assert os.environ["GOOGLE_CLOUD_PROJECT"] == "set-already"
    assert os.environ["GAE_APPLICATION"] == "e~museum"
    monkeypatch.delenv("GAE_APPLICATION")
