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
from .iteration import Iteration, IterationState, QuarantinedRow
from .shard import Shard

__all__ = [
    "DEFERRED_ITERATION_SHARD_INDEX_KEY",
    "CurrentShard",
    "FenceLostError",
    "HeldError",
    "Iteration",
    "IterationHandle",
    "IterationRefusedError",
    "IterationState",
    "Progress",
    "QuarantinedRow",
    "Shard",
    "TimeoutException",
    "UnknownIterationError",
    "__version__",
    "current_iteration",
    "current_shard",
    "defer_iteration_with_finalize",
    "get_deferred_shard_index",
]
