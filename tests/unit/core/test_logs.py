"""Messages of our loggers stay in one line, whatever they quote."""

from __future__ import annotations

import pytest

from defer_core.logs import LONGEST, logger


def test_a_message_is_one_bounded_line(caplog: pytest.LogCaptureFixture) -> None:
    log = logger("defer.test_logs")
    log.warning("%s %d %s", "a\nforged line\x1b[31m", 7, "x" * 2 * LONGEST)
    [text] = caplog.messages
    assert text.startswith(r"a\nforged line\x1b[31m 7 x") and "\n" not in text
    assert len(text) < LONGEST + 50


def test_a_mapping_of_arguments_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    logger("defer.test_logs").warning("%(queue)s", {"queue": "mail"})
    assert caplog.messages == ["mail"]
