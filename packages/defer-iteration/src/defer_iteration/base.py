"""The seam behind which iterations and their shards are kept."""

from __future__ import annotations

import builtins
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from enum import Enum
from typing import Any, ClassVar, TypeVar

from .iteration import Iteration, IterationState, QuarantinedRow
from .rows import PAGE
from .shard import Shard, Stalled

Result = TypeVar("Result")


class Completion(Enum):
    """What the end of a shard meant."""

    LOST = "lost"
    """The attempt's fence is lost: nothing was written."""
    OPEN = "open"
    """Other shards are still open, or the iteration stands still."""
    LAST = "last"
    """It was the last: the iteration is now `finalizing`, in this transaction."""


class Fault(Enum):
    """What has failed in a transaction, where it is known that nothing of it was written."""

    CONTENTION = "contention"
    """Somebody else's transaction was in its way: the same may do the next time."""
    CONTENT = "content"
    """The commit was refused for what was in it: with fewer rows it may do."""
    EARLIER_WRITES = "earlier writes"
    """It was asked what it cannot be asked after what it has written: at its beginning that may do."""


class IterationStore(ABC):
    """Keeps Iterations and Shards, in the transactions of the TaskStore on the same alias.

    Every write is conditional, and says whether it was made. In a transaction, the first statement of each is a write.
    """

    alias: str = ""
    """Which one of its kind: a database alias, the same as the TaskStore's."""
    atomic_rows: ClassVar[int] = PAGE
    """Rows whose callbacks write in one of its transactions (`_atomic=True`), at the most."""
    page: ClassVar[int | None] = None
    """Shards that one transaction can move, with their tasks; None is any number."""

    @abstractmethod
    def transaction(self) -> AbstractContextManager[Any]:
        """A transaction (or, inside one, a nested one), the TaskStore's and this store's at once."""

    def transact(self, work: Callable[[], Result]) -> Result:
        """Do `work` in a transaction, and return what it returns. Outside another one, `work` may be begun again where
        somebody else's transaction was in its way."""
        with self.transaction():
            return work()

    @abstractmethod
    def in_transaction(self) -> bool:
        """Whether the caller is in such a transaction."""

    def is_spoilt(self) -> bool:
        """Whether a database error that somebody has swallowed has made the caller's transaction unusable."""
        return False

    def is_full(self) -> bool:
        """Whether the caller's transaction is to take no more writes of callbacks."""
        return False

    def fault(self, error: Exception) -> Fault | None:
        """What an error of a transaction, or in one, means for what was done in it; None is none of these."""
        return None

    @abstractmethod
    def create(self, iteration: Iteration) -> None:
        """Write a new iteration."""

    def prepare(self, iteration: Iteration, shards: Sequence[Shard]) -> Sequence[Shard]:
        """Write the shards of an iteration that is still `new` and in this generation ahead of `plan`, where they are
        more than its transaction takes. Returns those that are left to `plan`: all, or none. Raises FenceLostError."""
        return shards

    @abstractmethod
    def plan(self, iteration: Iteration, shards: Sequence[Shard], *, total: int | None) -> bool:
        """Move from `new` to `running` and write the shards; False, and nothing written, if it is not `new`, or of
        another generation by now."""

    @abstractmethod
    def claim(
        self, iteration_id: str, index: int, generation: int, *, due: Callable[[int], float]
    ) -> tuple[Iteration, Shard] | None:
        """Take the next fence number of an open shard of a running iteration, if that generation is the current one.
        `due` gives the time from which the attempt counts as stalled, by the number of wakes so far."""

    @abstractmethod
    def claim_whole(self, iteration_id: str, state: IterationState, *, due: Callable[[int], float]) -> Iteration | None:
        """Note that the plan (`new`) or finalize (`finalizing`) of an iteration is being attempted, in a generation of
        its own; None in another state."""

    @abstractmethod
    def checkpoint(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> IterationState | None:
        """Write position, rows, counters, attempts, error, due and wakes of a shard, and add quarantined rows, under
        its generation and fence. Returns the iteration's state, or None where the fence is lost."""

    @abstractmethod
    def hand_over(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> IterationState | None:
        """A checkpoint that also moves the shard to its next generation, unless the iteration stands still."""

    @abstractmethod
    def complete(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = (), *, due: float) -> Completion:
        """Lock the iteration, then write the last checkpoint of a shard and that it is done. With the last of a running
        iteration, merge the counters and move to `finalizing`, of a new generation."""

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
        """Lock the iteration and move it to state `to`, if it is in one of `when`. Returns it as it was, or None.

        Stopping (`paused`, `held`) notes the state it leaves. `running` as `to` stands for that noted state, and is
        `finalizing` where no shard is open: the iteration has a new generation then."""

    @abstractmethod
    def reopen(
        self, iteration_id: str, *, due: float, after: int = -1, limit: int | None = None
    ) -> builtins.list[Shard]:
        """Move open shards, those with an index beyond `after`, to their next generation, with no failures and no
        wakes. Returns them by index, as they are now."""

    @abstractmethod
    def stalled(self, *, now: float, limit: int) -> builtins.list[Stalled]:
        """Plans, finalizes, and open shards of running iterations, with `due <= now`, the longest stalled first."""

    @abstractmethod
    def wake(self, stalled: Stalled, *, due: float) -> Iteration | Shard | None:
        """Move what stalled to its next generation, if it still is as it was, and count the wake. Returns it as it is
        now, or None."""

    @abstractmethod
    def get(self, iteration_id: str) -> Iteration | None:
        """One iteration, or None."""

    @abstractmethod
    def list(self, *, limit: int = 100, after: str = "") -> builtins.list[Iteration]:
        """Iterations by id, those beyond `after`."""

    @abstractmethod
    def shards(self, iteration_id: str) -> builtins.list[Shard]:
        """Its shards, by index."""

    @abstractmethod
    def quarantined(self, iteration_id: str) -> builtins.list[QuarantinedRow]:
        """Its quarantined rows, by shard and key."""

    @abstractmethod
    def settle_quarantined(self, row: QuarantinedRow, *, error: str | None) -> None:
        """Delete a quarantined row whose call has succeeded (error None), or note the new error and one more
        attempt."""

    def clear(self, iteration_id: str) -> None:  # noqa: B027
        """Delete what belongs to an iteration ahead of `delete`, where it is more than its transaction takes."""

    @abstractmethod
    def delete(self, iteration_id: str) -> None:
        """Delete an iteration with all that belongs to it."""
