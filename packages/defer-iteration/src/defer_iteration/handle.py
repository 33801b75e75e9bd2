"""What `defer_iteration_with_finalize` returns: sight and control of one iteration."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from defer_core import clock

from .base import IterationStore
from .errors import UnknownIterationError
from .iteration import Iteration, IterationState, QuarantinedRow
from .scheduling import schedule_finalize, schedule_plan, schedule_quarantined, schedule_shards
from .shard import Shard
from .stalling import grace
from .stores import store_on

_LIVE = (IterationState.NEW, IterationState.RUNNING)
_STOPPED = (IterationState.PAUSED, IterationState.HELD)


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
        counters: Counter[str] = Counter()
        for shard in shards:
            counters.update(shard.counters)
        return Progress(
            state=iteration.state,
            reason=iteration.reason,
            rows=sum(shard.rows for shard in shards),
            total=iteration.total,
            shards=shards,
            counters=counters,
            quarantined=self._store.quarantined(self.id),
        )

    def pause(self) -> bool:
        """Let it stand still, from the next checkpoints at the latest. False if it was not under way."""
        return self._store.control(self.id, IterationState.PAUSED, when=_LIVE) is not None

    def resume(self) -> bool:
        """Let a paused or held iteration go on, at once. False if it did not stand still."""
        store, due = self._store, clock.now() + grace(0)
        with store.transaction():
            if store.control(self.id, IterationState.RUNNING, when=_STOPPED, due=due) is None:
                return False
            iteration = self._iteration()
            if iteration.state is IterationState.NEW:
                schedule_plan(store, iteration)
            elif iteration.state is IterationState.FINALIZING:
                schedule_finalize(store, iteration)
            else:
                schedule_shards(store, iteration, store.reopen(self.id, due=due))
        return True

    def cancel(self) -> bool:
        """Stop it for good; `finalize` will not run. False if it was over, or finalizing."""
        return self._store.control(self.id, IterationState.CANCELLED, when=(*_LIVE, *_STOPPED)) is not None

    def retry_quarantined(self) -> int:
        """Call the quarantined rows again, in a task. Returns how many there are."""
        store = self._store
        number = len(store.quarantined(self.id))
        if number:
            with store.transaction():
                schedule_quarantined(store, self._iteration())
        return number

    def _iteration(self) -> Iteration:
        iteration = self._store.get(self.id)
        if iteration is None:
            raise UnknownIterationError(f"There is no iteration {self.id} on {self.alias!r}: it is over, or never was.")
        return iteration
