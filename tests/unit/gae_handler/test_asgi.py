"""The ASGI application and the middleware, by the protocol itself; servers are in the lane `outside`."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from unit.gae_handler.handled import calls, crash, fail_once, note

from defer_core import ConfigError, current_delivery, defer
from defer_core.run import stopping
from defer_core.testing import MemoryTransport
from defer_gae_handler import asgi

PATH = "/_ah/queue/deferred"
where: list[Any] = []


def plain() -> None:
    where.append(threading.current_thread().name)


async def coroutine() -> None:
    delivery = current_delivery()
    await asyncio.sleep(0)
    where.append((threading.current_thread(), delivery and delivery.task_name, asyncio.get_running_loop()))


async def meets(number: int) -> None:
    """Ends once three of it have begun."""
    where.append(number)
    while len(where) < 3:
        await asyncio.sleep(0.01)


async def answered(app: Any, body: bytes = b"", chunks: int = 1, **given: Any) -> tuple[int, dict[bytes, bytes], bytes]:
    scope = {
        "type": "http", "method": "POST", "path": PATH, "root_path": "", "client": ("127.0.0.1", 1234),
        "headers": [(b"x-appengine-queuename", b"default"), (b"x-appengine-taskname", b"t-1")],
    } | given  # fmt: skip
    size = -(-len(body) // chunks)
    parts = [body[at * size : (at + 1) * size] for at in range(chunks)]
    received = iter(
        {"type": "http.request", "body": part, "more_body": at < chunks - 1} for at, part in enumerate(parts)
    )
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(received, {"type": "http.disconnect"})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    await app(scope, receive, send)
    start, content = sent
    return start["status"], dict(start["headers"]), content["body"]


def call(app: Any, *args: Any, **given: Any) -> tuple[int, dict[bytes, bytes], bytes]:
    return asyncio.run(answered(app, *args, **given))


@pytest.fixture
def app(app_engine: None, queue: MemoryTransport) -> Any:
    where.clear()
    return asgi.make_application(signals=False)


def body(queue: MemoryTransport, func: Any, *args: Any) -> bytes:
    defer(func, *args)
    return queue.queued()[-1].message.body


@pytest.mark.parametrize("chunks", [1, 2, 7])
def test_a_task_runs(app: Any, queue: MemoryTransport, chunks: int) -> None:
    status, headers, content = call(app, body(queue, note, 1), chunks)
    assert (status, content, calls) == (200, b"done", [(1,)])
    assert headers[b"content-length"] == b"4"


@pytest.mark.parametrize(("func", "status"), [(fail_once, 408), (crash, 500)])
def test_failures_are_answered(app: Any, queue: MemoryTransport, func: Any, status: int) -> None:
    assert call(app, body(queue, func))[0] == status


def test_a_function_runs_in_a_thread_and_a_coroutine_on_the_server_s_loop(app: Any, queue: MemoryTransport) -> None:
    bodies = [body(queue, plain), body(queue, coroutine)]

    async def served() -> Any:
        for each in bodies:
            assert (await answered(app, each))[0] == 200
        return asyncio.get_running_loop()

    loop = asyncio.run(served())
    assert where[0].startswith("defer-task")
    assert where[1] == (threading.main_thread(), "t-1", loop)


def test_coroutines_run_beside_each_other(app: Any, queue: MemoryTransport) -> None:
    bodies = [body(queue, meets, number) for number in range(3)]

    async def served() -> Any:
        return await asyncio.wait_for(asyncio.gather(*(answered(app, each) for each in bodies)), 30)

    assert [status for status, _, _ in asyncio.run(served())] == [200] * 3


def test_no_more_run_at_a_time_than_was_said(app_engine: None, queue: MemoryTransport) -> None:
    app = asgi.make_application(concurrency=1, signals=False)
    bodies = [body(queue, plain) for number in range(3)]

    async def served() -> Any:
        return await asyncio.gather(*(answered(app, each) for each in bodies))

    where.clear()
    asyncio.run(served())
    assert len(where) == 3 and len(set(where)) == 1


def test_strangers_are_refused_and_their_bodies_not_read(app: Any) -> None:
    async def never() -> Any:
        raise AssertionError("the body was read")

    async def served() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": PATH, "headers": [], "client": None}
        await app(scope, never, send)
        return sent

    assert asyncio.run(served())[0]["status"] == 403


def test_what_is_too_large_or_cut_off_is_not_run(app: Any, queue: MemoryTransport) -> None:
    task = body(queue, note, 1)
    with_length = [(b"x-appengine-taskname", b"t"), (b"content-length", str(len(task) + 5).encode())]
    assert call(app, task, headers=with_length)[0] == 400
    assert call(app, b"x" * 2_000_000, 20)[0] == 413
    assert calls == []


def test_methods_and_paths(app: Any, queue: MemoryTransport) -> None:
    assert call(app, method="GET")[:1] == (405,)
    assert call(app, path="/elsewhere")[0] == 404
    assert call(app, body(queue, note, 1), path="/queue/deferred", root_path="/_ah")[0] == 200
    assert call(app, body(queue, note, 2), path=PATH, root_path="/_ah")[0] == 200
    other = asgi.make_application("/tasks", signals=False)
    assert call(other, path=PATH)[0] == 404 and call(other, body(queue, note, 3), path="/tasks")[0] == 200


def test_an_application_behind_it_gets_the_rest(app_engine: None, queue: MemoryTransport) -> None:
    seen: list[str] = []

    async def site(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 201, "headers": []})
            await send({"type": "http.response.body", "body": b"site"})

    wrapped = asgi.wrap_asgi_app(site, signals=False)
    assert call(wrapped, path="/") == (201, {}, b"site")
    for kind in ("lifespan", "websocket"):
        asyncio.run(wrapped({"type": kind, "path": PATH}, None, None))
    assert seen == ["http", "lifespan", "websocket"]


async def lived(app: Any) -> list[str]:
    messages = iter([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
    sent: list[str] = []

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message["type"])

    await app({"type": "lifespan"}, receive, send)
    return sent


def test_signals_are_taken_when_the_server_starts_its_applications(app: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[Any] = []
    monkeypatch.setattr(stopping, "install_signal_handlers", lambda: taken.append(1))
    asks = asgi.make_application()
    assert asyncio.run(lived(asks)) == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert taken
    taken.clear()
    assert asyncio.run(lived(app)) and taken == []
    thread = threading.Thread(target=lambda: asyncio.run(lived(asks)))
    thread.start()
    thread.join()
    assert taken == []


def test_without_an_authenticator_it_is_refused(queue: MemoryTransport) -> None:
    with pytest.raises(ConfigError, match="authenticator"):
        asgi.make_application()
    with pytest.raises(ConfigError, match="authenticator"):
        _ = asgi.application
    with pytest.raises(AttributeError):
        _ = asgi.nothing


def test_it_is_not_imported_for_wsgi() -> None:
    import subprocess
    import sys

    code = "import sys, defer_gae_handler; print('defer_gae_handler.asgi' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_defer_from_a_coroutine_task(app: Any, queue: MemoryTransport) -> None:
    assert call(app, body(queue, chained))[0] == 200
    assert len(queue.queued()) == 2  # itself, which only a dispatcher takes out, and what it deferred


async def chained() -> None:
    from defer_core import adefer

    await adefer(note, 5)
