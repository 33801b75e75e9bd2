"""Calls that only make something: coroutines are run to their end, and generators are no success."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import sys
import types
from collections.abc import AsyncIterator, Iterator
from contextvars import copy_context
from typing import Any

import pytest

from defer_core import Delivery, Outcome, current_delivery, defer, defer_many, execute
from defer_core.run import awaiting
from defer_core.testing import MemoryStore, drain, in_memory
from defer_core.upkeep import dead_letters

ran: list[Any] = []


async def coroutine(*args: Any, **kwargs: Any) -> None:
    await asyncio.sleep(0)
    ran.append((args, kwargs))


def decorated(inner: Any) -> Any:
    @functools.wraps(inner)
    def outer(*args: Any, **kwargs: Any) -> Any:
        return inner(*args, **kwargs)

    return outer


@decorated
async def wrapped(*args: Any, **kwargs: Any) -> None:
    await coroutine(*args, **kwargs)


@functools.lru_cache
def cached() -> Any:
    return coroutine("cached")


def plain(*args: Any) -> Any:
    return coroutine(*args)


@types.coroutine
def of_old() -> Any:
    yield from asyncio.sleep(0).__await__()
    ran.append(((), {}))


class Awaitable:
    def __await__(self) -> Any:
        return coroutine("awaitable").__await__()


def awaitable() -> Any:
    return Awaitable()


class Holder:
    async def method(self, *args: Any) -> None:
        await coroutine(*args)

    @classmethod
    async def of_class(cls, *args: Any) -> None:
        await coroutine(*args)

    async def __call__(self, *args: Any) -> None:
        await coroutine(*args)


async def forgets_to_await() -> Any:
    return coroutine("forgotten")


def steps() -> Iterator[int]:
    ran.append("steps")
    yield 1


@decorated
def wrapped_steps() -> Any:
    return steps()


async def async_steps() -> AsyncIterator[int]:
    ran.append("async steps")
    yield 1


async def gives_steps() -> Any:
    return steps()


@decorated
def wrapped_async_steps() -> Any:
    return async_steps()


@contextlib.contextmanager
def managed() -> Iterator[None]:
    ran.append("managed")
    yield


@contextlib.asynccontextmanager
async def async_managed() -> AsyncIterator[None]:
    ran.append("managed")
    yield


def values() -> Any:
    return {"a": 1}.values()


async def of_its_delivery() -> None:
    delivery = current_delivery()
    ran.append(delivery and delivery.queue)


async def fails() -> None:
    raise ValueError("no")


async def is_cancelled() -> None:
    raise asyncio.CancelledError


@pytest.fixture(params=["asgiref", "asyncio"], autouse=True)
def _loops(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under Django and without."""
    import asgiref.sync  # noqa: F401

    ran.clear()
    if request.param == "asyncio":
        monkeypatch.delitem(sys.modules, "asgiref.sync")


RUN = [
    coroutine, wrapped, plain, of_old, awaitable, Holder().method, Holder.of_class, Holder(),
    functools.partial(coroutine, 1), functools.partial(Holder().method, 1), forgets_to_await,
]  # fmt: skip


@pytest.mark.parametrize("func", RUN)
def test_a_coroutine_runs_to_its_end_whatever_made_it(func: Any) -> None:
    with in_memory(store=MemoryStore()):
        defer(func)
        defer_many(func, [(), ()])
        assert drain().done == 3
    assert len(ran) == 3


def test_a_cached_coroutine_runs() -> None:
    cached.cache_clear()
    with in_memory():
        defer(cached)
        drain()
    assert ran == [(("cached",), {})]


def test_a_coroutine_has_its_delivery_and_its_arguments() -> None:
    with in_memory():
        defer(of_its_delivery, _queue="mail")
        defer(coroutine, 1, key=2)
        drain()
    assert ran == ["mail", ((1,), {"key": 2})]


def test_a_coroutine_that_raises_is_tried_again() -> None:
    with in_memory():
        defer(fails)
        with pytest.raises(ValueError, match="no"):
            drain()


def test_a_coroutine_that_is_cancelled_has_failed_and_ends_nobody() -> None:
    with in_memory():
        defer(is_cancelled)
        with pytest.raises(RuntimeError, match="cancelled"):
            drain()


@pytest.mark.parametrize("func", [wrapped_steps, gives_steps, wrapped_async_steps, managed, async_managed])
def test_what_has_run_nothing_is_dead_and_says_so(func: Any) -> None:
    store = MemoryStore()
    with in_memory(store=store) as queue:
        defer(func)
        body = queue.queued()[0].message.body
        assert execute(body, Delivery(task_name="t", queue="default", retry_count=0)) is Outcome.PERMANENT
    assert ran == []
    assert any("body has not run" in letter.last_error for letter in dead_letters.dead_letters(store))


@pytest.mark.parametrize("func", [values, decorated])
def test_any_other_result_is_nobody_s_affair(func: Any) -> None:
    with in_memory():
        defer(func, *([steps] if func is decorated else []))
        assert drain().done == 1


async def _drained_in_a_loop() -> int:
    return drain().done


def test_tasks_can_be_run_from_a_coroutine() -> None:
    with in_memory():
        defer(coroutine, 1)
        assert asyncio.run(_drained_in_a_loop()) == 1
    assert ran == [((1,), {})]


def test_a_server_s_own_loop_awaits_where_there_is_one() -> None:
    seen: list[Any] = []

    def run(given: Any) -> None:
        given.close()
        seen.append(given)

    token = awaiting.runner.set(run)
    try:
        with in_memory():
            defer(coroutine, 1)
            drain()
    finally:
        awaiting.runner.reset(token)
    assert len(seen) == 1 and ran == []


def test_a_server_lends_its_loop_to_one_context() -> None:
    lent: list[Any] = []

    def run(awaited: Any) -> Any:
        lent.append(awaited)
        return asyncio.run(awaited)

    context = copy_context()
    context.run(awaiting.await_by, run)
    ran.clear()
    context.run(awaiting.finished, coroutine(1))
    awaiting.finished(coroutine(2))
    assert (len(lent), ran) == (1, [((1,), {}), ((2,), {})])
