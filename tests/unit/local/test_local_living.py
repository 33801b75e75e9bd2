"""Who is taken for dead, whatever the clock says."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import pytest

from defer_core.spi import clock
from defer_local.living import BEAT_LASTS, Watch

NOW = 1_700_000_000.0


def sign(**fields: Any) -> Any:
    """A sign of life from another machine."""
    return {"id": "it", "host": "elsewhere", "pid": 1, "alive_until": NOW + BEAT_LASTS} | fields


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Look at signs of life at a time of day, so many seconds after the first look."""

    def look(watch: Watch, *signs: Any, day: float = NOW, seconds: float = 0.0) -> list[str]:
        monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + seconds)
        with clock.replaced(lambda: day):
            return watch.gone(signs)

    return look


def test_at_the_first_look_its_own_word_counts(at: Any) -> None:
    assert at(Watch(), sign(), day=NOW + BEAT_LASTS) == []
    assert at(Watch(), sign(), day=NOW + BEAT_LASTS + 1) == ["it"]


def test_a_clock_that_is_set_forward_kills_nobody_who_goes_on_saying_so(at: Any) -> None:
    watch = Watch()
    assert at(watch, sign()) == []
    assert at(watch, sign(), day=NOW + 3600, seconds=5) == []
    assert at(watch, sign(alive_until=NOW + 3605 + BEAT_LASTS), day=NOW + 3605, seconds=10) == []


def test_a_clock_that_is_set_back_keeps_nobody_alive(at: Any) -> None:
    watch = Watch()
    assert at(watch, sign(), day=NOW - 3600) == []
    assert at(watch, sign(), day=NOW - 3600 + BEAT_LASTS, seconds=BEAT_LASTS) == []
    assert at(watch, sign(), day=NOW - 3600 + BEAT_LASTS, seconds=BEAT_LASTS + 1) == ["it"]


def test_a_process_of_this_machine_that_has_ended_is_gone_at_once(at: Any) -> None:
    here = {"host": socket.gethostname()}
    assert at(Watch(), sign(**here, pid=2**22 + 1)) == ["it"]
    assert at(Watch(), sign(**here, pid=os.getppid())) == []
    assert at(Watch(), sign(**here, pid=os.getpid())) == ["it"], "one of an earlier life of this process"
