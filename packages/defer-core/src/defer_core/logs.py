"""Loggers whose messages stay in one line of bounded length, whatever text of others they quote."""

from __future__ import annotations

import logging
from typing import Any

from .text import one_line

LONGEST = 1000
"""Characters that each argument of a message takes."""


def logger(name: str) -> logging.Logger:
    """Return a logger, each of whose messages stays in one line; that applies to all users of its name."""
    found = logging.getLogger(name)
    found.addFilter(_in_one_line)
    return found


def _in_one_line(record: logging.LogRecord) -> bool:
    if isinstance(record.args, tuple):
        record.args = tuple(map(_shown, record.args))
    return True


def _shown(given: Any) -> Any:
    return given if given is None or isinstance(given, int | float) else one_line(given, LONGEST)
