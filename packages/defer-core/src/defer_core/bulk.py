"""Many tasks of one callable: one bad call refuses all, one write stores all,
and the queue's failures come by index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from . import envelope, options, sending
from .config import Config, current
from .enqueue import put
from .errors import BulkSendError, OptionError, TaskSizeRefusedError, TransportError
from .handle import Status, TaskHandle
from .place import Place, leaves_record, place_of
from .record import TaskRecord
from .sealing import claimed, record_of
from .stores.base import TaskStore
from .task import Task, TaskOptions


@dataclass(frozen=True)
class Call:
    """The arguments of one call of `defer_many`, where they are both positional and by keyword."""

    args: tuple[Any, ...] = ()
    """Positional arguments."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments."""


def defer_many(
    func: Callable[..., Any], calls: Iterable[Sequence[Any] | Mapping[str, Any] | Call], /, **given: Any
) -> list[TaskHandle]:
    """Defer one callable many times. A call is a tuple or list of positional arguments, a mapping of keyword arguments,
    or a `Call`; `given` are options, which hold for all.

    Raises what `defer` raises, naming the call's index, before anything is written; and BulkSendError, which has the
    queue's failures by index, for tasks that leave no record or that the queue refused.
    """
    config = current()
    wanted, rest = options.split(func, given, config)
    if rest:
        raise OptionError(
            f"defer_many() takes options only, and {sorted(rest)} are none: put arguments into the calls."
        )
    if wanted.routing.name is not None:
        raise OptionError("_name cannot hold for many tasks: leave it out.")
    place = place_of(wanted, config)
    return _dispatch(_seal_all(func, calls, wanted, place.store, config), wanted, place, config)


def enqueue_many(tasks: Sequence[Task]) -> list[TaskHandle]:
    """`enqueue` for tasks that share all their options but the routing: one write, and one round of sending.

    Raises what `enqueue` raises, before anything is written; and BulkSendError.
    """
    if not tasks:
        return []
    config, wanted = current(), tasks[0].options
    place = place_of(wanted, config)
    return _dispatch([record_of(task, place.store, config) for task in tasks], wanted, place, config)


def _dispatch(records: list[TaskRecord], wanted: TaskOptions, place: Place, config: Config) -> list[TaskHandle]:
    """Write the records that are to be kept, and send all: now, or after the commit of the surrounding transaction."""
    leaves = leaves_record(wanted, place, config)
    kept = [record for record in records if leaves or record.is_claim]
    if any(record.is_claim for record in kept):
        place.check_claim()
    with place.entered():
        if kept and place.store is not None:
            put(place.store, kept)
        return _send_all(records, kept, place, config, small=wanted.small)


def _seal_all(
    func: Callable[..., Any], calls: Iterable[Any], wanted: TaskOptions, store: TaskStore | None, config: Config
) -> list[TaskRecord]:
    records = []
    for index, each in enumerate(calls):
        call = _as_call(each, index)
        try:
            options.check_keywords(func, call.kwargs)
            records.append(
                record_of(Task(func=func, args=call.args, kwargs=call.kwargs, options=wanted), store, config)
            )
        except Exception as error:
            error.add_note(f"This is call {index} of defer_many(); nothing was deferred.")
            raise
    return records


def _as_call(given: Any, index: int) -> Call:
    match given:
        case Call():
            return given
        case tuple() | list():
            return Call(tuple(given))
        case Mapping():
            return Call((), given)
    raise OptionError(f"Call {index} of defer_many() is {given!r}: give a tuple of arguments, a mapping, or a Call.")


def _send_all(
    records: list[TaskRecord], kept: list[TaskRecord], place: Place, config: Config, *, small: bool
) -> list[TaskHandle]:
    store = place.store
    stored = {record.id for record in kept}
    records = [r if r.id in stored else replace(r, routing=replace(r.routing, name=None)) for r in records]
    messages = [sending.message(record) for record in records]
    handles = [
        TaskHandle(routing=m.routing, payload=m.body, record_id=r.id if r.id in stored else None)
        for r, m in zip(records, messages, strict=True)
    ]
    if place.transactional and store is not None:
        store.on_commit(partial(_send_after_commit, records, store, config, handles))
        return handles
    failures: dict[int, TransportError] = {}
    for index, answer in enumerate(config.the_transport.send_many(messages)):
        record, handle = records[index], handles[index]
        try:
            if record.id in stored and store is not None:
                tried = sending.tried(record, answer, store, config)
                sending.settle_now(tried, store, config, handle, named=False)
            elif isinstance(answer, TaskSizeRefusedError) and not small and store is not None and place.takes_records:
                _send_claimed(record, store, config, handle)
            elif isinstance(answer, TransportError):
                raise answer
            else:
                handle.assigned_name, handle.status = answer, Status.SENT
        except TransportError as error:
            failures[index] = error
    if failures:
        sent = [handle for index, handle in enumerate(handles) if index not in failures]
        first = min(failures)
        message = (
            f"The queue refused {len(failures)} of {len(handles)} tasks; of call {first} it said: {failures[first]}"
        )
        raise BulkSendError(message, failures=failures, handles=sent)
    return handles


def _send_claimed(record: TaskRecord, store: TaskStore, config: Config, handle: TaskHandle) -> None:
    """Send again, as a Claim, what was to leave no record and the service found too large. Raises TransportError."""
    named = replace(record, routing=replace(record.routing, name=record.id))
    larger = claimed(named, envelope.decode(named.envelope, config.signer), store, config)
    put(store, [larger])
    handle.record_id, handle.routing = larger.id, larger.routing
    sending.settle_now(sending.send(larger, store, config), store, config, handle, named=False)


def _send_after_commit(records: list[TaskRecord], store: TaskStore, config: Config, handles: list[TaskHandle]) -> None:
    """Never raises: what fails here is the sweep's."""
    try:
        answers = config.the_transport.send_many([sending.message(record) for record in records])
        for record, handle, answer in zip(records, handles, answers, strict=True):
            tried = sending.tried(record, answer, store, config)
            sending.settle_after_commit(tried, store, config, handle)
    except Exception:
        for handle in handles:
            if handle.status is Status.WAITS_FOR_COMMIT:
                handle.status = Status.WAITS_FOR_SWEEP
        sending.log.exception("%d tasks could not be sent after their commit: the sweep will.", len(records))
