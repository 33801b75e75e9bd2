"""One attempt at a shard: rows are passed to the callback from the last checkpoint on, until the end or the
deadline."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, ClassVar

from defer_core import clock
from defer_core.errors import SingularTaskFailure
from defer_core.stopping import asked

from .base import Completion, IterationStore
from .context import CurrentShard, tell_row_error
from .errors import FenceLostError, HeldError, TimeoutException
from .iteration import Iteration, IterationState, QuarantinedRow
from .job import Job, rows_of
from .pace import Pace, delay
from .rules import successor
from .scheduling import schedule_finalize, schedule_shards
from .shard import Key, Shard
from .stalling import grace

log = logging.getLogger("defer")


class Why(Enum):
    """Why a pass over rows stopped."""

    END = "end"
    """There are no more rows."""
    TIME = "time"
    """A checkpoint is due, the deadline is near, or the process is to end."""
    RAISED = "raised"
    """The callback raised."""
    YIELDED = "yielded"
    """The callback raised TimeoutException."""


@dataclass(frozen=True, kw_only=True)
class Passed:
    """What a pass over rows came to since the last checkpoint."""

    why: Why
    """Why it stopped."""
    last: Key | None
    """The last key finished."""
    rows: int
    """How many were."""
    key: Key | None = None
    """The row whose callback raised."""
    error: Exception | None = None
    """What it raised."""


_NONE: Any = object()
"""Taken of no row yet."""


class Attempt:
    """One attempt at a shard. `shard` is what the store knows of it: its last checkpoint."""

    one_page: ClassVar[bool] = False
    """Whether a pass ends with its page."""

    def __init__(self, store: IterationStore, iteration: Iteration, shard: Shard, job: Job, until: float) -> None:
        self.store, self.iteration, self.shard, self.job, self.until = store, iteration, shard, job, until
        self.rows = rows_of(job, iteration.options)
        self.pace = Pace(now=clock.now(), until=until, buffer_time=iteration.options.buffer_time)
        self.current = CurrentShard(index=shard.index, iteration_id=iteration.id)
        self.counted: Counter[str] = Counter()

    def run(self) -> None:
        """Work until there are no rows, or it is time to stop. Raises FenceLostError."""
        while self.settle(self.pass_rows()):
            pass

    def page(self, after: Key | None) -> Iterator[Any]:
        """The next rows beyond a key."""
        return self.rows.page(self.shard.range, after)

    def pass_rows(self) -> Passed:
        """Pass rows until something is due. At least one row is passed, or no attempt would ever get on. Raises
        HeldError where the same rows come again (by a field that does not give back what it was given)."""
        call, take_key, now = self.job.call, self.rows.take_key, clock.source()
        counting, counted, pace = self.current.counters, self.counted, self.pace
        last, rows, at = _NONE, 0, now()
        look_at = pace.look_at(at)
        while True:
            earlier, after = rows, self._key(last)
            for row in self.page(after):
                key = take_key(row)
                try:
                    call(row)
                except Exception as error:
                    counting.clear()
                    why = Why.YIELDED if isinstance(error, TimeoutException) else Why.RAISED
                    return Passed(why=why, last=self._key(last), rows=rows, key=self.rows.key(key), error=error)
                last = key
                rows += 1
                if counting:
                    counted.update(counting)
                    counting.clear()
                before = at
                at = now()
                if at >= look_at or asked:
                    if pace.is_due(before, at):
                        return Passed(why=Why.TIME, last=self._key(last), rows=rows)
                    look_at = pace.look_at(at)
            if rows > earlier and self._key(last) == after:
                raise HeldError(f"No row is beyond {after!r}: the database does not find this key again.")
            if rows - earlier < self.rows.page_size:
                return Passed(why=Why.END, last=self._key(last), rows=rows)
            if self.one_page:
                return Passed(why=Why.TIME, last=self._key(last), rows=rows)

    def _key(self, taken: Any) -> Key | None:
        return self.shard.position if taken is _NONE else self.rows.key(taken)

    # --- what follows a pass ------------------------------------------------------------------------------------------

    def settle(self, passed: Passed) -> bool:
        """Record what a pass came to; whether to go on."""
        reached = self._reached(passed)
        if passed.why is Why.END:
            return self._complete(reached)
        if passed.why is Why.RAISED:
            return self._raised(reached, passed)
        if isinstance(passed.error, TimeoutException):
            return self._hand_over(reached, eta=passed.error.eta)
        if clock.now() >= self.pace.stop_at:
            return self._hand_over(reached)
        return self._checkpoint(reached)

    def _reached(self, passed: Passed) -> Shard:
        """The shard as the next checkpoint has it."""
        shard = replace(
            self.shard,
            position=passed.last,
            rows=self.shard.rows + passed.rows,
            counters=Counter(self.shard.counters) + self.counted if self.counted else self.shard.counters,
            due=self.until + grace(0),
            wakes=0,
        )
        return replace(shard, attempts=0, failing=None) if passed.rows else shard

    def _checkpoint(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> bool:
        began = clock.now()
        state = self.store.transact(lambda: self.store.checkpoint(shard, quarantine))
        if state is None:
            raise self._lost()
        self.pace.checkpointed(began=began, ended=clock.now())
        self._saved(shard)
        self._log("checkpoint")
        return state is IterationState.RUNNING

    def _hand_over(self, shard: Shard, *, eta: float | None = None) -> bool:
        due = (clock.now() if eta is None else eta) + grace(0)

        def work() -> IterationState | None:
            state = self.store.hand_over(replace(shard, due=due))
            if state is IterationState.RUNNING:
                schedule_shards(self.store, self.iteration, [successor(shard)], eta=eta)
            return state

        state = self.store.transact(work)
        if state is None:
            raise self._lost()
        self._saved(shard)
        self._log("hands over" if state is IterationState.RUNNING else f"stops: {state}")
        return False

    def _complete(self, shard: Shard) -> bool:
        def work() -> Completion:
            completion = self.store.complete(shard, due=clock.now() + grace(0))
            iteration = self.store.get(shard.iteration_id) if completion is Completion.LAST else None
            if iteration is not None:
                schedule_finalize(self.store, iteration)
            return completion

        if self.store.transact(work) is Completion.LOST:
            raise self._lost()
        self._saved(shard)
        self._log("is done")
        return False

    def _raised(self, shard: Shard, passed: Passed) -> bool:
        assert passed.error is not None and passed.key is not None
        attempts = shard.attempts + 1 if shard.failing == passed.key else 1
        text = "".join(traceback.format_exception(passed.error))
        self._log_error(passed, attempts)
        tell_row_error(passed.error, attempts)
        shard = replace(shard, attempts=attempts, failing=passed.key, error=text)
        limit = self.iteration.options.max_attempts
        if limit is None or attempts < limit:
            return self._hand_over(shard, eta=clock.now() + delay(attempts))
        if self.iteration.options.on_error == "quarantine":
            return self._quarantine(shard, passed.key)
        return self._fail(shard, passed.key)

    def _quarantine(self, shard: Shard, key: Key) -> bool:
        row = QuarantinedRow(
            iteration_id=shard.iteration_id, index=shard.index, key=key, error=shard.error, attempts=shard.attempts
        )
        return self._checkpoint(replace(shard, position=key, attempts=0, failing=None), [row])

    def _fail(self, shard: Shard, key: Key) -> bool:
        reason = f"The row {key!r} of shard {shard.index} has raised {shard.attempts} times: {shard.error}"

        def work() -> None:
            self.store.control(shard.iteration_id, IterationState.FAILED, when=(IterationState.RUNNING,), reason=reason)
            self._checkpoint(shard)

        self.store.transact(work)
        return False

    def _saved(self, shard: Shard) -> None:
        self.shard = shard
        self.counted.clear()

    def _lost(self) -> FenceLostError:
        self._log("is superseded")
        return FenceLostError(f"Shard {self.shard.index} of iteration {self.iteration.id} has been taken over.")

    # --- for people ---------------------------------------------------------------------------------------------------

    def _log(self, event: str) -> None:
        shard = self.shard
        log.info(
            "Iteration %s, shard %d %s: %d rows, at %r.",
            self.iteration.id,
            shard.index,
            event,
            shard.rows,
            shard.position,
        )

    def _log_error(self, passed: Passed, attempts: int) -> None:
        if isinstance(passed.error, SingularTaskFailure):
            log.info("Iteration %s: row %r is to be called again: %s", self.iteration.id, passed.key, passed.error)
        else:
            log.error(
                "Iteration %s: row %r has raised (call %d).",
                self.iteration.id,
                passed.key,
                attempts,
                exc_info=passed.error,
            )
