"""The send path: a Task becomes a record, and goes to the queue now, after the commit, or by the sweep."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

from . import envelope, options, sending
from .config import Config, current
from .errors import ConfigError, NotInTransactionError, PayloadTooLargeError, TaskSizeRefusedError, TaskTooLargeError
from .frozen import made
from .handle import Status, TaskHandle
from .record import State, TaskRecord
from .sealing import claimed, seal
from .stores.base import TaskStore
from .task import Task, TaskOptions
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
    store = store_for(task.options, config)
    if config.the_transport.in_transaction() and task.options.transactional is not False:
        return _enqueue_natively(task, store, config)
    transactional = joins_transaction(task.options, store, config)
    return _enqueue_record(seal(task, store, config), task.options, store, transactional, config)


def _enqueue_record(
    record: TaskRecord, wanted: TaskOptions, store: TaskStore | None, transactional: bool, config: Config
) -> TaskHandle:
    if store is None or not leaves_record(wanted, record, store, transactional, config):
        try:
            return _send_inline(record, wanted, config)
        except TaskSizeRefusedError as error:
            larger = _claimed(record, wanted, store, config, error)
        return _enqueue_record(larger, wanted, store, transactional, config)
    handle = TaskHandle(routing=record.routing, payload=sending.message(record).body, record_id=record.id)
    with nullcontext() if transactional or not store.in_transaction() else store.outside_transaction():
        put(store, [record])
        if transactional:
            store.on_commit(partial(sending.send_after_commit, record, store, config, handle))
        else:
            named = wanted.routing.name is not None
            sending.settle_now(sending.send(record, store, config), store, config, handle, named=named)
    return handle


def store_for(wanted: TaskOptions, config: Config) -> TaskStore | None:
    """The store whose open transaction a task joins, else the configured one; None where there is none.
    Raises ConfigError for an alias that no store has."""
    alias = wanted.using
    stores = [each.using(alias) for each in config.stores if alias is None or each.has_alias(alias)]
    if alias is not None and not stores:
        raise ConfigError(
            f"_using is {alias!r}, and no configured store has that alias: give that of a database with our table, or "
            "leave it out."
        )
    return next((store for store in stores if store.in_transaction()), stores[0] if stores else None)


def joins_transaction(wanted: TaskOptions, store: TaskStore | None, config: Config) -> bool:
    """Whether a task belongs to the surrounding transaction. Raises NotInTransactionError."""
    inside = store is not None and store.in_transaction()
    if wanted.transactional and not inside and not any(each.supports_transactional_outside for each in config.stores):
        raise NotInTransactionError
    return inside and wanted.transactional is not False


def leaves_record(
    wanted: TaskOptions, record: TaskRecord, store: TaskStore, transactional: bool, config: Config
) -> bool:
    """Whether a task touches the store. Raises PayloadTooLargeError where it must and must not."""
    leaves = transactional or record.is_claim or (not wanted.small and config.store_policy == "always")
    if leaves and not (transactional or store.supports_records_beside_transaction) and store.in_transaction():
        if record.is_claim:
            raise PayloadTooLargeError(
                "A task over the inline limit with `_transactional=False` would be stored in the very transaction that "
                "it is to be independent of: defer it outside the transaction, or leave `_transactional` out."
            )
        return False
    return leaves


def put(store: TaskStore, records: list[TaskRecord]) -> None:
    """Write new records; the deletes of those sent before ride along, and stay listed until their transaction
    commits."""
    forget = store.forgotten.riding()
    store.put(records, forget)
    if forget:
        store.on_commit(partial(store.forgotten.drop, forget))


def _send_inline(record: TaskRecord, wanted: TaskOptions, config: Config) -> TaskHandle:
    """Send a task that leaves no record; the queue names it, unless the caller did."""
    routing = record.routing.addressed(wanted.routing.name, record.routing.url)
    message = made(Message, body=sending.body_of(record), routing=routing)
    name = config.the_transport.send(message)
    return TaskHandle(routing=routing.addressed(name, routing.url), payload=message.body, status=Status.SENT)


def _claimed(
    record: TaskRecord, wanted: TaskOptions, store: TaskStore | None, config: Config, error: TaskSizeRefusedError
) -> TaskRecord:
    """The record of a task that the service found too large. Raises TaskTooLargeError where it is to stay inline."""
    if wanted.small or record.is_claim:
        size = len(sending.body_of(record))
        message = f"The queue refused a body of {size} bytes ({error}): leave `_small_task` out."
        raise TaskTooLargeError(message, size=size) from error
    return claimed(record, envelope.decode(record.envelope, config.signer), store, config)


def _enqueue_natively(task: Task, store: TaskStore | None, config: Config) -> TaskHandle:
    """Add a task in the transaction that the queue itself takes part in;
    a larger one's record is a second entity group."""
    record = seal(task, store, config)
    try:
        return _add_natively(record, task, store, config)
    except TaskSizeRefusedError as error:
        return _add_natively(_claimed(record, task.options, store, config, error), task, store, config)


def _add_natively(record: TaskRecord, task: Task, store: TaskStore | None, config: Config) -> TaskHandle:
    """The record of a Claim is written as sent, for it is committed if and only if its task is."""
    if record.is_claim and store is not None:
        put(store, [replace(record, state=State.SENT)])
    record = replace(record, routing=replace(record.routing, name=task.options.routing.name))
    message = sending.message(record)
    config.the_transport.send_in_transaction(message)
    return TaskHandle(routing=record.routing, payload=message.body, record_id=record.id if record.is_claim else None)
