"""`defer_iteration_with_finalize`: walk a queryset in parallel shards, then call `finalize` once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from unicodedata import category

from defer_core.errors import CallableError, OptionError
from defer_core.spi import (
    TaskOptions,
    check_arguments,
    check_placement,
    clock,
    current,
    current_trace,
    label,
    nearest,
    new_id,
    parse_options,
    to_ref,
    to_runnable_ref,
)

from .errors import IterationRefusedError
from .handle import IterationHandle
from .model.iteration import DEFAULT_MAX_ATTEMPTS, MAX_LABEL, Iteration, IterationOptions, id_of
from .protocol import job as jobs
from .protocol.job import Job
from .protocol.timing import grace
from .rows.base import PAGE, KeyRangesGetter, Rows
from .rows.sources import checked, is_function, rows_over
from .stores.routing import alias_for
from .tasks import scheduler_on

MAX_SHARDS = 10_000
"""How many shards an iteration may have."""
MAX_NAME = 200
"""How many characters a name may have."""
_UNFIT = ("Cc", "Cs")
"""The categories of characters that no name has: control characters and lone surrogates."""
_GENERATIONS = 2**30
"""The generations of named iterations begin at a random number below this."""
_ON_ERROR = ("retry", "quarantine", "fail")
_NAMES = {
    "_queue", "_shards", "_delete_marker", "_transactional", "_buffer_time", "_service", "_version", "_target",
    "_dispatch_deadline", "_using", "_atomic", "_max_attempts", "_on_error", "_name", "_on_failed", "_throttle",
    "_max_rows_per_second", "_rebalance", "_batch", "_limit",
}  # fmt: skip


def defer_iteration_with_finalize(
    queryset: Any,
    callback: Callable[..., Any],
    finalize: Callable[..., Any],
    args: Sequence[Any] | None = None,
    _queue: str = "default",
    _shards: int = 5,
    _delete_marker: bool | None = None,
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
    _batch: int | None = None,
    _max_attempts: int | None = None,
    _on_error: str = "retry",
    _name: str | None = None,
    _on_failed: Callable[..., Any] | None = None,
    _throttle: Callable[[], Any] | None = None,
    _max_rows_per_second: float | None = None,
    _limit: int | None = None,
    _rebalance: bool | None = None,
    **kwargs: Any,
) -> IterationHandle:
    """Call `callback(instance, *args, **kwargs)` for every row of `queryset` (or of what a module-level function
    returns), in `_shards` parallel shards, then `finalize(*args, **kwargs)` once. With `_batch`, call it for lists of
    instances, of at most so many. With a `_name` that was given before, begin nothing: return the handle of that
    iteration, wherever it stands.

    Raise IterationRefusedError or OptionError (both are TypeErrors), CallableError, UnserializableError, ConfigError
    or NotInTransactionError, with nothing written.
    """
    for name in kwargs:
        if name.startswith("_"):
            raise OptionError(f"defer_iteration_with_finalize() has no option {name!r}{nearest(name, _NAMES)}.")
    name = _checked_name(_name)
    wanted = _options(
        routing={
            "_queue": _queue, "_service": _service, "_version": _version, "_target": _target,
            "_dispatch_deadline": _dispatch_deadline, "_transactional": _transactional,
        },
        shards=_shards, order_field=order_field, delete_marker=not name if _delete_marker is None else _delete_marker,
        buffer_time=_buffer_time, atomic=_atomic, batch=_batch, max_attempts=_max_attempts, on_error=_on_error,
        on_failed=_on_failed is not None, max_rows_per_second=_max_rows_per_second, limit=_limit,
        rebalance=_rebalances(_rebalance, _shards, key_ranges_getter),
    )  # fmt: skip
    given = _args(args)
    work = Job(
        source=queryset,
        callback=_fitting("callback", callback, ("a row", *given), kwargs),
        finalize=_fitting("finalize", finalize, given, kwargs),
        args=given,
        kwargs=kwargs,
        key_ranges_getter=None
        if key_ranges_getter is None
        else _callable("key_ranges_getter", key_ranges_getter, to_ref),  # which may be a generator function
        on_failed=None if _on_failed is None else _fitting("_on_failed", _on_failed, given, kwargs),
        throttle=None if _throttle is None else _fitting("_throttle", _throttle, (), {}),
    )
    return start(work, wanted, using=_using, transactional=bool(_transactional), name=name)


def start(
    job: Job,
    wanted: IterationOptions,
    *,
    using: str | None = None,
    transactional: bool = False,
    iteration_id: str | None = None,
    name: str = "",
) -> IterationHandle:
    """Write an iteration and the record of its plan, in one transaction: the caller's, if one is open on that alias.

    Write nothing if there is an iteration with this `iteration_id` (32 hexadecimal digits) or `name` already. Raise
    IterationRefusedError if the one of that name calls something else.
    """
    job, alias = _checked(job, wanted, using)
    scheduler, now = scheduler_on(alias), clock.now()
    check_placement(TaskOptions(using=alias, transactional=transactional))
    if wanted.limit is not None and scheduler.store.page is not None:  # one transaction gives each shard its rest
        most = scheduler.store.page
        _expect("_shards", wanted.shards, wanted.shards < most, f"below {most} on {alias!r}, with a _limit")
    known = id_of(name) if name else iteration_id
    iteration = Iteration(
        id=known or new_id(),
        job=jobs.pack(job),
        options=wanted,
        name=name,
        label=label(job.callback)[:MAX_LABEL],
        # no task and no attempt of an earlier one of this name passes for one of this
        generation=int(new_id(), 16) % _GENERATIONS if name else 0,
        created=now,
        due=now + grace(0),
    )

    def create() -> Iteration | None:
        there = scheduler.store.create(iteration)
        if there is None:
            scheduler.enqueue_plan(iteration)
        return there

    there = (scheduler.store.get(known) if known else None) or scheduler.store.transact(create)
    if there is not None and name and there.label != iteration.label:
        raise IterationRefusedError(
            f"_name={name!r} is that of an iteration that calls {there.label}, and not {iteration.label}: give another "
            "name, or forget() that one once it is over."
        )
    return IterationHandle(id=iteration.id, alias=alias, begun=there is None)


def _checked(job: Job, wanted: IterationOptions, using: str | None) -> tuple[Job, str]:
    """Return the job with a queryset that can travel, and the alias to store the iteration on. Raise
    IterationRefusedError."""
    found = job.source() if is_function(job.source) else job.source
    if isinstance(found, Rows):
        if found is job.source:
            raise IterationRefusedError("Rows cannot travel by themselves: give the function that returns them.")
        _check_rows(job, wanted, using)
        return job, alias_for(None, using)
    found = checked(found)
    found_rows = rows_over(found, wanted.order_field)
    if wanted.limit is not None and not found_rows.can_be_cut_anywhere:
        raise IterationRefusedError(
            f"_limit={wanted.limit}: on Datastore, rows of one {wanted.order_field!r} stay together. Leave one of "
            "the two options out."
        )
    alias = alias_for(found, using)
    if wanted.atomic:
        from .stores.aliases import check_atomic

        check_atomic(found, using or found._db or alias)  # rows of a replica are those of another transaction
    return (job if is_function(job.source) else replace(job, source=found)), alias


def _check_rows(job: Job, wanted: IterationOptions, using: str | None) -> None:
    """Check that the options go with Rows that are no queryset's. Raise IterationRefusedError."""
    if job.key_ranges_getter is not None or wanted.order_field != "pk":
        raise IterationRefusedError("Rows have an order and ranges of their own: leave out order_field and the getter.")
    if wanted.atomic and using is None:
        raise IterationRefusedError(
            "_atomic=True: the rows are in no database, so say by _using which one the callback writes to."
        )


def _options(*, routing: dict[str, Any], **given: Any) -> IterationOptions:
    """Return the options. Raise OptionError, which names the option and what it may be."""
    where = parse_options(routing, current()).routing
    _expect(
        "_shards", given["shards"], _is_whole(given["shards"], 1, MAX_SHARDS), f"a whole number from 1 to {MAX_SHARDS}"
    )
    for name in ("delete_marker", "atomic"):
        _expect(f"_{name}", given[name], isinstance(given[name], bool), "True or False")
    _expect("order_field", given["order_field"], isinstance(given["order_field"], str), "the name of a field")
    _expect(
        "_batch",
        given["batch"],
        given["batch"] is None or _is_whole(given["batch"], 1, PAGE),
        f"a whole number from 1 to {PAGE:,}, or None",
    )
    given["buffer_time"] = _buffer_time(given["buffer_time"], where.dispatch_deadline)
    given["max_attempts"] = _max_attempts(given["max_attempts"], given["on_error"])
    limit = given["limit"]
    _expect("_limit", limit, limit is None or _is_whole(limit, 1, math.inf), "a whole number, at least 1")
    given["max_rows_per_second"] = _max_rows_per_second(given["max_rows_per_second"])
    return IterationOptions(
        queue=where.queue,
        service=where.service,
        version=where.version,
        instance=where.instance,
        dispatch_deadline=where.dispatch_deadline,
        trace=current_trace(),
        **given,
    )


def _rebalances(value: Any, shards: Any, getter: KeyRangesGetter | None) -> bool:
    """Return whether shards give parts to others. Bounds of the caller's own may mean something, and so may the order
    of a single shard."""
    _expect("_rebalance", value, value is None or isinstance(value, bool), "True, False or None")
    return (getter is None and shards != 1) if value is None else bool(value)


def _expect(name: str, value: Any, condition: bool, expected: str) -> None:
    if not condition:
        raise OptionError(f"{name} is {value!r}: it must be {expected}.")


def _is_whole(value: Any, least: int, most: float) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _checked_name(value: Any) -> str:
    """Return the name of an iteration, or an empty one. Raise OptionError."""
    if value is None:
        return ""
    fits = (
        isinstance(value, str) and 1 <= len(value) <= MAX_NAME and not any(category(each) in _UNFIT for each in value)
    )
    _expect("_name", value, fits, f"a text of 1 to {MAX_NAME} characters, none of them a control character")
    return str(value)


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
                f"_max_attempts={value} and _on_error='retry' contradict each other: 'retry' repeats for ever. Set "
                "_on_error to 'quarantine' or 'fail', or leave _max_attempts out."
            )
        return None
    return DEFAULT_MAX_ATTEMPTS if value is None else int(value)


def _max_rows_per_second(value: Any) -> float | None:
    if value is None:
        return None
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    _expect("_max_rows_per_second", value, numeric and 0 < value < math.inf, "a number above 0")
    return float(value)


def _callable(name: str, value: Any, ref_of: Callable[..., Any] = to_runnable_ref) -> Callable[..., Any]:
    if not callable(value):
        raise OptionError(f"{name} is {value!r}: it must be callable.")
    try:
        ref_of(value, current())
    except CallableError as error:
        error.add_note(f"This is the {name} of defer_iteration_with_finalize().")
        raise
    return value


def _fitting(name: str, value: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Callable[..., Any]:
    found = _callable(name, value)
    try:
        check_arguments(found, args, kwargs, _NAMES)
    except OptionError as error:
        error.add_note(f"This is the {name} of defer_iteration_with_finalize().")
        raise
    return found


def _args(value: Any) -> tuple[Any, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise OptionError(f"args is {value!r}: it must be a list or a tuple of the callback's further arguments.")
    return tuple(value)
