"""What a store keeps of a task: large payload, outbox entry and dead letter in one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from enum import StrEnum

from .task import Routing


class State(StrEnum):
    """Where a record stands."""

    PENDING = "pending"
    """Not known to have been sent (or sent inline, and not yet forgotten)."""
    SENT = "sent"
    """Sent as a Claim: the run that finishes it deletes it."""
    DEAD = "dead"
    """Will not run by itself again: a person decides."""


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """One task in a store."""

    id: str
    """32 hexadecimal digits, random; the task's name in its queue is derived from it."""
    envelope: bytes = field(repr=False)
    """The envelope as it travels: with the payload, or with a Claim of the payload beside it."""
    payload: bytes | None = field(default=None, repr=False)
    """The payload that the envelope claims; None where it is inline."""
    routing: Routing = field(default_factory=Routing)
    """Where and when the task goes."""
    state: State = State.PENDING
    """Where the record stands."""
    idempotent: bool = False
    """A doubtful send may always be repeated."""
    verified: bool = True
    """False for a body that came through a door but was never verified: it is re-run only if it verifies then."""
    created: float = 0.0
    """When it was made, in seconds since the epoch."""
    due: float = 0.0
    """When the sweep may next look at it, in seconds since the epoch."""
    attempts: int = 0
    """How often the sweep, or a failed first send, has tried to send it."""
    doubtful_since: float | None = None
    """The first try whose answer is unknown, in seconds since the epoch."""
    lease: str = ""
    """The token of whoever holds it, empty for nobody; every change is conditional on it."""
    last_error: str = ""
    """The last error, with its traceback."""
    reason: str = ""
    """Why it is dead, in a word or two: `permanent`, `exhausted`, `held`, `missing payload`, `unverified`,
    `unreadable`, `expired`."""
    first_attempt: float | None = None
    """When it was first attempted, in seconds since the epoch."""
    last_attempt: float | None = None
    """When it was last attempted."""
    label: str = ""
    """What it calls, for people: `shop.tasks:ship`."""

    @property
    def is_claim(self) -> bool:
        """Whether the payload is kept here and only claimed by the envelope."""
        return self.payload is not None


def new_id() -> str:
    """A fresh record id: random, so that names have no hot prefix."""
    return os.urandom(16).hex()
