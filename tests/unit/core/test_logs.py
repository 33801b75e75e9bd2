"""Messages of our loggers stay in one line, whatever they quote."""

from __future__ import annotations

import logging

import pytest

from defer_core import LoggedOnce
from defer_core.logs import LONGEST, logger


def test_a_message_is_one_bounded_line(caplog: pytest.LogCaptureFixture) -> None:
    log = logger("defer.test_logs")
    log.warning("%s %d %s", "a\nforged line\x1b[31m", 7, "x" * 2 * LONGEST)
    [text] = caplog.messages
    assert text.startswith(r"a\nforged line\x1b[31m 7 x") and "\n" not in text
    assert len(text) < LONGEST + 50


def test_of_a_logged_exception_the_line_about_its_attempt_is_let_pass() -> None:
    told, other = ValueError("told"), ValueError("other")
    vars(told)["_defer_is_logged"] = True

    def passes(name: str, error: Exception | None) -> bool:
        exc = None if error is None else (type(error), error, None)
        record = logging.getLogger(name).makeRecord(name, logging.ERROR, "", 0, "", (), exc)
        return LoggedOnce().filter(record)

    assert passes("defer", told) and passes("defer.handler", told) and passes("django.request", other)
    assert passes("django.request", None)
    assert not passes("django.request", told) and not passes("deferral", told)


def test_a_mapping_of_arguments_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    logger("defer.test_logs").warning("%(queue)s", {"queue": "mail"})
    assert caplog.messages == ["mail"]
