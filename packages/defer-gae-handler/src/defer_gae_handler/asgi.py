"""The handler as an ASGI application, and as middleware in front of one: plain functions run in threads, coroutines on
the server's own loop, with its clients and pools."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any
from urllib.parse import urlsplit

from defer_core import with_signal_handlers
from defer_core.spi import await_by, current

from .authenticators.configured import required_authenticators
from .request import Headers, Request, Response
from .wsgi import NOT_FOUND, answer

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

CONCURRENCY = 40
"""Tasks that run at a time: each has a thread, which waits where the task is a coroutine."""


def make_application(path: str | None = None, *, concurrency: int = CONCURRENCY, signals: bool = True) -> AsgiApp:
    """Return an ASGI application that answers tasks, and anything else with 404.

    Raises ConfigError if no authenticator is configured.
    """
    return wrap_asgi_app(_not_found, path, concurrency=concurrency, signals=signals)


def wrap_asgi_app(
    app: AsgiApp, path: str | None = None, *, concurrency: int = CONCURRENCY, signals: bool = True
) -> AsgiApp:
    """Return `app` with the handler in front of it at `path` (that of the configured URL: `/_ah/queue/deferred`).

    With `signals`, `install_signal_handlers()` is called once the server has set its own, which are chained. A task
    that raises is logged, and answered with 500. Raises ConfigError if no authenticator is configured.
    """
    config = current()
    required_authenticators(config)
    where = path or urlsplit(config.post_url()).path
    threads = ThreadPoolExecutor(concurrency, thread_name_prefix="defer-task")

    async def with_tasks(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and where in (scope["path"], scope.get("root_path", "") + scope["path"]):
            await _send(await _answer(scope, receive, threads), send)
            return
        await app(scope, receive, send)

    return with_signal_handlers(with_tasks) if signals else with_tasks


async def _answer(scope: Scope, receive: Receive, threads: ThreadPoolExecutor) -> Response:
    loop = asyncio.get_running_loop()

    def wait_for(coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine on the server's loop and return its result; called in another thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result()

    request = Request(
        method=scope["method"],
        path=scope["path"],
        headers=Headers({name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}),
        remote_addr=(scope.get("client") or ("",))[0] or "",
        read=lambda size: wait_for(_body(receive, size)),
    )
    context = copy_context()
    context.run(await_by, wait_for)
    return await loop.run_in_executor(threads, context.run, answer, request)


async def _body(receive: Receive, size: int) -> bytes:
    """Read the body, or the beginning of one that is longer than `size` bytes."""
    body, more = b"", True
    while more and len(body) < size:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)  # missing if the client has gone
    return body[:size]


async def _send(response: Response, send: Send) -> None:
    headers = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in response.wsgi_headers]
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    await send({"type": "http.response.body", "body": response.body})


async def _not_found(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "lifespan":
        await _send(NOT_FOUND, send)
        return
    stopped = False
    while not stopped:
        kind = (await receive())["type"]
        stopped = kind == "lifespan.shutdown"
        await send({"type": f"{kind}.complete"})


def __getattr__(name: str) -> Any:
    """Make `application` when it is first used: without an authenticator that raises ConfigError."""
    if name != "application":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return make_application()
