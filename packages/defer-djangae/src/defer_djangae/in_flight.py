"""Iterations of Djangae that were in flight at the switch: run what their queued pickles name under our own protocol.

A plan becomes an iteration, and a shard (from the row that it had reached) an iteration of one shard. Their ids are
derived, so that a body delivered twice makes one of each. What cannot continue is a dead letter with the remedy.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from defer_core import current_delivery, defer
from defer_core.errors import DecodeError, PermanentTaskFailure, SingularTaskFailure
from defer_core.spi import current

log = logging.getLogger("defer")

_IDS = uuid.UUID("6a7f0c0e-4f9b-5a56-9c5d-6a1d2f6f0b1e")
UNREADY = 3600.0
"""Seconds for which shards wait for a planner of Djangae's that may still run."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """A queued plan or shard of any release of Djangae."""

    model: Any
    """The model."""
    query: Any
    """Its query; that of a shard begins at the row that it had reached."""
    using: str | None
    """The rows' database; None if that release did not name it."""
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
    """Read the arguments after the query, by release: `[using] callback finalize [order_field [version]]`."""
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
    """Begin an iteration of ours in the place of a plan (`_generate_shards`) of Djangae 1 or 2."""
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
    """Continue a shard (`_process_shard`) of Djangae 1 or 2 as an iteration of one shard, and count its end."""
    from defer_iteration.stores.routing import alias_for

    if not _may_go_on(marker_id):
        return
    work = work_of(model, query, rest, args, kwargs, named)
    alias = alias_for(_queryset(work), None)
    ended = partial(shard_ended, alias, marker_id, shard_number, work.version, work.finalize)
    _start(work, ended, shard_id(marker_id, shard_number), using=alias, buffer_time=buffer_time)


def shard_ended(
    alias: str, marker_id: int, shard_number: int, version: str | None, finalize: Any, /, *args: Any, **kwargs: Any
) -> None:
    """Count a shard once, and defer `finalize` with the last, under a lock of the marker's row."""
    from django.db import router, transaction

    from defer_iteration.stores.routing import store_on

    from .markers import DeferIterationMarker

    database = router.db_for_write(DeferIterationMarker)
    with transaction.atomic(using=database):
        markers = DeferIterationMarker.objects.using(database).filter(pk=marker_id)
        markers.update(is_ready=True)  # a write locks the row, on SQLite too
        marker: Any = markers.first()
        if marker is None or marker.is_finished or not _count(alias, shard_id(marker_id, shard_number)):
            return
        marker.shards_complete += 1
        marker.save()
        if marker.is_finished:
            for number in range(marker.shard_count):
                store_on(alias).delete(shard_id(marker_id, number))
            if marker.delete_on_completion:
                marker.delete()
            defer(finalize, *args, _queue=_queue(), _version=version, **kwargs)


def run_from_datastore(deferred_task_id: int) -> None:
    """Run a call that Djangae 2 has stored in its own table, and delete the row."""
    from django.db import DatabaseError

    from defer_core.spi import load_legacy

    from .markers import StoredTask

    try:
        stored = StoredTask.objects.filter(pk=deferred_task_id).first()
    except DatabaseError as error:
        raise PermanentTaskFailure(
            f"Djangae's table {StoredTask._meta.db_table} cannot be read ({error}): keep it until its tasks have run."
        ) from error
    if stored is None:
        raise PermanentTaskFailure(
            f"Row {deferred_task_id} of {StoredTask._meta.db_table} does not exist: its task has run, or never was."
        )
    try:
        func, args, kwargs = load_legacy(bytes(stored.data), current().policy)
    except DecodeError as error:
        raise PermanentTaskFailure(str(error)) from error
    func(*args, **kwargs)
    stored.delete()


def shard_id(marker_id: int, shard_number: int) -> str:
    """Derive the id of the iteration that continues a shard of Djangae's."""
    return uuid.uuid5(_IDS, f"shard {marker_id} {shard_number}").hex


def _id_of_delivery() -> str | None:
    delivery = current_delivery()
    if delivery is None or not delivery.task_name:
        return None
    return uuid.uuid5(_IDS, f"plan {delivery.queue} {delivery.task_name}").hex


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
    """Begin an iteration, and keep its marker for late duplicates of the body. Raises PermanentTaskFailure."""
    from defer_iteration.api import start
    from defer_iteration.errors import IterationRefusedError
    from defer_iteration.model.iteration import IterationOptions
    from defer_iteration.protocol.job import Job

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
    """Make the queryset. Raises PermanentTaskFailure for a query that another release of Django has pickled."""
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


def _may_go_on(marker_id: int) -> bool:
    """Tell whether a shard's iteration is unfinished. Raises SingularTaskFailure while Djangae's planner runs."""
    from django.utils import timezone

    from .markers import DeferIterationMarker

    marker = DeferIterationMarker.objects.filter(pk=marker_id).first()
    if marker is None or marker.is_finished:
        log.info("The iteration %s of Djangae is finished: its shard has nothing to do.", marker_id)
        return False
    if not marker.is_ready:
        if (timezone.now() - marker.created).total_seconds() < UNREADY:
            raise SingularTaskFailure(f"The iteration {marker_id} of Djangae is still being planned.")
        raise PermanentTaskFailure(f"The iteration {marker_id} of Djangae was never planned to its end. {START_AGAIN}")
    return True


def _count(alias: str, iteration_id: str) -> bool:
    """Move a shard's iteration to `done`; return False if it was counted before."""
    from defer_iteration.model.iteration import IterationState
    from defer_iteration.stores.routing import store_on

    counted = store_on(alias).control(iteration_id, IterationState.DONE, when=(IterationState.FINALIZING,))
    return counted is not None


def _queue() -> str:
    delivery = current_delivery()
    return (delivery.queue if delivery else "") or "default"
