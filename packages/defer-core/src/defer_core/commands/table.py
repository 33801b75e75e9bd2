"""Rows as tables for people: by rich in a terminal, if it is installed; else plain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec

ALARMING = ("late", "failing", "dead", "error", "reason")
"""Columns whose values are for a person to look at."""
Rows = Sequence[Mapping[str, object]]


def tables(found: Mapping[str, Rows], *, styled: bool) -> str:
    """Return a table for each that has rows, under its name. All values are text of one line, or numbers."""
    show = _styled if styled and find_spec("rich") else _plain
    return "\n".join(show(name, columns_of(rows), rows) for name, rows in found.items() if rows)


def columns_of(rows: Rows) -> list[str]:
    """Return the columns that have something in them."""
    return [name for name in rows[0] if any(row.get(name) not in (None, "") for row in rows)]


def cell(value: object) -> str:
    """Return a value as it is shown."""
    if isinstance(value, float):
        return f"{value:,.1f}"
    return f"{value:,}" if isinstance(value, int) else str("-" if value in (None, "") else value)


def _are_numbers(name: str, rows: Rows) -> bool:
    return all(isinstance(row.get(name), int | float | None) for row in rows)


def _plain(name: str, columns: Sequence[str], rows: Rows) -> str:
    lines = [""] * (len(rows) + 1)
    for column in columns:
        cells = [column, *(cell(row.get(column)) for row in rows)]
        width, justify = max(map(len, cells)), str.rjust if _are_numbers(column, rows) else str.ljust
        lines = [f"{line}  {justify(text, width)}" for line, text in zip(lines, cells, strict=True)]
    return "\n".join([f"{name}:", *map(str.rstrip, lines), ""])


def _styled(name: str, columns: Sequence[str], rows: Rows) -> str:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=name, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for each in columns:
        table.add_column(each, justify="right" if _are_numbers(each, rows) else "left", overflow="fold")
    for row in rows:
        shown = [Text(cell(row.get(each)), "red" if each in ALARMING and row.get(each) else "") for each in columns]
        table.add_row(*shown)
    console = Console(force_terminal=True)
    with console.capture() as captured:
        console.print(table)
    return captured.get()
