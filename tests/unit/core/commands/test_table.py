"""Rows as tables."""

from __future__ import annotations

import re
import sys

import pytest

from defer_core.commands.table import tables

ROWS = [
    {"queue": "mail", "tasks": 1200, "oldest": 1.25, "state": None, "error": ""},
    {"queue": "default", "tasks": 7, "oldest": None, "state": "", "error": "[red]refused"},
]
PLAIN = """queues:
  queue    tasks  oldest  error
  mail     1,200     1.2  -
  default      7       -  [red]refused
"""


def test_a_table_has_the_columns_with_something_in_them() -> None:
    assert tables({"queues": ROWS, "stores": []}, styled=False) == PLAIN


def test_rich_is_used_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = tables({"queues": ROWS}, styled=True)
    assert "\x1b[31m[red]refused" in shown  # its markup is not read
    words = [re.sub(r"\x1b\[[0-9;]*m", "", line).split() for line in shown.splitlines()]
    assert ["mail", "1,200", "1.2", "-"] in words and ["default", "7", "-", "[red]refused"] in words


def test_without_rich_it_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("defer_core.commands.table.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "rich", None)  # an import of it raises
    assert tables({"queues": ROWS}, styled=True) == PLAIN
