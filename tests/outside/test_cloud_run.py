"""The configuration of a service on Cloud Run runs on a laptop as it is, beside `defer-local --grpc`."""

from __future__ import annotations

import shutil
from pathlib import Path
from urllib.request import Request, urlopen

import services
from outside.processes import Process, Processes, wait_for

EXAMPLE = Path(__file__).parents[2] / "examples" / "cloud_run"


def started(processes: Processes, folder: Path, **more: str) -> tuple[Process, Process, str]:
    """The example and the local queue, and the example's URL."""
    shutil.copy(EXAMPLE / "main.py", folder)
    port, api = services.free_port(), services.free_port()
    url = f"http://127.0.0.1:{port}"
    processes.environ |= {"SERVICE_URL": url, "TASKS_ACCOUNT": "queue@shop.iam.gserviceaccount.com"}
    processes.environ |= {"DEFER_SECRET": "a-secret-of-16-bytes", "DEFER_STORE": "sqlite"}
    processes.environ |= {
        "CLOUD_TASKS_EMULATOR_HOST": f"127.0.0.1:{api}",
        "LOCAL_ISSUER": f"http://127.0.0.1:{api + 1}",
    }
    processes.environ |= more
    queue = processes.serve(api + 1, "-m", "defer_local", "--grpc", str(api), "--queue", "default")
    site = processes.serve(port, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--threads", "8", "main:app")
    return queue, site, url


def post(url: str) -> str:
    with urlopen(Request(url, method="POST", data=b""), timeout=30) as answer:
        return str(answer.read().decode())


def test_a_task_comes_with_a_token_that_the_authenticator_takes(processes: Processes, tmp_path: Path) -> None:
    queue, site, url = started(processes, tmp_path)
    assert post(url).startswith("deferred as ")
    wait_for(lambda: "Hello, world." in site.output(), "the task", site, queue)
    wait_for(lambda: "attempt 1: 200" in queue.output(), "its answer", site, queue)
    assert "WARNING" not in queue.output()


def test_the_authenticator_stays_shut_where_google_alone_is_trusted(processes: Processes, tmp_path: Path) -> None:
    queue, site, url = started(processes, tmp_path, LOCAL_ISSUER="")
    post(url)
    wait_for(lambda: "attempt 1: 403" in queue.output(), "a refusal", site, queue)
    assert "Hello" not in site.output()


def test_queues_are_there_at_the_start(processes: Processes, tmp_path: Path) -> None:
    api, project = services.free_port(), "projects/shop/locations/europe-west1"
    names = ["--queue", "mail", "--queue", f"{project}/queues/default"]
    queue = processes.serve(api + 1, "-m", "defer_local", "--grpc", str(api), *names, GOOGLE_CLOUD_PROJECT="shop")
    from google.cloud.tasks_v2 import CloudTasksClient
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport
    from grpc import insecure_channel

    channel = insecure_channel(f"127.0.0.1:{api}")
    client = CloudTasksClient(transport=CloudTasksGrpcTransport(channel=channel))
    for parent, name in (("projects/shop/locations/local", "mail"), (project, "default")):
        assert [each.name for each in client.list_queues(parent=parent)] == [f"{parent}/queues/{name}"], queue.output()
    channel.close()


def test_a_wrong_command_line_is_refused(processes: Processes, tmp_path: Path) -> None:
    api = str(services.free_port())
    for status, *arguments in (
        (2, "--url", "http://127.0.0.1:1", "--queue", "mail"),
        (2, "--url", "http://127.0.0.1:1", "--issuer", "1"),
        (1, "--grpc", api, "--queue", "a_b"),
        (1, "--grpc", api, "--issuer", "70000"),
        (1, "--grpc", api, "--issuer", api),
    ):
        refused = processes.python("-m", "defer_local", *map(str, arguments))
        assert refused.ends() == status, refused.output()
        assert "Traceback" not in refused.output()
        assert "defer-local: " in refused.output()
