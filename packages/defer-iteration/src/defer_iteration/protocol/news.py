"""What the log says once an iteration has stopped, or a row was set aside: a line each, with fields for alerts."""

from __future__ import annotations

from typing import Any

from defer_core.spi import last_line, logger, one_line

from ..model.iteration import Iteration
from ..model.shard import Shard
from ..model.words import key_in_words

log = logger("defer")


def held(iteration: Iteration, reason: str) -> None:
    """Log that an iteration is held until a person has mended the cause."""
    log.error("Iteration %s (%s) is held: %s", *_named(iteration), reason, extra=_fields(iteration, "held", reason))


def failed(iteration: Iteration, shard: Shard) -> None:
    """Log that an iteration has failed by the row that a shard has met."""
    log.error(
        "Iteration %s (%s) has failed: the row %s of shard %d has raised in call %d: %s",
        *_named(iteration),
        *_raised(iteration, shard),
        extra=_fields(iteration, "failed", shard.error, shard),
    )


def quarantined(iteration: Iteration, shard: Shard) -> None:
    """Log that the row that a shard has met is quarantined."""
    log.warning(
        "Iteration %s (%s) has quarantined the row %s of shard %d, which has raised in call %d: %s",
        *_named(iteration),
        *_raised(iteration, shard),
        extra=_fields(iteration, "quarantined", shard.error, shard),
    )


def _named(iteration: Iteration) -> tuple[str, str]:
    return iteration.id, iteration.name or iteration.label


def _raised(iteration: Iteration, shard: Shard) -> tuple[str, int, int, str]:
    row = key_in_words(shard.failing, iteration.options.order_field)
    return row, shard.index, shard.attempts, last_line(shard.error)


def _fields(iteration: Iteration, outcome: str, error: str, shard: Shard | None = None) -> dict[str, Any]:
    """Return what the text says as fields, in the manner of those of an attempt."""
    found: dict[str, Any] = {"iteration": iteration.id, "outcome": outcome, "function": one_line(iteration.label)}
    found["error"] = last_line(error)
    if iteration.name:
        found["iteration_name"] = one_line(iteration.name)
    if shard is not None:
        found["shard"] = shard.index
        found["row"] = one_line(key_in_words(shard.failing, iteration.options.order_field))
    return found
