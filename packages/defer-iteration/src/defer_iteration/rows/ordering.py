"""The order in which a queryset is walked, and comparisons with its keys, which the database makes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Field, Q, QuerySet

from ..model.shard import Key, KeyRange


@dataclass(frozen=True, kw_only=True)
class Ordering:
    """The order by a field, ties broken by primary key; or by primary key alone, which may have several columns."""

    names: tuple[str, ...]
    """The lookup paths of a row's key: the order value, if there is one, and the primary key."""
    order: tuple[str, ...]
    """The lookup paths that rows are sorted by, which an index may have too."""
    fields: tuple[Field[Any, Any], ...]
    """The fields of the key's values."""
    attributes: tuple[str, ...]
    """The attributes of an instance with these values."""
    valued: bool = False
    """Whether the first of them is an order value."""
    nullable: bool = False
    """Whether the order value may be NULL."""
    bounds: str | None = None
    """The lookup path of values as callers write them, if the first of `names` has them as they are stored."""

    @property
    def field(self) -> str | None:
        """The lookup path of the order value; None orders by primary key."""
        return self.names[0] if self.valued else None

    @property
    def pk(self) -> tuple[str, ...]:
        """The lookup paths of the primary key."""
        return self.names[self.valued :]

    def columns(self, *, nulls: bool = False) -> tuple[str, ...]:
        """Return what rows are compared by."""
        return self.pk if nulls else self.names

    def ordered(self, queryset: QuerySet[Any], *, nulls: bool = False, last: bool = False) -> QuerySet[Any]:
        """Return a queryset sorted from the first row on, or from the last one back."""
        order = self.order[-len(self.pk) :] if nulls else self.order
        return queryset.order_by(*(f"-{each}" if last else each for each in order))

    def key(self, key: Key, *, nulls: bool = False) -> Key:
        """Return the part of a key that has columns to be compared with."""
        return key[-len(self.pk) :] if nulls else key

    def at_least(self, key: Key, *, nulls: bool = False) -> Q:
        """Match rows from a key on."""
        return _beyond(self.columns(nulls=nulls), self.key(key, nulls=nulls), "gt", "gte")

    def above(self, key: Key, *, nulls: bool = False) -> Q:
        """Match rows beyond the key of a row."""
        return _beyond(self.columns(nulls=nulls), self.key(key, nulls=nulls), "gt", "gt")

    def below(self, key: Key, *, closed: bool, nulls: bool = False, searched: bool = True) -> Q:
        """Match rows below a key, or (`closed`) up to it."""
        columns, key = self.columns(nulls=nulls), self.key(key, nulls=nulls)
        return _beyond(columns, key, "lt", "lte" if closed else "lt", searched=searched)

    def stages(self, key: Key, shared: int, *, nulls: bool = False) -> Iterator[Q]:
        """Match rows beyond the key of a row in several steps, each of which is one range of an index: first the rows
        that share its first `shared` values, then those that share one fewer, down to none."""
        names, key = self.columns(nulls=nulls), self.key(key, nulls=nulls)
        for same in range(shared, -1, -1):
            end = None if same == shared else same + 1
            tied = Q(**dict(zip(names[:same], key, strict=False)))
            yield tied & _beyond(names[same:end], key[same:end], "gt", "gt")

    def within(self, bounds: KeyRange, *, searched: bool = True) -> Q:
        """Match rows of a range. Without `searched`, the bound is not what an index is searched by."""
        found = Q()
        if self.valued and (bounds.nulls or self.nullable):
            found &= Q(**{f"{self.field}__isnull": bounds.nulls})
        if bounds.lower is not None:
            found &= self.at_least(bounds.lower, nulls=bounds.nulls)
        if bounds.upper is not None:
            found &= self.below(bounds.upper, closed=bounds.closed, nulls=bounds.nulls, searched=searched)
        return found


def _beyond(names: Sequence[str], key: Key, strict: str, last: str, *, searched: bool = True) -> Q:
    """Match rows beyond a key: `last` compares its last value, `strict` those before. A key may have fewer values."""
    *before, (name, value) = zip(names, key, strict=False)
    found = Q(**{f"{name}__{last}": value})
    for index in range(len(before) - 1, -1, -1):
        name, value = before[index]
        found = Q(**{f"{name}__{strict}": value}) | found
        if index or searched:  # redundant, but an index can be searched by it
            found = Q(**{f"{name}__{strict}e": value}) & found
    return found
