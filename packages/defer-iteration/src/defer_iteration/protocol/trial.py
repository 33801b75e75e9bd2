"""`_limit`: the first rows are passed as a trial, before the others."""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import IterationRefusedError
from ..model.shard import KeyRange, cut
from ..rows.base import Rows


def trial(
    rows: Rows, ranges: Sequence[KeyRange], limit: int, shards: int
) -> tuple[Sequence[KeyRange], Sequence[KeyRange]]:
    """Divide ranges into those of the first `limit` rows and those of the rest, which are none if there are no more
    rows. Raise IterationRefusedError if the rows cannot be counted."""
    left = limit
    for number, within in enumerate(ranges):
        if left <= 0:
            return ranges[:number], ranges[number:]
        bound = rows.next_key(within, None, left)
        if bound is not None:
            first, beyond = cut(within, [bound])
            parts = rows.divide(first, None, max(min(shards - number, left), 1), left)
            return [*ranges[:number], *parts], [beyond, *ranges[number + 1 :]]
        counted = rows.count(within, None)
        if counted is None:
            raise IterationRefusedError(f"_limit={limit}: these rows, or so many of them, cannot be counted.")
        left -= counted
    return ranges, ()
