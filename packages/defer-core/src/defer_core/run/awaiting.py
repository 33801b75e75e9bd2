"""The result of a call: an awaitable is awaited, and a generator whose body has not run is a failure."""

from __future__ import annotations

import contextlib
import inspect
import sys
import types
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import ContextVar, copy_context
from typing import Any

from ..errors import PermanentTaskFailure

runner: ContextVar[Callable[[Awaitable[Any]], Any] | None] = ContextVar("defer_runner", default=None)
"""Awaits in this context, if a server has a loop for it."""
_RUN_NOTHING = (
    types.GeneratorType,
    types.AsyncGeneratorType,
    contextlib._GeneratorContextManager,
    contextlib._AsyncGeneratorContextManager,
)


def finished(result: Any) -> Any:
    """Return the result of a call, awaited if it is an awaitable. Raises PermanentTaskFailure for a generator, or for
    what is made of one."""
    if result is None:  # the cheapest check first
        return None
    if inspect.isawaitable(result):
        return finished(_awaited(result))
    if isinstance(result, _RUN_NOTHING):
        raise PermanentTaskFailure(
            f"The call only made {result!r}, whose body has not run. Defer a function that runs it (for …, with …)."
        )
    return result


def _awaited(awaitable: Awaitable[Any]) -> Any:
    """Await in the server's loop, else in one of our own; under Django by asgiref, so that `sync_to_async` leads back
    to this thread and its connections."""
    import asyncio

    run = runner.get()
    asgiref = sys.modules.get("asgiref.sync")
    try:
        if run is not None:
            return run(awaitable)
        if _is_in_a_loop():
            return _in_a_thread(awaitable)
        return asyncio.run(of(awaitable)) if asgiref is None else asgiref.async_to_sync(of)(awaitable)
    except asyncio.CancelledError as error:  # it is not an Exception, and would end the worker
        raise RuntimeError(f"{awaitable!r} was cancelled.") from error


def await_by(run: Callable[[Coroutine[Any, Any, Any]], Any]) -> None:
    """Let `run` await what tasks return, for the rest of this context: it gets a coroutine and returns its result."""
    runner.set(lambda awaitable: run(of(awaitable)))


async def of(awaitable: Awaitable[Any]) -> Any:
    """Return what an awaitable gives; some loops take only coroutines."""
    return await awaitable


def _is_in_a_loop() -> bool:
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _in_a_thread(awaitable: Awaitable[Any]) -> Any:
    """Await in a new thread, since a thread has one loop at a time; for callers that run tasks from a coroutine, as an
    asynchronous test does."""
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as threads:
        return threads.submit(copy_context().run, asyncio.run, of(awaitable)).result()
