"""Text of others (exceptions, names in a body, headers), made fit to be stored or logged."""

from __future__ import annotations

import traceback

LONGEST = 20_000
"""Characters of a traceback that are kept: its beginning, and its end, which says what was raised."""
LONGEST_PART = LONGEST // 4
"""Characters of one frame, or of one exception's message, in it."""
LONGEST_IN_A_LOG = 200
"""Characters of a name or a message that one line of a log takes."""


def storable(text: str) -> str:
    """Return text that every database takes and every terminal prints: a NUL and lone surrogates are escaped."""
    return text.replace("\0", r"\x00").encode("utf-8", "backslashreplace").decode()


def traceback_of(error: BaseException) -> str:
    """Return an error's traceback of at most `LONGEST` characters, fit to be stored. A message that is too long is cut
    by itself, so that frames and class are there."""
    parts = [shortened(storable(part), LONGEST_PART) for part in traceback.format_exception(error)]
    return shortened("".join(parts))


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return text of at most `longest` characters: its beginning and its end, with `…` between."""
    if len(text) <= longest:
        return text
    half = longest // 2
    return f"{text[: longest - half - 1]}…{text[-half:]}"


def printable(text: str) -> str:
    """Return text of several lines, fit for a terminal: in each line, what is not printable is escaped."""
    return "\n".join(one_line(line, LONGEST) for line in text.split("\n"))


def one_line(value: object, longest: int = LONGEST_IN_A_LOG) -> str:
    """Return a value as text for one line of a log: what is not printable is escaped, what is too long is cut."""
    text = str(value)
    if len(text) <= longest and text.isprintable():  # as nearly all is
        return text
    shown = "".join(_shown(each) for each in text[:longest])
    return shown if len(text) <= longest and len(shown) <= longest else f"{shown[:longest]}…"


def last_line(text: str) -> str:
    """Return the last line of a traceback, which says what was raised, for one line of a log."""
    return one_line(text.strip().rpartition("\n")[2])


def _shown(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()
