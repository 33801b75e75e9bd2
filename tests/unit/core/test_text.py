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


def test_the_end_of_a_traceback_is_kept() -> None:
    assert text.traceback_of(ValueError("x" * 50_000 + "the end")).endswith("the end\n")
    assert len(text.traceback_of(ValueError("x" * 50_000))) == text.LONGEST
    assert len(text.traceback_of(ValueError("\0" * 50_000))) == text.LONGEST


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
