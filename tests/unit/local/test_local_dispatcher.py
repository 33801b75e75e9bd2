"""The dispatcher over a WSGI application in the same process."""

from __future__ import annotations

import os
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from defer_core import clock
from defer_core.errors import ConfigError
from defer_core.task import RetryOptions, Routing
from defer_core.transports.base import Message
from defer_local import Dispatcher, LocalTransport
from defer_local import dispatcher as dispatcher_module
from defer_local.queued import QueuedTask
from defer_local.target import HttpTarget, WsgiTarget, as_target

RETRY = RetryOptions(min_backoff=0.01)


class Site:
    """A WSGI application that records requests and answers what it is told, 200 once that is used up."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers: list[int | BaseException] = []
        self.entered = threading.Event()
        self.go = threading.Event()
        self.go.set()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        self.requests.append(environ | {"body": environ["wsgi.input"].read()})
        answer = self.answers.pop(0) if self.answers else 200
        self.entered.set()
        assert self.go.wait(30)
        if isinstance(answer, BaseException):
            raise answer
        start_response(f"{answer} Text", [])
        return [b"answer"]

    def told(self, name: str) -> list[Any]:
        return [each.get(name) for each in self.requests]


@pytest.fixture
def site() -> Site:
    return Site()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "queue.sqlite3"


@pytest.fixture
def transport(file: Path) -> Iterator[LocalTransport]:
    transport = LocalTransport(file=file)
    yield transport
    transport.close()


def message(body: bytes = b"body", **routing: Any) -> Message:
    return Message(body=body, routing=Routing(**({"url": "/work?a=1", "retry": RETRY} | routing)))


def test_a_task_is_posted_with_its_body_and_the_secret(file: Path, transport: LocalTransport, site: Site) -> None:
    transport.send(message(b"\x00\xffpickle", name="t", queue="mail", headers={"X-Mine": "yes"}))
    Dispatcher(file=file, target=site).run_until_idle()
    [request] = site.requests
    assert (request["REQUEST_METHOD"], request["PATH_INFO"], request["QUERY_STRING"]) == ("POST", "/work", "a=1")
    assert (request["body"], request["CONTENT_LENGTH"]) == (b"\x00\xffpickle", "8")
    assert (request["HTTP_X_APPENGINE_TASKNAME"], request["HTTP_X_APPENGINE_QUEUENAME"]) == ("t", "mail")
    assert (request["HTTP_X_MINE"], request["HTTP_X_DEFER_LOCAL_SECRET"]) == ("yes", transport.secret)
    assert transport.queue.tasks() == []


def test_failures_and_exceptions_are_repeated(file: Path, transport: LocalTransport, site: Site) -> None:
    site.answers = [503, ValueError("the application raises"), SystemExit(1), 404, 299]
    transport.send(message())
    Dispatcher(file=file, target=site).run_until_idle()
    assert site.told("HTTP_X_APPENGINE_TASKRETRYCOUNT") == ["0", "1", "2", "3", "4"]
    assert site.told("HTTP_X_APPENGINE_TASKPREVIOUSRESPONSE") == [None, "503", "500", "0", "404"]
    assert transport.queue.tasks() == []


def test_the_queue_gives_up_when_told_to(file: Path, transport: LocalTransport, site: Site) -> None:
    site.answers = [500] * 9
    transport.send(message(retry=RetryOptions(max_attempts=3, min_backoff=0.01)))
    Dispatcher(file=file, target=site).run_until_idle()
    assert len(site.requests) == 3
    assert transport.queue.tasks() == []


def test_an_eta_is_waited_for(file: Path, transport: LocalTransport, site: Site) -> None:
    transport.send(message(eta=clock.now() + 3600))
    Dispatcher(file=file, target=site).run_until_idle()
    assert site.requests == []
    later = clock.now() + 3601
    with clock.replaced(lambda: later):
        Dispatcher(file=file, target=site).run_until_idle()
    assert len(site.requests) == 1


def test_no_more_run_at_a_time_than_allowed(file: Path, transport: LocalTransport, site: Site) -> None:
    running, most, lock = 0, 0, threading.Lock()
    both = threading.Barrier(2, timeout=30)

    def counting(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        both.wait()
        with lock:
            running -= 1
        return site(environ, start_response)

    transport.send_many([message() for _ in range(10)])
    Dispatcher(file=file, target=counting, concurrency=2).run_until_idle()
    assert (len(site.requests), most) == (10, 2)


def test_a_task_sent_while_the_dispatcher_runs_is_delivered(file: Path, transport: LocalTransport, site: Site) -> None:
    with Dispatcher(file=file, target=site):
        transport.send(message())
        assert site.entered.wait(30)


def test_stopping_gives_back_what_still_runs(file: Path, transport: LocalTransport, site: Site) -> None:
    site.go.clear()
    transport.send(message(retry=RetryOptions(max_attempts=1)))
    dispatcher = Dispatcher(file=file, target=site)
    dispatcher.start()
    assert site.entered.wait(30)
    dispatcher.stop(timeout=0.05)
    [task] = transport.queue.tasks()
    assert (task.owner, task.attempts) == (None, 1)
    site.go.set()
    dispatcher.run_until_idle()
    assert site.told("HTTP_X_APPENGINE_TASKRETRYCOUNT") == ["0", "1"]


def test_stopping_waits_for_what_ends_in_time(file: Path, transport: LocalTransport, site: Site) -> None:
    before = threading.enumerate()
    site.go.clear()
    transport.send(message())
    dispatcher = Dispatcher(file=file, target=site)
    dispatcher.start()
    assert site.entered.wait(30)
    threading.Timer(0.1, site.go.set).start()
    dispatcher.stop(timeout=30)
    assert transport.queue.tasks() == []
    assert not [each for each in threading.enumerate() if each.name.startswith("defer-local") and each not in before]


def test_two_dispatchers_never_deliver_one_task_twice(file: Path, transport: LocalTransport, site: Site) -> None:
    transport.send_many([message() for _ in range(60)])
    with Dispatcher(file=file, target=site), Dispatcher(file=file, target=site) as second:
        second.run_until_idle()
    names = site.told("HTTP_X_APPENGINE_TASKNAME")
    assert len(names) == len(set(names)) == 60


@pytest.mark.parametrize("sign", ["its process is gone", "it has been silent", "an earlier life of this process"])
def test_the_tasks_of_a_dead_dispatcher_are_taken_over(
    file: Path, transport: LocalTransport, site: Site, sign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = "elsewhere" if sign == "it has been silent" else dispatcher_module.socket.gethostname()
    alive_until = clock.now() + (-1 if sign == "it has been silent" else 60)
    pid = os.getpid() if "this process" in sign else 2**22 + 1
    transport.send(message())
    transport.queue.turn("dead", [], limit=1, now=clock.now())
    transport.queue.beat("dead", host, pid, alive_until)
    Dispatcher(file=file, target=site).run_until_idle()
    assert site.told("HTTP_X_APPENGINE_TASKRETRYCOUNT") == ["1"], "it may have run before, and is known as a repetition"


def test_the_tasks_of_a_living_dispatcher_are_not(file: Path, transport: LocalTransport, site: Site) -> None:
    transport.send(message())
    transport.queue.turn("alive", [], limit=1, now=clock.now())
    transport.queue.beat("alive", dispatcher_module.socket.gethostname(), os.getppid(), clock.now() + 60)
    with pytest.raises(TimeoutError, match="not idle"):
        Dispatcher(file=file, target=site).run_until_idle(timeout=0.2)
    assert site.requests == []


def test_a_file_that_cannot_be_used_for_a_moment_stops_nothing(
    file: Path, transport: LocalTransport, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = Dispatcher(file=file, target=site)
    turn = dispatcher.queue.turn

    def full(*args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(dispatcher.queue, "turn", turn)
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(dispatcher.queue, "turn", full)
    transport.send(message())
    dispatcher.run_until_idle()
    assert len(site.requests) == 1 and "cannot be used; trying again" in caplog.text


def test_a_sign_of_life_lasts_until_the_next_ones(file: Path, site: Site) -> None:
    with Dispatcher(file=file, target=site) as dispatcher:
        [row] = dispatcher.queue.dispatchers()
        left = row["alive_until"] - clock.now()
        assert dispatcher_module.BEAT < left <= dispatcher_module.BEAT_LASTS
    assert dispatcher.queue.dispatchers() == []


@pytest.mark.parametrize("concurrency", [0, -1])
def test_a_dispatcher_that_would_deliver_nothing_is_refused(file: Path, site: Site, concurrency: int) -> None:
    with pytest.raises(ConfigError, match=f"concurrency is {concurrency}"):
        Dispatcher(file=file, target=site, concurrency=concurrency)


def test_a_server_that_is_not_there_costs_no_attempt(file: Path, transport: LocalTransport) -> None:
    transport.send(message(retry=RetryOptions(max_attempts=1)))
    with pytest.raises(TimeoutError):
        Dispatcher(file=file, target="http://127.0.0.1:1").run_until_idle(timeout=1.0)
    [task] = transport.queue.tasks()
    assert (task.attempts, task.previous_response) == (0, None)


@pytest.mark.parametrize("variable", ["GAE_ENV", "K_SERVICE"])
def test_it_is_refused_on_google_cloud(
    file: Path, site: Site, variable: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from defer_local.__main__ import main

    monkeypatch.setenv(variable, "standard")
    with pytest.raises(ConfigError, match="refused on Google Cloud"):
        Dispatcher(file=file, target=site)
    assert main(["--url", "http://127.0.0.1:1", "--file", str(file)]) == 1
    assert "refused on Google Cloud" in capsys.readouterr().err


def test_targets_are_told_apart_and_mistakes_named() -> None:
    assert isinstance(as_target("http://127.0.0.1:8000"), HttpTarget)
    assert isinstance(as_target(Site()), WsgiTarget)
    for wrong in ("127.0.0.1:8000", "ftp://x", "http://", 5):
        with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:8000"):
            as_target(wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url, proto, told",
    [
        ("/work", None, True),
        ("http://shop.local:8000/work", None, True),
        ("http://localhost:9/work", None, True),
        ("http://shop.local:9/work", None, False),
        ("https://elsewhere.example/work", None, False),
        ("/work", b"from the API", False),
        ("http://localhost:9/work", b"from the API", False),
    ],
)
def test_the_secret_goes_to_the_server_and_this_machine_only(
    monkeypatch: pytest.MonkeyPatch, url: str, proto: bytes | None, told: bool
) -> None:
    sent: list[dict[str, str]] = []
    monkeypatch.setattr("defer_local.target._request", lambda to, task, headers: sent.append(headers))
    task = QueuedTask(queue="q", name="t", routing=Routing(url=url), proto=proto)
    HttpTarget("http://shop.local:8000").deliver(task, "s3cret")
    assert ("X-Defer-Local-Secret" in sent[0]) is told


def test_a_task_of_the_api_bears_no_secret_in_this_process_either(site: Site) -> None:
    for proto in (None, b"from the API"):
        WsgiTarget(site).deliver(QueuedTask(queue="q", name="t", proto=proto), "s3cret")
    assert site.told("HTTP_X_DEFER_LOCAL_SECRET") == ["s3cret", None]


def test_an_application_is_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from defer_local.__main__ import load_app

    (tmp_path / "a_local_site.py").write_text("def application(environ, start_response): return []\nnumber = 5\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert load_app("a_local_site") is load_app("a_local_site:application")
    for wrong in ("a_local_site:nothing", "a_local_site:number", "no_such_site:application"):
        with pytest.raises(ConfigError, match=wrong):
            load_app(wrong)
    monkeypatch.delitem(sys.modules, "a_local_site")
