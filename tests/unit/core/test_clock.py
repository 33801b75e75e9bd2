"""The time can be replaced, and comes back."""

from __future__ import annotations

import time

import pytest

from defer_core import clock


def test_the_time_is_replaced_in_a_block_and_comes_back_after_an_exception() -> None:
    with pytest.raises(RuntimeError), clock.replaced(lambda: 7.0):
        assert clock.now() == clock.source()() == 7.0
        raise RuntimeError
    assert abs(clock.now() - time.time()) < 60 and clock.source() is time.time
