"""`djangae.tasks.deferred`: the names that sites import, and (found when asked for) those that queued pickles refer to."""

from defer_djangae.deferred import (
    DEFERRED_ITERATION_SHARD_INDEX_KEY,
    Error,
    PermanentTaskFailure,
    SingularTaskFailure,
    __getattr__,
    defer,
    defer_iteration_with_finalize,
    get_transaction,
    invoke_member,
)

__all__ = [
    "DEFERRED_ITERATION_SHARD_INDEX_KEY",
    "Error",
    "PermanentTaskFailure",
    "SingularTaskFailure",
    "TimeoutException",
    "__getattr__",
    "defer",
    "defer_iteration_with_finalize",
    "get_deferred_shard_index",
    "get_transaction",
    "invoke_member",
]
