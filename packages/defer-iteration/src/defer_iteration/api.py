"""`defer_iteration_with_finalize`: walk a queryset in parallel shards, then call `finalize` once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from defer_core import callables, clock, options
from defer_core.config import current, nearest
from defer_core.errors import CallableError, OptionError
from defer_core.place import place_of
from defer_core.record import new_id
from defer_core.task import TaskOptions

from . import job as jobs
from .base import IterationStore
from .errors import IterationRefusedError
from .handle import IterationHandle
from .iteration import DEFAULT_MAX_ATTEMPTS, Iteration, IterationOptions
from .job import Job, KeyRangesGetter
from .rows import Rows
from .scheduling import schedule_plan
from .stalling import grace
from .stores import store_on

MAX_SHARDS = 10_000
"""Shards that one iteration may have."""
_ON_ERROR = ("retry", "quarantine", "fail")
_NAMES = {
    "_queue", "_shards", "_delete_marker", "_transactional", "_buffer_time", "_service", "_version", "_target",
    "_dispatch_deadline", "_using", "_atomic", "_max_attempts", "_on_error",
}  # fmt: skip


def defer_iteration_with_finalize(
    queryset: Any,
    callback: Callable[..., Any],
    finalize: Callable[..., Any],
    args: Sequence[Any] | None = None,
    _queue: str = "default",
    _shards: int = 5,
    _delete_marker: bool = True,
    _transactional: bool = False,
    _buffer_time: float | None = None,
    *,
    key_ranges_getter: KeyRangesGetter | None = None,
    order_field: str = "pk",
    _service: str | None = None,
    _version: str | None = None,
    _target: str | None = None,
    _dispatch_deadline: float | None = None,
    _using: str | None = None,
    _atomic: bool = False,
    _max_attempts: int | None = None,
    _on_error: str = "retry",
    **kwargs: Any,
) -> IterationHandle:
    """Call `callback(instance, *args, **kwargs)` for every row of `queryset` (or of what a module-level function
    returns), in `_shards` parallel shards, then `finalize(*args, **kwargs)` once.

    Raises IterationRefusedError or OptionError (both are TypeErrors), CallableError, UnserializableError, ConfigError
    or NotInTransactionError; nothing has been written then.
    """
    _check_names(kwargs)
    wanted = _options(
        routing={
            "_queue": _queue, "_service": _service, "_version": _version, "_target": _target,
            "_dispatch_deadline": _dispatch_deadline, "_transactional": _transactional,
        },
        shards=_shards, order_field=order_field, delete_marker=_delete_marker, buffer_time=_buffer_time, atomic=_atomic,
        max_attempts=_max_attempts, on_error=_on_error,
    )  # fmt: skip
    work = Job(
        source=queryset,
        callback=_callable("callback", callback),
        finalize=_callable("finalize", finalize),
        args=_args(args),
        kwargs=kwargs,
        key_ranges_getter=None
        if key_ranges_getter is None
        else _callable("key_ranges_getter", key_ranges_getter, callables.to_ref),  # which may be a generator function
    )
    return start(work, wanted, using=_using, transactional=bool(_transactional))


def start(
    job: Job,
    wanted: IterationOptions,
    *,
    using: str | None = None,
    transactional: bool = False,
    iteration_id: str | None = None,
) -> IterationHandle:
    """Write an iteration and the record of its plan, in one transaction: the caller's, if one is open on that alias.

    With an `iteration_id` (32 hexadecimal digits) that there is already, nothing is written.
    """
    job, alias = _checked(job, wanted, using)
    store, now = store_on(alias), clock.now()
    place_of(TaskOptions(using=alias, transactional=transactional), current())  # raises what defer() would
    iteration = Iteration(
        id=iteration_id or new_id(),
        job=jobs.pack(job),
        options=wanted,
        label=callables.label(job.callback),
        created=now,
        due=now + grace(0),
    )
    if iteration_id is None or store.get(iteration_id) is None:
        store.transact(lambda: _create(store, iteration))
    return IterationHandle(id=iteration.id, alias=alias)


def _create(store: IterationStore, iteration: Iteration) -> None:
    store.create(iteration)
    schedule_plan(store, iteration)


def _checked(job: Job, wanted: IterationOptions, using: str | None) -> tuple[Job, str]:
    """The job with a queryset that can travel, and the alias that the iteration is to be on. Raises
    IterationRefusedError."""
    from dataclasses import replace

    is_function = callable(job.source) and not hasattr(job.source, "all")
    found = job.source() if is_function else job.source
    if isinstance(found, Rows):
        if not is_function:
            raise IterationRefusedError("Rows travel by the function that returns them: give that.")
        return job, using or ""
    from .queryset_rows import rows_over
    from .querysets import checked
    from .tables import alias_for, check_atomic

    found = checked(found)
    rows_over(found, wanted.order_field)
    alias = alias_for(found, using)
    if wanted.atomic:
        check_atomic(found, alias)
    return (job if is_function else replace(job, source=found)), alias


def _check_names(kwargs: dict[str, Any]) -> None:
    for name in kwargs:
        if name.startswith("_"):
            raise OptionError(f"defer_iteration_with_finalize() has no option {name!r}{nearest(name, _NAMES)}.")


def _options(*, routing: dict[str, Any], **given: Any) -> IterationOptions:
    """Raises OptionError naming the option and what it may be."""
    where = options.parse(routing, current()).routing
    _expect(
        "_shards", given["shards"], _is_whole(given["shards"], 1, MAX_SHARDS), f"a whole number from 1 to {MAX_SHARDS}"
    )
    for name in ("delete_marker", "atomic"):
        _expect(f"_{name}", given[name], isinstance(given[name], bool), "True or False")
    _expect("order_field", given["order_field"], isinstance(given["order_field"], str), "the name of a field")
    given["buffer_time"] = _buffer_time(given["buffer_time"], where.dispatch_deadline)
    given["max_attempts"] = _max_attempts(given["max_attempts"], given["on_error"])
    return IterationOptions(
        queue=where.queue,
        service=where.service,
        version=where.version,
        instance=where.instance,
        dispatch_deadline=where.dispatch_deadline,
        **given,
    )


def _expect(name: str, value: Any, condition: bool, expected: str) -> None:
    if not condition:
        raise OptionError(f"{name} is {value!r}: it must be {expected}.")


def _is_whole(value: Any, least: int, most: float) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _buffer_time(value: Any, deadline: float | None) -> float | None:
    if value is None:
        return None
    seconds = value.total_seconds() if hasattr(value, "total_seconds") else value
    numeric = isinstance(seconds, int | float) and not isinstance(seconds, bool)
    _expect("_buffer_time", value, numeric and seconds >= 0, "a number of seconds, at least 0")
    _expect("_buffer_time", value, deadline is None or seconds < deadline, f"less than the deadline of {deadline} s")
    return float(seconds)


def _max_attempts(value: Any, on_error: Any) -> int | None:
    _expect("_on_error", on_error, on_error in _ON_ERROR, "one of 'retry', 'quarantine' and 'fail'")
    if value is not None:
        _expect("_max_attempts", value, _is_whole(value, 1, float("inf")), "a whole number, at least 1")
    if on_error == "retry":
        if value is not None:
            raise OptionError(
                f"_max_attempts={value} and _on_error='retry' contradict each other: 'retry' goes on for ever. Say "
                "_on_error='quarantine' or 'fail', or leave _max_attempts out."
            )
        return None
    return DEFAULT_MAX_ATTEMPTS if value is None else int(value)


def _callable(name: str, value: Any, ref_of: Callable[..., Any] = callables.to_runnable_ref) -> Callable[..., Any]:
    if not callable(value):
        raise OptionError(f"{name} is {value!r}: it must be callable.")
    try:
        ref_of(value, current())
    except CallableError as error:
        error.add_note(f"This is the {name} of defer_iteration_with_finalize().")
        raise
    return value


def _args(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise OptionError(f"args is {value!r}: it must be a list or a tuple of the callback's further arguments.")
    return tuple(value)
