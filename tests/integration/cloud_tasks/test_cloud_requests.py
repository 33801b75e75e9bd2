"""What reaches Cloud Tasks, and what its answers mean."""

from __future__ import annotations

import os
import threading
from typing import Any

import grpc
import pytest
from cloud_server import QUEUE_MISSING, CloudServer, serving
from testapp import tasks

from defer_core import defer, defer_many
from defer_core.config import configured
from defer_core.errors import (
    AmbiguousSendError,
    BulkSendError,
    ConfigError,
    QueueNotFoundError,
    TaskAlreadyExistsError,
    TaskSizeRefusedError,
    TaskTooLargeError,
    TransportError,
    TransportRefusedError,
    TransportUnavailableError,
)
from defer_core.record import State
from defer_core.send.handle import Status
from defer_core.task import RetryOptions, Routing
from defer_core.testing import MemoryStore
from defer_core.transports.base import Message
from defer_core.transports.cloud.transport import CloudTasksTransport
from defer_core.wire.envelope import decode
from defer_core.wire.frame import unwrap

QUEUE = "projects/p/locations/l/queues/default"
StatusCode = grpc.StatusCode


def message(body: bytes = b"body", **routing: Any) -> Message:
    return Message(body=body, routing=Routing(**({"url": "/run"} | routing)))


def to(server: CloudServer, **options: Any) -> CloudTasksTransport:
    given = {"project": "p", "location": "l", "emulator_host": f"127.0.0.1:{server.port}"}
    return CloudTasksTransport(**(given | options))


# --- requests ---------------------------------------------------------------------------------------------------------


def test_every_option_of_an_app_engine_task(transport: CloudTasksTransport, server: CloudServer) -> None:
    name = transport.send(
        message(
            queue="mail",
            name="n-1",
            eta=1_900_000_000.25,
            headers={"X-A": "b"},
            service="s",
            version="v",
            instance="i",
            retry=RetryOptions(max_attempts=7, max_retry_duration=60, min_backoff=0.5, max_backoff=9, max_doublings=3),
            dispatch_deadline=3600.0,
        )
    )
    [task] = server.tasks
    request = task.app_engine_http_request
    assert name == "n-1" and task.name == "projects/p/locations/l/queues/mail/tasks/n-1"
    assert (request.relative_uri, request.body, dict(request.headers)) == ("/run", b"body", {"X-A": "b"})
    address = request.app_engine_routing
    assert (address.service, address.version, address.instance) == ("s", "v", "i")
    assert task.schedule_time.ToNanoseconds() == 1_900_000_000_250_000_000
    assert task.dispatch_deadline.seconds == 3600
    retry = task.retry_config
    assert (retry.max_attempts, retry.max_doublings, retry.max_retry_duration.seconds) == (7, 3, 60)
    assert (retry.min_backoff.nanos, retry.max_backoff.seconds) == (500_000_000, 9)


def test_a_plain_task_says_nothing_that_it_need_not(transport: CloudTasksTransport, server: CloudServer) -> None:
    name = transport.send(message())
    [task] = server.tasks
    assert task.name == f"{QUEUE}/tasks/{name}"
    for field in ("schedule_time", "dispatch_deadline", "retry_config", "http_request"):
        assert not task.HasField(field)
    assert not task.app_engine_http_request.HasField("app_engine_routing")


def test_the_call_is_routed_by_its_queue(transport: CloudTasksTransport, server: CloudServer) -> None:
    transport.send(message())
    assert server.metadata[0]["x-goog-request-params"] == f"parent={QUEUE.replace('/', '%2F')}"


def test_a_task_stays_with_the_version_that_it_comes_from(server: CloudServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GAE_SERVICE", "shop")
    monkeypatch.setenv("GAE_VERSION", "v7")
    to(server).send(message())
    to(server).send(message(service="other"))
    to(server).send(message(version="v6"))
    to(server, pin_version=False).send(message())
    to(server, service="back", version="v1").send(message())
    to(server, service="back").send(message())
    pinned = [each.app_engine_http_request.app_engine_routing for each in server.tasks]
    expected = [("shop", "v7"), ("other", ""), ("shop", "v6"), ("", ""), ("back", "v1"), ("back", "")]
    assert [(each.service, each.version) for each in pinned] == expected


def test_an_absolute_url_is_an_http_target_with_a_token(server: CloudServer) -> None:
    sender = to(server, service_account_email="caller@p.iam.gserviceaccount.com")
    sender.send(message(url="https://shop.example/run?x=1", headers={"X-A": "b"}, dispatch_deadline=30.0))
    [task] = server.tasks
    request = task.http_request
    assert (request.url, request.body) == ("https://shop.example/run?x=1", b"body")
    assert dict(request.headers) == {"Content-Type": "application/octet-stream", "X-A": "b"}
    assert request.oidc_token.service_account_email == "caller@p.iam.gserviceaccount.com"
    assert request.oidc_token.audience == "https://shop.example"
    assert not task.HasField("app_engine_http_request")


def test_a_path_on_a_base_url_is_an_http_target(server: CloudServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUD_TASKS_SERVICE_ACCOUNT", "a@b")
    monkeypatch.setenv("CLOUD_TASKS_AUDIENCE", "shop")
    to(server, base_url="https://shop.run.app/").send(message())
    request = server.tasks[0].http_request
    assert (request.url, request.oidc_token.audience) == ("https://shop.run.app/run", "shop")
    assert request.oidc_token.service_account_email == "a@b"


def test_a_path_on_cloud_run_is_refused_with_the_remedy(server: CloudServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("K_SERVICE", "shop")
    with pytest.raises(TransportRefusedError, match="base_url"):
        to(server).send(message())
    assert server.calls == []


@pytest.mark.parametrize("url, seconds", [("https://x/", 1801.0), ("https://x/", 14.0), ("/x", 86416.0)])
def test_a_deadline_that_the_target_does_not_have_is_refused(
    transport: CloudTasksTransport, url: str, seconds: float
) -> None:
    with pytest.raises(TransportRefusedError, match="deadline"):
        transport.send(message(url=url, dispatch_deadline=seconds))


@pytest.mark.parametrize("many", [False, True], ids=["defer", "defer_many"])
def test_what_the_queue_would_not_take_is_refused_before_the_commit(transport: CloudTasksTransport, many: bool) -> None:
    store = MemoryStore()
    options: dict[str, Any] = {"_url": "https://x/", "_dispatch_deadline": 1801}
    with configured(transport=transport, store=store), store.transaction():
        with pytest.raises(TransportRefusedError, match="1801 s"):
            defer_many(tasks.record, [(1,)], **options) if many else defer(tasks.record, 1, **options)
    assert store.count(State.PENDING) == store.count(State.DEAD) == 0


# --- configuration ----------------------------------------------------------------------------------------------------


def test_project_and_location_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "shop")
    monkeypatch.setenv("CLOUD_TASKS_LOCATION", "europe-west1")
    assert CloudTasksTransport().target.parent == "projects/shop/locations/europe-west1"


def test_a_missing_location_says_how_to_give_one() -> None:
    with pytest.raises(ConfigError, match="CLOUD_TASKS_LOCATION"):
        CloudTasksTransport(project="p")


def test_a_missing_project_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    import google.auth
    from google.auth.exceptions import DefaultCredentialsError

    def no_credentials(**options: Any) -> None:
        raise DefaultCredentialsError("none")

    monkeypatch.setattr(google.auth, "default", no_credentials)
    with pytest.raises(ConfigError, match="GOOGLE_CLOUD_PROJECT"):
        CloudTasksTransport(location="l")


@pytest.mark.parametrize("variable", ["CLOUD_TASKS_EMULATOR_HOST", "TASKS_EMULATOR_HOST"])
def test_an_emulator_needs_neither_project_nor_token(
    server: CloudServer, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.setenv(variable, f"127.0.0.1:{server.port}")
    CloudTasksTransport().send(message())
    assert "authorization" not in server.metadata[0]


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code, details, error, remedy",
    [
        (StatusCode.NOT_FOUND, QUEUE_MISSING, QueueNotFoundError, "queues create mail --project=p --location=l"),
        (StatusCode.FAILED_PRECONDITION, QUEUE_MISSING, QueueNotFoundError, "queues create mail"),
        (StatusCode.ALREADY_EXISTS, "Requested entity already exists", TaskAlreadyExistsError, "already exists"),
        (StatusCode.INVALID_ARGUMENT, "Task size too large", TaskSizeRefusedError, "too large"),
        (StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)", TaskSizeRefusedError, "larger"),
        (StatusCode.INVALID_ARGUMENT, 'Task ID "?" can contain only letters', TransportRefusedError, "Task ID"),
        (StatusCode.PERMISSION_DENIED, "no", TransportRefusedError, "roles/cloudtasks.enqueuer"),
        (StatusCode.UNAUTHENTICATED, "no", TransportRefusedError, "roles/cloudtasks.enqueuer"),
        (StatusCode.DEADLINE_EXCEEDED, "late", AmbiguousSendError, "late"),
        (StatusCode.INTERNAL, "oops", AmbiguousSendError, "oops"),
        (StatusCode.UNKNOWN, "oops", AmbiguousSendError, "oops"),
    ],
)
def test_errors_are_ours_with_the_remedy_in_them(
    transport: CloudTasksTransport,
    server: CloudServer,
    code: grpc.StatusCode,
    details: str,
    error: type[TransportError],
    remedy: str,
) -> None:
    server.errors = [(code, details)]
    with pytest.raises(TransportError, match=remedy) as caught:
        transport.send(message(queue="mail"))
    assert type(caught.value) is error
    assert len(server.calls) == 1


@pytest.mark.parametrize("email", [None, "caller@p.iam.gserviceaccount.com"])
def test_who_may_not_send_is_told_both_roles_that_a_token_takes(server: CloudServer, email: str | None) -> None:
    server.errors = [(StatusCode.PERMISSION_DENIED, "no")]
    with pytest.raises(TransportRefusedError) as caught:
        to(server, service_account_email=email).send(message(url="https://x/"))
    assert (f"roles/iam.serviceAccountUser on {email}" in str(caught.value)) == (email is not None)
    assert ("serviceAccountUser" in str(caught.value)) == (email is not None)


@pytest.mark.parametrize("url", ["shop.example", "/run", "https://", "https://shop.example:high"])
def test_a_base_url_that_is_none_is_refused(server: CloudServer, url: str) -> None:
    with pytest.raises(ConfigError, match="base_url is"):
        to(server, base_url=url)


@pytest.mark.parametrize("code", [StatusCode.UNAVAILABLE, StatusCode.RESOURCE_EXHAUSTED])
def test_an_unavailable_queue_is_tried_again(
    transport: CloudTasksTransport, server: CloudServer, code: grpc.StatusCode
) -> None:
    server.errors = [(code, "busy")] * 3
    assert transport.send(message(name="n")) == "n"
    assert len(server.calls) == 4 and len(server.tasks) == 1


def test_a_queue_that_stays_unavailable_is_an_error(transport: CloudTasksTransport, server: CloudServer) -> None:
    server.errors = [(StatusCode.UNAVAILABLE, "busy")] * 9
    with pytest.raises(TransportUnavailableError, match="busy"):
        transport.send(message())
    assert len(server.calls) == 4


def test_a_name_that_our_own_first_try_took_is_no_error(transport: CloudTasksTransport, server: CloudServer) -> None:
    server.lose_answers = 1
    assert transport.send(message(name="n")) == "n"
    assert len(server.calls) == 2 and len(server.tasks) == 1


def test_no_answer_in_time_is_ambiguous(server: CloudServer) -> None:
    server.delay = 1.0
    with pytest.raises(AmbiguousSendError):
        to(server, timeout=0.05).send(message())


def test_nobody_there_is_unavailable() -> None:
    nobody = CloudTasksTransport(project="p", location="l", emulator_host="127.0.0.1:1")
    with pytest.raises(TransportUnavailableError):
        nobody.send(message())


# --- many -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batches", [False, True])
def test_many_tasks_keep_their_order_and_their_failures(server: CloudServer, batches: bool) -> None:
    server.batches = batches
    server.names = {f"{QUEUE}/tasks/n-3"}
    server.missing_queues = {"gone"}
    messages = [message(name=f"n-{n}") for n in range(150)]
    messages[7] = message(os.urandom(1_048_570), name="n-7")
    messages[9] = message(url="https://x/", dispatch_deadline=1.0)
    messages[20] = message(queue="gone")
    messages[30] = message(queue="mail", name="m")
    answers = to(server).send_many(messages)
    failed = {index: type(answer) for index, answer in enumerate(answers) if not isinstance(answer, str)}
    assert failed == {
        3: TaskAlreadyExistsError,
        7: TaskSizeRefusedError,
        9: TransportRefusedError,
        20: QueueNotFoundError,
    }
    assert answers[0] == "n-0" and answers[149] == "n-149" and answers[30] == "m"
    assert len(server.tasks) == 146


def test_a_thousand_tasks_are_ten_calls_where_batches_are_served(server: CloudServer) -> None:
    server.batches = True
    sender = to(server)
    answers = sender.send_many([message() for _ in range(1000)])
    assert server.calls == ["BatchCreateTasks"] * 10
    assert {f"{QUEUE}/tasks/{name}" for name in answers} == {task.name for task in server.tasks} == server.names


def test_without_batches_they_are_asked_for_once(server: CloudServer) -> None:
    sender = to(server)
    for _ in range(2):
        assert all(isinstance(answer, str) for answer in sender.send_many([message() for _ in range(150)]))
    assert server.calls.count("BatchCreateTasks") == 2 and server.calls.count("CreateTask") == 300
    assert len(server.tasks) == 300


def test_large_batches_are_split_by_bytes(server: CloudServer) -> None:
    server.batches = True
    to(server).send_many([message(os.urandom(1_000_000)) for _ in range(7)])
    assert sorted(server.calls) == ["BatchCreateTasks"] * 2 + ["CreateTask"], "3, 3 and 1 of a megabyte"
    assert len(server.tasks) == 7


@pytest.mark.parametrize("errors", [[], [StatusCode.UNAVAILABLE]], ids=["answered", "busy at first"])
def test_a_batch_that_takes_its_time_is_asked_for_until_it_is_done(
    server: CloudServer, errors: list[StatusCode]
) -> None:
    server.batches, server.polls, server.poll_errors = True, 3, errors
    server.names = {f"{QUEUE}/tasks/n-1"}
    sender = to(server)
    answers = sender.send_many([message(name=f"n-{n}") for n in range(3)])
    assert (answers[0], type(answers[1]), answers[2]) == ("n-0", TaskAlreadyExistsError, "n-2")
    assert len(server.tasks) == 2 and server.calls.count("CreateTask") == 0
    sender.send_many([message(), message()])
    assert server.calls[-2:] == ["CreateTask"] * 2, "no more batches where they do not answer at once"


@pytest.mark.parametrize(
    ("code", "details", "error"),
    [
        (StatusCode.INTERNAL, "oops", AmbiguousSendError),
        (StatusCode.DEADLINE_EXCEEDED, "late", AmbiguousSendError),
        (StatusCode.PERMISSION_DENIED, "no", TransportRefusedError),
        (StatusCode.NOT_FOUND, QUEUE_MISSING, QueueNotFoundError),
    ],
)
@pytest.mark.parametrize("where", ["batch_errors", "operation_errors"])
def test_a_batch_that_fails_as_a_whole_fails_for_each(
    server: CloudServer, where: str, code: grpc.StatusCode, details: str, error: type[TransportError]
) -> None:
    server.batches = True
    setattr(server, where, [(code, details)])
    answers = to(server).send_many([message() for _ in range(3)])
    assert [type(answer) for answer in answers] == [error] * 3
    assert server.calls == ["BatchCreateTasks"]


@pytest.mark.parametrize("code", [StatusCode.UNAVAILABLE, StatusCode.INVALID_ARGUMENT])
def test_a_batch_of_which_nothing_was_taken_goes_in_single_calls(server: CloudServer, code: grpc.StatusCode) -> None:
    server.batches, server.batch_errors = True, [(code, "not as a batch")]
    sender = to(server)
    assert all(isinstance(answer, str) for answer in sender.send_many([message() for _ in range(3)]))
    sender.send_many([message() for _ in range(3)])
    assert server.calls == ["BatchCreateTasks", *["CreateTask"] * 3, "BatchCreateTasks"]


@pytest.mark.parametrize(
    ("polls", "errors"),
    [(10**6, []), (1, [StatusCode.PERMISSION_DENIED]), (1, [StatusCode.UNAVAILABLE] * 100)],
    ids=["never done", "not allowed", "away"],
)
def test_a_batch_of_which_nobody_knows_what_became_is_ambiguous_and_not_sent_again(
    server: CloudServer, polls: int, errors: list[StatusCode]
) -> None:
    server.batches, server.polls, server.poll_errors = True, polls, list(errors)
    answers = to(server, timeout=0.5).send_many([message() for _ in range(3)])
    assert [type(answer) for answer in answers] == [AmbiguousSendError] * 3
    assert len(server.tasks) == 3 and server.calls.count("CreateTask") == 0


def test_a_batch_that_is_never_done_does_not_make_the_others_doubtful(server: CloudServer) -> None:
    server.batches, server.stuck, server.polls = True, "first", 1
    messages = [message(name="first"), *(message(name=f"n-{n}") for n in range(249))]
    answers = to(server, timeout=0.5).send_many(messages)
    assert [type(answer) for answer in answers[:100]] == [AmbiguousSendError] * 100
    assert answers[100:] == [f"n-{n}" for n in range(99, 249)]


def test_many_repeat_what_the_queue_was_not_there_for(server: CloudServer) -> None:
    server.errors = [(StatusCode.UNAVAILABLE, "busy")] * 5
    server.lose_answers = 3
    answers = to(server, batch=False).send_many([message(name=f"n-{n}") for n in range(20)])
    assert sorted(map(str, answers)) == sorted(f"n-{n}" for n in range(20))
    assert len(server.tasks) == 20


def test_defer_many_names_what_failed_and_loses_none(server: CloudServer) -> None:
    server.errors = [None, (StatusCode.PERMISSION_DENIED, "no"), None]
    store = MemoryStore()
    with configured(transport=to(server, batch=False), store=store), pytest.raises(BulkSendError) as caught:
        defer_many(tasks.record, [(n,) for n in range(3)])
    assert len(caught.value.failures) == 1 and len(caught.value.handles) == 2
    assert len(server.tasks) == 2 and len(store.records) == 2


# --- the send path over it --------------------------------------------------------------------------------------------


def test_a_task_that_the_service_finds_too_large_goes_as_a_claim(server: CloudServer) -> None:
    """The inline limit is set above the service's own."""
    store = MemoryStore()
    with configured(transport=to(server), store=store, inline_limit=1_000_000):
        server.errors = [(StatusCode.INVALID_ARGUMENT, "Task size too large")]
        handle = defer(tasks.record, os.urandom(500_000))
    assert handle.status is Status.SENT and len(server.calls) == 2
    [task] = server.tasks
    claim = decode(unwrap(task.app_engine_http_request.body)).claim_check
    assert claim is not None and claim.key in store.records


def test_a_small_task_that_the_service_finds_too_large_raises(server: CloudServer) -> None:
    server.errors = [(StatusCode.INVALID_ARGUMENT, "Task size too large")]
    with configured(transport=to(server)), pytest.raises(TaskTooLargeError):
        defer(tasks.record, 1, _small_task=True)
    assert server.tasks == []


@pytest.mark.parametrize("code", [StatusCode.DEADLINE_EXCEEDED, StatusCode.UNAVAILABLE])
def test_a_stored_task_waits_for_the_sweep(server: CloudServer, code: grpc.StatusCode) -> None:
    server.errors = [(code, "busy")] * 4
    store = MemoryStore()
    with configured(transport=to(server), store=store):
        handle = defer(tasks.record)
    assert handle.status is Status.WAITS_FOR_SWEEP
    [record] = store.records.values()
    assert (record.doubtful_since is not None) == (code is StatusCode.DEADLINE_EXCEEDED)


def test_a_missing_queue_leaves_no_record(server: CloudServer) -> None:
    server.missing_queues = {"default"}
    store = MemoryStore()
    with configured(transport=to(server), store=store), pytest.raises(QueueNotFoundError):
        defer(tasks.record)
    assert store.records == {}


def test_threads_share_the_channel(transport: CloudTasksTransport, server: CloudServer) -> None:
    transport.send(message())
    threads = [threading.Thread(target=transport.send, args=[message()]) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(server.tasks) == 21


def test_one_server_more_is_one_transport_more() -> None:
    with serving() as one, serving() as two:
        for each in (one, two):
            to(each).send(message())
        assert (len(one.tasks), len(two.tasks)) == (1, 1)
