"""Many tasks of one callable: one bad call refuses all, one write stores all, and failures of the queue are by
index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from ..config import Config, current, nearest
from ..errors import BulkSendError, OptionError, TaskSizeRefusedError, TaskTooLargeError, TransportError
from ..record import TaskRecord
from ..stores.base import TaskStore
from ..task import Task, TaskOptions
from ..telemetry import spans
from ..wire import envelope
from ..wire.callables import label
from . import options
from .dispatch import Dispatch, hand_over_many, log, message_of, on_commit
from .enqueue import check_may_be_stored, put
from .handle import Status, TaskHandle
from .outbox import inline, new_record, seal, with_claim_check
from .placement import Placement, placement_of


@dataclass(frozen=True)
class Call:
    """The arguments of one call of `defer_many` that has both positional and keyword arguments."""

    args: tuple[Any, ...] = ()
    """Positional arguments."""
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments."""


def defer_many(
    func: Callable[..., Any], calls: Iterable[Sequence[Any] | Mapping[str, Any] | Call], /, **given: Any
) -> list[TaskHandle]:
    """Defer one callable many times. A call is a tuple or list of positional arguments, a mapping of keyword arguments,
    or a `Call`; `given` are options, which apply to all.

    Raises what `defer` raises, naming the call's index, before anything is written; and BulkSendError, which has the
    queue's failures by index, for tasks that leave no record or that the queue refused.
    """
    config = current()
    wanted, rest = options.split(given, config)
    if rest:
        hint = nearest(min(rest), set(options.NAMES)) or ": put arguments into the calls."
        raise OptionError(f"defer_many() takes only options, and {sorted(rest)} are none{hint}")
    if wanted.routing.name is not None:
        raise OptionError("_name cannot apply to many tasks: leave it out.")
    if not spans.is_loaded():
        return _defer_many(func, calls, wanted, config)
    with spans.sending(wanted.routing.queue, label(func)) as span:
        handles = _defer_many(func, calls, wanted, config)
        spans.sent_many(span, len(handles))
        return handles


def _defer_many(
    func: Callable[..., Any], calls: Iterable[Any], wanted: TaskOptions, config: Config
) -> list[TaskHandle]:
    placement = placement_of(wanted, config)
    return _dispatch_all(_records(func, calls, wanted, placement.store, config), wanted, placement, config)


def enqueue_many(tasks: Sequence[Task]) -> list[TaskHandle]:
    """`enqueue` for tasks that share all their options but the routing: one write, and one round of sending.

    Raises what `enqueue` raises, before anything is written; and BulkSendError.
    """
    if not tasks:
        return []
    if not spans.is_loaded():
        return _enqueue_many(tasks)
    with spans.sending(tasks[0].options.routing.queue, label(tasks[0].func, tasks[0].args)) as span:
        handles = _enqueue_many(tasks)
        spans.sent_many(span, len(handles))
        return handles


def _enqueue_many(tasks: Sequence[Task]) -> list[TaskHandle]:
    config, wanted = current(), tasks[0].options
    placement = placement_of(wanted, config)
    return _dispatch_all([_record(task, placement.store, config) for task in tasks], wanted, placement, config)


def _record(task: Task, store: TaskStore | None, config: Config) -> TaskRecord:
    sealed = seal(task, config)
    return new_record(task, sealed, inline(sealed, task.options, config), store, config)


def _records(
    func: Callable[..., Any], calls: Iterable[Any], wanted: TaskOptions, store: TaskStore | None, config: Config
) -> list[TaskRecord]:
    records = []
    for index, each in enumerate(calls):
        call = _as_call(each, index)
        try:
            options.check_keywords(func, call.kwargs)
            task = Task(func=func, args=call.args, kwargs=call.kwargs, options=wanted)
            records.append(_record(task, store, config))
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


def _dispatch_all(
    records: list[TaskRecord], wanted: TaskOptions, placement: Placement, config: Config
) -> list[TaskHandle]:
    """Write the records that are to be kept, and send all: now, or after the commit of the surrounding transaction."""
    leaves = placement.leaves_record(wanted, config)
    kept = [record for record in records if leaves or record.is_claim_check]
    if any(record.is_claim_check for record in kept):
        placement.check_takes_payload()
    with placement.suspended():
        if kept and placement.store is not None:
            put(placement.store, kept)
        return _send_all(records, kept, placement, config, small=wanted.small)


def _send_all(
    records: list[TaskRecord], kept: list[TaskRecord], placement: Placement, config: Config, *, small: bool
) -> list[TaskHandle]:
    store, stored = placement.store, {record.id for record in kept}
    records = [r if r.id in stored else replace(r, routing=replace(r.routing, name=None)) for r in records]
    messages = [message_of(record) for record in records]
    handles = [
        TaskHandle(routing=m.routing, payload=m.body, record_id=r.id if r.id in stored else None)
        for r, m in zip(records, messages, strict=True)
    ]
    if placement.is_joined and store is not None:
        dispatches = [Dispatch(record=record, store=store, config=config) for record in records]
        on_commit(partial(_send_after_commit, config, dispatches, handles), store, config)
        return handles
    failures: dict[int, TransportError | TaskTooLargeError] = {}
    for index, answer in enumerate(hand_over_many(records, config)):
        record, handle = records[index], handles[index]
        try:
            if record.id in stored and store is not None:
                dispatch = Dispatch(record=record, store=store, config=config)
                dispatch.apply(dispatch.take_answer(answer), handle, named=False)
            elif not isinstance(answer, TransportError):
                handle.assigned_name, handle.status = answer, Status.SENT
            elif isinstance(answer, TaskSizeRefusedError):
                check_may_be_stored(handle.size, answer, small=small)
                if store is None or not placement.takes_records:
                    raise answer
                _send_with_claim_check(record, store, config, handle)
            else:
                raise answer
        except (TransportError, TaskTooLargeError) as error:
            failures[index] = error
    if failures:
        sent = [handle for index, handle in enumerate(handles) if index not in failures]
        first = min(failures)
        message = (
            f"The queue refused {len(failures)} of {len(handles)} tasks; of call {first} it said: {failures[first]}"
        )
        raise BulkSendError(message, failures=failures, handles=sent)
    return handles


def _send_with_claim_check(record: TaskRecord, store: TaskStore, config: Config, handle: TaskHandle) -> None:
    """Store a task that was to leave no record and that the service found too large, and send it again. Raises
    TransportError."""
    named = replace(record, routing=replace(record.routing, name=record.id))
    larger = with_claim_check(named, envelope.decode(named.envelope, config.signer), store, config)
    put(store, [larger])
    handle.record_id, handle.routing = larger.id, larger.routing
    dispatch = Dispatch(record=larger, store=store, config=config)
    dispatch.apply(dispatch.send(), handle, named=False)


def _send_after_commit(config: Config, dispatches: list[Dispatch], handles: list[TaskHandle]) -> None:
    """Send what a transaction has committed; failures are left to the sweep. Raises only what a task raises that the
    transport runs."""
    try:
        answers = hand_over_many([each.record for each in dispatches], config)
        for dispatch, handle, answer in zip(dispatches, handles, answers, strict=True):
            dispatch.apply_after_commit(dispatch.take_answer(answer), handle)
    except Exception:
        for handle in handles:
            if handle.status is Status.WAITS_FOR_COMMIT:
                handle.status = Status.WAITS_FOR_SWEEP
        if config.the_transport.runs_tasks:
            raise
        log.exception("%d tasks could not be sent after their commit: the sweep will send them.", len(handles))
