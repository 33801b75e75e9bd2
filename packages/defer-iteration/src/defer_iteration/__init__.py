"""Walk a queryset in parallel shards, each resuming at its last checkpoint, and call `finalize` exactly once."""

from __future__ import annotations

from .__about__ import __version__
from .api import defer_iteration_with_finalize
from .context import (
    DEFERRED_ITERATION_SHARD_INDEX_KEY,
    CurrentShard,
    current_iteration,
    current_shard,
    get_deferred_shard_index,
)
from .errors import FenceLostError, HeldError, IterationRefusedError, TimeoutException, UnknownIterationError
from .handle import IterationHandle, Progress
from .model.counters import Collected
from .model.iteration import Iteration, IterationState, QuarantinedRow
from .model.shard import KeyRange, Shard, cut
from .rows.base import Rows, Split

__all__ = [
    "DEFERRED_ITERATION_SHARD_INDEX_KEY",
    "Collected",
    "CurrentShard",
    "FenceLostError",
    "HeldError",
    "Iteration",
    "IterationHandle",
    "IterationRefusedError",
    "IterationState",
    "KeyRange",
    "Progress",
    "QuarantinedRow",
    "Rows",
    "Shard",
    "Split",
    "TimeoutException",
    "UnknownIterationError",
    "__version__",
    "current_iteration",
    "current_shard",
    "cut",
    "defer_iteration_with_finalize",
    "get_deferred_shard_index",
]
