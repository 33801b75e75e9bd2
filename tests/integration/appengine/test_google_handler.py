"""Google's handler wrapped, and what differs between deferring through the SDK and through us."""

from __future__ import annotations

import io
import json
import operator
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import services
from integration.appengine import deferrable, differences
from integration.appengine.deferrable import calls, note

import defer_core
from defer_core import configure, current_delivery
from defer_core.config import current
from defer_core.record import State

sdk, ndb, db = (
    services.library("google.appengine.ext.deferred"),
    services.library("google.appengine.ext.ndb"),
    services.library("google.appengine.ext.db"),
)
from defer_gae_handler import google  # noqa: E402 (after the check that the SDK is here)

pytestmark = pytest.mark.usefixtures("bed")


def call(app: Any, body: bytes, **environ: Any) -> tuple[int | str, bytes]:
    """Status (or the name of the exception) and content of a POST of App Engine's queue."""
    given = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/_ah/queue/deferred",
        "SERVER_SOFTWARE": "gunicorn",
        "REMOTE_ADDR": "0.1.0.2",
        "CONTENT_LENGTH": str(len(body)),
        "HTTP_X_APPENGINE_TASKNAME": "t-1",
        "HTTP_X_APPENGINE_QUEUENAME": "default",
        "HTTP_X_APPENGINE_TASKRETRYCOUNT": "2",
        "wsgi.input": io.BytesIO(body),
        **environ,
    }
    answer: list[str] = []
    try:
        chunks = app(given, lambda status, headers: answer.append(status))
    except Exception as error:
        return type(error).__name__, b""
    return int(answer[0].split()[0]), b"".join(chunks)


def note_attempt() -> None:
    calls.append(current_delivery())


# --- our handler ------------------------------------------------------------------------------------------------------


def test_the_names_are_the_sdks() -> None:
    for name in ("defer", "run", "serialize", "Handler", "application", "set_log_level"):
        assert callable(getattr(google, name))
    assert issubclass(google.Handler, sdk.Handler)
    assert google.PermanentTaskFailure is sdk.PermanentTaskFailure
    assert google.SingularTaskFailure is sdk.SingularTaskFailure


@pytest.mark.parametrize("serialize", [google.serialize, sdk.serialize], ids=["ours", "theirs"])
@pytest.mark.parametrize(
    "func, answer",
    [
        (note, (200, b"Success")),
        (deferrable.fail_once, (408, b"SingularTaskFailure")),
        (deferrable.fail_once_in_googles_way, (408, b"SingularTaskFailure")),
        (deferrable.fail_for_good, (200, b"PermanentTaskFailure")),
        (deferrable.fail_for_good_in_googles_way, (200, b"PermanentTaskFailure")),
        (deferrable.crash, ("ZeroDivisionError", b"")),
    ],
)
def test_bodies_of_both_run_in_it(serialize: Any, func: Any, answer: Any) -> None:
    assert call(google.application, serialize(func)) == answer


def test_it_runs_with_no_configuration_at_all() -> None:
    defer_core.config.reset()
    assert call(google.application, google.serialize(note, 1)) == (200, b"Success")
    assert calls == [((1,), {})]


def test_the_task_sees_its_attempt() -> None:
    call(google.application, google.serialize(note_attempt))
    assert (calls[0].task_name, calls[0].retry_count, calls[0].target) == ("t-1", 2, "appengine")


@pytest.mark.parametrize(
    "environ", [{"HTTP_X_APPENGINE_TASKNAME": None}, {"REMOTE_ADDR": "8.8.8.8"}, {"REMOTE_ADDR": "127.0.0.1"}]
)
def test_it_keeps_the_sdks_checks_and_reads_nothing_before_them(environ: dict[str, Any]) -> None:
    class Unread:
        def read(self, size: int) -> bytes:
            raise AssertionError("the body was read")

    given = {**environ, "wsgi.input": Unread()}

    def without_nones(app: Any) -> Any:
        return lambda environ, start: app({k: v for k, v in environ.items() if v is not None}, start)

    body = google.serialize(note)
    ours, theirs = (call(without_nones(app), body, **given) for app in (google.application, sdk.application))
    assert ours == theirs
    assert ours[0] == 403


def test_a_server_that_does_not_say_what_it_is_is_no_development_server() -> None:
    quiet = google.Handler()
    unsaid = {
        "REQUEST_METHOD": "POST",
        "CONTENT_LENGTH": "0",
        "HTTP_X_APPENGINE_TASKNAME": "t",
        "REMOTE_ADDR": "8.8.8.8",
    }
    assert quiet.post(unsaid)[1] == 403
    body = google.serialize(note, "quiet")
    said = {**unsaid, "REMOTE_ADDR": "0.1.0.2", "CONTENT_LENGTH": str(len(body)), "wsgi.input": io.BytesIO(body)}
    assert quiet.post(said)[1] == 200
    assert calls == [(("quiet",), {})]


def test_other_methods_and_sizes_are_answered() -> None:
    assert call(google.application, b"", REQUEST_METHOD="GET")[0] == 405
    assert call(google.application, b"", REQUEST_METHOD="GET", HTTP_X_APPENGINE_CRON="true")[0] == 200
    assert call(google.application, b"", CONTENT_LENGTH="2000000")[0] == 413
    for body, length in ((b"", "0"), (b"", ""), (b"", "5"), (sdk.serialize(len, "x")[:-1], "90")):
        assert call(google.application, body, CONTENT_LENGTH=length)[0] == 400, "the queue is to send it whole"


def test_our_frame_is_never_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    import pickle

    body, real = google.serialize(note, 1), pickle.loads
    seen: list[bytes] = []
    monkeypatch.setattr(pickle, "loads", lambda data: seen.append(data) or real(data))
    assert call(google.application, body)[0] == 200
    assert body not in seen


def test_our_plain_handler_runs_what_googles_defer_made(queue: Any) -> None:
    configure(transport="appengine", accept_legacy_pickles=True, sweep_interval=0.0)
    from defer_gae_handler import Request, handle

    for body in (sdk.serialize(note, 1), _googles_large_task(queue)):
        request = Request(
            method="POST", headers={"X-AppEngine-TaskName": "t"}, remote_addr="0.1.0.2", read=lambda _, body=body: body
        )
        assert handle(request).status == 200
    assert [len(str(args[0])) for args, _ in calls] == [1, 200_000]


def _googles_large_task(queue: Any) -> bytes:
    sdk.defer(note, "x" * 200_000)
    [task] = queue.get_filtered_tasks()
    return bytes(task.payload)


@pytest.mark.parametrize("size", [1, 300_000], ids=["inline", "stored"])
def test_run_gives_what_the_callable_returned(queue: Any, size: int) -> None:
    assert google.run(google.serialize(operator.add, 1, 2)) == 3
    assert google.run(sdk.serialize(operator.add, 1, 2)) == 3
    assert sdk.run(google.serialize(operator.add, 1, 2)) == 3
    for run in (google.run, sdk.run):
        google.defer(operator.mul, differences.noise(size), 1)
        [task] = queue.get_filtered_tasks()
        queue.DeleteTask("default", task.name)
        assert run(task.payload) == differences.noise(size)
    assert google.run(google.serialize(note)) is None


def test_the_handle_has_the_headers_of_the_sdks_task(
    bed: Any, added: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEFAULT_VERSION_HOSTNAME", "shop.appspot.com")
    for options in (
        {"_target": "worker"},
        {"_target": "v1.worker", "_headers": {"X-Colour": "red"}},
        {"_target": "v1.worker", "_headers": {"content-type": "text/plain"}},
    ):
        handle = google.defer(note, **options)
        theirs = {key.lower(): value for key, value in added.pop().headers.items()}
        ours = {key.lower(): value for key, value in handle.headers.items()}
        assert ours["host"] == f"{options['_target']}.shop.appspot.com"
        assert {**ours, "x-appengine-current-namespace": ""} == theirs
    assert google.defer(note).headers == {"Content-Type": "application/octet-stream"}


# --- theirs, unmodified -----------------------------------------------------------------------------------------------


def test_the_unmodified_application_runs_our_tasks() -> None:
    """In a process of its own, for the SDK's middleware replaces `os.environ` and the API stubs."""
    script = Path(__file__).with_name("unmodified.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == {
        "small": ["200 OK", "Success"],
        "large": ["200 OK", "Success"],
        "singular": ["408 Request Timeout", "SingularTaskFailure"],
        "permanent": ["200 OK", "PermanentTaskFailure"],
        "crash": "ZeroDivisionError",
        "from outside": [
            "403 Forbidden",
            "Detected an attempted XSRF attack. This request did not originate from Task Queue.",
        ],
        "ran": [["small"], [300000]],
        "dead": ["permanent"],
    }


# --- differential -----------------------------------------------------------------------------------------------------


def reached(added: list[Any]) -> dict[str, Any]:
    """What the SDK was asked to add, but for the payload."""
    task = added.pop()
    options = task.retry_options
    names = ("task_retry_limit", "min_backoff_seconds", "max_backoff_seconds", "task_age_limit", "max_doublings")
    return {
        "name": task.name,
        "queue": task.queue_name,
        "eta": round(task.eta_posix, -1),
        "headers": {key.lower(): value for key, value in task.headers.items()},
        "target": str(task.target),
        "url": task.url,
        "retry": options and {name: getattr(options, name) for name in names},
        "dispatch_deadline": task.dispatch_deadline_usec,
    }


@pytest.mark.parametrize("options", differences.OPTIONS.values(), ids=list(differences.OPTIONS))
def test_the_same_options_reach_the_queue(bed: Any, added: list[Any], options: dict[str, Any]) -> None:
    sdk.defer(note, **options)
    theirs = reached(added)
    bed.get_stub("taskqueue").FlushQueue(options.get("_queue", "default"))
    google.defer(note, _small_task=True, **options)
    ours = reached(added)
    if "_name" not in options:
        assert theirs.pop("name") and ours.pop("name")
    assert ours == theirs


def test_a_stored_task_has_the_name_of_its_record(added: list[Any]) -> None:
    """The documented difference: a task that leaves a record is named after it, so that it cannot be added twice."""
    handle = google.defer(note)
    assert reached(added)["name"] == handle.name == handle.record_id


@pytest.mark.parametrize("kind", differences.CALLABLES)
def test_the_same_callables_run(queue: Any, kind: str) -> None:
    func, args, kwargs = differences.CALLABLES[kind]
    ran = []
    for module in (sdk, google):
        calls.clear()
        module.defer(func, *args, **kwargs)
        [task] = queue.get_filtered_tasks()
        queue.DeleteTask("default", task.name)
        ran.append((call(google.application, task.payload), [repr(each) for each in calls]))
    assert ran[0] == ran[1]
    assert ran[0][0] == (200, b"Success")


@pytest.mark.parametrize("end", differences.ENDS)
def test_the_same_answers(end: str) -> None:
    func = differences.ENDS[end]
    theirs = call(sdk.application, sdk.serialize(func))
    assert call(google.application, google.serialize(func)) == theirs
    assert call(sdk.application, google.serialize(func)) == theirs


def test_a_permanent_failure_leaves_a_dead_letter_with_us_alone() -> None:
    """The documented difference."""
    store = current().the_store
    assert store is not None
    call(sdk.application, sdk.serialize(deferrable.fail_for_good_in_googles_way))
    assert store.count(State.DEAD) == 0
    call(google.application, google.serialize(deferrable.fail_for_good_in_googles_way))
    assert store.count(State.DEAD) == 1


def test_the_sdk_loses_transactional_for_large_tasks_and_we_do_not(queue: Any) -> None:
    """The documented difference."""

    def work(module: Any) -> None:
        module.defer(note, differences.noise(300_000), _transactional=True)
        raise ZeroDivisionError

    left = []
    for module in (sdk, google):
        with pytest.raises(ZeroDivisionError):
            db.run_in_transaction_options(db.create_transaction_options(xg=True), work, module)
        left.append(len(queue.get_filtered_tasks()))
    assert left == [1, 1]  # the SDK's one, and none of ours


def test_by_default_neither_joins_a_transaction(queue: Any) -> None:
    def work(module: Any) -> None:
        module.defer(note)
        raise ZeroDivisionError

    for module in (sdk, google):
        with pytest.raises(ZeroDivisionError):
            ndb.transaction(lambda module=module: work(module))
    assert len(queue.get_filtered_tasks()) == 2


@pytest.mark.parametrize("func", [lambda: None, "not callable"], ids=["lambda", "text"])
def test_both_refuse_what_cannot_travel(func: Any) -> None:
    for module in (sdk, google):
        with pytest.raises(Exception):  # noqa: B017 (the errors differ; ours says why)
            module.defer(func)


def test_the_queues_own_url_works_with_us_alone(added: list[Any]) -> None:
    """The SDK documents `_url=None`, and fails on it."""
    with pytest.raises(TypeError):
        sdk.defer(note, _url=None, _queue="mail")
    google.defer(note, _url=None, _queue="mail")
    assert reached(added)["url"] == "/_ah/queue/mail"
