"""What callbacks count, by name: sums, the least and the most, and sets of values. The order in which they are merged
does not matter."""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Context, Decimal
from fractions import Fraction
from operator import index
from types import MappingProxyType
from typing import Any

Amount = int | float | Decimal
"""What is summed or compared under a name; a sum with a Decimal in it is a Decimal."""
Part = Amount | tuple[str, Any]
"""One counter: a sum as its amount; any other as its kind (`least`, `most` or `collect`) and its value."""
DIGITS = 60
"""How many digits an amount may have before its point, and a Decimal after it too, so that sums are exact."""
MOST_BYTES = 64 * 1024
"""The most that the counters of a shard may take as JSON, if values are collected: fewer of these are kept then."""
_LIMIT = 10**DIGITS
_EXACT = Context(prec=4 * DIGITS)
_KINDS = ("count", "least", "most", "collect")
"""What a counter may be, named as the method of CurrentShard that counts it."""


@dataclass(frozen=True)
class Collected:
    """A set of texts and whole numbers."""

    values: tuple[str | int, ...]
    """The least `cap` of what was collected, in order, numbers first; fewer if they would take more than 64 KB."""
    cap: int
    """How many values are kept."""
    more: bool = False
    """Whether more than `values` were collected."""

    def __str__(self) -> str:
        return ", ".join(map(str, self.values)) + " and more" * self.more

    def union(self, other: Collected) -> Collected:
        """Return both sets as one."""
        if other.cap >= self.cap and self.more >= other.more and all(map(self._has, other.values)):
            return self  # the usual case, once a row
        cap = min(self.cap, other.cap)
        values = sorted({*self.values, *other.values}, key=_order)
        return Collected(tuple(values[:cap]), cap, self.more or other.more or len(values) > cap)

    def halved(self) -> Collected:
        """Return the first half of the set, which is all that it keeps from now on."""
        half = len(self.values) // 2
        return Collected(self.values[:half], half, more=True)

    def _has(self, value: str | int) -> bool:
        """Return whether the set is the same with this value: it has it, or is full of smaller ones."""
        at = bisect_left(self.values, _order(value), key=_order)
        return self.values[at] == value if at < len(self.values) else self.more and at == self.cap


def _order(value: str | int) -> tuple[bool, str | int]:
    return isinstance(value, str), value


class Counters(Mapping[str, Any]):
    """What was counted, by name: a sum, the least and the most as a number, a set as a Collected."""

    __slots__ = ("parts",)

    def __init__(self, parts: Mapping[str, Part] = MappingProxyType({})) -> None:
        self.parts = parts

    def __getitem__(self, name: str) -> Any:
        part = self.parts[name]
        return part[1] if isinstance(part, tuple) else part

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __repr__(self) -> str:
        return f"Counters({dict(self)!r})"


# --- what is counted in a row -----------------------------------------------------------------------------------------


def checked(name: str, amount: Amount) -> Amount:
    """Return an amount that can be summed and stored. Raise TypeError or ValueError, naming the counter."""
    if type(amount) is int and type(name) is str and -_LIMIT < amount < _LIMIT:
        return amount  # the usual case, once a row
    _check_name(name)
    plain = _plain(name, amount)
    places = -int(plain.as_tuple().exponent) if isinstance(plain, Decimal) else 0
    if not -_LIMIT < plain < _LIMIT or places > DIGITS:
        raise ValueError(f"The counter {name!r} takes amounts of up to {DIGITS} digits, not {amount!r}.")
    return plain


def collected(name: str, value: str | int, cap: int) -> Collected:
    """Return a set of one value. Raise TypeError or ValueError, naming the counter."""
    _check_name(name)
    if not isinstance(cap, int) or isinstance(cap, bool) or cap < 1:
        raise ValueError(f"The counter {name!r} has the cap {cap!r}: it must be a whole number, at least 1.")
    if isinstance(value, str):
        return Collected((str(value),), cap)
    try:
        return Collected((index(value),), cap)
    except TypeError:
        raise TypeError(f"The counter {name!r} collects str and int, not {value!r}.") from None


def _check_name(name: str) -> None:
    if not isinstance(name, str):
        raise TypeError(f"The name of a counter must be a str, not {name!r}.")


def _plain(name: str, amount: Amount) -> Amount:
    """Return the amount as a plain number of its kind: a subclass may be anything."""
    match amount:
        case Decimal() if amount.is_finite():
            return Decimal(amount)
        case float() if amount - amount == 0:
            return float(amount)
    try:
        return index(amount)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"The counter {name!r} takes an int, a Decimal or a finite float, not {amount!r}.") from None


def kinds(counters: Mapping[str, Any]) -> dict[str, str]:
    """Return what each counter is: `count`, `least`, `most` or `collect`."""
    return {name: _kind(part) for name, part in _parts(counters).items()}


# --- merging ----------------------------------------------------------------------------------------------------------


def merged(counters: Iterable[Mapping[str, Any]]) -> Counters:
    """Return counters as one, name by name; a sum of 0 is kept."""
    total: dict[str, Part] = {}
    for each in counters:
        add(total, _parts(each))
    return Counters(_fitted(total))


def add(total: dict[str, Part], more: Mapping[str, Part]) -> None:
    """Merge what was counted into a total, name by name."""
    for name, part in more.items():
        count(total, name, part)


def count(total: dict[str, Part], name: str, part: Part) -> None:
    """Merge one counter into a total."""
    there = total.get(name)
    if type(there) is int and type(part) is int:
        total[name] = there + part  # the usual case, once a row
    elif there is None:
        total[name] = part
    else:
        _count_beside(total, name, there, part)


def _count_beside(total: dict[str, Part], name: str, there: Part, part: Part) -> None:
    """Merge two counters of one name. If shards have counted it in different ways, keep both, one of them under a name
    that says how."""
    first, other = sorted((there, part), key=lambda each: _KINDS.index(_kind(each)))
    if _kind(first) == _kind(other):
        total[name] = _joined(there, part)
    else:
        total[name] = first
        count(total, f"{name} ({_kind(other)})", other)


def _joined(one: Part, other: Part) -> Part:
    if not isinstance(one, tuple) or not isinstance(other, tuple):
        return _sum(one, other)
    kind, mine, theirs = one[0], one[1], other[1]
    if kind == "collect":
        return kind, mine.union(theirs)
    return kind, (min if kind == "least" else max)(mine, theirs, key=Fraction)


def _sum(one: Any, other: Any) -> Amount:
    if isinstance(one, Decimal) or isinstance(other, Decimal):
        return _EXACT.add(_decimal(one), _decimal(other))
    total: Amount = one + other
    return total


def _decimal(amount: Amount) -> Decimal:
    return Decimal(repr(amount)) if isinstance(amount, float) else Decimal(amount)


def _kind(part: Part) -> str:
    return part[0] if isinstance(part, tuple) else "count"


def _parts(counters: Mapping[str, Any]) -> Mapping[str, Part]:
    return counters.parts if isinstance(counters, Counters) else counters


def _fitted(total: dict[str, Part]) -> dict[str, Part]:
    """Return counters with fewer values collected, where they take too many bytes."""
    sets = [name for name, part in total.items() if isinstance(part, tuple) and part[0] == "collect"]
    while sets and len(dumped(total)) > MOST_BYTES:
        largest = max(sets, key=lambda name: len(dumped({name: total[name]})))
        found = total[largest]
        assert isinstance(found, tuple)
        if not found[1].values:
            break
        total[largest] = "collect", found[1].halved()
    return total


# --- storing ----------------------------------------------------------------------------------------------------------


def dumped(counters: Mapping[str, Any]) -> str:
    """Return counters as JSON: `{"rows": 3, "cents": "12.50", "lowest": ["least", 0.5]}`; a Decimal is a string, and a
    set `["collect", [values, cap, more]]`."""
    return json.dumps(dict(_parts(counters)), default=_stored)


def _stored(value: Decimal | Collected) -> Any:
    return [value.values, value.cap, value.more] if isinstance(value, Collected) else str(value)


def loaded(text: str) -> Counters:
    """Return the counters of their JSON."""
    return Counters({name: _read(stored) for name, stored in json.loads(text).items()})


def _read(stored: Any) -> Part:
    match stored:
        case str():
            return Decimal(stored)
        case ["collect", [values, cap, more]]:
            return "collect", Collected(tuple(values), cap, more)
        case [kind, value]:
            return kind, _read(value)
    amount: Amount = stored
    return amount
