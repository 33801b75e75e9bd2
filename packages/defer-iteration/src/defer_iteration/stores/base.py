"""The seam behind which iterations and their shards are stored."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from ..model.counters import Part
from ..model.iteration import Iteration, IterationState, QuarantinedRow
from ..model.shard import KeyRange, Shard, Stalled

Result = TypeVar("Result")
Due = Callable[[int], float]
"""Returns when an attempt counts as stalled (seconds since the epoch), by the number of requeues so far."""


class Completion(Enum):
    """What the end of a shard meant."""

    LOST = "lost"
    """The attempt has lost its fence: nothing was written."""
    OPEN = "open"
    """Other shards are still open, or the iteration is stopped."""
    LAST = "last"
    """It was the last one: the iteration is now `finalizing`, in this transaction."""


class Fault(Enum):
    """Why a transaction failed; nothing of it was written."""

    CONTENTION = "contention"
    """Conflict with a concurrent transaction: retry."""
    CONNECTION = "connection"
    """The connection was lost. If it was lost during the commit, the transaction may have been committed."""
    CONTENT = "content"
    """The commit was refused because of what was written; it may succeed with fewer rows."""
    EARLIER_WRITES = "earlier writes"
    """The query is not allowed after a write; it may succeed at the start of a transaction."""


HISTORY = 30 * 86400.0
"""Seconds for which named iterations are kept once they are over, if nobody says otherwise."""
TRANSIENT_FAULTS = (Fault.CONTENTION, Fault.CONNECTION)
"""Faults that are not held against the row that met them."""


class IterationStore(ABC):
    """Stores Iterations and Shards, in the transactions of the TaskStore on the same alias.

    Every write is conditional, and returns whether it was made. In a transaction, each begins with a write.
    """

    alias: str = ""
    """Which one of its kind: a database alias, the same as the TaskStore's."""
    atomic_rows: ClassVar[int] = 2_000
    """The most rows whose callbacks write in one of its transactions (`_atomic=True`)."""
    page: ClassVar[int | None] = None
    """How many shards one transaction can move, with their tasks; None is any number."""

    # --- transactions -------------------------------------------------------------------------------------------------

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Any]:
        """Return a transaction (or, inside one, a nested one) of the TaskStore and this store at once."""

    def transact(self, work: Callable[[], Result]) -> Result:
        """Do `work` in a transaction, and return what it returns. Outside another transaction, `work` may be begun
        again after a conflict with a concurrent one."""
        with self.transaction():
            return work()

    @abstractmethod
    def in_transaction(self) -> bool:
        """Return whether the caller is in such a transaction."""

    def is_spoilt(self) -> bool:
        """Return whether a database error that was swallowed has made the caller's transaction unusable."""
        return False

    def is_full(self) -> bool:
        """Return whether the caller's transaction should take no more writes of callbacks."""
        return False

    def fault(self, error: Exception) -> Fault | None:
        """Return what an error says about the transaction that raised it, or None."""
        return None

    def reconnect(self) -> bool:
        """Drop a connection that was lost, in favour of a new one. Return False in a transaction, which cannot go
        on."""
        return not self.in_transaction()

    # --- the whole iteration ------------------------------------------------------------------------------------------

    @abstractmethod
    def create(self, iteration: Iteration) -> Iteration | None:
        """Write a new iteration, unless there is one with its id. Return that one, or None if it was written."""

    def prepare(self, iteration: Iteration, shards: Sequence[Shard]) -> Sequence[Shard]:
        """Write shards ahead of `plan`, if they are more than its transaction takes. Return those that are left to
        `plan`: all, or none. Raise FenceLostError if the iteration is not `new` in this generation any more."""
        return shards

    @abstractmethod
    def plan(self, iteration: Iteration, shards: Sequence[Shard], *, total: int | None) -> bool:
        """Move from `new` to `running` and write the shards. Return False, and write nothing, if the iteration is in
        another state or generation by now."""

    @abstractmethod
    def acquire_whole(self, iteration_id: str, state: IterationState, *, due: Due) -> Iteration | None:
        """Begin an attempt at the plan (`new`) or finalize (`finalizing`) of an iteration, in a generation of its own.
        Return None in another state."""

    @abstractmethod
    def control(
        self,
        iteration_id: str,
        to: IterationState,
        *,
        when: Sequence[IterationState],
        reason: str = "",
        due: float = 0.0,
    ) -> Iteration | None:
        """Lock the iteration and move it to the state `to`, if it is in one of `when`. Return it as it was, or None.

        Stopping (`paused`, `held`) keeps the state it leaves. `running` as `to` stands for that state, or for
        `finalizing` if no shard is open, in a new generation."""

    # --- an attempt at a shard ----------------------------------------------------------------------------------------

    @abstractmethod
    def acquire(self, iteration_id: str, index: int, generation: int, *, due: Due) -> tuple[Iteration, Shard] | None:
        """Take the next fence of an open shard of a running iteration, if `generation` is the current one."""

    @abstractmethod
    def checkpoint(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> IterationState | None:
        """Write position, rows, counters, attempts, error, due and requeues of a shard, and add quarantined rows, under
        its generation and fence. Return the iteration's state, or None if the fence is lost."""

    @abstractmethod
    def hand_over(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> IterationState | None:
        """Write a checkpoint that also moves the shard to its next generation, unless the iteration is stopped."""

    @abstractmethod
    def complete(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = (), *, due: float) -> Completion:
        """Lock the iteration, then write the last checkpoint of a shard and that it is done. With the last shard of a
        running iteration, merge the counters and move to `finalizing`, in a new generation."""

    @abstractmethod
    def slots(self, iteration_id: str) -> tuple[int, int]:
        """Return how many shards are done, and how many are open; (0, 0), without counting, if none is done."""

    @abstractmethod
    def divide(self, shard: Shard, ranges: Sequence[KeyRange], *, due: float) -> builtins.list[Shard] | None:
        """Write a checkpoint that leaves a shard the first of these ranges, which together are its range, and give each
        of the others to a shard that is done, in its next generation; the last one that is given takes what is over.

        Lock the iteration first: attempts that divide would otherwise wait for each other's shards. Return the shard
        and those that were given something, as they are now; the shard alone, with nothing written, if none is done or
        the iteration is not running; None if the fence is lost."""

    @abstractmethod
    def renew(
        self, iteration_id: str, *, due: float, after: int = -1, limit: int | None = None
    ) -> builtins.list[Shard]:
        """Move open shards, those with an index above `after`, to their next generation, without failures and requeues.
        If none is open, open those that have rows beyond a trial. Return them by index, as they are now."""

    @abstractmethod
    def record_error(self, attempt: Iteration | Shard, error: str) -> bool:
        """Record what an attempt at a plan, a finalize or a shard raised outside a row. Return False if another attempt
        has it by now."""

    # --- the sweep ----------------------------------------------------------------------------------------------------

    @abstractmethod
    def stalled(self, *, now: float, limit: int) -> builtins.list[Stalled]:
        """Return plans, finalizes, and open shards of running iterations with `due <= now`, the longest stalled
        first."""

    @abstractmethod
    def requeue(self, stalled: Stalled, *, due: float) -> Iteration | Shard | None:
        """Move what has stalled to its next generation and count the requeue. Return it as it is now, or None if it has
        changed since."""

    # --- quarantined rows ---------------------------------------------------------------------------------------------

    @abstractmethod
    def quarantined(self, iteration_id: str) -> builtins.list[QuarantinedRow]:
        """Return an iteration's quarantined rows, by shard and key."""

    @abstractmethod
    def lock_quarantined(self, row: QuarantinedRow) -> QuarantinedRow | None:
        """Lock a quarantined row until the end of the transaction, and return it as it is now; None if it is gone."""

    @abstractmethod
    def record_retry(
        self, row: QuarantinedRow, *, error: str | None, counted: Mapping[str, Part] = MappingProxyType({})
    ) -> None:
        """Record another call of a quarantined row. If it has succeeded (`error` is None), delete the row and add what
        was counted to the iteration's counters; else write the error and one more attempt."""

    # --- reads, and the end -------------------------------------------------------------------------------------------

    @abstractmethod
    def get(self, iteration_id: str) -> Iteration | None:
        """Return one iteration, or None."""

    @abstractmethod
    def list(self, *, limit: int = 100, after: str = "") -> builtins.list[Iteration]:
        """Return iterations by id, those beyond `after`."""

    @abstractmethod
    def shard(self, iteration_id: str, index: int) -> Shard | None:
        """Return one shard, or None."""

    @abstractmethod
    def shards(self, iteration_id: str) -> builtins.list[Shard]:
        """Return an iteration's shards, by index."""

    def clear(self, iteration_id: str) -> None:  # noqa: B027
        """Delete an iteration's shards and rows ahead of `delete`, if they are more than its transaction takes."""

    @abstractmethod
    def delete(self, iteration_id: str) -> None:
        """Delete an iteration with its shards and quarantined rows."""

    # --- history ------------------------------------------------------------------------------------------------------

    def history(self) -> float | None:
        """Return for how many seconds named iterations are kept once they are over; None is for ever."""
        return HISTORY

    @abstractmethod
    def delete_shards(self, iteration: Iteration) -> None:
        """Delete the shards of an iteration that is over, in as many transactions as it takes, unless another one has
        its name by now."""

    @abstractmethod
    def ended(self, *, before: float, limit: int) -> builtins.list[str]:
        """Return the ids of named iterations that ended before a time and have no quarantined rows."""

    @abstractmethod
    def forget(self, iteration_id: str, *, ended_before: float | None = None) -> bool:
        """Delete an iteration that is over; with `ended_before` only one that ended before that time and has no
        quarantined rows. Return whether it was deleted."""
