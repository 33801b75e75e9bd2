"""Lists that come in pages: a token is the number of the last row of the page before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from .answers import invalid
from .messages import Message

Numbered = TypeVar("Numbered", bound=Any)


@dataclass(frozen=True, kw_only=True)
class Page:
    """Which part of a list is asked for."""

    size: int
    """How many."""
    after: int
    """The number of the row before the first."""

    def cut(self, rows: list[Numbered]) -> tuple[list[Numbered], str]:
        """Of rows that begin with their number, one more than the page takes: its rows, and the token of the next page,
        which is empty for the last."""
        return rows[: self.size], str(rows[self.size - 1][0]) if len(rows) > self.size else ""


def page_of(request: Message, most: int) -> Page:
    """What a request's `page_size` and `page_token` say. Raises ApiError."""
    if request.page_size < 0:
        raise invalid("The page size must not be negative.")
    token = request.page_token
    if token and not (len(token) < 19 and token.isascii() and token.isdigit()):  # what SQLite takes for a number
        raise invalid("The page token is invalid.")
    return Page(size=min(request.page_size or most, most), after=int(token or 0))
