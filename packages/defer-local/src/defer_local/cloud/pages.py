"""Lists in pages: a token is the number of the last row of the previous page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from .answers import invalid
from .messages import Message

Numbered = TypeVar("Numbered", bound=Any)


@dataclass(frozen=True, kw_only=True)
class Page:
    """The requested part of a list."""

    size: int
    """The number of rows."""
    after: int
    """The number of the row before the first."""

    def cut(self, rows: list[Numbered]) -> tuple[list[Numbered], str]:
        """Split numbered rows, one more than the page takes, into those of the page and the token of the next, which is
        empty after the last."""
        return rows[: self.size], str(rows[self.size - 1][0]) if len(rows) > self.size else ""


def page_of(request: Message, most: int) -> Page:
    """Read `page_size` and `page_token` of a request. Raises ApiError."""
    if request.page_size < 0:
        raise invalid("The page size must not be negative.")
    token = request.page_token
    if token and not (len(token) < 19 and token.isascii() and token.isdigit()):  # an integer that SQLite takes
        raise invalid("The page token is invalid.")
    return Page(size=min(request.page_size or most, most), after=int(token or 0))
