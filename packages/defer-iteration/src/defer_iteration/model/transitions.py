"""How states, generations, fences and counters change: functions from nouns to nouns, which every store uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TypeVar

from defer_core.spi import clock

from .counters import merged
from .iteration import Iteration, IterationState
from .shard import KeyRange, Shard, Stalled

Noun = TypeVar("Noun", Iteration, Shard)

LIVE = (IterationState.NEW, IterationState.RUNNING, IterationState.FINALIZING)
"""States in which an iteration is under way."""
STOPPED = (IterationState.PAUSED, IterationState.HELD, IterationState.FAILED)
"""States that `resume()` leads out of."""
WHOLE = (IterationState.NEW, IterationState.FINALIZING)
"""States in which one task works for the whole iteration, its plan or its finalize."""


def may_plan(now: Iteration | None, acquired: Iteration) -> bool:
    """Return whether an attempt still has the plan: the iteration is `new`, and was not acquired or requeued since."""
    return now is not None and now.state is IterationState.NEW and now.generation == acquired.generation


def planned(iteration: Iteration, total: int | None) -> Iteration:
    """Return the iteration as it is once its shards are written."""
    return replace(without_error(iteration), state=IterationState.RUNNING, total=total, requeues=0)


def acquired(iteration: Iteration, due: float) -> Iteration:
    """Return the iteration with one more attempt at its plan or finalize: of two attempts, the later one has it."""
    return replace(iteration, generation=iteration.generation + 1, due=due)


def may_acquire(shard: Shard, generation: int) -> bool:
    """Return whether a task of that generation may work on a shard."""
    return not shard.done and shard.generation == generation


def may_write(shard: Shard, attempt: Shard) -> bool:
    """Return whether an attempt still has its shard: no later fence was taken, and its generation is the same."""
    return not shard.done and (shard.generation, shard.fence) == (attempt.generation, attempt.fence)


def successor(shard: Shard) -> Shard:
    """Return the shard in its next generation."""
    return replace(shard, generation=shard.generation + 1)


def renewed(shard: Shard, due: float) -> Shard:
    """Return the shard in its next generation, without failures and requeues."""
    return replace(successor(shard), due=due, attempts=0, requeues=0)


def refilled(shard: Shard, part: KeyRange, due: float) -> Shard:
    """Return a shard that was done, open again in its next generation, with a range that another one has given away.
    What it has passed and counted stays."""
    return replace(without_error(renewed(shard, due)), range=part, position=None, failing=None, done=False)


def beyond_trial(shards: Iterable[Shard], due: float) -> list[Shard]:
    """Return the shards that have rows beyond the trial, each with the range of these."""
    return [replace(refilled(each, each.rest, due), rest=None) for each in shards if each.rest is not None]


def without_error(noun: Noun) -> Noun:
    """Return the noun as it is after progress: without the last error."""
    return replace(noun, error="", errors=0, failed_at=None)


def failed(noun: Noun, error: str) -> Noun:
    """Return the noun with the error of an attempt that failed outside a row."""
    return replace(noun, error=error, errors=noun.errors + 1, failed_at=clock.now())


def requeued(now: Iteration | Shard, stalled: Stalled, due: float) -> Iteration | Shard | None:
    """Return what has stalled in its next generation; None if it has changed since, or is over."""
    over = now.done if isinstance(now, Shard) else now.state not in WHOLE
    if over or (now.generation, now.due) != (stalled.generation, stalled.due):
        return None
    return replace(now, generation=now.generation + 1, due=due, requeues=now.requeues + 1)


def as_stalled(noun: Iteration | Shard) -> Stalled:
    """Return what the sweep is told of a plan, a shard or a finalize."""
    iteration_id, index = (noun.iteration_id, noun.index) if isinstance(noun, Shard) else (noun.id, None)
    return Stalled(
        iteration_id=iteration_id,
        index=index,
        generation=noun.generation,
        due=noun.due,
        requeues=noun.requeues,
    )


def moved(iteration: Iteration, to: IterationState, reason: str) -> Iteration:
    """Return the iteration in a state that is not `running`. One that stops before its end keeps where it was."""
    if to is IterationState.DONE:
        iteration = without_error(iteration)
    return replace(
        iteration,
        state=to,
        resumes=None if to is IterationState.DONE else iteration.resumes or iteration.state,
        reason=reason,
        finished=clock.now() if to.is_over else None,
    )


def tried(iteration: Iteration) -> Iteration:
    """Return the iteration as it waits for somebody to look at what its trial has come to."""
    reason = f"The trial of {iteration.options.limit} rows is over: resume() goes on with the others."
    return moved(iteration, IterationState.PAUSED, reason)


def resumed(iteration: Iteration, due: float) -> Iteration:
    """Return the iteration where it was when it stopped, in its next generation."""
    return replace(
        iteration,
        state=iteration.resumes or iteration.state,
        resumes=None,
        reason="",
        generation=iteration.generation + 1,
        due=due,
        requeues=0,
    )


def finalizing(iteration: Iteration, shards: Sequence[Shard], due: float) -> Iteration:
    """Return the iteration once all its shards are done: their rows and counters summed, in its next generation."""
    return replace(
        iteration,
        state=IterationState.FINALIZING,
        rows=sum(shard.rows for shard in shards),
        counters=merged([iteration.counters, *(shard.counters for shard in shards)]),
        generation=iteration.generation + 1,
        due=due,
        requeues=0,
    )


def may_forget(iteration: Iteration | None, ended_before: float | None) -> bool:
    """Return whether an iteration is over and may be deleted: at any time, or only if it ended before one."""
    if iteration is None or not iteration.state.is_over:
        return False
    return ended_before is None or (iteration.finished or 0.0) < ended_before


def ended(iterations: Iterable[Iteration], before: float) -> list[Iteration]:
    """Return the iterations that ended before a time, the first one first."""
    found = [each for each in iterations if may_forget(each, before)]
    return sorted(found, key=lambda each: each.finished or 0.0)


def is_over(now: Iteration | None, iteration: Iteration) -> bool:
    """Return whether an iteration is over, and no other one has its name by now."""
    return now is not None and now.state.is_over and now.created == iteration.created
