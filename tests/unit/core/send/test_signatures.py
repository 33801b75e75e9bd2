"""What a type checker says of calls of `defer()`: an error where one is marked, and nowhere else."""

from __future__ import annotations

import sys
from pathlib import Path

from mypy import api

from defer_core.send import options, signatures

CALLS = """
import datetime as dt
import functools
from typing import Any

from defer_core import TaskHandle, adefer, defer


class Shop:
    def __init__(self, name: str = "") -> None: ...
    def open(self, hour: int, *, fast: bool = False) -> None: ...
    @classmethod
    def of(cls, name: str) -> None: ...
    def __call__(self, hour: int) -> None: ...


def ship(order: int, fast: bool = False) -> int: return 1
async def later(order: int) -> None: ...
def loose(*args: Any, **kwargs: Any) -> None: ...


args: tuple[Any, ...] = ()
kwargs: dict[str, Any] = {}
names: dict[str, str] = {}
handle: TaskHandle = defer(ship, 1)
defer(ship, 1, fast=True)
defer(ship, *args, **kwargs)
defer(Shop().open, 1, fast=True)
defer(Shop.of, "x")
defer(Shop(), 1)
defer(Shop, "x")
defer(later, 1)
defer(loose, 1, any=2)
defer(functools.partial(ship, 1))
defer(len, "x")
defer(lambda: None)
defer(ship, 1, _countdown=5)
defer(ship, 1, _countdown=dt.timedelta(1), _queue="mail", _name=None)
defer(ship, 1, _eta=dt.datetime.now(), _headers={"a": "b"}, _small_task=True)
defer(ship, 1, _retry_options={"max_attempts": 3})
defer(ship, 1, **names)
defer(ship)  # error
defer(ship, "x")  # error
defer(ship, 1, countdown=5)  # error
defer(ship, 1, _delay=5)  # error
defer(ship, 1, 2, 3)  # error
defer(ship, 1, fats=True)  # error
defer(Shop().open)  # error
defer(ship, 1, _countdown="x")  # error
defer(ship, 1, _eta=5)  # error
defer(ship, 1, _queue=5)  # error
defer(ship, 1, _countdwon=5)  # error
defer("ship", 1)  # error


async def coroutine() -> None:
    other: TaskHandle = await adefer(ship, 1, fast=True)
    await adefer(ship, 1, _queue="mail")
    await adefer(ship)  # error
    await adefer(ship, 1, _queue=5)  # error
"""


def test_a_type_checker_finds_what_does_not_fit_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "calls.py"
    file.write_text(CALLS)
    limit = sys.getrecursionlimit()  # which mypy raises so far that other tests' recursions would end the process
    try:
        said, failed, _ = api.run(["--strict", f"--cache-dir={tmp_path}/cache", "--no-color-output", str(file)])
    finally:
        sys.setrecursionlimit(limit)
    found = {int(line.split(":")[1]) for line in said.splitlines() if ": error:" in line}
    assert failed == "", failed
    assert found == {at for at, line in enumerate(CALLS.splitlines(), 1) if line.endswith("# error")}, said


def test_every_option_is_typed() -> None:
    text = Path(signatures.__file__).read_text()
    assert [name for name in sorted(options.NAMES) if text.count(f" {name}: ") != 1] == []
