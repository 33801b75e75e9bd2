"""Which attempt a line of the log is about, and what came of it."""

from __future__ import annotations

import pytest

from defer_core import Delivery, clock
from defer_core.delivery import Ending
from defer_core.log_fields import named, of_attempt, trace_of

ID, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (f"00-{ID}-{SPAN}-01", (ID, SPAN)),
        (f"00-{ID}-{SPAN}-00", (ID, SPAN)),
        (f"cc-{ID}-{SPAN}-01-of-a-later-version", (ID, SPAN)),
        (f"{ID}/{int(SPAN, 16)};o=1", (ID, SPAN)),
        (f"{ID.upper()}/17", (ID, "0000000000000011")),
        (f"{ID};o=1", (ID, "")),
        (ID, (ID, "")),
    ],
)
def test_a_trace_is_read_from_either_header(header: str, found: tuple[str, str]) -> None:
    assert trace_of(header) == found


@pytest.mark.parametrize(
    "header", ["", "x", f"00-{'0' * 32}-{SPAN}-01", ID[:-1], f"{ID}/x", f"{ID}\n", f"{ID}/1;o=1\nforged", f"{ID}{ID}"]
)
def test_what_is_no_trace_is_none(header: str) -> None:
    assert trace_of(header) is None


def test_what_is_not_known_is_left_out() -> None:
    assert named(Delivery()) == {"attempt": 1}
    known = Delivery(task_name="7f", queue="mail", retry_count=2, trace=f"00-{ID}-{SPAN}-01")
    assert named(known) == {"task": "7f", "queue": "mail", "attempt": 3, "trace": ID, "span": SPAN}


def test_the_duration_is_in_seconds_and_never_negative() -> None:
    with clock.replaced(lambda: 1000.25):
        assert of_attempt(Delivery(started=1000.0), Ending.DONE) == {"attempt": 1, "duration": 0.25, "outcome": "done"}
        assert of_attempt(Delivery(started=1001.0), Ending.DONE)["duration"] == 0.0  # the clock was set back


def test_text_of_others_is_one_bounded_line() -> None:
    forged = "x\nCRITICAL: forged\x1b[31m" + "y" * 5000
    told = of_attempt(Delivery(task_name=forged, queue=forged), Ending.DONE, function=forged, error=forged)
    for name in ("task", "queue", "function", "error"):
        assert told[name].isprintable() and len(told[name]) < 300
