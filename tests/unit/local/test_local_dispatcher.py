"""The dispatcher over a WSGI application in the same process."""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from defer_core.errors import ConfigError
from defer_core.spi import Message, RetryOptions, Routing, clock
from defer_local import Dispatcher, LocalTransport, living
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


def test_what_repeats_is_one_line(
    file: Path, transport: LocalTransport, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.answers = [ValueError("a\nbug"), ValueError("a\nbug"), SystemExit(1), SystemExit(1)]
    transport.send(message(name="t", queue="mail"))
    Dispatcher(file=file, target=site).run_until_idle()
    told = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [bool(record.exc_info) for record in told] == [True, False, False, False]
    assert all(record.getMessage().isprintable() for record in caplog.records)
    assert told[1].getMessage() == "Task t in mail: attempt 2: the application raised ValueError('a\\nbug')"
    assert told[2].getMessage() == "Task t in mail: attempt 3 could not be delivered: SystemExit(1)"


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
    host = "elsewhere" if sign == "it has been silent" else living.socket.gethostname()
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
    transport.queue.beat("alive", living.socket.gethostname(), os.getppid(), clock.now() + 60)
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


def test_results_outlive_a_turn_that_fails(file: Path, transport: LocalTransport, site: Site) -> None:
    dispatcher = Dispatcher(file=file, target=site)
    turn, settled = dispatcher.queue.turn, threading.Event()

    def failing_once(owner: str, done: Any, **kwargs: Any) -> Any:
        if done and not settled.is_set():
            settled.set()
            raise sqlite3.OperationalError("database or disk is full")
        return turn(owner, done, **kwargs)

    dispatcher.queue.turn = failing_once  # type: ignore[method-assign]
    transport.send(message())
    dispatcher.run_until_idle()
    assert settled.is_set() and len(site.requests) == 1


def test_results_outlive_a_last_turn_that_fails(
    file: Path, transport: LocalTransport, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    site.go.clear()
    transport.send(message())
    dispatcher = Dispatcher(file=file, target=site)
    dispatcher.start()
    assert site.entered.wait(30)
    turn, failures = dispatcher.queue.turn, iter([sqlite3.OperationalError("database is locked")] * 2)

    def failing_at_first(*args: Any, **kwargs: Any) -> Any:
        if dispatcher._stopping.is_set() and (failure := next(failures, None)):
            raise failure
        return turn(*args, **kwargs)

    dispatcher.queue.turn = failing_at_first  # type: ignore[method-assign]
    threading.Timer(0.1, site.go.set).start()
    dispatcher.stop(timeout=30)
    assert next(failures, None) is None and transport.queue.tasks() == []
    assert "will be delivered again" not in caplog.text


def test_a_trouble_that_lasts_is_told_once(
    file: Path, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    dispatcher = Dispatcher(file=file, target=site)
    looks: list[float] = []

    def full(now: float) -> bool:
        looks.append(now)
        raise sqlite3.OperationalError("database or disk is full")

    with dispatcher:
        monkeypatch.setattr(dispatcher.queue, "has_due", full)
        until = clock.now() + 30
        while len(looks) < 3 and clock.now() < until:
            threading.Event().wait(0.05)
    assert len(looks) >= 3 and caplog.text.count("cannot be used; trying again: database or disk is full") == 1
    assert "Traceback" not in caplog.text


def test_a_file_that_cannot_be_written_at_the_start_is_named(file: Path, site: Site) -> None:
    dispatcher = Dispatcher(file=file, target=site)
    dispatcher.queue.file.connection().execute("PRAGMA query_only = ON")
    with pytest.raises(ConfigError, match=r"queue\.sqlite3 cannot be used: attempt to write"):
        dispatcher.start()


def test_a_clock_that_was_set_back_before_the_start_stops_nothing(
    file: Path, transport: LocalTransport, site: Site
) -> None:
    transport.send(message())
    back = clock.now() - 3600
    with clock.replaced(lambda: back):
        Dispatcher(file=file, target=site).run_until_idle()
    assert len(site.requests) == 1


def test_a_clock_that_is_set_back_under_a_dispatcher_stops_nothing(
    file: Path, transport: LocalTransport, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("defer_local.dispatcher.BEAT", 0.1)
    real, back = time.time, 0.0
    with clock.replaced(lambda: real() - back), Dispatcher(file=file, target=site):
        site.answers = [500]
        transport.send(message(retry=RetryOptions(min_backoff=0.5)))
        assert site.entered.wait(30)
        back = 3600.0
        until = real() + 30
        while len(site.requests) < 2 and real() < until:
            time.sleep(0.02)
    assert len(site.requests) == 2


def test_a_file_that_is_deleted_under_a_dispatcher_is_told_and_its_successor_delivered(
    file: Path, transport: LocalTransport, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    with Dispatcher(file=file, target=site) as dispatcher:
        for path in file.parent.glob("queue.sqlite3*"):
            path.unlink()
        transport.send(message())
        assert site.entered.wait(30)
        assert site.told("HTTP_X_DEFER_LOCAL_SECRET") == [transport.secret], "that of the new file"
        assert [row["id"] for row in transport.queue.dispatchers()] == [dispatcher.id]
    assert f"The file {file} was deleted or replaced" in caplog.text


def test_tasks_of_a_dispatcher_that_never_said_to_live_are_taken_over(
    file: Path, transport: LocalTransport, site: Site
) -> None:
    transport.send(message())
    assert len(transport.queue.turn("nobody", [], limit=1, now=clock.now())) == 1
    Dispatcher(file=file, target=site).run_until_idle()
    assert site.told("HTTP_X_APPENGINE_TASKRETRYCOUNT") == ["1"]


def test_that_nobody_delivers_is_said_once(
    file: Path, site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    transport = LocalTransport(file=file)
    monkeypatch.setattr("defer_local.transport.BEAT_LASTS", 0.0)
    with Dispatcher(file=file, target=site):
        transport.send(message())
    assert "No dispatcher delivers" not in caplog.text
    for _ in range(3):
        transport.send(message())
    [record] = [each for each in caplog.records if "No dispatcher delivers" in each.getMessage()]
    assert record.levelname == "WARNING" and str(file) in record.getMessage()
    assert "defer-local --url" in record.getMessage() and "manage.py defer_local" in record.getMessage()
    transport.close()


def test_a_sign_of_life_lasts_until_the_next_ones(file: Path, site: Site) -> None:
    with Dispatcher(file=file, target=site) as dispatcher:
        [row] = dispatcher.queue.dispatchers()
        left = row["alive_until"] - clock.now()
        assert living.BEAT < left <= living.BEAT_LASTS
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
    for wrong in ("127.0.0.1:8000", "ftp://x", "http://", "http://x:99999", "http://x:y", "http://[::1", 5):
        with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:8000"):
            as_target(wrong)  # type: ignore[arg-type]


SERVERS = [
    # --url, a task's URL, whether that is the server of --url
    ("http://shop.local:8000", "/work", True),
    ("http://shop.local:8000", "//shop.local:9/work", True),
    ("http://shop.local:8000", "http://shop.local:8000/work", True),
    ("http://Shop.local:8000", "HTTP://SHOP.LOCAL:8000/work?a=b", True),
    ("http://shop.local", "http://shop.local:80/work", True),
    ("https://shop.local:443", "https://shop.local/work", True),
    ("http://127.0.0.1:8000", "http://localhost:8000/work", True),
    ("http://localhost:8000", "http://127.0.0.1:8000/work", True),
    ("http://localhost:8000", "http://[::1]:8000/work", True),
    ("http://127.0.0.1:8000", "http://user:word@127.0.0.1:8000/work", True),
    ("http://127.0.0.1:8000", "http://[::1]:8000/work", False),
    ("http://127.0.0.1:8000", "http://127.0.0.1:9999/work", False),
    ("http://127.0.0.1:8000", "http://localhost:9999/work", False),
    ("http://127.0.0.1:8000", "http://localhost/work", False),
    ("http://127.0.0.1:8000", "http://127.0.0.2:8000/work", False),
    ("http://127.0.0.1:8000", "http://127.0.0.1:8000@127.0.0.3:8000/work", False),
    ("http://127.0.0.1:8000", "http://127.0.0.1.nip.io:8000/work", False),
    ("http://shop.local:8000", "http://localhost:8000/work", False),
    ("http://shop.local:8000", "https://shop.local:8000/work", False),
    ("http://shop.local", "https://shop.local/work", False),
    ("http://shop.local:8000", "http://shop.local/work", False),
    ("http://shop.local:8000", "https://elsewhere.example/work", False),
]


@pytest.mark.parametrize(("base", "url", "is_ours"), SERVERS)
def test_the_secret_goes_to_the_server_of_the_base_url_only(
    monkeypatch: pytest.MonkeyPatch, base: str, url: str, is_ours: bool
) -> None:
    asked: list[tuple[Any, dict[str, str]]] = []
    monkeypatch.setattr("defer_local.target._request", lambda to, task, headers: asked.append((to, headers)))
    for proto in (None, b"from the API"):
        HttpTarget(base).deliver(QueuedTask(queue="q", name="t", routing=Routing(url=url), proto=proto), "s3cret")
    [(to, headers), (_, of_the_api)] = asked
    assert (headers.get("X-Defer-Local-Secret") == "s3cret") is is_ours
    assert not is_ours or to.netloc == HttpTarget(base).base.netloc, "what bears the secret goes where it is meant to"
    assert "X-Defer-Local-Secret" not in of_the_api


def test_an_application_in_this_process_shares_its_secret_with_no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[dict[str, str]] = []
    monkeypatch.setattr("defer_local.target._request", lambda to, task, headers: sent.append(headers))
    for url in ("http://127.0.0.1/work", "http://localhost:80/work", "https://elsewhere.example/"):
        WsgiTarget(Site()).deliver(QueuedTask(queue="q", name="t", routing=Routing(url=url)), "s3cret")
    assert len(sent) == 3 and not any("X-Defer-Local-Secret" in headers for headers in sent)


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
