"""The codec beside pickle 5: one call there and back, in time and in size."""

from __future__ import annotations

import datetime as dt
import decimal
import pickle
import random
import statistics
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import django
from django.conf import settings

from defer_core import Task
from defer_core.config import Config
from defer_core.wire import decoder, encoder

from ._figures import Figure

ROUNDS = 15
CONFIG = Config()


def rows() -> Iterator[Figure]:
    """Figures by kind of call."""
    for what, value, goal in _calls():
        yield from _compare(what, value, goal)


def _calls() -> list[tuple[str, Any, str]]:
    draw = random.Random(1)
    stamp = dt.datetime(2026, 5, 17, 12, 30, 15, 250, tzinfo=dt.timezone.utc)
    exact = [stamp, stamp.date(), decimal.Decimal("19.99"), uuid.UUID(int=draw.getrandbits(128)), dt.timedelta(hours=1)]
    numbers = [draw.random() for _ in range(100_000)]
    nested = {f"key {i}": {"id": i, "tags": ["a", "b"], "price": {"net": i / 7, "vat": 0.19}} for i in range(5_000)}
    return [
        ("scalars", [[1, "two", 3.0, True, None], {"number": 7, "name": "Ada"}], "≤ 0.6"),
        ("datetime, Decimal, UUID", [exact, {"due": stamp, "amount": decimal.Decimal("1.5")}], "≤ 0.6"),
        ("a model of 10 fields", [[a_model()], {}], "≤ 0.6"),
        ("a list of 100,000 floats", [[numbers], {}], "≤ 1.25"),
        ("nested dicts, 5,000 of 3 levels", [[nested], {}], "≤ 1.25"),
    ]


@cache
def a_model() -> Any:
    """An unsaved instance of ten fields, of a model made here."""
    if not settings.configured:
        settings.configure(INSTALLED_APPS=["benchmarks"], USE_TZ=True)
        django.setup()
    from django.db import models

    from defer_django import instances

    instances.register()
    fields = {f"text_{i}": models.CharField(max_length=50, default=f"value {i}") for i in range(5)}
    fields |= {f"number_{i}": models.IntegerField(default=i) for i in range(4)}
    meta = type("Meta", (), {"app_label": "benchmarks"})
    model: Any = type("Sample", (models.Model,), {"__module__": __name__, "Meta": meta, **fields})
    globals()["Sample"] = model
    return model(pk=1)


def _compare(what: str, call: Any, goal: str) -> Iterator[Figure]:
    """A whole call: the function, its arguments and its keyword arguments."""
    args, kwargs = call
    task, triple = Task(func=called, args=tuple(args), kwargs=kwargs), (called, tuple(args), kwargs)
    ours, theirs = encoder.pack_call(task, CONFIG), pickle.dumps(triple, 5)
    times = _in_turn(
        lambda: pickle.loads(pickle.dumps(triple, 5)),
        lambda: decoder.unpack_call(encoder.pack_call(task, CONFIG), CONFIG),
    )
    yield f"{what}: time", f"{times[0] * 1e6:,.1f} µs", f"{times[1] * 1e6:,.1f} µs", times[1] / times[0], goal
    yield f"{what}: size", f"{len(theirs):,} B", f"{len(ours):,} B", len(ours) / len(theirs), goal


def called(*args: Any, **kwargs: Any) -> None:
    """What the calls call."""


def _in_turn(floor: Callable[[], object], ours: Callable[[], object]) -> tuple[float, float]:
    """Seconds of one call of each: A B A B, the median of the rounds."""
    number = max(1, int(0.02 / _time(floor, 1)))
    found = [(_time(floor, number), _time(ours, number)) for _ in range(ROUNDS)]
    return statistics.median(a for a, _ in found), statistics.median(b for _, b in found)


def _time(call: Callable[[], object], number: int) -> float:
    started = time.perf_counter()
    for _ in range(number):
        call()
    return (time.perf_counter() - started) / number
