"""A pace that is asked now and then pauses where one does that is asked after each row."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from defer_iteration.protocol.timing import Pace

BUFFERS = st.none() | st.floats(0, 30)


def pauses(durations: list[float], buffer_time: float | None, *, always: bool) -> list[tuple[int, bool]]:
    """After which rows a pause is due, and whether it is the last: the rest of a minute is too short."""
    pace = Pace(now=0.0, until=60.0, buffer_time=buffer_time)
    found: list[tuple[int, bool]] = []
    at, look_at = 0.0, pace.look_at(0.0)
    for index, duration in enumerate(durations):
        before, at = at, at + duration
        if not always and at < look_at:
            continue
        if pace.is_due(before, at):
            found.append((index, at >= pace.stop_at))
            if at >= pace.stop_at:
                break
            pace.checkpointed(began=at, ended=at)
        look_at = pace.look_at(at)
    return found


@given(durations=st.lists(st.floats(0, 2) | st.floats(0, 0.1) | st.floats(0, 30), max_size=200), buffer_time=BUFFERS)
@example(durations=[1.4] + [0.25] * 240, buffer_time=None)
@example(durations=[2.5] + [0.25] * 240, buffer_time=None)  # the long row is over before the first checkpoint
def test_looking_now_and_then_misses_no_row_that_matters(durations: list[float], buffer_time: float | None) -> None:
    assert pauses(durations, buffer_time, always=False) == pauses(durations, buffer_time, always=True)
