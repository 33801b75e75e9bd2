"""The send path: a Task becomes a record, and goes to the queue now, after the commit, or by the sweep."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from . import frame, options, sending
from .config import Config, current
from .errors import TaskSizeRefusedError, TaskTooLargeError
from .frozen import changed, made
from .handle import Status, TaskHandle
from .place import Place, leaves_record, place_of, store_for
from .record import State, TaskRecord
from .sealing import inline, recorded, seal
from .stores.base import TaskStore
from .task import Routing, Task, TaskOptions
from .transports.base import Message


def defer(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskHandle:
    """Call `func(*args, **kwargs)` later. Underscored keywords are options (`_countdown`, `_queue`, ...).

    Raises OptionError, CallableError, UnserializableError, TaskTooLargeError, PayloadTooLargeError,
    NotInTransactionError, ConfigError or TransportError; nothing has been written or sent then.
    """
    parsed, rest = options.split(func, kwargs, current())
    return enqueue(made(Task, func=func, args=args, kwargs=rest, options=parsed))


async def adefer(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskHandle:
    """`defer` from a coroutine, in a thread: stores and queues block. Raises what `defer` raises.
    Under Django it is the thread of its connections, and their transaction is followed."""
    call = partial(defer, func, *args, **kwargs)
    asgiref = sys.modules.get("asgiref.sync")
    if asgiref is None:
        return await asyncio.to_thread(call)
    handle: TaskHandle = await asgiref.sync_to_async(call)()
    return handle


def enqueue(task: Task) -> TaskHandle:
    """Send a task, or leave it to the commit of the surrounding transaction. Raises what `defer` raises."""
    config = current()
    transport, wanted = config.the_transport, task.options
    if transport.supports_transactions and wanted.transactional is not False and transport.in_transaction():
        return _enqueue_natively(task, config)
    place = place_of(wanted, config)
    sealed = seal(task, config)
    wire = inline(sealed, wanted, config)
    if wire is not None and not leaves_record(wanted, place, config):
        try:
            return _send_inline(wire, wanted.routing, config)
        except TaskSizeRefusedError as error:
            _check_may_be_claimed(wire, wanted, error)
            wire = None
    return _enqueue_record(recorded(task, sealed, wire, place.store, config), wanted, place, config)


def _send_inline(wire: bytes, routing: Routing, config: Config) -> TaskHandle:
    """Send a task that leaves no record; the queue names it, unless the caller did."""
    message = made(Message, body=frame.wrap(wire), routing=_addressed(routing, config))
    name = config.the_transport.send(message)
    return made(TaskHandle, routing=message.routing, payload=message.body, status=Status.SENT, assigned_name=name)


def _addressed(routing: Routing, config: Config) -> Routing:
    return routing if routing.url else changed(routing, url=config.post_url())


def _check_may_be_claimed(wire: bytes, wanted: TaskOptions, error: TaskSizeRefusedError) -> None:
    """For what the service found too large. Raises TaskTooLargeError where it is to stay inline."""
    if wanted.small:
        size = len(wire) + frame.OVERHEAD
        message = f"The queue refused a body of {size} bytes ({error}): leave `_small_task` out."
        raise TaskTooLargeError(message, size=size) from error


def _enqueue_record(record: TaskRecord, wanted: TaskOptions, place: Place, config: Config) -> TaskHandle:
    """Write a record, and send its task now or after the commit."""
    store = place.store
    assert store is not None  # a task that leaves a record has one
    if record.is_claim:
        place.check_claim()
    handle = TaskHandle(routing=record.routing, payload=sending.message(record).body, record_id=record.id)
    with place.entered():
        put(store, [record])
        if place.transactional:
            store.on_commit(partial(sending.send_after_commit, record, store, config, handle))
        else:
            named = wanted.routing.name is not None
            sending.settle_now(sending.send(record, store, config), store, config, handle, named=named)
    return handle


def put(store: TaskStore, records: list[TaskRecord]) -> None:
    """Write new records; the deletes of those sent before ride along, and stay listed until their transaction
    commits."""
    forget = store.forgotten.riding()
    store.put(records, forget)
    if forget:
        store.on_commit(partial(store.forgotten.drop, forget))


def _enqueue_natively(task: Task, config: Config) -> TaskHandle:
    """Add a task in the transaction that the queue itself takes part in;
    a larger one's record is a second entity group."""
    wanted, store = task.options, store_for(task.options, config)[0]
    sealed = seal(task, config)
    wire = inline(sealed, wanted, config)
    if wire is not None:
        try:
            return _add_natively(frame.wrap(wire), wanted.routing, None, config)
        except TaskSizeRefusedError as error:
            _check_may_be_claimed(wire, wanted, error)
    record = recorded(task, sealed, None, store, config)
    if store is not None:  # written as sent, for it is committed if and only if its task is
        put(store, [replace(record, state=State.SENT)])
    return _add_natively(sending.body_of(record), wanted.routing, record.id, config)


def _add_natively(body: bytes, routing: Routing, record_id: str | None, config: Config) -> TaskHandle:
    message = made(Message, body=body, routing=_addressed(routing, config))
    config.the_transport.send_in_transaction(message)
    return TaskHandle(routing=message.routing, payload=body, record_id=record_id)
