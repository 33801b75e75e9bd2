"""A backend for `django.tasks` (and, before Django 6.0, for django-tasks): its tasks travel as ours do.

    TASKS = {"default": {"BACKEND": "defer_django.tasks.DeferBackend", "OPTIONS": {"using": "default"}}}

A task enqueued in a transaction runs if and only if that commits. `OPTIONS` takes `transactional` and `using`, which
are those of `defer()`. Results are not kept.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import django
from django.conf import settings
from django.utils import timezone
from django.utils.module_loading import import_string

from defer_core import current_delivery, defer
from defer_core.errors import PermanentTaskFailure
from defer_core.record import new_id

if django.VERSION >= (6, 0):
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import TaskContext, TaskError, TaskResult, TaskResultStatus
    from django.tasks.signals import task_enqueued, task_finished, task_started
else:
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import TaskContext, TaskError, TaskResult, TaskResultStatus
    from django_tasks.signals import task_enqueued, task_finished, task_started


class DeferBackend(BaseTaskBackend):
    """Sends tasks by `defer()`."""

    supports_defer: ClassVar[bool] = True
    supports_async_task: ClassVar[bool] = True
    supports_get_result: ClassVar[bool] = False
    supports_priority: ClassVar[bool] = False

    def __init__(self, alias: str, params: Mapping[str, Any]) -> None:
        super().__init__(alias, params)
        if unknown := set(self.options) - {"transactional", "using"}:
            raise ValueError(
                f"TASKS[{alias!r}]['OPTIONS'] has {sorted(unknown)}: it takes 'transactional' and 'using'."
            )

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Defer the task. Raises InvalidTask, TypeError for arguments that are no JSON, and what `defer()` raises."""
        self.validate_task(task)
        job = Job(id=new_id(), backend=self.alias, queue=task.queue_name, enqueued=timezone.now())
        result = job.result(task, args, kwargs, TaskResultStatus.READY)
        options = {f"_{name}": value for name, value in self.options.items()}
        call = (import_string(task.module_path), *job.wire(), result.args, result.kwargs)
        defer(run, *call, _queue=task.queue_name, _eta=task.run_after, **options)
        task_enqueued.send(type(self), task_result=result)
        return result


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run must know to give the task its result and signals."""

    id: str
    """The result's id."""
    backend: str
    """The alias in TASKS."""
    queue: str
    """The queue's short name."""
    enqueued: datetime
    """When it was enqueued."""

    def wire(self) -> tuple[str, str, str, float]:
        """As it travels: positional arguments of `run`, after the task, which travels by name like any callable."""
        return self.id, self.backend, self.queue, self.enqueued.timestamp()

    def result(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], status: Any) -> Any:
        """A TaskResult in the state `status`, of an attempt that begins now unless it is only enqueued."""
        begun = None if status == TaskResultStatus.READY else timezone.now()
        return TaskResult(
            task=task,
            id=self.id,
            status=status,
            enqueued_at=self.enqueued,
            started_at=begun,
            finished_at=None,
            last_attempted_at=begun,
            args=list(args),
            kwargs=dict(kwargs),
            backend=self.backend,
            errors=[],
            worker_ids=_attempts(),
        )


def run(
    named: Any, result_id: str, backend: str, queue: str, enqueued: float, args: list[Any], kwargs: dict[str, Any]
) -> None:
    """Run a task of `django.tasks`. An exception is the queue's to retry and finishes nothing, unless permanent."""
    zone = timezone.get_default_timezone() if settings.USE_TZ else None
    since = datetime.fromtimestamp(enqueued, zone)
    task = named.using(backend=backend, queue_name=queue)
    job = Job(id=result_id, backend=backend, queue=queue, enqueued=since)
    result = job.result(task, args, kwargs, TaskResultStatus.RUNNING)
    sender = type(task.get_backend())
    task_started.send(sender, task_result=result)
    try:
        context = (TaskContext(task_result=result),) if task.takes_context else ()
        returned = task.call(*context, *result.args, **result.kwargs)
    except PermanentTaskFailure as error:
        _finish(sender, result, TaskResultStatus.FAILED, errors=[_error(error)])
        raise
    _finish(sender, result, TaskResultStatus.SUCCESSFUL, _return_value=returned)


def _attempts() -> list[str]:
    """One worker for each attempt, for their number is what `TaskContext.attempt` tells."""
    delivery = current_delivery()
    return [] if delivery is None else [delivery.task_name] * ((delivery.retry_count or 0) + 1)


def _error(error: Exception) -> Any:
    kind = type(error)
    text = "".join(traceback.format_exception(error))
    return TaskError(exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=text)


def _finish(sender: type, result: Any, status: Any, **fields: Any) -> None:
    """Results are frozen to their readers, as Django's own backends have it."""
    for name, value in {"status": status, "finished_at": timezone.now(), **fields}.items():
        object.__setattr__(result, name, value)
    task_finished.send(sender, task_result=result)
