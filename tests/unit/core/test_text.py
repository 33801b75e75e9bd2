"""Text of others, made fit to be stored and to be logged."""

from __future__ import annotations

import logging

import pytest

from defer_core import text


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ("plain: é 漢 🙂", "plain: é 漢 🙂"),
        ("a\x00b", r"a\x00b"),
        ("caf\udce9.csv", r"caf\udce9.csv"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
    ],
)
def test_what_can_be_stored(given: str, stored: str) -> None:
    assert text.storable(given) == stored
    assert "\0" not in text.storable(given) and text.storable(given).encode()


def test_every_part_of_a_traceback_can_be_stored() -> None:
    cause = ValueError("cause \udcff")
    error = ExceptionGroup("group \x00", [KeyError("member \ud800")])
    error.add_note("note \x00")
    error.__cause__ = cause
    found = text.traceback_of(error)
    assert all(part in found for part in (r"cause \udcff", r"group \x00", r"member", r"note \x00"))
    assert found.encode() and "\0" not in found


def raising(depth: int, message: str) -> None:
    """Raise an error some frames below, by two functions in turn: frames that repeat are not printed."""
    if not depth:
        raise ValueError(message)
    (raising_too if depth % 2 else raising)(depth - 1, message)


def raising_too(depth: int, message: str) -> None:
    raising(depth - 1, message) if depth else raising(0, message)


@pytest.mark.parametrize("depth", [0, 900])
@pytest.mark.parametrize("cause", [None, KeyError("y" * 200_000)], ids=["alone", "with a cause"])
@pytest.mark.parametrize("message", ["first " + "x" * 200_000 + " last", "first " + "\0" * 50_000 + " last"], ids=len)
def test_of_a_long_message_beginning_and_end_are_kept(depth: int, cause: Exception | None, message: str) -> None:
    with pytest.raises(ValueError, match="first") as caught:
        raising(depth, message)
    caught.value.__cause__ = cause
    kept = text.traceback_of(caught.value)
    assert kept.startswith("Traceback (most recent call last):" if cause is None else "KeyError: 'yyy")
    assert ", in raising\n" in kept and "…" in kept
    assert text.last_line(kept).startswith("ValueError: first ") and kept.endswith(" last\n")
    assert len(kept) <= text.LONGEST


def test_what_is_short_is_not_cut() -> None:
    assert text.shortened("abcdef", 6) == "abcdef"
    assert text.shortened("abcdef", 5) == "ab…ef"


@pytest.mark.parametrize("control", ["\n", "\r", "\x1b", "\x00", "\x85", "\u2028", "\u2029", "\u202e", "\ud800"])
def test_one_line_has_no_control_characters(control: str) -> None:
    shown = text.one_line(f"a{control}b")
    assert shown.isprintable() and len(shown.splitlines()) == 1 and shown != "ab"
    logging.Formatter().format(logging.makeLogRecord({"msg": shown})).encode()


def test_one_line_is_of_a_bounded_length() -> None:
    assert text.one_line("x" * 200) == "x" * 200
    assert text.one_line("x" * 500_000) == "x" * 200 + "…"
    assert text.one_line("\n" * 200) == r"\n" * 100 + "…"
    assert text.one_line(ValueError("short")) == "short"
