"""The names of `djangae.deferred` and `djangae.tasks.deferred`. Django is imported when one of them is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import defer_core
from defer_core import PermanentTaskFailure, SingularTaskFailure, TaskHandle
from defer_core.errors import DeferError as Error
from defer_core.spi import resolve

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
    "_process_shard": "defer_djangae.in_flight:process_shard",
    "_generate_shards": "defer_djangae.in_flight:generate_shards",
    "_run_from_datastore": "defer_djangae.in_flight:run_from_datastore",
}
"""Names that are imported at first use. Those with an underscore are in queued pickles of Djangae."""


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return resolve(_LATER[name])
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def defer(obj: Callable[..., Any], /, *args: Any, **kwargs: Any) -> TaskHandle:
    """Call `defer_core.defer`. As in Djangae, `_version="default"` is the service's default version at delivery."""
    return defer_core.defer(obj, *args, **default_version(kwargs))


def default_version(options: dict[str, Any]) -> dict[str, Any]:
    """Replace `_version="default"` by a service alone: such a task goes to the default version of that."""
    if options.get("_version") != "default":
        return options
    from .environment import gae_service_name

    return {**options, "_version": None, "_service": options.get("_service") or gae_service_name()}


def defer_iteration_with_finalize(queryset: Any, callback: Any, finalize: Any, *args: Any, **kwargs: Any) -> Any:
    """Call `defer_iteration.defer_iteration_with_finalize` in any of the positional orders of Djangae 1 and 2 or ours.

    The fourth positional argument tells them apart: a list, a tuple or None is `args`; a string is `_queue`
    (Djangae 1); a callable is `key_ranges_getter` (Djangae 2). Raises any error of defer_iteration.
    """
    import defer_iteration

    from .positional import named

    return defer_iteration.defer_iteration_with_finalize(
        queryset, callback, finalize, **default_version(named(args, kwargs))
    )


def invoke_member(obj: Any, membername: str, *args: Any, **kwargs: Any) -> Any:
    """Call the method of that name; older libraries queue bound methods so."""
    return getattr(obj, membername)(*args, **kwargs)


def get_transaction(model: Any) -> Any:
    """Return the transaction module of a model's database: Django's, on Datastore too."""
    from django.db import transaction

    return transaction
