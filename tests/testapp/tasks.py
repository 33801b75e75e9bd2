"""Callables to defer."""

from __future__ import annotations

from typing import Any

calls: list[tuple[Any, ...]] = []
"""What `record` was called with; the fixture `calls` empties it."""


def record(*args: Any, **kwargs: Any) -> None:
    """Note a call."""
    calls.append((*args, kwargs) if kwargs else args)


def fail(message: str = "no") -> None:
    """A task that raises."""
    raise ValueError(message)


def refuse(*args: Any, **kwargs: Any) -> None:
    """A task that raises, whatever it is given."""
    raise ValueError("refused")


def ledger(key: str) -> None:
    """Count a run in the database."""
    from django.db.models import F

    from .models import Ledger

    if not Ledger.objects.filter(key=key).update(count=F("count") + 1):
        Ledger.objects.create(key=key, count=1)
