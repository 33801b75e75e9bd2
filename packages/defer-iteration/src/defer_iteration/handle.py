"""What `defer_iteration_with_finalize` returns: the progress and control of one iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from defer_core.spi import clock

from .errors import UnknownIterationError
from .model.counters import merged
from .model.iteration import Iteration, IterationState, QuarantinedRow, id_of
from .model.shard import Shard
from .model.transitions import LIVE, STOPPED
from .protocol.fan_out import start_shards
from .protocol.timing import grace
from .stores.base import IterationStore
from .stores.routing import store_on
from .tasks import scheduler_on


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an iteration has got."""

    name: str
    """The caller's name for it; empty if it has none."""
    state: IterationState
    """Where it stands."""
    reason: str
    """Why it is held or failed."""
    error: str
    """The traceback of the last failure of the plan or `finalize`, until one succeeds; a shard has its own."""
    errors: int
    """How many attempts at the plan or `finalize` have failed in a row."""
    failed_at: float | None
    """When the last of them did, in seconds since the epoch."""
    rows: int
    """How many rows are finished, as of the last checkpoints."""
    total: int | None
    """How many rows there were when it was planned; None if they were not counted."""
    shards: Sequence[Shard]
    """Its shards, by index; none before it is planned, nor of a named one that is done."""
    counters: Mapping[str, Any]
    """What callbacks have counted in all shards, as of the last checkpoints."""
    quarantined: Sequence[QuarantinedRow]
    """Rows that were set aside."""


def progress_of(iteration: Iteration, shards: Sequence[Shard], quarantined: Sequence[QuarantinedRow]) -> Progress:
    """Return how far an iteration has got, from what is stored of it."""
    counters = [] if iteration.is_merged else [shard.counters for shard in shards]
    return Progress(
        name=iteration.name,
        state=iteration.state,
        reason=iteration.reason,
        error=iteration.error,
        errors=iteration.errors,
        failed_at=iteration.failed_at,
        rows=sum(shard.rows for shard in shards) if iteration.rows is None else iteration.rows,
        total=iteration.total,
        shards=shards,
        counters=merged([iteration.counters, *counters]),
        quarantined=quarantined,
    )


@dataclass(frozen=True, kw_only=True)
class IterationHandle:
    """One iteration. A handle can be made anywhere from its alias and id."""

    id: str
    """32 hexadecimal digits."""
    alias: str = "default"
    """The database alias that it is stored on."""
    begun: bool = field(default=False, compare=False)
    """Whether the call that returned this handle began the iteration: False if there was one of its name, and for a
    handle that was made otherwise."""

    @classmethod
    def named(cls, name: str, alias: str = "default") -> IterationHandle:
        """Return the handle of the iteration of a name."""
        return cls(id=id_of(name), alias=alias)

    @property
    def _store(self) -> IterationStore:
        return store_on(self.alias)

    def progress(self) -> Progress:
        """Return how far it has got. Raise UnknownIterationError once its marker is deleted."""
        return progress_of(self._iteration(), self._store.shards(self.id), self._store.quarantined(self.id))

    def pause(self) -> bool:
        """Stop it, at the next checkpoints at the latest; a `finalize` that is running may still succeed. Return False
        if it was not under way."""
        return self._control(IterationState.PAUSED, when=LIVE)

    def resume(self) -> bool:
        """Let a paused, held or failed iteration go on at once, where it stopped; a row's calls are counted anew.
        Return False if it was not stopped."""
        return self._store.transact(self._resume)

    def _resume(self) -> bool:
        scheduler, due = scheduler_on(self.alias), clock.now() + grace(0)
        if scheduler.store.control(self.id, IterationState.RUNNING, when=STOPPED, due=due) is None:
            return False
        iteration = self._iteration()
        if iteration.state is IterationState.NEW:
            scheduler.enqueue_plan(iteration)
        elif iteration.state is IterationState.FINALIZING:
            scheduler.enqueue_finalize(iteration)
        else:
            start_shards(scheduler, iteration)
        return True

    def cancel(self) -> bool:
        """Stop it for good; `finalize` will not be called (again). Return False if it was over."""
        return self._control(IterationState.CANCELLED, when=(*LIVE, *STOPPED))

    def forget(self) -> bool:
        """Delete all that is kept of an iteration that is over, so that another one may have its name. Return False if
        it is not over, or gone."""
        return self._store.forget(self.id)

    def _control(self, to: IterationState, *, when: Sequence[IterationState]) -> bool:
        store = self._store
        return store.transact(lambda: store.control(self.id, to, when=when)) is not None

    def retry_quarantined(self) -> int:
        """Call the quarantined rows again, in a task. Return how many there are."""
        store = self._store
        number = len(store.quarantined(self.id))
        if number:
            iteration = self._iteration()
            store.transact(lambda: scheduler_on(self.alias).enqueue_quarantined(iteration))
        return number

    def _iteration(self) -> Iteration:
        iteration = self._store.get(self.id)
        if iteration is None:
            raise UnknownIterationError(
                f"There is no iteration {self.id} on {self.alias!r}: its marker was deleted, or it never existed. "
                f"{self._what_is_kept()}"
            )
        return iteration

    def _what_is_kept(self) -> str:
        kept = self._store.history()
        if kept is None:
            return "Named iterations are kept until somebody forgets them."
        since = datetime.fromtimestamp(clock.now() - kept, timezone.utc)
        return f"Of named iterations, none is kept that ended before {since:%Y-%m-%d %H:%M} UTC."
