"""The Cloud Tasks server under Google's own, unmodified client, against what production was recorded to answer."""

from __future__ import annotations

import json
import threading
import warnings
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest

from defer_core import clock
from defer_core.errors import ConfigError
from defer_core.task import RetryOptions, Routing
from defer_core.transports.base import Message
from defer_local import Dispatcher, DurableQueue, LocalTransport

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from google.api_core import exceptions
    from google.cloud import tasks_v2
    from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcTransport
    from google.protobuf import duration_pb2, field_mask_pb2, timestamp_pb2

    from defer_local.cloud.server import CloudTasksServer

RECORDED: dict[str, Any] = json.loads((Path(__file__).parents[2] / "compat" / "cloud_tasks.json").read_text())
PARENT = "projects/shop/locations/europe-west1"
QUEUE = f"{PARENT}/queues/mail"
MISSING = f"{PARENT}/queues/missing"
GONE = f"{PARENT}/queues/gone"
FULL = tasks_v2.Task.View.FULL
QUICK = tasks_v2.RetryConfig(min_backoff=duration_pb2.Duration(nanos=10_000_000))


class Target(ThreadingHTTPServer):
    """A server that records requests and answers what it is told, 200 once that is used up."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Recorder)
        self.requests: list[dict[str, str]] = []
        self.bodies: list[bytes] = []
        self.methods: list[str] = []
        self.answers: list[int] = []
        self.silence = ""
        self.closing = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self.thread.start()

    def close(self) -> None:
        self.closing.set()
        self.shutdown()
        self.thread.join()
        self.server_close()


class _Recorder(BaseHTTPRequestHandler):
    server: Target

    def do_POST(self) -> None:
        self.server.methods.append(f"{self.command} {self.path}")
        self.server.requests.append({name.lower(): value for name, value in self.headers.items()})
        self.server.bodies.append(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        silence, self.server.silence = self.server.silence, ""
        if silence == "before the answer":
            self.server.closing.wait(30)
        self.send_response(self.server.answers.pop(0) if self.server.answers else 200)
        self.send_header("Content-Length", "4" if silence else "0")
        self.end_headers()
        if silence:
            self.server.closing.wait(30)

    do_PUT = do_GET = do_POST

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def target() -> Iterator[Target]:
    target = Target()
    yield target
    target.close()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite3"


@pytest.fixture
def client(file: Path) -> Iterator[tasks_v2.CloudTasksClient]:
    with CloudTasksServer(file=file) as server:
        channel = grpc.insecure_channel(f"127.0.0.1:{server.port}")
        transport = CloudTasksGrpcTransport(channel=channel)
        with tasks_v2.CloudTasksClient(transport=transport) as client:
            client.create_queue(parent=PARENT, queue=tasks_v2.Queue(name=QUEUE, retry_config=QUICK))
            yield client


@pytest.fixture
def deliver(file: Path, target: Target) -> Callable[[], None]:
    return Dispatcher(file=file, target=target.url).run_until_idle


def app_engine(name: str = "", **request: Any) -> tasks_v2.Task:
    return tasks_v2.Task(name=f"{QUEUE}/tasks/{name}" if name else "", app_engine_http_request=request)


# --- errors -----------------------------------------------------------------------------------------------------------

CALLS: dict[str, Callable[[tasks_v2.CloudTasksClient], object]] = {
    "queue/create/already-exists": lambda c: c.create_queue(parent=PARENT, queue=tasks_v2.Queue(name=QUEUE)),
    "queue/create/invalid-name": lambda c: c.create_queue(parent=PARENT, queue=tasks_v2.Queue(name=QUEUE + "_!")),
    "queue/create/recently-deleted": lambda c: c.create_queue(parent=PARENT, queue=tasks_v2.Queue(name=GONE)),
    "queue/delete/not-found": lambda c: c.delete_queue(name=MISSING),
    "queue/get/not-found": lambda c: c.get_queue(name=MISSING),
    "queue/get/recently-deleted": lambda c: c.get_queue(name=GONE),
    "queue/pause/not-found": lambda c: c.pause_queue(name=MISSING),
    "queue/purge/not-found": lambda c: c.purge_queue(name=MISSING),
    "queue/resume/not-found": lambda c: c.resume_queue(name=MISSING),
    "task/create/already-exists": lambda c: [c.create_task(parent=QUEUE, task=app_engine("twice")) for _ in range(2)],
    "task/create/invalid-name": lambda c: c.create_task(parent=QUEUE, task=app_engine("not a valid id")),
    "task/create/queue-mismatch": lambda c: c.create_task(
        parent=QUEUE, task=tasks_v2.Task(name=f"{QUEUE}-other/tasks/t", app_engine_http_request={})
    ),
    "task/create/queue-not-found": lambda c: c.create_task(parent=MISSING, task=app_engine()),
    "task/create/queue-recently-deleted": lambda c: c.create_task(parent=GONE, task=app_engine()),
    "task/create/too-large": lambda c: c.create_task(parent=QUEUE, task=app_engine(body=b"x" * 1_048_569)),
    "task/delete/not-found": lambda c: c.delete_task(name=f"{QUEUE}/tasks/missing"),
    "task/get/not-found": lambda c: c.get_task(name=f"{QUEUE}/tasks/missing"),
    "task/get/recently-deleted": lambda c: c.get_task(name=f"{QUEUE}/tasks/deleted"),
    "task/run/not-found": lambda c: c.run_task(name=f"{QUEUE}/tasks/missing"),
}


@pytest.mark.parametrize("recorded", RECORDED["errors"], ids=lambda each: each["name"])
def test_an_error_is_the_recorded_one(client: tasks_v2.CloudTasksClient, recorded: dict[str, str]) -> None:
    client.create_queue(parent=PARENT, queue=tasks_v2.Queue(name=GONE))
    client.delete_queue(name=GONE)
    client.create_task(parent=QUEUE, task=app_engine("deleted"))
    client.delete_task(name=f"{QUEUE}/tasks/deleted")
    with pytest.raises(exceptions.GoogleAPICallError) as raised:
        CALLS[recorded["name"]](client)
    assert raised.value.grpc_status_code.name == recorded["code"]
    assert raised.value.message == recorded["message"].replace("{queue_path}", QUEUE)


def test_a_name_is_refused_for_a_day_after_its_task_is_gone(client: tasks_v2.CloudTasksClient) -> None:
    client.create_task(parent=QUEUE, task=app_engine("t"))
    client.delete_task(name=f"{QUEUE}/tasks/t")
    with pytest.raises(exceptions.AlreadyExists):
        client.create_task(parent=QUEUE, task=app_engine("t"))
    later = clock.now() + 86401
    with clock.replaced(lambda: later):
        client.create_task(parent=QUEUE, task=app_engine("t"))


def test_what_is_not_supported_says_so(client: tasks_v2.CloudTasksClient) -> None:
    oauth = {"url": "https://shop.example/", "oauth_token": {"service_account_email": "a@b"}}
    calls: list[Callable[[], object]] = [
        lambda: client.get_iam_policy(request={"resource": QUEUE}),
        lambda: client.list_queues(request={"parent": PARENT, "filter": "state: PAUSED"}),
        lambda: client.create_task(parent=QUEUE, task=tasks_v2.Task(http_request=oauth)),
        lambda: client.update_queue(queue=tasks_v2.Queue(name=QUEUE, app_engine_routing_override={"service": "other"})),
        lambda: client.get_cmek_config(name=f"{PARENT}/cmekConfig"),
        lambda: client.batch_delete_tasks(request={"parent": QUEUE, "names": [f"{QUEUE}/tasks/t"]}),
    ]
    for call in calls:
        with pytest.raises(exceptions.MethodNotImplemented):
            call()


@pytest.mark.parametrize(
    "task",
    [
        tasks_v2.Task(),
        tasks_v2.Task(http_request={"url": "shop.example"}),
        tasks_v2.Task(app_engine_http_request={"relative_uri": "x"}),
        tasks_v2.Task(app_engine_http_request={"relative_uri": "/a b"}),
        tasks_v2.Task(app_engine_http_request={"relative_uri": "http://x/"}),
        tasks_v2.Task(http_request={"url": "/run"}),
        tasks_v2.Task(http_request={"url": "http://x/a\n"}),
        tasks_v2.Task(http_request={"url": "http://x:99999/"}),
        tasks_v2.Task(http_request={"url": "http://"}),
        tasks_v2.Task(http_request={"url": "http://x/", "headers": {"A b": "c"}}),
        tasks_v2.Task(http_request={"url": "http://x/", "headers": {"": "c"}}),
        tasks_v2.Task(http_request={"url": "http://x/", "headers": {"A": "b\r\nC: d"}}),
        tasks_v2.Task(app_engine_http_request={"headers": {"A": "\u0416"}}),
        tasks_v2.Task(app_engine_http_request={"http_method": "GET", "body": b"x"}),
        tasks_v2.Task(http_request={"url": "http://x/"}, dispatch_deadline=duration_pb2.Duration(seconds=14)),
        tasks_v2.Task(http_request={"url": "http://x/"}, dispatch_deadline=duration_pb2.Duration(seconds=1801)),
        tasks_v2.Task(app_engine_http_request={}, dispatch_deadline=duration_pb2.Duration(seconds=86416)),
        tasks_v2.Task(app_engine_http_request={}, schedule_time=timestamp_pb2.Timestamp(seconds=9_000_000_000)),
        tasks_v2.Task.deserialize(b"\x12\x00\x22\x0b\x08\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01"),  # ages ago
        tasks_v2.Task.deserialize(b"\x12\x02\x08\x4d"),  # HTTP method 77
        tasks_v2.Task(http_request={"url": "http://x/"}, retry_config={"max_attempts": -2}),
        tasks_v2.Task(http_request={"url": "http://x/"}, retry_config={"max_doublings": -1}),
        tasks_v2.Task(
            http_request={"url": "http://x/"}, retry_config={"min_backoff": duration_pb2.Duration(seconds=-1)}
        ),
    ],
)
def test_a_task_that_makes_no_sense_is_refused(client: tasks_v2.CloudTasksClient, task: tasks_v2.Task) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        client.create_task(parent=QUEUE, task=task)


def test_the_name_of_a_task_that_never_was_stays_free(client: tasks_v2.CloudTasksClient) -> None:
    with pytest.raises(exceptions.NotFound):
        client.delete_task(name=f"{QUEUE}/tasks/mine")
    assert client.create_task(parent=QUEUE, task=app_engine("mine")).name.endswith("/mine")


def test_a_url_is_percent_encoded_where_it_must_be(client: tasks_v2.CloudTasksClient) -> None:
    task = tasks_v2.Task(http_request={"url": "http://x/caf\xe9 noir"})
    assert client.create_task(parent=QUEUE, task=task).http_request.url == "http://x/caf%C3%A9%20noir"


# --- the size law -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["app_engine_http_request", "http_request"])
def test_the_size_law_holds_to_the_byte(client: tasks_v2.CloudTasksClient, kind: str) -> None:
    url = {"url": "http://127.0.0.1:1/"} if kind == "http_request" else {}
    limit = RECORDED["task_size"]["limit_bytes"]

    def create(size: int, name: str) -> tasks_v2.Task:
        when = timestamp_pb2.Timestamp(seconds=int(clock.now()), nanos=500_000_000)
        given = {kind: {"body": b"x" * size, **url}, "name": f"{QUEUE}/tasks/{name}", "schedule_time": when}
        request = {"parent": QUEUE, "task": tasks_v2.Task(given), "response_view": FULL}
        return client.create_task(request=request)

    probe = tasks_v2.Task.pb(create(1_000_000, "a"))
    probe.ClearField("view")
    largest = 1_000_000 + limit - probe.ByteSize()
    taken = tasks_v2.Task.pb(create(largest, "b"))
    taken.ClearField("view")
    assert taken.ByteSize() == limit
    with pytest.raises(exceptions.InvalidArgument, match="Task size too large"):
        create(largest + 1, "c")


# --- dispatch ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["appengine", "http"])
def test_the_headers_over_retries_are_the_recorded_ones(
    client: tasks_v2.CloudTasksClient, target: Target, deliver: Callable[[], None], kind: str
) -> None:
    attempts = RECORDED["dispatch_headers"][kind]
    target.answers = [each["answered"] for each in attempts]
    request = {"relative_uri": "/work"} if kind == "appengine" else {"url": f"{target.url}/work"}
    field = "app_engine_http_request" if kind == "appengine" else "http_request"
    task = client.create_task(parent=QUEUE, task=tasks_v2.Task({field: request}))
    deliver()
    eta = f"{task.schedule_time.timestamp():.6f}"
    values = {"{queue}": "mail", "{task}": task.name.rpartition("/")[2], "{eta}": eta}
    expected = [
        {name.lower(): values.get(value, value) for name, value in each["headers"].items()} for each in attempts
    ]
    told = [
        {name: value for name, value in each.items() if name.startswith(("x-", "user-agent"))}
        for each in target.requests
    ]
    assert told == expected, "these headers and no others: no secret either"


@pytest.mark.parametrize("kind", ["appengine", "http"])
@pytest.mark.parametrize("silence", ["before the answer", "in the answer's body"])
def test_an_answer_that_does_not_come_in_time_is_told_as_recorded(
    file: Path, target: Target, deliver: Callable[[], None], kind: str, silence: str
) -> None:
    target.silence = silence
    url = "/work" if kind == "appengine" else f"{target.url}/work"
    transport = LocalTransport(file=file)
    # shorter than the API takes, so that the test is short
    routing = Routing(url=url, dispatch_deadline=0.2, retry=RetryOptions(min_backoff=0.01))
    transport.send(Message(body=b"", routing=routing))
    deliver()
    _, again = target.requests
    recorded = RECORDED["timeouts"][kind]
    prefix = "x-appengine-" if kind == "appengine" else "x-cloudtasks-"
    told = (again[f"{prefix}taskpreviousresponse"], again[f"{prefix}taskretryreason"])
    assert told == (recorded["previous_response"], recorded.get("retry_reason", ""))
    assert (again[f"{prefix}taskretrycount"], again[f"{prefix}taskexecutioncount"]) == ("1", "0")
    transport.close()


def test_method_body_and_headers_arrive(
    client: tasks_v2.CloudTasksClient, target: Target, deliver: Callable[[], None]
) -> None:
    request = {"url": f"{target.url}/a?b=c", "http_method": "PUT", "body": b"\x00x", "headers": {"X-Mine": "yes"}}
    client.create_task(parent=QUEUE, task=tasks_v2.Task(http_request=request))
    deliver()
    [headers] = target.requests
    assert (target.methods, target.bodies) == (["PUT /a?b=c"], [b"\x00x"])
    assert (headers["x-mine"], headers["content-type"]) == ("yes", "application/octet-stream")


def test_a_task_counts_its_attempts_and_gives_up_as_its_queue_says(
    file: Path, client: tasks_v2.CloudTasksClient, target: Target, deliver: Callable[[], None]
) -> None:
    config = tasks_v2.RetryConfig(max_attempts=3, min_backoff=duration_pb2.Duration(nanos=10_000_000))
    client.update_queue(queue=tasks_v2.Queue(name=QUEUE, retry_config=config))
    target.answers = [500] * 9
    name = client.create_task(parent=QUEUE, task=app_engine()).name
    deliver()
    assert len(target.requests) == 3
    with pytest.raises(exceptions.NotFound, match="no longer exists"):
        client.get_task(name=name)


def test_a_task_tells_how_its_last_attempt_ended(file: Path, client: tasks_v2.CloudTasksClient, target: Target) -> None:
    slow = tasks_v2.RetryConfig(min_backoff=duration_pb2.Duration(seconds=3600))
    client.update_queue(queue=tasks_v2.Queue(name=QUEUE, retry_config=slow))
    target.answers = [503]
    made = client.create_task(parent=QUEUE, task=app_engine())
    with Dispatcher(file=file, target=target.url):
        _wait(lambda: client.get_task(name=made.name).response_count == 1)
    task = client.get_task(name=made.name)
    attempt = task.last_attempt
    assert (task.dispatch_count, attempt.response_status.code) == (1, grpc.StatusCode.UNAVAILABLE.value[0])
    assert made.schedule_time <= attempt.dispatch_time <= attempt.response_time < task.schedule_time
    assert task.first_attempt.dispatch_time == attempt.dispatch_time


def test_the_retry_config_of_a_task_goes_before_that_of_its_queue(
    client: tasks_v2.CloudTasksClient, target: Target, deliver: Callable[[], None]
) -> None:
    target.answers = [500] * 9
    task = app_engine()
    task.retry_config = tasks_v2.RetryConfig(max_attempts=2)
    client.create_task(parent=QUEUE, task=task)
    deliver()
    assert len(target.requests) == 2


def test_a_paused_queue_waits_and_run_task_does_not(
    file: Path, client: tasks_v2.CloudTasksClient, target: Target
) -> None:
    client.pause_queue(name=QUEUE)
    names = [client.create_task(parent=QUEUE, task=app_engine()).name for _ in range(2)]
    with Dispatcher(file=file, target=target.url) as dispatcher:
        client.run_task(name=names[0])
        _wait(lambda: [task.name for task in client.list_tasks(parent=QUEUE)] == names[1:])
        assert len(target.requests) == 1
        assert client.resume_queue(name=QUEUE).state == tasks_v2.Queue.State.RUNNING
        dispatcher.run_until_idle()
    assert [each["x-appengine-taskname"] for each in target.requests] == [name.split("/")[-1] for name in names]


def test_the_rate_and_the_concurrency_of_a_queue_are_kept(file: Path, client: tasks_v2.CloudTasksClient) -> None:
    limits = tasks_v2.RateLimits(max_dispatches_per_second=1, max_concurrent_dispatches=3)
    client.update_queue(queue=tasks_v2.Queue(name=QUEUE, rate_limits=limits))
    for _ in range(20):
        client.create_task(parent=QUEUE, task=app_engine())
    queue, now = DurableQueue(file), clock.now()
    assert len(queue.turn("me", [], limit=20, now=now)) == 3
    client.update_queue(queue=tasks_v2.Queue(name=QUEUE, rate_limits={"max_dispatches_per_second": 1}))
    burst = len(queue.turn("me", [], limit=20, now=now))
    assert 0 < burst < 10
    assert len(queue.turn("me", [], limit=20, now=now + 1.5)) == 1
    queue.close()


def test_a_task_to_come_can_be_run_now(client: tasks_v2.CloudTasksClient, target: Target, file: Path) -> None:
    task = app_engine("later")
    task.schedule_time = timestamp_pb2.Timestamp(seconds=int(clock.now()) + 3600)
    client.create_task(parent=QUEUE, task=task)
    with Dispatcher(file=file, target=target.url) as dispatcher:
        dispatcher.run_until_idle()
        assert target.requests == []
        client.run_task(name=f"{QUEUE}/tasks/later")
        _wait(lambda: len(target.requests) == 1)


# --- tasks and queues as resources ------------------------------------------------------------------------------------


def test_a_task_is_shown_without_its_body_unless_asked_for(client: tasks_v2.CloudTasksClient) -> None:
    made = client.create_task(parent=QUEUE, task=app_engine("t", body=b"secret", headers={"X-Mine": "yes"}))
    assert made.app_engine_http_request.body == b""
    assert made.app_engine_http_request.headers["X-Mine"] == "yes"
    assert made.app_engine_http_request.app_engine_routing.host == "shop.appspot.com"
    assert made.create_time and made.schedule_time
    full = client.get_task(request={"name": made.name, "response_view": FULL})
    assert (full.app_engine_http_request.body, full.dispatch_count) == (b"secret", 0)


def test_tasks_come_in_pages(client: tasks_v2.CloudTasksClient) -> None:
    names = [client.create_task(parent=QUEUE, task=app_engine(f"t-{number}")).name for number in range(7)]
    pages = list(client.list_tasks(request={"parent": QUEUE, "page_size": 3}).pages)
    assert [[task.name for task in page.tasks] for page in pages] == [names[:3], names[3:6], names[6:]]
    for token in ("nonsense", "9" * 30, "9" * 5000, "\u0663"):
        with pytest.raises(exceptions.InvalidArgument, match="page token"):
            client.list_tasks(request={"parent": QUEUE, "page_token": token})


def test_a_batch_succeeds_in_part_and_names_its_failures(client: tasks_v2.CloudTasksClient) -> None:
    tasks = [app_engine("a"), app_engine("b"), app_engine("a"), app_engine("not valid"), app_engine()]
    requests = [tasks_v2.CreateTaskRequest(parent=QUEUE, task=task) for task in tasks]
    operation = client.batch_create_tasks(request={"parent": QUEUE, "requests": requests, "request_id": "once"})
    response, metadata = operation.result(timeout=10), operation.metadata
    assert len(response.tasks) == 3
    assert {index: status.code for index, status in metadata.failed_requests.items()} == {2: 6, 3: 3}
    assert metadata.state == tasks_v2.BatchCreateTasksMetadata.State.PARTIALLY_SUCCEEDED
    client.batch_create_tasks(request={"parent": QUEUE, "requests": requests, "request_id": "once"})
    assert len(list(client.list_tasks(parent=QUEUE))) == 3, "a repeated request makes nothing new"
    assert client.get_operation(request={"name": operation.operation.name}).done


@pytest.mark.parametrize("count", [0, 101])
def test_a_batch_has_1_to_100_tasks_of_one_queue(client: tasks_v2.CloudTasksClient, count: int) -> None:
    requests = [tasks_v2.CreateTaskRequest(parent=QUEUE, task=app_engine()) for _ in range(count)]
    with pytest.raises(exceptions.InvalidArgument):
        client.batch_create_tasks(request={"parent": QUEUE, "requests": requests})
    other = [tasks_v2.CreateTaskRequest(parent=GONE, task=app_engine())]
    with pytest.raises(exceptions.InvalidArgument):
        client.batch_create_tasks(request={"parent": QUEUE, "requests": other})


def test_a_queue_has_the_defaults_of_the_service(client: tasks_v2.CloudTasksClient) -> None:
    queue = client.create_queue(parent=PARENT, queue=tasks_v2.Queue(name=f"{PARENT}/queues/plain"))
    assert queue == client.get_queue(name=queue.name)
    assert queue.state == tasks_v2.Queue.State.RUNNING
    assert (queue.rate_limits.max_dispatches_per_second, queue.rate_limits.max_concurrent_dispatches) == (500, 1000)
    assert (queue.retry_config.max_attempts, queue.retry_config.max_doublings) == (100, 16)
    assert queue.retry_config.max_backoff.total_seconds() == 3600


def test_a_queue_is_updated_as_far_as_the_mask_says(client: tasks_v2.CloudTasksClient) -> None:
    client.pause_queue(name=QUEUE)
    wanted = tasks_v2.Queue(name=QUEUE, rate_limits={"max_concurrent_dispatches": 5}, retry_config={"max_attempts": 9})
    mask = field_mask_pb2.FieldMask(paths=["rate_limits.max_concurrent_dispatches"])
    queue = client.update_queue(queue=wanted, update_mask=mask)
    assert (queue.rate_limits.max_concurrent_dispatches, queue.retry_config.max_attempts) == (5, 100)
    assert queue.state == tasks_v2.Queue.State.PAUSED
    assert client.update_queue(queue=wanted).retry_config.max_attempts == 9
    made = client.update_queue(queue=tasks_v2.Queue(name=f"{PARENT}/queues/new"))
    assert made == client.get_queue(name=made.name)
    with pytest.raises(exceptions.InvalidArgument):
        client.update_queue(queue=wanted, update_mask=field_mask_pb2.FieldMask(paths=["state"]))


@pytest.mark.parametrize(
    "path", ["state", "nonsense", "rate_limits.nonsense", "rate_limits.max_burst_size.nonsense", "purge_time"]
)
def test_a_mask_names_fields_that_can_be_set(client: tasks_v2.CloudTasksClient, path: str) -> None:
    mask = field_mask_pb2.FieldMask(paths=[path])
    with pytest.raises(exceptions.InvalidArgument, match=path):
        client.update_queue(queue=tasks_v2.Queue(name=QUEUE), update_mask=mask)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("rate_limits.max_dispatches_per_second", -1.0),
        ("rate_limits.max_dispatches_per_second", 501.0),
        ("rate_limits.max_dispatches_per_second", float("nan")),
        ("rate_limits.max_dispatches_per_second", float("inf")),
        ("rate_limits.max_concurrent_dispatches", -1),
        ("rate_limits.max_concurrent_dispatches", 5001),
        ("retry_config.max_attempts", -2),
        ("retry_config.max_doublings", -1),
        ("retry_config.max_backoff", duration_pb2.Duration(seconds=-1)),
    ],
)
def test_a_queue_whose_limits_make_no_sense_is_refused(
    client: tasks_v2.CloudTasksClient, field: str, value: Any
) -> None:
    part, _, name = field.partition(".")
    for queue in (QUEUE, f"{PARENT}/queues/new"):
        with pytest.raises(exceptions.InvalidArgument, match=name):
            client.update_queue(queue=tasks_v2.Queue(name=queue, **{part: {name: value}}))
    assert client.get_queue(name=QUEUE).rate_limits.max_concurrent_dispatches == 1000


def test_queues_are_listed_in_pages_of_their_location(client: tasks_v2.CloudTasksClient) -> None:
    elsewhere = "projects/shop/locations/us-central1"
    client.create_queue(parent=elsewhere, queue=tasks_v2.Queue(name=f"{elsewhere}/queues/x"))
    for number in range(3):
        client.create_queue(parent=PARENT, queue=tasks_v2.Queue(name=f"{PARENT}/queues/q-{number}"))
    client.delete_queue(name=f"{PARENT}/queues/q-1")
    pages = list(client.list_queues(request={"parent": PARENT, "page_size": 2}).pages)
    assert [[queue.name.split("/")[-1] for queue in page.queues] for page in pages] == [["mail", "q-0"], ["q-2"]]


def test_a_purge_takes_the_tasks_that_are_there(client: tasks_v2.CloudTasksClient) -> None:
    named = client.create_task(parent=QUEUE, task=app_engine("mine"))
    assert client.purge_queue(name=QUEUE).purge_time
    assert list(client.list_tasks(parent=QUEUE)) == []
    with pytest.raises(exceptions.AlreadyExists):
        client.create_task(parent=QUEUE, task=named)


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_that_is_none_is_refused(tmp_path: Path, port: int) -> None:
    with pytest.raises(ConfigError, match=f"port is {port}"):
        CloudTasksServer(file=tmp_path / "queue.sqlite3", port=port)


def _wait(condition: Callable[[], bool]) -> None:
    reached = threading.Event()
    for _ in range(1500):
        if condition():
            return
        reached.wait(0.02)
    raise AssertionError("it did not come about in 30 s")
