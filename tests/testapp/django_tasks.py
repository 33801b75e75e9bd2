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


@task(takes_context=True)
def log_in(context: Any, user: str, password: str) -> None:
    raise PermanentTaskFailure("never")


@task
def give(what: str) -> Any:
    tasks.record("give", what)
    return {"none": None, "tuple": (1, 2), "object": object(), "deep": {"a": [{1, 2}]}, "generator": iter_of()}[what]


def iter_of() -> Any:
    yield 1


def plain(number: int) -> None:
    tasks.record("plain", number)


wrapped = task(plain)
unnamed = task(lambda: None)


def replaced() -> None:
    pass


first = task(replaced)


@task
def replaced() -> None:  # type: ignore[no-redef]
    pass


class Holder:
    @task
    def method() -> None:  # type: ignore[misc]
        pass


def decorated_after(inner: Any) -> Any:
    return lambda: inner.enqueue()


@decorated_after
@task
def hidden() -> None:
    pass


hidden_task = hidden.__closure__[0].cell_contents  # type: ignore[attr-defined]
