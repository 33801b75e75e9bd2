"""Iterations of Djangae that were in flight at the switch: what their queued pickles name, done under our own protocol.

A plan becomes an iteration, and a shard (from the row that it had come to) an iteration of one shard. Their ids are
derived, so that a body delivered twice makes one of each. What cannot go on is a dead letter that says what to do.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from defer_core import current_delivery, defer
from defer_core.config import current
from defer_core.errors import DecodeError, PermanentTaskFailure, SingularTaskFailure

log = logging.getLogger("defer")

_IDS = uuid.UUID("6a7f0c0e-4f9b-5a56-9c5d-6a1d2f6f0b1e")
UNREADY = 3600.0
"""Seconds for which shards wait for a planner of Djangae's that may still be at work."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a queued plan or shard of any release of Djangae says."""

    model: Any
    """The model."""
    query: Any
    """Its query; a shard's begins at the row that it had come to."""
    using: str | None
    """The rows' database; None where that release did not say."""
    callback: Callable[..., Any]
    """Called with each row."""
    finalize: Callable[..., Any]
    """Called at the end."""
    order_field: str = "pk"
    """The order of the rows."""
    version: str | None = None
    """The App Engine version of its tasks."""
    args: Sequence[Any] = ()
    """Positional arguments of both."""
    kwargs: Mapping[str, Any]
    """Keyword arguments of both."""


def work_of(model: Any, query: Any, rest: Sequence[Any], args: Any, kwargs: Any, named: Mapping[str, Any]) -> Work:
    """What follows the query differs by release: `[using] callback finalize [order_field [version]]`."""
    parts = list(rest)
    using = None if callable(parts[0]) else parts.pop(0)
    callback, finalize, *more = parts
    order = dict(zip(("order_field", "version"), more, strict=False))
    return Work(
        model=model, query=query, using=using, callback=callback, finalize=finalize, args=tuple(args or ()),
        kwargs=dict(kwargs or {}), **{**named, **order},
    )  # fmt: skip


def generate_shards(
    model: Any,
    query: Any,
    *rest: Any,
    args: Any = None,
    kwargs: Any = None,
    shards: int = 5,
    delete_marker: bool = True,
    buffer_time: float | None = None,
    key_ranges_getter: Any = None,
    **named: Any,
) -> None:
    """A plan (`_generate_shards`) of Djangae 1 or 2: an iteration of ours is begun in its place."""
    from .positional import normalised

    work = work_of(model, query, rest, args, kwargs, named)
    getter = normalised({"key_ranges_getter": key_ranges_getter}).get("key_ranges_getter")
    _start(work, work.finalize, _id_of_delivery(), shards=shards, buffer_time=buffer_time, getter=getter)


def process_shard(
    marker_id: int,
    shard_number: int,
    model: Any,
    query: Any,
    *rest: Any,
    args: Any = None,
    kwargs: Any = None,
    buffer_time: float | None = None,
    **named: Any,
) -> None:
    """A shard (`_process_shard`) of Djangae 1 or 2: goes on as an iteration of one shard, whose end is counted."""
    if not _may_go_on(marker_id):
        return
    work = work_of(model, query, rest, args, kwargs, named)
    alias = _alias_of(work)
    ended = partial(shard_ended, alias, marker_id, shard_number, work.version, work.finalize)
    _start(work, ended, shard_id(marker_id, shard_number), using=alias, buffer_time=buffer_time)


def shard_ended(
    alias: str, marker_id: int, shard_number: int, version: str | None, finalize: Any, /, *args: Any, **kwargs: Any
) -> None:
    """Count a shard, once; with the last one, `finalize` is deferred. The marker's row is locked meanwhile."""
    from django.db import router, transaction

    from .markers import DeferIterationMarker

    database = router.db_for_write(DeferIterationMarker)
    with transaction.atomic(using=database):
        markers = DeferIterationMarker.objects.using(database).filter(pk=marker_id)
        markers.update(is_ready=True)  # the lock: a write, on SQLite too
        marker: Any = markers.first()
        if marker is None or marker.is_finished or not _count(alias, shard_id(marker_id, shard_number)):
            return
        marker.shards_complete += 1
        marker.save()
        if marker.is_finished:
            _forget_shards(alias, marker_id, marker.shard_count)
            if marker.delete_on_completion:
                marker.delete()
            defer(finalize, *args, _queue=_queue(), _version=version, **kwargs)


def run_from_datastore(deferred_task_id: int) -> None:
    """A task whose call Djangae 2 has stored in its own table. The row is deleted once it has run."""
    from django.db import DatabaseError

    from defer_core.legacy import load

    from .markers import StoredTask

    try:
        stored = StoredTask.objects.filter(pk=deferred_task_id).first()
    except DatabaseError as error:
        raise PermanentTaskFailure(
            f"Djangae's table {StoredTask._meta.db_table} cannot be read ({error}): keep it until its tasks are done."
        ) from error
    if stored is None:
        raise PermanentTaskFailure(
            f"Row {deferred_task_id} of {StoredTask._meta.db_table} is gone: it has run, or never was."
        )
    try:
        func, args, kwargs = load(bytes(stored.data), current().policy)
    except DecodeError as error:
        raise PermanentTaskFailure(str(error)) from error
    func(*args, **kwargs)
    stored.delete()


def shard_id(marker_id: int, shard_number: int) -> str:
    """The id of the iteration that stands for a shard of Djangae's."""
    return uuid.uuid5(_IDS, f"shard {marker_id} {shard_number}").hex


def _id_of_delivery() -> str | None:
    delivery = current_delivery()
    return (
        uuid.uuid5(_IDS, f"plan {delivery.queue} {delivery.task_name}").hex if delivery and delivery.task_name else None
    )


def _start(
    work: Work,
    finalize: Any,
    iteration_id: str | None,
    *,
    shards: int = 1,
    using: str | None = None,
    buffer_time: float | None = None,
    getter: Any = None,
) -> None:
    """Begin an iteration; its marker is kept, for late duplicates of the body to find. Raises PermanentTaskFailure."""
    from defer_iteration.api import start
    from defer_iteration.errors import IterationRefusedError
    from defer_iteration.iteration import IterationOptions
    from defer_iteration.job import Job

    options = IterationOptions(
        queue=_queue(), version=work.version, shards=shards, order_field=work.order_field, buffer_time=buffer_time,
        delete_marker=False,
    )  # fmt: skip
    job = Job(
        source=_queryset(work), callback=work.callback, finalize=finalize, args=tuple(work.args), kwargs=work.kwargs,
        key_ranges_getter=getter,
    )  # fmt: skip
    try:
        start(job, options, using=using, iteration_id=iteration_id)
    except IterationRefusedError as error:
        raise PermanentTaskFailure(f"{error} {START_AGAIN}") from error


START_AGAIN = "Drop this dead letter, and call defer_iteration_with_finalize again."


def _queryset(work: Work) -> Any:
    """The rows. Raises PermanentTaskFailure for a query that another release of Django has pickled."""
    from django import get_version
    from django.core.exceptions import EmptyResultSet
    from django.db.models.query import QuerySet

    missing: set[str] = vars(type(work.query)(work.model)).keys() - vars(work.query).keys()
    try:
        queryset: Any = QuerySet(model=work.model, query=work.query.clone(), using=work.using)
        str(queryset.query)
    except EmptyResultSet:
        pass
    except Exception as error:
        missing |= {repr(error)}
    if missing:
        raise PermanentTaskFailure(
            f"The query of {work.model.__name__} was pickled by another release of Django than {get_version()} "
            f"({', '.join(sorted(missing))}): run this dead letter again under that release. Or: {START_AGAIN}"
        )
    return queryset


def _alias_of(work: Work) -> str:
    from defer_iteration.tables import alias_for

    return alias_for(_queryset(work), None)


def _may_go_on(marker_id: int) -> bool:
    """Whether a shard's iteration is still under way. Raises SingularTaskFailure while Djangae's planner is at work."""
    from django.utils import timezone

    from .markers import DeferIterationMarker

    marker = DeferIterationMarker.objects.filter(pk=marker_id).first()
    if marker is None or marker.is_finished:
        log.info("The iteration %s of Djangae is over: its shard has nothing to do.", marker_id)
        return False
    if not marker.is_ready:
        if (timezone.now() - marker.created).total_seconds() < UNREADY:
            raise SingularTaskFailure(f"The iteration {marker_id} of Djangae is still being planned.")
        raise PermanentTaskFailure(f"The iteration {marker_id} of Djangae was never planned to its end. {START_AGAIN}")
    return True


def _count(alias: str, iteration_id: str) -> bool:
    """Whether this is the first time that a shard is counted: its iteration moves to `done` with that."""
    from defer_iteration.iteration import IterationState
    from defer_iteration.stores import store_on

    counted = store_on(alias).control(iteration_id, IterationState.DONE, when=(IterationState.FINALIZING,))
    return counted is not None


def _forget_shards(alias: str, marker_id: int, count: int) -> None:
    from defer_iteration.stores import store_on

    for number in range(count):
        store_on(alias).delete(shard_id(marker_id, number))


def _queue() -> str:
    delivery = current_delivery()
    return (delivery.queue if delivery else "") or "default"
