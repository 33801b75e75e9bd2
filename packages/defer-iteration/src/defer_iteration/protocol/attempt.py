"""One attempt at a shard: what is recorded of the rows that were passed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from defer_core.errors import SingularTaskFailure
from defer_core.spi import clock, count_rows, traceback_of

from ..context import CurrentShard, tell_row_error
from ..errors import FenceLostError, TimeoutException
from ..model import counters
from ..model.iteration import Iteration, IterationState, QuarantinedRow
from ..model.shard import Key, KeyRange, Shard
from ..model.transitions import successor, without_error
from ..model.words import key_in_words
from ..stores.base import TRANSIENT_FAULTS, Completion, Fault, Result
from . import news
from .division import Division
from .job import Job
from .passing import PassResult, RowPasser, StopReason
from .scheduler import Scheduler
from .suspension import stop
from .throttle import Throttle
from .timing import Pace, delay, grace

log = logging.getLogger("defer")


class Attempt:
    """One attempt at a shard. `shard` is its last checkpoint."""

    def __init__(self, scheduler: Scheduler, iteration: Iteration, shard: Shard, job: Job, until: float) -> None:
        self.scheduler, self.store = scheduler, scheduler.store
        self.iteration, self.shard = iteration, shard
        self.pace = Pace(now=clock.now(), until=until, buffer_time=iteration.options.buffer_time)
        self.current = CurrentShard(index=shard.index, iteration_id=iteration.id, kinds=counters.kinds(shard.counters))
        self.name = f"Iteration {iteration.id} ({iteration.label}), shard {shard.index}, attempt {shard.fence}"
        self.passer = self.new_passer(job)
        self.throttle = Throttle(job.throttle, iteration.options.shard_rows_per_second, rows=shard.rows)
        if self.throttle.page is not None:
            self.passer.pass_at_most(self.throttle.page)
        self.division = Division(self.store, self.passer.rows, iteration, shard, self.pace)

    def new_passer(self, job: Job) -> RowPasser:
        """Return what passes the rows of the shard."""
        rows = job.rows(self.iteration.options.order_field)
        return RowPasser(job, rows, self.shard.range, self.pace, self.current)

    def run(self) -> None:
        """Work until there are no more rows, or it is time to stop. Raise FenceLostError."""
        while self._wait() and self._counted_page():
            self.rebalance()

    def rebalance(self) -> None:
        """Give parts of what is left to shards that are done, if it is worth their while. Raise FenceLostError."""
        self.shard = self._give_away(self.shard, self.division.ranges(self.shard))

    def _counted_page(self) -> bool:
        """Do the work of `_page`, and count its rows once they are committed."""
        before = self.shard.rows
        going_on = self._page()
        count_rows(self.iteration.label, self.shard.rows - before)
        return going_on

    def _page(self) -> bool:
        """Pass rows until something is due, record the result, and return whether to go on."""
        return self.record(self.passer.pass_rows(self.shard.position))

    def _wait(self) -> bool:
        """Wait as the throttle says, and return True; hand over, and return False, if no worker should wait as long."""
        until = self.throttle.next_at(self.shard.rows)
        return self.pace.wait(until) or self._hand_over(self.shard, eta=until)

    def record(self, result: PassResult) -> bool:
        """Record the result of a pass, and return whether to go on."""
        if result.reason is StopReason.UNREAD and result.asked == 1:
            result = self.passer.located(result)
        reached = self._reached(result)
        if result.reason is StopReason.END:
            return self._complete(reached)
        if result.reason in (StopReason.RAISED, StopReason.HALVED):
            return self._record_failure(reached, result)
        if isinstance(result.error, TimeoutException):
            return self._hand_over(reached, eta=result.error.eta)
        return self._pause(reached)

    def _reached(self, result: PassResult) -> Shard:
        """Return the shard as it is after a pass."""
        shard = replace(
            self.shard,
            position=result.last,
            rows=self.shard.rows + result.rows,
            due=self.pace.until + grace(0),
            requeues=0,
        )
        if result.counted:
            shard = replace(shard, counters=counters.merged([shard.counters, result.counted]))
        if result.rows:
            shard = replace(without_error(shard), attempts=0, failing=None)
        return shard

    def _pause(self, shard: Shard) -> bool:
        return self._hand_over(shard) if clock.now() >= self.pace.stop_at else self._checkpoint(shard)

    # --- the attempt's writes -----------------------------------------------------------------------------------------

    def _checkpoint(self, shard: Shard, quarantine: Sequence[QuarantinedRow] = ()) -> bool:
        began = clock.now()
        state = self._write(lambda: self.store.checkpoint(shard, quarantine))
        if state is None:
            raise self._taken_over()
        self.pace.checkpointed(began=began, ended=clock.now())
        self._written(shard, "checkpoint")
        return state is IterationState.RUNNING

    def _hand_over(self, shard: Shard, *, eta: float | None = None) -> bool:
        due = (clock.now() if eta is None else eta) + grace(0)

        def hand_over() -> IterationState | None:
            state = self.store.hand_over(replace(shard, due=due))
            if state is IterationState.RUNNING:
                self.scheduler.enqueue_shards(self.iteration, [successor(shard)], eta=eta)
            return state

        state = self._write(hand_over)
        if state is None:
            raise self._taken_over()
        self._written(shard, "handed over" if state is IterationState.RUNNING else f"stopped, the iteration is {state}")
        return False

    def _complete(self, shard: Shard) -> bool:
        def complete() -> Completion:
            completion = self.store.complete(shard, due=clock.now() + grace(0))
            iteration = self.store.get(shard.iteration_id) if completion is Completion.LAST else None
            if iteration is not None:
                self.scheduler.enqueue_finalize(iteration)
            return completion

        if self._write(complete) is Completion.LOST:
            raise self._taken_over()
        self._written(shard, "done")
        return False

    def _give_away(self, shard: Shard, ranges: Sequence[KeyRange]) -> Shard:
        """Write a checkpoint, and give all of these ranges but the first to shards that are done. Return the shard with
        what is left to it. A transaction that may have been committed is not repeated: the next attempt reads from the
        range what came of it."""
        if len(ranges) < 2:
            return shard

        def divide() -> list[Shard] | None:
            shards = self.store.divide(shard, ranges, due=clock.now() + grace(0))
            if shards is not None and len(shards) > 1:
                self.scheduler.enqueue_shards(self.iteration, shards[1:])
            return shards

        shards = self.store.transact(divide)
        if shards is None:
            raise self._taken_over()
        shard, *given = shards
        self.passer.within = shard.range
        self.division.given(len(given))
        if given:
            log.info("%s: gives parts of its range to the shards %s.", self.name, [each.index for each in given])
        return shard

    def _write(self, work: Callable[[], Result]) -> Result:
        """Do `work` in a transaction, and once more if the connection was lost. If the first one was committed all the
        same, the second one changes nothing."""
        try:
            return self.store.transact(work)
        except Exception as error:
            if self.store.fault(error) is not Fault.CONNECTION or not self.store.reconnect():
                raise
            return self.store.transact(work)

    def _written(self, shard: Shard, event: str) -> None:
        self.shard = shard
        log.info("%s: %s at the key %s, after %d rows.", self.name, event, self._said(shard.position), shard.rows)

    def _taken_over(self) -> FenceLostError:
        return FenceLostError(f"{self.name}: a newer attempt has taken over.")

    # --- rows that raised ---------------------------------------------------------------------------------------------

    def _record_failure(self, shard: Shard, result: PassResult) -> bool:
        """Record that a row has raised, by the options of the iteration; a transient fault is not held against it."""
        error, key = result.error, result.key
        assert error is not None and key is not None
        shard = replace(shard, error=traceback_of(error), failed_at=clock.now())
        if self.store.fault(error) in TRANSIENT_FAULTS:
            log.warning(
                "%s: the row %s met a transient fault, and is called again: %r", self.name, self._said(key), error
            )
            self.store.reconnect()
            shard = replace(shard, errors=shard.errors + 1)
            return self._hand_over(shard, eta=clock.now() + delay(shard.errors))
        if result.reason is StopReason.HALVED:
            log.info(
                "%s: the batch from the row %s on has raised, and is halved: %r", self.name, self._said(key), error
            )
            self.passer.size.suspects = result.asked
            return self._pause(replace(shard, attempts=0, failing=key))
        attempts = shard.attempts + 1 if shard.failing == key else 1
        self._log_row_error(key, error, attempts)
        tell_row_error(error, attempts)
        shard = replace(shard, attempts=attempts, failing=key)
        options = self.iteration.options
        if options.max_attempts is None or attempts < options.max_attempts:
            shard = self._give_away(shard, self.division.ranges_beyond(shard, key))
            return self._hand_over(shard, eta=clock.now() + delay(attempts))
        if options.on_error == "quarantine":
            return self._quarantine(shard, key)
        return self._fail(shard, key)

    def _quarantine(self, shard: Shard, key: Key) -> bool:
        row = QuarantinedRow(
            iteration_id=shard.iteration_id, index=shard.index, key=key, error=shard.error, attempts=shard.attempts
        )
        going_on = self._checkpoint(replace(shard, position=key, attempts=0, failing=None), [row])
        news.quarantined(self.iteration, shard)
        return going_on

    def _fail(self, shard: Shard, key: Key) -> bool:
        reason = f"The row {key!r} of shard {shard.index} has raised {shard.attempts} times: {shard.error}"

        def fail() -> None:
            stop(self.scheduler, self.iteration, IterationState.FAILED, when=(IterationState.RUNNING,), reason=reason)
            self._checkpoint(shard)

        self._write(fail)
        now = self.store.get(self.iteration.id)  # another one may have stopped it, and the answer of a commit be lost
        if now is not None and now.reason == reason:
            news.failed(self.iteration, shard)
        return False

    def _log_row_error(self, key: Key, error: Exception, attempts: int) -> None:
        if isinstance(error, SingularTaskFailure):
            log.info("%s: the row %s asks to be called again: %s", self.name, self._said(key), error)
        else:
            log.error("%s: the row %s has raised, in call %d.", self.name, self._said(key), attempts, exc_info=error)

    def _said(self, key: Key | None) -> str:
        return key_in_words(key, self.iteration.options.order_field)
