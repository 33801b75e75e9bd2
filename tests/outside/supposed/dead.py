"""A dead letter of the shop."""

from __future__ import annotations


def fail() -> None:
    """A task that cannot be done."""
    from defer_core import PermanentTaskFailure

    raise PermanentTaskFailure("It cannot be done.")


def bury() -> None:
    """Leave a dead letter of it."""
    from outside.supposed import shop

    from defer_core import defer

    defer(fail)
    shop.deliver()
