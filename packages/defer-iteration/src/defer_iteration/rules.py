"""The rules of states, generations and counters, as functions from nouns to nouns: what every store goes by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

from defer_core import clock

from .iteration import Iteration, IterationState
from .shard import Shard, Stalled

STOPPED = (IterationState.PAUSED, IterationState.HELD)
"""States that `resume()` leads out of."""
WHOLE = (IterationState.NEW, IterationState.FINALIZING)
"""States in which one task is at work for the whole iteration, its plan or its finalize."""


def may_plan(now: Iteration | None, claimed: Iteration) -> bool:
    """Whether an attempt at a plan still has the iteration: it is `new`, and nobody has claimed or woken it since."""
    return now is not None and now.state is IterationState.NEW and now.generation == claimed.generation


def planned(iteration: Iteration, total: int | None) -> Iteration:
    """The iteration once its shards are written."""
    return replace(iteration, state=IterationState.RUNNING, total=total, wakes=0)


def claimed(iteration: Iteration, due: float) -> Iteration:
    """The iteration with one more attempt at its plan or finalize: of two, the later one has it."""
    return replace(iteration, generation=iteration.generation + 1, due=due)


def may_claim(shard: Shard, generation: int) -> bool:
    """Whether a task of that generation may work on a shard."""
    return not shard.done and shard.generation == generation


def may_write(shard: Shard, attempt: Shard) -> bool:
    """Whether an attempt still has the shard: nobody has taken a later fence, or moved it to another generation."""
    return not shard.done and (shard.generation, shard.fence) == (attempt.generation, attempt.fence)


def successor(shard: Shard) -> Shard:
    """The shard in its next generation."""
    return replace(shard, generation=shard.generation + 1)


def reopened(shard: Shard, due: float) -> Shard:
    """The shard in its next generation, with no failures and no wakes."""
    return replace(successor(shard), due=due, attempts=0, wakes=0)


def woken(now: Iteration | Shard, stalled: Stalled, due: float) -> Iteration | Shard | None:
    """What has stalled, in its next generation; None if it is no longer as it was, or need not be woken."""
    over = now.done if isinstance(now, Shard) else now.state not in WHOLE
    if over or (now.generation, now.due) != (stalled.generation, stalled.due):
        return None
    return replace(now, generation=now.generation + 1, due=due, wakes=now.wakes + 1)


def stalled(noun: Iteration | Shard) -> Stalled:
    """How something is told to the sweep."""
    index = noun.index if isinstance(noun, Shard) else None
    iteration_id = noun.iteration_id if isinstance(noun, Shard) else noun.id
    return Stalled(iteration_id=iteration_id, index=index, generation=noun.generation, due=noun.due, wakes=noun.wakes)


def moved(iteration: Iteration, to: IterationState, reason: str) -> Iteration:
    """The iteration in a state that is not `running`. One that stops notes where it was."""
    return replace(
        iteration,
        state=to,
        resumes=(iteration.resumes or iteration.state) if to in STOPPED else None,
        reason=reason,
        finished=clock.now() if to.is_over else None,
    )


def resumed(iteration: Iteration, due: float) -> Iteration:
    """The iteration where it was when it stopped, in its next generation."""
    return replace(
        iteration,
        state=iteration.resumes or iteration.state,
        resumes=None,
        reason="",
        generation=iteration.generation + 1,
        due=due,
        wakes=0,
    )


def finalizing(iteration: Iteration, shards: Iterable[Shard], due: float) -> Iteration:
    """The iteration once all its shards are done: their counters merged, in its next generation."""
    return replace(
        iteration,
        state=IterationState.FINALIZING,
        counters=merged(shard.counters for shard in shards),
        generation=iteration.generation + 1,
        due=due,
        wakes=0,
    )


def merged(counters: Iterable[Mapping[str, int]]) -> dict[str, int]:
    """The sum of counters, name by name."""
    total: Counter[str] = Counter()
    for each in counters:
        total.update(each)
    return dict(total)
