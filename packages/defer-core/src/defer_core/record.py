"""A store's record of a task: large payload, outbox entry and dead letter in one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from .nouns import fast_init
from .task import Routing


class State(StrEnum):
    """The state of a record."""

    PENDING = "pending"
    """Not known to have been sent (or sent inline, and not yet forgotten)."""
    SENT = "sent"
    """Sent by claim check: the run that finishes it deletes it."""
    FAILING = "failing"
    """Has run and failed; its queue will retry it."""
    DEAD = "dead"
    """Will not run by itself again: a person decides."""


@fast_init
@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """One task in a store."""

    id: str
    """32 hexadecimal digits, random; the task's name in its queue is derived from it."""
    envelope: bytes = field(repr=False)
    """The envelope that travels: with the payload, or with a claim check of it."""
    payload: bytes | None = field(default=None, repr=False)
    """The stored payload; None if it is inline."""
    routing: Routing = field(default_factory=Routing)
    """Where and when the task goes."""
    state: State = State.PENDING
    """The state of the record."""
    idempotent: bool = False
    """True if a doubtful send may always be repeated."""
    verified: bool = True
    """False for a body that was accepted but never verified: it is run again only if it verifies then."""
    created: float = 0.0
    """When it was made, in seconds since the epoch."""
    due: float = 0.0
    """When the sweep may next handle it, in seconds since the epoch. A failing task that is still failing then counts
    as dropped by its queue."""
    attempts: int = 0
    """The number of attempts: to send it while it is pending, to run it after that."""
    doubtful_since: float | None = None
    """When it was first sent without an answer, in seconds since the epoch."""
    lease: str = ""
    """The token of its lease, empty without one; every change is conditional on it."""
    last_error: str = ""
    """The last error, with its traceback."""
    reason: str = ""
    """Why it is dead, in a word or two: `permanent`, `gave up`, `silent`, `exhausted`, `held`, `missing payload`,
    `unverified`, `unreadable`, `expired`, `wrong queue`."""
    first_attempt: float | None = None
    """When it was first attempted, in seconds since the epoch."""
    last_attempt: float | None = None
    """When it was last attempted."""
    label: str = ""
    """The name of its callable, for people: `shop.tasks:ship`."""

    @property
    def is_claim_check(self) -> bool:
        """True if the payload is stored here, and the envelope has a claim check of it."""
        return self.payload is not None


def dead(reason: str) -> dict[str, Any]:
    """Return the changes that make a record a dead letter. (Nothing else makes one.)"""
    return {"state": State.DEAD, "reason": reason}


def new_id() -> str:
    """Return a fresh record id: random, so that names have no hot prefix."""
    return os.urandom(16).hex()
