"""A shard that lags gives parts of what is left of it to shards that are done; a row that raises holds up itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testapp import iterations
from testapp.models import Row
from unit.iteration.deliveries import Killed, deliver, finish, kill, on_row, poison

from defer_core import execute
from defer_core.spi import Delivery, clock
from defer_core.testing import MemoryStore, drain
from defer_iteration import IterationHandle, models
from defer_iteration import defer_iteration_with_finalize as walk
from defer_iteration.model.iteration import Iteration, IterationOptions, IterationState
from defer_iteration.model.shard import KeyRange, Shard
from defer_iteration.protocol.division import MOST, Division
from defer_iteration.protocol.timing import Pace
from defer_iteration.rows import queryset
from defer_iteration.rows.base import Rows
from defer_iteration.rows.memory import MemoryRows
from defer_iteration.stores.django import DjangoIterationStore
from defer_iteration.stores.memory import MemoryIterationStore
from defer_iteration.stores.routing import store_on

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "other"])


class Clock:
    """Seconds that only tests let pass."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def a_row_takes(self, seconds: float) -> None:
        iterations.before.append(lambda row: setattr(self, "now", self.now + seconds))


@pytest.fixture
def time() -> Iterator[Clock]:
    made = Clock()
    with clock.replaced(lambda: made.now):
        yield made


def begun(**options: Any) -> IterationHandle:
    given = {"_shards": 4, "_delete_marker": False, **options}
    return walk(Row.objects.all(), iterations.callback, iterations.finalize, **given)


def indexes(keys: list[Any]) -> list[int]:
    """By which shard each row was passed."""
    return [iterations.shards[key][0] for key in keys]


def check_end(keys: list[Any], handle: IterationHandle) -> None:
    """Every row once, and all of it is counted."""
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert len(iterations.finalized) == 1
    progress = handle.progress()
    assert progress.state is IterationState.DONE and all(shard.done for shard in progress.shards)
    assert progress.rows == len(keys) and progress.counters == {"passed": len(keys)}


# --- what is given, and when ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"_atomic": True}, {"order_field": "number"}, {"order_field": "rank"}])
def test_a_shard_that_lags_gives_parts_to_shards_that_are_done(
    queue: Any, rows: Any, time: Clock, options: dict[str, Any]
) -> None:
    keys = rows(80)
    for rank in range(3):
        Row.objects.filter(pk__in=keys[rank::9]).update(rank=rank)
    time.a_row_takes(1.0)
    handle = begun(**options)
    drain(queue)
    check_end(keys, handle)
    assert max(shard.generation for shard in handle.progress().shards) > 0
    assert len(handle.progress().shards) <= 5  # one more than was asked for, of rows without a rank


@pytest.mark.on_sql  # where larger parts come first, to the row
def test_what_is_left_is_divided_among_the_shard_and_those_that_are_done(queue: Any, rows: Any, time: Clock) -> None:
    keys = rows(80)
    time.a_row_takes(1.0)
    handle = begun()
    for _ in range(4):  # the plan, and three shards, the second and third of which give parts to those before them
        finish(queue, queue.queued()[0])
    shards = handle.progress().shards
    assert [(shard.done, shard.generation) for shard in shards] == [(False, 1), (False, 1), (True, 0), (False, 0)]
    assert [(row.rows, row.range) for row in shards] == [
        (20, KeyRange(lower=(keys[32],), upper=(keys[40],))),
        (12, KeyRange(lower=(keys[52],), upper=(keys[60],))),
        (12, KeyRange(lower=(keys[40],), upper=(keys[52],))),
        (0, KeyRange(lower=(keys[60],), upper=(keys[79],), closed=True)),
    ]
    assert [key for key in keys if key not in iterations.seen] == [*keys[32:40], *keys[52:]]


@pytest.mark.parametrize(
    ("options", "is_on"),
    [
        ({}, True),
        ({"_rebalance": False}, False),
        ({"key_ranges_getter": iterations.whole_range}, False),
        ({"key_ranges_getter": iterations.whole_range, "_rebalance": True}, True),
        ({"_shards": 1}, False),
        ({"_shards": 1, "_rebalance": True}, True),
    ],
)
def test_it_is_on_but_for_ranges_of_the_callers_own_and_for_one_shard(
    queue: Any, options: dict[str, Any], is_on: bool
) -> None:
    begun(**options)
    assert json.loads(models.Iteration.objects.get().options)["rebalance"] is is_on


def test_without_it_each_shard_passes_its_own_rows(queue: Any, rows: Any, time: Clock) -> None:
    keys = rows(80)
    time.a_row_takes(1.0)
    handle = begun(_rebalance=False)
    drain(queue)
    check_end(keys, handle)
    assert indexes(keys) == [index for index in range(4) for _ in range(20)]


def test_an_iteration_of_an_earlier_release_is_walked_without_it(queue: Any, rows: Any, time: Clock) -> None:
    keys = rows(80)
    time.a_row_takes(1.0)
    handle = begun()
    row = models.Iteration.objects.get()
    options = json.loads(row.options)
    del options["rebalance"]
    models.Iteration.objects.update(options=json.dumps(options))
    drain(queue)
    check_end(keys, handle)
    assert indexes(keys) == [index for index in range(4) for _ in range(20)]


def test_ranges_that_a_getter_is_short_of_are_shards_that_are_done(queue: Any, rows: Any, time: Clock) -> None:
    keys = rows(80)
    time.a_row_takes(1.0)
    handle = begun(key_ranges_getter=iterations.whole_range, _rebalance=True)
    finish(queue, queue.queued()[0])
    assert [shard.done for shard in handle.progress().shards] == [False, True, True, True]
    assert len(queue.queued()) == 1
    drain(queue)
    check_end(keys, handle)
    assert set(indexes(keys)) == {0, 1, 2, 3}


def test_fewer_rows_than_shards_are_no_reason_for_shards_without_rows(queue: Any, rows: Any) -> None:
    keys = rows(3)
    handle = begun()
    drain(queue)
    check_end(keys, handle)
    assert len(handle.progress().shards) == 3


@pytest.mark.parametrize("options", [{}, {"_atomic": True}])
def test_whether_shards_are_done_is_not_asked_before_a_checkpoint_and_then_once_an_interval(
    queue: Any, rows: Any, time: Clock, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(queryset, "PAGE", 4)
    asked: list[float] = []
    slots = DjangoIterationStore.slots

    def noting(self: DjangoIterationStore, iteration_id: str) -> tuple[int, int]:
        asked.append(time.now - 1_000_000.0)
        return slots(self, iteration_id)

    monkeypatch.setattr(DjangoIterationStore, "slots", noting)
    rows(120)
    time.a_row_takes(0.1)
    begun(**options, _shards=5)  # shards of 2.4 seconds
    drain(queue)
    assert asked == []
    begun(**options, _shards=2)  # shards of 6 seconds; the second one has too little to give
    began = time.now - 1_000_000.0
    drain(queue)
    assert len(asked) in (2, 3) and asked[0] - began >= 3.0 and asked[1] - asked[0] >= 3.0


# --- how much ---------------------------------------------------------------------------------------------------------


class Slots(MemoryIterationStore):
    """A store that says how many shards are done and open."""

    def __init__(self, done: int, still_open: int) -> None:
        super().__init__(MemoryStore())
        self.said = done, still_open

    def slots(self, iteration_id: str) -> tuple[int, int]:
        return self.said


SHARD = Shard(iteration_id="i", index=0, range=KeyRange(lower=(0,), upper=(10_000,)))
ON = Iteration(id="i", job=b"", options=IterationOptions(rebalance=True))


def division(rows: Rows, done: int = 1, still_open: int = 1) -> Division:
    pace = Pace(now=clock.now(), until=clock.now() + 600, buffer_time=None)
    return Division(Slots(done, still_open), rows, ON, SHARD, pace)


def after(rows: int) -> Shard:
    return Shard(iteration_id="i", index=0, range=SHARD.range, position=(rows - 1,), rows=rows)


@pytest.mark.parametrize(
    ("done", "still_open", "left", "parts"),
    [
        (0, 4, 1000, 1),  # nobody to give to
        (1, 1, 1000, 2),
        (3, 1, 1000, 4),
        (4, 3, 1000, 3),  # each of three gives to one or two
        (15, 1, 1000, 16),
        (9_990, 10, 1000, MOST),
        (15, 1, 100, 3),  # 100 rows of 0.1 s are worth three tasks
        (15, 1, 59, 1),
    ],
)
def test_parts_by_the_shards_that_are_done_none_worth_less_than_an_interval(
    time: Clock, done: int, still_open: int, left: int, parts: int
) -> None:
    found = division(MemoryRows(dict.fromkeys(range(30 + left), "row")), done, still_open)
    time.now += 3.0
    ranges = found.ranges(after(30))
    assert max(len(ranges), 1) == parts
    if parts > 1:
        sizes = [len(MemoryRows(dict.fromkeys(range(30 + left), ""))._keys(each, (29,))) for each in ranges]
        assert sum(sizes) == left and max(sizes) - min(sizes) <= 1


def test_the_last_interval_says_how_long_a_row_takes(time: Clock) -> None:
    found = division(MemoryRows(dict.fromkeys(range(1000), "row")), done=31)
    time.now += 3.0
    assert len(found.ranges(after(950))) == 0  # 50 rows that take no time
    time.now += 4.0
    assert len(found.ranges(after(951))) == MOST  # 49 rows of 4 s


def test_a_row_that_takes_longer_may_be_the_first_of_many(time: Clock) -> None:
    found = division(MemoryRows(dict.fromkeys(range(140), "row")), done=31)
    time.now += 17.0
    found.pace.is_due(time.now - 16.0, time.now)
    assert len(found.ranges(after(101))) == MOST  # by the mean, 39 rows are worth two parts
    time.now += 4.0
    found.pace.is_due(time.now - 0.1, time.now)
    assert len(found.ranges(after(121))) == 0  # 19 rows of 0.2 s


class Counting(MemoryRows):
    """Rows that note how often they are counted, and cannot be at first."""

    def __init__(self, *, refusals: int = 0) -> None:
        super().__init__(dict.fromkeys(range(10_000), "row"))
        self.counts, self.refusals = 0, refusals

    def count(self, within: KeyRange, after: Any) -> Any:
        self.counts += 1
        return super().count(within, after) if self.counts > self.refusals else None


def test_rows_are_counted_once_an_attempt(time: Clock) -> None:
    found = division(rows := Counting())
    for number in range(1, 6):
        time.now += 3.0
        assert len(found.ranges(after(number * 10))) == 2
        found.given(0)
    assert rows.counts == 1 and found.left == 10_000 - 50


def test_rows_that_cannot_be_counted_are_tried_at_growing_intervals(time: Clock) -> None:
    found, tried = division(rows := Counting(refusals=4)), []
    for number in range(1, 40):
        time.now += 3.0
        if found.ranges(after(number * 10)):
            break
        tried.append(rows.counts)
    assert [tried.index(count) + 1 for count in (1, 2, 3, 4)] == [1, 2, 4, 8] and number == 16


def test_rows_that_say_nothing_are_not_divided(time: Clock) -> None:
    class Opaque(Rows):
        def split(self, shards: int) -> Any: ...

        def page(self, within: KeyRange, after: Any) -> Any: ...

        def take_key(self, row: Any) -> Any: ...

        def find(self, key: Any) -> Any: ...

    found = division(Opaque())
    time.now += 3.0
    assert len(found.ranges(after(30))) == 0
    assert len(found.ranges_beyond(after(30), (30,))) == 1
    assert Opaque().divide(SHARD.range, None, 3, 30) == [SHARD.range]


# --- a row that raises ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"_atomic": True}, pytest.param({"order_field": "number"}, marks=pytest.mark.on_sql)],  # where keys ascend
)
def test_no_other_row_waits_for_one_that_raises(queue: Any, rows: Any, time: Clock, options: dict[str, Any]) -> None:
    keys = rows(40)
    calls = poison(keys[21], 5)
    others: list[set[Any]] = []
    iterations.before.insert(0, lambda row: others.append(set(iterations.seen)) if row.pk == keys[21] else None)
    handle = begun(_shards=2, **options)
    while queue.queued():
        finish(queue, min(queue.queued(), key=lambda task: task.due))
    assert len(calls) == 6
    assert len(others[0]) == 21 and others[1] == {*keys} - {keys[21]}
    assert set(iterations.seen) == set(keys) and handle.progress().rows == 40
    assert indexes(keys) == [0] * 20 + [1, 1] + [0] * 18


def test_a_row_that_raises_alone_gives_nothing(queue: Any, rows: Any, time: Clock) -> None:
    keys = rows(20)
    poison(keys[19], 3)
    handle = begun(_shards=2)
    drain(queue)
    check_end(keys, handle)
    assert indexes(keys) == [0] * 10 + [1] * 10


def test_a_row_of_a_part_may_be_quarantined(queue: Any, rows: Any, time: Clock) -> None:
    keys = rows(80)
    time.a_row_takes(1.0)
    poison(keys[39], 2)
    handle = begun(_on_error="quarantine", _max_attempts=2)
    drain(queue)
    (row,) = handle.progress().quarantined
    assert row.key == (keys[39],) and row.index != 1
    assert handle.progress().rows == 79
    handle.retry_quarantined()
    drain(queue)
    assert iterations.times() == dict.fromkeys(keys, 1)
    assert handle.progress().counters == {"passed": 80}


# --- what may happen meanwhile ----------------------------------------------------------------------------------------


def test_a_donor_that_is_killed_after_the_commit_reads_its_short_range(
    queue: Any, rows: Any, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = rows(40)
    time.a_row_takes(1.0)
    handle = begun(_shards=2)
    finish(queue, queue.queued()[0])
    first, second = queue.queued()
    finish(queue, first)
    with monkeypatch.context() as patch:
        patch.setattr(Division, "given", lambda self, parts: kill())
        with pytest.raises(Killed):
            deliver(second)
    drain(queue)
    check_end(keys, handle)
    assert set(indexes(keys[20:])) == {0, 1}


def test_a_division_that_rolls_back_gives_nothing(
    queue: Any, rows: Any, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = rows(40)
    time.a_row_takes(1.0)
    handle = begun(_shards=2)
    finish(queue, queue.queued()[0])
    first, second = queue.queued()
    finish(queue, first)
    with monkeypatch.context() as patch:
        patch.setattr("defer_iteration.protocol.scheduler.enqueue_many", lambda tasks: kill())
        with pytest.raises(Killed):
            deliver(second)
    assert [shard.done for shard in handle.progress().shards] == [True, False]
    assert [task.name for task in queue.queued()] == [second.name]
    drain(queue)
    check_end(keys, handle)


def meanwhile(monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """Do something between the bounds and the transaction of the first division."""
    kind, left = type(store_on("default")), [what]
    transact = kind.transact

    def before(self: DjangoIterationStore, work: Any) -> Any:
        if work.__name__ == "divide":
            while left:
                left.pop()()
        return transact(self, work)

    monkeypatch.setattr(kind, "transact", before)


def test_a_pause_before_the_transaction_keeps_the_range_whole(
    queue: Any, rows: Any, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = rows(40)
    time.a_row_takes(1.0)
    handle = begun(_shards=2)
    meanwhile(monkeypatch, handle.pause)
    drain(queue)
    assert handle.progress().state is IterationState.PAUSED
    assert [shard.done for shard in handle.progress().shards] == [True, False]
    assert len(iterations.seen) < 40
    handle.resume()
    drain(queue)
    check_end(keys, handle)


def test_a_resume_before_the_transaction_takes_the_shard(
    queue: Any, rows: Any, time: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = rows(40)
    time.a_row_takes(1.0)
    handle = begun(_shards=2)

    def stop_and_go() -> None:
        handle.pause()
        handle.resume()

    meanwhile(monkeypatch, stop_and_go)
    drain(queue)
    check_end(keys, handle)


def test_a_late_task_of_an_earlier_range_has_nothing_to_do(queue: Any, rows: Any, time: Clock) -> None:
    keys = rows(40)
    time.a_row_takes(1.0)
    handle = begun(_shards=2)
    finish(queue, queue.queued()[0])
    first, second = queue.queued()
    finish(queue, first)

    def again() -> None:
        execute(first.message.body, Delivery(task_name=first.name, queue="default", eta=first.due))

    on_row(10, again)  # when the second shard has given half of its rows to the first one
    finish(queue, second)
    assert len(iterations.seen) < 40
    drain(queue)
    check_end(keys, handle)


@pytest.mark.on_sql  # Datastore writes so many in pages
def test_a_few_shards_of_very_many_divide_at_the_same_cost(queue: Any, django_assert_num_queries: Any) -> None:
    store = DjangoIterationStore("default")
    iteration = Iteration(id="i" * 32, job=b"")
    store.create(iteration)
    made = [Shard(iteration_id=iteration.id, index=at, range=KeyRange(), done=at >= 10) for at in range(10_000)]
    assert store.plan(iteration, made, total=None)
    acquired = store.acquire(iteration.id, 3, 0, due=lambda requeues: 1.0)
    assert acquired is not None
    with django_assert_num_queries(3):
        assert store.slots(iteration.id) == (9_990, 10)
    bounds: list[Any] = [None, *((at,) for at in range(1, MOST)), None]
    ranges = [KeyRange(lower=low, upper=high) for low, high in zip(bounds, bounds[1:], strict=False)]
    with django_assert_num_queries(9 + MOST):
        divided = store.divide(acquired[1], ranges, due=2.0)
    assert divided is not None and [each.range for each in divided] == ranges
    assert store.slots(iteration.id) == (9_990 - MOST + 1, 10 + MOST - 1)
