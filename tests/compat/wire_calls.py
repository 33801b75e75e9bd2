"""The calls whose bodies lie in `golden/wire_v1`: what this and every later release must read in them."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import functools
import uuid
import zoneinfo
from dataclasses import dataclass, field
from typing import Any

ran: list[Any] = []


def note(*args: Any, **kwargs: Any) -> None:
    """What the calls call."""
    ran.append((args, kwargs))


class Colour(enum.Enum):
    """An enum."""

    RED = "r"


@dataclass
class Card:
    """A value that is pickled."""

    name: str

    def method(self, *args: Any) -> None:
        """A method that is deferred with its instance."""
        ran.append((self.name, args))

    @classmethod
    def of_class(cls, *args: Any) -> None:
        """A class method."""
        ran.append((cls.__name__, args))


@dataclass(frozen=True)
class Golden:
    """A call, and what its run notes."""

    func: Any
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    noted: Any = None

    def expected(self) -> Any:
        """What the run notes."""
        return (self.args, self.kwargs) if self.noted is None else self.noted


BERLIN = zoneinfo.ZoneInfo("Europe/Berlin")
CALLS = {
    "scalars": Golden(note, (None, True, 1, -2.5, "Käse", "\ud800", b"\x00\xff"), {"key": [1, {"a": 2}]}),
    "containers": Golden(note, ((1, (2,)), {3}, frozenset({4}), bytearray(b"5"), {(6, "k"): 7})),
    "numbers": Golden(note, (2**64, -(2**70), 1 + 2j, decimal.Decimal("-1.50"), float("inf"))),
    "times": Golden(
        note,
        (
            dt.datetime(2026, 10, 25, 2, 30, 1, 250, tzinfo=BERLIN, fold=1),
            dt.datetime(2026, 1, 2, tzinfo=dt.timezone.utc),
            dt.datetime(2026, 1, 2, 3, 4, 5, 6),
            dt.date(2026, 2, 3),
            dt.time(4, 5, 6, 7, fold=1),
            dt.timedelta(days=-1, seconds=2, microseconds=3),
            dt.timezone(dt.timedelta(hours=2), "X"),
        ),
    ),
    "others": Golden(note, (uuid.UUID(int=7), Colour.RED, note, len)),
    "pickled": Golden(note, (Card("ace"), range(3))),
    "method": Golden(Card("king").method, (1,), noted=("king", (1,))),
    "class_method": Golden(Card.of_class, (1,), noted=("Card", (1,))),
    "partial": Golden(functools.partial(note, 1, key=2), (3,), noted=((1, 3), {"key": 2})),
}
