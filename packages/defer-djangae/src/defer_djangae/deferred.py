"""What `djangae.deferred` and `djangae.tasks.deferred` give. Nothing of Django is imported until it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import defer_core
from defer_core import PermanentTaskFailure, SingularTaskFailure, TaskHandle
from defer_core.callables import resolve
from defer_core.errors import DeferError as Error

if TYPE_CHECKING:
    from defer_iteration import TimeoutException, get_deferred_shard_index

__all__ = [
    "DEFERRED_ITERATION_SHARD_INDEX_KEY",
    "Error",
    "PermanentTaskFailure",
    "SingularTaskFailure",
    "TaskHandle",
    "TimeoutException",
    "defer",
    "defer_iteration_with_finalize",
    "get_deferred_shard_index",
    "get_transaction",
    "invoke_member",
]

DEFERRED_ITERATION_SHARD_INDEX_KEY = "DEFERRED_ITERATION_SHARD_INDEX"
"""The environment variable that holds the index of the shard that is running."""
_LATER = {
    "TimeoutException": "defer_iteration.errors:TimeoutException",
    "get_deferred_shard_index": "defer_iteration.context:get_deferred_shard_index",
    "_process_shard": "defer_djangae.flight:process_shard",
    "_generate_shards": "defer_djangae.flight:generate_shards",
    "_run_from_datastore": "defer_djangae.flight:run_from_datastore",
}
"""Names that are looked up when asked for. Those with an underscore are what queued pickles of Djangae name."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return resolve(_LATER[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def defer(obj: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskHandle:
    """`defer_core.defer`. As in Djangae, `_version="default"` is whichever version is the service's default by then."""
    return defer_core.defer(obj, *args, **default_version(kwargs))


def default_version(options: dict[str, Any]) -> dict[str, Any]:
    """Options without `_version="default"`: a task that names only its service goes to the default version of that."""
    if options.get("_version") != "default":
        return options
    from .environment import gae_service_name

    return {**options, "_version": None, "_service": options.get("_service") or gae_service_name()}


def defer_iteration_with_finalize(queryset: Any, callback: Any, finalize: Any, *args: Any, **kwargs: Any) -> Any:
    """`defer_iteration.defer_iteration_with_finalize`, which also takes the positional orders of Djangae 1 and 2.

    The fourth positional argument tells them apart: a list, a tuple or None is `args`; a string is `_queue`
    (Djangae 1); a callable is `key_ranges_getter` (Djangae 2). Raises what defer_iteration raises.
    """
    import defer_iteration

    from .positional import named

    return defer_iteration.defer_iteration_with_finalize(
        queryset, callback, finalize, **default_version(named(args, kwargs))
    )


def invoke_member(obj: Any, membername: str, *args: Any, **kwargs: Any) -> Any:
    """Call the method of that name: how older libraries queued a bound method."""
    return getattr(obj, membername)(*args, **kwargs)


def get_transaction(model: Any) -> Any:
    """The transaction module of a model's database: Django's, on Datastore too."""
    from django.db import transaction

    return transaction
