"""Numbers and times in words."""

from __future__ import annotations

import pytest
from django.utils import timezone, translation

from defer_django import words

NOON = 1_800_014_400.0  # 15 January 2027, 12:00 UTC


@pytest.mark.parametrize(
    ("language", "said"),
    [
        ("en", ["12,345", "25 %", "1 second", "59 seconds", "2 hours, 1 minute"]),
        ("de", ["12.345", "25 %", "1 Sekunde", "59 Sekunden", "2 Stunden, 1 Minute"]),
    ],
)
def test_numbers_and_spans_are_said_in_the_language(language: str, said: list[str]) -> None:
    with translation.override(language):
        spans = [words.span(NOON, NOON + seconds).replace("\xa0", " ") for seconds in (1.9, 59, 7270)]
        assert words.span(NOON, NOON + 7270, units=1) == said[-1].partition(",")[0].replace(" ", "\xa0")
        assert [words.number(12345), words.share(1, 4), *spans] == said


def test_a_time_is_told_in_the_current_zone() -> None:
    with timezone.override("Asia/Tokyo"):
        assert words.at(NOON) == "Jan. 15, 2027, 9 p.m."


def test_a_clock_that_was_set_back_makes_no_negative_span() -> None:
    assert words.span(NOON, NOON - 5) == "0 seconds"


def test_a_share_is_at_most_all_and_none_of_nothing() -> None:
    assert words.share(5, 4) == "100 %"
    assert words.share(0, 0) == words.share(1, None) == ""
