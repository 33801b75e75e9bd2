"""The send path: a Task becomes a record, and goes to the queue now, after the commit, or by the sweep."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

from .. import clock
from ..config import Config, current
from ..errors import TaskSizeRefusedError, TaskTooLargeError
from ..nouns import changed
from ..record import State, TaskRecord
from ..stores.base import TaskStore
from ..task import Routing, Task, TaskOptions
from ..telemetry import metrics, spans
from ..transports.base import Message
from ..wire import frame
from ..wire.callables import label
from . import options
from .dispatch import Dispatch, body_of, hand_over, on_commit
from .handle import Status, TaskHandle
from .outbox import inline, new_record, seal
from .placement import Placement, placement_of, store_for
from .signatures import typed


@typed
def defer(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskHandle:
    """Call `func(*args, **kwargs)` later. Underscored keywords are options (`_countdown`, `_queue`, ...).

    Raises OptionError, CallableError, UnserializableError, TaskTooLargeError, PayloadTooLargeError,
    NotInTransactionError, ConfigError or TransportError; nothing has been written or sent then.
    """
    parsed, rest = options.split(kwargs, current())
    return enqueue(Task(func=func, args=args, kwargs=rest, options=parsed))


@typed
async def adefer(func: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskHandle:
    """Defer from a coroutine, in a thread: stores and queues block. Raises what `defer` raises. Under Django it is the
    thread of Django's connections, and their transaction is followed."""
    call = partial(defer, func, *args, **kwargs)
    asgiref = sys.modules.get("asgiref.sync")
    if asgiref is None:
        return await asyncio.to_thread(call)
    handle: TaskHandle = await asgiref.sync_to_async(call)()
    return handle


def enqueue(task: Task) -> TaskHandle:
    """Send a task, or leave it to the commit of the surrounding transaction. Raises what `defer` raises."""
    if not spans.is_loaded():
        return _enqueue(task)
    with spans.sending(task.options.routing.queue, label(task.func, task.args)) as span:
        handle = _enqueue(task)
        spans.sent(span, name=handle.name, size=handle.size, status=handle.status)
        return handle


def _enqueue(task: Task) -> TaskHandle:
    config = current()
    transport, wanted = config.the_transport, task.options
    if transport.supports_transactions and wanted.transactional is not False and transport.in_transaction():
        return _enqueue_natively(task, config)
    placement = placement_of(wanted, config)
    sealed = seal(task, config)
    wire = inline(sealed, wanted, config)
    if wire is not None and not placement.leaves_record(wanted, config):
        try:
            return _send_inline(wire, task, config)
        except TaskSizeRefusedError as error:
            check_may_be_stored(len(wire) + frame.OVERHEAD, error, small=wanted.small)
            wire = None
    return _enqueue_record(new_record(task, sealed, wire, placement.store, config), wanted, placement, config)


def _send_inline(wire: bytes, task: Task, config: Config) -> TaskHandle:
    """Send a task that leaves no record; the queue names it, unless the caller did."""
    message = Message(body=frame.wrap(wire), routing=_addressed(task.options.routing, config))
    name = hand_over(message, _label(task), config)
    return TaskHandle(routing=message.routing, payload=message.body, status=Status.SENT, assigned_name=name)


def _label(task: Task) -> str:
    """Return the label of a task without a record, if metrics ask for it."""
    return label(task.func, task.args) if metrics.is_loaded() else ""


def _addressed(routing: Routing, config: Config) -> Routing:
    return routing if routing.url else changed(routing, url=config.post_url())


def check_may_be_stored(size: int, error: TaskSizeRefusedError, *, small: bool) -> None:
    """Raise TaskTooLargeError for a body of `size` bytes that the service found too large, if it must stay inline."""
    if small:
        message = f"The queue refused a body of {size} bytes ({error}): leave `_small_task` out."
        raise TaskTooLargeError(message, size=size) from error


def _enqueue_record(record: TaskRecord, wanted: TaskOptions, placement: Placement, config: Config) -> TaskHandle:
    """Write a record, and send its task now or after the commit."""
    store = placement.store
    assert store is not None  # a task that leaves a record has one
    if record.is_claim_check:
        placement.check_takes_payload()
    handle = TaskHandle(routing=record.routing, payload=body_of(record), record_id=record.id)
    dispatch = Dispatch(record=record, store=store, config=config)
    with placement.suspended():
        put(store, [record])
        if placement.is_joined:
            on_commit(partial(dispatch.send_after_commit, handle), store, config)
        else:
            dispatch.apply(dispatch.send(), handle, named=wanted.routing.name is not None)
    return handle


def put(store: TaskStore, records: list[TaskRecord]) -> None:
    """Write new records. The deletes of records sent before go with them, and stay listed until their transaction
    commits."""
    forget = store.forgotten.riding()
    store.put(records, forget)
    if forget:
        store.on_commit(partial(store.forgotten.drop, forget))


def _enqueue_natively(task: Task, config: Config) -> TaskHandle:
    """Add a task in the transaction that the queue itself takes part in; the record of a larger task is a second entity
    group."""
    wanted, store = task.options, store_for(task.options, config)[0]
    sealed = seal(task, config)
    wire = inline(sealed, wanted, config)
    if wire is not None:
        try:
            return _add_natively(frame.wrap(wire), task, None, config)
        except TaskSizeRefusedError as error:
            check_may_be_stored(len(wire) + frame.OVERHEAD, error, small=wanted.small)
    record = new_record(task, sealed, None, store, config)
    if store is not None:  # written as sent, since it is committed if and only if its task is
        put(store, [replace(record, state=State.SENT)])
    return _add_natively(body_of(record), task, record.id, config)


def _add_natively(body: bytes, task: Task, record_id: str | None, config: Config) -> TaskHandle:
    message = Message(body=body, routing=_addressed(task.options.routing, config))
    began = clock.now()
    config.the_transport.send_in_transaction(message)
    metrics.sent(message.routing.queue, _label(task), began=began)
    return TaskHandle(routing=message.routing, payload=body, record_id=record_id)
