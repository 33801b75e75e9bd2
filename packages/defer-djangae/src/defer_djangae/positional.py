"""The three positional orders of `defer_iteration_with_finalize`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

OURS = ("args", "_queue", "_shards", "_delete_marker", "_transactional", "_buffer_time")
DJANGAE_1 = ("_queue", "_shards", "_delete_marker", "_transactional", "_buffer_time")
DJANGAE_2 = (
    "key_ranges_getter", "order_field", "_queue", "_service", "_version", "_shards", "_delete_marker", "_transactional",
)  # fmt: skip


def named(positional: Sequence[Any], keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments after `finalize` as keywords. Raises TypeError if one is given twice, or too many."""
    options = normalised(keywords)
    if not positional:
        return options
    order = order_of(positional[0])
    given = dict(zip(order, positional, strict=False))
    rest = tuple(positional[len(order) :])
    if rest and order is OURS:
        raise TypeError(
            f"defer_iteration_with_finalize() takes at most {3 + len(OURS)} positional arguments: "
            "give the callback's own arguments as `args=[...]`."
        )
    if rest:
        given["args"] = rest
    for name in given:
        if name in options:
            raise TypeError(f"defer_iteration_with_finalize() got multiple values for argument {name!r}.")
    return {**options, **normalised(given)}


def order_of(fourth: Any) -> tuple[str, ...]:
    """Return the order that the fourth positional argument begins. Raises TypeError if it begins none."""
    if fourth is None or isinstance(fourth, list | tuple):
        return OURS
    if isinstance(fourth, str):
        return DJANGAE_1
    if callable(fourth):
        return DJANGAE_2
    raise TypeError(
        f"The fourth positional argument is {fourth!r}: it is a list, a tuple or None (args), a string (_queue, as in "
        "Djangae 1) or a callable (key_ranges_getter, as in Djangae 2)."
    )


def normalised(keywords: Mapping[str, Any]) -> dict[str, Any]:
    """Remove what only repeats our defaults: Djangae's default ranges are by rows here."""
    from .processing import datastore_key_ranges

    options = dict(keywords)
    if options.get("key_ranges_getter") is datastore_key_ranges:
        del options["key_ranges_getter"]
    if options.get("_queue", "default") is None:
        del options["_queue"]
    return options
