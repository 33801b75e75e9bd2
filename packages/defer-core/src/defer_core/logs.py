"""Loggers whose messages stay in one line of bounded length, whatever text of others they quote; and which exceptions
the line about an attempt has told."""

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


def is_logged(error: BaseException) -> bool:
    """Return True if an exception is of a failed attempt that has been logged."""
    return getattr(error, "_defer_is_logged", False)


class LoggedOnce(logging.Filter):
    """Drops what other loggers say of an exception that the line about its attempt has told: of a web framework, say,
    which answers the same request with 500. For handlers whose readers want one line an attempt. (Where the traceback
    is left to the framework, as with Django's `DEBUG`, nothing is dropped.)"""

    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        told = error is not None and is_logged(error) and not getattr(error, "_defer_is_shown", False)
        return not told or record.name.partition(".")[0] == "defer"
