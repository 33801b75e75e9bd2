"""What the golden bodies of older libraries call. The names in here are in those bodies: they stay."""

from __future__ import annotations

from typing import Any

ran: list[Any] = []


def plain(*args: Any, **kwargs: Any) -> None:
    ran.append(("plain", args, kwargs))


def callback(row: Any, *args: Any, **kwargs: Any) -> None:
    ran.append(("callback", row.number, args, kwargs))


def finalize(*args: Any, **kwargs: Any) -> None:
    ran.append(("finalize", args, kwargs))


class Counter:
    """An instance whose bound method was deferred."""

    def __init__(self, start: int) -> None:
        self.start = start

    def add(self, number: int) -> None:
        ran.append(("add", self.start + number))
