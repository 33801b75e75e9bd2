"""Tasks of `django.tasks`, or of its backport."""

from __future__ import annotations

from typing import Any

import django

from defer_core import PermanentTaskFailure

from . import tasks

if django.VERSION >= (6, 0):
    from django.tasks import task
else:
    from django_tasks import task


@task
def add(a: int, b: int) -> int:
    tasks.record("add", a, b)
    return a + b


@task(takes_context=True, queue_name="mail")
def attempt(context: Any) -> None:
    tasks.record("attempt", context.attempt)
    if context.attempt < 2:
        raise ValueError("not yet")


@task
async def later() -> None:
    tasks.record("later")


@task
def refuse() -> None:
    raise PermanentTaskFailure("never")
