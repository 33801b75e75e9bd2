"""A backend for `django.tasks` (and, before Django 6.0, for django-tasks), whose tasks travel like ours.

    TASKS = {"default": {"BACKEND": "defer_django.tasks.DeferBackend", "OPTIONS": {"using": "default"}}}

A task enqueued in a transaction runs if and only if that commits. `OPTIONS` takes `transactional` and `using`, as
`defer()` does. Results are not kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, ClassVar

import django
from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.utils import timezone
from django.utils.module_loading import import_string

from defer_core import current_delivery, defer
from defer_core.errors import PermanentTaskFailure
from defer_core.spi import check_arguments, finished, label, new_id, traceback_of

if django.VERSION >= (6, 0):
    from django.tasks.backends.base import BaseTaskBackend
    from django.tasks.base import TaskContext, TaskError, TaskResult, TaskResultStatus
    from django.tasks.exceptions import InvalidTask
    from django.tasks.signals import task_enqueued, task_finished, task_started
    from django.utils.json import normalize_json
else:
    from django_tasks.backends.base import BaseTaskBackend
    from django_tasks.base import TaskContext, TaskError, TaskResult, TaskResultStatus
    from django_tasks.exceptions import InvalidTaskError as InvalidTask
    from django_tasks.signals import task_enqueued, task_finished, task_started
    from django_tasks.utils import normalize_json


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

    def check(self, **kwargs: Any) -> list[CheckMessage]:
        """Report `defer.E005` if the app is missing, without which nothing reads the settings."""
        if apps.is_installed("defer_django"):
            return []
        hint = 'Add "defer_django" to INSTALLED_APPS, and run `migrate`.'
        return [Error('DeferBackend needs "defer_django" in INSTALLED_APPS.', hint=hint, id="defer.E005")]

    def enqueue(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Defer the task. Raises InvalidTask, TypeError for arguments that are not JSON, and any error of `defer()`."""
        self.validate_task(task)
        named = _named(task)
        check_arguments(task.func, (*((None,) if task.takes_context else ()), *args), kwargs)
        job = Job(id=new_id(), backend=self.alias, queue=task.queue_name, enqueued=timezone.now())
        result = job.result(task, args, kwargs, TaskResultStatus.READY)
        options = {f"_{name}": value for name, value in self.options.items()}
        call = (named, *job.wire(), result.args, result.kwargs)
        defer(run, *call, _queue=task.queue_name, _eta=task.run_after, **options)
        task_enqueued.send(type(self), task_result=result)
        return result


def _named(task: Any) -> Any:
    """Return the task that a run will import. Raises InvalidTask if that is another one."""
    try:
        found = import_string(task.module_path)
    except ImportError as error:
        raise InvalidTask(f"{task.module_path} cannot be found: define the task at the top of a module.") from error
    if callable(found) or getattr(found, "func", None) is not task.func:
        raise InvalidTask(f"{task.module_path} is {found!r}, and not this task: give the task its function's name.")
    return found


@dataclass(frozen=True, kw_only=True)
class Job:
    """What a run needs to give the task its result and signals."""

    id: str
    """The result's id."""
    backend: str
    """The alias in TASKS."""
    queue: str
    """The queue's short name."""
    enqueued: datetime
    """When it was enqueued."""

    def wire(self) -> tuple[str, str, str, float]:
        """Return the positional arguments of `run` after the task, which travels by name like any callable."""
        return self.id, self.backend, self.queue, self.enqueued.timestamp()

    def result(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], status: Any) -> Any:
        """Make a TaskResult in the state `status`, of an attempt that begins now unless it is only enqueued."""
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
    """Run a task of `django.tasks`. The queue retries an exception, which finishes nothing unless permanent."""
    if callable(named):  # a deploy has turned it into a plain function
        raise PermanentTaskFailure(f"{label(named)} is not a task any more.")
    zone = timezone.get_default_timezone() if settings.USE_TZ else None
    since = datetime.fromtimestamp(enqueued, zone)
    task = named.using(backend=backend, queue_name=queue)
    job = Job(id=result_id, backend=backend, queue=queue, enqueued=since)
    result = job.result(task, args, kwargs, TaskResultStatus.RUNNING)
    sender = type(task.get_backend())
    task_started.send(sender, task_result=result)
    try:
        returned = _returned(task, result)
    except PermanentTaskFailure as error:
        _finish(sender, result, TaskResultStatus.FAILED, errors=[_error(error)])
        raise
    _finish(sender, result, TaskResultStatus.SUCCESSFUL, _return_value=returned)


run.calls_its_first = True  # type: ignore[attr-defined]  # so that lists for people name the task


def _returned(task: Any, result: Any) -> Any:
    """Run the task and return its result as JSON has it. Raises PermanentTaskFailure for any other, which a retry would
    return again."""
    context = (TaskContext(task_result=result),) if task.takes_context else ()
    returned = finished(task.call(*context, *result.args, **result.kwargs))
    try:
        return normalize_json(returned)
    except Exception as error:
        raise PermanentTaskFailure(f"The task has run, and its result is not JSON: {error}") from error


def _attempts() -> list[str]:
    """Return one worker for each attempt: `TaskContext.attempt` counts them."""
    delivery = current_delivery()
    return [] if delivery is None else [delivery.task_name] * ((delivery.retry_count or 0) + 1)


def _error(error: Exception) -> Any:
    kind = type(error)
    return TaskError(exception_class_path=f"{kind.__module__}.{kind.__qualname__}", traceback=traceback_of(error))


def _finish(sender: type, result: Any, status: Any, **fields: Any) -> None:
    """Write a result and send its signal; like Django's own backends past its frozen dataclass."""
    for name, value in {"status": status, "finished_at": timezone.now(), **fields}.items():
        object.__setattr__(result, name, value)
    task_finished.send(sender, task_result=result)
