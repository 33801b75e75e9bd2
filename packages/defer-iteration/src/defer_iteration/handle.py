"""What `defer_iteration_with_finalize` returns: sight and control of one iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from defer_core import clock

from .base import IterationStore
from .errors import UnknownIterationError
from .iteration import Iteration, IterationState, QuarantinedRow
from .opening import open_shards
from .rules import STOPPED, merged
from .scheduling import schedule_finalize, schedule_plan, schedule_quarantined
from .shard import Shard
from .stalling import grace
from .stores import store_on

_LIVE = (IterationState.NEW, IterationState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far an iteration has come."""

    state: IterationState
    """Where it stands."""
    reason: str
    """Why it is held or failed."""
    rows: int
    """Rows finished, as of the last checkpoints."""
    total: int | None
    """Rows when it was planned; None where they were not counted."""
    shards: Sequence[Shard]
    """Its shards, by index; none before it is planned."""
    counters: Mapping[str, int]
    """The sum of the shards' counters, as of the last checkpoints."""
    quarantined: Sequence[QuarantinedRow]
    """Rows that were set aside."""


@dataclass(frozen=True, kw_only=True)
class IterationHandle:
    """One iteration. It can be made again anywhere from its alias and id."""

    id: str
    """32 hexadecimal digits."""
    alias: str = "default"
    """The database alias that it is kept on."""

    @property
    def _store(self) -> IterationStore:
        return store_on(self.alias)

    def progress(self) -> Progress:
        """How far it has come. Raises UnknownIterationError once its marker is deleted."""
        iteration = self._iteration()
        shards = self._store.shards(self.id)
        return Progress(
            state=iteration.state,
            reason=iteration.reason,
            rows=sum(shard.rows for shard in shards),
            total=iteration.total,
            shards=shards,
            counters=merged(shard.counters for shard in shards),
            quarantined=self._store.quarantined(self.id),
        )

    def pause(self) -> bool:
        """Let it stand still, from the next checkpoints at the latest. False if it was not under way."""
        return self._control(IterationState.PAUSED, when=_LIVE)

    def resume(self) -> bool:
        """Let a paused or held iteration go on, at once. False if it did not stand still."""
        return self._store.transact(self._resume)

    def _resume(self) -> bool:
        store, due = self._store, clock.now() + grace(0)
        if store.control(self.id, IterationState.RUNNING, when=STOPPED, due=due) is None:
            return False
        iteration = self._iteration()
        if iteration.state is IterationState.NEW:
            schedule_plan(store, iteration)
        elif iteration.state is IterationState.FINALIZING:
            schedule_finalize(store, iteration)
        else:
            open_shards(store, iteration)
        return True

    def cancel(self) -> bool:
        """Stop it for good; `finalize` will not run. False if it was over, or finalizing."""
        return self._control(IterationState.CANCELLED, when=(*_LIVE, *STOPPED))

    def _control(self, to: IterationState, *, when: Sequence[IterationState]) -> bool:
        store = self._store
        return store.transact(lambda: store.control(self.id, to, when=when)) is not None

    def retry_quarantined(self) -> int:
        """Call the quarantined rows again, in a task. Returns how many there are."""
        store = self._store
        number = len(store.quarantined(self.id))
        if number:
            iteration = self._iteration()
            store.transact(lambda: schedule_quarantined(store, iteration))
        return number

    def _iteration(self) -> Iteration:
        iteration = self._store.get(self.id)
        if iteration is None:
            raise UnknownIterationError(f"There is no iteration {self.id} on {self.alias!r}: it is over, or never was.")
        return iteration
